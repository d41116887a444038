//! The file: opening, locking, migrating, checking. Texts that can be large live in tables of their own, so that
//! listing jobs reads none of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{LedgerError, OpenError};
use super::wal;

/// One script for each version of the schema; `user_version` counts those that ran. Never edit one that was released.
const MIGRATIONS: &[&str] = &[
    r"
CREATE TABLE job (
    seq INTEGER PRIMARY KEY,        -- order of acceptance
    id TEXT NOT NULL UNIQUE,
    prompt_id TEXT NOT NULL,
    number ANY NOT NULL,            -- integer: counted by the router; real: given by the client
    client_id TEXT,
    tenant TEXT NOT NULL,
    class TEXT NOT NULL,
    requested_number REAL,
    requested_front INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    score REAL NOT NULL,
    ageing REAL NOT NULL,
    queue_ms INTEGER,
    run_ms INTEGER,
    stall_ms INTEGER,
    outcome TEXT,                   -- null: not over
    ended_at INTEGER,
    ended_seq INTEGER,              -- order of ending, which is the order of the history; no gaps
    in_history INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX job_prompt ON job (prompt_id);
CREATE INDEX job_open ON job (seq) WHERE outcome IS NULL;
CREATE UNIQUE INDEX job_ended ON job (ended_seq);
CREATE INDEX job_history ON job (ended_seq) WHERE in_history = 1;
CREATE INDEX job_outcome ON job (outcome) WHERE outcome IS NOT NULL;

CREATE TABLE body (                 -- what was posted
    job INTEGER PRIMARY KEY,
    prompt TEXT NOT NULL,
    extra_data TEXT NOT NULL,
    rest TEXT NOT NULL,
    needs TEXT NOT NULL,
    sum BLOB NOT NULL
) STRICT;

CREATE TABLE history (              -- what came out
    job INTEGER PRIMARY KEY,
    outputs TEXT NOT NULL,
    status TEXT NOT NULL,
    meta TEXT NOT NULL,
    node_errors TEXT NOT NULL,
    files TEXT NOT NULL,
    sum BLOB NOT NULL
) STRICT;

CREATE TABLE attempt (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    upstream_id TEXT NOT NULL UNIQUE,
    instance TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    outcome TEXT,                   -- null: live
    ended_at INTEGER,
    detail TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE file (                 -- who wrote an output file last
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL,
    subfolder TEXT NOT NULL,
    kind TEXT NOT NULL,
    instance TEXT NOT NULL,
    UNIQUE (filename, subfolder, kind)
) STRICT;

CREATE TABLE decision (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    hook TEXT NOT NULL,
    policy TEXT NOT NULL,
    digest TEXT NOT NULL,
    fallback TEXT,
    took_us INTEGER NOT NULL,
    said TEXT NOT NULL,
    reason TEXT NOT NULL,
    job TEXT,
    did TEXT,
    instance TEXT
) STRICT;
CREATE INDEX decision_job ON decision (job) WHERE job IS NOT NULL;

CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (1, 0);
",
    r"
CREATE TABLE once (                 -- requests that clients may repeat
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    until INTEGER NOT NULL,
    prompt_id TEXT NOT NULL,
    number ANY NOT NULL,
    node_errors TEXT NOT NULL,
    UNIQUE (tenant, key)
) STRICT;
CREATE INDEX once_until ON once (until);
",
    r"
ALTER TABLE job ADD COLUMN place INTEGER NOT NULL DEFAULT 0;    -- an operator's: higher runs earlier, whatever the score
ALTER TABLE job ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;   -- the score is an operator's: no policy changes it
ALTER TABLE job ADD COLUMN workflow_id TEXT;
ALTER TABLE job ADD COLUMN began_at INTEGER;                    -- as the instance's messages say
ALTER TABLE job ADD COLUMN done_at INTEGER;
UPDATE job SET workflow_id = (SELECT json_extract(b.extra_data, '$.extra_pnginfo.workflow.id') FROM body b
    WHERE b.job = job.seq AND json_valid(b.extra_data)
        AND json_type(b.extra_data, '$.extra_pnginfo.workflow.id') = 'text');
UPDATE job SET
    began_at = (SELECT min(CAST(json_extract(m.value, '$[1].timestamp') AS INTEGER))
        FROM history h, json_each(iif(json_valid(h.status), h.status, '{}'), '$.messages') m
        WHERE h.job = job.seq AND json_extract(m.value, '$[0]') = 'execution_start'),
    done_at = (SELECT max(CAST(json_extract(m.value, '$[1].timestamp') AS INTEGER))
        FROM history h, json_each(iif(json_valid(h.status), h.status, '{}'), '$.messages') m
        WHERE h.job = job.seq
            AND json_extract(m.value, '$[0]') IN ('execution_success', 'execution_error', 'execution_interrupted'));

CREATE TABLE about (                -- of a job that is not over: its body without the large texts
    job INTEGER PRIMARY KEY,
    rest TEXT NOT NULL,
    needs TEXT NOT NULL,
    digest BLOB NOT NULL,           -- of the prompt
    bytes INTEGER NOT NULL,         -- of prompt and extra_data
    sum BLOB NOT NULL
) STRICT;
",
    // What a decision's question showed, as JSON.
    "ALTER TABLE decision ADD COLUMN seen TEXT;",
    r"
CREATE TABLE written (              -- who wrote an output file last on its instance
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL,
    subfolder TEXT NOT NULL,
    kind TEXT NOT NULL,
    instance TEXT NOT NULL,
    tenant TEXT NOT NULL,
    UNIQUE (filename, subfolder, kind, instance)
) STRICT;
INSERT INTO written SELECT seq, filename, subfolder, kind, instance, '' FROM file ORDER BY seq;
DROP TABLE file;
ALTER TABLE written RENAME TO file;
",
    r"
CREATE TABLE router (               -- whose ledger this is: random, for ever
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL
) STRICT;
INSERT INTO router VALUES (1, lower(hex(randomblob(16))));
",
    // Why it was told to stop, as JSON; null: it was not.
    "ALTER TABLE attempt ADD COLUMN stop TEXT;",
];

/// Room for the upper pages of the indices and what one query goes back to.
const READER_CACHE_KIB: i64 = 256;

/// Held while the ledger is open: two routers on one file would each believe that they own the queue.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "holds the lock until it is dropped")] File);

pub(super) fn lock(file: &Path) -> Result<Lock, OpenError> {
    let path = beside(file, ".lock");
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)
            .map_err(|e| OpenError::Folder { folder: folder.into(), reason: e.to_string() })?;
    }
    let lock = File::options().create(true).append(true).open(&path);
    let lock = lock.map_err(|e| OpenError::Folder { folder: path.clone(), reason: e.to_string() })?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { file: file.into() }),
        Err(fs::TryLockError::Error(e)) => Err(OpenError::Folder { folder: path, reason: e.to_string() }),
    }
}

