//! The life of an attempt: sent, alive, ended. Every sighting carries the attempt's number; one of an earlier attempt
//! changes nothing.

use serde_json::json;

use crate::clock::Tick;
use crate::comfy::frame::{UntoldEnd, end_of};
use crate::model::decision::{AttemptReport, Limits, ResultKind};
use crate::model::event::{Event, History, StopReason};
use crate::model::id::JobId;
use crate::model::job::{Attempt, AttemptOutcome, JobOutcome};

use super::super::input::{Action, Announcement, Closed, EndKind, Ending, Sighting};
use super::{Core, Delivery, Phase, Run, Stopping, Then, clamp_ms};

/// Reports that wait to be told to the policy; if it is too slow, the oldest are not told.
const REPORTS_KEPT: usize = 4096;
/// What became of an attempt that is over is read from its instance; that never takes longer.
const SETTLING_MS: u64 = 60_000;

impl Run {
    pub(super) fn new(attempt: Attempt, instance: usize, now: Tick, limits: &Limits) -> Self {
        let mut run = Self {
            attempt,
            instance,
            delivery: Delivery::Starting,
            settling: None,
            stuck_since: None,
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

    /// The limit of silence counts from now.
    pub(super) fn shows_life(&mut self, now: Tick) {
        self.last_sign = now;
        self.stall_grace_ms = 0;
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
        if run.attempt.number != number || run.delivery == Delivery::Starting {
            return;
        }
        match sighting {
            Sighting::Dispatched => self.taken(id),
            Sighting::NotDispatched { detail, blame } => {
                let index = run.instance;
                if blame {
                    self.blame(index, &detail);
                }
                self.failed(id, AttemptOutcome::Dispatch, detail, None);
            }
            Sighting::DispatchUnknown { detail } => self.unsure(id, &detail),
            Sighting::Progress { nodes_done, node_percent } => {
                run.delivery = Delivery::Taken;
                run.shows_life(now);
                run.stuck_since = None;
                run.nodes_done = run.nodes_done.max(nodes_done);
                run.node_percent = node_percent;
            }
            Sighting::Over => run.settling = Some(now.after(SETTLING_MS)),
            Sighting::Ended(ending) => self.attempt_ended(id, ending),
            // What an inspection says of an attempt whose end is being read is old.
            Sighting::Present { .. } | Sighting::Absent if run.settling.is_some() => {}
            Sighting::Present { stuck } => self.present(id, stuck),
            Sighting::Absent => {
                let (index, what) = (run.instance, "the instance does not know it any more");
                // One that was told to stop before it began leaves no trace.
                if run.stopping.is_none() {
                    self.blame(index, what);
                }
                self.failed(id, AttemptOutcome::Lost, what.into(), None);
            }
        }
    }

    /// The instance took the prompt.
    fn taken(&mut self, id: JobId) {
        let now = self.now.tick;
        let Some(run) = self.run(id) else { return };
        run.last_sign = now;
        run.delivery = Delivery::Taken;
        let index = run.instance;
        // The interrupt may have come before it.
        self.tell_to_stop(id);
        // It went down while the answer was on its way here.
        if !self.instances.get(index).is_some_and(|instance| instance.up) {
            self.crashed(id, "it went down");
        }
    }

    /// Nobody knows whether the instance took the prompt: it is asked, if it can be.
    fn unsure(&mut self, id: JobId, detail: &str) {
        let Some(run) = self.run(id) else { return };
        if run.delivery == Delivery::Sending {
            run.delivery = Delivery::Unsure;
        }
        let index = run.instance;
        if self.instances.get(index).is_some_and(|instance| instance.up) {
            return self.inspect(id);
        }
        self.crashed(id, detail);
    }

    /// The instance has it. One that waits there though nothing runs waits for a worker that is no more: prompts are
    /// taken within moments.
    fn present(&mut self, id: JobId, stuck: bool) {
        let (now, patience_ms) = (self.now.tick, self.config.silence_ms);
        let Some(run) = self.run(id) else { return };
        run.last_inspected = now;
        run.delivery = Delivery::Taken;
        if !stuck {
            run.stuck_since = None;
            let index = run.instance;
            if self.instances.get(index).is_some_and(|instance| !instance.linked)
                && let Some(run) = self.run(id)
            {
                // Nothing can be heard of it: that the instance has it is all the life it can show.
                run.shows_life(now);
            }
            // The interrupt may have come before it, or may be lost.
            return self.tell_to_stop(id);
        }
        let since = *run.stuck_since.get_or_insert(now);
        if run.failing || now.since(since) < patience_ms {
            return;
        }
        let (index, upstream) = (run.instance, run.attempt.upstream_id);
        self.send_interrupt(id);
        let what = "its worker takes no prompts";
        if let Some(instance) = self.instances.get_mut(index) {
            instance.gave_up(upstream);
        }
        self.quarantine(index, what.into());
        self.failed(id, AttemptOutcome::Lost, format!("the instance does not run it: {what}"), None);
    }

    fn attempt_ended(&mut self, id: JobId, ending: Ending) {
        let stopping = self.run(id).and_then(|run| run.stopping.clone());
        self.worked(id);
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
        let Some(run) = self.close_attempt(id, &outcome, &ending.detail, ending.load_ms) else { return };
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
        detail: &str,
        load_ms: u32,
    ) -> Option<Box<Run>> {
        let run = self.take_run(id)?;
        let now = self.now.tick;
        self.out.push(Action::Closed(Box::new(Closed {
            job: self.jobs[&id].job.clone(),
            attempt: run.attempt.clone(),
            outcome: outcome.clone(),
            detail: detail.to_owned(),
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
        self.queue.unhold();
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
        self.version += 1;
        let mut events = std::mem::take(&mut self.records);
        let mut history = history.unwrap_or_default();
        if history.status.is_empty() && outcome != JobOutcome::Cancelled {
            history.status = self.untold_status(id, outcome, &detail, &history.node_errors);
        }
        let node_errors = history.node_errors.clone();
        events.push(Event::JobEnded { job: id, outcome, at: self.now.wall, history });
        self.commit(Then::End { job: id, outcome, detail, node_errors }, events);
    }

    /// What history says of a job whose end no instance told.
    fn untold_status(&self, id: JobId, outcome: JobOutcome, detail: &str, node_errors: &str) -> String {
        let entry = &self.jobs[&id];
        let attempt = entry.last_attempt.as_ref().map(|attempt| attempt.number);
        let untold = UntoldEnd { outcome, attempt, detail, node_errors };
        let (kind, data) = end_of(&entry.job, &untold, self.now.wall);
        let success = outcome == JobOutcome::Success;
        let word = if success { "success" } else { "error" };
        json!({"status_str": word, "completed": success, "messages": [[kind, data]]}).to_string()
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
        if self.reports.len() == REPORTS_KEPT {
            self.reports.pop_front();
        }
        self.reports.push_back(AttemptReport {
            job: Some(id),
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
        let there = matches!(run.delivery, Delivery::Unsure | Delivery::Taken) && run.settling.is_none();
        if there && self.instances.get(run.instance).is_some_and(|i| i.up) {
            run.last_inspected = now;
            self.out.push(Action::Inspect { job: entry.job.clone(), attempt: run.attempt.clone() });
        }
    }
}

/// Does the outcome speak against the instance?
fn is_the_instances(outcome: &AttemptOutcome) -> bool {
    use AttemptOutcome::{Crash, Dispatch, Lost, OutOfMemory, TimedOut, Unknown};
    matches!(outcome, Crash | Lost | Unknown | Dispatch | OutOfMemory | TimedOut)
}

fn result_kind(outcome: &AttemptOutcome) -> ResultKind {
    match outcome {
        AttemptOutcome::Success => ResultKind::Success,
        AttemptOutcome::NodeError | AttemptOutcome::OutOfMemory | AttemptOutcome::Rejected => {
            ResultKind::Error
        }
        AttemptOutcome::Interrupted | AttemptOutcome::Preempted => ResultKind::Cancelled,
        AttemptOutcome::TimedOut => ResultKind::TimedOut,
        AttemptOutcome::Crash | AttemptOutcome::Lost | AttemptOutcome::Unknown | AttemptOutcome::Dispatch => {
            ResultKind::Lost
        }
    }
}
