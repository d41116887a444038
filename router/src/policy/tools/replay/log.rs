//! Recorded decisions, read and understood on a thread of their own while others decide about the ones before.

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::model::decision::{Consultation, Hook};
use crate::model::view::Totals;
use crate::policy::recording::{Reader, Saying};
use crate::policy::tools::ToolError;

/// Lines handed over at once, unless they have so many bytes before, and how many such batches may be ahead.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
const AHEAD: usize = 16;

/// No recording has a longer line; a file that does is something else, and maybe without end.
const LONGEST_LINE: u64 = 256 << 20;

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

/// Of each index up to that of a line's client: [`Reader`] has a row for it.
const CLIENT_BYTES: usize = size_of::<(Arc<str>, Totals)>();

type Batch = Result<Vec<Recorded>, ToolError>;

pub(super) fn read(logs: &[PathBuf], mut each: impl FnMut(&Recorded)) -> Result<(), ToolError> {
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(AHEAD);
        scope.spawn(move || {
            for path in logs {
                if let Err(error) = send(path, LONGEST_LINE, &sender) {
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
fn send(path: &Path, longest: u64, batches: &SyncSender<Batch>) -> Result<(), ToolError> {
    let file = std::fs::File::open(path).map_err(|error| ToolError::file(path, &error))?;
    let mut lines = std::io::BufReader::with_capacity(1 << 20, file);
    let (mut reader, mut batch, mut weight) = (Reader::default(), Vec::with_capacity(BATCH), 0);
    let mut bytes = Vec::new();
    for line in 1.. {
        let wrong = |message| ToolError::Log { path: path.to_owned(), line, message };
        bytes.clear();
        let mut lines = (&mut lines).take(longest);
        if lines.read_until(b'\n', &mut bytes).map_err(|error| ToolError::file(path, &error))? == 0 {
            break;
        }
        if lines.limit() == 0 && !bytes.ends_with(b"\n") {
            return Err(wrong(format!("it does not end within {longest} bytes, as lines of a recording do")));
        }
        let (asked, said) = match reader.read(&String::from_utf8_lossy(&bytes)) {
            Ok(read) => read,
            // The router died while it wrote the last one.
            Err(error) if error.is_eof() && !bytes.ends_with(b"\n") => break,
            Err(error) => return Err(wrong(error.to_string())),
        };
        weight += bytes.len() + asked.context.clients.len() * CLIENT_BYTES;
        batch.push(Recorded { line, asked, said });
        if batch.len() == BATCH || weight >= BATCH_BYTES {
            weight = 0;
            if batches.send(Ok(std::mem::take(&mut batch))).is_err() {
                return Ok(());
            }
        }
    }
    let _ = batches.send(Ok(batch));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::Question;
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

    #[test]
    fn a_file_without_end_is_not_read_into_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zeros");
        std::fs::write(&path, vec![0; 1_000]).unwrap();
        let (sender, _taken) = sync_channel(1);
        let error = send(&path, 999, &sender).unwrap_err().to_string();
        assert!(error.contains("zeros, line 1: it does not end within 999 bytes"), "{error}");
        // Just as long is not too long.
        let error = send(&path, 1_001, &sender).unwrap_err().to_string();
        assert!(error.contains("line 1: expected value"), "{error}");
    }

    #[test]
    fn what_is_ahead_is_bounded_by_what_it_weighs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions-000001.jsonl");
        let mut asked = sample::ask(1, 2, sample::question(1, 0, 2));
        let far = BATCH_BYTES / CLIENT_BYTES;
        let Question::Reassess { job } = &mut asked.question else { panic!("reassess") };
        job.client = far as u32;
        let names = (0..=far).map(|_| ("c".into(), Totals::default()));
        asked.context.clients = Arc::new(names.collect());
        let line = Writer::default().line(&asked, &[]);
        assert!(line.len() < 20_000, "{}", line.len());
        std::fs::write(&path, format!("{line}\n{line}\n{line}\n")).unwrap();
        let (sender, batches) = sync_channel(AHEAD);
        send(&path, LONGEST_LINE, &sender).unwrap();
        drop(sender);
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.unwrap().len()).collect();
        assert_eq!(sizes, [1, 1, 1, 0], "one line says little and is large when it is read");
    }
}
