//! What an instance is started as, and the log that it writes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpSocket;

use super::SpawnError;

/// Then it begins anew; what was before is kept once.
const LOG_BYTES: u64 = 16 << 20;
/// Of the log's end, where the last line is sought.
const LAST_WORDS: u64 = 4_096;
const LINE: usize = 400;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Program {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// Variables of the router that it must not see.
    pub(super) unset: Vec<String>,
    pub(super) cwd: Option<PathBuf>,
    /// Its log, its record, and whatever else its arguments put there.
    pub(super) dir: PathBuf,
    pub(super) port: u16,
}

/// Which GPUs a process of CUDA sees.
pub(super) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

impl Program {
    /// The GPU it is pinned to.
    pub(super) fn gpu(&self) -> Option<&str> {
        self.env.get(VISIBLE).map(String::as_str)
    }

    pub(super) fn name(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// Two with the same digest need not be told apart.
    pub(super) fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Why it would not start or could not listen, as far as that can be seen.
    pub(super) fn obstacle(&self) -> Option<SpawnError> {
        if let Err(error) = bind(self.port) {
            return Some(SpawnError::Port { port: self.port, error });
        }
        let path = self.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
        if !is_there(self.name(), &path.unwrap_or_default()) {
            let error = io::ErrorKind::NotFound.into();
            return Some(SpawnError::Program { program: self.name().to_owned(), error });
        }
        None
    }

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
        line.chars().take(LINE).collect()
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

/// As a server does, but for the listening: nobody connects to it, and a copy in a child that is being started is in nobody's way.
pub(super) fn bind(port: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())
}

/// A path, or a name that is looked for as a shell does.
fn is_there(program: &str, path: &OsStr) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    std::env::split_paths(path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn program(dir: &Path) -> Program {
        Program {
            command: vec!["true".into()],
            env: BTreeMap::new(),
            unset: Vec::new(),
            cwd: None,
            dir: dir.to_owned(),
            port: 0,
        }
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

    #[tokio::test]
    async fn what_is_in_the_way_is_seen_before() {
        let dir = tempfile::tempdir().unwrap();
        let free = program(dir.path());
        assert!(free.obstacle().is_none());
        let other = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(matches!(Program { port, ..free.clone() }.obstacle(), Some(SpawnError::Port { .. })));
        for command in ["/nowhere/at-all", "no-such-program-anywhere"] {
            let missing = Program { command: vec![command.into()], ..free.clone() };
            let said = missing.obstacle().map(|obstacle| obstacle.to_string()).unwrap_or_default();
            assert!(said.contains(command), "{said}");
        }
        let own = dir.path().join("only-there");
        std::fs::write(&own, "").unwrap();
        let mut with_path = Program { command: vec!["only-there".into()], ..free };
        assert!(with_path.obstacle().is_some());
        with_path.env.insert("PATH".into(), dir.path().display().to_string());
        assert!(with_path.obstacle().is_none());
    }
}
