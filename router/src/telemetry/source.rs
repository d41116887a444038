//! A way of reading GPUs, and the thread it has to itself: a source that hangs delays nobody.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Target;
use super::merge::Message;
use super::reading::{Device, SourceKind, Use};
use crate::clock::{Clock, Tick};

/// Everything a source saw at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    pub devices: Vec<Device>,
    pub uses: Vec<Use>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is nothing to read here: said once, asked again rarely.
    #[error("{0}")]
    Absent(String),
    /// This sample failed.
    #[error("{0}")]
    Failed(String),
}

/// Called on a thread of its own, so that it may block.
pub trait Source: Send + 'static {
    fn kind(&self) -> SourceKind;
    fn sample(&mut self, targets: &[Target]) -> Result<Sample, SourceError>;
}

/// What one call of a source gave.
#[derive(Debug)]
pub(super) struct Sampled {
    pub(super) source: SourceKind,
    /// When the call began: the figures are not older.
    pub(super) at: Tick,
    pub(super) outcome: Result<Sample, SourceError>,
}

/// How often something absent is looked for again.
const ABSENT_RETRY: Duration = Duration::from_secs(60);

pub(super) struct Runner {
    pub(super) source: Box<dyn Source>,
    pub(super) targets: Arc<ArcSwap<Vec<Target>>>,
    pub(super) every: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) out: Sender<Message>,
    /// Samples at once on a message; ends when it is closed.
    pub(super) wake: Receiver<()>,
}

impl Runner {
    pub(super) fn start(self) -> std::io::Result<()> {
        let name = format!("telemetry-{}", self.source.kind().as_str());
        thread::Builder::new().name(name).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        let kind = self.source.kind();
        loop {
            let (at, targets) = (self.clock.now().tick, self.targets.load_full());
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.source.sample(&targets)))
                .unwrap_or_else(|_| Err(SourceError::Failed("the source panicked".into())));
            let absent = matches!(outcome, Err(SourceError::Absent(_)));
            if self.out.send(Message::Sampled(Sampled { source: kind, at, outcome })).is_err() {
                return;
            }
            match self.wake.recv_timeout(if absent { ABSENT_RETRY } else { self.every }) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
