//! How a prompt becomes a job, and how a waiting job is taken away again.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::clock::Tick;
use crate::model::decision::{Admission, DecisionRecord, Limits, Priority, Question};
use crate::model::event::{Event, History, OpenJob, StopReason};
use crate::model::id::JobId;
use crate::model::job::{Attempt, Job, JobOutcome, Needs, Number};
use crate::model::seen::Seen;
use crate::model::view::Load;

use super::super::input::{Action, Refusal, Reply, RequestId, Scope, Sighting};
use super::stops::Stops;
use super::views::job_view;
use super::{Asked, Core, Delivery, Entry, Phase, Run, Stopping, Then};

impl Core {
    pub(super) fn submit(&mut self, request: RequestId, mut job: Box<Job>) {
        if self.is_known(request, &job) {
            return;
        }
        if let Some(reply) = self.no_room(&job.tenant) {
            return self.out.push(Action::Reply { request, reply });
        }
        job.number = self.next_number(&job);
        let tenant = self.tenants.index(&job.tenant);
        let client = self.clients.index(job.client_id.as_deref().unwrap_or(""));
        let mut view = job_view(&job, tenant, client);
        view.run_ms = self.learned.run_ms(job.needs.signature, None);
        let load = self.load(tenant, client);
        let seen = Some(Seen::Load(load));
        self.ask(Asked::Intake { request, job, seen }, Question::Intake { job: view, load });
    }

    /// Answers a request that came before: under the same idempotency key, or with the same id and the same prompt.
    /// Another prompt under a key or an id that is taken is a mistake.
    fn is_known(&mut self, request: RequestId, job: &Job) -> bool {
        let reply = match self.repeats(job) {
            None => return false,
            Some(Err(refusal)) => Reply::Refused(refusal),
            Some(Ok(id)) if matches!(self.jobs[&id].phase, Phase::Accepting) => {
                self.repeated.entry(id).or_default().push(request);
                return true;
            }
            Some(Ok(id)) => self.reply_of(id),
        };
        self.out.push(Action::Reply { request, reply });
        true
    }

    fn repeats(&self, job: &Job) -> Option<Result<JobId, Refusal>> {
        if let Some(once) = &job.once
            && let Some(id) = self.once.get(&(job.tenant.clone(), once.key.clone()))
        {
            let same = self.jobs[id].job.once.as_ref().is_some_and(|known| known.digest == once.digest);
            return Some(if same { Ok(*id) } else { Err(Refusal::KeyReused) });
        }
        let id = *self.prompt_ids.get(&job.prompt_id)?;
        let known = &self.jobs[&id].job;
        let same_prompt = || match known.body.stored {
            Some(stored) => stored.digest == job.body.digest(),
            None => known.body.prompt == job.body.prompt,
        };
        let same = known.tenant == job.tenant && same_prompt();
        Some(if same { Ok(id) } else { Err(Refusal::IdTaken) })
    }

    fn reply_of(&self, id: JobId) -> Reply {
        let job = &self.jobs[&id].job;
        let known = job.once.as_ref().map(|once| once.node_errors.clone());
        Reply::Accepted { prompt_id: job.prompt_id.clone(), number: job.number, known }
    }

    fn no_room(&self, tenant: &str) -> Option<Reply> {
        if self.draining {
            return Some(Reply::Refused(Refusal::Draining));
        }
        let queued = self.queue.len() + self.accepting;
        if queued >= self.config.max_queued {
            return Some(Reply::Refused(Refusal::QueueFull { queued, limit: self.config.max_queued }));
        }
        let index = self.tenants.get(tenant)?;
        let queued = self.tenants.totals(index).queued as usize;
        let limit = self.config.max_queued_per_tenant;
        let tenant = tenant.to_owned();
        (queued >= limit).then_some(Reply::Refused(Refusal::TenantFull { tenant, queued, limit }))
    }

    /// ComfyUI's counter: every prompt without a number takes one, `front` takes its negative.
    fn next_number(&mut self, job: &Job) -> Number {
        if let Some(number) = job.requested.number {
            return Number::Given(number);
        }
        let number = self.counter;
        self.counter += 1;
        Number::Counted(if job.requested.front { -number } else { number })
    }

    fn load(&self, tenant: u32, client: u32) -> Load {
        let all = self.totals();
        Load {
            queued: all.queued,
            running: all.running,
            instances: self.instances.iter().filter(|i| i.up).count() as u32,
            free_slots: self.instances.iter().map(|i| i.free_slots()).sum(),
            tenant_queued: self.tenants.totals(tenant).queued,
            tenant_running: self.tenants.totals(tenant).running,
            client_queued: self.clients.totals(client).queued,
        }
    }

