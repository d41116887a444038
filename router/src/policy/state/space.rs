//! The keys of one policy, and what a call changes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Wake;
use super::{Changes, ENTRY_BYTES, Entry, KEY_BYTES, Refused, StateLimits, VALUE_BYTES};
use crate::model::job::WallMs;

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
pub(super) struct Kept {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) bytes: usize,
    /// Changed since they were last written. Keys that are gone are among them until then.
    pub(super) dirty: BTreeSet<String>,
}

fn weight(key: &str, entry: &Entry) -> usize {
    key.len() + entry.value.len() + ENTRY_BYTES
}

impl Kept {
    pub(super) fn put(&mut self, key: String, entry: Option<Entry>) {
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
    pub(super) fn with(limits: StateLimits, kept: Kept, wake: Option<SyncSender<Wake>>) -> Self {
        Self(Arc::new(Shared { limits, kept: Mutex::new(kept), wake }))
    }

    /// The same keys, to be changed without consequence: for a gate or a shadow.
    pub(crate) fn fork(&self) -> Self {
        let kept = self.kept().clone();
        Self::with(self.0.limits, kept, None)
    }

    /// Nothing in here panics half way, so a poisoned lock guards sound data.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
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
        let until = ttl_ms.map(|ms| now.saturating_add(ms.into()));
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
        let until =
            present.map_or_else(|| ttl_ms.map(|ms| now.saturating_add(ms.into())), |entry| entry.until);
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
