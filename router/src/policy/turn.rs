//! One consultation on the policy thread: each hook of it is asked, checked, recorded and, where need be, answered
//! natively.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::breaker::Change;
use super::check::Check;
use super::handle::micros;
use super::lane::{Pick, Slot};
use super::native;
use super::record::{self, builtin_version};
use super::service::Service;
use super::status::State;
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
    asked: &'a Arc<Consultation>,
    now: Tick,
    records: Vec<DecisionRecord>,
}

/// A checked answer with why it was given.
type Said<T> = (T, String);

impl<'a> Turn<'a> {
    pub(crate) fn new(service: &'a mut Service, asked: &'a Arc<Consultation>) -> Self {
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
        // News, not a question: whoever wants it gets it, whichever hooks are its own.
        for lane in 0..self.service.lanes.len() {
            if lane == self.service.lane(Hook::Observe) || self.service.lanes[lane].exports(Hook::Observe) {
                self.ask_lane(
                    lane,
                    Hook::Observe,
                    |guest, _| Ok(unexplained(guest.observe(asked, outcomes)?)),
                    |_| unexplained(()),
                    |()| String::new(),
                );
            }
        }
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
        let lane = self.service.lane(hook);
        self.ask_lane(lane, hook, call, native, say)
    }

    fn ask_lane<T>(
        &mut self,
        lane: usize,
        hook: Hook,
        call: impl FnOnce(&mut Guest, &Check<'_>) -> Result<Said<T>, CallError>,
        native: impl FnOnce(&Service) -> Said<T>,
        say: impl FnOnce(&T) -> String,
    ) -> T {
        let started = Instant::now();
        let called = self.call(lane, hook, call);
        let took = started.elapsed();
        let (fallback, failed, said) = match called.answered {
            Ok(said) => (None, None, said),
            Err((reason, message)) => (reason, reason.zip(message), native(self.service)),
        };
        let (answer, reason) = said;
        let said = say(&answer);
        if let Some(pick) = called.pick {
            let outcome = failed.map_or_else(|| Ok(said.clone()), Err);
            self.settle(lane, pick, hook, outcome, took, called.change);
        }
        metrics::decision(hook, &called.version, fallback, took);
        self.records.push(DecisionRecord {
            at: self.asked.context.now_ms,
            hook,
            version: called.version,
            fallback,
            took_us: micros(took),
            said,
            reason,
            job: None,
            did: None,
            instance: None,
            seen: None,
        });
        answer
    }

    fn call<T>(
        &mut self,
        lane: usize,
        hook: Hook,
        call: impl FnOnce(&mut Guest, &Check<'_>) -> Result<Said<T>, CallError>,
    ) -> Called<T> {
        let config = self.service.config.clone();
        let check = Check { limits: &config.limits, bounds: &config.bounds };
        let (now, now_ms) = (self.now, self.asked.context.now_ms);
        let lane = &mut self.service.lanes[lane];
        if lane.newest.is_none() {
            // The built-in by the operator's choice.
            return Called::native(builtin_version(), None);
        }
        let picked = lane.pick(hook, self.asked.job, now);
        let Some((pick, slot)) = picked.and_then(|pick| Some((pick, lane.slot(pick)?))) else {
            return Called::native(lane.newest_version(), Some(Fallback::Ejected));
        };
        let version = slot.version.id.clone();
        if !slot.version.exports(hook) {
            return Called::native(version, Some(Fallback::NotExported));
        }
        let (answered, change) = answer(slot, hook, &check, (now, now_ms), call);
        let answered = answered.map_err(|error| (Some(error.reason), Some(error.message)));
        Called { version, pick: Some(pick), answered, change }
    }

    /// What the call means for the version that was asked.
    fn settle(
        &mut self,
        lane: usize,
        pick: Pick,
        hook: Hook,
        outcome: Result<String, (Fallback, String)>,
        took: Duration,
        change: Change,
    ) {
        let dir = self.service.config.dir.clone();
        let lane = &mut self.service.lanes[lane];
        if let Some(slot) = lane.slot(pick) {
            slot.evidence.remember(self.asked, hook, outcome, micros(took));
            if change == Change::SwitchedOff {
                let (version, now_ms) = (&slot.version, self.asked.context.now_ms);
                slot.evidence.dump(dir.as_deref(), &version.id, version.settings(), now_ms);
            }
        }
        if change == Change::SwitchedOff && pick == Pick::Canary {
            lane.end_canary(State::Failed, &format!("{} failed too often", hook.as_str()));
        }
        if change != Change::None {
            self.service.publish();
        }
    }
}

/// What came of asking a lane.
struct Called<T> {
    version: PolicyVersion,
    /// The slot that was asked; none when none was.
    pick: Option<Pick>,
    /// Why the built-in answers, if it does: none is by the operator's choice.
    answered: Result<Said<T>, (Option<Fallback>, Option<String>)>,
    change: Change,
}

impl<T> Called<T> {
    fn native(version: PolicyVersion, why: Option<Fallback>) -> Self {
        Self { version, pick: None, answered: Err((why, None)), change: Change::None }
    }
}

fn answer<T>(
    slot: &mut Slot,
    hook: Hook,
    check: &Check<'_>,
    (now, now_ms): (Tick, u64),
    call: impl FnOnce(&mut Guest, &Check<'_>) -> Result<Said<T>, CallError>,
) -> (Result<Said<T>, CallError>, Change) {
    if slot.guest.is_none() {
        slot.revive(now_ms);
    }
    let answered = match &mut slot.guest {
        Some(guest) => call(guest, check).inspect(|_| guest.keep()),
        None => Err(CallError {
            reason: Fallback::Unavailable,
            message: "a new guest could not be made".to_owned(),
            dead: true,
        }),
    };
    let change = match &answered {
        Ok(_) => slot.breaker.succeeded(hook, now),
        Err(error) => slot.failed(hook, error, now),
    };
    (answered, change)
}

fn unexplained<T>(answer: T) -> Said<T> {
    (answer, String::new())
}
