//! Compiled code on disk, by the component's digest and the engine that made it. A file that is not exactly what was
//! written is ignored and compiled anew.
//!
//! Compiled code is machine code: whoever can write here can run code as the router. The folder is the router's own,
//! inside its state directory and closed to others, like the ledger that decides what its instances run.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

/// All files together; the least recently used go first.
const MAX_BYTES: u64 = 256 << 20;
const SUM_BYTES: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
    /// Of wasmtime's version and every setting that changes the code.
    engine: u64,
}

impl Cache {
    pub(super) fn new(dir: PathBuf, engine: &wasmtime::Engine) -> Self {
        let mut hash = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hash);
        Self { dir, engine: hash.finish() }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{digest}-{:016x}.bin", self.engine))
    }

    pub(super) fn get(&self, engine: &wasmtime::Engine, bytes: &[u8]) -> Option<Component> {
        let file = self.file(bytes);
        if self.is_open_to_others() {
            tracing::warn!(dir = %self.dir.display(), "others may write to the folder of compiled code: what is there is thrown away");
            let _ = fs::remove_dir_all(&self.dir);
            return None;
        }
        let stored = fs::read(&file).ok()?;
        let code = whole(&stored);
        let component = code.and_then(|code| deserialize(engine, code).ok());
        if component.is_none() {
            tracing::warn!(file = %file.display(), "compiled code is damaged, compiling again");
            let _ = fs::remove_file(&file);
        } else if let Ok(file) = fs::File::options().append(true).open(&file) {
            // Used now: the last to go.
            let _ = file.set_modified(SystemTime::now());
        }
        component
    }

    /// Then what is there may be anybody's.
    fn is_open_to_others(&self) -> bool {
        #[cfg(unix)]
        let mode = fs::metadata(&self.dir).map_or(0, |dir| std::os::unix::fs::MetadataExt::mode(&dir));
        #[cfg(not(unix))]
        let mode = 0;
        mode & 0o022 != 0
    }

    /// Best effort: without a cache everything works, slower.
    pub(super) fn put(&self, bytes: &[u8], component: &Component) {
        let file = self.file(bytes);
        let stored = component.serialize().map_err(|error| io::Error::other(error.to_string()));
        if let Err(error) = stored.and_then(|code| self.store(&file, &code)) {
            tracing::warn!(file = %file.display(), %error, "compiled code cannot be kept");
        }
    }

    fn store(&self, file: &Path, code: &[u8]) -> io::Result<()> {
        let mut folder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.recursive(true).create(&self.dir)?;
        self.make_room(code.len() as u64)?;
        // Another process may be writing the same.
        let part = file.with_extension(format!("{}.part", std::process::id()));
        let mut out = fs::File::create(&part)?;
        out.write_all(&Sha256::digest(code))?;
        out.write_all(code)?;
        drop(out);
        fs::rename(part, file)
    }

    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.dir)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok()?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut total = bytes + files.iter().map(|file| file.1).sum::<u64>();
        for (_, bytes, path) in files {
            if total <= MAX_BYTES {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// The code, if it is what was written.
fn whole(stored: &[u8]) -> Option<&[u8]> {
    let (sum, code) = stored.split_at_checked(SUM_BYTES)?;
    (*Sha256::digest(code) == *sum).then_some(code)
}

#[allow(unsafe_code)]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are what `Component::serialize` gave: their digest lies before them, in a folder that only the
    // router writes. wasmtime itself refuses code of another version or configuration.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::wasm::Engine;
    use crate::policy::{GuestLimits, Shipped};

    #[test]
    fn what_was_compiled_is_found_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(&GuestLimits::default()).unwrap();
        let cache = Cache::new(folder.path().join("compiled"), &engine.wasmtime);
        let bytes = Shipped::LeastLoaded.bytes();
        assert!(cache.get(&engine.wasmtime, bytes).is_none());
        cache.put(bytes, &Component::new(&engine.wasmtime, bytes).unwrap());
        assert!(cache.get(&engine.wasmtime, bytes).is_some());
        let file = cache.file(bytes);
        let whole = fs::read(&file).unwrap();
        for damage in [whole[..whole.len() / 2].to_vec(), Vec::new(), vec![0; 100], {
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            flipped
        }] {
            fs::write(&file, damage).unwrap();
            assert!(cache.get(&engine.wasmtime, bytes).is_none());
            assert!(!file.exists(), "it is thrown away");
        }
    }

    #[cfg(unix)]
    #[test]
    fn code_that_others_could_have_written_is_not_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(&GuestLimits::default()).unwrap();
        let cache = Cache::new(folder.path().join("compiled"), &engine.wasmtime);
        let bytes = Shipped::LeastLoaded.bytes();
        let component = Component::new(&engine.wasmtime, bytes).unwrap();
        cache.put(bytes, &component);
        let mode = || fs::metadata(&cache.dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&cache.dir, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(cache.get(&engine.wasmtime, bytes).is_none() && !cache.file(bytes).exists());
        cache.put(bytes, &component);
        assert!(cache.get(&engine.wasmtime, bytes).is_some() && mode() == 0o700);
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(&GuestLimits::default()).unwrap();
        let cache = Cache::new(folder.path().to_owned(), &engine.wasmtime);
        for (name, age_s) in [("old", 20), ("new", 10)] {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(MAX_BYTES / 2).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age_s)).unwrap();
        }
        cache.make_room(1_000).unwrap();
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["new"]);
    }
}
