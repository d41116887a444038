//! The durable record of jobs, attempts, decisions and history, in one SQLite file.
//!
//! Owns the file and the one thread that writes it. A commit is acknowledged when the disk has it (write-ahead log,
//! `synchronous=FULL`); commits that wait while the disk syncs share the next transaction. Reads have connections of
//! their own and wait for nobody. It never decides anything, keeps no secret ([`Secrets`](crate::model::job::Secrets)
//! are not stored) and takes no time of its own: the events carry theirs. It refuses events that contradict what is
//! recorded, see [`LedgerError::Refused`].
//!
//! The scheduler commits; front and admin read. What a caller may rely on:
//! - Commits of one caller are stored in the order of its calls, each whole or not at all.
//! - After `Ok` the events survive `kill -9` and power failure. After an error, or without an answer, they may or may
//!   not be there, except that [`LedgerError::Refused`] and [`LedgerError::Full`] mean that they are not.
//! - A failed sync is never retried as if it could succeed: after [`LedgerError::Io`] everything is refused ([`LedgerError::GivenUp`])
//!   until the file was reopened, which checks it and writes the whole log to the database file anew. A commit that arrives five
//!   seconds later makes the writer try; [`Handle::reopen`] tries at once.

mod error;
mod history;
mod read;
mod readers;
mod record;
mod room;
mod rows;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::config;
use crate::failpoint;
use crate::metrics;
use crate::model::decision::DecisionRecord;
use crate::model::event::{Event, OpenJob, OutputFile};
use crate::model::id::{InstanceId, JobId};
use crate::model::job::Texts;
pub use error::{LedgerError, OpenError};
use readers::Readers;
use record::Record;
pub use rows::{
    AttemptRow, Counts, HistoryKey, HistoryQuery, HistoryRow, HistorySeq, JobFilter, JobRow, JobStateFilter,
    JobSummary, OnceRow, Page, Part,
};
use writer::{Ack, Message, Waiting, Writer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The database; SQLite keeps a `-wal` and a `-shm` file beside it while it is open, and the router a `.lock`.
    pub file: PathBuf,
    /// Finished jobs kept. The oldest go first, as in ComfyUI, whose own limit is 10 000.
    pub history: u32,
    /// Decision records kept.
    pub decisions: u32,
    /// Output files whose instance is remembered, also after their job has left the history.
    pub files: u32,
    /// Idempotency keys remembered; the oldest go first.
    pub once: u32,
    /// Upper limit of the database file. Beyond it commits fail as if the disk were full. None: the disk decides.
    pub max_file_mib: Option<u32>,
    /// Callers whose events may share one transaction.
    pub max_batch: u32,
    /// Commits that may wait for the disk.
    pub max_waiting: u32,
    /// Queries at a time.
    pub readers: u32,
    /// After so long a commit that arrives makes the writer try to reopen a file that it has given up.
    pub reopen_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: "comfy-router.db".into(),
            history: 10_000,
            decisions: 100_000,
            files: 100_000,
            once: 10_000,
            max_file_mib: None,
            max_batch: 256,
            max_waiting: 4096,
            readers: 2,
            reopen_ms: 5_000,
        }
    }
}

impl From<&config::Ledger> for Config {
    fn from(written: &config::Ledger) -> Self {
        Self {
            file: written.dir.join("ledger.db"),
            history: written.history,
            decisions: written.decisions,
            once: written.idempotency_keys,
            max_file_mib: written.max_file_mib,
            ..Self::default()
        }
    }
}

/// Whether a router has this ledger open. A ledger that is not there is not in use, and is not made.
pub fn in_use(config: &Config) -> bool {
    let there = schema::beside(&config.file, ".lock").exists();
    there && matches!(schema::lock(&config.file), Err(OpenError::InUse { .. }))
}

/// The threads. Dropping it closes the ledger without waiting.
#[derive(Debug)]
pub struct Service {
    messages: Sender<Message>,
    writer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    messages: Sender<Message>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    readers: Arc<Readers>,
    health: watch::Receiver<Option<LedgerError>>,
    history: watch::Receiver<u64>,
}

