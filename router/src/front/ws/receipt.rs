//! Has the client got the end of its job? A connection may be dead long before anybody notices, and what was written to
//! it lost. After an end a ping is sent, which every websocket library answers once it has read what went before.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::sessions::{Class, Message};

#[derive(Debug)]
pub(super) struct Receipts {
    born: Instant,
    /// An end was written, and no receipt asked for.
    wanted: bool,
}

impl Receipts {
    pub(super) fn new() -> Self {
        Self { born: Instant::now(), wanted: false }
    }

    /// These are about to be written.
    pub(super) fn note(&mut self, messages: &[Message]) {
        self.wanted |= messages.iter().any(|message| message.class == Class::Terminal);
    }

    /// The ping that asks for a receipt of everything until this moment, if one is due.
    pub(super) fn wanted(&mut self, moment: Option<Instant>) -> Option<Bytes> {
        let moment = moment.filter(|_| self.wanted)?;
        self.wanted = false;
        let age = moment.saturating_duration_since(self.born).as_nanos() as u64;
        Some(Bytes::copy_from_slice(&age.to_be_bytes()))
    }

    /// The moment of a receipt; none for a pong that is none.
    pub(super) fn read(&self, pong: &[u8]) -> Option<Instant> {
        let age = Duration::from_nanos(u64::from_be_bytes(pong.try_into().ok()?));
        self.born.checked_add(age).filter(|moment| *moment <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comfy::frame::Utf8Bytes;

    #[test]
    fn ends_are_receipted_once_everything_is_out() {
        let mut receipts = Receipts::new();
        let text = Utf8Bytes::from_static("{}");
        let now = Instant::now();
        receipts.note(&[Message::ordinary(text.clone())]);
        assert_eq!(receipts.wanted(Some(now)), None);
        receipts.note(&[Message::terminal(text)]);
        assert_eq!(receipts.wanted(None), None, "something waits");
        let ping = receipts.wanted(Some(now)).unwrap();
        assert_eq!(receipts.read(&ping), Some(now));
        assert_eq!(receipts.wanted(Some(now)), None);
    }

    #[test]
    fn a_pong_that_is_no_receipt_means_nothing() {
        let receipts = Receipts::new();
        for pong in [&b""[..], b"hello", &[0xff; 8], &[0xff; 9]] {
            assert_eq!(receipts.read(pong), None);
        }
    }
}
