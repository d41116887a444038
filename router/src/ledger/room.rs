//! Room for the ends of jobs that run: new jobs and new attempts are refused while what is left is needed for those. On a
//! disk, the room is a file that is given up when the disk is full; in a file of limited size, it is its last pages.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::record::Record;
use super::schema::beside;
use super::writer::Waiting;

const RESERVE: usize = 4 << 20;
/// A reserve that was given up is looked for again at most this often.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Room {
    reserve: PathBuf,
    held: bool,
    tried: Option<Instant>,
    scarce: bool,
    /// Of the database file, if it is limited.
    max_bytes: Option<u64>,
}

impl Room {
    pub(super) fn new(ledger: &Path, max_file_mib: Option<u32>) -> Self {
        let max_bytes = max_file_mib.map(|mib| u64::from(mib) << 20);
        let reserve = beside(ledger, ".reserve");
        Self { reserve, held: false, tried: None, scarce: false, max_bytes }
    }

    /// May only what ends something be written?
    pub(super) fn is_scarce(&mut self, conn: &Connection) -> bool {
        let scarce = !self.take() || self.max_bytes.is_some_and(|max| used(conn) > max - headroom(max));
        let before = std::mem::replace(&mut self.scarce, scarce);
        let reserve = self.reserve.display();
        match (before, scarce) {
            (false, true) => {
                tracing::error!(%reserve, "no room: the ledger takes nothing new, what runs can end")
            }
            (true, false) => tracing::info!(%reserve, "there is room again, the ledger takes new jobs"),
            _ => {}
        }
        scarce
    }

    /// The disk is full: what must be written gets the reserve. False if it is gone already.
    pub(super) fn give_up(&mut self) -> bool {
        self.tried = Some(Instant::now());
        let held = std::mem::take(&mut self.held);
        if held && let Err(error) = fs::remove_file(&self.reserve) {
            tracing::warn!(file = %self.reserve.display(), %error, "the ledger's reserve cannot be given up");
        }
        held
    }

    fn take(&mut self) -> bool {
        if self.held || self.tried.is_some_and(|at| at.elapsed() < AGAIN) {
            return self.held;
        }
        self.held = allocate(&self.reserve, self.tried.is_some()).is_ok();
        self.tried = Some(Instant::now());
        if !self.held {
            // Half of it would be of use to nobody.
            let _ = fs::remove_file(&self.reserve);
        }
        self.held
    }
}

/// Real bytes: a hole is no room. `again`: there was none before, so more than the reserve alone must fit.
fn allocate(reserve: &Path, again: bool) -> std::io::Result<()> {
    if fs::metadata(reserve).is_ok_and(|meta| meta.len() == RESERVE as u64) {
        return Ok(());
    }
    let mut file = fs::File::create(reserve)?;
    let block = [0xA5; 64 << 10];
    for _ in 0..RESERVE / block.len() * if again { 2 } else { 1 } {
        file.write_all(&block)?;
    }
    file.set_len(RESERVE as u64)?;
    file.sync_data()
}

/// Of a file of limited size, what only ends may use.
fn headroom(max: u64) -> u64 {
    (max / 4).min(RESERVE as u64)
}

fn used(conn: &Connection) -> u64 {
    let number =
        |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap_or(0) as u64;
    number("page_count").saturating_sub(number("freelist_count")) * number("page_size")
}

/// Does it begin something that will need more room later? What ends or removes something does not.
pub(super) fn begins(waiting: &Waiting) -> bool {
    let begins = |record: &Record| matches!(record, Record::Accepted(_) | Record::Started { .. });
    waiting.ack.is_none() || waiting.records.iter().any(begins)
}
