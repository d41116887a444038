//! What policies remember. Owns each policy's keys while the router runs; a guest reads and changes them through a
//! [`Space`] and never waits for a disk.
//!
//! A call's changes are kept apart ([`Changes`]) and applied when its answer was found good, so that a call which traps
//! half way leaves nothing behind. What was applied is on disk a moment later.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::job::WallMs;
use disk::{Changed, Wake};

const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 64 * 1024;
/// Counted for each key on top of its texts: what the map and the row on disk need around them.
const ENTRY_BYTES: usize = 64;

/// The `[policy.state]` table: what one policy may remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateLimits {
    pub keys: u32,
    pub kib: u32,
}

impl Default for StateLimits {
    fn default() -> Self {
        Self { keys: 10_000, kib: 4 * 1024 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub value: String,
    /// When it is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<WallMs>,
}

impl Entry {
    fn lives(&self, now: WallMs) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Why a key was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    TooLong,
    NotANumber,
}

impl Refused {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the policy holds as many keys or bytes as it may",
            Self::TooLong => "a key has 1 to 256 bytes, a value at most 64 KiB",
            Self::NotANumber => "it is no number",
        }
    }
}

/// What one call has changed so far. None: deleted.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<String, Option<Entry>>);

impl Changes {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Every policy's keys, by the policy's name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spaces(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    limits: StateLimits,
    spaces: Mutex<BTreeMap<String, Space>>,
    /// Set once the file is open.
    wake: OnceLock<SyncSender<Wake>>,
}

/// What one policy holds, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    pub policy: String,
    pub keys: usize,
    pub bytes: usize,
    pub limits: StateLimits,
}

impl Spaces {
    /// In memory only.
    pub(crate) fn new(limits: StateLimits) -> Self {
        Self(Arc::new(Inner { limits, ..Inner::default() }))
    }

    /// With everything the file holds; what changes is written to it.
    pub(crate) fn open(limits: StateLimits, file: &Path) -> Result<Self, String> {
        let spaces = Self::new(limits);
        let connection = disk::open(file).map_err(|error| error.to_string())?;
        let entries = disk::read(&connection).map_err(|error| error.to_string())?;
        let wake = disk::start(connection, Arc::downgrade(&spaces.0)).map_err(|error| error.to_string())?;
        let _ = spaces.0.wake.set(wake);
        for (policy, key, entry) in entries {
            spaces.of(&policy).kept().put(key, Some(entry));
        }
        Ok(spaces)
    }

    pub(crate) fn of(&self, policy: &str) -> Space {
        let mut spaces = self.0.all();
        let new = || Space::with(self.0.limits, Kept::default(), self.0.wake.get().cloned());
        spaces.entry(policy.to_owned()).or_insert_with(new).clone()
    }

    pub(crate) fn held(&self) -> Vec<Held> {
        let held = |(policy, space): (&String, &Space)| {
            let kept = space.kept();
            let (keys, bytes) = (kept.entries.len(), kept.bytes);
            Held { policy: policy.clone(), keys, bytes, limits: self.0.limits }
        };
        self.0.all().iter().map(held).filter(|held| held.keys > 0).collect()
    }

    /// Waits until everything applied so far is on disk, or could not be written, but no longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let Some(wake) = self.0.wake.get() else { return };
        let (done, written) = sync_channel(1);
        if wake.send(Wake::Flush(done)).is_ok() {
            let _ = written.recv_timeout(patience);
        }
    }
}

impl Inner {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_dirty(&self) -> Vec<Changed> {
        let spaces: Vec<(String, Space)> =
            self.all().iter().map(|(name, space)| (name.clone(), space.clone())).collect();
        let mut changed = Vec::new();
        for (name, space) in spaces {
            let mut kept = space.kept();
            for key in std::mem::take(&mut kept.dirty) {
                let entry = kept.entries.get(&key).cloned();
                changed.push((name.clone(), key, entry));
            }
        }
        changed
    }

    fn mark_dirty(&self, changed: &[Changed]) {
        for (policy, key, _) in changed {
            if let Some(space) = self.all().get(policy) {
                space.kept().dirty.insert(key.clone());
            }
        }
    }
}

/// One policy's keys. Cheap to clone; clones are the same space.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: StateLimits,
    kept: Mutex<Kept>,
    /// None: nothing of this space is written.
    wake: Option<SyncSender<Wake>>,
}

