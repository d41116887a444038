//! The instances: one HTTP pool, one websocket and one supervisor each.
//!
//! Owns every connection to a ComfyUI and what is known of each: up or down, version, device, catalogue, queue. Never decides
//! which instance runs what, and knows jobs only by the ids it sent. The driver submits through [`Handle`], an
//! [`Audience`] is told of every [`FleetEvent`], the front forwards clients' requests, discovery fills a missing configuration.

mod board;
mod calls;
mod conn;
mod discover;
mod forward;
mod hearing;
mod hops;
mod line;
mod link;
mod member;
mod plain;
mod pool;
mod socket;
mod stats;
mod submit;
mod supervisor;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::{Request, Response};
use tokio::task::JoinHandle;

pub use calls::{CallError, QueueSnapshot};
pub use conn::ConnectError;
pub use discover::discover;
pub use forward::{Errand, ForwardError};
#[doc(hidden)] // For tests/fuzz, as what the socket exports.
pub use plain::Head;
#[doc(hidden)]
pub use socket::{Incoming, Message, Violation};
pub use stats::Device;
pub use submit::{SubmitError, Submitted};
pub use table::table;

use crate::comfy::Catalogue;
use crate::comfy::frame::Frame;
use crate::config::{self, Gpu, Url};
use crate::model::id::{InstanceId, UpstreamId};
use crate::model::job::UploadRef;
use crate::tasks::{self, OnError};
use board::Board;
use member::Member;
use supervisor::Supervisor;

/// What is known of an instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InstanceInfo {
    pub id: InstanceId,
    /// Its place in the configuration; fixed for the life of the process.
    pub index: u32,
    pub url: Url,
    pub labels: Arc<BTreeMap<String, String>>,
    pub gpu: Option<Gpu>,
    pub slots: u32,
    pub ahead: u32,
    /// There is a way to restart it.
    pub supervised: bool,
    pub state: State,
    /// Counts the times it came up. A change means that what it held before, queue, history, caches and `temp`, may be gone.
    pub epoch: u64,
    pub version: Option<Arc<str>>,
    /// The first is the one it computes on.
    pub devices: Arc<Vec<Device>>,
    /// Prompts in its queue that this router did not send.
    pub foreign: Foreign,
    /// Empty until it is up for the first time.
    pub catalogue: Arc<Catalogue>,
    /// The last wish for a new catalogue that this one fulfils.
    pub(in crate::fleet) wish: u64,
    /// The last answer of `/system_stats`, as it came.
    pub system_stats: Bytes,
}

impl InstanceInfo {
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not looked at yet.
    Starting,
    Up,
    Down {
        reason: Arc<str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreign {
    pub running: u32,
    pub pending: u32,
}

/// Something that happened at an instance. Per instance, events come in the order they happened.
#[derive(Debug, Clone)]
pub struct FleetEvent {
    pub instance: InstanceId,
    pub kind: EventKind,
}

#[derive(Debug, Clone)]
pub enum EventKind {
    /// It answers. An instance that restarted is always seen to go down first, even if no look at it failed.
    Up(InstanceInfo),
    Down {
        reason: Arc<str>,
        /// It lets the time for an answer pass: its process may hang. Told again when that changes.
        silent: bool,
    },
    /// Its catalogue, its figures or its foreign prompts changed.
    Info(InstanceInfo),
    /// It was looked at and is as it was; its figures are as old as this look.
    Same(InstanceInfo),
    /// Events of prompts submitted under [`Handle::sid`] will come, also of those that an earlier socket heard of.
    SocketUp,
    /// Events since the last frame are lost; what ran must be looked up in its queue and history.
    SocketDown,
    Frame(Frame),
}

/// Who is told what happens at the instances.
pub trait Audience: Clone + Send + Sync + 'static {
    /// Each instance's events in the order they happened. While this waits, nothing more is read of that instance.
    fn tell(&self, event: FleetEvent) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// For whom [`Handle::instances`] is enough.
impl Audience for () {
    async fn tell(&self, _event: FleetEvent) -> Result<(), Gone> {
        Ok(())
    }
}

/// Nobody listens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Watches the instances.
#[derive(Debug)]
pub struct Service {
    config: config::Fleet,
    handle: Handle,
}

/// The instances are watched. Dropping it changes nothing.
#[derive(Debug)]
pub struct Watching(Vec<JoinHandle<()>>);

/// Talks to every instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    members: Arc<Vec<Arc<Member>>>,
    board: Arc<Board>,
    /// Somebody reads the home instance's log.
    logs: Arc<AtomicBool>,
    health_timeout: Duration,
    submit_timeout: Duration,
}

impl Service {
    /// `router` tells this router from others that the instances serve, and is the same after a restart.
    pub fn new(config: &config::Fleet, instances: &[config::Instance], router: &str) -> (Self, Handle) {
        let member = |(index, one)| Arc::new(Member::new(index, one, config, router));
        let handle = Handle {
            members: Arc::new((0..).zip(instances).map(member).collect()),
            board: Arc::new(Board::new(instances)),
            logs: Arc::default(),
            health_timeout: Duration::from_millis(config.health_timeout_ms),
            submit_timeout: Duration::from_millis(config.submit_timeout_ms),
        };
        (Self { config: config.clone(), handle: handle.clone() }, handle)
    }

