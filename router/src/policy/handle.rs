//! The way in: asks the policy thread, and answers natively itself when that thread does not answer in time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::config::Config;
use super::error::LoadError;
use super::record;
use super::recording::Recorder;
use super::service::{Order, Place};
use super::shipped::Shipped;
use super::state::{Changes, Entry, Held, Refused, Spaces};
use super::status::PolicyStatus;
use crate::metrics;
use crate::model::decision::{Consultation, Decided, Fallback, Hook, PolicyVersion, Question};
use crate::model::job::WallMs;

/// A JSON object.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// Time on top of the guest's own deadlines for the way to the policy thread and back.
const GRACE: Duration = Duration::from_millis(5);

/// How long an operator waits for an order to be written down.
const ORDERS: Duration = Duration::from_secs(5);

/// Where a component comes from.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    Bytes { name: String, bytes: Vec<u8> },
    Shipped(Shipped),
}

/// One question on its way to the policy thread.
#[derive(Debug)]
pub(crate) struct Ask {
    pub consultation: Arc<Consultation>,
    pub reply: oneshot::Sender<Decided>,
}

/// A component on its way to the loading thread.
#[derive(Debug)]
pub(crate) struct LoadRequest {
    pub lane: usize,
    pub source: Source,
    pub place: Place,
    /// None: those of the lane.
    pub settings: Option<Settings>,
    pub reply: oneshot::Sender<Result<PolicyVersion, LoadError>>,
}

/// Other settings for the component that serves.
#[derive(Debug)]
pub(crate) struct SettingsRequest {
    pub lane: usize,
    pub settings: Settings,
    /// They are the configuration's now, and no operator's order.
    pub configured: bool,
    pub reply: oneshot::Sender<Result<PolicyVersion, LoadError>>,
}

/// An operator's order was not followed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("no component of its own serves {0}: there are {1}")]
    NoSuchLane(String, String),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Cheap to clone; the policy's threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) asks: SyncSender<super::service::Command>,
    pub(crate) loads: SyncSender<super::loader::Command>,
    pub(crate) config: Arc<Config>,
    /// Names, in order.
    pub(crate) lanes: Arc<[Arc<str>]>,
    pub(crate) serving: watch::Receiver<PolicyVersion>,
    pub(crate) status: watch::Receiver<PolicyStatus>,
    pub(crate) places: Arc<AtomicBool>,
    pub(crate) spaces: Spaces,
    pub(crate) recorder: Recorder,
    /// Tells the loading thread that somebody is left.
    pub(crate) _alive: Arc<()>,
}

impl Handle {
    /// Asks the policy. Never fails: whatever goes wrong, the built-in answers within the deadline of the call.
    pub async fn decide(&self, consultation: Consultation) -> Decided {
        let started = Instant::now();
        let consultation = Arc::new(consultation);
        let (reply, answer) = oneshot::channel();
        let ask = Ask { consultation: consultation.clone(), reply };
        let decided = if self.asks.try_send(super::service::Command::Ask(ask)).is_err() {
            self.unavailable(&consultation, started)
        } else {
            match tokio::time::timeout(self.patience(&consultation.question), answer).await {
                Ok(Ok(decided)) => decided,
                Ok(Err(_)) | Err(_) => self.unavailable(&consultation, started),
            }
        };
        self.recorder.note(&consultation, &decided);
        decided
    }

    /// The last decisions with what they were made from, one a line, as `policy replay` reads them.
    pub fn recording(&self) -> String {
        self.recorder.lines()
    }

    /// The version that answers now; the last good one or `builtin` while the newest is switched off.
    pub fn version(&self) -> PolicyVersion {
        self.serving.borrow().clone()
    }

    /// Does the version that answers now place a window of the queue at once?
    pub fn places(&self) -> bool {
        self.places.load(Ordering::Acquire)
    }

    /// Wakes when another version answers from now on: priorities given by the old one are worth asking again.
    pub fn changed(&self) -> watch::Receiver<PolicyVersion> {
        self.serving.clone()
    }

    /// Puts a component into service as the policy, if it passes every check; otherwise the present one stays.
    pub async fn load(&self, source: Source) -> Result<PolicyVersion, LoadError> {
        self.place_in(0, source, Place::Live, None).await
    }

    /// Puts a component into its place in a lane: the policy's, or the one of an interface that has a component of its
    /// own. Without settings it gets those of the lane.
    pub async fn place(
        &self,
        lane: Option<&str>,
        source: Source,
        place: Place,
        settings: Option<Settings>,
    ) -> Result<PolicyVersion, OrderError> {
        Ok(self.place_in(self.lane(lane)?, source, place, settings).await?)
    }

    async fn place_in(
        &self,
        lane: usize,
        source: Source,
        place: Place,
        settings: Option<Settings>,
    ) -> Result<PolicyVersion, LoadError> {
        let (reply, loaded) = oneshot::channel();
        let request = LoadRequest { lane, source, place, settings, reply };
        self.loads.try_send(super::loader::Command::Load(request)).map_err(|_| LoadError::Busy)?;
        loaded.await.unwrap_or(Err(LoadError::Stopped))
    }

    /// Gives the component that serves other settings: it judges them, and passes every check again, before they count.
    pub async fn resettle(
        &self,
        lane: Option<&str>,
        settings: Settings,
    ) -> Result<PolicyVersion, OrderError> {
        self.settle(lane, settings, false).await
    }

    /// The same, when the configuration was read again and has these.
    pub async fn reconfigured(
        &self,
        lane: Option<&str>,
        settings: Settings,
    ) -> Result<PolicyVersion, OrderError> {
        self.settle(lane, settings, true).await
    }

