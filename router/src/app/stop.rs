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

/// Signals are not lost from here on.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn wanted(&mut self) -> Why {
        tokio::select! {
            asked = self.asked() => Why::Asked(asked),
            failed = tasks::fatal() => Why::Failed(failed),
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
