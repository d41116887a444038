//! A world for the core: a ledger that checks what it is given, instances that run what they are sent, and a policy
//! that answers what a test tells it to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::clock::{Now, Tick};
use crate::model::decision::*;
use crate::model::event::{Event, History, OpenJob};
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::job::*;
use crate::model::view::{Capabilities, Offer, Seat};
use crate::scheduler::config::CoreConfig;
use crate::scheduler::core::Core;
use crate::scheduler::input::*;

/// Answers by the policy; each test replaces what it cares about.
pub(super) struct Answers {
    pub(super) priority: fn(&crate::model::view::JobView) -> Priority,
    pub(super) limits: Limits,
    pub(super) route: Box<dyn FnMut(usize) -> Route>,
    pub(super) place: fn(usize, &[Seat], &[Offer]) -> Vec<Pair>,
    pub(super) recovery: Box<dyn FnMut() -> RecoveryDecision>,
    pub(super) timeout: TimeoutDecision,
    pub(super) orders: Vec<Order>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            priority: |_| Priority::default(),
            limits: Limits::default(),
            route: Box::new(|n| Route::Ranked((0..n as u32).collect())),
            place: first_offers,
            recovery: Box::new(|| RecoveryDecision::Fail),
            timeout: TimeoutDecision::Fail { reason: "too slow".into() },
            orders: Vec::new(),
        }
    }
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Now,
    pub(super) answers: Answers,
    pub(super) todo: Vec<Action>,
    pub(super) slots: u32,
    /// What the ledger holds.
    pub(super) accepted: HashSet<JobId>,
    pub(super) ended: BTreeMap<JobId, JobOutcome>,
    pub(super) open_attempts: HashMap<JobId, u32>,
    pub(super) attempts: HashMap<JobId, u32>,
    /// What the instances run.
    pub(super) running: Vec<(Arc<Job>, Attempt)>,
    pub(super) interrupted: Vec<UpstreamId>,
    pub(super) replies: HashMap<RequestId, Reply>,
    pub(super) announced: Vec<Announcement>,
    pub(super) ledger_fails: bool,
    waiting: Vec<OpenJob>,
    /// Standings that became durable.
    pub(super) changes: usize,
    pub(super) not_stored: NotStored,
    /// What is doubtful is there.
    pub(super) doubtful_is_there: bool,
    /// Requests to stop one job, by its prompt id.
    pub(super) stops: HashMap<RequestId, String>,
    /// Prompt ids of jobs whose owner was told that they are stopped.
    stopped: HashSet<String>,
    /// Nobody learns what came of the next dispatches; true: they arrive all the same.
    pub(super) unsure: Option<bool>,
    /// Which instances answer.
    alive: Vec<bool>,
    pub(super) told: Vec<(InstanceId, News)>,
    pub(super) restarts: Vec<InstanceId>,
    pub(super) freed: Vec<InstanceId>,
    requests: RequestId,
}

impl World {
    pub(super) fn new(instances: usize, slots: u32, config: CoreConfig) -> Self {
        let now = Now { tick: Tick(0), wall: 1_000_000 };
        let core = Core::new(config, specs(instances, slots), Restored::default(), now);
        let mut world = Self {
            core,
            now,
            answers: Answers::default(),
            todo: Vec::new(),
            slots,
            accepted: HashSet::new(),
            ended: BTreeMap::new(),
            open_attempts: HashMap::new(),
            attempts: HashMap::new(),
            running: Vec::new(),
            interrupted: Vec::new(),
            replies: HashMap::new(),
            announced: Vec::new(),
            ledger_fails: false,
            changes: 0,
            waiting: Vec::new(),
            not_stored: NotStored::Full,
            doubtful_is_there: false,
            stops: HashMap::new(),
            stopped: HashSet::new(),
            unsure: None,
            alive: vec![false; instances],
            told: Vec::new(),
            restarts: Vec::new(),
            freed: Vec::new(),
            requests: 0,
        };
        (0..instances).for_each(|index| world.up(index));
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        for action in self.core.step(input, self.now) {
            self.watch(&action);
            match action {
                Action::Closed(closed) => self.abandon(closed.attempt.upstream_id),
                action => self.todo.push(action),
            }
        }
        for report in self.core.report() {
            assert!(report.live.len() <= self.slots as usize, "an instance is over its slots");
        }
    }