impl Service {
    /// Opens, checks and migrates the file, which takes about a second for each GiB. Blocks.
    pub fn open(config: &Config) -> Result<(Self, Handle), OpenError> {
        let lock = schema::lock(&config.file)?;
        let conn = schema::open_writer(&config.file, config.max_file_mib)?;
        let readers = Arc::new(Readers::new(config.file.clone(), config.readers as usize));
        let (messages, inbox) = mpsc::channel();
        let (checkpoint, wanted) = mpsc::sync_channel(1);
        let (health_sender, health) = watch::channel(None);
        let (changes, history) = watch::channel(0);
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            conn: Some(conn),
            _lock: lock,
            file: config.file.clone(),
            max_file_mib: config.max_file_mib,
            keep: store::Keep {
                history: config.history,
                decisions: config.decisions,
                files: config.files,
                once: config.once,
            },
            max_batch: config.max_batch.max(1) as usize,
            inbox,
            waiting: waiting.clone(),
            health: health_sender,
            history: changes,
            checkpoint,
            room: room::Room::new(&config.file, config.max_file_mib),
            failed: None,
            reopen_after: Duration::from_millis(config.reopen_ms.into()),
            unchecked: 0,
        };
        let spawned =
            |e: std::io::Error| OpenError::Open { file: config.file.clone(), reason: e.to_string() };
        let writer = thread::Builder::new().name("ledger-writer".into()).spawn(move || writer.run());
        let file = config.file.clone();
        let checkpointer = thread::Builder::new()
            .name("ledger-checkpoint".into())
            .spawn(move || checkpoint_when_asked(&file, &wanted));
        let max_waiting = config.max_waiting as usize;
        let handle = Handle {
            messages: messages.clone(),
            waiting,
            max_waiting,
            readers: readers.clone(),
            health,
            history,
        };
        let (writer, checkpointer) = (Some(writer.map_err(spawned)?), Some(checkpointer.map_err(spawned)?));
        Ok((Self { messages, writer, checkpointer, readers }, handle))
    }

    /// Stores what waits, merges the log into the file and gives the file free. Blocks.
    pub fn close(mut self) {
        let _ = self.messages.send(Message::Close);
        for thread in [self.writer.take(), self.checkpointer.take()].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("ledger thread panicked");
            }
        }
        self.readers.close_idle();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Close);
    }
}

/// Copies the log into the database file whenever the writer says that it has grown. A commit does not wait for it.
fn checkpoint_when_asked(file: &std::path::Path, wanted: &Receiver<()>) {
    let mut conn = None;
    while wanted.recv().is_ok() {
        let open = match conn.take() {
            Some(open) => Ok(open),
            None => schema::open_checkpointer(file),
        };
        failpoint::hit("checkpoint.begin");
        let done = open.and_then(|open| {
            open.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            Ok(open)
        });
        failpoint::hit("checkpoint.end");
        match done {
            Ok(open) => conn = Some(open),
            Err(error) => {
                tracing::warn!(error = %error, "ledger checkpoint failed; the log keeps everything")
            }
        }
        metrics::ledger_file(std::fs::metadata(file).map_or(0, |meta| meta.len()));
    }
}

impl Handle {
    /// Queued when called, stored in the order of the calls; resolves when durable. Dropping the future takes
    /// nothing back.
    pub fn commit(
        &self,
        events: Vec<Event>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send + 'static + use<> {
        self.send(events.into_iter().map(Record::from).collect())
    }

    /// For records that may be lost in a crash: they travel with the next commit, or alone a moment later.
    pub fn note(&self, decisions: Vec<DecisionRecord>) {
        if !decisions.is_empty() {
            let records = decisions.into_iter().map(|d| Record::Decision(Box::new(d))).collect();
            if let Err(error) = self.enqueue(records, None) {
                tracing::warn!(error = %error, "decision records are lost");
            }
        }
    }

    fn send(
        &self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send + 'static + use<> {
        let (ack, answer) = oneshot::channel();
        let sent =
            if records.is_empty() { Ok(false) } else { self.enqueue(records, Some(ack)).map(|()| true) };
        async move {
            match sent? {
                true => answer.await.unwrap_or(Err(LedgerError::Closed)),
                false => Ok(()),
            }
        }
    }

