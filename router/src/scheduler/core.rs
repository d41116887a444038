//! The scheduler as a value: `step(input, now) -> actions`. No I/O, no clock, no randomness of its own, no thread; the
//! driver, the tests and a simulation run the same one.
//!
//! It never calls a policy: it emits `Consult`, is fed `Decided`, and checks the answer against the state of *then*.
//! Whatever must be durable goes out as `Commit` and takes effect on `Committed`.

mod attempts;
mod care;
mod deadlines;
mod explain;
mod intake;
mod look;
mod placing;
mod recovery;
mod routing;
mod standing;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::{Now, Tick};
use crate::model::decision::{
    Answer, AttemptReport, Consultation, Decided, DecisionRecord, Limit, Limits, Priority, Question, Seen,
};
use crate::model::event::{Event, Standing};
use crate::model::id::JobId;
use crate::model::job::{Attempt, AttemptOutcome, Job, JobClass, JobOutcome, ModelRef, Number};
use crate::model::view::{Context, InstanceTexts, JobTexts, JobView, Totals, WaitingView};

use super::capacity::{Instance, Live};
use super::config::CoreConfig;
use super::input::{Action, Ending, Input, InstanceSpec, NotStored, Refusal, RequestId, Restored, Ticket};
use super::intern::Interner;
use super::learn::Learned;
use super::queue::{Queue, Waiting};

use explain::seeing;
pub use explain::{Explanation, InstanceNow, WaitingNow};

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
    /// One route or place question is open at a time: the next one must see what became of it.
    routing: bool,
    /// The policy places a window of the queue at once.
    places: bool,
    head: Option<Head>,
    draining: bool,
    reports: Vec<AttemptReport>,
    records: Vec<Event>,
    /// Waiting jobs that a new policy version has not judged yet.
    to_reassess: VecDeque<JobId>,
    last_housekeeping: Tick,
    housekeeping_open: bool,
    last_feedback: Tick,
    last_zombie_check: Tick,
    texts: Option<Arc<Vec<InstanceTexts>>>,
}

/// Waiting jobs a policy may list, and how old the list may be.
const HEAD_JOBS: usize = 64;
const HEAD_MS: u64 = 1_000;

#[derive(Debug)]
struct Head {
    at: Tick,
    classes: [Totals; 3],
    waiting: Arc<Vec<WaitingView>>,
}

/// One open job.
#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    seq: u64,
    tenant: u32,
    client: u32,
    /// What the job's capabilities are told apart by.
    kind: u64,
    /// An operator's, see [`Standing`].
    place: i64,
    pinned: bool,
    priority: Priority,
    limits: Limits,
    accepted: Tick,
    phase: Phase,
    /// Attempts started so far.
    attempts: u32,
    last_attempt: Option<Attempt>,
    /// The policy asked to keep away from this instance.
    avoid: Option<usize>,
    /// Its owner stopped it between two attempts.
    unwanted: bool,
    /// It ran out of memory before.
    ran_out: bool,
    /// It did so on a GPU of so many MiB: only larger ones are tried.
    outgrew_mib: Option<u32>,
    /// Milliseconds it has been held by the policy in all, the present hold not counted.
    held_ms: u64,
    held_since: Option<Tick>,
}

#[derive(Debug)]
enum Phase {
    /// Its acceptance is being made durable.
    Accepting,
    Waiting,
    /// A live attempt.
    Running(Box<Run>),
    /// It was taken out of the queue, which is being made durable.
    Removed,
    /// Its end is being made durable, or that it waits again.
    Ending,
}

