//! Carries the events of instances to the clients whose jobs they are about.
//!
//! It is told of each instance's events in order, on the task that hears them. An event of an attempt is put under the
//! client's prompt id, its files under the instance's name, and handed to the client's session. The event that ends an
//! attempt is held back until the scheduler says that the end is durable: only then the client sees it, then `status`,
//! then `executing {node: null}`. Progress and ends are reported to the scheduler; events of unknown attempts are dropped,
//! those without a prompt id belong to the job that runs there. It never decides what becomes of a job.

mod announce;
mod running;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::assets::Told;
use crate::clock::Clock;
use crate::comfy::frame::{Event, Frame, Kind};
use crate::fleet::{Audience, EventKind, FleetEvent, Gone};
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::job::{Attempt, Job, JobOutcome};
use crate::sessions::{self, Client, Message};

use running::Running;
pub use running::{Evidence, Verdict};

/// The end of a job, as its client is to hear it.
#[derive(Debug, Clone)]
pub struct End {
    pub job: Arc<Job>,
    pub outcome: JobOutcome,
    pub attempt: Option<Attempt>,
    pub detail: String,
    /// Of an instance's refusal, as JSON; empty when there is none.
    pub node_errors: String,
    pub remaining: usize,
}

/// What the relay tells the scheduler.
#[derive(Debug)]
pub enum Report {
    /// Anything but a frame, in order with the reports of that instance's frames.
    Fleet(FleetEvent),
    Progress {
        job: JobId,
        number: u32,
        nodes_done: u32,
        node_percent: Option<f32>,
    },
    /// The instance said that the attempt is over.
    Over {
        job: Arc<Job>,
        attempt: Attempt,
        evidence: Box<Evidence>,
    },
}

/// Cheap to clone. What it is told is done when the call returns, and before any event that comes later.
#[derive(Debug, Clone)]
pub struct Handle {
    relay: Arc<Mutex<Relay>>,
    reports: mpsc::Sender<Report>,
}

