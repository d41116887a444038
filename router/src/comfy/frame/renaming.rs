//! One prompt id in the place of another.

use bytes::Bytes;
use memchr::memmem::Finder;

use super::Utf8Bytes;
use crate::comfy::json;

/// Made once for an attempt, whose every event is renamed. An attempt's id is random, so nothing else in an event can be
/// equal to it by chance.
#[derive(Debug, Clone)]
pub struct Renaming {
    /// A JSON string, as `to`.
    from: Finder<'static>,
    to: Box<str>,
}

impl Renaming {
    /// From the id that an instance was given to the client's own, which may be any text.
    pub fn new(from: &str, to: &str) -> Self {
        let from = Finder::new(&json::quote(from)).into_owned();
        Self { from, to: json::quote(to).into() }
    }

    /// Every JSON string that is exactly the one id becomes the other, wherever it stands. A text without it is shared.
    pub(super) fn text(&self, text: &Utf8Bytes) -> Utf8Bytes {
        self.apply(text.as_str()).map_or_else(|| text.clone(), Utf8Bytes::from)
    }

    /// The same for bytes that should be a text.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Option<Bytes> {
        self.apply(std::str::from_utf8(bytes).ok()?).map(Bytes::from)
    }

    fn apply(&self, text: &str) -> Option<String> {
        let first = self.from.find(text.as_bytes())?;
        let length = self.from.needle().len();
        let mut out = String::with_capacity(text.len() + self.to.len());
        let (mut copied, mut next) = (0, Some(first));
        while let Some(at) = next {
            out.push_str(&text[copied..at]);
            out.push_str(&self.to);
            copied = at + length;
            next = self.from.find(&text.as_bytes()[copied..]).map(|found| copied + found);
        }
        out.push_str(&text[copied..]);
        Some(out)
    }
}
