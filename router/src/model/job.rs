//! A job: the durable record of one prompt, and the states it may go through.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{InstanceId, JobId, UpstreamId};

/// Milliseconds since the Unix epoch.
pub type WallMs = u64;

/// What a client posted to `/prompt`, kept for as long as the history is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    /// The id the client knows: its own, or one the router minted.
    pub prompt_id: String,
    /// ComfyUI's queue number as shown to clients.
    pub number: Number,
    pub client_id: Option<String>,
    pub tenant: String,
    pub class: JobClass,
    pub requested: Requested,
    pub accepted_at: WallMs,
    pub body: Arc<Body>,
    /// What graph analysis found. Kept so that a restart need not parse every graph again.
    pub needs: Arc<Needs>,
    /// Stored with the acceptance and not read back with the job.
    #[serde(skip)]
    pub once: Option<Arc<Once>>,
}

/// A request that its client may repeat without doing it twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Once {
    /// The client's `Idempotency-Key`; one tenant's keys are nothing to another's.
    pub key: String,
    /// Of the request's body.
    pub digest: [u8; 32],
    /// When the key is forgotten.
    pub until: WallMs,
    /// What the answer said besides id and number.
    pub node_errors: String,
}

/// ComfyUI shows a counted number as an integer and a client's as a float.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    Counted(i64),
    Given(f64),
}

/// How the client asked to be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Requested {
    pub number: Option<f64>,
    pub front: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobClass {
    Interactive,
    #[default]
    Standard,
    Batch,
}

impl JobClass {
    /// In the order of their indices.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Standard, Self::Batch];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }
}

/// The prompt itself, as JSON text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Body {
    /// The graph, byte for byte as posted.
    pub prompt: String,
    /// `extra_data` without credentials and without `client_id`; `{}` at least.
    pub extra_data: String,
    /// Credentials of `extra_data`: needed upstream, never stored, shown or logged.
    #[serde(skip)]
    pub secrets: Secrets,
    /// Output nodes that will run, in graph order.
    pub outputs: Vec<String>,
    /// The client's `partial_execution_targets`.
    pub targets: Option<Vec<String>>,
    /// Files under the names that instances are given them by, where those are others than the graph's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renames: Vec<Rename>,
    /// KiB of uploaded inputs that the graph names, as far as the router knows them.
    #[serde(default)]
    pub input_kib: u32,
    /// Request headers on the operator's allow-list.
    pub headers: Vec<(String, String)>,
    /// `extra_data.extra_pnginfo.workflow.id`, where it is a text.
    #[serde(default)]
    pub workflow_id: Option<String>,
    /// Set where `prompt` and `extra_data` are empty here because only the ledger has them.
    #[serde(skip)]
    pub stored: Option<Stored>,
}

/// Of the texts of a body that are left to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The first half of the SHA-256 of `prompt`.
    pub digest: [u8; 16],
    /// Of both texts together.
    pub bytes: usize,
}

impl Body {
    /// Size of the large texts, wherever they are.
    pub fn text_bytes(&self) -> usize {
        self.stored.map_or(self.prompt.len() + self.extra_data.len(), |stored| stored.bytes)
    }

    pub fn digest(&self) -> [u8; 16] {
        self.stored.map_or_else(|| digest(&self.prompt), |stored| stored.digest)
    }

    /// Everything but the large texts.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        Self {
            prompt: String::new(),
            extra_data: String::new(),
            secrets: self.secrets.clone(),
            outputs: self.outputs.clone(),
            targets: self.targets.clone(),
            renames: self.renames.clone(),
            input_kib: self.input_kib,
            headers: self.headers.clone(),
            workflow_id: self.workflow_id.clone(),
            stored: Some(Stored { digest: self.digest(), bytes: self.text_bytes() }),
        }
    }

    /// The whole body again.
    #[must_use]
    pub fn with_texts(&self, texts: Texts) -> Self {
        Self { prompt: texts.prompt, extra_data: texts.extra_data, stored: None, ..self.without_texts() }
    }
}

/// The large texts of a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts {
    pub prompt: String,
    pub extra_data: String,
}

fn digest(prompt: &str) -> [u8; 16] {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(prompt);
    std::array::from_fn(|i| digest[i])
}

/// A value in the place of the one that was posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    pub node: String,
    pub input: String,
    pub value: String,
}

/// A JSON object's members, as JSON text; its `Debug` shows nothing.
#[derive(Clone, PartialEq, Default)]
pub struct Secrets(pub Vec<(String, String)>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} hidden]", self.0.len())
    }
}

/// What a graph needs from an instance, and how much work it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Needs {
    /// Distinct node classes, sorted.
    pub classes: Vec<String>,
    /// Distinct model files, sorted.
    pub models: Vec<ModelRef>,
    /// Uploaded inputs, as the graph names them (`[subfolder/]name`), with their folder.
    pub uploads: Vec<UploadRef>,
    pub nodes: u32,
    pub images: u32,
    pub steps: Option<u32>,
    pub megapixels: Option<f32>,
    /// The graph's shape without seeds and texts, as 64 bits of a hash.
    pub signature: u64,
}

