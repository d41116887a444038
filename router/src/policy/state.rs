//! What policies remember. Owns each policy's keys while the router runs; a guest reads and changes them through a
//! [`Space`] and never waits for a disk.
//!
//! A call's changes are kept apart ([`Changes`]) and applied when its answer was found good, so that a call which traps
//! half way leaves nothing behind. What was applied is on disk a moment later.

mod disk;
mod space;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::job::WallMs;
use disk::{Changed, Wake};
use space::Kept;
pub(crate) use space::Space;

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

    /// The space of a policy that has one: looking makes none.
    pub(crate) fn known(&self, policy: &str) -> Option<Space> {
        self.0.all().get(policy).cloned()
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

#[cfg(test)]
mod tests;
