//! Binary messages: a big-endian `u32` type, then what the type says.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;

use super::{Frame, Renaming};
use crate::comfy::json::{self, Scalar};

const IMAGE: u32 = 1;
const TEXT: u32 = 3;
const IMAGE_WITH_METADATA: u32 = 4;
/// No preview's metadata comes near this.
const MAX_METADATA: usize = 64 << 10;

/// An image on its way to a client. Both forms a client may want share the image's bytes.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The instance's; none in type 1.
    pub prompt_id: Option<String>,
    pub node_id: Option<String>,
    format: u32,
    /// Of type 4: type, length and metadata.
    metadata: Option<Bytes>,
    image: Bytes,
}

/// Progress text of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFrame {
    pub node_id: String,
    /// The whole message.
    pub raw: Bytes,
}

/// What a preview's metadata say of it.
struct About {
    prompt_id: Option<String>,
    node_id: Option<String>,
    is_png: bool,
}

fn about(text: &str) -> Result<About, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata<'a> {
        #[serde(borrow)]
        prompt_id: Scalar<'a>,
        node_id: Scalar<'a>,
        image_type: Scalar<'a>,
    }
    let Metadata { prompt_id, node_id, image_type } = json::object(text)?;
    let is_png = image_type.text(256).is_some_and(|kind| kind == "image/png");
    Ok(About { prompt_id: prompt_id.text(256), node_id: node_id.text(256), is_png })
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
        metadata: None,
        image: bytes.slice(8..),
    }))
}

/// `4, length, JSON, image`
fn with_metadata(bytes: &Bytes) -> Option<Frame> {
    let length = number(bytes, 4)? as usize;
    if length > MAX_METADATA {
        return None;
    }
    let text = std::str::from_utf8(bytes.get(8..8 + length)?).ok()?;
    let (_, about) = json::tolerant(text, about).ok()?;
    Some(Frame::Preview(Preview {
        prompt_id: about.prompt_id,
        node_id: about.node_id,
        format: if about.is_png { 2 } else { 1 },
        metadata: Some(bytes.slice(..8 + length)),
        image: bytes.slice(8 + length..),
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

/// A message of type 4.
pub(crate) fn image_with_metadata(metadata: &[u8], image: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + metadata.len() + image.len());
    frame.put_u32(IMAGE_WITH_METADATA);
    frame.put_u32(metadata.len() as u32);
    frame.put_slice(metadata);
    frame.put_slice(image);
    frame.freeze()
}

impl Preview {
    /// The preview as the client is to see it: under the client's prompt id. One of type 1 has no place for an id; a
    /// custom node made it so, for every socket.
    pub fn for_client(self, renaming: &Renaming) -> Self {
        let metadata = self.metadata.map(|metadata| match renaming.bytes(&metadata[8..]) {
            Some(text) => image_with_metadata(&text, &[]),
            None => metadata,
        });
        Self { metadata, ..self }
    }

    /// What stands before the image: type 4 for sockets that asked for `supports_preview_metadata`, type 1 for others and
    /// where the instance sent no metadata.
    pub fn head(&self, with_metadata: bool) -> Bytes {
        match &self.metadata {
            Some(metadata) if with_metadata => metadata.clone(),
            _ => {
                let mut head = BytesMut::with_capacity(8);
                head.put_u32(IMAGE);
                head.put_u32(self.format);
                head.freeze()
            }
        }
    }

    /// It came as type 4.
    pub fn has_metadata(&self) -> bool {
        self.metadata.is_some()
    }

    pub fn is_png(&self) -> bool {
        self.format == 2
    }

    /// Bytes of the image alone.
    pub fn image(&self) -> &Bytes {
        &self.image
    }
}
