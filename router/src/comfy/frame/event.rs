//! JSON events.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Utf8Bytes;
use crate::comfy::files;
use crate::comfy::json;
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
    data: Option<&'a RawValue>,
}

/// The members of any event's `data` that are looked at. All are undecoded: an author may use the names for anything.
#[derive(Deserialize, Default)]
struct Data<'a> {
    #[serde(borrow, default)]
    prompt_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    node: Option<&'a RawValue>,
    #[serde(borrow, default)]
    display_node: Option<&'a RawValue>,
    #[serde(borrow, default)]
    nodes: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    max: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    node_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    node_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    exception_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    exception_message: Option<&'a RawValue>,
}

impl Event {
    pub(super) fn parse(raw: Utf8Bytes) -> Option<Self> {
        let raw = match json::text(raw.as_bytes()).ok()? {
            Cow::Borrowed(_) => raw,
            Cow::Owned(clean) => Utf8Bytes::from(clean),
        };
        let envelope: Envelope<'_> = object(raw.as_str())?;
        let data: Data<'_> = envelope.data.and_then(|data| object(data.get())).unwrap_or_default();
        let kind = kind(&envelope.kind, &data);
        let prompt_id = text(data.prompt_id, 256);
        Some(Self { kind, prompt_id, raw })
    }

    /// An event of a custom node's own kind that says which node it is about.
    pub fn names_a_node(&self) -> bool {
        #[derive(Deserialize)]
        struct About<'a> {
            #[serde(borrow, default)]
            node: Option<&'a RawValue>,
            #[serde(borrow, default)]
            node_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            unique_id: Option<&'a RawValue>,
        }
        let about = serde_json::from_str::<Envelope<'_>>(self.raw.as_str())
            .ok()
            .and_then(|envelope| envelope.data)
            .and_then(|data| serde_json::from_str::<About<'_>>(data.get()).ok());
        about.is_some_and(|about| about.node.or(about.node_id).or(about.unique_id).is_some())
    }

    /// The text as the instance sent it.
    pub fn raw(&self) -> &Utf8Bytes {
        &self.raw
    }

    /// The text with another prompt id: every JSON string that is exactly the present one, wherever it stands.
    /// Attempts' ids are random, so nothing else in an event can be equal to one by chance.
    pub fn with_prompt_id(&self, id: &str) -> Utf8Bytes {
        match &self.prompt_id {
            Some(present) => replace(self.raw.as_str(), &json::quote(present), &json::quote(id)),
            None => self.raw.clone(),
        }
    }

    /// For `executed`: the text with another prompt id and the files of its output tagged with their instance.
    pub fn tagged(&self, id: &str, instance: &InstanceId) -> (Utf8Bytes, Vec<OutputFile>) {
        let mut files = Vec::new();
        let renamed = self.with_prompt_id(id);
        let Ok(mut event) = serde_json::from_str::<Value>(renamed.as_str()) else { return (renamed, files) };
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
        memchr::memmem::find_iter(self.raw.as_bytes(), br#""state": "finished""#).count()
            + memchr::memmem::find_iter(self.raw.as_bytes(), br#""state":"finished""#).count()
    }
}

/// Derived readers take lists for objects, member by member; these texts may be anything.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
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
            Kind::Executing { node: text(data.node, 256), display_node: text(data.display_node, 256) }
        }
        "progress" => {
            let number = |raw: Option<&RawValue>| raw.and_then(|raw| raw.get().parse().ok()).unwrap_or(0.0);
            Kind::Progress { value: number(data.value), max: number(data.max), node: text(data.node, 256) }
        }
        "progress_state" => Kind::ProgressState,
        "executed" => Kind::Executed { node: text(data.node, 256).unwrap_or_default() },
        "execution_success" => Kind::ExecutionSuccess,
        "execution_error" => Kind::ExecutionError(Box::new(ErrorData {
            node_id: text(data.node_id, 256).unwrap_or_default(),
            node_type: text(data.node_type, 256).unwrap_or_default(),
            exception_type: text(data.exception_type, 4096).unwrap_or_default(),
            exception_message: text(data.exception_message, 4096).unwrap_or_default(),
        })),
        "execution_interrupted" => Kind::ExecutionInterrupted,
        "logs" => Kind::Logs,
        other => Kind::Other(crate::comfy::errors::clip(other, 128).to_owned()),
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

/// A text, or a number as its text: node ids are usually the one and sometimes the other.
fn text(raw: Option<&RawValue>, max: usize) -> Option<String> {
    let raw = raw?.get();
    match raw.as_bytes().first()? {
        b'"' => {
            let text: String = serde_json::from_str(raw).ok()?;
            Some(crate::comfy::errors::clip(&text, max).to_owned())
        }
        b'0'..=b'9' | b'-' => Some(crate::comfy::errors::clip(raw, max).to_owned()),
        _ => None,
    }
}

/// Replaces each `from`, a quoted string, by `to`. Unchanged text is shared.
pub(super) fn replace(text: &str, from: &str, to: &str) -> Utf8Bytes {
    if from == to {
        return Utf8Bytes::from(text);
    }
    let mut out = String::with_capacity(text.len() + to.len());
    let mut copied = 0;
    for at in memchr::memmem::find_iter(text.as_bytes(), from.as_bytes()) {
        out.push_str(&text[copied..at]);
        out.push_str(to);
        copied = at + from.len();
    }
    out.push_str(&text[copied..]);
    Utf8Bytes::from(out)
}
