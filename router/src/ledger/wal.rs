//! Damage in the middle of the write-ahead log. SQLite takes the first frame whose checksum is wrong for the torn end of the
//! log and drops what follows without a word, however often that was synced. Each transaction is on disk before the next
//! one is written here; so a frame that is wrong although a later transaction follows its own was damaged, not torn.
//!
//! The format is that of <https://www.sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::error::OpenError;
use super::schema::beside;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

/// # Errors
/// Where the log beside this database is damaged. A log that is only torn, or is not there, is no error.
pub(super) fn check(ledger: &Path) -> Result<(), OpenError> {
    let file = beside(ledger, "-wal");
    let Ok(log) = File::open(&file) else { return Ok(()) };
    // What cannot be read is SQLite's to complain about.
    let Ok(Some(damage)) = damage(BufReader::with_capacity(1 << 16, log)) else { return Ok(()) };
    Err(OpenError::Damaged { file, reason: damage })
}

/// Two running sums over 32-bit words, as SQLite makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum(u32, u32);

impl Sum {
    fn over(self, bytes: &[u8], big_endian: bool) -> Self {
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        bytes.chunks_exact(8).fold(self, |Self(a, b), pair| {
            let a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
            Self(a, b.wrapping_add(word(&pair[4..])).wrapping_add(a))
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn damage(mut log: impl Read) -> std::io::Result<Option<String>> {
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let (magic, page) = (number(&header, 0), number(&header, 8));
    let big_endian = magic & 1 == 1;
    let sum = Sum(0, 0).over(&header[..24], big_endian);
    let good = magic & !1 == MAGIC && sum == Sum(number(&header, 24), number(&header, 28));
    if !good || !PAGE_SIZES.contains(&page) {
        return headless(log);
    }
    let mut frame = vec![0; FRAME_HEADER + page as usize];
    let mut scan = Scan { sum, ..Scan::default() };
    while fill(&mut log, &mut frame)? {
        if frame[8..16] == header[16..24] {
            scan.frame(&frame, big_endian);
        } else {
            scan.stranger();
        }
    }
    Ok(scan.damaged.map(|at| {
        let byte = HEADER as u64 + at * frame.len() as u64;
        format!("frame {at} of its log, at byte {byte}, is not what was written, and later ones depend on it")
    }))
}

/// Of a log without a readable head nothing would be taken. Before the first sync it may be anything; a log with pages in
/// it that were synced twice has been damaged, but where one begins cannot be told, so any longer log counts.
fn headless(mut log: impl Read) -> std::io::Result<Option<String>> {
    const LONG: usize = 2 * (FRAME_HEADER + 4_096);
    let mut rest = vec![0; LONG];
    let long = fill(&mut log, &mut rest)? && rest.iter().any(|byte| *byte != 0);
    Ok(long.then(|| "the head of its log is not what was written".to_owned()))
}

#[derive(Debug)]
struct Scan {
    sum: Sum,
    /// Frames seen.
    count: u64,
    /// The first frame that is wrong.
    wrong: Option<u64>,
    /// The transaction of that frame is whole as far as its frames say.
    committed: bool,
    damaged: Option<u64>,
}

impl Default for Scan {
    fn default() -> Self {
        Self { sum: Sum(0, 0), count: 0, wrong: None, committed: false, damaged: None }
    }
}

impl Scan {
    /// A frame of this generation of the log.
    fn frame(&mut self, frame: &[u8], big_endian: bool) {
        if self.wrong.is_none() {
            let sum = self.sum.over(&frame[..8], big_endian).over(&frame[FRAME_HEADER..], big_endian);
            if sum == Sum(number(frame, 16), number(frame, 20)) {
                self.sum = sum;
            } else {
                self.wrong = Some(self.count);
            }
        } else if self.committed {
            self.damaged = self.wrong;
        }
        self.committed |= self.wrong.is_some() && number(frame, 4) != 0;
        self.count += 1;
    }

    /// A frame of an earlier generation, or one whose head is damaged.
    fn stranger(&mut self) {
        self.wrong = self.wrong.or(Some(self.count));
        self.count += 1;
    }
}

/// False at the end.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