#[derive(Debug)]
struct Run {
    attempt: Attempt,
    instance: usize,
    delivery: Delivery,
    /// Its instance said that it is over; until then the end is waited for.
    settling: Option<Tick>,
    /// Since when it waits in its instance's queue though nothing runs there.
    stuck_since: Option<Tick>,
    started: Tick,
    last_sign: Tick,
    nodes_done: u32,
    node_percent: Option<f32>,
    /// Moved by extensions.
    run_deadline: Option<Tick>,
    /// Added to the stall limit by extensions, until the next sign of life.
    stall_grace_ms: u64,
    predicted_ms: Option<u32>,
    /// Models that were not resident when it started.
    cold: Vec<ModelRef>,
    /// It was told to stop, and why.
    stopping: Option<Stopping>,
    /// A question about a passed limit is open.
    timing_out: bool,
    /// A question about its failure is open.
    failing: bool,
    last_inspected: Tick,
}

/// How far an attempt has come on its way to its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Its start is being made durable.
    Starting,
    /// It is being sent; a `Sighting` will say what came of that.
    Sending,
    /// It may be there.
    Unsure,
    /// The instance has it.
    Taken,
}

#[derive(Debug, Clone)]
struct Stopping {
    why: StopReason,
    /// When to stop waiting for the instance to confirm.
    until: Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum StopReason {
    Owner,
    /// A limit was passed; the policy said retry or fail.
    TimedOut {
        retry: bool,
        reason: String,
    },
    /// The policy wants the instance.
    Preempted {
        requeue: bool,
    },
}

/// What an open question is about.
#[derive(Debug)]
enum Asked {
    Intake { request: RequestId, job: Box<Job>, seen: Option<Seen> },
    Reassess { job: JobId },
    Standing { request: RequestId, job: JobId, standing: Box<Standing> },
    Route { job: JobId, rows: Vec<usize>, seen: Option<Seen> },
    Place { jobs: Vec<JobId>, seats: Vec<usize> },
    Timeout { job: JobId, attempt: u32, limit: Limit, seen: Option<Seen> },
    Failure { job: JobId, attempt: u32, outcome: AttemptOutcome, ending: Option<Box<Ending>>, detail: String },
    Housekeeping,
    Feedback,
}

impl Asked {
    /// The job it is about; the first of a window.
    fn job(&self) -> Option<JobId> {
        match self {
            Self::Intake { job, .. } => Some(job.id),
            Self::Reassess { job }
            | Self::Standing { job, .. }
            | Self::Route { job, .. }
            | Self::Timeout { job, .. }
            | Self::Failure { job, .. } => Some(*job),
            Self::Place { jobs, .. } => jobs.first().copied(),
            Self::Housekeeping | Self::Feedback => None,
        }
    }
}

/// What to do when a write is durable.
#[derive(Debug, Clone)]
enum Then {
    Accept {
        request: RequestId,
        job: JobId,
    },
    Start {
        job: JobId,
    },
    Requeue {
        job: JobId,
        ready_at: Tick,
    },
    End {
        job: JobId,
        outcome: JobOutcome,
        detail: String,
        /// Of an instance's refusal, as JSON; empty when there is none.
        node_errors: String,
    },
    /// Nothing waits for it.
    Nothing,
    /// Waiting jobs were deleted; so many running ones were told to stop besides.
    Deleted {
        request: RequestId,
        jobs: Vec<JobId>,
        stopped: usize,
    },
    /// An operator changed the standing of a waiting job.
    Changed {
        request: RequestId,
        job: JobId,
        standing: Box<Standing>,
    },
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
            routing: false,
            places: false,
            head: None,
            draining: false,
            reports: Vec::new(),
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
            Some(Then::Requeue { job, ready_at }) => self.requeued(job, ready_at),
            Some(Then::End { job, outcome, detail, node_errors }) => {
                self.ended(job, outcome, detail, node_errors);
            }
            Some(Then::Deleted { request, jobs, stopped }) => self.deleted(request, &jobs, stopped),
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
            Some(Then::Changed { request, .. }) => self.not_changed(request, why == NotStored::Full, reason),
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

    fn context(&mut self) -> Context {
        let (classes, waiting) = self.head();
        let instances = &self.instances;
        let texts =
            self.texts.get_or_insert_with(|| Arc::new(instances.iter().map(Instance::texts).collect()));
        Context {
            now_ms: self.now.wall,
            fleet: texts.clone(),
            all: self.totals(),
            tenants: self.tenants.shared(),
            clients: self.clients.shared(),
            classes,
            waiting,
        }
    }