    pub(super) fn intake_decided(
        &mut self,
        request: RequestId,
        job: Box<Job>,
        (admission, priority, limits): (Admission, Priority, Limits),
        records: Vec<DecisionRecord>,
    ) {
        if let Admission::Reject { status, retry_after_s, reason } = admission {
            self.remember(records, Some(job.id), Some("refused".into()));
            self.release_names(&job);
            let refusal = Refusal::Policy { status, retry_after_s, reason };
            return self.out.push(Action::Reply { request, reply: Reply::Refused(refusal) });
        }
        // Two prompts with one id may have been asked about at the same time, and many for the last place.
        if self.is_known(request, &job) {
            return self.release_names(&job);
        }
        if let Some(reply) = self.no_room(&job.tenant) {
            self.remember(records, Some(job.id), Some("refused: there was no room any more".into()));
            self.release_names(&job);
            return self.out.push(Action::Reply { request, reply });
        }
        let limits = self.clamp_limits(limits);
        let id = job.id;
        self.remember(records, Some(id), None);
        let mut events = vec![Event::JobAccepted { job: job.clone(), priority, limits }];
        events.append(&mut self.records);
        self.register(*job, priority, limits);
        self.recount(id, |t| t.queued += 1);
        self.accepting += 1;
        self.commit(Then::Accept { request, job: id }, events);
    }

    /// Names get an index when a prompt arrives; one that is refused must not keep it.
    fn release_names(&mut self, job: &Job) {
        self.tenants.release_if_unused(&job.tenant);
        self.clients.release_if_unused(job.client_id.as_deref().unwrap_or(""));
    }

    pub(super) fn clamp_limits(&self, limits: Limits) -> Limits {
        let max = self.config.max_limits;
        let least = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min();
        Limits {
            queue_ms: least(limits.queue_ms, max.queue_ms),
            run_ms: least(limits.run_ms, max.run_ms),
            stall_ms: least(limits.stall_ms, max.stall_ms),
        }
    }

    fn register(&mut self, job: Job, priority: Priority, limits: Limits) {
        self.seq += 1;
        let id = job.id;
        self.prompt_ids.insert(job.prompt_id.clone(), id);
        if let Some(once) = &job.once {
            self.once.insert((job.tenant.clone(), once.key.clone()), id);
        }
        let entry = Entry {
            seq: self.seq,
            tenant: self.tenants.index(&job.tenant),
            client: self.clients.index(job.client_id.as_deref().unwrap_or("")),
            kind: kind(&job.needs),
            place: 0,
            pinned: false,
            job: Arc::new(job),
            priority,
            limits,
            accepted: self.now.tick,
            phase: Phase::Accepting,
            attempts: 0,
            last_attempt: None,
            avoid: None,
            unwanted: None,
            ran_out: false,
            outgrew_mib: None,
            held_ms: 0,
            held: None,
        };
        self.texts_here += entry.texts_here();
        self.jobs.insert(id, entry);
    }

    /// The job is durable: its large texts may be left to the ledger.
    fn make_room(&mut self, id: JobId) {
        let over = self.texts_here > self.config.text_bytes;
        let Some(entry) = self.jobs.get_mut(&id).filter(|entry| over && entry.job.body.stored.is_none())
        else {
            return;
        };
        self.texts_here -= entry.texts_here();
        let body = Arc::new(entry.job.body.without_texts());
        Arc::make_mut(&mut entry.job).body = body;
    }

    pub(super) fn accepted(&mut self, request: RequestId, id: JobId) {
        self.accepting -= 1;
        if !self.jobs.contains_key(&id) {
            return;
        }
        let reply = self.reply_of(id);
        for request in self.requests_for(request, id) {
            self.out.push(Action::Reply { request, reply: reply.clone() });
        }
        self.make_room(id);
        self.enqueue(id, self.now.tick);
        self.status();
    }

    pub(super) fn not_accepted(&mut self, request: RequestId, id: JobId, refusal: Refusal) {
        self.accepting -= 1;
        self.recount(id, |t| t.queued -= 1);
        self.forget(id);
        for request in self.requests_for(request, id) {
            self.out.push(Action::Reply { request, reply: Reply::Refused(refusal.clone()) });
        }
    }

    /// The one that brought the job, and those that repeated it meanwhile.
    fn requests_for(&mut self, first: RequestId, id: JobId) -> impl Iterator<Item = RequestId> + use<> {
        std::iter::once(first).chain(self.repeated.remove(&id).unwrap_or_default())
    }

    /// Drop an entry whose end is durable, or that never was.
    pub(super) fn forget(&mut self, id: JobId) -> Option<Arc<Job>> {
        let entry = self.jobs.remove(&id)?;
        self.version += 1;
        self.texts_here -= entry.texts_here();
        self.prompt_ids.remove(&entry.job.prompt_id);
        if let Some(once) = &entry.job.once {
            self.once.remove(&(entry.job.tenant.clone(), once.key.clone()));
        }
        Some(entry.job)
    }

    /// The open job of this id, if the scope covers it.
    pub(super) fn named(&self, prompt_id: &str, scope: &Scope) -> Option<JobId> {
        let id = *self.prompt_ids.get(prompt_id)?;
        self.jobs[&id].is_of(scope).then_some(id)
    }

    pub(super) fn delete(&mut self, request: RequestId, prompt_ids: &[String], scope: &Scope) {
        let jobs: Vec<JobId> = prompt_ids.iter().filter_map(|id| self.named(id, scope)).collect();
        self.cancel_waiting(request, jobs, 0, Stops::default());
    }