    /// What was stopped for good, and its owner was told so, is not sent again.
    fn watch(&mut self, action: &Action) {
        match action {
            Action::Reply { request, reply: Reply::Done { affected: 1 } } => {
                self.stopped.extend(self.stops.remove(request));
            }
            Action::Dispatch { job, attempt } => assert!(
                !self.stopped.contains(&job.prompt_id),
                "attempt {} of a job that was stopped for good",
                attempt.number
            ),
            _ => {}
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.tick = self.now.tick.after(ms);
        self.now.wall += ms;
        self.input(Input::Tick);
    }

    pub(super) fn up(&mut self, index: usize) {
        let can = Capabilities { classes: ["SaveImage".to_owned()].into(), ..Capabilities::default() };
        self.alive[index] = true;
        self.input(Input::Instance { index, change: InstanceChange::Up(Arc::new(can)) });
        self.link(index, true);
    }

    pub(super) fn link(&mut self, index: usize, up: bool) {
        self.input(Input::Instance { index, change: InstanceChange::Linked(up) });
    }

    /// The instance's process dies with everything in it.
    pub(super) fn down(&mut self, index: usize) {
        let name = format!("i{index}");
        self.alive[index] = false;
        self.running.retain(|(_, attempt)| attempt.instance.as_str() != name);
        let change = InstanceChange::Down { reason: "refused".into(), silent: false };
        self.input(Input::Instance { index, change });
    }

    /// The instance stops answering, with everything in it.
    pub(super) fn silence(&mut self, index: usize) {
        self.alive[index] = false;
        let change = InstanceChange::Down { reason: "no answer".into(), silent: true };
        self.input(Input::Instance { index, change });
    }

    pub(super) fn submit_job(&mut self, job: Job) -> RequestId {
        self.requests += 1;
        self.input(Input::Submit { request: self.requests, job: Box::new(job) });
        self.requests
    }

    pub(super) fn submit(&mut self) -> RequestId {
        self.submit_job(job("t"))
    }

    fn row(&mut self, job: JobId) -> &mut OpenJob {
        self.waiting.iter_mut().find(|open| open.job.id == job).expect("it was accepted")
    }

    /// The router dies, and another finds the ledger and the instances as they are.
    pub(super) fn restart(&mut self) {
        self.todo.clear();
        let restored = Restored { open: self.open_jobs(), counter: 0 };
        self.core = Core::new(CoreConfig::default(), specs(self.alive.len(), self.slots), restored, self.now);
        (0..self.alive.len()).for_each(|index| self.up(index));
    }

    /// The instance's process says nothing more, and nobody has noticed yet.
    pub(super) fn mute(&mut self, index: usize) {
        self.alive[index] = false;
    }

    /// What a ledger would give back.
    pub(super) fn open_jobs(&self) -> Vec<OpenJob> {
        let mut open = self.waiting.clone();
        open.retain(|open| !self.ended.contains_key(&open.job.id));
        open
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.requests += 1;
        self.requests
    }

    /// Execute one waiting action.
    pub(super) fn execute(&mut self, at: usize) {
        match self.todo.remove(at) {
            Action::Consult { ticket, consultation } => {
                let decided = self.answer(&consultation.question);
                self.input(Input::Decided { ticket, decided });
            }
            Action::Commit { ticket, events, insist } => self.commit(ticket, events, insist),
            Action::Note(events) => self.store(events),
            Action::Reply { request, reply } => {
                assert!(self.replies.insert(request, reply).is_none(), "a request is answered once");
            }
            Action::Dispatch { job, attempt } => self.dispatch(job, attempt),
            Action::Interrupt { upstream, .. } => self.interrupted.push(upstream),
            Action::Inspect { job, attempt } => self.inspect(&job, &attempt),
            Action::Announce(announcement) => {
                assert!(self.ended.contains_key(&announcement.job.id), "told before it was durable");
                self.announced.push(*announcement);
            }
            Action::InspectZombie { index, upstream } => self.inspect_zombie(index, upstream),
            Action::Free { instance, .. } => self.freed.push(instance),
            Action::Restart { instance, .. } => self.restarts.push(instance),
            Action::Told { instance, news } => self.told.push((instance, news)),
            Action::Closed(_) | Action::Forget { .. } | Action::Status { .. } => {}
        }
    }

    /// Until the core wants this, which stays to be done.
    pub(super) fn until(&mut self, wanted: impl Fn(&Action) -> bool) {
        while !self.todo.iter().any(&wanted) {
            self.execute(0);
        }
    }

    /// Tell this to the core now, of the running attempt at this position.
    pub(super) fn sight(&mut self, at: usize, sighting: Sighting) {
        let (job, attempt) = self.running[at].clone();
        self.input(Input::Attempt { job: job.id, number: attempt.number, sighting });
    }

    /// As an owner, of the job that runs or is about to.
    pub(super) fn interrupt(&mut self, prompt_id: &str) -> RequestId {
        let request = self.request();
        self.stops.insert(request, prompt_id.to_owned());
        let target = Target::Prompt(prompt_id.to_owned(), Scope::Everybody);
        self.input(Input::Interrupt { request, target });
        request
    }

    pub(super) fn settle(&mut self) {
        while !self.todo.is_empty() {
            self.execute(0);
        }
    }

    /// A driver executes actions in order: what is abandoned is not sent any more.
    fn abandon(&mut self, upstream: UpstreamId) {
        let stays = |action: &Action| !matches!(action, Action::Dispatch { attempt, .. } if attempt.upstream_id == upstream);
        self.todo.retain(stays);
    }

    fn dispatch(&mut self, job: Arc<Job>, attempt: Attempt) {
        assert_eq!(self.open_attempts.get(&job.id), Some(&attempt.number), "sent before it was durable");
        let detail = "as the test wants it".to_owned();
        let sighting = match (self.alive[place(&attempt)], self.unsure) {
            (false, _) => Sighting::NotDispatched { detail, blame: true },
            (true, None) => Sighting::Dispatched,
            (true, Some(_)) => Sighting::DispatchUnknown { detail },
        };
        let (id, number) = (job.id, attempt.number);
        if self.alive[place(&attempt)] && self.unsure != Some(false) {
            self.running.push((job, attempt));
        }
        self.input(Input::Attempt { job: id, number, sighting });
    }

    fn inspect_zombie(&mut self, index: usize, upstream: UpstreamId) {
        let there = self.running.iter().any(|(_, attempt)| attempt.upstream_id == upstream);
        if self.alive[index] && !there {
            self.input(Input::Instance { index, change: InstanceChange::ZombieGone(upstream) });
        }
    }

    fn inspect(&mut self, job: &Job, attempt: &Attempt) {
        if !self.alive[place(attempt)] {
            return;
        }
        let there = self.running.iter().any(|(_, a)| a.upstream_id == attempt.upstream_id);
        let sighting = if there { Sighting::Present { stuck: false } } else { Sighting::Absent };
        self.input(Input::Attempt { job: job.id, number: attempt.number, sighting });
    }

    /// The running attempt at this position ends by itself.
    pub(super) fn finish(&mut self, at: usize, kind: EndKind) {
        let (job, attempt) = self.running.remove(at);
        let ending = Ending { kind, detail: format!("{kind:?}"), history: History::default(), load_ms: 0 };
        self.input(Input::Attempt { job: job.id, number: attempt.number, sighting: Sighting::Ended(ending) });
    }

    fn answer(&mut self, question: &Question) -> Decided {
        let answers = &mut self.answers;
        let answer = match question {
            Question::Intake { job, .. } => Answer::Intake {
                admission: Admission::Admit,
                priority: (answers.priority)(job),
                limits: answers.limits,
            },
            Question::Reassess { job } => {
                Answer::Reassess { priority: (answers.priority)(job), limits: answers.limits }
            }
            Question::Route { candidates, .. } => {
                let route = (answers.route)(candidates.len());
                Answer::Route(RouteDecision { route, reason: String::new() })
            }
            Question::Place { jobs, seats, offers } => {
                let pairs = (answers.place)(jobs.len(), seats, offers);
                Answer::Place(Placement { pairs, hold_ms: 500, reason: String::new() })
            }
            Question::OnTimeout { .. } => Answer::OnTimeout(answers.timeout.clone()),
            Question::OnFailure { .. } => Answer::OnFailure((answers.recovery)()),
            Question::Tick { .. } => Answer::Tick(std::mem::take(&mut answers.orders)),
            Question::Observe { .. } => Answer::Observe,
        };
        Decided { answer, records: Vec::new() }
    }

    fn commit(&mut self, ticket: Ticket, events: Vec<Event>, insist: bool) {
        let doubt = self.not_stored == NotStored::Doubtful;
        let why = match (self.contradicted(&events), self.ledger_fails) {
            // Only a ledger that was in doubt before may know more than the core.
            (Some(what), _) => {
                assert!(doubt, "{what}");
                Some(NotStored::Contradicts)
            }
            (None, true) if !insist => Some(self.not_stored),
            (None, _) => None,
        };
        if why.is_none() || why == Some(NotStored::Doubtful) && self.doubtful_is_there {
            self.store(events);
        }
        self.input(match why.filter(|_| !insist) {
            Some(why) => Input::CommitFailed { ticket, why, error: "no".to_owned() },
            None => Input::Committed { ticket },
        });
    }

    /// What a ledger would refuse.
    fn contradicted(&self, events: &[Event]) -> Option<&'static str> {
        let mut live = self.open_attempts.clone();
        events.iter().find_map(|event| match event {
            Event::AttemptStarted { job, .. } if self.ended.contains_key(job) => Some("an ended job runs"),
            Event::AttemptStarted { job, attempt } => {
                live.insert(*job, attempt.number).map(|_| "two live attempts")
            }
            Event::AttemptEnded { job, number, .. } => {
                (live.remove(job) != Some(*number)).then_some("an attempt ends that is not live")
            }
            Event::JobEnded { job, .. } if !self.accepted.contains(job) => Some("a job ends that never was"),
            Event::JobEnded { job, .. } if self.ended.contains_key(job) => Some("a job ends twice"),
            Event::JobEnded { job, .. } => live.contains_key(job).then_some("a job ends with a live attempt"),
            Event::JobAccepted { .. }
            | Event::StopAsked { .. }
            | Event::JobChanged { .. }
            | Event::Decision(_) => None,
        })
    }

