//! The scheduler as a value: `step(input, now) -> actions`. No I/O, no clock, no randomness of its own, no thread; the
//! driver, the tests and a simulation run the same one.
//!
//! It never calls a policy: it emits `Consult`, is fed `Decided`, and checks the answer against the state of *then*.
//! Whatever must be durable goes out as `Commit` and takes effect on `Committed`.

mod attempts;
mod care;
mod deadlines;
mod entry;
mod explain;
mod instances;
mod intake;
mod look;
mod pending;
mod placing;
mod recovery;
mod routing;
mod standing;
mod stops;
#[cfg(test)]
mod tests;
mod upkeep;
mod views;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::{Now, Tick};
use crate::model::decision::{Answer, AttemptReport, Consultation, Decided, DecisionRecord, Question};
use crate::model::event::Event;
use crate::model::id::JobId;
#[cfg(test)]
use crate::model::job::Job;
use crate::model::job::JobOutcome;
use crate::model::view::{InstanceTexts, Totals};

use super::capacity::{Instance, Live};
use super::config::CoreConfig;
use super::input::{Action, Change, Input, InstanceSpec, NotStored, Refusal, RequestId, Restored, Ticket};
use super::intern::Interner;
use super::learn::Learned;
use super::queue::Queue;

use entry::{Delivery, Entry, Phase, Run, Stopping};
use explain::seeing;
pub use explain::{Explanation, InstanceNow, WaitingNow};
use pending::{Asked, Then};
use views::{Head, clamp_ms};

#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    now: Now,
    out: Vec<Action>,
    instances: Vec<Instance>,
    jobs: HashMap<JobId, Entry>,
    prompt_ids: HashMap<String, JobId>,
    /// Open jobs by tenant and idempotency key; of those that are over the ledger knows.
    once: HashMap<(String, String), JobId>,
    /// Requests that repeat one whose job is not durable yet.
    repeated: HashMap<JobId, Vec<RequestId>>,
    queue: Queue,
    /// Jobs whose acceptance is being made durable.
    accepting: usize,
    /// Bytes of the large texts of open jobs that are in memory.
    texts_here: usize,
    /// Counts changes of what a list of the queue shows.
    version: u64,
    /// What the queue and the fleet were like when no waiting job could start.
    fruitless: Option<routing::Situation>,
    tenants: Interner,
    clients: Interner,
    learned: Learned,
    /// The next queue number.
    counter: i64,
    /// Orders of acceptance given out.
    seq: u64,
    last_ticket: Ticket,
    asked: HashMap<Ticket, Asked>,
    committing: HashMap<Ticket, Then>,
    /// Jobs whose standing is being changed, and what is to be changed after that.
    changing: HashMap<JobId, VecDeque<(RequestId, Change)>>,
    /// One route or place question is open at a time: the next one must see what became of it.
    routing: bool,
    /// The policy places a window of the queue at once.
    places: bool,
    head: Option<Head>,
    draining: bool,
    reports: VecDeque<AttemptReport>,
    records: Vec<Event>,
    /// Waiting jobs that a new policy version has not judged yet.
    to_reassess: VecDeque<JobId>,
    last_housekeeping: Tick,
    housekeeping_open: bool,
    last_feedback: Tick,
    last_zombie_check: Tick,
    texts: Option<Arc<Vec<InstanceTexts>>>,
}

