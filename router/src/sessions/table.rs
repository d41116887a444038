//! The sockets, whose they are, and what each client's jobs have come to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Client;
use super::message::Message;
use super::outbox::Outbox;
use super::records::{Limits, Records, SocketId};

/// Clients without a socket of whose jobs something is kept.
const MAX_ABSENT: usize = 1_024;
/// Bytes kept of all clients' jobs.
const MAX_KEPT: usize = 64 << 20;

#[derive(Debug, Default)]
pub(super) struct Table {
    next: SocketId,
    sockets: HashMap<SocketId, Arc<Outbox>>,
    clients: HashMap<Client, Known>,
    /// Clients without a socket.
    absent: usize,
    kept: usize,
    pub(super) closing: bool,
}

/// What is known of a client that has a socket, or jobs, or both.
#[derive(Debug, Default)]
struct Known {
    /// The newest last.
    sockets: Vec<SocketId>,
    records: Records,
    wants_logs: bool,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        self.sockets.values()
    }

    /// A new socket, the client's newest from now on. It is told at once where the client's jobs are.
    pub(super) fn join(&mut self, client: &Client, outbox: &Arc<Outbox>) -> SocketId {
        self.next += 1;
        let id = self.next;
        self.sockets.insert(id, outbox.clone());
        let known = self.clients.entry(client.clone()).or_insert_with(|| {
            self.absent += 1;
            Known::default()
        });
        self.absent -= usize::from(known.sockets.is_empty());
        known.sockets.push(id);
        known.records.for_new(id).into_iter().for_each(|message| outbox.push(message));
        id
    }

    /// A socket is gone. `well`: by its own wish, and with nothing left for it. The one before it takes over.
    pub(super) fn leave(&mut self, client: &Client, id: SocketId, well: bool) {
        let outbox = self.sockets.remove(&id);
        let Some(known) = self.clients.get_mut(client) else { return };
        let was_newest = known.sockets.last() == Some(&id);
        known.sockets.retain(|other| *other != id);
        if well && outbox.is_some_and(|outbox| outbox.is_empty()) {
            known.records.taken_by(id, Instant::now());
        }
        match known.sockets.last() {
            Some(heir) if was_newest => {
                let messages = known.records.for_heir(*heir);
                if let Some(outbox) = self.sockets.get(heir) {
                    messages.into_iter().for_each(|message| outbox.push(message));
                }
            }
            Some(_) => {}
            None => {
                known.wants_logs = false;
                self.absent += 1;
                self.drop_if_idle(client);
            }
        }
    }

    /// To the client's newest socket, and into the record of its job.
    pub(super) fn send(&mut self, client: &Client, job: &Arc<str>, message: Message, limits: Limits) {
        let known = match self.clients.get_mut(client) {
            Some(known) => known,
            None if self.absent >= MAX_ABSENT => return,
            None => {
                self.absent += 1;
                self.clients.entry(client.clone()).or_default()
            }
        };
        let newest = known.sockets.last().copied();
        // First sent, then kept: whoever has got everything until the record's moment has got this.
        if let Some(outbox) = newest.and_then(|id| self.sockets.get(&id)) {
            outbox.send(&message);
        }
        let before = known.records.bytes();
        known.records.keep(job, &message, newest, limits.within(before + MAX_KEPT.saturating_sub(self.kept)));
        self.kept = (self.kept + known.records.bytes()).saturating_sub(before);
        if newest.is_none() {
            self.drop_if_idle(client);
        }
    }

    /// The socket has got everything that was sent before that moment.
    pub(super) fn taken_by(&mut self, client: &Client, id: SocketId, until: Instant) {
        if let Some(known) = self.clients.get_mut(client) {
            known.records.taken_by(id, until);
        }
    }

    pub(super) fn forget(&mut self, client: &Client, job: &str) {
        let Some(known) = self.clients.get_mut(client) else { return };
        let before = known.records.bytes();
        known.records.forget(job);
        self.kept = (self.kept + known.records.bytes()).saturating_sub(before);
        self.drop_if_idle(client);
    }

    /// Forgets what ended so long ago.
    pub(super) fn expire(&mut self, after: Duration) {
        self.clients.values_mut().for_each(|known| known.records.expire(after));
        self.clients.retain(|_, known| !known.is_idle());
        self.absent = self.clients.values().filter(|known| known.sockets.is_empty()).count();
        self.kept = self.clients.values().map(|known| known.records.bytes()).sum();
    }

    /// True if anybody wants them now.
    pub(super) fn wants_logs(&mut self, client: &Client, wants: bool) -> bool {
        if let Some(known) = self.clients.get_mut(client).filter(|known| !known.sockets.is_empty()) {
            known.wants_logs = wants;
        }
        self.clients.values().any(|known| known.wants_logs)
    }

    /// The newest socket of each client that asked for log lines.
    pub(super) fn log_readers(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        let readers = self.clients.values().filter(|known| known.wants_logs);
        readers.filter_map(|known| self.sockets.get(known.sockets.last()?))
    }

    fn drop_if_idle(&mut self, client: &Client) {
        if self.clients.get(client).is_some_and(Known::is_idle) {
            self.clients.remove(client);
            self.absent = self.absent.saturating_sub(1);
        }
    }
}

impl Known {
    fn is_idle(&self) -> bool {
        self.sockets.is_empty() && self.records.is_empty()
    }
}