    fn store(&mut self, events: Vec<Event>) {
        for event in events {
            // `contradicted` has looked at the rest.
            match event {
                Event::JobAccepted { job, priority, limits } => {
                    assert!(self.accepted.insert(job.id), "accepted twice");
                    let (place, pinned, attempts, stop) = (0, false, Vec::new(), None);
                    let job = *job;
                    self.waiting.push(OpenJob { job, priority, limits, place, pinned, attempts, stop });
                }
                Event::AttemptStarted { job, attempt } => {
                    let last = self.attempts.insert(job, attempt.number).unwrap_or(0);
                    assert!(attempt.number > last, "an attempt number is used twice");
                    self.open_attempts.insert(job, attempt.number);
                    self.row(job).attempts.push((attempt, None));
                }
                Event::StopAsked { job, number, why } => {
                    let live = self.open_attempts.get(&job) == Some(&number);
                    self.row(job).stop = Some(why).filter(|_| live);
                }
                Event::AttemptEnded { job, outcome, .. } => {
                    self.open_attempts.remove(&job);
                    let row = self.row(job);
                    row.stop = None;
                    row.attempts.last_mut().expect("an attempt").1 = Some(outcome);
                }
                Event::JobEnded { job, outcome, .. } => {
                    self.ended.insert(job, outcome);
                }
                Event::JobChanged { .. } => self.changes += 1,
                Event::Decision(_) => {}
            }
        }
    }
}

