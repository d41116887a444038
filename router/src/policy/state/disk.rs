//! The file behind the spaces. One thread writes what has changed since it last did, a moment after it changed, so that a
//! decision never waits for a disk and a counter that moves a thousand times a second is written a few times.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, params};

use super::{Entry, Inner};
use crate::metrics;

/// Changes within this time share a transaction. It is also what a crash may lose.
const GATHER: Duration = Duration::from_millis(200);
/// After a failed write.
const AGAIN: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS entry (
    policy TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    until INTEGER,                  -- milliseconds since the Unix epoch; null: for ever
    PRIMARY KEY (policy, key)
) STRICT, WITHOUT ROWID;";

#[derive(Debug)]
pub(super) enum Wake {
    Changed,
    Flush(SyncSender<()>),
}

/// One changed key; none is deleted.
pub(super) type Changed = (String, String, Option<Entry>);

/// Opens the file, or sets one aside that is damaged and begins anew: a broken memory must not keep the router from
/// starting.
pub(super) fn open(file: &Path) -> rusqlite::Result<Connection> {
    match connect(file) {
        Err(error) if is_damage(&error) => {
            let aside = aside(file);
            let moved = fs::rename(file, &aside);
            tracing::error!(
                file = %file.display(), aside = %aside.display(), moved = moved.is_ok(), %error,
                "policy state is damaged, starting without it"
            );
            connect(file)
        }
        whole_or_out_of_reach => whole_or_out_of_reach,
    }
}

/// A full disk, a lock or a missing right says nothing against what is in the file.
fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(damaged, Some(verdict)));
    }
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<(String, String, Entry)>> {
    let mut rows = connection.prepare("SELECT policy, key, value, until FROM entry")?;
    let rows = rows.query_map([], |row| {
        let until: Option<i64> = row.get(3)?;
        let until = until.map(|until| until.max(0) as u64);
        Ok((row.get(0)?, row.get(1)?, Entry { value: row.get(2)?, until }))
    })?;
    rows.collect()
}

/// Writes until the spaces are gone.
pub(super) fn start(connection: Connection, spaces: Weak<Inner>) -> std::io::Result<SyncSender<Wake>> {
    // One place: a change that finds it taken is written along with the one that took it.
    let (wake, wakes) = sync_channel(1);
    let thread = std::thread::Builder::new().name("policy-state".to_owned());
    thread.spawn(move || Writer { connection, spaces, failing: false }.run(&wakes))?;
    Ok(wake)
}

struct Writer {
    connection: Connection,
    spaces: Weak<Inner>,
    failing: bool,
}

impl Writer {
    fn run(mut self, wakes: &Receiver<Wake>) {
        let mut left = false;
        loop {
            let wake = match wakes.recv_timeout(if left { AGAIN } else { Duration::MAX }) {
                Ok(wake) => wake,
                Err(RecvTimeoutError::Timeout) => Wake::Changed,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let waiting = match wake {
                Wake::Changed => gather(wakes),
                Wake::Flush(done) => Some(done),
            };
            left = !self.write();
            if let Some(done) = waiting {
                let _ = done.send(());
            }
        }
    }

    /// What has changed by now. What cannot be written stays to be written.
    fn write(&mut self) -> bool {
        let Some(spaces) = self.spaces.upgrade() else { return true };
        let changed = spaces.take_dirty();
        match store(&mut self.connection, &changed) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("policy state is written again");
                }
                true
            }
            Err(error) => {
                metrics::policy_state_failed();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "policy state cannot be written, trying again");
                }
                spaces.mark_dirty(&changed);
                false
            }
        }
    }
}

/// Lets more changes come in; a flush ends that.
fn gather(wakes: &Receiver<Wake>) -> Option<SyncSender<()>> {
    let until = Instant::now() + GATHER;
    loop {
        match wakes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Wake::Changed) => {}
            Ok(Wake::Flush(done)) => return Some(done),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn store(connection: &mut Connection, changed: &[Changed]) -> rusqlite::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for (policy, key, entry) in changed {
        match entry {
            Some(entry) => {
                let until = entry.until.map(|until| i64::try_from(until).unwrap_or(i64::MAX));
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO entry (policy, key, value, until) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![policy, key, entry.value, until])?;
            }
            None => {
                transaction
                    .prepare_cached("DELETE FROM entry WHERE policy = ?1 AND key = ?2")?
                    .execute(params![policy, key])?;
            }
        }
    }
    transaction.commit()
}
