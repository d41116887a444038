//! Time, asked of one place, so that the scheduler, the ledger and a simulation can be replayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::model::job::WallMs;

/// A point on the monotonic clock: milliseconds since [`HEAD_START`] before the process started. Never compared across
/// processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub fn after(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }
}

/// Both clocks at one moment: durations come from the monotonic one, dates from the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    pub tick: Tick,
    pub wall: WallMs,
}

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Now;
}

/// Waits of an earlier process lie before this one's start, and there must be a tick for their beginning.
const HEAD_START: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let tick = Tick((HEAD_START + self.started.elapsed()).as_millis() as u64);
        Now { tick, wall: wall.as_millis() as u64 }
    }
}

/// A clock that a test or a simulation moves by hand. Clones share one time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::Relaxed);
        Now { tick: Tick(ms), wall: 1_700_000_000_000 + ms }
    }
}