    pub(super) fn clear(&mut self, request: RequestId, scope: &Scope) {
        let covered = |id: &JobId| self.jobs[id].is_of(scope);
        let jobs = self.queue.ids().filter(covered).collect();
        self.cancel_waiting(request, jobs, 0, Stops::default());
    }

    /// Running jobs are told to stop, waiting ones are taken out.
    pub(super) fn cancel(&mut self, request: RequestId, prompt_ids: &[String], scope: &Scope) {
        let named: HashSet<JobId> = prompt_ids.iter().filter_map(|id| self.named(id, scope)).collect();
        let jobs: Vec<JobId> = named.into_iter().collect();
        let mut stops = Stops::default();
        let stopped = jobs.iter().filter(|id| self.stop_for_good(**id, &mut stops)).count();
        self.cancel_waiting(request, jobs, stopped, stops);
    }

    fn cancel_waiting(&mut self, request: RequestId, jobs: Vec<JobId>, stopped: usize, stops: Stops) {
        let jobs: Vec<JobId> = jobs.into_iter().filter(|id| self.queue.remove(*id).is_some()).collect();
        if jobs.is_empty() {
            return self.note_stops(stops, Some((request, stopped)));
        }
        self.note_stops(stops, None);
        self.version += 1;
        let at = self.now.wall;
        let end = |job: &JobId| Event::JobEnded {
            job: *job,
            outcome: JobOutcome::Cancelled,
            at,
            history: History::default(),
        };
        let events = jobs.iter().map(end).collect();
        for id in &jobs {
            if let Some(entry) = self.jobs.get_mut(id) {
                entry.phase = Phase::Removed;
            }
        }
        self.commit(Then::Deleted { request, jobs, stopped }, events);
    }

    pub(super) fn deleted(&mut self, request: RequestId, jobs: &[JobId], stopped: usize) {
        for id in jobs {
            self.recount(*id, |t| t.queued -= 1);
            self.forget(*id);
        }
        self.status();
        let affected = jobs.len() + stopped;
        self.out.push(Action::Reply { request, reply: Reply::Done { affected } });
    }

    /// The ledger did not take it: they still wait.
    pub(super) fn not_deleted(&mut self, request: RequestId, jobs: &[JobId], stopped: usize) {
        for id in jobs {
            self.enqueue(*id, self.now.tick);
        }
        self.out.push(Action::Reply { request, reply: Reply::Done { affected: stopped } });
    }

    /// Take up the jobs of a ledger. How long they have waited is told by the wall clock: the monotonic one does not
    /// survive a restart.
    pub(super) fn restore(&mut self, open: Vec<OpenJob>) {
        for OpenJob { job, priority, limits, place, pinned, attempts, stop } in open {
            let id = job.id;
            let waited = self.now.wall.saturating_sub(job.accepted_at);
            self.register(job, priority, limits);
            let entry = self.jobs.get_mut(&id).expect("just registered");
            (entry.place, entry.pinned) = (place, pinned);
            entry.accepted = Tick(self.now.tick.0.saturating_sub(waited));
            entry.attempts = attempts.iter().map(|a| a.0.number).max().unwrap_or(0);
            entry.last_attempt = attempts.last().map(|a| a.0.clone());
            match attempts.into_iter().last() {
                Some((attempt, None)) => self.restore_attempt(id, attempt, stop),
                Some(_) | None => {
                    self.recount(id, |t| t.queued += 1);
                    self.enqueue(id, self.now.tick);
                }
            }
            self.to_reassess.push_back(id);
        }
    }

    /// An attempt that was live when the router stopped: its instance is asked as soon as it is up.
    fn restore_attempt(&mut self, id: JobId, attempt: Attempt, stop: Option<StopReason>) {
        self.recount(id, |t| t.running += 1);
        let now = self.now.tick;
        let number = attempt.number;
        let index = self.instances.iter().position(|i| i.spec.id == attempt.instance);
        if let Some(index) = index {
            self.instances[index].live.push(super::live(id, now, None));
        }
        let entry = self.jobs.get_mut(&id).expect("just registered");
        let run = Run::new(attempt, index.unwrap_or(usize::MAX), now, &entry.limits);
        let until = now.after(self.config.interrupt_grace_ms);
        let stopping = stop.map(|why| Stopping { why, until, noted: true });
        entry.phase = Phase::Running(Box::new(Run { delivery: Delivery::Unsure, stopping, ..run }));
        if index.is_none() {
            let detail = "its instance is no longer configured".to_owned();
            self.sighted(id, number, Sighting::NotDispatched { detail, blame: false });
        }
    }
}

/// Jobs of one kind need the same classes and models.
fn kind(needs: &Needs) -> u64 {
    let mut hash = std::hash::DefaultHasher::new();
    (&needs.classes, &needs.models).hash(&mut hash);
    hash.finish()
}

impl Entry {
    fn texts_here(&self) -> usize {
        if self.job.body.stored.is_some() { 0 } else { self.job.body.text_bytes() }
    }

    pub(super) fn is_of(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Everybody => true,
            Scope::Tenant(name) => self.job.tenant == *name,
        }
    }
}
