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
    let mut lines = std::io::BufReader::with_capacity(1 << 20, file);
    let (mut reader, mut batch) = (Reader::default(), Vec::with_capacity(BATCH));
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if lines.read_until(b'\n', &mut bytes).map_err(|error| ToolError::file(path, &error))? == 0 {
            break;
        }
        let (asked, said) = match reader.read(&String::from_utf8_lossy(&bytes)) {
            Ok(read) => read,
            // The router died while it wrote the last one.
            Err(error) if error.is_eof() && !bytes.ends_with(b"\n") => break,
            Err(error) => {
                return Err(ToolError::Log { path: path.to_owned(), line, message: error.to_string() });
            }
        };
        batch.push(Recorded { line, asked, said });
        if batch.len() == BATCH && batches.send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    let _ = batches.send(Ok(batch));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::recording::Writer;
    use crate::policy::sample;

    #[test]
    fn a_log_that_was_cut_off_is_read_up_to_there_and_one_that_is_broken_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions-000001.jsonl");
        let (mut writer, mut text) = (Writer::default(), String::new());
        for question in sample::questions(1, 2) {
            text.push_str(&writer.line(&sample::ask(1, 2, question), &[]));
            text.push('\n');
        }
        let count = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let mut count = 0;
            read(std::slice::from_ref(&path), |_| count += 1).map(|()| count)
        };
        let all = count(&text).unwrap();
        assert_eq!(all, sample::questions(1, 2).len());
        assert_eq!(count(text.trim_end()).unwrap(), all, "whole but for its line's end");
        assert_eq!(count(&text[..text.len() - 9]).unwrap(), all - 1);
        let broken = count(&format!("{{\n{text}")).unwrap_err().to_string();
        assert!(broken.contains("line 1"), "{broken}");
    }
}
