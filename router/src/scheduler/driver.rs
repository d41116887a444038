//! Runs the core: one task that turns the world into inputs, in order, and executes the actions it gets back. Questions
//! and writes are awaited inside the task; anything that talks to an instance runs beside it and reports back.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::assets;
use crate::clock::{Clock, Tick};
use crate::fleet::{self, EventKind, FleetEvent};
use crate::ledger::{self, LedgerError};
use crate::metrics;
use crate::model::event::{Event, OutputFile};
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::view::DeviceText;
use crate::policy;
use crate::processes;
use crate::relay::{self, Report};
use crate::tasks::{self, OnError};
use crate::telemetry;

use super::core::Core;
use super::handle::{Handle, Look, Message, QueueView};
use super::input::{
    Action, Announcement, Input, InstanceChange, NotStored, Reply, RequestId, Sighting, Ticket,
};
use super::{account, dispatch, keep, settle, texts};

/// Deadlines are checked this often.
const TICK: Duration = Duration::from_millis(100);
/// Gauges are set this often.
const GAUGES_EVERY_TICKS: u32 = 10;
/// Jobs that age overtake each other as time passes: a list of the queue is made anew after so long.
const LISTING_MS: u64 = 100;
const INBOX: usize = 4096;
/// An end that cannot be written is tried again this often.
const INSIST_EVERY: Duration = Duration::from_secs(1);

/// The organs the driver acts through.
#[derive(Debug, Clone)]
pub struct Organs {
    pub policy: policy::Handle,
    pub ledger: ledger::Handle,
    pub fleet: fleet::Handle,
    pub processes: processes::Handle,
    pub assets: assets::Handle,
    pub relay: relay::Handle,
    pub telemetry: telemetry::Handle,
    /// What jobs write is copied when they have ended.
    pub keep_outputs: bool,
}

type Answer = Pin<Box<dyn Future<Output = Input> + Send>>;

pub struct Service {
    core: Core,
    organs: Organs,
    clock: Arc<dyn Clock>,
    messages: mpsc::Receiver<Message>,
    /// For the tasks beside this one.
    own: mpsc::WeakSender<Message>,
    reports: mpsc::Receiver<Report>,
    answers: FuturesUnordered<Answer>,
    waiting: HashMap<RequestId, oneshot::Sender<Reply>>,
    last_request: RequestId,
    /// What jobs wrote whose ends are on their way to the disk.
    written: HashMap<JobId, Vec<OutputFile>>,
    /// Attempts on their way to an instance.
    sending: HashMap<UpstreamId, JoinHandle<()>>,
    remaining: Arc<AtomicUsize>,
    /// The last list of the queue, with the version and the time it was made of.
    listed: Option<((u64, u64), Tick, Arc<QueueView>)>,
    ticks: u32,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("scheduler::Service")
            .field("remaining", &self.core.remaining())
            .finish_non_exhaustive()
    }
}

impl Service {
    pub fn new(
        core: Core,
        organs: Organs,
        reports: mpsc::Receiver<Report>,
        clock: Arc<dyn Clock>,
    ) -> (Self, Handle) {
        let (sender, messages) = mpsc::channel(INBOX);
        let remaining = Arc::new(AtomicUsize::new(core.remaining()));
        let service = Self {
            core,
            organs,
            clock,
            messages,
            own: sender.downgrade(),
            reports,
            answers: FuturesUnordered::new(),
            waiting: HashMap::new(),
            last_request: 0,
            written: HashMap::new(),
            sending: HashMap::new(),
            remaining: remaining.clone(),
            listed: None,
            ticks: 0,
        };
        (service, Handle { messages: sender, remaining })
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut policy = self.organs.policy.changed();
        self.core.places(self.organs.policy.places());
        let mut samples = self.organs.telemetry.changed();
        loop {
            tokio::select! {
                Some(input) = self.answers.next() => self.step(input),
                message = self.messages.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                Some(report) = self.reports.recv() => self.report(report),
                _ = tick.tick() => self.tick(),
                Ok(()) = policy.changed() => {
                    let places = self.organs.policy.places();
                    self.step(Input::PolicyChanged { places });
                }
                Ok(()) = samples.changed() => {
                    let readings = self.organs.telemetry.snapshot().views();
                    self.step(Input::Readings(readings));
                }
            }
        }
    }

    fn step(&mut self, input: Input) {
        let actions = self.core.step(input, self.clock.now());
        self.remaining.store(self.core.remaining(), Ordering::Relaxed);
        for action in actions {
            self.execute(action);
        }
    }

