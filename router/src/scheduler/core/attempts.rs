//! The life of an attempt: sent, alive, ended. Every sighting carries the attempt's number; one of an earlier attempt
//! changes nothing.

use std::sync::Arc;

use crate::clock::Tick;
use crate::model::decision::{AttemptReport, Limits, ResultKind};
use crate::model::event::{Event, History};
use crate::model::id::JobId;
use crate::model::job::{Attempt, AttemptOutcome, JobOutcome};

use super::super::input::{
    Action, Announcement, Closed, EndKind, Ending, InstanceChange, Reply, RequestId, Sighting, Target,
};
use super::{Core, Phase, Run, StopReason, Stopping, Then, clamp_ms};

impl Run {
    pub(super) fn new(attempt: Attempt, instance: usize, now: Tick, limits: &Limits) -> Self {
        let mut run = Self {
            attempt,
            instance,
            sent: false,
            started: now,
            last_sign: now,
            nodes_done: 0,
            node_percent: None,
            run_deadline: None,
            stall_grace_ms: 0,
            predicted_ms: None,
            cold: Vec::new(),
            stopping: None,
            timing_out: false,
            failing: false,
            last_inspected: now,
        };
        run.restart_clocks(now, limits);
        run
    }

    pub(super) fn restart_clocks(&mut self, now: Tick, limits: &Limits) {
        self.started = now;
        self.last_sign = now;
        self.last_inspected = now;
        self.run_deadline = limits.run_ms.map(|ms| now.after(ms.into()));
    }
}

impl Core {
    pub(super) fn sighted(&mut self, id: JobId, number: u32, sighting: Sighting) {
        let now = self.now.tick;
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if run.attempt.number != number || !run.sent {
            return;
        }
        match sighting {
            Sighting::Dispatched => run.last_sign = now,
            Sighting::Present => run.last_inspected = now,
            Sighting::Progress { nodes_done, node_percent } => {
                run.last_sign = now;
                run.stall_grace_ms = 0;
                run.nodes_done = run.nodes_done.max(nodes_done);
                run.node_percent = node_percent;
            }
            Sighting::DispatchUnknown { .. } => self.inspect(id),
            Sighting::NotDispatched { detail } => self.failed(id, AttemptOutcome::Dispatch, detail, None),
            Sighting::Absent => {
                self.failed(id, AttemptOutcome::Lost, "the instance does not know it any more".into(), None);
            }
            Sighting::Ended(ending) => self.attempt_ended(id, ending),
        }
    }

    fn attempt_ended(&mut self, id: JobId, ending: Ending) {
        let stopping = self.run(id).and_then(|run| run.stopping.clone());
        match (ending.kind, stopping) {
            (EndKind::Success, _) => {
                self.learn(id, &ending);
                self.end_attempt(id, AttemptOutcome::Success, JobOutcome::Success, ending);
            }
            (EndKind::Interrupted, Some(stopping)) => self.stopped(id, &stopping.why, Some(ending)),
            // Somebody interrupted it behind the router's back: as good as its owner.
            (EndKind::Interrupted, None) => {
                self.end_attempt(id, AttemptOutcome::Interrupted, JobOutcome::Interrupted, ending);
            }
            (kind, Some(Stopping { why: StopReason::Owner, .. })) => {
                self.end_attempt(id, kind.outcome(), JobOutcome::Error, ending);
            }
            (kind, _) => {
                let detail = ending.detail.clone();
                self.failed(id, kind.outcome(), detail, Some(Box::new(ending)));
            }
        }
    }

    /// It was told to stop and it did.
    pub(super) fn stopped(&mut self, id: JobId, why: &StopReason, ending: Option<Ending>) {
        let ending = ending.unwrap_or_else(|| Ending {
            kind: EndKind::Interrupted,
            detail: "interrupted".into(),
            history: History::default(),
            load_ms: 0,
        });
        match why {
            StopReason::Owner => {
                self.end_attempt(id, AttemptOutcome::Interrupted, JobOutcome::Interrupted, ending);
            }
            StopReason::TimedOut { retry: true, .. } => {
                self.requeue(id, AttemptOutcome::TimedOut, "a limit was passed", 0);
            }
            StopReason::TimedOut { reason, .. } => {
                let ending = Ending { detail: reason.clone(), ..ending };
                self.end_attempt(id, AttemptOutcome::TimedOut, JobOutcome::TimedOut, ending);
            }
            StopReason::Preempted { requeue: true } => {
                self.requeue(id, AttemptOutcome::Preempted, "the policy wanted the instance", 0);
            }
            StopReason::Preempted { .. } => {
                let ending = Ending { detail: "the policy ended it".into(), ..ending };
                self.end_attempt(id, AttemptOutcome::Preempted, JobOutcome::Interrupted, ending);
            }
        }
    }