fn specs(instances: usize, slots: u32) -> Vec<InstanceSpec> {
    let spec = |i: usize| InstanceSpec {
        id: InstanceId::from(format!("i{i}").as_str()),
        slots,
        labels: Arc::default(),
        supervised: i == 0,
    };
    (0..instances).map(spec).collect()
}

fn place(attempt: &Attempt) -> usize {
    attempt.instance.as_str()[1..].parse().expect("i and a number")
}

/// Each job takes the first offer whose seat has a slot left.
fn first_offers(_jobs: usize, seats: &[Seat], offers: &[Offer]) -> Vec<Pair> {
    let mut free: Vec<u32> = seats.iter().map(|seat| seat.free_slots).collect();
    let mut pairs: Vec<Pair> = Vec::new();
    for offer in offers {
        let placed = pairs.iter().any(|pair| pair.job == offer.job);
        if !placed && free[offer.seat as usize] > 0 {
            free[offer.seat as usize] -= 1;
            pairs.push(Pair { job: offer.job, seat: offer.seat });
        }
    }
    pairs
}

pub(in crate::scheduler::core) fn job(tenant: &str) -> Job {
    let id = JobId::mint();
    Job {
        id,
        prompt_id: id.to_string(),
        number: Number::Counted(0),
        client_id: None,
        tenant: tenant.into(),
        class: JobClass::Standard,
        requested: Requested::default(),
        accepted_at: 0,
        body: Arc::new(Body { prompt: "{}".into(), ..Body::default() }),
        needs: Arc::new(Needs { classes: vec!["SaveImage".into()], ..Needs::default() }),
        once: None,
    }
}
