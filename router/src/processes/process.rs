//! One process of an instance, whether this router has started it or an earlier one.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SpawnError;
use super::program::Program;
use super::system::{self, Signal};

const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// One that is killed ends at once, unless it is stuck in the kernel.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Keys and other secrets of the router are among these.
const OWN_VARIABLES: &str = "COMFY_ROUTER";

/// By which the next router finds it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    /// Together with the machine's start.
    began: u64,
    boot: String,
    /// Of the program it was started as.
    digest: String,
    /// A copy of this record elsewhere speaks of somebody else's process.
    dir: PathBuf,
}

#[derive(Debug)]
pub(super) struct Process {
    record: Record,
    /// None if an earlier router has started it.
    child: Option<Child>,
}

impl Process {
    /// In a group of its own, so that a terminal's Ctrl-C is the router's alone and its children end with it.
    pub(super) fn spawn(program: &Program) -> Result<Self, SpawnError> {
        if let Some(obstacle) = program.obstacle() {
            return Err(obstacle);
        }
        let folder = |error| SpawnError::Folder { path: program.dir.clone(), error };
        std::fs::create_dir_all(&program.dir).and_then(|()| program.bound_log()).map_err(folder)?;
        let log = OpenOptions::new().create(true).append(true).open(program.log()).map_err(folder)?;
        let errors = log.try_clone().map_err(folder)?;
        let mut command = command(program);
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let failed = |error| SpawnError::Program { program: program.name().to_owned(), error };
        let child = command.spawn().map_err(failed)?;
        let pid = child.id();
        // One that has ended already is noticed at the next look.
        let began = system::began(pid).unwrap_or_default();
        let (digest, dir) = (program.digest(), program.dir.clone());
        let record = Record { pid, began, boot: system::boot(), digest, dir };
        let mut process = Self { record, child: Some(child) };
        if let Err(error) = process.write() {
            // One that nobody would find again must not be left behind.
            process.signal(Signal::Kill);
            let child = process.child.take();
            tokio::task::spawn_blocking(move || child.map(|mut child| child.wait()));
            return Err(folder(error));
        }
        Ok(process)
    }

    /// The one that is recorded in this folder, if it lives.
    pub(super) fn recorded(dir: &Path) -> Option<Self> {
        let text = std::fs::read(record_in(dir)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let lives = system::began(record.pid) == Some(record.began) && record.boot == system::boot();
        if lives && record.dir != dir {
            let (here, pid, theirs) = (dir.display(), record.pid, record.dir.display());
            tracing::warn!(%here, pid, %theirs, "record of a process is a copy, the process is left alone");
        }
        (lives && record.dir == dir).then_some(Self { record, child: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.record.pid
    }

    pub(super) fn is(&self, program: &Program) -> bool {
        self.record.digest == program.digest()
    }

    /// Readable by the router's own user only.
    fn write(&self) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.record.dir)?;
        file.write_all(&serde_json::to_vec(&self.record)?)?;
        file.persist(record_in(&self.record.dir)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Waits for its end; says how it ended, if that can be known. What it has started ends then, too.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            if let Some(how) = self.end() {
                self.signal(Signal::Kill);
                return how;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until nothing of it is left that could hold its port or its memory.
    async fn gone(&mut self) {
        while self.end().is_none() || system::group_lives(self.record.pid) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn end(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(status) => status.map(|status| status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => {
                (system::began(self.record.pid) != Some(self.record.began)).then(|| "it is gone".to_owned())
            }
        }
    }

    /// To it and all that it has started, unless another process has its number by now.
    fn signal(&self, signal: Signal) {
        if system::began(self.record.pid).is_none_or(|began| began == self.record.began) {
            system::signal_group(self.record.pid, signal);
        }
    }

    /// Asks it, and all that it has started, to end, and kills them if they do not in time. Gives it back if that does not help
    /// either.
    pub(super) async fn terminate(mut self, patience: Duration) -> Result<(), Self> {
        self.signal(Signal::Term);
        if tokio::time::timeout(patience, self.gone()).await.is_err() {
            tracing::warn!(pid = self.pid(), ?patience, "process of an instance does not end, it is killed");
            self.signal(Signal::Kill);
            if tokio::time::timeout(AFTER_KILL, self.gone()).await.is_err() {
                tracing::error!(pid = self.pid(), "process of an instance does not end though it was killed");
                return Err(self);
            }
        }
        let _ = std::fs::remove_file(record_in(&self.record.dir));
        Ok(())
    }
}

/// With the router's own variables, but those that are secrets.
fn command(program: &Program) -> Command {
    let [name, arguments @ ..] = &program.command[..] else { unreachable!("a plan has programs") };
    let mut command = Command::new(name);
    command.args(arguments);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with(OWN_VARIABLES) || program.unset.iter().any(|unset| *unset == *name) {
            command.env_remove(&variable);
        }
    }
    command.envs(&program.env);
    if let Some(cwd) = &program.cwd {
        command.current_dir(cwd);
    }
    command
}

fn record_in(dir: &Path) -> PathBuf {
    dir.join("process.json")
}
