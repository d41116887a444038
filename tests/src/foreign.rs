//! Programs that are not ours: Chromium with the stock page, and ComfyUI clients as published. `tests/tools/setup.sh`
//! fetches them; a test that needs one fails where they are missing, and says what to run.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::process::Process;

/// How long one of them may take: many times what it takes on a slow machine. What they wait for themselves ends sooner, and
/// says more.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// A run of a foreign program, in a folder and a home of its own.
#[derive(Debug)]
pub struct Foreign {
    command: Command,
    folder: TempDir,
}

impl Foreign {
    /// A script of `tests/`, run by Node.js.
    pub fn node(script: &str) -> Self {
        Self::of(Path::new("node")).argument(tests().join(script))
    }

    /// A script of `tests/`, run by the Python that has the clients.
    pub fn python(script: &str) -> Self {
        Self::of(&tools().join("python/bin/python")).argument(tests().join(script))
    }

    /// A program that a Python client installs.
    pub fn python_program(name: &str) -> Self {
        Self::of(&tools().join("python/bin").join(name))
    }

    fn of(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program);
        command.current_dir(folder.path()).stdin(Stdio::null());
        command.env("TEST_TOOLS", tools()).env("HOME", folder.path()).env("PYTHONUNBUFFERED", "1");
        Self { command, folder }
    }

    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    #[must_use]
    pub fn arguments(self, arguments: &[&str]) -> Self {
        arguments.iter().fold(self, Self::argument)
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// A file in the folder it runs in; gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path
    }

    /// What it left in the folder it ran in.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn left(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Waits for its end, which must be a good one; gives what it wrote to its standard output.
    ///
    /// # Panics
    /// When it fails, or takes too long.
    pub async fn succeeds(&mut self) -> String {
        let what = format!("{:?}", self.command);
        let log = self.folder.path().join("foreign.log");
        let mut process = Process::start(&mut self.command, &log);
        let run = async {
            let mut told = String::new();
            while let Some(line) = process.line().await {
                told += &line;
                told.push('\n');
            }
            (process.ended().await.success(), told)
        };
        let (success, told) = tokio::time::timeout(PATIENCE, run).await.unwrap_or_default();
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(success, "{what} failed, or did not end within {} s:\n{}", PATIENCE.as_secs(), log());
        told
    }
}

/// The folder that ComfyUI with this release of the page serves at `/`.
///
/// # Panics
/// When it was not fetched.
pub fn page(release: &str) -> PathBuf {
    tools().join(format!("page-{release}")).join("comfyui_frontend_package/static")
}

/// Where a test may leave pictures for whoever looks into it.
pub fn screenshots(name: &str) -> PathBuf {
    tools().join("screenshots").join(name)
}

fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn tools() -> PathBuf {
    let tools = match std::env::var_os("TEST_TOOLS") {
        Some(folder) => PathBuf::from(folder),
        None => tests().join("../target/test-tools"),
    };
    let ready = tools.canonicalize().ok().filter(|tools| tools.join("node/.made-of").is_file());
    ready.unwrap_or_else(|| {
        panic!("{} has no test tools: run `make test-tools` (`make test` does it)", tools.display())
    })
}
