//! The contents on disk and the names they have.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::Config;
use super::journal::{Journal, Line};
use crate::model::job::UploadRef;

/// SHA-256 of a content; 64 hex digits when written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub(super) [u8; 32]);

/// A content. As long as somebody holds it, it is not dropped.
#[derive(Debug)]
pub(super) struct Content {
    digest: Digest,
    bytes: u64,
    path: PathBuf,
    used: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    max_bytes: u64,
    state: Mutex<State>,
    /// Locked before `state`, and over the write to disk, so that the journal has the order of the changes.
    journal: Mutex<Journal>,
    uses: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<UploadRef, Digest>,
    contents: HashMap<Digest, Arc<Content>>,
}

impl Store {
    pub(super) fn open(config: &Config) -> io::Result<Self> {
        let (contents, incoming) = (config.dir.join("contents"), config.dir.join("incoming"));
        std::fs::create_dir_all(&contents)?;
        // What an earlier run did not finish.
        let _ = std::fs::remove_dir_all(&incoming);
        std::fs::create_dir_all(&incoming)?;
        let path = config.dir.join("names.jsonl");
        let state = restore(&contents, Journal::read(&path)?)?;
        let named =
            state.names.iter().map(|(file, content)| Line::Named { file: file.clone(), content: *content });
        let journal = Journal::replace(&path, named)?;
        let uses = AtomicU64::new(state.contents.len() as u64);
        let (state, journal) = (Mutex::new(state), Mutex::new(journal));
        Ok(Self { dir: config.dir.clone(), max_bytes: config.max_bytes, state, journal, uses })
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.dir.join("incoming")
    }

    /// The content of a name, and a sign that it is of use.
    pub(super) fn find(&self, file: &UploadRef) -> Option<Arc<Content>> {
        let state = self.state();
        let content = state.contents.get(state.names.get(file)?)?;
        self.touch(content);
        Some(content.clone())
    }

    /// Gives a name its content, which lies complete at `from`. Blocks for a disk sync.
    pub(super) fn keep(&self, file: UploadRef, digest: Digest, bytes: u64, from: TempPath) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.state().contents.get(&digest).cloned();
        let content = match known {
            Some(content) => content,
            None => self.adopt(digest, bytes, from)?,
        };
        self.touch(&content);
        let mut lines = vec![Line::Named { file: file.clone(), content: digest }];
        let dropped = {
            let mut state = self.state();
            state.contents.insert(digest, content);
            state.names.insert(file, digest);
            state.make_room(self.max_bytes)
        };
        lines.extend(dropped.iter().map(|content| Line::Dropped { content: content.digest }));
        journal.append(&lines)?;
        for content in dropped {
            tracing::info!(content = %content.digest, bytes = content.bytes, "an upload that was long unused made room");
            std::fs::remove_file(&content.path)?;
        }
        Ok(())
    }

    fn adopt(&self, digest: Digest, bytes: u64, from: TempPath) -> io::Result<Arc<Content>> {
        let dir = self.dir.join("contents");
        let path = dir.join(digest.to_string());
        from.persist(&path).map_err(|error| error.error)?;
        std::fs::File::open(&dir)?.sync_all()?;
        Ok(Arc::new(Content { digest, bytes, path, used: AtomicU64::new(0) }))
    }

    fn touch(&self, content: &Content) {
        content.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the longest unused contents that nobody holds, until the rest fits.
    fn make_room(&mut self, max_bytes: u64) -> Vec<Arc<Content>> {
        let mut dropped = Vec::new();
        let mut total: u64 = self.contents.values().map(|content| content.bytes).sum();
        while total > max_bytes {
            let newest = self.contents.values().map(|content| content.used()).max();
            let idle = self
                .contents
                .values()
                .filter(|content| Arc::strong_count(content) == 1 && Some(content.used()) != newest);
            let Some(oldest) = idle.min_by_key(|content| content.used()).map(|content| content.digest) else {
                break;
            };
            self.names.retain(|_, digest| *digest != oldest);
            if let Some(content) = self.contents.remove(&oldest) {
                total -= content.bytes;
                dropped.push(content);
            }
        }
        dropped
    }
}

impl Content {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// What the journal says and the disk confirms. Files that no name leads to are removed.
fn restore(dir: &Path, lines: Vec<Line>) -> io::Result<State> {
    let mut names = HashMap::new();
    for line in lines {
        match line {
            Line::Named { file, content } => {
                names.insert(file, content);
            }
            Line::Dropped { content } => names.retain(|_, digest| *digest != content),
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let digest = entry.file_name().into_string().ok().and_then(|name| Digest::try_from(name).ok());
        match digest.filter(|digest| names.values().any(|named| named == digest)) {
            Some(digest) => found.push((digest, entry.metadata()?, entry.path())),
            None => std::fs::remove_file(entry.path())?,
        }
    }
    // The order of use is not kept over a restart; the order of arrival is the next best.
    found.sort_by_key(|(_, metadata, _)| metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    let contents = found.into_iter().zip(0..).map(|((digest, metadata, path), used)| {
        (digest, Arc::new(Content { digest, bytes: metadata.len(), path, used: AtomicU64::new(used) }))
    });
    let contents: HashMap<_, _> = contents.collect();
    names.retain(|_, digest| contents.contains_key(digest));
    Ok(State { names, contents })
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("not 64 hex digits");
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| "not text")?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| "not hex")?;
        }
        Ok(Self(digest))
    }
}
