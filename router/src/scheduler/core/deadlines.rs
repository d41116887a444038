//! The three limits of a job, and interrupts that nobody confirms.

use crate::clock::Tick;
use crate::model::decision::{DecisionRecord, Limit, Progress, Question, TimeoutDecision};
use crate::model::event::StopReason;
use crate::model::id::{JobId, UpstreamId};
use crate::model::job::JobOutcome;
use crate::model::seen::Seen;

use super::super::input::Action;
use super::{Asked, Core, Delivery, Phase, clamp_ms};

/// An extension is at least this long, so that a policy that says "1 ms" does not make the router spin.
const LEAST_EXTENSION_MS: u32 = 1_000;
/// An instance is not asked about one attempt more often.
const LEAST_INSPECTION_MS: u64 = 250;

impl Core {
    pub(super) fn check_deadlines(&mut self) {
        self.check_waiting();
        let running: Vec<JobId> = self.instances.iter().flat_map(|i| i.live.iter().map(|l| l.job)).collect();
        for id in running {
            self.check_running(id);
        }
        self.check_zombies();
        self.care();
    }

    /// Ask now and then whether attempts that were given up still occupy their instances.
    fn check_zombies(&mut self) {
        let now = self.now.tick;
        if now.since(self.last_zombie_check) < self.config.silence_ms {
            return;
        }
        self.last_zombie_check = now;
        for (index, instance) in self.instances.iter().enumerate().filter(|(_, i)| i.up) {
            let ask = |upstream: &UpstreamId| Action::InspectZombie { index, upstream: *upstream };
            self.out.extend(instance.zombies.iter().map(ask));
        }
    }

    fn check_waiting(&mut self) {
        let now = self.now.tick;
        for id in self.queue.late(now) {
            // Cleared while the question is open; the answer sets the next one.
            self.queue.change(id, |row| row.deadline = None);
            let entry = &self.jobs[&id];
            let waited = clamp_ms(now.since(entry.accepted));
            let progress = Progress { elapsed_ms: waited, silent_ms: waited, ..Progress::default() };
            let seen = Some(Seen::Progress(progress));
            let question = Question::OnTimeout { job: self.view(entry), limit: Limit::Queue, progress };
            self.ask(Asked::Timeout { job: id, attempt: 0, limit: Limit::Queue, seen }, question);
        }
    }

    fn check_running(&mut self, id: JobId) {
        let now = self.now.tick;
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        let deaf = self.instances.get(run.instance).is_some_and(|instance| !instance.linked);
        let silence_ms = self.config.silence_ms;
        // Where answers are all that can be heard, they are asked for often enough.
        let often = |stall_ms: u32| silence_ms.min(u64::from(stall_ms / 2).max(LEAST_INSPECTION_MS));
        let silence_ms = entry.limits.stall_ms.filter(|_| deaf).map_or(silence_ms, often);
        run.settling = run.settling.filter(|until| now < *until);
        if run.delivery == Delivery::Starting || run.failing || run.settling.is_some() {
            return;
        }
        if let Some(stopping) = &run.stopping {
            if stopping.until <= now {
                self.give_up(id);
            }
            return;
        }
        let limit = match (run.run_deadline, run.stalls_at(entry.limits.stall_ms)) {
            (Some(at), _) if at <= now => Some(Limit::Run),
            (_, Some(at)) if at <= now => Some(Limit::Stall),
            _ => None,
        };
        match limit {
            Some(limit) if !run.timing_out => self.ask_about(id, limit),
            _ if now.since(run.last_sign) >= silence_ms && now.since(run.last_inspected) >= silence_ms => {
                self.inspect(id);
            }
            _ => {}
        }
    }

    fn ask_about(&mut self, id: JobId, limit: Limit) {
        let now = self.now.tick;
        let Some(run) = self.run(id) else { return };
        run.timing_out = true;
        let attempt = run.attempt.number;
        let progress = Progress {
            elapsed_ms: clamp_ms(now.since(run.started)),
            silent_ms: clamp_ms(now.since(run.last_sign)),
            nodes_done: run.nodes_done,
            node_percent: run.node_percent,
        };
        let question = Question::OnTimeout { job: self.view(&self.jobs[&id]), limit, progress };
        self.ask(Asked::Timeout { job: id, attempt, limit, seen: Some(Seen::Progress(progress)) }, question);
    }

