//! What goes over the sockets of this benchmark.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// A preview of a usual size.
pub(crate) const PREVIEW_BYTES: usize = 60 << 10;

/// The same clock in every process of this machine.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// About 200 bytes.
pub(crate) fn event(kind: &str, prompt_id: &str, number: u64) -> String {
    let about = if prompt_id.is_empty() { String::new() } else { format!(r#""prompt_id": "{prompt_id}", "#) };
    let filler = "x".repeat(40);
    format!(
        r#"{{"type": "{kind}", "data": {{{about}"value": {number}, "max": 1000000, "filler": "{filler}", "sent_us": {}}}}}"#,
        now_us()
    )
}

/// When it was sent and which it is of its stream.
pub(crate) fn stamp_of_event(text: &str) -> Option<(u64, u64)> {
    let number = |key: &str| {
        let rest = &text[text.find(key)? + key.len()..];
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    Some((number(r#""sent_us": "#)?, number(r#""value": "#)?))
}

pub(crate) fn stamp_of_preview(frame: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_be_bytes(frame.get(at..at + 8)?.try_into().ok()?));
    let length = u32::from_be_bytes(frame.get(4..8)?.try_into().ok()?) as usize;
    Some((number(8 + length)?, number(16 + length)?))
}

/// A node that ends a prompt, and nothing else.
pub(crate) fn object_info() -> Value {
    json!({ "Save": {
        "input": { "required": { "text": ["STRING", {}] } }, "input_order": { "required": ["text"] },
        "output": [], "output_is_list": [], "output_name": [], "name": "Save", "display_name": "Save",
        "description": "", "category": "bench", "output_node": true,
    } })
}

pub(crate) fn prompt(client: &str) -> String {
    let graph = json!({ "1": { "class_type": "Save", "inputs": { "text": client } } });
    json!({ "prompt": graph, "client_id": client }).to_string()
}
