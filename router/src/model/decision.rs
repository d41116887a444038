//! Questions put to a policy, its answers, and the record each answer leaves.
//!
//! A `Question` carries everything needed to answer it, so that the same question can be put to a guest, to the native
//! built-in, to a shadow or again from a recording.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{InstanceId, JobId};
use super::job::WallMs;
use super::seen::Seen;
use super::view::{Candidate, Context, InstanceView, JobView, Load, Offer, Seat};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    Configure,
    Admit,
    Prioritize,
    LimitsFor,
    OnTimeout,
    Route,
    OnFailure,
    Tick,
    Observe,
    Place,
}

impl Hook {
    pub const ALL: [Self; 10] = [
        Self::Configure,
        Self::Admit,
        Self::Prioritize,
        Self::LimitsFor,
        Self::OnTimeout,
        Self::Route,
        Self::OnFailure,
        Self::Tick,
        Self::Observe,
        Self::Place,
    ];

    /// As in the WIT, with underscores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Admit => "admit",
            Self::Prioritize => "prioritize",
            Self::LimitsFor => "limits_for",
            Self::OnTimeout => "on_timeout",
            Self::Route => "route",
            Self::OnFailure => "on_failure",
            Self::Tick => "tick",
            Self::Observe => "observe",
            Self::Place => "place",
        }
    }
}

/// One consultation of the policy.
#[derive(Debug, Clone)]
pub struct Consultation {
    /// The job it is about; the first of a window.
    pub job: Option<JobId>,
    /// Seeds the `random` host function.
    pub seed: u64,
    pub context: Context,
    pub question: Question,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A new job: `admit`, then, if admitted, `prioritize` and `limits-for`. One trip to the policy thread.
    Intake {
        job: JobView,
        load: Load,
    },
    /// A waiting job under a new policy: `prioritize` and `limits-for`.
    Reassess {
        job: JobView,
    },
    Route {
        job: JobView,
        candidates: Vec<Candidate>,
    },
    /// The head of the queue at once, for a policy that exports `placement`.
    Place {
        jobs: Vec<JobView>,
        seats: Vec<Seat>,
        /// In the order of jobs, then of seats.
        offers: Vec<Offer>,
    },
    OnTimeout {
        job: JobView,
        limit: Limit,
        progress: Progress,
    },
    OnFailure {
        job: JobView,
        failure: Failure,
    },
    Tick {
        instances: Vec<InstanceView>,
    },
    Observe {
        outcomes: Vec<AttemptReport>,
    },
}

/// The answer to the `Question` of the same name, already clamped and checked against that question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Intake { admission: Admission, priority: Priority, limits: Limits },
    Reassess { priority: Priority, limits: Limits },
    Route(RouteDecision),
    Place(Placement),
    OnTimeout(TimeoutDecision),
    OnFailure(RecoveryDecision),
    Tick(Vec<Order>),
    Observe,
}

/// An answer with what is to be remembered of it: one record for each hook that was called.
#[derive(Debug, Clone)]
pub struct Decided {
    pub answer: Answer,
    pub records: Vec<DecisionRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Admission {
    Admit,
    Reject { status: u16, retry_after_s: Option<u32>, reason: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Priority {
    pub score: f64,
    pub ageing_per_second: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    pub queue_ms: Option<u32>,
    pub run_ms: Option<u32>,
    pub stall_ms: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Queue,
    Run,
    Stall,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    pub elapsed_ms: u32,
    pub silent_ms: u32,
    pub nodes_done: u32,
    pub node_percent: Option<f32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TimeoutDecision {
    Extend { ms: u32 },
    Retry,
    Fail { reason: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteDecision {
    pub route: Route,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// Rows of the question's candidates, best first, each at most once.
    Ranked(Vec<u32>),
    Hold {
        ms: u32,
    },
    Reject,
}

/// A matching: each pair is an offer, no job is in two, no seat in more than it has free slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub pairs: Vec<Pair>,
    /// For the jobs left out.
    pub hold_ms: u32,
    pub reason: String,
}

/// Row of the jobs, row of the seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    pub job: u32,
    pub seat: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Crash,
    Lost,
    OutOfMemory,
    NodeError,
    Rejected,
    Dispatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub cause: Cause,
    /// Instance index.
    pub instance: u32,
    pub attempt: u32,
    pub ran_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryDecision {
    Retry { delay_ms: u32, avoid_instance: bool },
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Instance index.
    pub instance: u32,
    pub act: Act,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    FreeModels,
    FreeMemory,
    Drain,
    Resume,
    Interrupt { requeue: bool },
    Restart,
    CapSlots(u32),
}

/// One ended attempt, for the `feedback` hook and for learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// For the host; policies do not see it.
    #[serde(skip)]
    pub job: Option<JobId>,
    pub tenant: u32,
    pub client: u32,
    pub signature: u32,
    /// Instance index.
    pub instance: u32,
    pub attempt: u32,
    pub kind: ResultKind,
    pub wait_ms: u32,
    pub run_ms: u32,
    pub predicted_ms: Option<u32>,
    pub load_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    Success,
    Error,
    Cancelled,
    Lost,
    TimedOut,
}

/// Which policy answered: its name and the first 12 hex digits of its digest. `builtin` has no digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyVersion {
    pub name: Arc<str>,
    pub digest: Arc<str>,
}

/// Why the native built-in answered in a policy's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The component does not export this hook: the built-in answers by design.
    NotExported,
    Trap,
    Deadline,
    /// The answer was out of bounds.
    BadAnswer,
    /// Memory or host-call limit.
    Limit,
    /// The policy thread did not answer in time.
    Unavailable,
    /// The policy failed too often and is switched off for now.
    Ejected,
}

impl Fallback {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotExported => "not_exported",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::BadAnswer => "bad_answer",
            Self::Limit => "limit",
            Self::Unavailable => "unavailable",
            Self::Ejected => "ejected",
        }
    }
}

/// What one call of one hook left behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    pub at: WallMs,
    pub hook: Hook,
    /// The version asked, even when the built-in answered for it.
    pub version: PolicyVersion,
    pub fallback: Option<Fallback>,
    /// Time the call took, in microseconds.
    pub took_us: u32,
    /// What was said, in one line: `gpu1 > gpu0`, `hold 1500 ms`, `admit`.
    pub said: String,
    pub reason: String,
    /// Filled in by the scheduler.
    pub job: Option<JobId>,
    /// What the host did with it: the instance it dispatched to, or why it did not follow.
    pub did: Option<String>,
    pub instance: Option<InstanceId>,
    /// What the question showed, as far as an operator wants to read it. Filled in by the scheduler.
    pub seen: Option<Seen>,
}
