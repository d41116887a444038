//! What a client's jobs have come to, for the socket that connects next: one that comes only after its POST, that
//! reloads, that returns while its old connection has died unnoticed, or that takes over from another.
//!
//! Of a job that runs, its present state is kept: how it began, what it made, where it is. Of one that has ended, the
//! whole, for a while; it is told to a socket that connects unless another has proved that it got it. ComfyUI keeps
//! nothing, and a client that comes a moment late waits for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Class, Message, Replay};

/// A longer text is not kept.
const MAX_TEXT: usize = 64 << 10;

/// A socket's number.
pub(super) type SocketId = u64;

/// What is kept of one client; an outbox must have room for all of it at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// Of images that are results.
    pub(super) result_bytes: usize,
}

impl Limits {
    /// The same, with so many bytes at most.
    pub(super) fn within(self, bytes: usize) -> Self {
        Self { bytes: self.bytes.min(bytes), result_bytes: self.result_bytes.min(bytes), ..self }
    }
}

/// The oldest first.
#[derive(Debug, Default)]
pub(super) struct Records {
    jobs: Vec<Record>,
    held: Held,
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    messages: usize,
    bytes: usize,
    result_bytes: usize,
}

#[derive(Debug)]
struct Record {
    job: Arc<str>,
    messages: Vec<Message>,
    ended: Option<Instant>,
    /// The socket that was sent all of it.
    told: Option<SocketId>,
    /// That socket took it.
    taken: bool,
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// What is kept here, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.held.bytes + self.held.result_bytes
    }

    /// Notes a message that was sent to `socket`, or would have been if there were one.
    pub(super) fn keep(
        &mut self,
        job: &Arc<str>,
        message: &Message,
        socket: Option<SocketId>,
        limits: Limits,
    ) {
        let size = message.payload.len();
        let fits = match message.class {
            Class::Result => size <= limits.result_bytes,
            Class::Preview { .. } => size <= limits.bytes,
            _ => size <= MAX_TEXT.min(limits.bytes),
        };
        if message.replay == Replay::No || !fits {
            return;
        }
        let record = self.record(job, message.replay == Replay::Start, socket);
        if record.told != socket {
            record.told = None;
        }
        record.taken = false;
        let before = record.held();
        record.add(message);
        let after = record.held();
        self.held = self.held.less(before).plus(after);
        self.shrink(limits);
    }

    /// The attempt is over and the job is not: nothing of it is present.
    pub(super) fn forget(&mut self, job: &str) {
        self.remove(|record| &*record.job == job && record.ended.is_none());
    }

    /// What a socket that connects is told.
    pub(super) fn for_new(&mut self, socket: SocketId) -> Vec<Message> {
        self.replay(socket, |record| !record.taken)
    }

    /// What a socket is told that is the newest again.
    pub(super) fn for_heir(&mut self, socket: SocketId) -> Vec<Message> {
        self.replay(socket, |record| record.told != Some(socket))
    }

    /// The socket has got everything that was sent before that moment.
    pub(super) fn taken_by(&mut self, socket: SocketId, until: Instant) {
        let told = |record: &&mut Record| {
            record.told == Some(socket) && record.ended.is_some_and(|ended| ended <= until)
        };
        self.jobs.iter_mut().filter(told).for_each(|record| record.taken = true);
    }

    /// What ended so long ago interests nobody.
    pub(super) fn expire(&mut self, after: Duration) {
        self.remove(|record| record.ended.is_some_and(|at| at.elapsed() >= after));
    }

    fn replay(&mut self, socket: SocketId, wanted: impl Fn(&Record) -> bool) -> Vec<Message> {
        let mut messages = Vec::new();
        for record in self.jobs.iter_mut().filter(|record| record.ended.is_none() || wanted(record)) {
            messages.extend(record.messages.iter().cloned());
            record.told = Some(socket);
        }
        messages
    }

    fn record(&mut self, job: &Arc<str>, anew: bool, socket: Option<SocketId>) -> &mut Record {
        if anew {
            self.remove(|record| record.job == *job);
        }
        let at = self.jobs.iter().position(|record| record.job == *job).unwrap_or_else(|| {
            let record =
                Record { job: job.clone(), messages: Vec::new(), ended: None, told: socket, taken: false };
            self.jobs.push(record);
            self.jobs.len() - 1
        });
        &mut self.jobs[at]
    }

    fn remove(&mut self, which: impl Fn(&Record) -> bool) {
        self.jobs.retain(|record| !which(record));
        self.count();
    }

    /// What jobs that are over made goes first, then those jobs, then what the others made. Beginnings, ends and the
    /// present stay.
    fn shrink(&mut self, limits: Limits) {
        while self.held.is_over(limits) && self.lose_one() {
            self.count();
        }
    }

    fn lose_one(&mut self) -> bool {
        let over = |record: &Record| record.ended.is_some();
        if self.jobs.iter_mut().filter(|record| over(record)).any(Record::lose_one) {
            return true;
        }
        match self.jobs.iter().position(over).filter(|_| self.jobs.len() > 1) {
            Some(at) => {
                self.jobs.remove(at);
                true
            }
            None => self.jobs.iter_mut().any(Record::lose_one),
        }
    }

    fn count(&mut self) {
        self.held = self.jobs.iter().map(Record::held).fold(Held::default(), Held::plus);
    }
}

impl Held {
    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            result_bytes: self.result_bytes + other.result_bytes,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            messages: self.messages - other.messages,
            bytes: self.bytes - other.bytes,
            result_bytes: self.result_bytes - other.result_bytes,
        }
    }

    fn is_over(self, limits: Limits) -> bool {
        self.messages > limits.messages
            || self.bytes > limits.bytes
            || self.result_bytes > limits.result_bytes
    }
}

impl Record {
    fn held(&self) -> Held {
        let mut held = Held { messages: self.messages.len(), ..Held::default() };
        for message in &self.messages {
            match message.class {
                Class::Result => held.result_bytes += message.payload.len(),
                _ => held.bytes += message.payload.len(),
            }
        }
        held
    }

    fn add(&mut self, message: &Message) {
        match message.replay {
            Replay::Latest(kind) => self.messages.retain(|kept| kept.replay != Replay::Latest(kind)),
            Replay::End => {
                // A bar that stands still would be the last a client sees.
                self.messages.retain(|kept| !matches!(kept.replay, Replay::Latest(_)));
                self.ended = Some(Instant::now());
            }
            // Clients tell images apart by the node that was announced before them.
            Replay::Keep if message.class == Class::Result => {
                let announced = |kept: &&mut Message| kept.replay == Replay::Latest("executing");
                self.messages.iter_mut().filter(announced).for_each(|kept| kept.replay = Replay::Keep);
            }
            Replay::No | Replay::Start | Replay::Keep => {}
        }
        self.messages.push(message.clone());
    }

    /// The oldest that is neither its beginning nor its end.
    fn lose_one(&mut self) -> bool {
        let middle = |message: &Message| !matches!(message.replay, Replay::Start | Replay::End);
        let found = self.messages.iter().position(middle);
        found.map(|at| self.messages.remove(at)).is_some()
    }
}
