//! The durable facts. The ledger stores them in the order given; the scheduler can be rebuilt from them.

use serde::{Deserialize, Serialize};

use super::decision::{DecisionRecord, Limits, Priority};
use super::id::JobId;
use super::job::{Attempt, AttemptOutcome, Job, JobClass, JobOutcome, Number, Requested, WallMs};

#[derive(Debug, Clone)]
pub enum Event {
    JobAccepted {
        job: Box<Job>,
        priority: Priority,
        limits: Limits,
    },
    AttemptStarted {
        job: JobId,
        attempt: Attempt,
    },
    AttemptEnded {
        job: JobId,
        number: u32,
        outcome: AttemptOutcome,
        at: WallMs,
        detail: String,
    },
    /// A live attempt was told to stop. What it ends as must not depend on whether the router lives to see it.
    StopAsked {
        job: JobId,
        number: u32,
        why: StopReason,
    },
    JobEnded {
        job: JobId,
        outcome: JobOutcome,
        at: WallMs,
        history: History,
    },
    /// An operator gave a waiting job another standing.
    JobChanged {
        job: JobId,
        standing: Box<Standing>,
    },
    Decision(Box<DecisionRecord>),
}

/// Why an attempt was told to stop, and so what becomes of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
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

impl StopReason {
    /// Is the job over with the attempt?
    pub fn ends_the_job(&self) -> bool {
        !matches!(self, Self::TimedOut { retry: true, .. } | Self::Preempted { requeue: true })
    }
}

/// What the order of the waiting jobs goes by: first the operator's place, then the priority, then the number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub number: Number,
    pub requested: Requested,
    pub class: JobClass,
    /// 0 where no operator moved the job; higher runs earlier, whatever the priority.
    pub place: i64,
    pub priority: Priority,
    /// The priority is an operator's, which no policy changes.
    pub pinned: bool,
    pub limits: Limits,
}

/// A finished job's part of a `/history` entry; the rest comes from the job itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// JSON object: node id to outputs, file references as clients will see them.
    pub outputs: String,
    /// JSON object `{status_str, completed, messages}`.
    pub status: String,
    /// JSON object: node id to its display data.
    pub meta: String,
    /// `node_errors` of an instance's refusal, as JSON; empty when there is none.
    pub node_errors: String,
    /// Files the outputs name.
    pub files: Vec<OutputFile>,
}

/// One output file, where an instance wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OutputFile {
    /// `output` or `temp`.
    pub kind: String,
    /// As on the instance's disk.
    pub subfolder: String,
    pub filename: String,
}

/// A job that was not over when the ledger was last written.
#[derive(Debug, Clone)]
pub struct OpenJob {
    pub job: Job,
    pub priority: Priority,
    pub limits: Limits,
    /// As in [`Standing`].
    pub place: i64,
    pub pinned: bool,
    /// Every attempt so far, oldest first; the last is live when its outcome is none.
    pub attempts: Vec<(Attempt, Option<AttemptOutcome>)>,
    /// Of the live attempt, where it was told to stop.
    pub stop: Option<StopReason>,
}