    /// One task for each instance, until it is stopped or the audience has gone.
    pub fn start(self, audience: &impl Audience) -> Watching {
        let Handle { members, board, logs, .. } = &self.handle;
        let watch = |member: &Arc<Member>| {
            let (member, board, logs) = (member.clone(), board.clone(), logs.clone());
            let supervisor = Supervisor::new(member, board, self.config.clone(), audience.clone(), logs);
            tasks::spawn("instance", OnError::Shutdown, supervisor.run())
        };
        Watching(members.iter().map(watch).collect())
    }
}

impl Watching {
    /// What happens to the instances from now on is nobody's news.
    pub fn stop(self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Handle {
    /// All instances, by index.
    pub fn instances(&self) -> Arc<Vec<InstanceInfo>> {
        self.board.instances()
    }

    pub fn instance(&self, id: &InstanceId) -> Option<InstanceInfo> {
        self.board.instances().iter().find(|info| info.id == *id).cloned()
    }

    pub fn index_of(&self, id: &InstanceId) -> Option<usize> {
        self.members.iter().position(|member| member.id() == id)
    }

    /// Where requests go that any instance may answer: the first that is up.
    pub fn home(&self) -> Option<InstanceId> {
        Some(self.members.get(self.board.home()? as usize)?.id().clone())
    }

    /// Ends when every instance has been looked at once.
    pub async fn looked(&self) {
        self.board.looked().await;
    }

    /// The `client_id` for prompts of this router, always the same; none while there is no websocket to hear their events on.
    pub fn sid(&self, id: &InstanceId) -> Option<Arc<str>> {
        self.member(id).filter(|member| member.is_linked()).map(|member| member.sid().clone())
    }

    /// Whether the home instance's websocket is to ask for log lines again whenever it comes up.
    pub fn follow_logs(&self, follow: bool) {
        self.logs.store(follow, Ordering::Relaxed);
    }

    /// Posts a prompt, whose id is `upstream`.
    ///
    /// # Errors
    /// Which of them says whether the prompt may be sent elsewhere: see [`SubmitError`].
    pub async fn submit(
        &self,
        id: &InstanceId,
        upstream: UpstreamId,
        body: Bytes,
    ) -> Result<Submitted, SubmitError> {
        let member = self.member(id).ok_or_else(|| SubmitError::NoSuchInstance(id.clone()))?;
        let upstream = upstream.to_string();
        let before = member.sending(&upstream);
        let started = Instant::now();
        let outcome = submit::submit(member.pool(), body, self.submit_timeout).await;
        let status = match &outcome {
            Ok(_) => Some(200),
            Err(SubmitError::Invalid { status, .. }) => Some(*status),
            Err(_) => None,
        };
        member.requests().count(status, started.elapsed());
        member.sent(&upstream, before, &outcome);
        outcome
    }

    /// Counts a prompt of an earlier run of this router as its own.
    pub fn adopt(&self, id: &InstanceId, upstream: UpstreamId) {
        if let Some(member) = self.member(id) {
            member.sending(&upstream.to_string());
        }
    }

    /// Interrupts the prompt if it is the one that runs; otherwise nothing happens.
    pub async fn interrupt(&self, id: &InstanceId, upstream: UpstreamId) -> Result<(), CallError> {
        let body = format!(r#"{{"prompt_id":"{upstream}"}}"#);
        calls::post(self.pool(id)?, "/interrupt", body, self.health_timeout).await.map(drop)
    }

    /// Takes the prompt out of the instance's queue; one that runs already goes on.
    pub async fn dequeue(&self, id: &InstanceId, upstream: UpstreamId) -> Result<(), CallError> {
        let body = format!(r#"{{"delete":["{upstream}"]}}"#);
        if let Some(member) = self.member(id) {
            member.dequeued(&upstream.to_string());
        }
        calls::post(self.pool(id)?, "/queue", body, self.health_timeout).await.map(drop)
    }

    /// The instance's history entry of a prompt, as JSON text; none while it runs or when the instance does not know it.
    pub async fn history(&self, id: &InstanceId, upstream: UpstreamId) -> Result<Option<String>, CallError> {
        calls::history(self.pool(id)?, &upstream.to_string(), self.health_timeout).await
    }

    pub async fn queue(&self, id: &InstanceId) -> Result<QueueSnapshot, CallError> {
        calls::queue(self.pool(id)?, self.health_timeout).await
    }

    /// Looks at the instance now: something was done to it.
    pub fn hurry(&self, id: &InstanceId) {
        if let Some(member) = self.member(id) {
            member.hurry();
        }
    }

    /// Acted upon after the prompt that runs.
    pub async fn free(
        &self,
        id: &InstanceId,
        unload_models: bool,
        free_memory: bool,
    ) -> Result<(), CallError> {
        let body = format!(r#"{{"unload_models":{unload_models},"free_memory":{free_memory}}}"#);
        calls::post(self.pool(id)?, "/free", body, self.health_timeout).await.map(drop)
    }

    /// Gives the instance a file under exactly this name.
    pub async fn upload(&self, id: &InstanceId, file: &UploadRef, source: &Path) -> Result<(), CallError> {
        calls::upload(self.pool(id)?, file, source, self.submit_timeout.max(self.health_timeout)).await
    }

    /// Has the instance make a picture of `original_ref`'s colours and this mask, under exactly this name.
    pub async fn upload_mask(
        &self,
        id: &InstanceId,
        file: &UploadRef,
        mask: &Path,
        original_ref: &str,
    ) -> Result<(), CallError> {
        let patience = self.submit_timeout.max(self.health_timeout);
        calls::upload_mask(self.pool(id)?, file, mask, original_ref, patience).await
    }

    /// Passes a request on and its answer back, both streamed; a websocket becomes a tunnel. No time limit: ComfyUI may
    /// need minutes, and the client may give up whenever it likes.
    pub async fn forward(
        &self,
        id: &InstanceId,
        request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        let member = self.member(id).ok_or_else(|| ForwardError::NoSuchInstance(id.clone()))?;
        let started = Instant::now();
        let answer = forward::forward(member.pool(), request).await;
        member.requests().count(answer.as_ref().ok().map(|a| a.status().as_u16()), started.elapsed());
        answer
    }

    /// The common case of [`forward`](Self::forward): a plain request to the home instance. None if it is of another kind, or
    /// no instance is up.
    pub fn errand(&self, request: &Request<Body>) -> Option<Errand> {
        let home = self.board.home()?;
        Errand::new(self.members.get(home as usize)?, request)
    }

    /// Reads the instance's catalogue again; an [`EventKind::Info`] follows.
    pub fn refresh(&self, id: &InstanceId) {
        if let Some(member) = self.member(id) {
            member.refresh();
        }
    }

    /// Reads the instance's catalogue again and ends when that is done.
    pub async fn reread(&self, id: &InstanceId) {
        if let Some(member) = self.member(id) {
            let wish = member.refresh();
            self.board.fulfilled(member.index(), wish).await;
        }
    }

    fn pool(&self, id: &InstanceId) -> Result<&Arc<pool::Pool>, CallError> {
        self.member(id).map(|member| member.pool()).ok_or_else(|| CallError::NoSuchInstance(id.clone()))
    }

    /// A fleet is small: a scan of its names is faster than hashing one.
    fn member(&self, id: &InstanceId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.id() == id)
    }
}

#[cfg(test)]
mod tests;
