//! Events on their way to the writer: texts and checksums are made by the caller, so that the one writer only writes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::comfy::jobs;
use crate::model::decision::{DecisionRecord, Limits, Priority};
use crate::model::event::{Event, History, Standing};
use crate::model::id::JobId;
use crate::model::job::{Attempt, AttemptOutcome, Body, Job, JobOutcome, Rename, Stored, WallMs};

pub(super) type Sum = [u8; 8];

/// A short digest of a row's large texts. SQLite keeps its own structures honest, not the bytes inside a value.
pub(super) fn sum(texts: &[&str]) -> Sum {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let digest = hash.finalize();
    std::array::from_fn(|i| digest[i])
}

#[derive(Debug)]
pub(super) enum Record {
    Accepted(Box<Accepted>),
    Started {
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
    StopAsked {
        job: JobId,
        number: u32,
        why: String,
    },
    Ended(Box<Ended>),
    Changed {
        job: JobId,
        standing: Box<Standing>,
    },
    Decision(Box<DecisionRecord>),
    /// Of one tenant where one is named.
    DeleteHistory {
        prompt_ids: Vec<String>,
        tenant: Option<String>,
    },
    ClearHistory {
        tenant: Option<String>,
    },
}

#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) job: Job,
    pub(super) priority: Priority,
    pub(super) limits: Limits,
    pub(super) rest: String,
    pub(super) needs: String,
    pub(super) sum: Sum,
    /// Of what is read when the texts are not.
    pub(super) about_sum: Sum,
}

#[derive(Debug)]
pub(super) struct Ended {
    pub(super) job: JobId,
    pub(super) outcome: JobOutcome,
    pub(super) at: WallMs,
    pub(super) history: History,
    pub(super) files: String,
    /// When the instance began and when it was done, as its messages say.
    pub(super) times: (Option<WallMs>, Option<WallMs>),
    pub(super) sum: Sum,
}

impl From<Event> for Record {
    fn from(event: Event) -> Self {
        match event {
            Event::JobAccepted { job, priority, limits } => Self::accepted(*job, priority, limits),
            Event::AttemptStarted { job, attempt } => Self::Started { job, attempt },
            Event::AttemptEnded { job, number, outcome, at, detail } => {
                Self::AttemptEnded { job, number, outcome, at, detail }
            }
            Event::StopAsked { job, number, why } => Self::StopAsked { job, number, why: to_json(&why) },
            Event::JobEnded { job, outcome, at, history } => Self::ended(job, outcome, at, history),
            Event::JobChanged { job, standing } => Self::Changed { job, standing },
            Event::Decision(record) => Self::Decision(record),
        }
    }
}

impl Record {
    /// Jobs enter the history by ending, and what is in the way leaves it with them.
    pub(super) fn changes_history(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::DeleteHistory { .. } | Self::ClearHistory { .. })
    }

    fn accepted(job: Job, priority: Priority, limits: Limits) -> Self {
        let rest = Rest::of(&job.body);
        let needs = to_json(&*job.needs);
        let sum = sum(&[&job.body.prompt, &job.body.extra_data, &rest, &needs]);
        let about_sum = self::sum(&[&rest, &needs]);
        Self::Accepted(Box::new(Accepted { job, priority, limits, rest, needs, sum, about_sum }))
    }

    fn ended(job: JobId, outcome: JobOutcome, at: WallMs, history: History) -> Self {
        let files = to_json(&history.files);
        let sum = sum(&[&history.outputs, &history.status, &history.meta, &history.node_errors, &files]);
        let times = jobs::times(&history.status);
        Self::Ended(Box::new(Ended { job, outcome, at, history, files, times, sum }))
    }

    /// Its word in the names of failpoints.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Started { .. } => "started",
            Self::AttemptEnded { .. } => "attempt_ended",
            Self::StopAsked { .. } => "stop_asked",
            Self::Ended(_) => "ended",
            Self::Changed { .. } => "changed",
            Self::Decision(_) => "decision",
            Self::DeleteHistory { .. } | Self::ClearHistory { .. } => "delete",
        }
    }

    /// Roughly what it adds to the log, in bytes.
    pub(super) fn weight(&self) -> usize {
        const PAGES: usize = 4 * 4096;
        PAGES
            + match self {
                Self::Accepted(accepted) => {
                    accepted.job.body.prompt.len() + accepted.job.body.extra_data.len() + accepted.needs.len()
                }
                Self::Ended(ended) => ended.history.outputs.len() + ended.history.status.len(),
                _ => 0,
            }
    }
}

/// The small parts of a [`Body`], in one column.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Rest<'a> {
    outputs: std::borrow::Cow<'a, [String]>,
    targets: Option<std::borrow::Cow<'a, [String]>>,
    headers: std::borrow::Cow<'a, [(String, String)]>,
    input_kib: u32,
    #[serde(default, skip_serializing_if = "<[Rename]>::is_empty")]
    renames: std::borrow::Cow<'a, [Rename]>,
    #[serde(default)]
    workflow_id: Option<std::borrow::Cow<'a, str>>,
}

impl Rest<'_> {
    fn of(body: &Body) -> String {
        to_json(&Rest {
            outputs: body.outputs.as_slice().into(),
            targets: body.targets.as_deref().map(Into::into),
            headers: body.headers.as_slice().into(),
            input_kib: body.input_kib,
            renames: body.renames.as_slice().into(),
            workflow_id: body.workflow_id.as_deref().map(Into::into),
        })
    }

    /// A body without secrets, which are never stored.
    pub(super) fn body(
        text: &str,
        prompt: String,
        extra_data: String,
        stored: Option<Stored>,
    ) -> serde_json::Result<Body> {
        let rest: Rest<'_> = serde_json::from_str(text)?;
        Ok(Body {
            prompt,
            extra_data,
            secrets: Default::default(),
            outputs: rest.outputs.into_owned(),
            targets: rest.targets.map(Into::into),
            headers: rest.headers.into_owned(),
            input_kib: rest.input_kib,
            renames: rest.renames.into_owned(),
            workflow_id: rest.workflow_id.map(Into::into),
            stored,
        })
    }
}

/// The stored types have string keys and no failing `Serialize`, so there is always a text.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// A unit variant as its serde name, without the quotes.
pub(super) fn word(value: &impl Serialize) -> String {
    to_json(value).trim_matches('"').to_owned()
}

pub(super) fn from_word<T: DeserializeOwned>(word: &str) -> serde_json::Result<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned()))
}
