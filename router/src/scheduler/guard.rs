//! The circuit breaker of one instance: too many failures in a short time, or an attempt that it does not let go of, and
//! it is given nothing more (quarantine). After a pause, and when it holds no such attempt any more, one attempt at a time
//! is risked; the first that does not fail ends the quarantine, a failure doubles the pause.

use std::collections::VecDeque;

use crate::clock::Tick;

use super::config::QuarantineConfig;

/// The pause doubles up to this.
const LONGEST_PAUSE_MS: u64 = 600_000;

#[derive(Debug, Default)]
pub(super) struct Guard {
    state: State,
    failures: VecDeque<Tick>,
    /// Quarantines in a row, without a good end in between.
    trips: u32,
    restarted: Option<Tick>,
    /// Somebody was told that it should be restarted.
    told: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open(Open),
    /// One attempt at a time may try.
    HalfOpen(Open),
}

#[derive(Debug, Clone)]
struct Open {
    reason: String,
    since: Tick,
    until: Tick,
}

/// For operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    pub reason: String,
    pub for_ms: u64,
    /// It is given single attempts to see whether it works again.
    pub probing: bool,
}

/// What an instance that keeps an attempt for too long is to have done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Restart,
    /// There is no way to restart it.
    Tell,
}

impl Guard {
    /// Attempts that it may have at a time, if not all.
    pub(super) fn cap(&self) -> Option<u32> {
        match self.state {
            State::Closed => None,
            State::HalfOpen(_) => Some(1),
            State::Open(_) => Some(0),
        }
    }

    pub(super) fn report(&self, now: Tick) -> Option<Quarantine> {
        let (open, probing) = match &self.state {
            State::Closed => return None,
            State::Open(open) => (open, false),
            State::HalfOpen(open) => (open, true),
        };
        Some(Quarantine { reason: open.reason.clone(), for_ms: now.since(open.since), probing })
    }

