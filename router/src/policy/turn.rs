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
    Admission, Answer, Consultation, Decided, DecisionRecord, Fallback, Hook, Limits, PolicyVersion,
    Priority, Question,
};
use crate::model::view::JobView;

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
        let asked = self.asked;
        let context = &asked.context;
        let answer = match &asked.question {
            Question::Intake { job, .. } => self.intake(job),
            Question::Reassess { job } => {
                let (priority, limits) = (self.priority(job), self.limits(job));
                Answer::Reassess { priority, limits }
            }
            Question::Route { job, candidates } => Answer::Route(self.ask(
                Hook::Route,
                |guest, check| {
                    let decision = check.route(guest.route(asked, job, candidates)?, candidates)?;
                    let reason = decision.reason.clone();
                    Ok((decision, reason))
                },
                |_| {
                    let decision = native::route(candidates);
                    let reason = decision.reason.clone();
                    (decision, reason)
                },
                |decision| record::said_route(&decision.route, candidates, context),
            )),
            Question::OnTimeout { job, limit, progress } => Answer::OnTimeout(self.ask(
                Hook::OnTimeout,
                |guest, check| {
                    let decision = check.timeout(guest.on_timeout(asked, job, *limit, progress)?);
                    let reason = record::timeout_reason(&decision);
                    Ok((decision, reason))
                },
                |service| {
                    let decision = native::on_timeout(job, *limit, progress, &service.config);
                    let reason = record::timeout_reason(&decision);
                    (decision, reason)
                },
                record::said_timeout,
            )),
            Question::OnFailure { job, failure } => Answer::OnFailure(self.ask(
                Hook::OnFailure,
                |guest, check| Ok(unexplained(check.recovery(guest.on_failure(asked, job, failure)?))),
                |service| unexplained(native::on_failure(failure, &service.config)),
                record::said_recovery,
            )),
            Question::Tick { instances } => Answer::Tick(self.ask(
                Hook::Tick,
                |guest, check| Ok(unexplained(check.orders(guest.tick(asked, instances)?, instances)?)),
                |_| unexplained(native::tick()),
                |orders| record::said_orders(orders, context),
            )),
            Question::Observe { outcomes } => {
                self.ask(
                    Hook::Observe,
                    |guest, _| Ok(unexplained(guest.observe(asked, outcomes)?)),
                    |_| unexplained(()),
                    |()| String::new(),
                );
                Answer::Observe
            }
        };
        Decided { answer, records: self.records }
    }

    fn intake(&mut self, job: &JobView) -> Answer {
        let asked = self.asked;
        let admission = self.ask(
            Hook::Admit,
            |guest, check| {
                let Question::Intake { load, .. } = &asked.question else {
                    return Ok(unexplained(Admission::Admit));
                };
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
                Ok(said) => (Ok(said), slot.breaker.succeeded(hook, now)),
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
