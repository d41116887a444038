//! What goes into the core and what comes out: the whole of its contact with the world.

use std::sync::Arc;

use crate::clock::Tick;
use crate::model::decision::{Act, Cause, Consultation, Decided};
use crate::model::event::{Event, History, OpenJob, Standing};
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::job::{Attempt, AttemptOutcome, Job, JobClass, JobOutcome, ModelRef, Number};
use crate::model::view::{Capabilities, DeviceText, GpuView};

use super::guard::Quarantine;

/// A consultation or a durable write whose answer is awaited.
pub type Ticket = u64;
/// Whoever waits for a `Reply`.
pub type RequestId = u64;

#[derive(Debug)]
pub enum Input {
    /// Time passed. Fed several times a second.
    Tick,
    Submit {
        request: RequestId,
        job: Box<Job>,
    },
    /// Remove waiting jobs, by the client's prompt ids. Ids that the scope does not cover are as unknown ones.
    Delete {
        request: RequestId,
        prompt_ids: Vec<String>,
        scope: Scope,
    },
    /// Remove every waiting job that the scope covers.
    Clear {
        request: RequestId,
        scope: Scope,
    },
    Interrupt {
        request: RequestId,
        target: Target,
    },
    /// Stop jobs whether they run or wait.
    Cancel {
        request: RequestId,
        prompt_ids: Vec<String>,
        scope: Scope,
    },
    /// An operator's word about a waiting job.
    Change {
        request: RequestId,
        prompt_id: String,
        change: Change,
    },
    Decided {
        ticket: Ticket,
        decided: Decided,
    },
    Committed {
        ticket: Ticket,
    },
    CommitFailed {
        ticket: Ticket,
        why: NotStored,
        error: String,
    },
    Instance {
        index: usize,
        change: InstanceChange,
    },
    Attempt {
        job: JobId,
        number: u32,
        sighting: Sighting,
    },
    /// New GPU readings, by instance index.
    Readings(Vec<(usize, GpuView, Tick)>),
    /// Another policy version answers from now on; does it place a window of the queue at once?
    PolicyChanged {
        places: bool,
    },
    /// An operator's order to an instance.
    Operate {
        index: usize,
        act: Act,
    },
    /// No new prompts and no new attempts from now on.
    Drain,
}

/// Why a commit was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// There is no room; nothing was stored.
    Full,
    /// Nothing was stored.
    Busy,
    /// It may or may not be there.
    Doubtful,
    /// It contradicts what is there.
    Contradicts,
}

/// Whose jobs a request without ids means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Everybody,
    Tenant(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Prompt(String, Scope),
    Running(Scope),
}

/// What an operator wants to be different about a waiting job.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    pub place: Option<Place>,
    /// ComfyUI's; the policy is asked again.
    pub number: Option<f64>,
    /// The policy is asked again.
    pub class: Option<JobClass>,
    /// A score in place of the policy's; the inner none gives it back to the policy.
    pub priority: Option<Option<f64>>,
}

/// Where among all that wait, whatever their priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Front,
    Back,
    /// Where its priority puts it.
    Normal,
}

impl Place {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
            Self::Normal => "normal",
        }
    }
}

/// Why a job stands where it stood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error("no open job has this prompt id")]
    Unknown,
    #[error("the job no longer waits")]
    NotWaiting,
    #[error("the change could not be stored: {reason}")]
    Storage { full: bool, reason: String },
}

#[derive(Debug, Clone)]
pub enum InstanceChange {
    Up(Arc<Capabilities>),
    /// It does not answer, or its process is gone.
    Down {
        reason: String,
        /// It does not answer, and its process may be there.
        silent: bool,
    },
    Capabilities(Arc<Capabilities>),
    Devices(Vec<DeviceText>),
    /// Jobs of others that it runs and queues.
    Foreign {
        running: u32,
        pending: u32,
    },
    /// Its websocket is up or lost: events were or may have been missed, so it is asked what became of the attempts
    /// there. Without one it is given nothing.
    Linked(bool),
    /// It no longer runs or queues this attempt, which was given up.
    ZombieGone(UpstreamId),
}

/// News of one attempt.
#[derive(Debug, Clone)]
pub enum Sighting {
    /// The instance took the prompt.
    Dispatched,
    /// It certainly did not. `blame`: because of the instance.
    NotDispatched { detail: String, blame: bool },
    /// Nobody knows whether it did.
    DispatchUnknown { detail: String },
    /// A sign of life.
    Progress { nodes_done: u32, node_percent: Option<f32> },
    /// It ended by itself.
    Ended(Ending),
    /// The instance said that it is over; what became of it is being read, and `Ended` follows.
    Over,
    /// Asked, the instance has it in its queue. `stuck`: it waits there though nothing runs.
    Present { stuck: bool },
    /// Asked, the instance does not know it.
    Absent,
}

#[derive(Debug, Clone)]
pub struct Ending {
    pub kind: EndKind,
    /// One line for logs and errors.
    pub detail: String,
    pub history: History,
    /// Time spent in loader nodes.
    pub load_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    Success,
    NodeError,
    OutOfMemory,
    Interrupted,
    Rejected,
}