#[derive(Debug, Default, Clone)]
struct Kept {
    entries: BTreeMap<String, Entry>,
    bytes: usize,
    /// Changed since they were last written. Keys that are gone are among them until then.
    dirty: BTreeSet<String>,
}

fn weight(key: &str, entry: &Entry) -> usize {
    key.len() + entry.value.len() + ENTRY_BYTES
}

impl Kept {
    fn put(&mut self, key: String, entry: Option<Entry>) {
        if let Some(old) = self.entries.remove(&key) {
            self.bytes -= weight(&key, &old);
        }
        if let Some(entry) = entry {
            self.bytes += weight(&key, &entry);
            self.entries.insert(key, entry);
        }
    }

    /// Keys and bytes once `changes` are applied.
    fn after(&self, changes: &Changes) -> (usize, usize) {
        let (mut keys, mut bytes) = (self.entries.len(), self.bytes);
        for (key, entry) in &changes.0 {
            if let Some(old) = self.entries.get(key) {
                (keys, bytes) = (keys - 1, bytes - weight(key, old));
            }
            if let Some(new) = entry {
                (keys, bytes) = (keys + 1, bytes + weight(key, new));
            }
        }
        (keys, bytes)
    }
}

impl Space {
    fn with(limits: StateLimits, kept: Kept, wake: Option<SyncSender<Wake>>) -> Self {
        Self(Arc::new(Shared { limits, kept: Mutex::new(kept), wake }))
    }

    /// The same keys, to be changed without consequence: for a gate or a shadow.
    pub(crate) fn fork(&self) -> Self {
        let kept = self.kept().clone();
        Self::with(self.0.limits, kept, None)
    }

