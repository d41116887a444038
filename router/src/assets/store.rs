//! The contents on disk and the names they have.

mod forget;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::Bounds;
use super::journal::{Journal, Line};
use super::kept::Kept;
use crate::clock::Clock;
use crate::model::job::{UploadRef, WallMs};
pub use forget::Held;

/// Names kept, and so contents: clients may name one small content a million times. The oldest go first.
const MOST_NAMES: usize = 200_000;

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

pub(super) struct Store {
    bounds: Bounds,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Locked before `state`, and over the write to disk, so that the journal has the order of the changes.
    journal: Mutex<Journal>,
    uses: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<UploadRef, Entry>,
    contents: HashMap<Digest, Arc<Content>>,
}

#[derive(Debug, Clone)]
struct Entry {
    content: Digest,
    tag: Option<String>,
    at: WallMs,
}

/// A content that lies complete on disk, on its way into the store.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) path: TempPath,
}

/// The journal's file.
const NAMES: &str = "names.jsonl";

impl Store {
    pub(super) fn open(bounds: Bounds, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (contents, incoming) = (bounds.dir.join("contents"), bounds.dir.join("incoming"));
        std::fs::create_dir_all(&contents)?;
        // What an earlier run did not finish.
        let _ = std::fs::remove_dir_all(&incoming);
        std::fs::create_dir_all(&incoming)?;
        let path = bounds.dir.join(NAMES);
        let state = restore(&contents, Journal::read(&path)?)?;
        let journal = Journal::replace(&path, state.lines())?;
        let uses = AtomicU64::new(state.contents.len() as u64);
        Ok(Self { bounds, clock, state: Mutex::new(state), journal: Mutex::new(journal), uses })
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.bounds.max_bytes
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.bounds.dir.join("incoming")
    }

    /// The content of a name, and a sign that it is of use.
    pub(super) fn find(&self, file: &UploadRef) -> Option<Kept> {
        let state = self.state();
        let entry = state.names.get(file).filter(|entry| !self.is_old(entry))?;
        let content = state.contents.get(&entry.content)?;
        self.touch(content);
        Some(Kept::new(content.clone(), entry.tag.clone(), entry.at))
    }