impl Needs {
    /// images x steps x megapixels.
    pub fn work(&self) -> Option<f32> {
        Some(self.images as f32 * self.steps? as f32 * self.megapixels?)
    }
}

/// A model file in one of ComfyUI's model folders.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelRef {
    pub folder: String,
    pub name: String,
}

/// A file in `input`, `output` or `temp` that a node reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UploadRef {
    /// `input`, `output` or `temp`.
    pub kind: String,
    pub subfolder: String,
    pub name: String,
}

/// One numbered dispatch of a job to one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 is the first.
    pub number: u32,
    pub upstream_id: UpstreamId,
    pub instance: InstanceId,
    pub started_at: WallMs,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    Success,
    NodeError,
    OutOfMemory,
    /// The instance refused the prompt as invalid.
    Rejected,
    /// Interrupted because its owner asked.
    Interrupted,
    /// Interrupted because a limit was passed.
    TimedOut,
    /// Interrupted because the policy wants the instance.
    Preempted,
    /// The instance died.
    Crash,
    /// The instance does not know it (any more).
    Lost,
    /// Its instance went away before it had answered to it: it may have run there.
    Unknown,
    /// It never reached the instance.
    Dispatch,
}

impl AttemptOutcome {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NodeError => "node_error",
            Self::OutOfMemory => "out_of_memory",
            Self::Rejected => "rejected",
            Self::Interrupted => "interrupted",
            Self::TimedOut => "timed_out",
            Self::Preempted => "preempted",
            Self::Crash => "crash",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
            Self::Dispatch => "dispatch",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    Success,
    /// A node failed or the instance refused the prompt.
    Error,
    /// Interrupted by its owner while it ran.
    Interrupted,
    /// Deleted from the queue before it ran.
    Cancelled,
    TimedOut,
    /// Its attempts are spent and the last one ended without a result.
    Lost,
    /// The same, and the last one may have run to its end.
    Unknown,
}

impl JobOutcome {
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Error,
        Self::Interrupted,
        Self::Cancelled,
        Self::TimedOut,
        Self::Lost,
        Self::Unknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Queued,
    /// The number of its one live attempt.
    Running(u32),
    Ended(JobOutcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job cannot go from {from:?} to {to:?}")]
pub struct IllegalTransition {
    pub from: JobState,
    pub to: JobState,
}

impl JobState {
    /// The one place that says which changes are legal: attempts are numbered upwards, an end is final.
    pub fn to(self, to: JobState) -> Result<JobState, IllegalTransition> {
        use JobState::{Ended, Queued, Running};
        let legal = match (self, to) {
            (Queued, Running(n)) => n >= 1,
            (Queued | Running(_), Ended(_)) | (Running(_), Queued) => true,
            _ => false,
        };
        if legal { Ok(to) } else { Err(IllegalTransition { from: self, to }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_final_and_attempts_do_not_overlap() {
        let ended = JobState::Ended(JobOutcome::Success);
        for to in [JobState::Queued, JobState::Running(2), JobState::Ended(JobOutcome::Lost)] {
            assert_eq!(ended.to(to), Err(IllegalTransition { from: ended, to }));
        }
        assert!(JobState::Running(1).to(JobState::Running(2)).is_err());
        assert!(JobState::Running(1).to(JobState::Queued).is_ok());
    }

    #[test]
    fn a_body_is_whole_again_with_its_texts_and_known_by_its_digest_without_them() {
        let secrets = Secrets(vec![("api_key_comfy_org".into(), "\"hush\"".into())]);
        let body = Body {
            prompt: "{\"1\":{}}".into(),
            extra_data: "{}".into(),
            secrets,
            outputs: vec!["1".into()],
            targets: Some(vec!["1".into()]),
            renames: vec![Rename { node: "1".into(), input: "a".into(), value: "b".into() }],
            input_kib: 3,
            headers: vec![("a".into(), "b".into())],
            workflow_id: Some("w".into()),
            stored: None,
        };
        let bare = body.without_texts();
        assert!(bare.prompt.is_empty() && bare.extra_data.is_empty());
        assert_eq!((bare.digest(), bare.text_bytes()), (body.digest(), body.text_bytes()));
        assert_eq!(bare.without_texts(), bare);
        let texts = Texts { prompt: body.prompt.clone(), extra_data: body.extra_data.clone() };
        assert_eq!(bare.with_texts(texts), body);
    }

    #[test]
    fn secrets_do_not_show() {
        let secrets = Secrets(vec![("api_key_comfy_org".into(), "\"hush\"".into())]);
        assert!(!format!("{secrets:?}").contains("hush"));
    }
}
