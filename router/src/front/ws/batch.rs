//! Messages to bytes on a client's connection.
//!
//! Frames are written here and not by the websocket library, which copies every payload into a buffer of each connection:
//! a preview would be copied once for each of its readers, and the largest would stay allocated with each. Small payloads
//! are gathered, large ones are handed to the kernel where they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes};

use crate::sessions::{Message, Payload};

/// Up to this size a copy costs less than another entry in a list of buffers.
const SMALL: usize = 2 << 10;
/// Of its memory a connection keeps so much between two batches.
const KEPT: usize = 1 << 10;
/// Buffers of one write.
const SLICES: usize = 16;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

/// What is to be written, in order.
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
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// One message in the form that the socket asked for.
    pub(super) fn add(&mut self, message: &Message, with_metadata: bool) {
        match &message.payload {
            Payload::Text(text) => self.frame(TEXT, &[], text.as_bytes(), || text.clone().into()),
            Payload::Binary(bytes) => self.frame(BINARY, &[], bytes, || bytes.clone()),
            Payload::Preview(preview) => {
                let (head, image) = (preview.head(with_metadata), preview.image());
                self.frame(BINARY, &head, image, || image.clone());
            }
        }
    }

    /// Bytes that are a frame already.
    pub(super) fn add_frame(&mut self, frame: &[u8]) {
        self.small.put_slice(frame);
        self.gathered(frame.len());
    }

    /// Until everything is written, or `write` fails: as it does when it would have to wait.
    pub(super) fn write(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.slices(&mut slices);
            match write(&slices[..filled])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.advance(written),
            }
        }
        self.small.clear();
        self.small.shrink_to(KEPT);
        self.written = 0;
        Ok(())
    }

    /// A whole, unmasked frame (RFC 6455, 5.2) whose payload is `head` and `body`; `share` gives the body to be kept.
    fn frame(&mut self, kind: u8, head: &[u8], body: &[u8], share: impl FnOnce() -> Bytes) {
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
            self.parts.push_back(Part::Large(share()));
        }
    }

    fn gathered(&mut self, more: usize) {
        match self.parts.back_mut() {
            Some(Part::Small(length)) => *length += more,
            _ => self.parts.push_back(Part::Small(more)),
        }
    }

    fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
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
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Small(length) => *length,
            Self::Large(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::comfy::frame::Utf8Bytes;

    /// What is written, so many bytes at a time, with a refusal after each.
    fn written(batch: &mut Batch, step: usize) -> Vec<u8> {
        let (mut bytes, mut open) = (Vec::new(), true);
        while !batch.is_empty() {
            let _ = batch.write(|slices| {
                open = !open;
                if open {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let all = slices.iter().flat_map(|slice| slice.iter().copied());
                let before = bytes.len();
                bytes.extend(all.take(step));
                Ok(bytes.len() - before)
            });
        }
        bytes
    }

    #[test]
    fn frames_of_every_length_are_written_whole_however_little_is_taken() {
        let lengths = [0, 1, 125, 126, SMALL, SMALL + 1, 0xffff, 0x1_0000];
        for step in [1, 1_000, usize::MAX] {
            let (mut batch, mut expected) = (Batch::default(), BytesMut::new());
            for length in lengths {
                batch.add(&Message::ordinary_binary(vec![7; length].into()), true);
                batch.add_frame(b"\x8a\0");
                expected.put_u8(BINARY);
                match length {
                    ..=125 => expected.put_u8(length as u8),
                    126..=0xffff => expected.put_slice(&[126, (length >> 8) as u8, length as u8]),
                    _ => {
                        expected.put_u8(127);
                        expected.put_u64(length as u64);
                    }
                }
                expected.put_bytes(7, length);
                expected.put_slice(b"\x8a\0");
            }
            assert_eq!(written(&mut batch, step), expected, "{step}");
            assert!(batch.small.capacity() <= KEPT || step < usize::MAX, "{}", batch.small.capacity());
        }
    }

    #[test]
    fn a_connection_that_takes_nothing_more_is_an_error() {
        let mut batch = Batch::default();
        batch.add(&Message::ordinary(Utf8Bytes::from_static("{}")), false);
        assert_eq!(batch.write(|_| Ok(0)).unwrap_err().kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let payload = Bytes::from(vec![1; SMALL + 1]);
        let mut batch = Batch::default();
        batch.add(&Message::ordinary_binary(payload.clone()), false);
        assert!(matches!(batch.parts.back(), Some(Part::Large(part)) if part.as_ptr() == payload.as_ptr()));
    }
}
