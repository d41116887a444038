//! Recorded decisions, read and understood on a thread of their own while others decide about the ones before.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::model::decision::{Consultation, Hook};
use crate::policy::recording::{Reader, Saying};
use crate::policy::tools::ToolError;

/// Lines handed over at once, and how many such batches may be ahead.
const BATCH: usize = 64;
const AHEAD: usize = 16;

/// One question that was put to the policy in service.
#[derive(Debug)]
pub struct Recorded {
    /// Of its log.
    pub line: usize,
    pub asked: Consultation,
    pub(super) said: Vec<Saying>,
}

impl Recorded {
    /// What the hook was taken to say in service, in one line.
    pub fn said(&self, hook: Hook) -> Option<&str> {
        self.said.iter().find(|saying| saying.hook == hook).map(|saying| saying.said.as_str())
    }
}

type Batch = Result<Vec<Recorded>, ToolError>;

pub(super) fn read(logs: &[PathBuf], mut each: impl FnMut(&Recorded)) -> Result<(), ToolError> {
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(AHEAD);
        scope.spawn(move || {
            for path in logs {
                if let Err(error) = send(path, &sender) {
                    let _ = sender.send(Err(error));
                    return;
                }
            }
        });
        for batch in batches {
            batch?.iter().for_each(&mut each);
        }
        Ok(())
    })
}

/// Until the log ends or nobody takes any more.
fn send(path: &Path, batches: &SyncSender<Batch>) -> Result<(), ToolError> {
    let file = std::fs::File::open(path).map_err(|error| ToolError::file(path, &error))?;
    let (mut reader, mut batch) = (Reader::default(), Vec::with_capacity(BATCH));
    for (n, line) in std::io::BufReader::with_capacity(1 << 20, file).lines().enumerate() {
        let line = line.map_err(|error| ToolError::file(path, &error))?;
        let (asked, said) = reader.read(&line).map_err(|error| ToolError::Log {
            path: path.to_owned(),
            line: n + 1,
            message: error.to_string(),
        })?;
        batch.push(Recorded { line: n + 1, asked, said });
        if batch.len() == BATCH && batches.send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    let _ = batches.send(Ok(batch));
    Ok(())
}
