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
    /// It had to make room.
    Dropped { content: Digest },
}

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
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
        let mut text = Vec::new();
        lines.for_each(|line| text.extend(encoded(&line)));
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&new, path)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)? })
    }

    /// Durable when it returns.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let text: Vec<u8> = lines.iter().flat_map(encoded).collect();
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
