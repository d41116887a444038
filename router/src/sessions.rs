//! Who listens: the websockets of clients, each with a bounded outbox.
//!
//! Owns the table of sockets and what waits for each of them. It never touches a network connection (`front` moves the
//! messages) and never decides what a client may see (`relay` addresses each message to the sid of a job's client).
//! Sending never waits: a client that does not read loses previews first, then progress, and is then cut off. It
//! never loses a message that tells of an end and stays connected.
//!
//! ComfyUI replaces the socket of a sid that connects again, and forgets the new one when the old one ends. Here a sid
//! may have several sockets: the newest gets the job's messages, the older ones only what everybody gets, and when the
//! newest ends the one before it takes over. None is closed for another's sake: browsers with a duplicated tab would
//! take turns reconnecting for ever.

mod absent;
mod message;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::comfy::frame;
use crate::metrics;
use absent::Absent;
pub use message::{Class, Message, Payload};
pub use outbox::{Closed, Outbox};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Websockets open at a time.
    pub sockets: usize,
    /// Messages waiting for one client.
    pub queue_messages: usize,
    /// Bytes waiting for one client. Images that are results, not previews, may be eight times as much.
    pub queue_bytes: usize,
    /// A `status` is sent at least this often: some clients take ten silent seconds for a dead connection.
    pub status_ms: u64,
    /// How long a job's events are kept for a client that connects only after it posted the job.
    pub absent_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sockets: 4_096,
            queue_messages: 256,
            queue_bytes: 8 << 20,
            status_ms: 4_000,
            absent_ms: 60_000,
        }
    }
}

/// Longer sids are not accepted: one is minted instead.
const MAX_SID: usize = 256;

/// Repeats the status and forgets what nobody came for.
#[derive(Debug)]
pub struct Service(Handle);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    remaining: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    sockets: HashMap<u64, Arc<Outbox>>,
    /// The sockets of a sid, the newest last. Never empty.
    sids: HashMap<String, Sid>,
    /// The node that a sid's job is at.
    current: HashMap<String, String>,
    absent: Absent,
    closing: bool,
}

#[derive(Debug)]
struct Sid {
    tenant: String,
    sockets: Vec<u64>,
}

/// One websocket's place in the table, given up when dropped.
#[derive(Debug)]
pub struct Connection {
    /// The client's own, or a minted one.
    pub sid: String,
    pub outbox: Arc<Outbox>,
    id: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("{0} websockets are open, which is the limit")]
    Full(usize),
    #[error("the router is shutting down")]
    Closing,
}

impl Service {
    pub fn new(config: Config) -> (Self, Handle) {
        let remaining = AtomicUsize::new(0);
        let handle = Handle(Arc::new(Shared { config, remaining, table: Mutex::default() }));
        (Self(handle.clone()), handle)
    }

    /// Runs for ever.
    pub async fn run(self) {
        let shared = &self.0.0;
        let mut ticks = tokio::time::interval(Duration::from_millis(shared.config.status_ms.max(100)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            shared.table().absent.forget(Duration::from_millis(shared.config.absent_ms));
            self.0.broadcast_status(self.0.remaining());
        }
    }
}

impl Handle {
    /// Takes a place for a new socket and puts its first messages into the outbox: `status` with the sid, then what the
    /// sid's jobs did while it was away or, failing that, the node its job is at.
    ///
    /// A sid that another tenant holds is not given away: a fresh one is minted.
    pub fn connect(&self, sid: Option<&str>, tenant: &str) -> Result<Connection, ConnectError> {
        let shared = &self.0;
        let mut table = shared.table();
        if table.closing {
            return Err(ConnectError::Closing);
        }
        if table.sockets.len() >= shared.config.sockets {
            return Err(ConnectError::Full(shared.config.sockets));
        }
        let taken = |sid: &str| table.sids.get(sid).is_some_and(|held| held.tenant != tenant);
        let usable = sid.filter(|sid| !sid.is_empty() && sid.len() <= MAX_SID && !taken(sid));
        let sid = usable.map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned);

        let outbox = Arc::new(Outbox::new(shared.config.queue_messages, shared.config.queue_bytes));
        outbox.push(Message::ordinary(frame::status(self.remaining(), Some(&sid))));
        let missed = table.absent.take(&sid);
        if missed.is_empty()
            && let Some(node) = table.current.get(&sid)
        {
            outbox.push(Message::ordinary(frame::executing_now(node)));
        }
        missed.into_iter().for_each(|message| outbox.push(message));

        table.next += 1;
        let id = table.next;
        table.sockets.insert(id, outbox.clone());
        let holders = Sid { tenant: tenant.to_owned(), sockets: Vec::new() };
        table.sids.entry(sid.clone()).or_insert(holders).sockets.push(id);
        metrics::ws_clients(table.sockets.len());
        Ok(Connection { sid, outbox, id, shared: shared.clone() })
    }

    /// To the newest socket of `sid`. If there is none, what tells of more than progress is kept for a while.
    pub fn send(&self, sid: &str, message: Message) {
        let mut table = self.0.table();
        match table.newest(sid) {
            Some(outbox) => outbox.push(message),
            None => table.absent.keep(sid, message),
        }
    }

    /// To every socket.
    pub fn broadcast(&self, message: Message) {
        for outbox in self.0.table().sockets.values() {
            outbox.push(message.clone());
        }
    }

    /// Tells everybody how many jobs are open, and remembers it for those who come later.
    pub fn broadcast_status(&self, remaining: usize) {
        self.0.remaining.store(remaining, Ordering::Relaxed);
        self.broadcast(Message::status(frame::status(remaining, None)));
    }

    /// The node that the sid's job is at; none when no job of it runs.
    pub fn set_current(&self, sid: &str, node: Option<&str>) {
        let mut table = self.0.table();
        match node {
            Some(node) => {
                table.current.insert(sid.to_owned(), node.to_owned());
            }
            None => {
                table.current.remove(sid);
            }
        }
    }

    pub fn sockets(&self) -> usize {
        self.0.table().sockets.len()
    }

    /// Ends every socket once its outbox is empty, and takes no more.
    pub fn close(&self) {
        let mut table = self.0.table();
        table.closing = true;
        table.sockets.values().for_each(|outbox| outbox.close(Closed::Shutdown));
    }

    fn remaining(&self) -> usize {
        self.0.remaining.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn newest(&self, sid: &str) -> Option<&Arc<Outbox>> {
        let id = self.sids.get(sid)?.sockets.last()?;
        self.sockets.get(id)
    }

    fn leave(&mut self, sid: &str, id: u64) {
        self.sockets.remove(&id);
        if let Some(held) = self.sids.get_mut(sid) {
            held.sockets.retain(|other| *other != id);
            if held.sockets.is_empty() {
                self.sids.remove(sid);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.leave(&self.sid, self.id);
        metrics::ws_clients(table.sockets.len());
    }
}
