//! Messages of ComfyUI's websocket: reading what an instance sends, and writing what a client is sent.
//!
//! An instance's events are read no further than routing needs (`progress_state` repeats the whole graph's progress at
//! every step and dominates the traffic) and passed on as the text they came in, with the attempt's id replaced by the
//! client's. What is not understood stays raw: custom nodes invent their own kinds.

mod binary;
mod build;
mod event;
mod renaming;

#[cfg(test)]
pub(crate) use binary::image_with_metadata;
pub use binary::{Preview, TextFrame};
pub use build::*;
pub use event::{ErrorData, Event, Kind};
pub use renaming::Renaming;
pub use tokio_tungstenite::tungstenite::Utf8Bytes;

use bytes::Bytes;

/// One message of an instance.
#[derive(Debug, Clone)]
pub enum Frame {
    Event(Event),
    /// An image: binary types 1 and 4.
    Preview(Preview),
    /// Progress text of a node: binary type 3. It has no prompt id.
    Text(TextFrame),
    /// A binary message of another type, or one that breaks its type's layout.
    Unknown(Bytes),
}

impl Frame {
    /// A text message. None if it is not a JSON object with a text `type`.
    pub fn text(text: Utf8Bytes) -> Option<Self> {
        Event::parse(text).map(Self::Event)
    }

    pub fn binary(bytes: Bytes) -> Self {
        binary::parse(bytes)
    }

    /// The prompt id the instance gave; none where its kind has none.
    pub fn prompt_id(&self) -> Option<&str> {
        match self {
            Self::Event(event) => event.prompt_id.as_deref(),
            Self::Preview(preview) => preview.prompt_id.as_deref(),
            Self::Text(_) | Self::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
