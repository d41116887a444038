//! What waits for one client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::message::{Class, Message};
use crate::metrics;

/// Result images may be this many times the bytes that everything else may.
pub(super) const RESULT_SHARE: usize = 8;
/// Messages are handed out in parts of about this many bytes: what waits can still be superseded, what was taken cannot.
const PART: usize = 64 << 10;

/// A bounded queue with one reader.
#[derive(Debug)]
pub struct Outbox {
    max_messages: usize,
    max_bytes: usize,
    queue: Mutex<Queue>,
    arrived: Notify,
    overflowed: Notify,
}

/// A way to the client past its outbox, for what need not wait because nothing does: the reader's task is not woken for it.
pub trait Line: Send + Sync + std::fmt::Debug {
    /// Sends the message or leaves it, and never waits.
    fn send(&self, message: &Message) -> Sent;
}

/// How far a message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    No,
    Whole,
    /// The rest is the reader's to send, before anything else.
    Begun,
}

/// Why nothing more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client does not read: what it may not lose no longer fits.
    Slow,
    Shutdown,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    result_bytes: usize,
    emptied: Option<Instant>,
    closed: Option<Closed>,
    line: Option<Arc<dyn Line>>,
    /// The reader has sent all that it took, and waits.
    idle: bool,
    /// The reader is to send the rest of what the line began.
    begun: bool,
}

impl Outbox {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        let queue = Mutex::default();
        Self { max_messages, max_bytes, queue, arrived: Notify::new(), overflowed: Notify::new() }
    }

    /// From now on what can be superseded goes over the line while nothing waits. It is the reader's, who sends nothing
    /// while it waits in [`Outbox::take`].
    pub fn open(&self, line: Arc<dyn Line>) {
        self.queue().line = Some(line);
    }

    /// The reader has gone: nothing goes over its line any more.
    pub fn shut(&self) {
        self.queue().line = None;
    }

    /// Over the line, if that can be, or into the queue.
    pub(super) fn send(&self, message: &Message) {
        let sent = self.queue().over_the_line(message);
        match sent {
            Sent::No => return self.push(message.clone()),
            Sent::Whole => {}
            Sent::Begun => self.arrived.notify_one(),
        }
        metrics::client_frame(message.class.frame_kind(), message.payload.len());
    }

    /// Never waits. A client that keeps up gets every message; for one that falls behind a newer preview or progress
    /// replaces an older one of its key, then previews go, then progress.
    pub fn push(&self, message: Message) {
        let mut queue = self.queue();
        if queue.closed.is_some() {
            return;
        }
        if queue.messages.len() >= self.max_messages / 4 || queue.bytes >= self.max_bytes / 4 {
            queue.supersede(&message);
        }
        metrics::client_frame(message.class.frame_kind(), message.payload.len());
        queue.idle = false;
        queue.add(message);
        if self.is_over(&queue) {
            self.relieve(&mut queue);
        }
        let slow = queue.closed.is_some();
        drop(queue);
        self.arrived.notify_one();
        if slow {
            self.overflowed.notify_one();
        }
    }

    /// The oldest of the messages that wait, moved to the end of `into`; waits for one. None of them, if all that there is to
    /// send is the rest of what the line began. The error comes when the outbox is closed and empty.
    pub async fn take(&self, into: &mut Vec<Message>) -> Result<(), Closed> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut queue = self.queue();
                queue.idle = false;
                if std::mem::take(&mut queue.begun) || !queue.messages.is_empty() {
                    queue.take_part(into);
                    return Ok(());
                }
                if let Some(closed) = queue.closed {
                    return Err(closed);
                }
                queue.idle = true;
            }
            arrived.await;
        }
    }

    /// Everything was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.queue().messages.is_empty()
    }

    /// When the last message was taken; none while one waits.
    pub fn emptied(&self) -> Option<Instant> {
        let queue = self.queue();
        queue.emptied.filter(|_| queue.messages.is_empty())
    }

    /// Resolves when the client is to be cut off, even while a write to it waits.
    pub async fn overflowed(&self) {
        loop {
            let overflowed = self.overflowed.notified();
            if self.queue().closed == Some(Closed::Slow) {
                return;
            }
            overflowed.await;
        }
    }

    pub(super) fn close(&self, why: Closed) {
        self.queue().closed.get_or_insert(why);
        self.arrived.notify_one();
    }

    fn is_over(&self, queue: &Queue) -> bool {
        queue.messages.len() > self.max_messages
            || queue.bytes > self.max_bytes
            || queue.result_bytes > self.max_bytes.saturating_mul(RESULT_SHARE)
    }

    /// A message that is too large for an empty queue is let through alone: it is late for nobody.
    fn relieve(&self, queue: &mut Queue) {
        queue.drop_where(|class| matches!(class, Class::Preview { .. }));
        if self.is_over(queue) {
            queue.drop_where(|class| matches!(class, Class::Progress { .. }));
        }
        if self.is_over(queue) && queue.messages.len() > 1 {
            queue.closed = Some(Closed::Slow);
            queue.drop_where(|class| *class != Class::Terminal);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn over_the_line(&mut self, message: &Message) -> Sent {
        let line = self.line.as_ref().filter(|_| self.idle && self.closed.is_none());
        let sent = match line {
            Some(line) if message.class.is_superseded() => line.send(message),
            _ => Sent::No,
        };
        if sent == Sent::Begun {
            self.begun = true;
            self.idle = false;
        }
        sent
    }

    fn add(&mut self, message: Message) {
        *self.share_of(&message) += message.payload.len();
        self.messages.push_back(message);
    }

    fn take_part(&mut self, into: &mut Vec<Message>) {
        let mut taken = 0;
        while taken < PART
            && let Some(message) = self.messages.pop_front()
        {
            taken += message.payload.len();
            *self.share_of(&message) -= message.payload.len();
            into.push(message);
        }
        if self.messages.is_empty() {
            self.emptied = Some(Instant::now());
        }
    }

    /// The sum that the message counts in.
    fn share_of(&mut self, message: &Message) -> &mut usize {
        match message.class {
            Class::Result => &mut self.result_bytes,
            _ => &mut self.bytes,
        }
    }

    fn supersede(&mut self, newer: &Message) {
        if newer.class.is_superseded() {
            self.drop_where(|class| *class == newer.class);
        }
    }

    fn drop_where(&mut self, given_up: impl Fn(&Class) -> bool) {
        let (mut bytes, mut result_bytes) = (0, 0);
        self.messages.retain(|message| {
            if given_up(&message.class) {
                metrics::client_frame_dropped(message.class.frame_kind());
                return false;
            }
            let share = if message.class == Class::Result { &mut result_bytes } else { &mut bytes };
            *share += message.payload.len();
            true
        });
        (self.bytes, self.result_bytes) = (bytes, result_bytes);
    }
}
