//! Websocket frames of an instance (RFC 6455, 5): bytes to messages.
//!
//! The websocket library clears its buffer of 128 KiB before every read and hands out parts of it: an event of 200 bytes costs
//! that much, and keeps the whole buffer alive for as long as somebody keeps the event. Here small messages are copied out
//! of one buffer, which is used again, and a large one is read where it will stay.

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Of one read; some twenty events. What is read so of a large message is copied to where it stays.
const CHUNK: usize = 4 << 10;
/// A message that is longer than this and has not come whole gets memory of its own.
const SMALL: usize = 4 << 10;
/// What is read beyond a large message; then the read that ends it is seldom followed by one that finds nothing.
const BEYOND: usize = 4 << 10;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Text(Utf8Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close,
}

/// What no websocket server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a message of {0} bytes, which is too long")]
    TooLong(u64),
    #[error("a text that is not UTF-8")]
    NotUtf8,
    #[error("a frame with reserved bits, a mask or an unknown kind")]
    Reserved,
    #[error("a control frame in parts, or of more than 125 bytes")]
    Control,
    #[error("a part of a message out of its turn")]
    Turn,
}

/// What has been read and not been taken.
#[derive(Debug)]
pub struct Incoming {
    max: usize,
    /// From the beginning of a frame on.
    buffer: BytesMut,
    large: Option<Large>,
    /// The kind and the beginning of a message that comes in several frames.
    begun: Option<(u8, BytesMut)>,
}

/// A frame's payload that arrives over several reads.
#[derive(Debug)]
struct Large {
    head: Head,
    bytes: BytesMut,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    last: bool,
    kind: u8,
    payload: usize,
    /// Bytes of the head itself.
    size: usize,
}

