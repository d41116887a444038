//! Who listens: the websockets of clients, each with a bounded outbox.
//!
//! Owns the table of sockets, what waits for each of them, and what their clients' jobs have come to. It never touches a
//! network connection (`front` moves the messages, and lends a [`Line`] to each) and never decides what a client may see (`relay` addresses each message
//! to a job's client). Sending never waits: a client that does not read loses previews first, then progress, and is then
//! cut off. It never loses a message that tells of an end and stays connected.
//!
//! ComfyUI replaces the socket of a sid that connects again, and forgets the new one when the old one ends. Here a client
//! may have several sockets: the newest gets the jobs' messages, the older ones only what everybody gets, and when the
//! newest ends the one before it takes over. Whichever is new is told where the jobs are. None is closed for another's
//! sake: browsers with a duplicated tab would take turns reconnecting for ever.

mod message;
mod outbox;
mod records;
mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::comfy::frame;
use crate::metrics;
pub use message::{Class, Message, Payload};
pub use outbox::{Closed, Line, Outbox, Sent};
use table::Table;

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
    /// How long a job's events are kept after its end, for a client that was away.
    pub absent_ms: u64,
    /// Tenants are told apart by their keys: each has client ids of its own.
    pub apart: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sockets: 4_096,
            queue_messages: 256,
            queue_bytes: 8 << 20,
            status_ms: 4_000,
            absent_ms: 60_000,
            apart: false,
        }
    }
}

impl Config {
    /// What is kept of a client's jobs fits an outbox twice.
    fn kept(&self) -> records::Limits {
        records::Limits {
            messages: self.queue_messages / 2,
            bytes: self.queue_bytes / 2,
            result_bytes: self.queue_bytes.saturating_mul(outbox::RESULT_SHARE / 2),
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

/// A client id and whose it is. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client(Arc<str>);

/// One websocket's place in the table, given up when dropped.
#[derive(Debug)]
pub struct Connection {
    /// The client's own, or a minted one.
    pub sid: String,
    pub outbox: Arc<Outbox>,
    client: Client,
    id: u64,
    well: bool,
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
            shared.table().expire(Duration::from_millis(shared.config.absent_ms));
            self.0.broadcast_status(self.0.remaining());
        }
    }
}

impl Handle {
    /// None for a client id that no socket can have.
    pub fn client(&self, tenant: &str, sid: &str) -> Option<Client> {
        if sid.is_empty() || sid.len() > MAX_SID {
            return None;
        }
        // Without keys a tenant is a header that browsers' websockets cannot send.
        let tenant = if self.0.config.apart { tenant } else { "" };
        Some(Client(format!("{}:{tenant}{sid}", tenant.len()).into()))
    }

    /// Takes a place for a new socket and puts its first messages into the outbox: `status` with the sid, then where the
    /// client's jobs are.
    pub fn connect(&self, sid: Option<&str>, tenant: &str) -> Result<Connection, ConnectError> {
        let shared = &self.0;
        let asked = sid.and_then(|sid| Some((sid.to_owned(), self.client(tenant, sid)?)));
        let (sid, client) = match asked {
            Some(asked) => asked,
            None => {
                let sid = Uuid::new_v4().simple().to_string();
                let client = self.client(tenant, &sid).expect("32 letters");
                (sid, client)
            }
        };
        let mut table = shared.table();
        if table.closing {
            return Err(ConnectError::Closing);
        }
        if table.len() >= shared.config.sockets {
            return Err(ConnectError::Full(shared.config.sockets));
        }
        let outbox = Arc::new(Outbox::new(shared.config.queue_messages, shared.config.queue_bytes));
        outbox.push(Message::passing(frame::status(self.remaining(), Some(&sid))));
        let id = table.join(&client, &outbox);
        metrics::ws_clients(table.len());
        Ok(Connection { sid, outbox, client, id, well: false, shared: shared.clone() })
    }

    /// To the newest socket of the client whose job it is, and into what is kept of that job.
    pub fn send(&self, client: &Client, job: &Arc<str>, message: Message) {
        self.0.table().send(client, job, message, self.0.config.kept());
    }

    /// To every socket.
    pub fn broadcast(&self, message: Message) {
        for outbox in self.0.table().all() {
            outbox.push(message.clone());
        }
    }

    /// Tells everybody how many jobs are open, and remembers it for those who come later.
    pub fn broadcast_status(&self, remaining: usize) {
        self.0.remaining.store(remaining, Ordering::Relaxed);
        self.broadcast(Message::status(frame::status(remaining, None)));
    }

    /// The job runs no more, and will run again: there is nothing to tell a client that connects now.
    pub fn forget(&self, client: &Client, job: &str) {
        self.0.table().forget(client, job);
    }

    /// The client asks for log lines, or for no more. True if anybody wants them now.
    pub fn subscribe_logs(&self, tenant: &str, sid: &str, wants: bool) -> bool {
        let client = self.client(tenant, sid);
        client.is_some_and(|client| self.0.table().wants_logs(&client, wants))
    }

    /// To those who asked for them.
    pub fn send_logs(&self, message: &Message) {
        self.0.table().log_readers().for_each(|outbox| outbox.push(message.clone()));
    }

    pub fn sockets(&self) -> usize {
        self.0.table().len()
    }

    /// Ends every socket once its outbox is empty, and takes no more.
    pub fn close(&self) {
        let mut table = self.0.table();
        table.closing = true;
        table.all().for_each(|outbox| outbox.close(Closed::Shutdown));
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

impl Connection {
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client has proved that it got everything that was sent before that moment.
    pub fn has_got_until(&self, moment: Instant) {
        self.shared.table().taken_by(&self.client, self.id, moment);
    }

    /// The client closed it in good order: what it was sent, it has.
    pub fn closed_well(&mut self) {
        self.well = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.leave(&self.client, self.id, self.well);
        metrics::ws_clients(table.len());
    }
}