    /// By class and in order: what a policy may read of the queue as a whole. Made anew at most once a second.
    fn head(&mut self) -> ([Totals; 3], Arc<Vec<WaitingView>>) {
        let now = self.now.tick;
        if let Some(head) = &self.head
            && now.since(head.at) < HEAD_MS
        {
            return (head.classes, head.waiting.clone());
        }
        let mut classes = JobClass::ALL
            .map(|class| Totals { queued: self.queue.waiting_of(class) as u32, ..Totals::default() });
        for live in self.instances.iter().flat_map(|instance| &instance.live) {
            if let Some(entry) = self.jobs.get(&live.job) {
                classes[entry.job.class as usize].running += 1;
            }
        }
        let first = self.queue.first(now, HEAD_JOBS, |_| true);
        let waiting: Arc<Vec<WaitingView>> =
            Arc::new(first.iter().map(|id| self.waiting_view(&self.jobs[id])).collect());
        self.head = Some(Head { at: now, classes, waiting: waiting.clone() });
        (classes, waiting)
    }

    fn waiting_view(&self, entry: &Entry) -> WaitingView {
        let view = self.view(entry);
        WaitingView {
            tenant: view.tenant,
            client: view.client,
            class: view.class,
            signature: view.signature,
            models: view.models,
            waited_ms: view.waited_ms,
            run_ms: view.run_ms,
        }
    }

    fn totals(&self) -> Totals {
        let queued = self.queue.len() as u32;
        let running = self.instances.iter().map(|i| i.live.len() as u32).sum();
        Totals { queued, running }
    }

    /// Something a policy may read by name changed.
    fn texts_changed(&mut self) {
        self.texts = None;
    }

    fn view(&self, entry: &Entry) -> JobView {
        let mut view = job_view(&entry.job, entry.tenant, entry.client);
        view.attempt = entry.attempts + 1;
        view.waited_ms = clamp_ms(self.now.tick.since(entry.accepted));
        view.run_ms = self.learned.run_ms(entry.job.needs.signature, None);
        view
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

impl Entry {
    fn row(&self, id: JobId, ready_at: Tick) -> Waiting {
        Waiting {
            id,
            seq: self.seq,
            place: self.place,
            priority: self.priority,
            number: match self.job.number {
                Number::Counted(number) => number as f64,
                Number::Given(number) => number,
            },
            class: self.job.class,
            since: self.accepted,
            ready_at,
            held: false,
            deadline: self.queue_deadline(),
        }
    }

    fn queue_deadline(&self) -> Option<Tick> {
        let deadline = self.limits.queue_ms.map(|ms| self.accepted.after(ms.into()));
        deadline.filter(|_| self.attempts == 0)
    }
}

fn job_view(job: &Job, tenant: u32, client: u32) -> JobView {
    let needs = &job.needs;
    JobView {
        tenant,
        client,
        class: job.class,
        number: job.requested.number,
        front: job.requested.front,
        nodes: needs.nodes,
        outputs: job.body.outputs.len() as u32,
        images: needs.images,
        steps: needs.steps,
        megapixels: needs.megapixels,
        work: needs.work(),
        signature: (needs.signature ^ (needs.signature >> 32)) as u32,
        models: needs.models.len() as u32,
        input_kib: job.body.input_kib,
        attempt: 1,
        waited_ms: 0,
        run_ms: None,
        texts: JobTexts { job: Some(job.id), body: job.body.clone(), needs: needs.clone() },
    }
}

/// A job that needs nothing, for tests.
#[cfg(test)]
pub(crate) fn plain_job(tenant: &str) -> Job {
    tests::plain_job(tenant)
}

fn clamp_ms(ms: u64) -> u32 {
    ms.min(u32::MAX.into()) as u32
}

fn live(job: JobId, started: Tick, predicted_ms: Option<u32>) -> Live {
    Live { job, started, predicted_ms }
}
