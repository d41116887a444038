//! A version that is obeyed for a share of the jobs, and how those fare against the others.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::config::CanaryLimits;
use super::lane::Slot;
use crate::model::decision::{AttemptReport, PolicyVersion, ResultKind};
use crate::model::id::JobId;
use crate::model::job::WallMs;

#[derive(Debug)]
pub(crate) struct Canary {
    pub slot: Slot,
    since: WallMs,
    trial: Trial,
}

/// Which jobs are the canary's, and how both sides fare.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// Of the jobs, 0 to 1.
    share: f64,
    limits: CanaryLimits,
    its: Tally,
    others: Tally,
}

/// How jobs fared.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Tally {
    /// Attempts that ended.
    pub ended: u32,
    pub failed: u32,
    /// First attempts, whose wait counts.
    pub waited: u32,
    pub mean_wait_ms: f64,
}

impl Tally {
    fn add(&mut self, report: &AttemptReport) {
        self.ended += 1;
        self.failed += u32::from(!matches!(report.kind, ResultKind::Success | ResultKind::Cancelled));
        if report.attempt == 1 {
            self.waited += 1;
            self.mean_wait_ms += (f64::from(report.wait_ms) - self.mean_wait_ms) / f64::from(self.waited);
        }
    }

    fn failure_rate(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.ended.max(1))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanaryReport {
    pub version: PolicyVersion,
    pub share: f64,
    pub since: WallMs,
    pub canary: Tally,
    pub live: Tally,
}

impl Canary {
    pub(crate) fn new(slot: Slot, share: f64, since: WallMs, limits: CanaryLimits) -> Self {
        Self { slot, since, trial: Trial { share, limits, its: Tally::default(), others: Tally::default() } }
    }

    pub(crate) fn share(&self) -> f64 {
        self.trial.share
    }

    pub(crate) fn takes(&self, job: JobId) -> bool {
        self.trial.takes(job)
    }

    /// Why it should go, if it should.
    pub(crate) fn observe(&mut self, reports: &[AttemptReport]) -> Option<String> {
        self.trial.observe(reports);
        self.trial.is_worse()
    }

    pub(crate) fn report(&self) -> CanaryReport {
        CanaryReport {
            version: self.slot.version.id.clone(),
            share: self.trial.share,
            since: self.since,
            canary: self.trial.its,
            live: self.trial.others,
        }
    }
}

impl Trial {
    /// Always the same answer for a job, so that all its questions go to one version.
    fn takes(&self, job: JobId) -> bool {
        let mut hash = DefaultHasher::new();
        job.hash(&mut hash);
        (hash.finish() >> 11) as f64 / ((1_u64 << 53) as f64) < self.share
    }

    fn observe(&mut self, reports: &[AttemptReport]) {
        for report in reports {
            let Some(job) = report.job else { continue };
            let tally = if self.takes(job) { &mut self.its } else { &mut self.others };
            tally.add(report);
        }
    }

    fn is_worse(&self) -> Option<String> {
        let (its, others, limits) = (&self.its, &self.others, &self.limits);
        let share = |percent: u32| f64::from(percent) / 100.0;
        if its.ended < limits.attempts || others.ended < limits.attempts {
            return None;
        }
        let (rate, usual) = (its.failure_rate(), others.failure_rate());
        if rate > usual + share(limits.failures_percent) {
            let percent = |rate: f64| rate * 100.0;
            return Some(format!(
                "{:.0} % of its attempts fail, of the others {:.0} %",
                percent(rate),
                percent(usual)
            ));
        }
        let (wait, usual) = (its.mean_wait_ms, others.mean_wait_ms);
        let longest = usual * (1.0 + share(limits.wait_percent)) + f64::from(limits.wait_ms);
        if its.waited >= limits.attempts && others.waited >= limits.attempts && wait > longest {
            return Some(format!("its jobs wait {wait:.0} ms, the others {usual:.0} ms"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample;

    fn trial() -> Trial {
        let limits = CanaryLimits::default();
        Trial { share: 0.25, limits, its: Tally::default(), others: Tally::default() }
    }

    /// So many jobs, each told by whether it is the canary's: how it ended and what it waited.
    fn observed(trial: &mut Trial, jobs: usize, fares: impl Fn(bool) -> (ResultKind, u32)) {
        for _ in 0..jobs {
            let job = JobId::mint();
            let (kind, wait_ms) = fares(trial.takes(job));
            let report =
                AttemptReport { job: Some(job), attempt: 1, kind, wait_ms, ..sample::outcomes(1).remove(0) };
            trial.observe(&[report]);
        }
    }

    #[test]
    fn a_job_is_always_on_the_same_side_and_sides_have_their_shares() {
        let trial = trial();
        let jobs: Vec<JobId> = (0..4_000).map(|_| JobId::mint()).collect();
        let taken = jobs.iter().filter(|job| trial.takes(**job)).count();
        // Six standard deviations.
        assert!((836..=1_164).contains(&taken), "{taken} of 4000");
        assert!(jobs.iter().all(|job| trial.takes(*job) == trial.takes(*job)));
    }

    #[test]
    fn worse_is_more_failures_or_longer_waits_and_only_once_enough_is_known() {
        let well = (ResultKind::Success, 1_000);
        /// What a job of the canary, or another one, ended with and how long it waited.
        type Ended = fn(bool) -> (ResultKind, u32);
        let cases: [(Ended, Option<&str>); 5] = [
            (|_| (ResultKind::Error, 1_000), None),
            (|its| (if its { ResultKind::Error } else { ResultKind::Success }, 1_000), Some("fail")),
            (|its| (ResultKind::Success, if its { 2_100 } else { 1_000 }), Some("wait 2100 ms")),
            (|its| (ResultKind::Success, if its { 1_900 } else { 1_000 }), None),
            (|its| (if its { ResultKind::Cancelled } else { ResultKind::Success }, 1_000), None),
        ];
        for (fares, expected) in cases {
            let mut few = trial();
            observed(&mut few, 20, fares);
            assert_eq!(few.is_worse(), None, "too few are known");
            let mut many = trial();
            observed(&mut many, 400, fares);
            match expected {
                None => assert_eq!(many.is_worse(), None),
                Some(part) => assert!(many.is_worse().is_some_and(|why| why.contains(part))),
            }
        }
        let mut good = trial();
        observed(&mut good, 400, |_| well);
        assert_eq!((good.is_worse(), good.its.ended + good.others.ended), (None, 400));
    }

    #[test]
    fn an_operator_says_how_much_worse_is_too_much() {
        let fares = |its| (ResultKind::Success, if its { 2_100 } else { 1_000 });
        let with = |limits| {
            let mut trial = Trial { limits, ..trial() };
            observed(&mut trial, 400, fares);
            trial.is_worse()
        };
        let usual = CanaryLimits::default();
        assert!(with(usual).is_some());
        assert_eq!(with(CanaryLimits { wait_percent: 100, ..usual }), None);
        assert_eq!(with(CanaryLimits { wait_ms: 700, ..usual }), None);
        assert_eq!(with(CanaryLimits { attempts: 1_000, ..usual }), None);
        let mut failing = Trial { limits: CanaryLimits { failures_percent: 100, ..usual }, ..trial() };
        observed(&mut failing, 400, |its| (if its { ResultKind::Error } else { ResultKind::Success }, 0));
        assert_eq!(failing.is_worse(), None, "so much is allowed that no canary is returned for it");
    }
}