    /// Gives a name its content. Blocks for a disk sync.
    pub(super) fn keep(&self, file: &UploadRef, arrival: Arrival, tag: Option<String>) -> io::Result<()> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_in(journal, file, arrival, tag)
    }

    /// Gives a name its content, unless it has another already; then the new content is given back.
    pub(super) fn claim(&self, file: &UploadRef, arrival: Arrival) -> io::Result<Result<(), Arrival>> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.find(file).is_some_and(|kept| kept.digest() != arrival.digest);
        if taken {
            return Ok(Err(arrival));
        }
        self.keep_in(journal, file, arrival, None).map(Ok)
    }

    fn keep_in(
        &self,
        mut journal: MutexGuard<'_, Journal>,
        file: &UploadRef,
        arrival: Arrival,
        tag: Option<String>,
    ) -> io::Result<()> {
        let digest = arrival.digest;
        let known = self.state().contents.get(&digest).cloned();
        let content = match known {
            Some(content) => content,
            None => self.adopt(arrival)?,
        };
        self.touch(&content);
        let entry = Entry { content: digest, tag, at: self.clock.now().wall };
        let lines = vec![entry.line(file)];
        let (dropped, forgotten) = {
            let mut state = self.state();
            state.contents.insert(digest, content);
            state.names.insert(file.clone(), entry);
            state.names.retain(|_, entry| !self.is_old(entry));
            let forgotten = state.forget_names(MOST_NAMES);
            (state.make_room(self.bounds.max_bytes), forgotten)
        };
        self.settle(&mut journal, lines, dropped, forgotten)
    }

    /// Makes a change durable, then takes the contents that nothing leads to any more off the disk.
    fn settle(
        &self,
        journal: &mut Journal,
        mut lines: Vec<Line>,
        dropped: Vec<Arc<Content>>,
        forgotten: bool,
    ) -> io::Result<()> {
        lines.extend(dropped.iter().map(|content| Line::Dropped { content: content.digest }));
        if !lines.is_empty() {
            journal.append(&lines)?;
        }
        // It is kept, whatever becomes of the tidying.
        if let Err(error) = self.shorten(journal, forgotten) {
            tracing::warn!(dir = %self.bounds.dir.display(), %error, "the journal of kept files could not be written anew");
        }
        for content in dropped {
            tracing::info!(content = %content.digest, bytes = content.bytes, "a kept file was dropped");
            if let Err(error) = std::fs::remove_file(&content.path) {
                tracing::warn!(file = %content.path.display(), %error, "a file that nobody needs could not be removed");
            }
        }
        Ok(())
    }

    /// A journal that says much that is over, or names that were forgotten, is written anew.
    fn shorten(&self, journal: &mut Journal, forgotten: bool) -> io::Result<()> {
        let lines: Vec<Line> = {
            let state = self.state();
            if !forgotten && !journal.is_long(state.names.len()) {
                return Ok(());
            }
            state.lines().collect()
        };
        *journal = Journal::replace(&self.bounds.dir.join(NAMES), lines.into_iter())?;
        Ok(())
    }

    fn is_old(&self, entry: &Entry) -> bool {
        self.bounds.max_age_ms.is_some_and(|age| entry.at.saturating_add(age) < self.clock.now().wall)
    }

    fn adopt(&self, arrival: Arrival) -> io::Result<Arc<Content>> {
        let dir = self.bounds.dir.join("contents");
        let path = dir.join(arrival.digest.to_string());
        arrival.path.persist(&path).map_err(|error| error.error)?;
        std::fs::File::open(&dir)?.sync_all()?;
        let (digest, bytes) = (arrival.digest, arrival.bytes);
        Ok(Arc::new(Content { digest, bytes, path, used: AtomicU64::new(0) }))
    }

    fn touch(&self, content: &Content) {
        content.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Entry {
    fn line(&self, file: &UploadRef) -> Line {
        Line::Named { file: file.clone(), content: self.content, tag: self.tag.clone(), at: self.at }
    }
}

impl State {
    /// What a journal says of it.
    fn lines(&self) -> impl Iterator<Item = Line> {
        self.names.iter().map(|(file, entry)| entry.line(file))
    }

    /// The oldest, an eighth more than there are too many, so that this is seldom done.
    fn forget_names(&mut self, most: usize) -> bool {
        if self.names.len() <= most {
            return false;
        }
        let mut ages: Vec<WallMs> = self.names.values().map(|entry| entry.at).collect();
        ages.sort_unstable();
        let over = self.names.len() - most + most / 8;
        let until = ages[over.min(ages.len()) - 1];
        let mut left = over;
        self.names.retain(|_, entry| {
            let goes = left > 0 && entry.at <= until;
            left -= usize::from(goes);
            !goes
        });
        true
    }

    /// Forgets what has no name any more and the longest unused contents, until the rest fits; never what somebody holds.
    fn make_room(&mut self, max_bytes: u64) -> Vec<Arc<Content>> {
        let named: std::collections::HashSet<Digest> =
            self.names.values().map(|entry| entry.content).collect();
        let nameless =
            |content: &Arc<Content>| Arc::strong_count(content) == 1 && !named.contains(&content.digest);
        let mut dropped: Vec<_> =
            self.contents.values().filter(|content| nameless(content)).cloned().collect();
        dropped.iter().for_each(|content| drop(self.contents.remove(&content.digest)));
        let mut total: u64 = self.contents.values().map(|content| content.bytes).sum();
        if total <= max_bytes {
            return dropped;
        }
        let newest = self.contents.values().map(|content| content.used()).max();
        let idle =
            |content: &&Arc<Content>| Arc::strong_count(content) == 1 && Some(content.used()) != newest;
        let mut idle: Vec<_> =
            self.contents.values().filter(idle).map(|c| (c.used(), c.digest, c.bytes)).collect();
        idle.sort_unstable();
        let mut gone = std::collections::HashSet::new();
        for (_, digest, bytes) in idle {
            if total <= max_bytes {
                break;
            }
            total -= bytes;
            gone.insert(digest);
        }
        self.names.retain(|_, entry| !gone.contains(&entry.content));
        dropped.extend(gone.iter().filter_map(|digest| self.contents.remove(digest)));
        dropped
    }
}

impl Content {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
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
            Line::Named { file, content, tag, at } => {
                names.insert(file, Entry { content, tag, at });
            }
            Line::Forgotten { file } => drop(names.remove(&file)),
            Line::Dropped { content } => names.retain(|_, entry: &mut Entry| entry.content != content),
        }
    }
    let named: std::collections::HashSet<Digest> = names.values().map(|entry| entry.content).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let digest = entry.file_name().into_string().ok().and_then(|name| Digest::try_from(name).ok());
        match digest.filter(|digest| named.contains(digest)) {
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
    names.retain(|_, entry| contents.contains_key(&entry.content));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> UploadRef {
        UploadRef { kind: "input".into(), subfolder: String::new(), name: name.into() }
    }

    #[test]
    fn the_oldest_names_are_forgotten_beyond_so_many() {
        let mut state = State::default();
        for at in 0..100 {
            let entry = Entry { content: Digest([0; 32]), tag: None, at };
            state.names.insert(file(&at.to_string()), entry);
        }
        assert!(!state.forget_names(100) && state.names.len() == 100);
        assert!(state.forget_names(80));
        assert_eq!(state.names.len(), 70, "those beyond 80, and an eighth of 80 more");
        assert!((30..100).all(|at: u64| state.names.contains_key(&file(&at.to_string()))));
    }

    #[test]
    fn what_makes_room_are_the_longest_unused_in_one_go() {
        let mut state = State::default();
        for used in 0..1_000_u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&used.to_le_bytes());
            let (digest, path) = (Digest(digest), PathBuf::new());
            let content = Content { digest, bytes: 10, path, used: AtomicU64::new(used) };
            state.contents.insert(digest, Arc::new(content));
            state.names.insert(file(&used.to_string()), Entry { content: digest, tag: None, at: 0 });
        }
        let held = state.contents.values().find(|content| content.used() == 0).cloned();
        let dropped = state.make_room(4_000);
        assert_eq!((dropped.len(), state.contents.len(), state.names.len()), (600, 400, 400));
        assert!(dropped.iter().all(|content| (1..=600).contains(&content.used())));
        drop(held);
    }
}
