//! Components to serve, and the file a router watches.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A component that `router/build.rs` built: `least-loaded`, `hostile`, ...
pub fn component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("POLICIES")).join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The file that `--policy` names.
#[derive(Debug)]
pub struct PolicyFile {
    folder: TempDir,
}

impl PolicyFile {
    pub fn holding(content: &[u8]) -> Self {
        let file = Self { folder: tempfile::tempdir().expect("a folder") };
        file.replace(content);
        file
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("policy.wasm")
    }

    /// Puts another file in its place, as a build does.
    pub fn replace(&self, content: &[u8]) {
        let part = self.folder.path().join("policy.wasm.part");
        fs::write(&part, content).expect("the policy is written");
        fs::rename(&part, self.path()).expect("the policy is put in place");
    }
}
