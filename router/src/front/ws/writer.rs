//! Messages to bytes on a client's connection.
//!
//! Frames are written here and not by the websocket library, which copies every payload into a buffer of each connection:
//! a preview would be copied once for each of its readers, and the largest would stay allocated with each. Small payloads
//! are gathered, large ones are handed to the kernel where they are. The library still reads, answers pings and says
//! goodbye; [`Writer::send`] leaves no half frame behind unless it fails, and so the two do not get in each other's way.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::sessions::{Message, Payload};

/// Up to this size a copy costs less than another entry in a list of buffers.
const SMALL: usize = 2 << 10;
/// Of its memory a connection keeps so much between two batches.
const KEPT: usize = 1 << 10;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

/// What is to be written, in order. Empty between two batches.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: VecDeque<Part>,
    /// Heads and small payloads, one after the other.
    small: Vec<u8>,
    /// How much of `small` has been written.
    written: usize,
}

#[derive(Debug)]
enum Part {
    /// So many of the gathered bytes.
    Small(usize),
    Large(Bytes),
}

impl Batch {
    /// One message in the form that the socket asked for.
    pub(super) fn add(&mut self, message: Message, with_metadata: bool) {
        match message.payload {
            Payload::Text(text) => self.frame(TEXT, &[], text.into()),
            Payload::Binary(bytes) => self.frame(BINARY, &[], bytes),
            Payload::Preview(preview) => {
                self.frame(BINARY, &preview.head(with_metadata), preview.image().clone());
            }
        }
    }

    /// Writes everything.
    pub(super) async fn write_to(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        io.write_all_buf(self).await?;
        self.small.clear();
        self.small.shrink_to(KEPT);
        self.written = 0;
        io.flush().await
    }

    /// A whole, unmasked frame (RFC 6455, 5.2) whose payload is `head` and `body`.
    fn frame(&mut self, kind: u8, head: &[u8], body: Bytes) {
        let before = self.small.len();
        let copied = if body.len() <= SMALL { body.len() } else { 0 };
        self.small.reserve(10 + head.len() + copied);
        self.small.put_u8(kind);
        match head.len() + body.len() {
            length @ ..=125 => self.small.put_u8(length as u8),
            length @ ..=0xffff => {
                self.small.put_u8(126);
                self.small.put_u16(length as u16);
            }
            length => {
                self.small.put_u8(127);
                self.small.put_u64(length as u64);
            }
        }
        self.small.put_slice(head);
        self.small.put_slice(&body[..copied]);
        self.gathered(self.small.len() - before);
        if copied < body.len() {
            self.parts.push_back(Part::Large(body));
        }
    }

    fn gathered(&mut self, more: usize) {
        match self.parts.back_mut() {
            Some(Part::Small(length)) => *length += more,
            _ => self.parts.push_back(Part::Small(more)),
        }
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Small(length) => *length,
            Self::Large(bytes) => bytes.len(),
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        match self.parts.front() {
            Some(Part::Small(length)) => &self.small[self.written..self.written + length],
            Some(Part::Large(bytes)) => bytes,
            None => &[],
        }
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0
            && let Some(first) = self.parts.front_mut()
        {
            let now = count.min(first.len());
            match first {
                Part::Small(length) => {
                    *length -= now;
                    self.written += now;
                }
                Part::Large(bytes) => bytes.advance(now),
            }
            if first.len() == 0 {
                self.parts.pop_front();
            }
            count -= now;
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut small = &self.small[self.written..];
        let slices = into.iter_mut().zip(&self.parts);
        slices
            .map(|(slice, part)| {
                *slice = IoSlice::new(match part {
                    Part::Small(length) => small.split_off(..*length).unwrap_or_default(),
                    Part::Large(bytes) => bytes,
                });
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use futures_util::StreamExt;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message as Ws;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::comfy::frame::{Frame, Utf8Bytes};

    fn preview(size: usize) -> Message {
        let metadata = r#"{"node_id":"3","prompt_id":"p","image_type":"image/png"}"#;
        let mut bytes = BytesMut::new();
        bytes.put_u32(4);
        bytes.put_u32(metadata.len() as u32);
        bytes.put_slice(metadata.as_bytes());
        bytes.put_bytes(7, size);
        match Frame::binary(bytes.freeze()) {
            Frame::Preview(preview) => Message::preview(&"p".into(), preview),
            other => panic!("{other:?}"),
        }
    }

    /// What a websocket library makes of it, through a pipe that takes a few bytes at a time.
    async fn read(messages: Vec<Message>, with_metadata: bool) -> Vec<Ws> {
        let (mut ours, theirs) = tokio::io::duplex(1_000);
        let count = messages.len();
        let writing = async {
            let mut batch = Batch::default();
            for part in messages.chunks(4) {
                part.iter().for_each(|message| batch.add(message.clone(), with_metadata));
                batch.write_to(&mut ours).await.unwrap();
                assert!(batch.parts.is_empty() && batch.small.capacity() <= KEPT);
            }
        };
        let reading = async {
            let socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            socket.take(count).map(Result::unwrap).collect::<Vec<_>>().await
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn payloads_of_every_length_arrive_whole_and_in_order() {
        let lengths = [0, 1, 125, 126, SMALL, SMALL + 1, 0xffff, 0x1_0000, 300_000];
        let texts = lengths.map(|length| Utf8Bytes::from("é".repeat(length / 2)));
        let read = read(texts.clone().map(Message::ordinary).into(), false).await;
        assert_eq!(read, texts.map(Ws::Text));
    }

    #[tokio::test]
    async fn a_preview_has_the_form_that_was_asked_for() {
        for size in [10, 100_000] {
            let plain = read(vec![preview(size)], false).await.remove(0).into_data();
            assert_eq!((&plain[..8], plain.len()), (&b"\0\0\0\x01\0\0\0\x02"[..], 8 + size));
            let whole = read(vec![preview(size)], true).await.remove(0).into_data();
            assert_eq!(whole[..4], [0, 0, 0, 4]);
            assert!(matches!(Frame::binary(whole), Frame::Preview(preview) if preview.image().len() == size));
        }
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let payload = Bytes::from(vec![1; SMALL + 1]);
        let mut batch = Batch::default();
        batch.add(Message::ordinary_binary(payload.clone()), false);
        assert!(matches!(batch.parts.back(), Some(Part::Large(part)) if part.as_ptr() == payload.as_ptr()));
    }
}
