//! The one thread that writes. Commits that wait while the disk syncs share the next transaction; each is applied in a
//! savepoint of its own, so that a refused one takes nothing with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use super::error::{ApplyError, LedgerError, OpenError};
use super::record::Record;
use super::room::{self, Room};
use super::schema;
use super::store::{self, Keep};
use crate::failpoint;
use crate::metrics;

pub(super) type Ack = oneshot::Sender<Result<(), LedgerError>>;

pub(super) enum Message {
    Store(Waiting),
    Reopen(oneshot::Sender<Result<(), OpenError>>),
    Probe(Ack),
    Close,
}

/// One caller's records, stored whole or not at all.
pub(super) struct Waiting {
    pub(super) records: Vec<Record>,
    /// None: nobody waits for it. It travels with the next commit, or without one after [`NOTE_DELAY`].
    pub(super) ack: Option<Ack>,
}

const NOTE_DELAY: Duration = Duration::from_millis(250);
/// Log written since the last checkpoint, in bytes, after which one is asked for.
const CHECKPOINT_AFTER: usize = 4 << 20;

pub(super) struct Writer {
    /// None after an error that makes durability uncertain.
    pub(super) conn: Option<Connection>,
    pub(super) _lock: schema::Lock,
    pub(super) file: PathBuf,
    pub(super) max_file_mib: Option<u32>,
    pub(super) keep: Keep,
    pub(super) max_batch: usize,
    pub(super) inbox: Receiver<Message>,
    pub(super) waiting: Arc<AtomicUsize>,
    /// The error after which nothing is accepted, if any.
    pub(super) health: watch::Sender<Option<LedgerError>>,
    /// Counts the changes of the history.
    pub(super) history: watch::Sender<u64>,
    pub(super) checkpoint: SyncSender<()>,
    pub(super) room: Room,
    /// When the file was given up, or last tried in vain to be reopened.
    pub(super) failed: Option<Instant>,
    pub(super) reopen_after: Duration,
    pub(super) unchecked: usize,
}

enum Next {
    Write(Vec<Waiting>),
    Reopen(Vec<Waiting>, oneshot::Sender<Result<(), OpenError>>),
    Probe(Vec<Waiting>, Ack),
    Close(Vec<Waiting>),
}

impl Writer {
    pub(super) fn run(mut self) {
        loop {
            match self.gather() {
                Next::Write(batch) => self.write(batch),
                Next::Reopen(batch, ack) => {
                    self.write(batch);
                    let _ = ack.send(self.reopen());
                }
                Next::Probe(batch, ack) => {
                    self.write(batch);
                    let _ = ack.send(self.probe());
                }
                Next::Close(batch) => return self.write(batch),
            }
        }
    }

    /// Everything that waits by now, at most `max_batch` callers, in the order of arrival.
    fn gather(&mut self) -> Next {
        let mut batch = Vec::new();
        let mut deadline = None;
        loop {
            let message = match deadline {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.inbox.recv_timeout(Instant::saturating_duration_since(&at, Instant::now())),
            };
            match message {
                Ok(Message::Store(waiting)) => {
                    let patience = if waiting.ack.is_some() { Duration::ZERO } else { NOTE_DELAY };
                    let latest = Instant::now() + patience;
                    deadline = Some(deadline.map_or(latest, |at| latest.min(at)));
                    batch.push(waiting);
                }
                Ok(Message::Reopen(ack)) => return Next::Reopen(batch, ack),
                Ok(Message::Probe(ack)) => return Next::Probe(batch, ack),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return Next::Close(batch),
                Err(RecvTimeoutError::Timeout) => return Next::Write(batch),
            }
            if batch.len() >= self.max_batch {
                return Next::Write(batch);
            }
        }
    }

    fn write(&mut self, batch: Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        self.reopen_when_due();
        let count = batch.len();
        let scarce = self.conn.as_ref().is_some_and(|conn| self.room.is_scarce(conn));
        let mut batch = if scarce { self.without_beginnings(batch) } else { batch };
        let mut outcome = self.store(&batch);
        if matches!(outcome, Err(LedgerError::Full { .. })) && self.room.give_up() {
            batch = self.without_beginnings(batch);
            outcome = self.store(&batch);
        }
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        if outcome.is_ok() && batch.iter().flat_map(|w| &w.records).any(Record::changes_history) {
            self.history.send_modify(|changes| *changes += 1);
        }
        acknowledge(batch, outcome);
        self.ask_for_checkpoint();
    }

