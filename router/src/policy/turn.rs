//! One consultation on the policy thread: each hook of it is asked, checked, recorded and, where need be, answered
//! natively.

use std::time::Instant;

use super::breaker::Change;
use super::check::Check;
use super::handle::micros;
use super::native;
use super::record;
use super::service::Service;
use super::wasm::{CallError, Guest};
use crate::clock::Tick;
use crate::metrics;
use crate::model::decision::{
    Admission, Answer, AttemptReport, Consultation, Decided, DecisionRecord, Failure, Fallback, Hook, Limit,
    Limits, Placement, PolicyVersion, Priority, Progress, Question, RouteDecision, TimeoutDecision,
};
use crate::model::view::{Candidate, InstanceView, JobView, Load, Offer, Seat};

pub(crate) struct Turn<'a> {
    service: &'a mut Service,
    asked: &'a Consultation,
    now: Tick,
    records: Vec<DecisionRecord>,
}

/// A checked answer with why it was given.
type Said<T> = (T, String);

impl<'a> Turn<'a> {
    pub(crate) fn new(service: &'a mut Service, asked: &'a Consultation) -> Self {
        let now = service.clock.now().tick;
        Self { service, asked, now, records: Vec::with_capacity(3) }
    }

    pub(crate) fn take(mut self) -> Decided {
        let answer = match &self.asked.question {
            Question::Intake { job, load } => self.intake(job, load),
            Question::Reassess { job } => {
                let (priority, limits) = (self.priority(job), self.limits(job));
                Answer::Reassess { priority, limits }
            }
            Question::Route { job, candidates } => self.route(job, candidates),
            Question::Place { jobs, seats, offers } => self.place(jobs, seats, offers),
            Question::OnTimeout { job, limit, progress } => self.on_timeout(job, *limit, progress),
            Question::OnFailure { job, failure } => self.on_failure(job, failure),
            Question::Tick { instances } => self.tick(instances),
            Question::Observe { outcomes } => self.observe(outcomes),
        };
        Decided { answer, records: self.records }
    }

    fn route(&mut self, job: &JobView, candidates: &[Candidate]) -> Answer {
        let asked = self.asked;
        let with_reason = |decision: RouteDecision| {
            let reason = decision.reason.clone();
            (decision, reason)
        };
        Answer::Route(self.ask(
            Hook::Route,
            |guest, check| Ok(with_reason(check.route(guest.route(asked, job, candidates)?, candidates)?)),
            |_| with_reason(native::route(candidates)),
            |decision| record::said_route(&decision.route, candidates, &asked.context),
        ))
    }

    fn place(&mut self, jobs: &[JobView], seats: &[Seat], offers: &[Offer]) -> Answer {
        let asked = self.asked;
        let with_reason = |placement: Placement| {
            let reason = placement.reason.clone();
            (placement, reason)
        };
        Answer::Place(self.ask(
            Hook::Place,
            |guest, check| {
                let answer = guest.place(asked, jobs, seats, offers)?;
                Ok(with_reason(check.placement(answer, jobs.len(), seats, offers)?))
            },
            |_| with_reason(native::place(seats, offers)),
            |placement| record::said_placement(placement, jobs.len(), seats, &asked.context),
        ))
    }

    fn on_timeout(&mut self, job: &JobView, limit: Limit, progress: &Progress) -> Answer {
        let asked = self.asked;
        let with_reason = |decision: TimeoutDecision| {
            let reason = record::timeout_reason(&decision);
            (decision, reason)
        };
        Answer::OnTimeout(self.ask(
            Hook::OnTimeout,
            |guest, check| Ok(with_reason(check.timeout(guest.on_timeout(asked, job, limit, progress)?))),
            |service| with_reason(native::on_timeout(job, limit, progress, &service.config)),
            record::said_timeout,
        ))
    }

    fn on_failure(&mut self, job: &JobView, failure: &Failure) -> Answer {
        let asked = self.asked;
        Answer::OnFailure(self.ask(
            Hook::OnFailure,
            |guest, check| Ok(unexplained(check.recovery(guest.on_failure(asked, job, failure)?))),
            |service| unexplained(native::on_failure(failure, &service.config)),
            record::said_recovery,
        ))
    }

    fn tick(&mut self, instances: &[InstanceView]) -> Answer {
        let asked = self.asked;
        Answer::Tick(self.ask(
            Hook::Tick,
            |guest, check| Ok(unexplained(check.orders(guest.tick(asked, instances)?, instances)?)),
            |_| unexplained(native::tick()),
            |orders| record::said_orders(orders, &asked.context),
        ))
    }

