//! From the head of the queue to a durable attempt: one route question at a time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::decision::{DecisionRecord, Question, Route, RouteDecision};
use crate::model::event::{Event, StopReason};
use crate::model::id::{JobId, UpstreamId};
use crate::model::job::{Attempt, JobOutcome};
use crate::model::view::{Candidate, Capabilities};

use super::super::input::{Action, NotStored};
use super::entry::Hold;
use super::{Asked, Core, Delivery, Entry, Instance, Phase, Run, Then, clamp_ms};

/// After a route answer that led nowhere, ask again after this long at the latest.
pub(super) const RECONSIDER_MS: u64 = 250;

/// Everything that decides whether any waiting job could start, the passing of time aside, which wakes jobs and so
/// changes the queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Situation {
    queue: u64,
    /// Free slots, and which capabilities it is known to have.
    instances: Vec<(u32, usize)>,
}

impl Core {
    /// Ask where the most urgent job that could start now should run.
    pub(super) fn schedule(&mut self) {
        if self.routing || self.draining || self.queue.len() == 0 {
            return;
        }
        if self.instances.iter().all(|instance| instance.free_slots() == 0) {
            return;
        }
        let now = self.now.tick;
        self.queue.wake(now);
        let situation = self.situation();
        if self.fruitless.as_ref() == Some(&situation) {
            return;
        }
        if self.places {
            return self.place(situation);
        }
        let (jobs, instances) = (&self.jobs, &self.instances);
        let mut known: HashMap<(u64, Option<u32>), bool> = HashMap::new();
        let fits = |id: JobId| {
            let entry = &jobs[&id];
            let may = || instances.iter().any(|i| i.free_slots() > 0 && entry.may_run_on(i));
            *known.entry((entry.kind, entry.outgrew_mib)).or_insert_with(may)
        };
        let Some(row) = self.queue.best(now, fits) else {
            self.fruitless = Some(situation);
            return;
        };
        let entry = &self.jobs[&row.id];
        let rows = self.eligible(row.id);
        let outlook = self.learned.outlook(&entry.job.needs);
        let candidates: Vec<Candidate> =
            rows.iter().map(|&i| self.instances[i].candidate(i, &outlook, now)).collect();
        let seen = self.shown(row.id, &rows, candidates.iter().cloned());
        let question = Question::Route { job: self.view(entry), candidates };
        self.routing = true;
        self.ask(Asked::Route { job: row.id, rows, seen }, question);
    }

    fn situation(&self) -> Situation {
        let instance = |i: &Instance| (i.free_slots(), Arc::as_ptr(&i.can).addr());
        Situation { queue: self.queue.version(), instances: self.instances.iter().map(instance).collect() }
    }

    /// Instances that serve and have everything the job needs; the one to avoid only if there is no other.
    pub(super) fn eligible(&self, id: JobId) -> Vec<usize> {
        let entry = &self.jobs[&id];
        // Instances of one kind share what they can do, which is looked up once.
        let mut known: Vec<(*const Capabilities, bool)> = Vec::new();
        let mut meets = |can: &Arc<Capabilities>| {
            let at = Arc::as_ptr(can);
            known.iter().find(|known| known.0 == at).map(|known| known.1).unwrap_or_else(|| {
                let meets = can.meets(&entry.job.needs);
                known.push((at, meets));
                meets
            })
        };
        let mut rows: Vec<usize> = (0..self.instances.len())
            .filter(|&i| {
                let instance = &self.instances[i];
                instance.serves() && meets(&instance.can) && entry.is_small_enough(instance)
            })
            .collect();
        if let Some(avoid) = entry.avoid
            && rows.iter().any(|&i| i != avoid)
        {
            rows.retain(|&i| i != avoid);
        }
        rows
    }

    pub(super) fn route_decided(
        &mut self,
        id: JobId,
        rows: &[usize],
        decision: RouteDecision,
        records: Vec<DecisionRecord>,
    ) {
        self.routing = false;
        if !self.queue.contains(id) {
            return self.remember(records, Some(id), Some("the job was gone".into()));
        }
        match decision.route {
            Route::Hold { ms } => self.hold(id, ms.into(), records),
            Route::Reject => {
                self.remember(records, Some(id), Some("ended the job".into()));
                self.queue.remove(id);
                self.end_job(id, JobOutcome::Error, decision.reason, None);
            }
            Route::Ranked(ranked) => {
                let usable = |&&row: &&u32| {
                    let instance = &self.instances[rows[row as usize]];
                    instance.free_slots() > 0 && self.jobs[&id].may_run_on(instance)
                };
                match ranked.iter().find(usable) {
                    Some(&row) => self.start(id, rows[row as usize], records),
                    // Naming nobody who is free is a way to hold, and bounded like one.
                    None => self.hold(id, RECONSIDER_MS, records),
                }
            }
        }
    }

    pub(super) fn hold(&mut self, id: JobId, ms: u64, records: Vec<DecisionRecord>) {
        let now = self.now.tick;
        let entry = self.jobs.get_mut(&id).expect("a waiting job has an entry");
        entry.end_hold(now);
        let left = self.config.max_hold_ms.saturating_sub(entry.held_ms);
        let ms = ms.min(left);
        if ms == 0 {
            return self.start_anywhere(id, records);
        }
        entry.held = Some(Hold { since: now, ms });
        self.queue.change(id, |row| (row.held, row.ready_at) = (true, now.after(ms)));
        self.remember(records, Some(id), Some(format!("held for {ms} ms")));
    }

