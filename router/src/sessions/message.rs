//! What is sent to clients. Payloads are shared: a message to a thousand clients is one text.

use std::sync::Arc;

use bytes::Bytes;

use crate::comfy::frame::{Preview, Utf8Bytes};

#[derive(Debug, Clone)]
pub struct Message {
    pub class: Class,
    pub payload: Payload,
}

/// What becomes of a message while its client does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Tells of a job's end: never given up.
    Terminal,
    /// Kept; too many of them end the connection.
    Ordinary,
    /// Superseded by a newer one with an equal key, and given up after previews.
    Progress(Arc<str>),
    /// Superseded by a newer one with an equal key, and given up first.
    Preview(Arc<str>),
    /// An image that is a job's result (`SaveImageWebsocket`), not a preview: kept, counted apart for its size.
    Result,
}

impl Class {
    /// For the metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Ordinary | Self::Result => "ordinary",
            Self::Progress(_) => "progress",
            Self::Preview(_) => "preview",
        }
    }

    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Progress(key) | Self::Preview(key) => Some(key),
            Self::Terminal | Self::Ordinary | Self::Result => None,
        }
    }
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
    pub fn terminal(text: Utf8Bytes) -> Self {
        Self { class: Class::Terminal, payload: Payload::Text(text) }
    }

    pub fn ordinary(text: Utf8Bytes) -> Self {
        Self { class: Class::Ordinary, payload: Payload::Text(text) }
    }

    pub fn ordinary_binary(bytes: Bytes) -> Self {
        Self { class: Class::Ordinary, payload: Payload::Binary(bytes) }
    }

    /// `kind` is the event's: of a job's events of one kind only the newest matters.
    pub fn progress(prompt_id: &str, kind: &str, text: Utf8Bytes) -> Self {
        let key = format!("{kind} {prompt_id}").into();
        Self { class: Class::Progress(key), payload: Payload::Text(text) }
    }

    /// The queue's length: the newest is enough.
    pub fn status(text: Utf8Bytes) -> Self {
        Self { class: Class::Progress(Arc::from("status")), payload: Payload::Text(text) }
    }

    /// Samplers send JPEG previews; PNG is what nodes send as their result.
    pub fn preview(preview: Preview) -> Self {
        let class = match preview.is_png() {
            true => Class::Result,
            false => {
                let id = |id: &Option<String>| id.clone().unwrap_or_default();
                Class::Preview(format!("{} {}", id(&preview.node_id), id(&preview.prompt_id)).into())
            }
        };
        Self { class, payload: Payload::Preview(Arc::new(preview)) }
    }
}
