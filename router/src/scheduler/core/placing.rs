//! The head of the queue at once, for a policy that exports `placement`: one question at a time, as in routing.

use std::collections::HashMap;

use crate::model::decision::{DecisionRecord, Placement, Question};
use crate::model::id::JobId;
use crate::model::view::{JobView, Offer, Seat};

use super::explain::seeing;
use super::routing::Situation;
use super::{Asked, Core};

/// A job left out is asked about again after this long at the earliest, unless an instance changes.
const LEAST_HOLD_MS: u64 = 50;

impl Core {
    /// Ask where the most urgent jobs that could start now should run. There is at least one free slot.
    pub(super) fn place(&mut self, situation: Situation) {
        let (entries, instances) = (&self.jobs, &self.instances);
        let mut known: HashMap<(u64, Option<u32>), bool> = HashMap::new();
        let fits = |id: JobId| {
            let entry = &entries[&id];
            let may = || instances.iter().any(|i| i.free_slots() > 0 && entry.may_run_on(i));
            *known.entry((entry.kind, entry.outgrew_mib)).or_insert_with(may)
        };
        let jobs = self.queue.first(self.now.tick, self.config.window, fits);
        if jobs.is_empty() {
            self.fruitless = Some(situation);
            return;
        }
        let (question, seats) = self.window(&jobs);
        self.routing = true;
        self.ask(Asked::Place { jobs, seats }, question);
    }

    fn window(&self, jobs: &[JobId]) -> (Question, Vec<usize>) {
        let now = self.now.tick;
        let eligible: Vec<Vec<usize>> = jobs.iter().map(|id| self.eligible(*id)).collect();
        let mut seats: Vec<usize> = eligible.iter().flatten().copied().collect();
        seats.sort_unstable();
        seats.dedup();
        let mut offers: Vec<Offer> = Vec::new();
        for (job, (id, rows)) in (0..).zip(jobs.iter().zip(&eligible)) {
            let outlook = self.learned.outlook(&self.jobs[id].job.needs);
            // Both lists are in the order of instances.
            for (seat, index) in (0..).zip(&seats).filter(|(_, index)| rows.binary_search(index).is_ok()) {
                offers.push(self.instances[*index].offer(*index, (job, seat), &outlook));
            }
        }
        let views: Vec<JobView> = jobs.iter().map(|id| self.view(&self.jobs[id])).collect();
        let rows: Vec<Seat> = seats.iter().map(|&index| self.instances[index].seat(index, now)).collect();
        (Question::Place { jobs: views, seats: rows, offers }, seats)
    }

    /// The pairs that still make sense start; a job left out while it could have started is held.
    pub(super) fn placed(
        &mut self,
        jobs: &[JobId],
        seats: &[usize],
        answer: &Placement,
        records: Vec<DecisionRecord>,
    ) {
        self.routing = false;
        for pair in &answer.pairs {
            let (id, index) = (jobs[pair.job as usize], seats[pair.seat as usize]);
            let waits = self.queue.contains(id);
            if waits && self.could_start(id, index) {
                let records = seeing(records.clone(), self.shown_now(id));
                self.start(id, index, records);
            }
        }
        for &id in jobs {
            let waits = self.queue.contains(id);
            if waits && self.eligible(id).iter().any(|&index| self.could_start(id, index)) {
                // Told once for each time it waits, not for each time it is asked about.
                let first = self.jobs.get(&id).is_some_and(|entry| entry.held.is_none());
                let records = if first { seeing(records.clone(), self.shown_now(id)) } else { Vec::new() };
                self.hold(id, u64::from(answer.hold_ms).max(LEAST_HOLD_MS), records);
            }
        }
    }

    fn could_start(&self, id: JobId, index: usize) -> bool {
        let instance = &self.instances[index];
        instance.free_slots() > 0 && self.jobs[&id].may_run_on(instance)
    }
}
