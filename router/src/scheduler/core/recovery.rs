//! After a failed attempt: the policy says again or never, the host's limit on attempts still holds.

use crate::clock::Tick;
use crate::model::decision::{Cause, DecisionRecord, Failure, Question, RecoveryDecision};
use crate::model::event::{Event, StopReason};
use crate::model::id::JobId;
use crate::model::job::{AttemptOutcome, JobOutcome};
use crate::model::seen::Seen;

use super::super::input::{Action, Ending};
use super::explain::seeing;
use super::{Asked, Core, Instance, Phase, Then};

/// A retry's delay is clamped to this.
const MAX_DELAY_MS: u32 = 600_000;

impl Core {
    /// An attempt failed for a reason that another attempt may not have.
    pub(super) fn failed(
        &mut self,
        id: JobId,
        outcome: AttemptOutcome,
        detail: String,
        ending: Option<Box<Ending>>,
    ) {
        let Some(run) = self.run(id) else { return };
        if run.failing {
            return;
        }
        // Its owner wanted it gone, and gone it is.
        if let Some(why) = run.stopping.as_ref().map(|s| s.why.clone())
            && (why == StopReason::Owner || ending.is_none())
        {
            return self.stopped(id, &why, ending.map(|e| *e));
        }
        run.failing = true;
        let (number, instance) = (run.attempt.number, run.instance);
        let entry = &self.jobs[&id];
        let Phase::Running(run) = &entry.phase else { return };
        let failure = Failure {
            cause: cause(&outcome),
            instance: instance.min(u32::MAX as usize) as u32,
            attempt: number,
            ran_ms: self.ran_ms(run),
        };
        let question = Question::OnFailure { job: self.view(entry), failure };
        self.ask(Asked::Failure { job: id, attempt: number, outcome, ending, detail }, question);
    }

    pub(super) fn failure_decided(
        &mut self,
        id: JobId,
        (outcome, detail, ending): (AttemptOutcome, String, Option<Box<Ending>>),
        decision: RecoveryDecision,
        records: Vec<DecisionRecord>,
    ) {
        let spent = self.jobs.get(&id).is_some_and(|entry| entry.attempts >= self.config.max_attempts);
        let failed = serde_json::json!({
            "cause": outcome,
            "detail": crate::comfy::errors::clip(&detail, 500),
            "instance": self.run(id).map(|run| run.attempt.instance.clone()),
        });
        let records = seeing(records, Seen::of(&failed));
        let stopped = self.run(id).and_then(|run| run.stopping.as_ref().map(|s| s.why.clone()));
        // Its owner wanted it gone while the policy was asked.
        if let Some(why @ StopReason::Owner) = &stopped
            && ending.is_none()
        {
            self.remember(records, Some(id), Some("ended the job: its owner stopped it".into()));
            return self.stopped(id, why, None);
        }
        let hopeless = outcome == AttemptOutcome::OutOfMemory && !self.finds_more_memory(id, &decision);
        match decision {
            RecoveryDecision::Retry { delay_ms, avoid_instance }
                if !spent && !hopeless && !stopped.is_some_and(|why| why.ends_the_job()) =>
            {
                self.remember(records, Some(id), Some("queued again".into()));
                let avoid = self.run(id).map(|run| run.instance).filter(|_| avoid_instance);
                if let Some(entry) = self.jobs.get_mut(&id) {
                    entry.avoid = avoid;
                }
                self.requeue(id, outcome, &detail, delay_ms.min(MAX_DELAY_MS));
            }
            decision => {
                let retry = matches!(decision, RecoveryDecision::Retry { .. });
                let did = match (spent, hopeless && retry) {
                    (true, _) => "ended the job: its attempts are spent",
                    (false, true) => "ended the job: no instance has more memory",
                    (false, false) => "ended the job",
                };
                self.remember(records, Some(id), Some(did.into()));
                let job = job_outcome(&outcome);
                let ending = ending.map_or_else(|| no_ending(detail), |e| *e);
                self.end_attempt(id, outcome, job, ending);
            }
        }
    }