impl EndKind {
    pub fn outcome(self) -> AttemptOutcome {
        match self {
            Self::Success => AttemptOutcome::Success,
            Self::NodeError => AttemptOutcome::NodeError,
            Self::OutOfMemory => AttemptOutcome::OutOfMemory,
            Self::Interrupted => AttemptOutcome::Interrupted,
            Self::Rejected => AttemptOutcome::Rejected,
        }
    }

    /// The recovery hook's word for it; none where there is nothing to recover.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::NodeError => Some(Cause::NodeError),
            Self::OutOfMemory => Some(Cause::OutOfMemory),
            Self::Rejected => Some(Cause::Rejected),
            Self::Success | Self::Interrupted => None,
        }
    }
}

#[derive(Debug)]
pub enum Action {
    Consult {
        ticket: Ticket,
        consultation: Box<Consultation>,
    },
    /// Make these durable, then say `Committed` (or `CommitFailed`) with the ticket. With `insist`, try until they are.
    Commit {
        ticket: Ticket,
        events: Vec<Event>,
        insist: bool,
    },
    /// Make these durable some time; nobody waits.
    Note(Vec<Event>),
    Reply {
        request: RequestId,
        reply: Reply,
    },
    /// Give the attempt to its instance. It is already durable.
    Dispatch {
        job: Arc<Job>,
        attempt: Attempt,
    },
    /// The attempt is over: if it is still being sent, stop.
    Closed(Box<Closed>),
    Interrupt {
        instance: InstanceId,
        upstream: UpstreamId,
    },
    /// Ask the instance what it knows of the attempt; answer with a `Sighting`.
    Inspect {
        job: Arc<Job>,
        attempt: Attempt,
    },
    /// Ask the instance whether it still has an attempt that was given up; answer with `ZombieGone` if not.
    InspectZombie {
        index: usize,
        upstream: UpstreamId,
    },
    /// A finished job is durable: tell its client.
    Announce(Box<Announcement>),
    /// The attempt is over without an end of the job: forget its events.
    Forget {
        upstream: UpstreamId,
    },
    /// The number of open jobs may have changed: tell every client.
    Status {
        remaining: usize,
    },
    Free {
        instance: InstanceId,
        unload_models: bool,
        free_memory: bool,
    },
    /// Restart it.
    Restart {
        instance: InstanceId,
        reason: String,
    },
    /// For the operator: something to know about an instance.
    Told {
        instance: InstanceId,
        news: News,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is given nothing more.
    Quarantined { reason: String },
    /// It works again.
    Released,
    /// There is a reason to restart it, and no way.
    NeedsRestart { reason: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `known`: the request was one that is known already, and this is what it was told.
    Accepted {
        prompt_id: String,
        number: Number,
        known: Option<String>,
    },
    Refused(Refusal),
    Done {
        affected: usize,
    },
    Changed(Box<Standing>),
    NotChanged(ChangeRefused),
}

/// Why a prompt was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// 429
    #[error("the queue is full: {queued} prompts wait, {limit} may")]
    QueueFull { queued: usize, limit: usize },
    /// 429
    #[error("{tenant} has {queued} prompts waiting, {limit} may")]
    TenantFull { tenant: String, queued: usize, limit: usize },
    /// 409: the id is taken by a prompt with another content.
    #[error("prompt_id already exists")]
    IdTaken,
    /// 422
    #[error("this Idempotency-Key came with another body before")]
    KeyReused,
    /// As the policy said.
    #[error("{reason}")]
    Policy { status: u16, retry_after_s: Option<u32>, reason: String },
    /// 503
    #[error("the router is draining and takes no new prompts")]
    Draining,
    /// 507 when the disk is full, 503 otherwise.
    #[error("the prompt could not be stored: {reason}")]
    Storage { full: bool, reason: String },
}

#[derive(Debug, Clone)]
pub struct Closed {
    pub job: Arc<Job>,
    pub attempt: Attempt,
    pub outcome: AttemptOutcome,
    /// Why, in one line.
    pub detail: String,
    pub ran_ms: u32,
    pub load_ms: u32,
}

#[derive(Debug, Clone)]
pub struct Announcement {
    pub job: Arc<Job>,
    pub outcome: JobOutcome,
    /// The last attempt, if there was one.
    pub attempt: Option<Attempt>,
    pub detail: String,
    /// Of an instance's refusal, as JSON; empty when there is none.
    pub node_errors: String,
    pub remaining: usize,
}

/// How the core begins: an empty one, or what the ledger holds.
#[derive(Debug, Default)]
pub struct Restored {
    pub open: Vec<OpenJob>,
    /// The next queue number.
    pub counter: i64,
}

/// One configured instance.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    pub id: InstanceId,
    /// Attempts it may run, plus those it may hold ahead.
    pub slots: u32,
    pub labels: Arc<std::collections::HashMap<String, String>>,
    /// There is a way to restart it.
    pub supervised: bool,
}

/// What is believed to be loaded, for `/api/fleet`.
#[derive(Debug, Clone, Default)]
pub struct InstanceReport {
    pub live: Vec<JobId>,
    pub draining: bool,
    /// Its websocket is up.
    pub linked: bool,
    pub quarantine: Option<Quarantine>,
    /// Attempts that were given up but may still occupy it.
    pub given_up: u32,
    pub free_slots: u32,
    pub resident: Arc<Vec<ModelRef>>,
}
