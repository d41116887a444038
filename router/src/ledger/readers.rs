//! Connections that read, on the runtime's blocking threads. A reader sees every commit that was acknowledged before
//! it began, and one unchanging state while it runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::LedgerError;
use super::read::ReadError;
use super::schema;

#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    /// Held only to take or return a connection.
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(file: PathBuf, readers: usize) -> Self {
        Self { file, idle: Mutex::new(Vec::new()), permits: Semaphore::new(readers.max(1)) }
    }

    pub(super) async fn read<T, F>(self: &Arc<Self>, query: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        let _permit = self.permits.acquire().await.map_err(|_| LedgerError::Closed)?;
        let readers = self.clone();
        let done = tokio::task::spawn_blocking(move || readers.run(query)).await;
        done.unwrap_or_else(|e| {
            Err(LedgerError::Read { file: self.file.clone(), reason: e.to_string().into() })
        })
    }

    fn run<T>(&self, query: impl FnOnce(&Connection) -> Result<T, ReadError>) -> Result<T, LedgerError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut conn = idle.map_or_else(|| schema::open_reader(&self.file), Ok)?;
        let answer = within_snapshot(&mut conn, query).map_err(|e| match e {
            ReadError::Sqlite(e) => LedgerError::reading(&self.file, &e),
            ReadError::Damaged(reason) => {
                LedgerError::Damaged { file: self.file.clone(), reason: reason.into() }
            }
        })?;
        // One that failed is not used again.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        Ok(answer)
    }

    /// Closes the connections that rest.
    pub(super) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn within_snapshot<T>(
    conn: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let tx = conn.transaction()?;
    let answer = query(&tx)?;
    tx.finish()?;
    Ok(answer)
}
