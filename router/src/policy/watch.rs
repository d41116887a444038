//! Watches the policy file. Announcements of the file system come early, twice or never, so they only say when to look;
//! what counts is that the file differs from the last one tried and has stopped changing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::loader::Command;

/// A file that has not changed for so long is taken to be whole.
const QUIET: Duration = Duration::from_millis(50);

/// A file that changes for longer than this is looked at again with the next announcement or poll.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Watched {
    path: PathBuf,
    /// As it was when it was last handed out.
    seen: Option<Look>,
    /// Ends the announcements when dropped.
    _watcher: Option<RecommendedWatcher>,
}

/// What tells one file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&file);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self { modified: file.modified().ok()?, bytes: file.len(), inode })
    }
}

impl Watched {
    /// The file as it is now counts as seen: it is the one that is being loaded.
    pub(crate) fn new(path: PathBuf, changed: SyncSender<Command>) -> Self {
        let watcher = announce(&path, changed);
        Self { seen: Look::at(&path), path, _watcher: watcher }
    }

    /// The file was not tried after all: it is new once more.
    pub(crate) fn again(&mut self) {
        self.seen = None;
    }

    /// The path, if another file lies there now and is whole.
    pub(crate) fn changed(&mut self) -> Option<PathBuf> {
        let mut look = Look::at(&self.path)?;
        if self.seen == Some(look) {
            return None;
        }
        let mut waited = Duration::ZERO;
        loop {
            std::thread::sleep(QUIET);
            waited += QUIET;
            match Look::at(&self.path)? {
                same if same == look => break,
                _ if waited >= PATIENCE => return None,
                other => look = other,
            }
        }
        self.seen = Some(look);
        Some(self.path.clone())
    }
}

/// The folder is watched, not the file: a new file is usually renamed into place.
fn announce(path: &Path, changed: SyncSender<Command>) -> Option<RecommendedWatcher> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full queue already holds such an announcement.
            let _ = changed.try_send(Command::Changed);
        }
    };
    let watcher = notify::recommended_watcher(tell)
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "policy changes are not announced, looking from time to time");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_file_is_new_once_and_a_missing_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.wasm");
        let mut watched = Watched::new(path.clone(), sync_channel(1).0);
        assert_eq!(watched.changed(), None);
        fs::write(&path, "one").unwrap();
        assert_eq!(watched.changed(), Some(path.clone()));
        assert_eq!(watched.changed(), None);
        let part = folder.path().join("part");
        fs::write(&part, "two").unwrap();
        fs::rename(&part, &path).unwrap();
        assert_eq!(watched.changed(), Some(path.clone()));
        watched.again();
        assert_eq!((watched.changed(), watched.changed()), (Some(path), None), "it was not tried");
    }

    #[test]
    fn a_rename_into_place_is_announced() {
        let folder = tempfile::tempdir().unwrap();
        let (tell, announced) = sync_channel(16);
        let _watched = Watched::new(folder.path().join("p.wasm"), tell);
        let part = folder.path().join("part");
        fs::write(&part, "one").unwrap();
        fs::rename(&part, folder.path().join("p.wasm")).unwrap();
        assert!(announced.recv_timeout(Duration::from_secs(10)).is_ok());
    }
}