    /// A job that ran out of memory is tried once more on an instance with more of it; where that is not known, on any
    /// other. A policy that wants the same instance again has freed some, and its word holds.
    fn finds_more_memory(&mut self, id: JobId, decision: &RecoveryDecision) -> bool {
        let RecoveryDecision::Retry { avoid_instance: true, .. } = decision else { return true };
        let Some(index) = self.run(id).map(|run| run.instance) else { return false };
        let mib = self.instances.get(index).and_then(Instance::vram_mib);
        let Some(entry) = self.jobs.get_mut(&id) else { return false };
        let second = std::mem::replace(&mut entry.ran_out, true);
        entry.outgrew_mib = mib;
        let entry = &self.jobs[&id];
        let other = |(i, instance): (usize, &Instance)| i != index && entry.may_run_on(instance);
        !second && self.instances.iter().enumerate().any(other)
    }

    /// Close the attempt and, once that is durable, let the job wait again.
    pub(super) fn requeue(&mut self, id: JobId, outcome: AttemptOutcome, detail: &str, delay_ms: u32) {
        let Some(run) = self.close_attempt(id, &outcome, detail, 0) else { return };
        self.recount(id, |t| t.queued += 1);
        self.out.push(Action::Forget { upstream: run.attempt.upstream_id });
        let mut events = std::mem::take(&mut self.records);
        events.push(Event::AttemptEnded {
            job: id,
            number: run.attempt.number,
            outcome,
            at: self.now.wall,
            detail: detail.to_owned(),
        });
        let ready_at = self.now.tick.after(delay_ms.into());
        self.commit(Then::Requeue { job: id, ready_at }, events);
    }

    /// It has no attempt any more. One that was stopped for good meanwhile ends instead.
    pub(super) fn wait_again(&mut self, id: JobId, ready_at: Tick) {
        self.enqueue(id, ready_at);
        if let Some(detail) = self.jobs.get(&id).and_then(|entry| entry.unwanted) {
            self.queue.remove(id);
            return self.end_job(id, JobOutcome::Interrupted, detail.into(), None);
        }
        self.status();
    }

    /// A durable attempt that was never sent: its instance went away in between.
    pub(super) fn unsent(&mut self, id: JobId, detail: &str) {
        self.requeue(id, AttemptOutcome::Dispatch, detail, 0);
    }
}

fn no_ending(detail: String) -> Ending {
    use super::super::input::EndKind;
    Ending { kind: EndKind::NodeError, detail, history: Default::default(), load_ms: 0 }
}

fn cause(outcome: &AttemptOutcome) -> Cause {
    match outcome {
        AttemptOutcome::Crash => Cause::Crash,
        AttemptOutcome::OutOfMemory => Cause::OutOfMemory,
        AttemptOutcome::NodeError => Cause::NodeError,
        AttemptOutcome::Rejected => Cause::Rejected,
        AttemptOutcome::Dispatch => Cause::Dispatch,
        _ => Cause::Lost,
    }
}

fn job_outcome(outcome: &AttemptOutcome) -> JobOutcome {
    match outcome {
        AttemptOutcome::Success => JobOutcome::Success,
        AttemptOutcome::NodeError | AttemptOutcome::OutOfMemory | AttemptOutcome::Rejected => {
            JobOutcome::Error
        }
        AttemptOutcome::Interrupted | AttemptOutcome::Preempted => JobOutcome::Interrupted,
        AttemptOutcome::TimedOut => JobOutcome::TimedOut,
        AttemptOutcome::Crash | AttemptOutcome::Lost | AttemptOutcome::Dispatch => JobOutcome::Lost,
        AttemptOutcome::Unknown => JobOutcome::Unknown,
    }
}