impl Core {
    pub fn new(config: CoreConfig, fleet: Vec<InstanceSpec>, restored: Restored, now: Now) -> Self {
        let mut core = Self {
            config,
            now,
            out: Vec::new(),
            instances: fleet.into_iter().map(Instance::new).collect(),
            jobs: HashMap::new(),
            prompt_ids: HashMap::new(),
            once: HashMap::new(),
            repeated: HashMap::new(),
            queue: Queue::default(),
            accepting: 0,
            texts_here: 0,
            version: 0,
            fruitless: None,
            tenants: Interner::default(),
            clients: Interner::default(),
            learned: Learned::default(),
            counter: restored.counter,
            seq: 0,
            last_ticket: 0,
            asked: HashMap::new(),
            committing: HashMap::new(),
            changing: HashMap::new(),
            routing: false,
            places: false,
            head: None,
            draining: false,
            reports: VecDeque::new(),
            records: Vec::new(),
            to_reassess: VecDeque::new(),
            last_housekeeping: now.tick,
            housekeeping_open: false,
            last_feedback: now.tick,
            last_zombie_check: now.tick,
            texts: None,
        };
        core.restore(restored.open);
        core
    }

    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        self.now = now;
        match input {
            Input::Tick => self.tick(),
            Input::Submit { request, job } => self.submit(request, job),
            Input::Delete { request, prompt_ids, scope } => self.delete(request, &prompt_ids, &scope),
            Input::Clear { request, scope } => self.clear(request, &scope),
            Input::Cancel { request, prompt_ids, scope } => self.cancel(request, &prompt_ids, &scope),
            Input::Change { request, prompt_id, change } => self.change(request, &prompt_id, change),
            Input::Interrupt { request, target } => self.interrupt(request, &target),
            Input::Decided { ticket, decided } => self.decided(ticket, decided),
            Input::Committed { ticket } => self.committed(ticket),
            Input::CommitFailed { ticket, why, error } => self.commit_failed(ticket, why, error),
            Input::Instance { index, change } => self.instance_changed(index, change),
            Input::Attempt { job, number, sighting } => self.sighted(job, number, sighting),
            Input::Readings(readings) => self.readings(readings),
            Input::PolicyChanged { places } => self.policy_changed(places),
            Input::Operate { index, act } => self.operate(index, act),
            Input::Drain => self.draining = true,
        }
        self.schedule();
        std::mem::take(&mut self.out)
    }

    /// Before the first step: does the policy place a window of the queue at once?
    pub fn places(&mut self, places: bool) {
        self.places = places;
    }

    fn ask(&mut self, asked: Asked, question: Question) {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let job = asked.job();
        self.asked.insert(ticket, asked);
        let consultation = Consultation { job, seed: ticket, context: self.context(), question };
        self.out.push(Action::Consult { ticket, consultation: Box::new(consultation) });
    }

    fn commit(&mut self, then: Then, events: Vec<Event>) {
        self.last_ticket += 1;
        // Where an attempt or a job has already ended there is no way back: the driver tries until it is written.
        let insist = matches!(then, Then::End { .. } | Then::Requeue { .. } | Then::Nothing);
        self.committing.insert(self.last_ticket, then);
        self.out.push(Action::Commit { ticket: self.last_ticket, events, insist });
    }

    fn committed(&mut self, ticket: Ticket) {
        match self.committing.remove(&ticket) {
            Some(Then::Accept { request, job }) => self.accepted(request, job),
            Some(Then::Start { job }) => self.started(job),
            Some(Then::Requeue { job, ready_at }) => self.wait_again(job, ready_at),
            Some(Then::End { job, outcome, detail, node_errors }) => {
                self.ended(job, outcome, detail, node_errors);
            }
            Some(Then::Deleted { request, jobs, stopped }) => self.deleted(request, &jobs, stopped),
            Some(Then::Stop { attempts, reply }) => self.stops_noted(attempts, reply),
            Some(Then::Changed { request, job, standing }) => self.changed(request, job, *standing),
            Some(Then::Nothing) | None => {}
        }
    }

    fn commit_failed(&mut self, ticket: Ticket, why: NotStored, reason: String) {
        match self.committing.remove(&ticket) {
            Some(Then::Accept { request, job }) => {
                let full = why == NotStored::Full;
                if why == NotStored::Doubtful {
                    // Whoever is told that it was not taken must not find that it ran.
                    let (outcome, at, history) = (JobOutcome::Cancelled, self.now.wall, Default::default());
                    self.commit(Then::Nothing, vec![Event::JobEnded { job, outcome, at, history }]);
                }
                self.not_accepted(request, job, Refusal::Storage { full, reason });
            }
            Some(Then::Start { job }) => self.not_started(job, why),
            Some(Then::Deleted { request, jobs, stopped }) => self.not_deleted(request, &jobs, stopped),
            // An attempt that must stop does not run on because a ledger is full.
            Some(Then::Stop { attempts, reply }) => self.stops_noted(attempts, reply),
            Some(Then::Changed { request, job, .. }) => {
                self.not_changed(request, job, why == NotStored::Full, reason);
            }
            Some(Then::End { .. } | Then::Requeue { .. } | Then::Nothing) | None => {}
        }
    }

    fn decided(&mut self, ticket: Ticket, decided: Decided) {
        let Some(asked) = self.asked.remove(&ticket) else { return };
        let Decided { answer, records } = decided;
        match (asked, answer) {
            (Asked::Intake { request, job, seen }, Answer::Intake { admission, priority, limits }) => {
                let records = seeing(records, seen);
                self.intake_decided(request, job, (admission, priority, limits), records);
            }
            (Asked::Reassess { job }, Answer::Reassess { priority, limits }) => {
                self.reassessed(job, priority, limits);
            }
            (Asked::Standing { request, job, standing }, Answer::Reassess { priority, limits }) => {
                self.standing_judged(request, job, standing, (priority, limits));
            }
            (Asked::Route { job, rows, seen }, Answer::Route(decision)) => {
                self.route_decided(job, &rows, decision, seeing(records, seen));
            }
            (Asked::Place { jobs, seats }, Answer::Place(placement)) => {
                self.placed(&jobs, &seats, &placement, records);
            }
            (Asked::Timeout { job, attempt, limit, seen }, Answer::OnTimeout(decision)) => {
                self.timeout_decided(job, attempt, limit, decision, seeing(records, seen));
            }
            (Asked::Failure { job, attempt, outcome, ending, detail }, Answer::OnFailure(decision)) => {
                if self.run(job).is_some_and(|run| run.attempt.number == attempt) {
                    self.failure_decided(job, (outcome, detail, ending), decision, records);
                }
            }
            (Asked::Housekeeping, Answer::Tick(orders)) => self.ordered(orders, records),
            (Asked::Feedback, Answer::Observe) => {}
            (asked, answer) => unreachable!("{answer:?} does not answer {asked:?}"),
        }
    }

    /// Keep the records of a decision, to be written with the next commit or tick.
    fn remember(&mut self, records: Vec<DecisionRecord>, job: Option<JobId>, did: Option<String>) {
        for mut record in records {
            record.job = job;
            record.did.clone_from(&did);
            self.records.push(Event::Decision(Box::new(record)));
        }
    }

    fn status(&mut self) {
        self.out.push(Action::Status { remaining: self.jobs.len() });
    }

    /// Move one job's count from waiting to running or back.
    fn recount(&mut self, id: JobId, change: impl Fn(&mut Totals)) {
        let (tenant, client) = match self.jobs.get(&id) {
            Some(entry) => (entry.tenant, entry.client),
            None => return,
        };
        self.tenants.count(tenant, &change);
        self.clients.count(client, &change);
    }

    fn enqueue(&mut self, id: JobId, ready_at: Tick) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        entry.phase = Phase::Waiting;
        self.queue.push(entry.row(id, ready_at));
        self.version += 1;
    }
}

/// A job that needs nothing, for tests.
#[cfg(test)]
pub(crate) fn plain_job(tenant: &str) -> Job {
    tests::plain_job(tenant)
}

fn live(job: JobId, started: Tick, predicted_ms: Option<u32>) -> Live {
    Live { job, started, predicted_ms }
}