impl Incoming {
    /// `early` was read already; messages of more than `max` bytes are violations.
    pub fn new(early: &[u8], max: usize) -> Self {
        Self { max, buffer: BytesMut::from(early), large: None, begun: None }
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut BytesMut {
        match &mut self.large {
            Some(large) => &mut large.bytes,
            None => {
                if self.buffer.capacity() - self.buffer.len() < CHUNK / 2 {
                    self.buffer.reserve(CHUNK.saturating_sub(self.buffer.len()).max(CHUNK / 2));
                }
                &mut self.buffer
            }
        }
    }

    /// The next message that has come whole.
    pub fn take(&mut self) -> Result<Option<Message>, Violation> {
        while let Some((head, payload)) = self.frame()? {
            if let Some(message) = self.message(head, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<(Head, Bytes)>, Violation> {
        if let Some(large) = self.large.take() {
            return Ok(self.end_of(large));
        }
        let Some(head) = Head::read(&self.buffer)? else { return Ok(None) };
        self.check(head)?;
        let there = self.buffer.len() - head.size;
        if head.payload <= there {
            let payload = Bytes::copy_from_slice(&self.buffer[head.size..head.size + head.payload]);
            self.buffer.advance(head.size + head.payload);
            return Ok(Some((head, payload)));
        }
        if head.payload > SMALL {
            let mut bytes = BytesMut::with_capacity(head.payload + BEYOND);
            bytes.extend_from_slice(&self.buffer[head.size..]);
            self.buffer.clear();
            self.large = Some(Large { head, bytes });
        }
        Ok(None)
    }

    fn end_of(&mut self, mut large: Large) -> Option<(Head, Bytes)> {
        if large.bytes.len() < large.head.payload {
            self.large = Some(large);
            return None;
        }
        self.buffer.extend_from_slice(&large.bytes[large.head.payload..]);
        large.bytes.truncate(large.head.payload);
        Some((large.head, large.bytes.freeze()))
    }

    fn check(&self, head: Head) -> Result<(), Violation> {
        let begun = self.begun.as_ref().map(|(_, begun)| begun.len());
        match head.kind {
            CONTINUATION | TEXT | BINARY => {
                let whole = head.payload.saturating_add(begun.unwrap_or(0));
                if begun.is_some() != (head.kind == CONTINUATION) {
                    return Err(Violation::Turn);
                }
                if whole > self.max { Err(Violation::TooLong(whole as u64)) } else { Ok(()) }
            }
            CLOSE | PING | PONG if head.last && head.payload <= 125 => Ok(()),
            CLOSE | PING | PONG => Err(Violation::Control),
            _ => Err(Violation::Reserved),
        }
    }

    /// None for a part that is not the last.
    fn message(&mut self, head: Head, payload: Bytes) -> Result<Option<Message>, Violation> {
        let (kind, payload) = match head.kind {
            CLOSE => return Ok(Some(Message::Close)),
            PING => return Ok(Some(Message::Ping(payload))),
            PONG => return Ok(Some(Message::Pong)),
            kind if self.begun.is_none() && head.last => (kind, payload),
            kind => {
                let (kind, mut whole) = self.begun.take().unwrap_or((kind, BytesMut::new()));
                whole.extend_from_slice(&payload);
                if !head.last {
                    self.begun = Some((kind, whole));
                    return Ok(None);
                }
                (kind, whole.freeze())
            }
        };
        match kind {
            TEXT => Ok(Some(Message::Text(Utf8Bytes::try_from(payload).map_err(|_| Violation::NotUtf8)?))),
            _ => Ok(Some(Message::Binary(payload))),
        }
    }
}

impl Head {
    /// None if there is not all of it.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(Violation::Reserved);
        }
        let (length, size) = match second {
            126 => (rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes))), 4),
            127 => (rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)), 10),
            length => (Some(u64::from(length)), 2),
        };
        let Some(length) = length else { return Ok(None) };
        let payload = usize::try_from(length).map_err(|_| Violation::TooLong(length))?;
        Ok(Some(Self { last: first & 0x80 != 0, kind: first & 0x0f, payload, size }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    const MAX: usize = 1 << 20;

    fn frame(payload: &[u8], kind: Data, last: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = Frame::message(payload.to_vec(), OpCode::Data(kind), last);
        frame.format(&mut bytes).unwrap();
        bytes
    }

    /// What comes of bytes that arrive so many at a time.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<Message>, Violation> {
        let mut incoming = Incoming::new(&[], MAX);
        let mut messages = Vec::new();
        for part in bytes.chunks(step) {
            incoming.room().extend_from_slice(part);
            while let Some(message) = incoming.take()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_of_every_length_come_whole_however_they_arrive() {
        let lengths = [0, 1, 125, 126, SMALL, SMALL + 1, CHUNK, 0xffff, 0x1_0000, 300_000];
        let payload = |length: usize| (0..length).map(|at| at as u8).collect::<Vec<u8>>();
        let bytes: Vec<u8> = lengths.iter().flat_map(|n| frame(&payload(*n), Data::Binary, true)).collect();
        let wanted: Vec<Message> = lengths.iter().map(|n| Message::Binary(payload(*n).into())).collect();
        for step in [1, 7, 4_096, CHUNK + BEYOND, bytes.len()] {
            assert_eq!(read(&bytes, step).unwrap(), wanted, "{step} bytes at a time");
        }
    }

    #[test]
    fn parts_are_joined_and_control_frames_may_come_between_them() {
        let bytes = [
            frame("é".as_bytes().split_at(1).0, Data::Text, false),
            vec![0x89, 2, b'h', b'i'],
            frame("é".as_bytes().split_at(1).1, Data::Continue, false),
            vec![0x8a, 0],
            frame(b"!", Data::Continue, true),
            vec![0x88, 2, 3, 0xe8],
        ]
        .concat();
        let text = Message::Text("é!".into());
        let wanted = [Message::Ping(Bytes::from_static(b"hi")), Message::Pong, text, Message::Close];
        assert_eq!(read(&bytes, 3).unwrap(), wanted);
    }

    #[test]
    fn what_no_server_may_send_is_refused_before_memory_is_taken_for_it() {
        let long = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
        let twice = [frame(&vec![0; MAX], Data::Binary, false), frame(b"x", Data::Continue, true)].concat();
        for (bytes, violation) in [
            (long, Violation::TooLong(u64::MAX)),
            (twice, Violation::TooLong(MAX as u64 + 1)),
            (frame(b"\xff", Data::Text, true), Violation::NotUtf8),
            (vec![0xc2, 0], Violation::Reserved),
            (vec![0x82, 0x80, 0, 0, 0, 0], Violation::Reserved),
            (vec![0x83, 0], Violation::Reserved),
            (vec![0x09, 0], Violation::Control),
            (vec![0x89, 126, 0, 126], Violation::Control),
            (frame(b"x", Data::Continue, true), Violation::Turn),
            ([frame(b"x", Data::Text, false), frame(b"y", Data::Text, true)].concat(), Violation::Turn),
        ] {
            assert_eq!(read(&bytes, bytes.len()), Err(violation));
        }
    }

    /// Frames of every kind, whole, broken and out of turn.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let first = select(vec![0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x83, 0x88, 0x89, 0x8a, 0xc1]);
        let frame = (first, vec(any::<u8>(), 0..300), any::<bool>()).prop_map(|(first, payload, long)| {
            let mut bytes = vec![first];
            match payload.len() {
                length @ ..=125 if !long => bytes.push(length as u8),
                length => bytes.extend([126, (length >> 8) as u8, length as u8]),
            }
            bytes.extend(payload);
            bytes
        });
        vec(frame, 0..12).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_alike_however_it_is_cut(bytes in frames(), step in 1..700_usize, cut in 0..4_000_usize) {
            let bytes = &bytes[..bytes.len().min(cut)];
            prop_assert_eq!(read(bytes, step), read(bytes, bytes.len().max(1)));
        }
    }

    #[test]
    fn a_small_message_does_not_keep_the_buffer_and_the_buffer_is_used_again() {
        let mut incoming = Incoming::new(&[], MAX);
        let event = frame(&[b'x'; 200], Data::Text, true);
        incoming.room().extend_from_slice(&event);
        let place = incoming.room().as_ptr();
        let mut kept = Vec::new();
        for _ in 0..1_000 {
            kept.push(incoming.take().unwrap().expect("a message"));
            incoming.room().extend_from_slice(&event);
        }
        let moved = (incoming.room().as_ptr() as usize).abs_diff(place as usize);
        assert!(moved < 2 * CHUNK, "the buffer stays where it is, {moved}");
        assert!(incoming.room().capacity() <= 2 * CHUNK);
    }
}