    /// The policy may not hold it any longer: the first free instance takes it.
    fn start_anywhere(&mut self, id: JobId, records: Vec<DecisionRecord>) {
        let rows = self.eligible(id);
        match rows.into_iter().find(|&i| self.instances[i].free_slots() > 0) {
            Some(index) => self.start(id, index, records),
            None => self.pass_over(id, records),
        }
    }

    /// Nothing is free any more: the next job may have its turn meanwhile.
    fn pass_over(&mut self, id: JobId, records: Vec<DecisionRecord>) {
        let ready_at = self.now.tick.after(RECONSIDER_MS);
        self.queue.change(id, |row| (row.held, row.ready_at) = (true, ready_at));
        self.remember(records, Some(id), Some("no instance was free any more".into()));
    }

    pub(super) fn start(&mut self, id: JobId, index: usize, records: Vec<DecisionRecord>) {
        let did = format!("dispatched to {}", self.instances[index].spec.id);
        self.remember(records, Some(id), Some(did));
        self.queue.remove(id);
        self.version += 1;
        self.recount(id, |t| {
            t.queued -= 1;
            t.running += 1;
        });
        let now = self.now;
        let instance = &mut self.instances[index];
        let entry = self.jobs.get_mut(&id).expect("a waiting job has an entry");
        entry.end_hold(now.tick);
        let needs = &entry.job.needs;
        let candidate = instance.candidate(index, &self.learned.outlook(needs), now.tick);
        let predicted_ms = candidate.run_ms.map(|run| run.saturating_add(candidate.load_ms.unwrap_or(0)));
        entry.attempts += 1;
        let attempt = Attempt {
            number: entry.attempts,
            upstream_id: UpstreamId::mint(),
            instance: instance.spec.id.clone(),
            started_at: now.wall,
        };
        let mut run = Run::new(attempt.clone(), index, now.tick, &entry.limits);
        run.predicted_ms = predicted_ms;
        run.cold = needs.models.iter().filter(|m| !instance.is_resident(m)).cloned().collect();
        instance.live.push(super::live(id, now.tick, predicted_ms));
        instance.idle_since = None;
        entry.last_attempt = Some(attempt.clone());
        entry.phase = Phase::Running(Box::new(run));
        let mut events = std::mem::take(&mut self.records);
        events.push(Event::AttemptStarted { job: id, attempt });
        self.commit(Then::Start { job: id }, events);
    }

    /// The attempt is durable: it may be sent, unless its owner has changed his mind.
    pub(super) fn started(&mut self, id: JobId) {
        let now = self.now.tick;
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if run.stopping.is_some() {
            return self.confirm_stop(id);
        }
        if !self.instances[run.instance].up {
            return self.unsent(id, "its instance went down before it was sent");
        }
        run.delivery = Delivery::Sending;
        run.restart_clocks(now, &entry.limits);
        self.out.push(Action::Dispatch { job: entry.job.clone(), attempt: run.attempt.clone() });
        self.status();
    }

    /// The ledger did not take the attempt: nothing was sent, the job waits on unless it was stopped meanwhile.
    pub(super) fn not_started(&mut self, id: JobId, why: NotStored) {
        let stopped = self.run(id).and_then(|run| run.stopping.as_ref().map(|stopping| stopping.why.clone()));
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.unwanted = match stopped {
                Some(StopReason::Owner) => Some("interrupted before it was sent"),
                Some(why) if why.ends_the_job() => Some("the policy ended it"),
                _ => None,
            };
        }
        if why == NotStored::Doubtful {
            // If it is there, it must not stay open; its number is not used again.
            return self.unsent(id, "its start may not have been stored");
        }
        let Some(run) = self.take_run(id) else { return };
        let entry = self.jobs.get_mut(&id).expect("it had a run");
        entry.attempts -= 1;
        entry.last_attempt = None;
        self.instances[run.instance].release(id, self.now.tick);
        self.recount(id, |t| {
            t.running -= 1;
            t.queued += 1;
        });
        if why == NotStored::Contradicts {
            // An earlier end was stored although the ledger could not say so.
            self.recount(id, |t| t.queued -= 1);
            self.forget(id);
            return self.status();
        }
        self.wait_again(id, self.now.tick.after(1000));
    }

    /// How long the attempt has run, for reports.
    pub(super) fn ran_ms(&self, run: &Run) -> u32 {
        clamp_ms(self.now.tick.since(run.started))
    }
}

impl Entry {
    /// Has the instance what the job needs, as far as that is known?
    pub(super) fn may_run_on(&self, instance: &Instance) -> bool {
        instance.can.meets(&self.job.needs) && self.is_small_enough(instance)
    }

    /// Has it not run out of the memory of a GPU of this size?
    fn is_small_enough(&self, instance: &Instance) -> bool {
        self.outgrew_mib.is_none_or(|mib| instance.is_larger_than(mib))
    }
}