    /// Nothing in here panics half way, so a poisoned lock guards sound data.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, changes: &Changes, key: &str, now: WallMs) -> Option<Entry> {
        let found = match changes.0.get(key) {
            Some(changed) => changed.clone(),
            None => self.kept().entries.get(key).cloned(),
        };
        found.filter(|entry| entry.lives(now))
    }

    pub(crate) fn get(&self, changes: &Changes, key: &str, now: WallMs) -> Option<String> {
        self.entry(changes, key, now).map(|entry| entry.value)
    }

    pub(crate) fn set(
        &self,
        changes: &mut Changes,
        key: String,
        value: String,
        ttl_ms: Option<u32>,
        now: WallMs,
    ) -> Result<(), Refused> {
        let until = ttl_ms.map(|ms| now + u64::from(ms));
        self.change(changes, key, Entry { value, until }, now)
    }

    pub(crate) fn increment(
        &self,
        changes: &mut Changes,
        key: String,
        by: f64,
        ttl_ms: Option<u32>,
        now: WallMs,
    ) -> Result<f64, Refused> {
        let present = self.entry(changes, &key, now);
        let before = match &present {
            Some(entry) => entry.value.parse::<f64>().map_err(|_| Refused::NotANumber)?,
            None => 0.0,
        };
        let sum = before + by;
        if !sum.is_finite() {
            return Err(Refused::NotANumber);
        }
        let until = present.map_or_else(|| ttl_ms.map(|ms| now + u64::from(ms)), |entry| entry.until);
        self.change(changes, key, Entry { value: sum.to_string(), until }, now)?;
        Ok(sum)
    }

    fn change(&self, changes: &mut Changes, key: String, entry: Entry, now: WallMs) -> Result<(), Refused> {
        if key.is_empty() || key.len() > KEY_BYTES || entry.value.len() > VALUE_BYTES {
            return Err(Refused::TooLong);
        }
        let before = changes.0.insert(key.clone(), Some(entry));
        let mut kept = self.kept();
        if self.fits(&kept, changes) {
            return Ok(());
        }
        self.purge(&mut kept, now);
        if self.fits(&kept, changes) {
            return Ok(());
        }
        match before {
            Some(before) => changes.0.insert(key, before),
            None => changes.0.remove(&key),
        };
        Err(Refused::Full)
    }

    fn fits(&self, kept: &Kept, changes: &Changes) -> bool {
        let (keys, bytes) = kept.after(changes);
        keys <= self.0.limits.keys as usize && bytes <= self.0.limits.kib as usize * 1024
    }

    pub(crate) fn delete(&self, changes: &mut Changes, key: &str, now: WallMs) -> bool {
        let there = self.entry(changes, key, now).is_some();
        if there {
            changes.0.insert(key.to_owned(), None);
        }
        there
    }

    pub(crate) fn keys(&self, changes: &Changes, prefix: &str, most: usize, now: WallMs) -> Vec<String> {
        let from = prefix.to_owned()..;
        let kept = self.kept();
        let unchanged = kept
            .entries
            .range(from.clone())
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, entry)| entry.lives(now) && !changes.0.contains_key(*key))
            .map(|(key, _)| key.clone())
            .take(most);
        let changed = changes
            .0
            .range(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.lives(now)))
            .map(|(key, _)| key.clone())
            .take(most);
        let mut keys: Vec<String> = unchanged.chain(changed).collect();
        keys.sort_unstable();
        keys.truncate(most);
        keys
    }

    pub(crate) fn apply(&self, changes: &mut Changes) {
        if changes.0.is_empty() {
            return;
        }
        let mut kept = self.kept();
        for (key, entry) in std::mem::take(&mut changes.0) {
            self.put(&mut kept, key, entry);
        }
    }

    fn put(&self, kept: &mut Kept, key: String, entry: Option<Entry>) {
        if let Some(wake) = &self.0.wake {
            kept.dirty.insert(key.clone());
            // Full: the writer is about to look anyway.
            let _ = wake.try_send(Wake::Changed);
        }
        kept.put(key, entry);
    }

    fn purge(&self, kept: &mut Kept, now: WallMs) {
        let dead: Vec<String> =
            kept.entries.iter().filter(|(_, entry)| !entry.lives(now)).map(|(key, _)| key.clone()).collect();
        dead.into_iter().for_each(|key| self.put(kept, key, None));
    }

    /// For the operator: the entries whose keys begin with `prefix`.
    pub(crate) fn entries(&self, prefix: &str, most: usize, now: WallMs) -> BTreeMap<String, Entry> {
        let kept = self.kept();
        let found = kept.entries.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let living = found.filter(|(_, entry)| entry.lives(now));
        living.take(most).map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// For the operator: forget everything.
    pub(crate) fn clear(&self) -> usize {
        let mut kept = self.kept();
        let keys: Vec<String> = kept.entries.keys().cloned().collect();
        let count = keys.len();
        keys.into_iter().for_each(|key| self.put(&mut kept, key, None));
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(space: &Space, changes: &mut Changes, key: &str, value: &str) -> Result<(), Refused> {
        space.set(changes, key.into(), value.into(), None, 0)
    }

    #[test]
    fn a_call_sees_its_own_changes_and_others_see_them_once_applied() {
        let (space, mut changes, nothing) = (Space::default(), Changes::default(), Changes::default());
        set(&space, &mut changes, "a", "1").unwrap();
        assert_eq!(space.get(&changes, "a", 0).as_deref(), Some("1"));
        assert_eq!(space.get(&nothing, "a", 0), None);
        space.apply(&mut changes);
        assert_eq!(space.get(&nothing, "a", 0).as_deref(), Some("1"));
        let fork = space.fork();
        assert!(fork.delete(&mut changes, "a", 0) && !fork.delete(&mut changes, "a", 0));
        fork.apply(&mut changes);
        assert_eq!((fork.get(&nothing, "a", 0), space.get(&nothing, "a", 0)), (None, Some("1".into())));
    }

    #[test]
    fn a_counter_lives_from_its_first_increment() {
        let (space, mut changes) = (Space::default(), Changes::default());
        let mut add = |by, now| space.increment(&mut changes, "n".into(), by, Some(1_000), now);
        assert_eq!((add(2.0, 0), add(0.5, 999), add(1.0, 1_000)), (Ok(2.0), Ok(2.5), Ok(1.0)));
        for odd in [f64::NAN, f64::INFINITY] {
            assert_eq!(add(odd, 1_000), Err(Refused::NotANumber));
        }
        set(&space, &mut changes, "text", "abc").unwrap();
        let sum = space.increment(&mut changes, "text".into(), 1.0, None, 0);
        assert_eq!(sum, Err(Refused::NotANumber));
    }

    #[test]
    fn keys_are_listed_in_order_with_what_the_call_changed() {
        let (space, mut changes) = (Space::default(), Changes::default());
        for key in ["q/b", "q/a", "r"] {
            set(&space, &mut changes, key, "").unwrap();
        }
        space.apply(&mut changes);
        set(&space, &mut changes, "q/aa", "").unwrap();
        space.delete(&mut changes, "q/b", 0);
        space.set(&mut changes, "q/short".into(), String::new(), Some(5), 0).unwrap();
        assert_eq!(space.keys(&changes, "q/", 9, 4), ["q/a", "q/aa", "q/short"]);
        assert_eq!(space.keys(&changes, "q/", 9, 5), ["q/a", "q/aa"]);
        assert_eq!(space.keys(&changes, "q/", 1, 5), ["q/a"]);
    }

    #[test]
    fn hostile_keys_and_values_are_refused_and_a_full_space_takes_no_more() {
        let space = Spaces::new(StateLimits { keys: 3, kib: 1 }).of("p");
        let mut changes = Changes::default();
        for (key, bytes) in [(String::new(), 1), ("k".repeat(257), 1), ("k".into(), VALUE_BYTES + 1)] {
            assert_eq!(set(&space, &mut changes, &key, &"v".repeat(bytes)), Err(Refused::TooLong));
        }
        assert_eq!(set(&space, &mut changes, "big", &"v".repeat(1_024)), Err(Refused::Full));
        assert_eq!(space.get(&changes, "big", 0), None, "a refused change is not seen");
        space.set(&mut changes, "a".into(), "1".into(), Some(10), 0).unwrap();
        space.apply(&mut changes);
        set(&space, &mut changes, "b", "1").unwrap();
        set(&space, &mut changes, "c", "1").unwrap();
        assert_eq!(set(&space, &mut changes, "d", "1"), Err(Refused::Full));
        assert_eq!(set(&space, &mut changes, "b", "2"), Ok(()), "what is there may change");
        let late = space.set(&mut changes, "d".into(), "1".into(), None, 10);
        assert_eq!(late, Ok(()), "what is over makes room");
    }

    #[test]
    fn what_was_applied_is_there_after_a_restart_and_what_was_deleted_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.db");
        let open = || Spaces::open(StateLimits::default(), &file).unwrap();
        let (spaces, mut changes) = (open(), Changes::default());
        for key in ["stays", "goes"] {
            set(&spaces.of("p"), &mut changes, key, "1").unwrap();
        }
        spaces.of("p").apply(&mut changes);
        spaces.flush(Duration::from_secs(60));
        spaces.of("p").delete(&mut changes, "goes", 0);
        spaces.of("p").set(&mut changes, "short".into(), "1".into(), Some(7), 0).unwrap();
        spaces.of("p").apply(&mut changes);
        spaces.of("other").fork().apply(&mut changes);
        spaces.flush(Duration::from_secs(60));
        drop(spaces);

        let again = open();
        let nothing = Changes::default();
        let get = |key, now| again.of("p").get(&nothing, key, now);
        assert_eq!((get("stays", 0).as_deref(), get("goes", 0)), (Some("1"), None));
        assert_eq!((get("short", 6).as_deref(), get("short", 7)), (Some("1"), None));
        let held: Vec<_> = again.held().into_iter().map(|held| (held.policy, held.keys)).collect();
        assert_eq!(held, [("p".to_owned(), 2)]);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.db");
        std::fs::write(&file, [7; 8_192]).unwrap();
        let spaces = Spaces::open(StateLimits::default(), &file).unwrap();
        let mut changes = Changes::default();
        set(&spaces.of("p"), &mut changes, "k", "v").unwrap();
        spaces.of("p").apply(&mut changes);
        spaces.flush(Duration::from_secs(60));
        assert_eq!(std::fs::read(folder.path().join("state.db.damaged")).unwrap(), [7; 8_192]);
        drop(spaces);
        let again = Spaces::open(StateLimits::default(), &file).unwrap();
        assert_eq!(again.of("p").get(&Changes::default(), "k", 0).as_deref(), Some("v"));
    }

    #[test]
    fn an_operator_reads_and_forgets() {
        let space = Spaces::default().of("p");
        let mut changes = Changes::default();
        for key in ["a/1", "a/2", "b"] {
            set(&space, &mut changes, key, "v").unwrap();
        }
        space.apply(&mut changes);
        let keys = |prefix| space.entries(prefix, 9, 0).into_keys().collect::<Vec<_>>();
        assert_eq!(keys("a/"), ["a/1", "a/2"]);
        assert_eq!((space.clear(), keys("").len()), (3, 0));
    }
}
