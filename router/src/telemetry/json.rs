//! Numbers and words out of JSON that somebody else wrote: what is not plausible is unknown.

use std::sync::Arc;

use serde_json::Value;

/// Longest answer that is looked at.
pub(super) const MAX_BYTES: usize = 64 * 1024;
const MAX_WORD: usize = 96;

/// A number from 0 to `max`; anything else is none.
pub(super) fn number(object: &Value, key: &str, max: f64) -> Option<f64> {
    object.get(key)?.as_f64().filter(|n| (0.0..=max).contains(n))
}

pub(super) fn whole(object: &Value, key: &str, max: u64) -> Option<u64> {
    number(object, key, max as f64).map(|n| n as u64)
}

/// Printable ASCII of bounded length, since it becomes a metric label and a line in a log.
pub(super) fn word(object: &Value, key: &str) -> Option<Arc<str>> {
    let text = object.get(key)?.as_str()?;
    let fits = (1..=MAX_WORD).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    fits.then(|| text.into())
}
