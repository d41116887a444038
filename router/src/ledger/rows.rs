//! What reads give back.

use serde::{Deserialize, Serialize};

use crate::model::decision::{Limits, Priority};
use crate::model::event::{History, StopReason};
use crate::model::id::{InstanceId, JobId};
use crate::model::job::{Attempt, AttemptOutcome, Job, JobClass, JobOutcome, Number, WallMs};

/// `GET /history`'s parameters, with ComfyUI's meaning: without an offset the last `max_items`, with one so many are
/// skipped from the oldest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    pub max_items: Option<i64>,
    /// Negative: none.
    pub offset: i64,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self { max_items: None, offset: -1 }
    }
}

/// Which rows of a history are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    Nothing,
    /// The newest so many.
    Last(i64),
    /// Counted from the oldest; no limit where `take` is none.
    From {
        skip: i64,
        take: Option<i64>,
    },
}

impl HistoryQuery {
    /// ComfyUI's loop (`PromptQueue.get_history`) adds an entry before it looks at `max_items`: with an offset even
    /// `max_items=0` and negative ones give one entry. Without one they give none.
    pub(super) fn window(self) -> Window {
        match (self.max_items, self.offset) {
            (Some(max), offset) if offset < 0 && max <= 0 => Window::Nothing,
            (Some(max), offset) if offset < 0 => Window::Last(max),
            (max, offset) => Window::From { skip: offset.max(0), take: max.map(|max| max.max(1)) },
        }
    }
}

/// Where an entry of the history is in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistorySeq(pub(super) i64);

/// How much of an entry is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// Without `prompt` and `extra_data`.
    Results,
}

/// What finished jobs are filtered and sorted by.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryKey {
    pub seq: HistorySeq,
    pub id: JobId,
    pub outcome: JobOutcome,
    pub accepted_at: WallMs,
    pub began_at: Option<WallMs>,
    pub done_at: Option<WallMs>,
    pub workflow_id: Option<String>,
}

/// A finished job as `/history` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    pub seq: HistorySeq,
    /// How many jobs had ended before, in history or not.
    pub ended_before: i64,
    /// Its secrets are not there: they are never stored.
    pub job: Job,
    pub outcome: JobOutcome,
    pub ended_at: WallMs,
    pub history: History,
    /// Oldest first.
    pub attempts: Vec<AttemptRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    #[serde(flatten)]
    pub attempt: Attempt,
    /// None: it is live.
    pub outcome: Option<AttemptOutcome>,
    pub ended_at: Option<WallMs>,
    pub detail: String,
    /// Why it was told to stop, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopReason>,
}

/// One job in whatever state.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Prompt and `extra_data` are empty once the job was taken out of the history.
    pub job: Job,
    pub priority: Priority,
    pub limits: Limits,
    /// As in [`Standing`](crate::model::event::Standing).
    pub place: i64,
    pub pinned: bool,
    pub outcome: Option<JobOutcome>,
    pub ended_at: Option<WallMs>,
    pub attempts: Vec<AttemptRow>,
}

/// Which jobs `jobs` lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobFilter {
    /// None: all.
    pub state: Option<JobStateFilter>,
    pub tenant: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStateFilter {
    Open,
    Ended,
}

/// Newest first, from below `before` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The last [`JobSummary::seq`] of the page before; none for the first page.
    pub before: Option<i64>,
    /// At most [`Page::MAX`].
    pub limit: u32,
}

impl Page {
    pub const MAX: u32 = 1000;
}

impl Default for Page {
    fn default() -> Self {
        Self { before: None, limit: 100 }
    }
}

/// A job without its texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobSummary {
    pub seq: i64,
    pub id: JobId,
    pub prompt_id: String,
    pub number: Number,
    pub client_id: Option<String>,
    pub tenant: String,
    pub class: JobClass,
    pub accepted_at: WallMs,
    pub outcome: Option<JobOutcome>,
    pub ended_at: Option<WallMs>,
    pub attempts: u32,
    /// Of the last attempt.
    pub instance: Option<InstanceId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Not over.
    pub open: u64,
    /// Over and still kept, by outcome.
    pub ended: Vec<(JobOutcome, u64)>,
    pub in_history: u64,
    pub attempts: u64,
    pub decisions: u64,
    pub files: u64,
    /// Database file, log not included.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(max_items: Option<i64>, offset: i64) -> Window {
        HistoryQuery { max_items, offset }.window()
    }

    #[test]
    fn windows_are_those_of_comfyui() {
        assert_eq!(window(None, -1), Window::From { skip: 0, take: None });
        assert_eq!(window(None, 3), Window::From { skip: 3, take: None });
        assert_eq!(window(Some(5), -1), Window::Last(5));
        assert_eq!(window(Some(5), -7), Window::Last(5));
        assert_eq!(window(Some(5), 2), Window::From { skip: 2, take: Some(5) });
        assert_eq!(window(Some(0), -1), Window::Nothing);
        assert_eq!(window(Some(-3), -1), Window::Nothing);
        assert_eq!(window(Some(0), 0), Window::From { skip: 0, take: Some(1) });
        assert_eq!(window(Some(i64::MIN), i64::MAX), Window::From { skip: i64::MAX, take: Some(1) });
    }
}

/// The answer to a request with an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub struct OnceRow {
    /// Of the request's body.
    pub digest: [u8; 32],
    /// When the key is forgotten.
    pub until: WallMs,
    pub prompt_id: String,
    pub number: Number,
    pub node_errors: String,
}
