//! The place of a preview among its node's progress.
//!
//! ComfyUI sends an image of type 4 before the `progress` of its step and one of type 1 after it. An instance sends the
//! router the former, so for a socket that gets the latter the two change places.

use crate::sessions::{Class, Message, Payload};

/// A preview that waits for its `progress`, which follows at once if there is one.
#[derive(Debug, Default)]
pub(super) struct Order {
    held: Option<Message>,
}

impl Order {
    pub(super) fn holds_one(&self) -> bool {
        self.held.is_some()
    }

    /// Puts the messages in order; the last may be held back.
    pub(super) fn arrange(&mut self, messages: &mut Vec<Message>) {
        for message in std::mem::take(messages) {
            let held = self.held.take();
            if matches!(message.class, Class::Progress { kind: "progress", .. }) {
                messages.push(message);
                messages.extend(held);
                continue;
            }
            messages.extend(held);
            match &message.payload {
                Payload::Preview(preview) if preview.has_metadata() => self.held = Some(message),
                _ => messages.push(message),
            }
        }
    }

    /// There was no `progress`.
    pub(super) fn release(&mut self, messages: &mut Vec<Message>) {
        messages.extend(self.held.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comfy::frame::{Frame, Utf8Bytes};

    fn preview(frame: &'static [u8]) -> Message {
        match Frame::binary(frame.into()) {
            Frame::Preview(preview) => Message::preview(&"p".into(), preview),
            other => panic!("{other:?}"),
        }
    }

    fn arranged(order: &mut Order, kinds: &str) -> String {
        let text = Utf8Bytes::from_static("{}");
        let mut messages: Vec<Message> = kinds
            .chars()
            .map(|kind| match kind {
                'b' => Message::progress(&"p".into(), "progress", text.clone()),
                's' => Message::progress(&"p".into(), "progress_state", text.clone()),
                '4' => preview(b"\0\0\0\x04\0\0\0\x02{}IMG"),
                _ => preview(b"\0\0\0\x01\0\0\0\x01IMG"),
            })
            .collect();
        order.arrange(&mut messages);
        let kind = |message: &Message| match &message.payload {
            Payload::Preview(preview) => {
                if preview.has_metadata() {
                    '4'
                } else {
                    '1'
                }
            }
            _ if matches!(message.class, Class::Progress { kind: "progress", .. }) => 'b',
            _ => 's',
        };
        messages.iter().map(kind).collect()
    }

    #[test]
    fn a_preview_follows_the_progress_of_its_step() {
        let mut order = Order::default();
        assert_eq!(arranged(&mut order, "s4bs4b"), "sb4sb4");
        assert_eq!(arranged(&mut order, "s4"), "s");
        assert!(order.holds_one());
        assert_eq!(arranged(&mut order, "bs"), "b4s");
        assert_eq!(arranged(&mut order, "1b4s"), "1b4s", "no other than its own is waited for");
        arranged(&mut order, "4");
        let mut late = Vec::new();
        order.release(&mut late);
        assert_eq!((late.len(), order.holds_one()), (1, false));
    }
}
