//! What is sent to clients. Payloads are shared: a message to a thousand clients is one text.

use std::sync::Arc;

use bytes::Bytes;

use crate::comfy::frame::{Preview, Utf8Bytes};
use crate::metrics::FrameKind;

#[derive(Debug, Clone)]
pub struct Message {
    pub class: Class,
    pub payload: Payload,
    pub(super) replay: Replay,
}

/// What becomes of a message while its client does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Tells of a job's end: never given up.
    Terminal,
    /// Kept; too many of them end the connection.
    Ordinary,
    /// Superseded by a newer one that is equal, and given up after previews.
    Progress { kind: &'static str, job: Arc<str> },
    /// Superseded by a newer one that is equal, and given up first.
    Preview { job: Arc<str>, node: Arc<str> },
    /// An image that is a job's result (`SaveImageWebsocket`), not a preview: kept, counted apart for its size.
    Result,
}

impl Class {
    /// For the metrics.
    pub fn frame_kind(&self) -> FrameKind {
        match self {
            Self::Terminal => FrameKind::Terminal,
            Self::Ordinary | Self::Result => FrameKind::Ordinary,
            Self::Progress { .. } => FrameKind::Progress,
            Self::Preview { .. } => FrameKind::Preview,
        }
    }

    /// Of several equal ones only the newest matters.
    pub(super) fn is_superseded(&self) -> bool {
        matches!(self, Self::Progress { .. } | Self::Preview { .. })
    }
}

/// What a client that connects later is told of a message that it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// Nothing.
    No,
    /// The job begins, perhaps once more: what was kept of it before no longer holds.
    Start,
    Keep,
    /// Only the newest of this kind.
    Latest(&'static str),
    /// The job is over.
    End,
}

#[derive(Debug, Clone)]
pub enum Payload {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// In the form that the socket asked for.
    Preview(Arc<Preview>),
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Preview(preview) => preview.image().len() + 8,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Message {
    fn new(class: Class, payload: Payload, replay: Replay) -> Self {
        Self { class, payload, replay }
    }

    /// A client that hears it before it knows the job would miss it: the job begins, or is over.
    pub fn is_news(&self) -> bool {
        matches!(self.replay, Replay::Start | Replay::End)
    }

    /// `execution_start`
    pub fn start(text: Utf8Bytes) -> Self {
        Self::new(Class::Ordinary, Payload::Text(text), Replay::Start)
    }

    pub fn terminal(text: Utf8Bytes) -> Self {
        Self::new(Class::Terminal, Payload::Text(text), Replay::End)
    }

    pub fn ordinary(text: Utf8Bytes) -> Self {
        Self::new(Class::Ordinary, Payload::Text(text), Replay::Keep)
    }

    pub fn ordinary_binary(bytes: Bytes) -> Self {
        Self::new(Class::Ordinary, Payload::Binary(bytes), Replay::Keep)
    }

    /// `executing`: each one counts, but where the job is now is all that a latecomer wants to know.
    pub fn executing(text: Utf8Bytes) -> Self {
        Self::new(Class::Ordinary, Payload::Text(text), Replay::Latest("executing"))
    }

    /// Of a job's events of this kind only the newest matters.
    pub fn progress(job: &Arc<str>, kind: &'static str, text: Utf8Bytes) -> Self {
        let class = Class::Progress { kind, job: job.clone() };
        Self::new(class, Payload::Text(text), Replay::Latest(kind))
    }

    /// The queue's length: the newest is enough.
    pub fn status(text: Utf8Bytes) -> Self {
        let class = Class::Progress { kind: "status", job: Arc::default() };
        Self::new(class, Payload::Text(text), Replay::No)
    }

    /// For the moment of its sending alone: a custom node's word to everybody, a line of the log, an answer.
    pub fn passing(text: Utf8Bytes) -> Self {
        Self::new(Class::Ordinary, Payload::Text(text), Replay::No)
    }

    /// Samplers send JPEG previews; PNG is what nodes send as their result.
    pub fn preview(job: &Arc<str>, preview: Preview) -> Self {
        let (class, replay) = match preview.is_png() {
            true => (Class::Result, Replay::Keep),
            false => {
                let node = preview.node_id.as_deref().unwrap_or_default().into();
                (Class::Preview { job: job.clone(), node }, Replay::Latest("preview"))
            }
        };
        Self::new(class, Payload::Preview(Arc::new(preview)), replay)
    }
}
