//! Which name has which content, on disk: one JSON line for each change, in order.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::store::Digest;
use crate::model::job::{UploadRef, WallMs};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Named {
        file: UploadRef,
        content: Digest,
        /// How the instance it was read from tells whether it is still the same there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
        /// When it got this content.
        #[serde(default)]
        at: WallMs,
    },
    /// The name leads nowhere any more.
    Forgotten { file: UploadRef },
    /// It had to make room, or no name led to it.
    Dropped { content: Digest },
}

/// Lines that say nothing any more, before they are worth a new journal.
const SLACK: usize = 4_096;

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    lines: usize,
}

impl Journal {
    /// What an earlier run wrote. A line that cannot be read was cut off by a crash.
    pub(super) fn read(path: &Path) -> io::Result<Vec<Line>> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// A new journal with these lines, in the place of the old one.
    pub(super) fn replace(path: &Path, lines: impl Iterator<Item = Line>) -> io::Result<Self> {
        let new: PathBuf = path.with_extension("new");
        let (mut text, mut count) = (Vec::new(), 0);
        lines.for_each(|line| {
            text.extend(encoded(&line));
            count += 1;
        });
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&new, path)?;
        // Else what is appended from now on could be lost with the name of its file.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, lines: count })
    }

    /// Most of it is about names that have another content by now, or none.
    pub(super) fn is_long(&self, names: usize) -> bool {
        self.lines > 2 * names + SLACK
    }

    /// Durable when it returns.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let text: Vec<u8> = lines.iter().flat_map(encoded).collect();
        self.lines += lines.len();
        self.file.write_all(&text)?;
        self.file.sync_data()
    }
}

/// A line begins with a line break as well: after a torn line, the next one is whole again.
fn encoded(line: &Line) -> Vec<u8> {
    let mut text = vec![b'\n'];
    // Texts and digests always serialise.
    text.extend(serde_json::to_vec(line).unwrap_or_default());
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_says_the_same_name_again_and_again_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.jsonl");
        let file = UploadRef { kind: "input".into(), subfolder: String::new(), name: "canvas.png".into() };
        let content = Digest::try_from("0".repeat(64)).unwrap();
        let line = Line::Named { file, content, tag: None, at: 1 };
        let mut journal = Journal::replace(&path, std::iter::empty()).unwrap();
        journal.append(&vec![line.clone(); SLACK]).unwrap();
        assert!(!journal.is_long(1), "it is not worth the trouble yet");
        journal.append(&[line.clone(), line.clone(), line.clone()]).unwrap();
        assert!(journal.is_long(1) && !journal.is_long(SLACK));
        let journal = Journal::replace(&path, std::iter::once(line.clone())).unwrap();
        assert!(!journal.is_long(1));
        assert_eq!(Journal::read(&path).unwrap(), [line]);
    }
}
