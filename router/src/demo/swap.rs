//! The policy file's part in the show: first a broken file, which must change nothing, then another shipped policy.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::board::Counts;
use crate::policy::Shipped;

/// Shares of all prompts that are over when each file is written.
const BROKEN_AT: f64 = 0.2;
const NEXT_AT: f64 = 0.45;

#[derive(Debug)]
pub(super) struct Swap {
    file: PathBuf,
    next: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Broken,
    Next,
    Over,
}

impl Swap {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, next: Step::Broken }
    }

    /// The policy that is to serve in the end.
    pub(super) fn last(&self) -> Shipped {
        Shipped::FairShare
    }

    /// Writes the next file when its time has come, and says so.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn advance(&mut self, counts: &Counts) -> io::Result<Option<String>> {
        let share = (counts.done + counts.failed) as f64 / counts.planned.max(1) as f64;
        match self.next {
            Step::Broken if share >= BROKEN_AT => {
                self.next = Step::Next;
                self.write(b"this is no component")?;
                Ok(Some("a broken file was dropped over policy.wasm".to_owned()))
            }
            Step::Next if share >= NEXT_AT => {
                self.next = Step::Over;
                let other = self.last();
                self.write(other.bytes())?;
                Ok(Some(format!("{} was dropped over policy.wasm", other.name())))
            }
            _ => Ok(None),
        }
    }

    /// Beside it, then renamed over it: nobody sees half a file.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let part = self.file.with_extension("part");
        fs::write(&part, bytes)?;
        fs::rename(part, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_written_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.wasm");
        let mut swap = Swap::new(file.clone());
        let mut at = |done| swap.advance(&Counts { planned: 100, done, ..Counts::default() }).unwrap();
        assert_eq!(at(10), None);
        assert!(at(90).is_some());
        assert_eq!(fs::read(&file).unwrap(), b"this is no component");
        assert!(at(90).is_some());
        assert_eq!(fs::read(&file).unwrap(), Shipped::FairShare.bytes());
        assert_eq!(at(100), None);
    }
}