    /// The attempt and its job are over.
    pub(super) fn end_attempt(
        &mut self,
        id: JobId,
        outcome: AttemptOutcome,
        job: JobOutcome,
        ending: Ending,
    ) {
        let Some(run) = self.close_attempt(id, &outcome, ending.load_ms) else { return };
        self.records.push(Event::AttemptEnded {
            job: id,
            number: run.attempt.number,
            outcome,
            at: self.now.wall,
            detail: ending.detail.clone(),
        });
        self.end_job(id, job, ending.detail, Some(ending.history));
    }

    /// Free the slot, count the failure, report the attempt. The job's next phase is the caller's to set.
    pub(super) fn close_attempt(
        &mut self,
        id: JobId,
        outcome: &AttemptOutcome,
        load_ms: u32,
    ) -> Option<Box<Run>> {
        let run = self.take_run(id)?;
        let now = self.now.tick;
        self.out.push(Action::Closed(Box::new(Closed {
            job: self.jobs[&id].job.clone(),
            attempt: run.attempt.clone(),
            outcome: outcome.clone(),
            ran_ms: self.ran_ms(&run),
            load_ms,
        })));
        if let Some(instance) = self.instances.get_mut(run.instance) {
            instance.release(id, now);
            if is_the_instances(outcome) {
                instance.failed(now);
            }
            instance.last_signature = Some(self.jobs[&id].job.needs.signature);
        }
        self.recount(id, |t| t.running -= 1);
        self.report_attempt(id, &run, outcome, load_ms);
        self.queue.unhold(now);
        Some(run)
    }

