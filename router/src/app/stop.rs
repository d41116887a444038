//! What ends `serve`: a signal, a second one for those in a hurry, or the failure of a part.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::tasks;

/// Why the router stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It was told to.
    Asked(&'static str),
    /// A part without which it cannot serve has ended. A supervisor should start it again.
    Failed(&'static str),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked(how) => f.write_str(how),
            Self::Failed(part) => write!(f, "{part} failed"),
        }
    }
}

/// Signals are not lost from here on.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stop {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until then, SIGHUP reads the configuration again.
    pub(super) async fn wanted(&mut self, mut reload: impl AsyncFnMut()) -> Why {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Why::Asked("terminated"),
                _ = self.interrupt.recv() => return Why::Asked("interrupted"),
                failed = tasks::fatal() => return Why::Failed(failed),
                _ = self.hangup.recv() => reload().await,
            }
        }
    }

    /// The next signal.
    pub(super) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupted",
        }
    }
}