    fn enqueue(&self, records: Vec<Record>, ack: Option<Ack>) -> Result<(), LedgerError> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        if waiting >= self.max_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            metrics::ledger_error("busy");
            return Err(LedgerError::Busy { waiting });
        }
        let message = Message::Store(Waiting { records, ack });
        self.messages.send(message).map_err(|_| LedgerError::Closed)
    }

    /// Changes when jobs have entered the history or left it.
    pub fn history_changes(&self) -> watch::Receiver<u64> {
        self.history.clone()
    }

    /// The error for which nothing is accepted, if any; [`reopen`](Self::reopen) ends it.
    pub fn health(&self) -> watch::Receiver<Option<LedgerError>> {
        self.health.clone()
    }

    /// Whether a prompt could be made durable now: room is taken and given back, and something is written.
    pub async fn probe(&self) -> Result<(), LedgerError> {
        let (ack, answer) = oneshot::channel();
        self.messages.send(Message::Probe(ack)).map_err(|_| LedgerError::Closed)?;
        answer.await.unwrap_or(Err(LedgerError::Closed))
    }

    /// Opens the file anew after [`LedgerError::Io`]: checks it and rewrites what the failed sync may have lost.
    pub async fn reopen(&self) -> Result<(), OpenError> {
        self.readers.close_idle();
        let closed = || OpenError::Open { file: PathBuf::new(), reason: "the ledger is closed".into() };
        let (ack, answer) = oneshot::channel();
        self.messages.send(Message::Reopen(ack)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Jobs that are not over, in order of acceptance. The large texts of those that are beyond `text_bytes` in all
    /// stay here, see [`texts`](Self::texts).
    pub async fn open_jobs(&self, text_bytes: usize) -> Result<Vec<OpenJob>, LedgerError> {
        self.readers.read(move |conn| read::open_jobs(conn, text_bytes)).await
    }

    /// The large texts of these jobs, without those that have none any more.
    pub async fn texts(&self, jobs: Vec<JobId>) -> Result<HashMap<JobId, Texts>, LedgerError> {
        self.readers.read(move |conn| read::texts(conn, &jobs)).await
    }

    /// Finished jobs as `/history` lists them, oldest first, each by its place in the ledger; of one tenant where one
    /// is named. To be read in pieces by [`history_rows`](Self::history_rows): all of them may be some hundred MB.
    pub async fn history(
        &self,
        query: HistoryQuery,
        tenant: Option<String>,
    ) -> Result<Vec<HistorySeq>, LedgerError> {
        self.readers.read(move |conn| history::window(conn, query, tenant.as_deref())).await
    }

    /// These entries in this order, without those that are gone meanwhile.
    pub async fn history_rows(
        &self,
        seqs: Vec<HistorySeq>,
        part: Part,
    ) -> Result<Vec<HistoryRow>, LedgerError> {
        self.readers.read(move |conn| history::rows(conn, &seqs, part)).await
    }

    /// What `/api/jobs` filters and sorts finished jobs by, oldest first.
    pub async fn history_keys(&self, tenant: Option<String>) -> Result<Vec<HistoryKey>, LedgerError> {
        self.readers.read(move |conn| history::keys(conn, tenant.as_deref())).await
    }

    pub async fn history_of(&self, prompt_id: &str) -> Result<Option<HistoryRow>, LedgerError> {
        let prompt_id = prompt_id.to_owned();
        self.readers.read(move |conn| history::of(conn, &prompt_id)).await
    }

    /// The temporary files that the history names, each with the instance that wrote it. Looks at the whole history.
    pub async fn shown_files(&self) -> Result<Vec<(InstanceId, OutputFile)>, LedgerError> {
        self.readers.read(history::shown_files).await
    }

    /// What was answered to the request of this tenant with this idempotency key.
    pub async fn once(&self, tenant: &str, key: &str) -> Result<Option<OnceRow>, LedgerError> {
        let (tenant, key) = (tenant.to_owned(), key.to_owned());
        self.readers.read(move |conn| read::once(conn, &tenant, &key)).await
    }

    /// Takes finished jobs out of the history, with all their texts; unknown ids, and those of others than `tenant`
    /// where one is named, are ignored.
    pub async fn delete_history(
        &self,
        prompt_ids: Vec<String>,
        tenant: Option<String>,
    ) -> Result<(), LedgerError> {
        if prompt_ids.is_empty() {
            return Ok(());
        }
        self.send(vec![Record::DeleteHistory { prompt_ids, tenant }]).await
    }

    /// All of it, or that of one tenant.
    pub async fn clear_history(&self, tenant: Option<String>) -> Result<(), LedgerError> {
        self.send(vec![Record::ClearHistory { tenant }]).await
    }

    /// The newest job of a prompt id, in whatever state.
    pub async fn job(&self, prompt_id: &str) -> Result<Option<JobRow>, LedgerError> {
        let prompt_id = prompt_id.to_owned();
        self.readers.read(move |conn| read::job(conn, &prompt_id)).await
    }

    /// Jobs without their texts, newest first.
    pub async fn jobs(&self, filter: JobFilter, page: Page) -> Result<Vec<JobSummary>, LedgerError> {
        self.readers.read(move |conn| read::jobs(conn, &filter, page)).await
    }

    /// The instance that wrote this file last, as far as recorded: of all, or this one only; for any tenant, or this one.
    pub async fn locate(
        &self,
        file: &OutputFile,
        instance: Option<&InstanceId>,
        tenant: Option<&str>,
    ) -> Result<Option<InstanceId>, LedgerError> {
        let (file, instance, tenant) = (file.clone(), instance.cloned(), tenant.map(str::to_owned));
        self.readers.read(move |conn| read::locate(conn, &file, instance.as_ref(), tenant.as_deref())).await
    }

    /// The next number of the queue: one more than the highest that was ever counted.
    pub async fn counter(&self) -> Result<i64, LedgerError> {
        self.readers.read(read::counter).await
    }

    /// What tells this router from all others, also after a restart.
    pub async fn identity(&self) -> Result<String, LedgerError> {
        self.readers.read(read::identity).await
    }

    /// Oldest first.
    pub async fn decisions_of(&self, job: JobId) -> Result<Vec<DecisionRecord>, LedgerError> {
        self.readers.read(move |conn| read::decisions_of(conn, job)).await
    }

    /// Newest first, at most [`Page::MAX`].
    pub async fn decisions(&self, limit: u32) -> Result<Vec<DecisionRecord>, LedgerError> {
        self.readers.read(move |conn| read::decisions(conn, limit)).await
    }

    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        self.readers.read(read::counts).await
    }
}