    async fn settle(
        &self,
        lane: Option<&str>,
        settings: Settings,
        configured: bool,
    ) -> Result<PolicyVersion, OrderError> {
        let (reply, settled) = oneshot::channel();
        let request = SettingsRequest { lane: self.lane(lane)?, settings, configured, reply };
        self.loads.try_send(super::loader::Command::Settings(request)).map_err(|_| LoadError::Busy)?;
        Ok(settled.await.unwrap_or(Err(LoadError::Stopped))?)
    }

    /// An operator's order about the versions of a lane.
    pub async fn order(&self, lane: Option<&str>, order: Order) -> Result<PolicyVersion, OrderError> {
        let (reply, done) = oneshot::channel();
        let lane = self.lane(lane)?;
        let command = super::service::Command::Operate { lane, order, reply };
        self.asks.try_send(command).map_err(|_| LoadError::Busy)?;
        let version = done
            .await
            .unwrap_or_else(|_| Err("the policy host has stopped".to_owned()))
            .map_err(OrderError::Refused)?;
        self.remembered_orders().await;
        Ok(version)
    }

    /// What was ordered holds after a restart before the operator is told that it was done.
    async fn remembered_orders(&self) {
        let (reply, written) = oneshot::channel();
        // A loader that is busy, compiling maybe, looks by itself when it is done.
        if self.loads.try_send(super::loader::Command::Orders { reply }).is_ok() {
            let _ = tokio::time::timeout(ORDERS, written).await;
        }
    }

    /// What is configured serves again, now and after a restart, whatever was ordered. A canary or shadow stays.
    pub async fn unpin(&self, lane: Option<&str>) -> Result<PolicyVersion, OrderError> {
        let (reply, done) = oneshot::channel();
        let command = super::loader::Command::Configured { lane: self.lane(lane)?, reply };
        self.loads.try_send(command).map_err(|_| LoadError::Busy)?;
        Ok(done.await.unwrap_or(Err(LoadError::Stopped))?)
    }

    /// The lane called so, or the one that serves the interface of that name.
    fn lane(&self, name: Option<&str>) -> Result<usize, OrderError> {
        let Some(name) = name else { return Ok(0) };
        let serves = |lane: &Arc<str>| **lane == *name || lane.split('+').any(|interface| interface == name);
        self.lanes.iter().position(serves).ok_or_else(|| {
            let all: Vec<&str> = self.lanes.iter().map(|lane| &**lane).collect();
            OrderError::NoSuchLane(super::check::text(name, 64), all.join(", "))
        })
    }

    /// What serves, what is switched off and why, and what was refused last.
    pub fn status(&self) -> PolicyStatus {
        PolicyStatus { record: self.recorder.status(), ..self.status.borrow().clone() }
    }

    /// The last that was refused in this lane were settings.
    pub fn refuses_settings(&self, lane: &str) -> bool {
        let status = self.status.borrow();
        status.refused.as_ref().is_some_and(|refused| *refused.lane == *lane && refused.origin.is_none())
    }

    /// What each policy remembers, in figures.
    pub fn held(&self) -> Vec<Held> {
        self.spaces.held()
    }

    /// The first `most` entries of a policy's memory whose keys begin with `prefix`.
    pub fn remembered(
        &self,
        policy: &str,
        prefix: &str,
        most: usize,
        now: WallMs,
    ) -> BTreeMap<String, Entry> {
        self.spaces.known(policy).map(|space| space.entries(prefix, most, now)).unwrap_or_default()
    }

    /// An operator's word: `None` forgets the key. Says why not, if not.
    pub fn remember(
        &self,
        policy: &str,
        key: String,
        value: Option<String>,
        ttl_ms: Option<u32>,
        now: WallMs,
    ) -> Result<(), &'static str> {
        let (space, mut changes) = (self.spaces.of(policy), Changes::default());
        match value {
            Some(value) => space.set(&mut changes, key, value, ttl_ms, now).map_err(Refused::as_str)?,
            None => {
                space.delete(&mut changes, &key, now);
            }
        }
        space.apply(&mut changes);
        Ok(())
    }

    /// An operator's word: forget everything of a policy. Says how many keys that were.
    pub fn forget(&self, policy: &str) -> usize {
        self.spaces.known(policy).map_or(0, |space| space.clear())
    }

    /// Waits until what policies remember is on disk.
    pub fn flush(&self, patience: Duration) {
        self.spaces.flush(patience);
    }

    fn unavailable(&self, consultation: &Consultation, started: Instant) -> Decided {
        let took = started.elapsed();
        let (version, reason) = (self.version(), Fallback::Unavailable);
        let decided = record::natively(consultation, &self.config, &version, Some(reason), micros(took));
        for record in &decided.records {
            metrics::decision(record.hook, &version, Some(reason), took);
        }
        decided
    }

    fn patience(&self, question: &Question) -> Duration {
        self.config.limits.call() * hooks(question).len() as u32 + GRACE
    }
}

/// The hooks a question may call, in order.
pub(crate) fn hooks(question: &Question) -> &'static [Hook] {
    match question {
        Question::Intake { .. } => &[Hook::Admit, Hook::Prioritize, Hook::LimitsFor],
        Question::Reassess { .. } => &[Hook::Prioritize, Hook::LimitsFor],
        Question::Route { .. } => &[Hook::Route],
        Question::Place { .. } => &[Hook::Place],
        Question::OnTimeout { .. } => &[Hook::OnTimeout],
        Question::OnFailure { .. } => &[Hook::OnFailure],
        Question::Tick { .. } => &[Hook::Tick],
        Question::Observe { .. } => &[Hook::Observe],
    }
}

pub(crate) fn micros(took: Duration) -> u32 {
    took.as_micros().try_into().unwrap_or(u32::MAX)
}
