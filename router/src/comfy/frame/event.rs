//! JSON events.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Renaming, Utf8Bytes};
use crate::comfy::errors::clip;
use crate::comfy::files;
use crate::comfy::json::{self, Object, Scalar};
use crate::model::event::OutputFile;
use crate::model::id::InstanceId;

/// One event, with the text it came in.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: Kind,
    pub prompt_id: Option<String>,
    raw: Utf8Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The instance's own queue, others' prompts included.
    Status {
        remaining: u64,
    },
    FeatureFlags,
    ExecutionStart,
    ExecutionCached {
        nodes: Vec<String>,
    },
    /// No node: the prompt is over. `display_node` differs from `node` inside expanded subgraphs.
    Executing {
        node: Option<String>,
        display_node: Option<String>,
    },
    Progress {
        value: f64,
        max: f64,
        node: Option<String>,
    },
    ProgressState,
    Executed {
        node: String,
    },
    ExecutionSuccess,
    ExecutionError(Box<ErrorData>),
    ExecutionInterrupted,
    Logs,
    /// Of a custom node or of a later version; its `type`, cut to 128 bytes.
    Other(String),
}

/// What `execution_error` says. Texts are cut to 4 KiB each; the event's own text has them whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ErrorData {
    pub node_id: String,
    pub node_type: String,
    pub exception_type: String,
    pub exception_message: String,
}

impl ErrorData {
    /// An output was blocked; the prompt goes on and may still succeed.
    pub fn is_block(&self) -> bool {
        self.exception_type == "ExecutionBlocked"
    }

    /// `torch.OutOfMemoryError`, `torch.cuda.OutOfMemoryError`, or what a driver says in other words.
    pub fn is_out_of_memory(&self) -> bool {
        let text = &self.exception_message;
        self.exception_type.ends_with("OutOfMemoryError")
            || text.contains("CUDA out of memory")
            || text.contains("This error means you ran out of memory")
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Object<Data<'a>>,
}

/// The members of any event's `data` that are looked at; an author may use the names for anything.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Data<'a> {
    #[serde(borrow)]
    prompt_id: Scalar<'a>,
    node: Scalar<'a>,
    display_node: Scalar<'a>,
    nodes: Option<&'a RawValue>,
    value: Scalar<'a>,
    max: Scalar<'a>,
    status: Option<&'a RawValue>,
    node_id: Scalar<'a>,
    node_type: Scalar<'a>,
    exception_type: Scalar<'a>,
    exception_message: Scalar<'a>,
}

impl Event {
    pub(super) fn parse(raw: Utf8Bytes) -> Option<Self> {
        let (clean, (kind, prompt_id)) = json::tolerant(raw.as_str(), looked_at).ok()?;
        let raw = match clean {
            Cow::Borrowed(_) => raw,
            Cow::Owned(clean) => clean.into(),
        };
        Some(Self { kind, prompt_id, raw })
    }

    /// An event of a custom node's own kind that says which node it is about.
    pub fn names_a_node(&self) -> bool {
        #[derive(Deserialize)]
        struct WithData<'a> {
            #[serde(borrow)]
            data: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct About<'a> {
            #[serde(borrow, default)]
            node: Option<&'a RawValue>,
            #[serde(borrow, default)]
            node_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            unique_id: Option<&'a RawValue>,
        }
        let about = serde_json::from_str::<WithData<'_>>(self.raw.as_str())
            .and_then(|event| serde_json::from_str::<About<'_>>(event.data.get()))
            .ok();
        about.is_some_and(|about| about.node.or(about.node_id).or(about.unique_id).is_some())
    }

    /// The text as the instance sent it.
    pub fn raw(&self) -> &Utf8Bytes {
        &self.raw
    }

    /// The text under the client's prompt id.
    pub fn renamed(&self, renaming: &Renaming) -> Utf8Bytes {
        match &self.prompt_id {
            Some(_) => renaming.text(&self.raw),
            None => self.raw.clone(),
        }
    }

    /// For `executed`: the same, and the files of its output tagged with their instance.
    pub fn tagged(&self, renaming: &Renaming, instance: &InstanceId) -> (Utf8Bytes, Vec<OutputFile>) {
        let mut files = Vec::new();
        let renamed = self.renamed(renaming);
        let Ok(mut event) = json::parse::<Value>(renamed.as_bytes()) else { return (renamed, files) };
        if let Some(output) = event.get_mut("data").and_then(|data| data.get_mut("output")) {
            files::tag_node(output, instance, &mut files);
        }
        if files.is_empty() {
            return (renamed, files);
        }
        (Utf8Bytes::from(event.to_string()), files)
    }

    /// For `progress_state`: how many nodes are finished. Reads the whole text; ask only when the answer is needed.
    pub fn nodes_finished(&self) -> usize {
        const WORD: &[u8] = br#""finished""#;
        let text = self.raw.as_bytes();
        let is_state = |at: &usize| text[..*at].trim_ascii_end().ends_with(br#""state":"#);
        memchr::memmem::find_iter(text, WORD).filter(is_state).count()
    }
}

/// What an event is, and of which prompt. One pass, which builds nothing but what is looked at.
fn looked_at(text: &str) -> Result<(Kind, Option<String>), serde_json::Error> {
    let Envelope { kind: name, data: Object(data) } = json::object(text)?;
    Ok((kind(&name, &data), data.prompt_id.text(256)))
}

fn kind(name: &str, data: &Data<'_>) -> Kind {
    match name {
        "status" => Kind::Status { remaining: remaining(data).unwrap_or(0) },
        "feature_flags" => Kind::FeatureFlags,
        "execution_start" => Kind::ExecutionStart,
        "execution_cached" => Kind::ExecutionCached {
            nodes: data.nodes.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default(),
        },
        "executing" => {
            Kind::Executing { node: data.node.text(256), display_node: data.display_node.text(256) }
        }
        "progress" => {
            let number = |scalar: &Scalar<'_>| scalar.number().unwrap_or(0.0);
            Kind::Progress { value: number(&data.value), max: number(&data.max), node: data.node.text(256) }
        }
        "progress_state" => Kind::ProgressState,
        "executed" => Kind::Executed { node: data.node.text(256).unwrap_or_default() },
        "execution_success" => Kind::ExecutionSuccess,
        "execution_error" => Kind::ExecutionError(Box::new(ErrorData {
            node_id: data.node_id.text(256).unwrap_or_default(),
            node_type: data.node_type.text(256).unwrap_or_default(),
            exception_type: data.exception_type.text(4096).unwrap_or_default(),
            exception_message: data.exception_message.text(4096).unwrap_or_default(),
        })),
        "execution_interrupted" => Kind::ExecutionInterrupted,
        "logs" => Kind::Logs,
        other => Kind::Other(clip(other, 128).to_owned()),
    }
}

fn remaining(data: &Data<'_>) -> Option<u64> {
    #[derive(Deserialize)]
    struct Status {
        exec_info: ExecInfo,
    }
    #[derive(Deserialize)]
    struct ExecInfo {
        queue_remaining: u64,
    }
    Some(serde_json::from_str::<Status>(data.status?.get()).ok()?.exec_info.queue_remaining)
}
