//! What one guest has used of its limits.

use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use crate::policy::config::GuestLimits;

/// A log line is cut here.
const LINE_BYTES: usize = 1_024;

/// Table elements of one guest; a Python guest has some ten thousand.
const TABLE_ELEMENTS: usize = 100_000;

/// Why the host ended a call. Reaches the caller through wasmtime's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("more host calls than policy.limits.host_calls allows")]
    HostCalls,
    #[error("past its deadline in a host call")]
    Deadline,
}

/// Host calls and time of the present call.
#[derive(Debug)]
pub(super) struct Meter {
    calls_left: u32,
    ends: Instant,
}

impl Meter {
    pub(super) fn new(host_calls: u32, time: Duration) -> Self {
        Self { calls_left: host_calls, ends: Instant::now() + time }
    }

    /// Counts one host call. Time is looked at too: epochs interrupt only the guest's own code.
    pub(super) fn spend(&mut self) -> Result<(), Stop> {
        self.calls_left = self.calls_left.checked_sub(1).ok_or(Stop::HostCalls)?;
        if self.calls_left.is_multiple_of(16) { self.in_time() } else { Ok(()) }
    }

    /// Counts one that may take long: few of them would pass the deadline by far.
    pub(super) fn spend_much(&mut self) -> Result<(), Stop> {
        self.calls_left = self.calls_left.checked_sub(1).ok_or(Stop::HostCalls)?;
        self.in_time()
    }

    fn in_time(&self) -> Result<(), Stop> {
        // The grace is the tick that the epoch deadline has on top, too.
        if Instant::now() > self.ends + Duration::from_millis(1) { Err(Stop::Deadline) } else { Ok(()) }
    }
}

/// All linear memories of a guest together, and its tables.
#[derive(Debug)]
pub(super) struct Memory {
    max: usize,
    pub(super) used: usize,
    /// Something was refused during the present call. The guest's abort afterwards does not say why.
    pub(super) refused: bool,
}

impl Memory {
    pub(super) fn new(limits: &GuestLimits) -> Self {
        Self { max: limits.memory_bytes(), used: 0, refused: false }
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.max {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= TABLE_ELEMENTS;
        self.refused |= !fits;
        Ok(fits)
    }
}

/// How much a policy may still write to the log.
#[derive(Debug)]
pub(super) struct LogBudget {
    per_second: u32,
    left: u32,
    window: Instant,
    dropped: u64,
}

/// What becomes of one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Written, after saying that so many were dropped before.
    Kept {
        text: String,
        dropped_before: u64,
    },
    Dropped,
}

impl LogBudget {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, left: per_second, window: Instant::now(), dropped: 0 }
    }

    pub(super) fn take(&mut self, message: &str, now: Instant) -> Line {
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            self.window = now;
            self.left = self.per_second;
        }
        let text = crate::policy::check::text(message, LINE_BYTES);
        let bytes = text.len() as u32;
        if bytes > self.left {
            self.left = 0;
            self.dropped += 1;
            return Line::Dropped;
        }
        self.left -= bytes;
        Line::Kept { text, dropped_before: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_dropped_counted_and_forgiven_after_a_second() {
        let start = Instant::now();
        let mut log = LogBudget::new(100);
        let line = "x".repeat(60);
        assert_eq!(log.take(&line, start), Line::Kept { text: line.clone(), dropped_before: 0 });
        for _ in 0..5 {
            assert_eq!(log.take(&line, start), Line::Dropped);
        }
        let later = start + Duration::from_secs(2);
        assert_eq!(log.take(&line, later), Line::Kept { text: line.clone(), dropped_before: 5 });
    }

    #[test]
    fn memories_count_together() {
        let mut memory = Memory::new(&GuestLimits { memory_mib: 1, ..GuestLimits::default() });
        assert!(memory.memory_growing(0, 600_000, None).unwrap());
        assert!(memory.memory_growing(600_000, 700_000, None).unwrap());
        assert!(!memory.memory_growing(0, 600_000, None).unwrap());
        assert!(memory.refused);
        assert_eq!(memory.used, 700_000);
    }

    #[test]
    fn calls_that_take_long_are_timed_one_by_one() {
        let mut meter = Meter { calls_left: 100, ends: Instant::now() - Duration::from_secs(1) };
        assert_eq!((meter.spend(), meter.spend_much()), (Ok(()), Err(Stop::Deadline)));
    }

    #[test]
    fn host_calls_run_out() {
        let mut meter = Meter::new(2, Duration::from_secs(60));
        assert_eq!((meter.spend(), meter.spend(), meter.spend()), (Ok(()), Ok(()), Err(Stop::HostCalls)));
    }
}