    fn store(&mut self, batch: &[Waiting]) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let events = batch.iter().map(|w| w.records.len()).sum();
        let outcome = self.transact(batch);
        match &outcome {
            Ok(_) => metrics::ledger_commit(batch.len(), events, started.elapsed()),
            Err(error) => self.failed(error),
        }
        outcome
    }

    /// Refuses what would need more room later; gives the rest.
    fn without_beginnings(&mut self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let (begin, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(room::begins);
        if !begin.is_empty() {
            // That nothing new is taken has been said.
            let full = LedgerError::Full { file: self.file.clone() };
            metrics::ledger_error(full.kind());
            acknowledge(begin, Err(full));
        }
        rest
    }

    /// One transaction for all. The inner results are those of the callers, in order.
    fn transact(&mut self, batch: &[Waiting]) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let Some(conn) = &mut self.conn else {
            let reason = self.health.borrow().as_ref().map_or_else(String::new, ToString::to_string);
            return Err(LedgerError::GivenUp { file: self.file.clone(), reason: reason.into() });
        };
        self.unchecked += batch.iter().flat_map(|w| &w.records).map(Record::weight).sum::<usize>();
        let at = |when: &str| {
            let all = if failpoint::armed() { batch } else { &[] };
            let records = all.iter().flat_map(|w| &w.records);
            records.for_each(|record| failpoint::hit(&format!("{when}.{}", record.word())));
        };
        at("before_append");
        let stored = transact(conn, batch, self.keep).map_err(|e| LedgerError::writing(&self.file, &e))?;
        if failpoint::fails("sync") {
            return Err(LedgerError::Io {
                file: self.file.clone(),
                reason: "the sync was made to fail".into(),
            });
        }
        at("after_append");
        Ok(stored)
    }

    fn failed(&mut self, error: &LedgerError) {
        metrics::ledger_error(error.kind());
        if !error.is_fatal() {
            // That it was given up has been said.
            if !matches!(error, LedgerError::GivenUp { .. }) {
                tracing::error!(error = %error, "commit failed");
            }
            return;
        }
        if self.conn.take().is_some() {
            self.failed = Some(Instant::now());
            tracing::error!(error = %error, "ledger accepts nothing until it is reopened");
            self.health.send_replace(Some(error.clone()));
        }
    }

    fn ask_for_checkpoint(&mut self) {
        if self.unchecked >= CHECKPOINT_AFTER {
            self.unchecked = 0;
            // Full: one is asked for already.
            let _ = self.checkpoint.try_send(());
        }
    }

    fn reopen_when_due(&mut self) {
        if self.failed.is_some_and(|at| at.elapsed() >= self.reopen_after)
            && let Err(error) = self.reopen()
        {
            tracing::warn!(error = %error, "ledger cannot be reopened");
        }
    }

    /// Writes something that changes nothing.
    fn probe(&mut self) -> Result<(), LedgerError> {
        self.reopen_when_due();
        let Some(conn) = &mut self.conn else {
            return Err(self.health.borrow().clone().unwrap_or(LedgerError::Closed));
        };
        if self.room.is_scarce(conn) {
            return Err(LedgerError::Full { file: self.file.clone() });
        }
        let probed = touch(conn).map_err(|error| LedgerError::writing(&self.file, &error));
        if let Err(error) = &probed {
            self.failed(error);
        }
        probed
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        (self.conn, self.failed) = (None, Some(Instant::now()));
        self.conn = Some(schema::open_writer(&self.file, self.max_file_mib)?);
        self.failed = None;
        self.health.send_replace(None);
        tracing::info!(file = %self.file.display(), "ledger reopened");
        Ok(())
    }
}

/// As much room as a prompt takes, given back; then a page that stays as it was, made durable.
fn touch(conn: &mut Connection) -> rusqlite::Result<()> {
    const ROOM: usize = 256 << 10;
    let mut tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken = tx.savepoint()?;
    taken.execute(
        "INSERT INTO body (job, prompt, extra_data, rest, needs, sum) VALUES (-1, ?1, '', '', '', x'')",
        [" ".repeat(ROOM)],
    )?;
    // Dropped, it is rolled back.
    drop(taken);
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    tx.pragma_update(None, "user_version", version)?;
    tx.commit()
}

fn transact(
    conn: &mut Connection,
    batch: &[Waiting],
    keep: Keep,
) -> rusqlite::Result<Vec<Result<(), LedgerError>>> {
    let mut tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut results = Vec::with_capacity(batch.len());
    for waiting in batch {
        results.push(apply_all(&mut tx, &waiting.records)?);
    }
    store::prune(&tx, keep)?;
    tx.commit()?;
    Ok(results)
}

/// All of them or none: the inner error is this caller's alone.
fn apply_all(
    tx: &mut rusqlite::Transaction<'_>,
    records: &[Record],
) -> rusqlite::Result<Result<(), LedgerError>> {
    let savepoint = tx.savepoint()?;
    for record in records {
        match store::apply(&savepoint, record) {
            Ok(()) => {}
            Err(ApplyError::Refused(error)) => {
                savepoint.finish()?;
                metrics::ledger_error(error.kind());
                return Ok(Err(error));
            }
            Err(ApplyError::Sqlite(error)) => return Err(error),
        }
    }
    savepoint.commit()?;
    Ok(Ok(()))
}

fn acknowledge(batch: Vec<Waiting>, outcome: Result<Vec<Result<(), LedgerError>>, LedgerError>) {
    let results = outcome.unwrap_or_else(|error| vec![Err(error); batch.len()]);
    for (waiting, result) in batch.into_iter().zip(results) {
        match (waiting.ack, result) {
            // A caller that no longer waits is no error: its events are stored all the same.
            (Some(ack), result) => drop(ack.send(result)),
            (None, Err(error)) => tracing::warn!(error = %error, "note is lost"),
            (None, Ok(())) => {}
        }
    }
}