    /// An attempt failed through the instance's fault. True if that begins a quarantine.
    pub(super) fn failed(&mut self, now: Tick, what: &str, config: &QuarantineConfig) -> bool {
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.since(*at) > config.window_ms) {
            self.failures.pop_front();
        }
        match self.state {
            State::Open(_) => false,
            State::HalfOpen(_) => {
                self.open(now, format!("the attempt that tried it failed: {what}"), config);
                true
            }
            State::Closed if self.failures.len() >= config.failures as usize => {
                let (count, window_s) = (self.failures.len(), config.window_ms / 1_000);
                self.open(
                    now,
                    format!("{count} attempts failed within {window_s} s, the last: {what}"),
                    config,
                );
                true
            }
            State::Closed => false,
        }
    }

    /// Give it nothing more.
    pub(super) fn open(&mut self, now: Tick, reason: String, config: &QuarantineConfig) {
        let pause_ms = config.pause_ms.saturating_mul(1 << self.trips.min(20)).min(LONGEST_PAUSE_MS);
        let since = match &self.state {
            State::Closed => now,
            State::Open(open) | State::HalfOpen(open) => open.since,
        };
        self.trips = self.trips.saturating_add(1);
        self.failures.clear();
        self.told = false;
        self.state = State::Open(Open { reason, since, until: now.after(pause_ms) });
    }

    /// An attempt ended in a way that does not speak against the instance. True if that ends a quarantine.
    pub(super) fn worked(&mut self) -> bool {
        let ends = matches!(self.state, State::HalfOpen(_));
        if ends {
            self.state = State::Closed;
            self.trips = 0;
            self.failures.clear();
        }
        ends
    }

    /// Another process answers: it may be tried at once.
    pub(super) fn renewed(&mut self) {
        if let State::Open(open) = &self.state {
            self.state = State::HalfOpen(open.clone());
        }
    }

    /// Time passed. `holds`: it still has an attempt that was given up, which nothing but its end can heal.
    pub(super) fn pass(&mut self, now: Tick, holds: bool) {
        if let State::Open(open) = &self.state
            && !holds
            && open.until <= now
        {
            self.state = State::HalfOpen(open.clone());
        }
    }

    /// What is due, if it has held an attempt that was given up for too long. Said once in a pause between restarts,
    /// or once in a quarantine.
    pub(super) fn overdue(
        &mut self,
        now: Tick,
        supervised: bool,
        config: &QuarantineConfig,
    ) -> Option<Overdue> {
        let State::Open(open) = &self.state else { return None };
        if now.since(open.since) < config.restart_after_ms {
            return None;
        }
        if !supervised {
            return (!std::mem::replace(&mut self.told, true)).then_some(Overdue::Tell);
        }
        self.may_restart(now, config).then_some(Overdue::Restart)
    }

    /// Not more often than the operator allows; counts as a restart when it says yes.
    pub(super) fn may_restart(&mut self, now: Tick, config: &QuarantineConfig) -> bool {
        let may = self.restarted.is_none_or(|at| now.since(at) >= config.restart_pause_ms);
        if may {
            self.restarted = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: QuarantineConfig = QuarantineConfig {
        failures: 3,
        window_ms: 30_000,
        pause_ms: 1_000,
        restart_after_ms: 5_000,
        restart_pause_ms: 60_000,
    };

    fn tripped() -> Guard {
        let mut guard = Guard::default();
        assert!(!guard.failed(Tick(1), "500", &CONFIG));
        assert!(!guard.failed(Tick(2), "500", &CONFIG));
        assert!(guard.failed(Tick(3), "500", &CONFIG));
        guard
    }

    #[test]
    fn failures_within_the_window_open_it_and_a_good_end_closes_it() {
        let mut guard = tripped();
        assert_eq!(guard.cap(), Some(0));
        let told = guard.report(Tick(13)).expect("is in quarantine");
        assert_eq!((told.for_ms, told.probing), (10, false));
        assert_eq!(told.reason, "3 attempts failed within 30 s, the last: 500");
        guard.pass(Tick(1_002), false);
        assert_eq!(guard.cap(), Some(0), "not yet");
        guard.pass(Tick(1_003), false);
        assert_eq!(guard.cap(), Some(1), "half open");
        assert!(guard.worked());
        assert_eq!((guard.cap(), guard.report(Tick(1_003))), (None, None));
        assert!(!guard.worked(), "there is nothing to end");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut guard = Guard::default();
        for at in [0, 20_000, 40_000, 60_000] {
            assert!(!guard.failed(Tick(at), "500", &CONFIG));
        }
    }

    #[test]
    fn each_failed_trial_doubles_the_pause_up_to_a_bound() {
        let mut guard = tripped();
        let mut now = 3;
        for pause in [1_000, 2_000, 4_000, 8_000] {
            guard.pass(Tick(now + pause - 1), false);
            assert_eq!(guard.cap(), Some(0), "{pause}");
            guard.pass(Tick(now + pause), false);
            assert_eq!(guard.cap(), Some(1), "{pause}");
            now += pause;
            assert!(guard.failed(Tick(now), "500", &CONFIG));
        }
        (0..100).for_each(|_| guard.open(Tick(now), "again".into(), &CONFIG));
        guard.pass(Tick(now + LONGEST_PAUSE_MS), false);
        assert_eq!(guard.cap(), Some(1));
        assert_eq!(
            guard.report(Tick(now)).expect("in quarantine").for_ms,
            now - 3,
            "since the first failure"
        );
    }

    #[test]
    fn an_attempt_that_is_held_keeps_it_closed_off_until_another_process_answers() {
        let mut guard = tripped();
        guard.pass(Tick(1_000_000), true);
        assert_eq!(guard.cap(), Some(0));
        guard.renewed();
        assert_eq!(guard.cap(), Some(1));
    }

    #[test]
    fn restarts_are_due_after_a_while_and_bounded_in_rate() {
        let mut guard = tripped();
        assert_eq!(guard.overdue(Tick(5_002), true, &CONFIG), None);
        assert_eq!(guard.overdue(Tick(5_003), true, &CONFIG), Some(Overdue::Restart));
        assert_eq!(guard.overdue(Tick(6_000), true, &CONFIG), None);
        assert!(!guard.may_restart(Tick(60_000), &CONFIG), "a policy's order is bounded too");
        assert_eq!(guard.overdue(Tick(65_003), true, &CONFIG), Some(Overdue::Restart));
        assert_eq!(Guard::default().overdue(Tick(99_999), true, &CONFIG), None);
        let mut guard = tripped();
        assert_eq!(guard.overdue(Tick(9_000), false, &CONFIG), Some(Overdue::Tell));
        assert_eq!(guard.overdue(Tick(9_001), false, &CONFIG), None, "said once");
    }
}