/// `ledger.db` and `-wal` give `ledger.db-wal`.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The writer's connection, on a file that is migrated, sound and wholly on disk.
pub(super) fn open_writer(file: &Path, max_file_mib: Option<u32>) -> Result<Connection, OpenError> {
    wal::check(file)?;
    let mut conn = Connection::open(file).map_err(|e| OpenError::of(file, &e))?;
    prepare(&mut conn, file, max_file_mib).map_err(|e| match e {
        PrepareError::Open(e) => e,
        PrepareError::Sqlite(e) => OpenError::of(file, &e),
    })?;
    Ok(conn)
}

enum PrepareError {
    Open(OpenError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for PrepareError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(conn: &mut Connection, file: &Path, max_file_mib: Option<u32>) -> Result<(), PrepareError> {
    common(conn)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoints run on a thread of their own: a commit waits for one sync, never for a copy of the log.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    if let Some(mib) = max_file_mib {
        let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        conn.pragma_update(None, "max_page_count", i64::from(mib) * 1024 * 1024 / page.max(512))?;
    }
    check(conn, file)?;
    // It has read the whole file, and nothing of it is needed soon.
    conn.execute_batch("PRAGMA shrink_memory")?;
    // Rewrites what a failed sync may have left in memory only, before anything is appended behind it.
    let left: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if left != 0 {
        return Err(PrepareError::Open(OpenError::InUse { file: file.into() }));
    }
    migrate(conn, file)
}

fn check(conn: &Connection, file: &Path) -> Result<(), PrepareError> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(PrepareError::Open(OpenError::Damaged { file: file.into(), reason: verdict }))
}

fn migrate(conn: &mut Connection, file: &Path) -> Result<(), PrepareError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        let known = MIGRATIONS.len() as i64;
        return Err(PrepareError::Open(OpenError::Newer { file: file.into(), found, known }));
    }
    for (before, script) in MIGRATIONS.iter().enumerate().skip(done) {
        let tx = conn.transaction()?;
        tx.execute_batch(script)?;
        tx.pragma_update(None, "user_version", before as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

pub(super) fn open_checkpointer(file: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(file)?;
    common(&conn)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    Ok(conn)
}

/// A connection that only reads. Not opened read-only: the log's index must be writable.
pub(super) fn open_reader(file: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let conn = Connection::open_with_flags(file, flags)?;
        common(&conn)?;
        conn.pragma_update(None, "query_only", true)?;
        // The system keeps the file's pages too; each reader for itself would keep 2 MB of them.
        conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(conn)
    };
    open().map_err(|e: rusqlite::Error| LedgerError::reading(file, &e))
}

fn common(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "trusted_schema", false)
}
