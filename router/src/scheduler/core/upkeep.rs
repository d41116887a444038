//! What happens by the clock or on an operator's word: housekeeping, feedback, readings, a new policy version.

use crate::clock::Tick;
use crate::model::decision::{Act, DecisionRecord, Limits, Order, Priority, Question};
use crate::model::event::StopReason;
use crate::model::id::JobId;
use crate::model::view::GpuView;

use super::super::input::Action;
use super::{Asked, Core};

/// Outcomes told to the policy in one call at most; the rest waits for the next.
const REPORTS_PER_CALL: usize = 256;
/// Jobs a new policy version is asked about in one step, so that a long queue does not block decisions.
const REASSESSED_PER_STEP: usize = 64;
const FEEDBACK_MS: u64 = 1_000;

impl Core {
    pub(super) fn tick(&mut self) {
        self.check_deadlines();
        self.reassess_some();
        self.housekeep();
        self.give_feedback();
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.out.push(Action::Note(records));
        }
    }

    fn housekeep(&mut self) {
        let now = self.now.tick;
        if self.housekeeping_open || now.since(self.last_housekeeping) < self.config.housekeeping_ms {
            return;
        }
        self.last_housekeeping = now;
        self.housekeeping_open = true;
        let instances =
            self.instances.iter().enumerate().map(|(i, instance)| instance.view(i, now)).collect();
        self.ask(Asked::Housekeeping, Question::Tick { instances });
    }

    pub(super) fn ordered(&mut self, orders: Vec<Order>, records: Vec<DecisionRecord>) {
        self.housekeeping_open = false;
        if orders.is_empty() {
            return;
        }
        let done: Vec<String> = orders.into_iter().map(|order| self.obey(&order)).collect();
        self.remember(records, None, Some(done.join("; ")));
    }

    /// Follow a policy's order, as far as it may be followed; says what was done.
    fn obey(&mut self, order: &Order) -> String {
        let index = order.instance as usize;
        let Some(instance) = self.instances.get_mut(index) else { return "no such instance".into() };
        let name = instance.spec.id.clone();
        match order.act {
            Act::Drain => instance.drained_by.policy = true,
            Act::Resume => instance.drained_by.policy = false,
            Act::CapSlots(slots) => instance.cap = Some(slots),
            Act::Restart => return format!("{name}: {}", self.restart_for_policy(index, &order.reason)),
            Act::FreeModels => self.free(index, false),
            Act::FreeMemory => self.free(index, true),
            Act::Interrupt { requeue } => self.preempt(index, requeue),
        }
        self.queue.unhold();
        format!("{name}: {}", act_name(order.act))
    }

    pub(super) fn operate(&mut self, index: usize, act: Act) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        match act {
            Act::Drain => instance.drained_by.operator = true,
            // An operator's word ends a policy's drain too; the policy may say so again.
            Act::Resume => instance.drained_by = Default::default(),
            Act::Restart => self.restart_for_operator(index),
            act => {
                let order = Order { instance: index as u32, act, reason: String::new() };
                self.obey(&order);
            }
        }
        self.queue.unhold();
    }

    pub(super) fn free(&mut self, index: usize, free_memory: bool) {
        let instance = &mut self.instances[index];
        instance.unloaded();
        if free_memory {
            instance.last_signature = None;
        }
        let action = Action::Free { instance: instance.spec.id.clone(), unload_models: true, free_memory };
        self.out.push(action);
        self.texts_changed();
    }

    fn preempt(&mut self, index: usize, requeue: bool) {
        let jobs: Vec<JobId> = self.instances[index].live.iter().map(|live| live.job).collect();
        for id in jobs {
            let spent = self.jobs.get(&id).is_some_and(|entry| entry.attempts >= self.config.max_attempts);
            // Running on beats being lost to a policy that interrupts too often.
            if !(requeue && spent) {
                self.stop(id, StopReason::Preempted { requeue });
            }
        }
    }

    fn give_feedback(&mut self) {
        // Often enough for few reports, and at once for many.
        let due = self.now.tick.since(self.last_feedback) >= FEEDBACK_MS;
        if self.reports.is_empty() || !due && self.reports.len() < REPORTS_PER_CALL {
            return;
        }
        self.last_feedback = self.now.tick;
        let some = self.reports.len().min(REPORTS_PER_CALL);
        let outcomes = self.reports.drain(..some).collect();
        self.ask(Asked::Feedback, Question::Observe { outcomes });
    }

    pub(super) fn readings(&mut self, readings: Vec<(usize, GpuView, Tick)>) {
        // Memory may be known now.
        self.fruitless = None;
        for (index, gpu, sampled) in readings {
            if let Some(instance) = self.instances.get_mut(index) {
                instance.gpu = Some((gpu, sampled));
            }
        }
    }

    /// Ask the new version about every waiting job, a few at a time.
    pub(super) fn policy_changed(&mut self, places: bool) {
        self.places = places;
        self.to_reassess = self.queue.ordered(self.now.tick).into();
        self.queue.unhold();
        self.reassess_some();
    }

    fn reassess_some(&mut self) {
        for _ in 0..REASSESSED_PER_STEP.min(self.to_reassess.len()) {
            let Some(id) = self.to_reassess.pop_front() else { return };
            if let Some(entry) = self.jobs.get(&id) {
                let question = Question::Reassess { job: self.view(entry) };
                self.ask(Asked::Reassess { job: id }, question);
            }
        }
    }

    pub(super) fn reassessed(&mut self, id: JobId, priority: Priority, limits: Limits) {
        let limits = self.clamp_limits(limits);
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        // An operator's word stands.
        if !entry.pinned {
            entry.priority = priority;
        }
        entry.limits = limits;
        let (priority, deadline) = (entry.priority, entry.queue_deadline());
        self.queue.change(id, |row| {
            row.priority = priority;
            row.deadline = deadline;
        });
    }
}

fn act_name(act: Act) -> String {
    match act {
        Act::FreeModels => "models freed".into(),
        Act::FreeMemory => "memory freed".into(),
        Act::Drain => "drained".into(),
        Act::Resume => "resumed".into(),
        Act::Interrupt { requeue: true } => "interrupted, job queued again".into(),
        Act::Interrupt { requeue: false } => "interrupted, job ended".into(),
        Act::Restart => "restarted".into(),
        Act::CapSlots(slots) => format!("capped at {slots} slots"),
    }
}
