//! Binary messages: a big-endian `u32` type, then what the type says.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;

use super::Frame;
use crate::comfy::json;

const IMAGE: u32 = 1;
const TEXT: u32 = 3;
const IMAGE_WITH_METADATA: u32 = 4;
/// No preview's metadata comes near this.
const MAX_METADATA: usize = 64 << 10;

/// An image on its way to a client. Holds both forms a client may want, made at most once each, whoever asks.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The instance's; none in type 1.
    pub prompt_id: Option<String>,
    pub node_id: Option<String>,
    format: u32,
    image: Bytes,
    with_metadata: Option<Bytes>,
    plain: OnceLock<Bytes>,
}

/// Progress text of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFrame {
    pub node_id: String,
    /// The whole message.
    pub raw: Bytes,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    prompt_id: Option<String>,
    #[serde(default)]
    node_id: Option<String>,
    #[serde(default)]
    image_type: Option<String>,
}

pub(super) fn parse(bytes: Bytes) -> Frame {
    let read = match number(&bytes, 0) {
        Some(IMAGE) => plain(&bytes),
        Some(IMAGE_WITH_METADATA) => with_metadata(&bytes),
        Some(TEXT) => text(&bytes),
        _ => None,
    };
    read.unwrap_or(Frame::Unknown(bytes))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// `1, format, image`
fn plain(bytes: &Bytes) -> Option<Frame> {
    let format = number(bytes, 4)?;
    Some(Frame::Preview(Preview {
        prompt_id: None,
        node_id: None,
        format,
        image: bytes.slice(8..),
        with_metadata: None,
        plain: OnceLock::from(bytes.clone()),
    }))
}

/// `4, length, JSON, image`
fn with_metadata(bytes: &Bytes) -> Option<Frame> {
    let length = number(bytes, 4)? as usize;
    if length > MAX_METADATA {
        return None;
    }
    let text = bytes.get(8..8 + length).filter(|text| text.starts_with(b"{"))?;
    let metadata: Metadata = json::parse(text).ok()?;
    Some(Frame::Preview(Preview {
        prompt_id: metadata.prompt_id,
        node_id: metadata.node_id,
        format: if metadata.image_type.as_deref() == Some("image/png") { 2 } else { 1 },
        image: bytes.slice(8 + length..),
        with_metadata: Some(bytes.clone()),
        plain: OnceLock::new(),
    }))
}

/// `3, length, node id, text`
fn text(bytes: &Bytes) -> Option<Frame> {
    let length = number(bytes, 4)? as usize;
    let node_id = std::str::from_utf8(bytes.get(8..8_usize.checked_add(length)?)?).ok()?;
    if node_id.len() > 256 {
        return None;
    }
    Some(Frame::Text(TextFrame { node_id: node_id.to_owned(), raw: bytes.clone() }))
}

impl Preview {
    /// The preview as the client is to see it: under the client's prompt id. One in type 1 gets the metadata that is
    /// known of it, so that both forms exist.
    pub fn for_client(&self, prompt_id: &str) -> Self {
        let mut metadata = self.metadata();
        metadata.insert("prompt_id".to_owned(), Value::from(prompt_id));
        metadata
            .entry("image_type")
            .or_insert_with(|| Value::from(if self.format == 2 { "image/png" } else { "image/jpeg" }));
        let metadata = Value::Object(metadata).to_string();
        let mut frame = BytesMut::with_capacity(8 + metadata.len() + self.image.len());
        frame.put_u32(IMAGE_WITH_METADATA);
        frame.put_u32(metadata.len() as u32);
        frame.put_slice(metadata.as_bytes());
        frame.put_slice(&self.image);
        let frame = frame.freeze();
        Self {
            prompt_id: Some(prompt_id.to_owned()),
            node_id: self.node_id.clone(),
            format: self.format,
            image: frame.slice(8 + metadata.len()..),
            with_metadata: Some(frame),
            plain: self.plain.clone(),
        }
    }

    pub(super) fn metadata(&self) -> serde_json::Map<String, Value> {
        let json = self.with_metadata.as_ref().and_then(|frame| {
            let length = number(frame, 4)? as usize;
            json::parse(frame.get(8..8 + length)?).ok()
        });
        json.unwrap_or_default()
    }

    /// Type 4, for sockets that asked for `supports_preview_metadata`; type 1 if no metadata is known.
    pub fn frame_with_metadata(&self) -> Bytes {
        self.with_metadata.clone().unwrap_or_else(|| self.plain_frame())
    }

    /// Type 1, for all others.
    pub fn plain_frame(&self) -> Bytes {
        let build = || {
            let mut frame = BytesMut::with_capacity(8 + self.image.len());
            frame.put_u32(IMAGE);
            frame.put_u32(self.format);
            frame.put_slice(&self.image);
            frame.freeze()
        };
        self.plain.get_or_init(build).clone()
    }

    pub fn is_png(&self) -> bool {
        self.format == 2
    }

    /// Bytes of the image alone.
    pub fn image(&self) -> &Bytes {
        &self.image
    }
}
