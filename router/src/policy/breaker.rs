//! When a version is switched off, and when it is tried again. Time is given, so that tests need not wait.

use super::config::Breaker as Config;
use crate::clock::Tick;
use crate::model::decision::{Fallback, Hook};

#[derive(Debug)]
pub(crate) struct Breaker {
    config: Config,
    /// In a row, by hook: a policy whose `route` loops while its `prioritize` answers is as bad as one that always loops.
    failures: [u32; Hook::ALL.len()],
    open: Option<Open>,
    /// How long it stays off next time.
    pause_ms: u64,
    closed_at: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub hook: Hook,
    pub reason: Fallback,
    pub until: Tick,
}

/// What an answer, or the lack of one, has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    SwitchedOff,
    SwitchedOn,
}

impl Breaker {
    pub(crate) fn new(config: Config) -> Self {
        let failures = [0; Hook::ALL.len()];
        Self { config, failures, open: None, pause_ms: config.probe_ms, closed_at: Tick::default() }
    }

    /// One that has seen nothing yet.
    pub(crate) fn afresh(&self) -> Self {
        Self::new(self.config)
    }

    pub(crate) fn open(&self) -> Option<Open> {
        self.open
    }

    /// May this call be made? While switched off only a trial of the hook that failed, once the pause is over: another
    /// hook's success would say nothing.
    pub(crate) fn admits(&self, hook: Hook, now: Tick) -> bool {
        self.open.is_none_or(|open| now >= open.until && (hook == open.hook || open.hook == Hook::Configure))
    }

    pub(crate) fn succeeded(&mut self, hook: Hook, now: Tick) -> Change {
        self.failures[hook as usize] = 0;
        if self.open.take().is_none() {
            return Change::None;
        }
        self.failures = [0; Hook::ALL.len()];
        self.closed_at = now;
        Change::SwitchedOn
    }

    pub(crate) fn failed(&mut self, hook: Hook, reason: Fallback, now: Tick) -> Change {
        if let Some(open) = &mut self.open {
            self.pause_ms = self.pause_ms.saturating_mul(2).min(self.config.max_probe_ms);
            *open = Open { hook, reason, until: now.after(self.pause_ms) };
            return Change::None;
        }
        let count = &mut self.failures[hook as usize];
        *count += 1;
        if *count < self.config.failures {
            return Change::None;
        }
        // Failing soon after a trial went well is still the same trouble: the pause keeps growing.
        let settled =
            now.since(self.closed_at) >= self.config.max_probe_ms || self.closed_at == Tick::default();
        self.pause_ms = if settled {
            self.config.probe_ms
        } else {
            self.pause_ms.saturating_mul(2).min(self.config.max_probe_ms)
        };
        self.open = Some(Open { hook, reason, until: now.after(self.pause_ms) });
        Change::SwitchedOff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Config { failures: 3, probe_ms: 100, max_probe_ms: 400 })
    }

    fn fail(breaker: &mut Breaker, at: u64) -> Change {
        breaker.failed(Hook::Route, Fallback::Trap, Tick(at))
    }

    #[test]
    fn the_third_failure_in_a_row_switches_off_and_successes_of_other_hooks_do_not_help() {
        let mut breaker = breaker();
        assert_eq!(fail(&mut breaker, 1), Change::None);
        breaker.succeeded(Hook::Prioritize, Tick(1));
        assert_eq!(fail(&mut breaker, 2), Change::None);
        assert_eq!(fail(&mut breaker, 3), Change::SwitchedOff);
        assert!(!breaker.admits(Hook::Route, Tick(50)) && !breaker.admits(Hook::Prioritize, Tick(500)));
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let mut breaker = breaker();
        for _ in 0..10 {
            assert_eq!(fail(&mut breaker, 1), Change::None);
            assert_eq!(fail(&mut breaker, 1), Change::None);
            breaker.succeeded(Hook::Route, Tick(1));
        }
    }

    #[test]
    fn trials_come_at_growing_intervals_until_one_goes_well() {
        let mut breaker = breaker();
        for _ in 0..3 {
            fail(&mut breaker, 0);
        }
        assert!(breaker.admits(Hook::Route, Tick(100)));
        assert_eq!(fail(&mut breaker, 100), Change::None);
        assert!(!breaker.admits(Hook::Route, Tick(299)) && breaker.admits(Hook::Route, Tick(300)));
        assert_eq!(breaker.succeeded(Hook::Route, Tick(300)), Change::SwitchedOn);
        assert!(breaker.admits(Hook::Prioritize, Tick(300)));
        for _ in 0..3 {
            fail(&mut breaker, 310);
        }
        assert!(!breaker.admits(Hook::Route, Tick(310 + 399)), "trouble soon after a trial pauses longer");
    }
}
