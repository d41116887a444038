//! Instances that the router under test starts itself.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use comfyui_emulator::HeldPort;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Router, Serve, binaries};

/// A configuration that has emulated instances launched, on ports that stay free for them.
#[derive(Debug)]
pub struct Launched {
    folder: TempDir,
    ports: Vec<HeldPort>,
}

impl Launched {
    /// So many; `more` are further lines of `[launch]`.
    pub fn of(count: usize, more: &str) -> Self {
        let this = Self { folder: tempfile::tempdir().expect("a folder"), ports: neighbours(count) };
        let emulator = binaries::emulator().display().to_string();
        let command = [&emulator, "--port", "{port}", "--dir", "{dir}/comfy", "--oracle", "{dir}/oracle"];
        let port = this.ports[0].addr().port();
        let text =
            format!("telemetry.nvml = false\n[launch]\ncommand = {command:?}\nport = {port}\n{more}\n");
        std::fs::write(this.file(), text).expect("is written");
        this
    }

    pub fn serve(&self) -> Serve {
        Serve::configured(&self.file(), self.ports.len())
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("router.toml")
    }

    /// Does anything listen on the port of this one?
    pub async fn listens(&self, at: usize) -> bool {
        tokio::net::TcpStream::connect(self.ports[at].addr()).await.is_ok()
    }
}

/// Ports that follow each other.
fn neighbours(count: usize) -> Vec<HeldPort> {
    // One that another test holds can be held too, but not bound without more ado.
    let is_nobodys = |port: &u16| {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, *port).into()).is_ok()
    };
    let from = |first: HeldPort| {
        let port = first.addr().port();
        let next = |at| port.checked_add(at).filter(is_nobodys);
        let others = (1..count as u16).map(|at| HeldPort::new(next(at)?).ok());
        std::iter::once(Some(first)).chain(others).collect::<Option<Vec<_>>>()
    };
    (0..100).find_map(|_| from(HeldPort::new(0).expect("a port"))).expect("neighbours are free")
}

/// The process of an instance, as the router has recorded it.
#[derive(Debug)]
pub struct LaunchedProcess {
    pub pid: u64,
    folder: PathBuf,
}

impl LaunchedProcess {
    /// None while there is none.
    pub fn of(router: &Router, instance: &str) -> Option<Self> {
        Self::in_folder(router.state_dir().join("instances").join(instance))
    }

    /// One that has ended and that nobody has asked after does not.
    pub fn lives(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, after)| !after.trim_start().starts_with(['Z', 'X']))
    }

    /// Whatever was launched with this state is killed, with all that it started.
    pub(crate) fn kill_all(state: &Path) {
        for instance in std::fs::read_dir(state.join("instances")).into_iter().flatten().flatten() {
            if let Some(process) = Self::in_folder(instance.path()) {
                let kill = format!("kill -s KILL -- -{}", process.pid);
                let _ = std::process::Command::new("sh").args(["-c", &kill]).output();
            }
        }
    }

    fn in_folder(folder: PathBuf) -> Option<Self> {
        let record: Value = serde_json::from_slice(&std::fs::read(folder.join("process.json")).ok()?).ok()?;
        Some(Self { pid: record["pid"].as_u64()?, folder })
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid);
        let status = std::process::Command::new("sh").args(["-c", &command]).status();
        assert!(status.is_ok_and(|status| status.success()), "it lived");
    }

    /// The value of a variable it was started with.
    pub fn variable(&self, name: &str) -> Option<String> {
        let all = std::fs::read(format!("/proc/{}/environ", self.pid)).expect("it lives");
        let all = String::from_utf8_lossy(&all).into_owned();
        all.split('\0').find_map(|one| Some(one.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}