struct Relay {
    sessions: sessions::Handle,
    told: Told,
    clock: Arc<dyn Clock>,
    running: HashMap<String, Running>,
    /// The attempt that each instance works on, as its events say.
    current: HashMap<InstanceId, Arc<str>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl Handle {
    pub fn new(
        reports: mpsc::Sender<Report>,
        sessions: sessions::Handle,
        told: Told,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (running, current) = (HashMap::new(), HashMap::new());
        Self { relay: Arc::new(Mutex::new(Relay { sessions, told, clock, running, current })), reports }
    }

    /// An attempt is about to be sent.
    pub fn register(&self, job: Arc<Job>, attempt: Attempt) {
        self.relay().register(job, attempt);
    }

    /// Its events are of no interest any more.
    pub fn forget(&self, upstream: UpstreamId) {
        self.relay().forget(upstream);
    }

    /// Its end is durable: its client is told.
    pub fn announce(&self, end: &End) {
        self.relay().announce(end);
    }

    /// The number of open jobs.
    pub fn status(&self, remaining: usize) {
        self.relay().sessions.broadcast_status(remaining);
    }

    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience for Handle {
    async fn tell(&self, event: FleetEvent) -> Result<(), Gone> {
        let report = self.relay().event(event);
        match report {
            None => Ok(()),
            // The next one says more.
            Some(report @ Report::Progress { .. }) => match self.reports.try_send(report) {
                Err(TrySendError::Closed(_)) => Err(Gone),
                Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            },
            Some(report) => self.reports.send(report).await.map_err(|_| Gone),
        }
    }
}

impl Relay {
    fn register(&mut self, job: Arc<Job>, attempt: Attempt) {
        let key = attempt.upstream_id.to_string();
        let client = self.client_of(&job);
        self.running.insert(key.clone(), Running::new(key.into(), job, client, attempt));
    }

    fn forget(&mut self, upstream: UpstreamId) {
        if let Some(running) = self.running.remove(&upstream.to_string()) {
            self.left(&running.attempt);
            if let Some(client) = &running.client {
                self.sessions.forget(client, &running.name);
            }
        }
    }

    fn client_of(&self, job: &Job) -> Option<Client> {
        self.sessions.client(&job.tenant, job.client_id.as_deref()?)
    }

    /// The attempt works no more: what its instance says without naming a prompt is not about it.
    fn left(&mut self, attempt: &Attempt) {
        let key = attempt.upstream_id.to_string();
        if self.current.get(&attempt.instance).is_some_and(|current| **current == *key) {
            self.current.remove(&attempt.instance);
        }
    }

    /// Says what the scheduler should know.
    fn event(&mut self, event: FleetEvent) -> Option<Report> {
        let EventKind::Frame(frame) = event.kind else {
            if matches!(event.kind, EventKind::SocketDown | EventKind::Down { .. }) {
                self.current.remove(&event.instance);
            }
            return Some(Report::Fleet(event));
        };
        match frame {
            Frame::Event(json) => return self.json(&event.instance, &json),
            Frame::Preview(preview) => {
                let key =
                    preview.prompt_id.as_deref().or(self.current.get(&event.instance).map(|key| &**key));
                if let Some(running) = key.and_then(|key| self.running.get(key)) {
                    let preview = preview.for_client(&running.renaming);
                    self.to_client(running, Message::preview(&running.name, preview));
                }
            }
            Frame::Text(text) => {
                self.to_current(&event.instance, Message::ordinary_binary(text.raw));
            }
            Frame::Unknown(raw) => {
                self.to_current(&event.instance, Message::ordinary_binary(raw));
            }
        }
        None
    }

    fn json(&mut self, instance: &InstanceId, event: &Event) -> Option<Report> {
        let Some(key) = event.prompt_id.as_deref() else {
            self.without_id(instance, event);
            return None;
        };
        let now = self.clock.now();
        let Self { running, current, sessions, told, .. } = self;
        let running = running.get_mut(key)?;
        running.note(event, now);
        if let Some(verdict) = Verdict::of(event) {
            current.remove(instance);
            return Some(running.over(event, verdict, now));
        }
        if matches!(event.kind, Kind::Executing { node: None, .. }) {
            // Its last event; the client gets the router's own, after the end is durable.
            current.remove(instance);
            return None;
        }
        // Whatever it is: the beginning may have been missed.
        if running.held.is_none() {
            match current.get_mut(instance) {
                Some(current) => current.clone_from(&running.key),
                None => drop(current.insert(instance.clone(), running.key.clone())),
            }
        }
        let message = client_message(running, event, told);
        if let Some(client) = &running.client {
            sessions.send(client, &running.name, message);
        }
        running.progress(now)
    }

    /// `status` and the like are the router's to say. What custom nodes invent goes to the owner of the job that runs
    /// there if it names a node, to everybody if it does not.
    fn without_id(&self, instance: &InstanceId, event: &Event) {
        match &event.kind {
            Kind::Other(_) if event.names_a_node() => {
                self.to_current(instance, Message::ordinary(event.raw().clone()));
            }
            Kind::Other(_) => self.sessions.broadcast(Message::passing(event.raw().clone())),
            Kind::Logs => self.sessions.send_logs(&Message::passing(event.raw().clone())),
            _ => {}
        }
    }

    fn to_current(&self, instance: &InstanceId, message: Message) {
        if let Some(running) = self.current.get(instance).and_then(|key| self.running.get(&**key)) {
            self.to_client(running, message);
        }
    }

    fn to_client(&self, running: &Running, message: Message) {
        if let Some(client) = &running.client {
            self.sessions.send(client, &running.name, message);
        }
    }
}

/// The event under the client's prompt id.
fn client_message(running: &mut Running, event: &Event, told: &Told) -> Message {
    if matches!(event.kind, Kind::Executed { .. }) {
        let (text, files) = event.tagged(&running.renaming, &running.attempt.instance);
        for file in &files {
            told.tell(&running.job.tenant, &running.attempt.instance, file.clone());
        }
        running.evidence.files.extend(files);
        return Message::ordinary(text);
    }
    let text = event.renamed(&running.renaming);
    match &event.kind {
        Kind::ExecutionStart => Message::start(text),
        Kind::Executing { .. } => Message::executing(text),
        Kind::Progress { .. } => Message::progress(&running.name, "progress", text),
        Kind::ProgressState => Message::progress(&running.name, "progress_state", text),
        _ => Message::ordinary(text),
    }
}