    pub(super) fn end_job(
        &mut self,
        id: JobId,
        outcome: JobOutcome,
        detail: String,
        history: Option<History>,
    ) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        if matches!(entry.phase, Phase::Waiting) {
            self.recount(id, |t| t.queued -= 1);
        }
        let entry = self.jobs.get_mut(&id).expect("looked up above");
        entry.phase = Phase::Ending;
        let mut events = std::mem::take(&mut self.records);
        let history = history.unwrap_or_default();
        let node_errors = history.node_errors.clone();
        events.push(Event::JobEnded { job: id, outcome, at: self.now.wall, history });
        self.commit(Then::End { job: id, outcome, detail, node_errors }, events);
    }

    /// The end is durable: tell the client.
    pub(super) fn ended(&mut self, id: JobId, outcome: JobOutcome, detail: String, node_errors: String) {
        let attempt = self.jobs.get_mut(&id).and_then(|entry| entry.last_attempt.take());
        let Some(job) = self.forget(id) else { return };
        let remaining = self.jobs.len();
        let told = Announcement { job, outcome, attempt, detail, node_errors, remaining };
        self.out.push(Action::Announce(Box::new(told)));
    }

    fn learn(&mut self, id: JobId, ending: &Ending) {
        let Some(entry) = self.jobs.get(&id) else { return };
        let Phase::Running(run) = &entry.phase else { return };
        let run_ms = self.ran_ms(run).saturating_sub(ending.load_ms);
        let needs = entry.job.needs.clone();
        self.learned.teach(&needs, run.instance as u32, run_ms, ending.load_ms, &run.cold);
        let keep = self.config.resident_models;
        if let Some(instance) = self.instances.get_mut(run.instance) {
            instance.used(&needs.models, keep);
        }
        self.texts_changed();
    }

    fn report_attempt(&mut self, id: JobId, run: &Run, outcome: &AttemptOutcome, load_ms: u32) {
        let entry = &self.jobs[&id];
        self.reports.push(AttemptReport {
            tenant: entry.tenant,
            client: entry.client,
            signature: (entry.job.needs.signature ^ (entry.job.needs.signature >> 32)) as u32,
            instance: run.instance as u32,
            attempt: run.attempt.number,
            kind: result_kind(outcome),
            wait_ms: clamp_ms(run.started.since(entry.accepted)),
            run_ms: self.ran_ms(run),
            predicted_ms: run.predicted_ms,
            load_ms,
        });
    }

    pub(super) fn run(&mut self, id: JobId) -> Option<&mut Run> {
        match &mut self.jobs.get_mut(&id)?.phase {
            Phase::Running(run) => Some(run),
            _ => None,
        }
    }

    /// End the running phase; `Ending` until the caller sets the next one.
    pub(super) fn take_run(&mut self, id: JobId) -> Option<Box<Run>> {
        let entry = self.jobs.get_mut(&id)?;
        match std::mem::replace(&mut entry.phase, Phase::Ending) {
            Phase::Running(run) => Some(run),
            other => {
                entry.phase = other;
                None
            }
        }
    }

    pub(super) fn inspect(&mut self, id: JobId) {
        let now = self.now.tick;
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if run.sent && self.instances.get(run.instance).is_some_and(|i| i.up) {
            run.last_inspected = now;
            self.out.push(Action::Inspect { job: entry.job.clone(), attempt: run.attempt.clone() });
        }
    }

    pub(super) fn interrupt(&mut self, request: RequestId, target: &Target) {
        let jobs: Vec<JobId> = match target {
            Target::Prompt(prompt_id) => self.prompt_ids.get(prompt_id).copied().into_iter().collect(),
            Target::Running(scope) => {
                self.jobs.iter().filter(|(_, e)| e.is_of(scope)).map(|(id, _)| *id).collect()
            }
        };
        let affected = jobs.into_iter().filter(|id| self.stop(*id, StopReason::Owner)).count();
        self.out.push(Action::Reply { request, reply: Reply::Done { affected } });
    }

    /// Tell a running attempt to stop; false when it does not run. An owner's wish overrides a policy's.
    pub(super) fn stop(&mut self, id: JobId, why: StopReason) -> bool {
        let until = self.now.tick.after(self.config.interrupt_grace_ms);
        let Some(run) = self.run(id) else { return false };
        if run.stopping.is_some() && why != StopReason::Owner {
            return true;
        }
        run.stopping = Some(Stopping { why, until });
        if run.sent {
            let action = Action::Interrupt {
                instance: run.attempt.instance.clone(),
                upstream: run.attempt.upstream_id,
            };
            self.out.push(action);
        }
        true
    }

    pub(super) fn instance_changed(&mut self, index: usize, change: InstanceChange) {
        let now = self.now.tick;
        let Some(instance) = self.instances.get_mut(index) else { return };
        match change {
            InstanceChange::Up(can) => {
                instance.up = true;
                instance.can = can;
                instance.idle_since = instance.live.is_empty().then_some(now);
                self.inspect_all(index);
            }
            InstanceChange::Capabilities(can) => instance.can = can,
            InstanceChange::Devices(devices) => instance.devices = Arc::new(devices),
            InstanceChange::Foreign { running, pending } => instance.foreign = (running, pending),
            InstanceChange::Resync => self.inspect_all(index),
            InstanceChange::ZombieGone(upstream) => self.zombie_gone(index, upstream),
            InstanceChange::Down { reason } => self.instance_down(index, &reason),
        }
        self.texts_changed();
        self.queue.unhold(now);
    }

    fn inspect_all(&mut self, index: usize) {
        let jobs: Vec<JobId> = self.instances[index].live.iter().map(|live| live.job).collect();
        jobs.into_iter().for_each(|id| self.inspect(id));
    }

    fn instance_down(&mut self, index: usize, reason: &str) {
        let instance = &mut self.instances[index];
        instance.up = false;
        instance.foreign = (0, 0);
        instance.zombies.clear();
        instance.unloaded();
        let jobs: Vec<JobId> = instance.live.iter().map(|live| live.job).collect();
        for id in jobs {
            // One that is not sent yet is settled when its start is durable.
            if self.run(id).is_some_and(|run| run.sent) {
                self.failed(id, AttemptOutcome::Crash, format!("its instance went down: {reason}"), None);
            }
        }
    }

    pub(super) fn confirm_stop(&mut self, id: JobId) {
        if let Some(stopping) = self.run(id).and_then(|run| run.stopping.clone()) {
            self.stopped(id, &stopping.why, None);
        }
    }
}

/// Does the outcome speak against the instance?
fn is_the_instances(outcome: &AttemptOutcome) -> bool {
    use AttemptOutcome::{Crash, Dispatch, Lost, OutOfMemory, TimedOut};
    matches!(outcome, Crash | Lost | Dispatch | OutOfMemory | TimedOut)
}

fn result_kind(outcome: &AttemptOutcome) -> ResultKind {
    match outcome {
        AttemptOutcome::Success => ResultKind::Success,
        AttemptOutcome::NodeError | AttemptOutcome::OutOfMemory | AttemptOutcome::Rejected => {
            ResultKind::Error
        }
        AttemptOutcome::Interrupted | AttemptOutcome::Preempted => ResultKind::Cancelled,
        AttemptOutcome::TimedOut => ResultKind::TimedOut,
        AttemptOutcome::Crash | AttemptOutcome::Lost | AttemptOutcome::Dispatch => ResultKind::Lost,
    }
}