    pub(super) fn timeout_decided(
        &mut self,
        id: JobId,
        attempt: u32,
        limit: Limit,
        decision: TimeoutDecision,
        records: Vec<DecisionRecord>,
    ) {
        if limit == Limit::Queue {
            self.remember(records, Some(id), None);
            return self.queue_timeout_decided(id, decision);
        }
        let now = self.now.tick;
        let late = self.came_too_late(id, attempt, limit).map(str::to_owned);
        let over = late.is_some();
        self.remember(records, Some(id), late);
        let spent = self.jobs.get(&id).is_some_and(|entry| entry.attempts >= self.config.max_attempts);
        let Some(run) = self.run(id).filter(|run| run.attempt.number == attempt) else { return };
        run.timing_out = false;
        if over {
            return;
        }
        let (retry, reason) = match decision {
            TimeoutDecision::Extend { ms } => return run.extend(limit, ms.max(LEAST_EXTENSION_MS), now),
            TimeoutDecision::Retry if !spent => (true, String::new()),
            TimeoutDecision::Retry => {
                (false, format!("its {} limit was passed and its attempts are spent", name(limit)))
            }
            TimeoutDecision::Fail { reason } => (false, reason),
        };
        self.stop(id, StopReason::TimedOut { retry, reason });
    }

    /// Why a verdict on an attempt means nothing any more, if so.
    fn came_too_late(&mut self, id: JobId, attempt: u32, limit: Limit) -> Option<&'static str> {
        let now = self.now.tick;
        let stall_ms = self.jobs.get(&id).and_then(|entry| entry.limits.stall_ms);
        let Some(run) = self.run(id).filter(|run| run.attempt.number == attempt) else {
            return Some("too late: the attempt was over");
        };
        let lives = limit == Limit::Stall && run.stalls_at(stall_ms).is_none_or(|at| now < at);
        match (run.failing, run.settling.is_some(), lives) {
            (true, ..) => Some("too late: the attempt had failed"),
            (_, true, _) => Some("too late: the attempt had ended"),
            (.., true) => Some("too late: the attempt has shown life"),
            _ => None,
        }
    }

    fn queue_timeout_decided(&mut self, id: JobId, decision: TimeoutDecision) {
        let now = self.now.tick;
        let again_ms =
            self.jobs.get(&id).and_then(|entry| entry.limits.queue_ms).unwrap_or(LEAST_EXTENSION_MS);
        let wait_ms = match decision {
            TimeoutDecision::Extend { ms } => ms,
            TimeoutDecision::Retry => again_ms,
            TimeoutDecision::Fail { reason } => {
                // One that has had its turn meanwhile is late for another reason.
                let unserved = self.jobs.get(&id).is_some_and(|entry| entry.attempts == 0);
                if unserved && self.queue.remove(id).is_some() {
                    self.end_job(id, JobOutcome::TimedOut, reason, None);
                }
                return;
            }
        };
        let deadline = now.after(wait_ms.max(LEAST_EXTENSION_MS).into());
        self.queue.change(id, |row| row.deadline = Some(deadline));
    }

    /// The instance did not confirm the interrupt in time. The attempt is over for the router; what still runs there
    /// keeps its slot until the instance is seen without it, and a late result is fenced off. Freeing its memory is what
    /// a worker that comes back does first.
    fn give_up(&mut self, id: JobId) {
        let Some(run) = self.run(id) else { return };
        let (index, upstream) = (run.instance, run.attempt.upstream_id);
        if let Some(instance) = self.instances.get_mut(index) {
            instance.gave_up(upstream);
            self.free(index, true);
            let seconds = self.config.interrupt_grace_ms / 1_000;
            self.quarantine(index, format!("it did not confirm an interrupt within {seconds} s"));
        }
        self.confirm_stop(id);
    }
}

impl super::Run {
    /// When the silence is too long.
    fn stalls_at(&self, stall_ms: Option<u32>) -> Option<Tick> {
        stall_ms.map(|ms| self.last_sign.after(u64::from(ms) + self.stall_grace_ms))
    }

    fn extend(&mut self, limit: Limit, ms: u32, now: Tick) {
        match limit {
            Limit::Run => self.run_deadline = Some(now.after(ms.into())),
            Limit::Stall | Limit::Queue => self.stall_grace_ms += u64::from(ms),
        }
    }
}

fn name(limit: Limit) -> &'static str {
    match limit {
        Limit::Queue => "queue",
        Limit::Run => "run",
        Limit::Stall => "stall",
    }
}