    fn tick(&mut self) {
        self.step(Input::Tick);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(GAUGES_EVERY_TICKS) {
            account::gauges(&self.core, &self.organs.fleet);
        }
        self.sending.retain(|_, task| !task.is_finished());
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.step(*input),
            Message::Request { make, reply } => {
                self.last_request += 1;
                self.waiting.insert(self.last_request, reply);
                self.step(make.numbered(self.last_request));
            }
            // Whoever asked may have gone meanwhile.
            Message::Look(Look::Queue(reply)) => drop(reply.send(self.queue())),
            Message::Look(Look::Find(prompt_id, reply)) => drop(reply.send(self.core.find(&prompt_id))),
            Message::Look(Look::Fleet(reply)) => drop(reply.send(self.core.report())),
            Message::Look(Look::State(job, reply)) => drop(reply.send(self.core.state(job))),
            Message::Look(Look::Why(job, reply)) => drop(reply.send(self.core.explain(job))),
        }
    }

    /// One list serves all who ask at about the same time.
    fn queue(&mut self) -> Arc<QueueView> {
        let (version, now) = (self.core.version(), self.clock.now().tick);
        if let Some((made, at, view)) = &self.listed
            && *made == version
            && now.since(*at) < LISTING_MS
        {
            return view.clone();
        }
        let (running, pending) = self.core.listing();
        let view = Arc::new(QueueView { running, pending });
        self.listed = Some((version, now, view.clone()));
        view
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Fleet(event) => self.fleet_event(event),
            Report::Progress { job, number, nodes_done, node_percent } => {
                let sighting = Sighting::Progress { nodes_done, node_percent };
                self.step(Input::Attempt { job, number, sighting });
            }
            Report::Over { job, attempt, evidence } => {
                // At once: should the instance die now, its events are the evidence of how this one ended.
                let over = Input::Attempt { job: job.id, number: attempt.number, sighting: Sighting::Over };
                self.step(over);
                let fleet = self.organs.fleet.clone();
                self.beside("settle", async move {
                    let ending = settle::ending(&fleet, &job, &attempt, &evidence).await;
                    Some(Input::Attempt {
                        job: job.id,
                        number: attempt.number,
                        sighting: Sighting::Ended(ending),
                    })
                });
            }
        }
    }

    fn fleet_event(&mut self, event: FleetEvent) {
        let Some(index) = self.organs.fleet.index_of(&event.instance) else { return };
        if let EventKind::Up(info) | EventKind::Info(info) | EventKind::Same(info) = &event.kind {
            let stats = String::from_utf8_lossy(&info.system_stats);
            self.organs.telemetry.system_stats(&event.instance, &stats);
        }
        let change = match event.kind {
            EventKind::Up(info) => {
                let devices = info.devices.iter().map(device_text).collect();
                self.step(Input::Instance { index, change: InstanceChange::Devices(devices) });
                InstanceChange::Up(info.catalogue.capabilities().clone())
            }
            EventKind::Down { reason, silent } => InstanceChange::Down { reason: reason.to_string(), silent },
            EventKind::Info(info) => {
                let (running, pending) = (info.foreign.running, info.foreign.pending);
                self.step(Input::Instance { index, change: InstanceChange::Foreign { running, pending } });
                InstanceChange::Capabilities(info.catalogue.capabilities().clone())
            }
            EventKind::SocketUp => InstanceChange::Linked(true),
            EventKind::SocketDown => InstanceChange::Linked(false),
            EventKind::Same(_) | EventKind::Frame(_) => return,
        };
        self.step(Input::Instance { index, change });
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Consult { ticket, consultation } => {
                let (policy, ledger) = (self.organs.policy.clone(), self.organs.ledger.clone());
                self.answers.push(Box::pin(async move {
                    let mut consultation = *consultation;
                    texts::fill(&ledger, &mut consultation.question).await;
                    Input::Decided { ticket, decided: policy.decide(consultation).await }
                }));
            }
            Action::Commit { ticket, events, insist } => self.commit(ticket, events, insist),
            Action::Note(events) => self.organs.ledger.note(decisions(events)),
            Action::Reply { request, reply } => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    let _ = waiting.send(reply);
                }
            }
            Action::Dispatch { job, attempt } => {
                account::started(&job, &attempt);
                let (upstream, organs) = (attempt.upstream_id, self.organs.clone());
                let task =
                    self.beside("dispatch", async move { dispatch::send(&organs, job, attempt).await });
                self.sending.insert(upstream, task);
            }
            Action::Closed(closed) => {
                if let Some(task) = self.sending.remove(&closed.attempt.upstream_id) {
                    task.abort();
                }
                account::closed(&closed);
            }
            Action::Interrupt { instance, upstream } => {
                let fleet = self.organs.fleet.clone();
                self.beside("interrupt", async move { dispatch::stop(&fleet, &instance, upstream).await });
            }
            Action::Inspect { job, attempt } => {
                let fleet = self.organs.fleet.clone();
                self.beside("inspect", async move { settle::inspect(&fleet, &job, &attempt).await });
            }
            Action::InspectZombie { index, upstream } => {
                let fleet = self.organs.fleet.clone();
                self.beside("inspect", async move { settle::zombie(&fleet, index, upstream).await });
            }
            Action::Announce(announcement) => {
                account::ended(&announcement);
                self.keep_outputs(&announcement);
                self.organs.relay.announce(&(*announcement).into());
            }
            Action::Forget { upstream } => self.organs.relay.forget(upstream),
            Action::Status { remaining } => self.organs.relay.status(remaining),
            Action::Free { instance, unload_models, free_memory } => {
                let fleet = self.organs.fleet.clone();
                self.beside("free", async move {
                    if let Err(error) = fleet.free(&instance, unload_models, free_memory).await {
                        tracing::warn!(%instance, %error, "could not free memory");
                    }
                    None
                });
            }
            Action::Restart { instance, reason } => self.restart(instance, reason),
            Action::Told { instance, news } => account::told(&instance, &news),
        }
    }

    fn restart(&self, instance: InstanceId, reason: String) {
        let (fleet, processes) = (self.organs.fleet.clone(), self.organs.processes.clone());
        self.beside("restart", async move {
            tracing::warn!(%instance, reason, "restarting instance");
            let outcome = processes.restart(&instance).await;
            fleet.hurry(&instance);
            metrics::instance_restart(&instance, outcome.is_ok());
            match outcome {
                Ok(()) => tracing::info!(%instance, "instance was restarted"),
                Err(error) => tracing::error!(%instance, %error, "instance could not be restarted"),
            }
            None
        });
    }

    fn commit(&mut self, ticket: Ticket, events: Vec<Event>, insist: bool) {
        // Queued now, in the order of the actions; awaited later.
        self.note_outputs(&events);
        let accepted = account::accepted(&events);
        let again = insist.then(|| events.clone());
        let first = self.organs.ledger.commit(events);
        let ledger = self.organs.ledger.clone();
        self.answers.push(Box::pin(async move {
            let mut result = first.await;
            while let (Err(error), Some(events)) = (&result, &again) {
                if matches!(error, LedgerError::Refused { .. }) {
                    tracing::error!(%error, "the ledger contradicts the scheduler");
                    break;
                }
                tracing::error!(%error, "an end could not be stored, trying again");
                tokio::time::sleep(INSIST_EVERY).await;
                result = ledger.commit(events.clone()).await;
            }
            match result {
                Err(error) if !insist => {
                    Input::CommitFailed { ticket, why: why(&error), error: error.to_string() }
                }
                _ => {
                    accepted.into_iter().for_each(metrics::job_accepted);
                    Input::Committed { ticket }
                }
            }
        }));
    }

    fn note_outputs(&mut self, events: &[Event]) {
        for event in events.iter().filter(|_| self.organs.keep_outputs) {
            if let Event::JobEnded { job, history, .. } = event
                && !history.files.is_empty()
            {
                self.written.insert(*job, history.files.clone());
            }
        }
    }

    fn keep_outputs(&mut self, end: &Announcement) {
        if let (Some(files), Some(attempt)) = (self.written.remove(&end.job.id), &end.attempt) {
            let (organs, job, instance) = (self.organs.clone(), end.job.id, attempt.instance.clone());
            self.beside("keep outputs", async move {
                keep::outputs(&organs, job, &instance, files).await;
                None
            });
        }
    }

    /// Run something that talks to an instance, and feed what it found back.
    fn beside(
        &self,
        name: &'static str,
        work: impl Future<Output = Option<Input>> + Send + 'static,
    ) -> JoinHandle<()> {
        let own = self.own.clone();
        tasks::spawn(name, OnError::Log, async move {
            if let Some(input) = work.await
                && let Some(own) = own.upgrade()
            {
                // The scheduler only goes when nobody waits for it.
                let _ = own.send(Message::Input(Box::new(input))).await;
            }
        })
    }
}

fn why(error: &LedgerError) -> NotStored {
    match error {
        LedgerError::Full { .. } => NotStored::Full,
        LedgerError::Refused { .. } => NotStored::Contradicts,
        LedgerError::Io { .. } | LedgerError::Damaged { .. } | LedgerError::Closed => NotStored::Doubtful,
        LedgerError::GivenUp { .. }
        | LedgerError::Locked { .. }
        | LedgerError::Read { .. }
        | LedgerError::Busy { .. } => NotStored::Busy,
    }
}

fn device_text(device: &fleet::Device) -> DeviceText {
    let mib = (device.vram_total >> 20).try_into().unwrap_or(u32::MAX);
    DeviceText {
        name: device.name.clone(),
        kind: device.kind.clone(),
        vram_total_mib: (mib > 0).then_some(mib),
    }
}

fn decisions(events: Vec<Event>) -> Vec<crate::model::decision::DecisionRecord> {
    let record = |event| match event {
        Event::Decision(record) => Some(*record),
        _ => None,
    };
    events.into_iter().filter_map(record).collect()
}
