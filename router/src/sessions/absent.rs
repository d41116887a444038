//! What happened to jobs whose client is not connected. Some scripts post first and connect afterwards, and a quick job
//! is then over before they listen; ComfyUI leaves them waiting for ever.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::message::{Class, Message};

const MAX_SIDS: usize = 1_024;
const MAX_MESSAGES: usize = 64;
/// A longer message is not kept.
const MAX_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<String, Kept>);

#[derive(Debug)]
struct Kept {
    messages: VecDeque<Message>,
    newest: Instant,
}

impl Absent {
    pub(super) fn keep(&mut self, sid: &str, message: Message) {
        let told = matches!(message.class, Class::Terminal | Class::Ordinary);
        if !told || message.payload.len() > MAX_BYTES {
            return;
        }
        if self.0.len() >= MAX_SIDS && !self.0.contains_key(sid) {
            return;
        }
        let now = Instant::now();
        let kept =
            self.0.entry(sid.to_owned()).or_insert_with(|| Kept { messages: VecDeque::new(), newest: now });
        kept.newest = now;
        if kept.messages.len() >= MAX_MESSAGES {
            kept.messages.pop_front();
        }
        kept.messages.push_back(message);
    }

    pub(super) fn take(&mut self, sid: &str) -> VecDeque<Message> {
        self.0.remove(sid).map(|kept| kept.messages).unwrap_or_default()
    }

    pub(super) fn forget(&mut self, after: Duration) {
        self.0.retain(|_, kept| kept.newest.elapsed() < after);
    }
}
