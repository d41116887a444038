//! JSON events.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Renaming, Utf8Bytes};
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
    data: Data<'a>,
}

/// The members of any event's `data` that are looked at. All are undecoded: an author may use the names for anything, and
/// `data` itself need not be an object.
#[derive(Default)]
struct Data<'a> {
    prompt_id: Option<&'a RawValue>,
    node: Option<&'a RawValue>,
    display_node: Option<&'a RawValue>,
    nodes: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
    max: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    node_id: Option<&'a RawValue>,
    node_type: Option<&'a RawValue>,
    exception_type: Option<&'a RawValue>,
    exception_message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    PromptId,
    Node,
    DisplayNode,
    Nodes,
    Value,
    Max,
    Status,
    NodeId,
    NodeType,
    ExceptionType,
    ExceptionMessage,
    #[serde(other)]
    Other,
}

impl<'a> Data<'a> {
    fn member(&mut self, member: &Member) -> Option<&mut Option<&'a RawValue>> {
        Some(match member {
            Member::PromptId => &mut self.prompt_id,
            Member::Node => &mut self.node,
            Member::DisplayNode => &mut self.display_node,
            Member::Nodes => &mut self.nodes,
            Member::Value => &mut self.value,
            Member::Max => &mut self.max,
            Member::Status => &mut self.status,
            Member::NodeId => &mut self.node_id,
            Member::NodeType => &mut self.node_type,
            Member::ExceptionType => &mut self.exception_type,
            Member::ExceptionMessage => &mut self.exception_message,
            Member::Other => return None,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

/// One pass: `data` is most of an event, and some have tens of kilobytes. Of equal members the last counts, as in Python.
impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut data = Data::default();
        while let Some(key) = map.next_key::<Member>()? {
            match data.member(&key) {
                Some(member) => *member = map.next_value()?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(data)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Data::default())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Data::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Data::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Data::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Data::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Data::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Data::default())
    }
}

impl Event {
    pub(super) fn parse(raw: Utf8Bytes) -> Option<Self> {
        let raw = match json::text(raw.as_bytes()).ok()? {
            Cow::Borrowed(_) => raw,
            Cow::Owned(clean) => Utf8Bytes::from(clean),
        };
        let Envelope { kind: name, data } = object(raw.as_str())?;
        let kind = kind(&name, &data);
        let prompt_id = text(data.prompt_id, 256);
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
