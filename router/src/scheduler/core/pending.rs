//! What the core waits for: answers of the policy, and writes of the ledger.

use crate::clock::Tick;
use crate::model::decision::Limit;
use crate::model::event::Standing;
use crate::model::id::JobId;
use crate::model::job::{AttemptOutcome, Job, JobOutcome};
use crate::model::seen::Seen;
use crate::scheduler::input::{Ending, RequestId};

/// What an open question is about.
#[derive(Debug)]
pub(super) enum Asked {
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
    pub(super) fn job(&self) -> Option<JobId> {
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
pub(super) enum Then {
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
    /// Attempts, by job and number, are told to stop; who asked for it is answered how many.
    Stop {
        attempts: Vec<(JobId, u32)>,
        reply: Option<(RequestId, usize)>,
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