    fn observe(&mut self, outcomes: &[AttemptReport]) -> Answer {
        let asked = self.asked;
        self.ask(
            Hook::Observe,
            |guest, _| Ok(unexplained(guest.observe(asked, outcomes)?)),
            |_| unexplained(()),
            |()| String::new(),
        );
        Answer::Observe
    }

    fn intake(&mut self, job: &JobView, load: &Load) -> Answer {
        let asked = self.asked;
        let admission = self.ask(
            Hook::Admit,
            |guest, check| {
                let admission = check.admission(guest.admit(asked, job, load)?);
                let reason = match &admission {
                    Admission::Reject { reason, .. } => reason.clone(),
                    Admission::Admit => String::new(),
                };
                Ok((admission, reason))
            },
            |_| unexplained(Admission::Admit),
            record::said_admission,
        );
        if matches!(admission, Admission::Reject { .. }) {
            return Answer::Intake { admission, priority: Priority::default(), limits: Limits::default() };
        }
        let (priority, limits) = (self.priority(job), self.limits(job));
        Answer::Intake { admission, priority, limits }
    }

    fn priority(&mut self, job: &JobView) -> Priority {
        let asked = self.asked;
        self.ask(
            Hook::Prioritize,
            |guest, check| {
                let (priority, reason) = guest.prioritize(asked, job)?;
                Ok((check.priority(priority)?, check.text(&reason)))
            },
            |service| unexplained(native::prioritize(job, &service.config)),
            record::said_priority,
        )
    }

    fn limits(&mut self, job: &JobView) -> Limits {
        let asked = self.asked;
        self.ask(
            Hook::LimitsFor,
            |guest, check| Ok(unexplained(check.limits(guest.limits_for(asked, job)?))),
            |service| unexplained(native::limits_for(&service.config)),
            record::said_limits,
        )
    }

    /// Asks one hook of the version whose turn it is, answers natively when that fails, and records either.
    fn ask<T>(
        &mut self,
        hook: Hook,
        call: impl FnOnce(&mut Guest, &Check<'_>) -> Result<Said<T>, CallError>,
        native: impl FnOnce(&Service) -> Said<T>,
        say: impl FnOnce(&T) -> String,
    ) -> T {
        let started = Instant::now();
        let (version, answered) = self.call(hook, call);
        let took = started.elapsed();
        let fallback = answered.as_ref().err().copied();
        let (answer, reason) = answered.unwrap_or_else(|_| native(self.service));
        metrics::decision(hook, &version, fallback, took);
        self.records.push(DecisionRecord {
            at: self.asked.context.now_ms,
            hook,
            version,
            fallback,
            took_us: micros(took),
            said: say(&answer),
            reason,
            job: None,
            did: None,
            instance: None,
        });
        answer
    }

    fn call<T>(
        &mut self,
        hook: Hook,
        call: impl FnOnce(&mut Guest, &Check<'_>) -> Result<Said<T>, CallError>,
    ) -> (PolicyVersion, Result<Said<T>, Fallback>) {
        let config = self.service.config.clone();
        let check = Check { limits: &config.limits, bounds: &config.bounds };
        let (now, now_ms) = (self.now, self.asked.context.now_ms);
        let Some(slot) = self.service.slot(hook, now) else {
            return (self.service.newest_version(), Err(Fallback::Ejected));
        };
        let version = slot.version.id.clone();
        if !slot.version.exports(hook) {
            return (version, Err(Fallback::NotExported));
        }
        if slot.guest.is_none() {
            slot.revive(now_ms);
        }
        let (answered, change) = match &mut slot.guest {
            None => {
                let message = "a new guest could not be made".to_owned();
                let error = CallError { reason: Fallback::Unavailable, message, dead: true };
                (Err(error.reason), slot.failed(hook, &error, now))
            }
            Some(guest) => match call(guest, &check) {
                Ok(said) => {
                    guest.keep();
                    (Ok(said), slot.breaker.succeeded(hook, now))
                }
                Err(error) => (Err(error.reason), slot.failed(hook, &error, now)),
            },
        };
        if change != Change::None {
            self.service.publish();
        }
        (version, answered)
    }
}

fn unexplained<T>(answer: T) -> Said<T> {
    (answer, String::new())
}
