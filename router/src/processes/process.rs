//! One process of an instance, whether this router has started it or an earlier one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::system::{self, Signal};

const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Then it begins anew; what was before is kept once.
const LOG_BYTES: u64 = 16 << 20;
/// Of the log's end, where the last line is sought.
const LAST_WORDS: u64 = 4_096;
/// Keys and other secrets of the router are among these.
const OWN_VARIABLES: &str = "COMFY_ROUTER";

/// What is started, and where its log and its record lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<PathBuf>,
    pub(super) dir: PathBuf,
}

/// By which the next router finds it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    began: u64,
    program: Program,
}

#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    began: u64,
    /// None if an earlier router has started it.
    child: Option<Child>,
    program: Program,
}

impl Program {
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What the log says last, for whoever asks why the process ended.
    pub(super) fn last_words(&self) -> String {
        let read = || {
            let mut log = File::open(self.log())?;
            let from = log.metadata()?.len().saturating_sub(LAST_WORDS);
            log.seek(SeekFrom::Start(from))?;
            let mut text = Vec::new();
            log.take(LAST_WORDS).read_to_end(&mut text)?;
            io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = read().unwrap_or_default();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        line.chars().take(400).collect()
    }

    /// The process appends to it, so it can be emptied under its hands.
    pub(super) fn bound_log(&self) -> io::Result<()> {
        let log = self.log();
        if std::fs::metadata(&log).is_ok_and(|log| log.len() > LOG_BYTES) {
            std::fs::copy(&log, self.dir.join("log.1"))?;
            OpenOptions::new().write(true).open(&log)?.set_len(0)?;
        }
        Ok(())
    }
}

impl Process {
    /// In a group of its own, so that a terminal's Ctrl-C is the router's alone and its children end with it.
    pub(super) fn spawn(program: &Program) -> io::Result<Self> {
        std::fs::create_dir_all(&program.dir)?;
        program.bound_log()?;
        let log = OpenOptions::new().create(true).append(true).open(program.log())?;
        let [name, arguments @ ..] = &program.command[..] else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(OWN_VARIABLES) {
                command.env_remove(variable);
            }
        }
        command.envs(&program.env);
        if let Some(cwd) = &program.cwd {
            command.current_dir(cwd);
        }
        let child = command.spawn()?;
        let pid = child.id();
        // One that has ended already is noticed at the next look.
        let began = system::began(pid).unwrap_or_default();
        let mut process = Self { pid, began, child: Some(child), program: program.clone() };
        // One that nobody would find again must not be left behind.
        process.record().inspect_err(|_| process.kill())?;
        Ok(process)
    }

    /// The one that is recorded in this folder, if it lives.
    pub(super) fn recorded(dir: &Path) -> Option<Self> {
        let text = std::fs::read(record_in(dir)).ok()?;
        let Record { pid, began, program } = serde_json::from_slice(&text).ok()?;
        (system::began(pid) == Some(began)).then_some(Self { pid, began, child: None, program })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    fn kill(&mut self) {
        system::signal_group(self.pid, Signal::Kill);
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }

    fn record(&self) -> io::Result<()> {
        let record = Record { pid: self.pid, began: self.began, program: self.program.clone() };
        let mut file = tempfile::NamedTempFile::new_in(&self.program.dir)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.persist(record_in(&self.program.dir)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Waits for its end; says how it ended, if that can be known.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            if let Some(how) = self.end() {
                return how;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn end(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(status) => status.map(|status| status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => (system::began(self.pid) != Some(self.began)).then(|| "it is gone".to_owned()),
        }
    }

    /// Asks it to end, and kills it if it does not in time. Whatever it has started ends with it.
    pub(super) async fn terminate(mut self, patience: Duration) {
        if self.end().is_none() {
            system::signal_group(self.pid, Signal::Term);
            if tokio::time::timeout(patience, self.ended()).await.is_err() {
                tracing::warn!(
                    pid = self.pid,
                    ?patience,
                    "process of an instance does not end, it is killed"
                );
            }
        }
        system::signal_group(self.pid, Signal::Kill);
        self.ended().await;
        let _ = std::fs::remove_file(record_in(&self.program.dir));
    }
}

fn record_in(dir: &Path) -> PathBuf {
    dir.join("process.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path) -> Program {
        Program { command: vec!["true".into()], env: BTreeMap::new(), cwd: None, dir: dir.to_owned() }
    }

    #[test]
    fn a_log_that_grows_too_long_begins_anew_under_its_writers_hands() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path());
        program.bound_log().unwrap();
        let mut writer = OpenOptions::new().create(true).append(true).open(program.log()).unwrap();
        writer.set_len(LOG_BYTES + 1).unwrap();
        program.bound_log().unwrap();
        writer.write_all(b"and on\n").unwrap();
        let length = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert_eq!((length("log"), length("log.1")), (7, LOG_BYTES + 1));
    }

    #[test]
    fn the_last_words_are_the_last_line_that_says_something() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path());
        assert_eq!(program.last_words(), "");
        let long = "x".repeat(10_000);
        std::fs::write(program.log(), format!("{long}\nOSError: port 8188 is taken ä\n\n  \n")).unwrap();
        assert_eq!(program.last_words(), "OSError: port 8188 is taken ä");
    }
}
