//! Processes that do not outlive their test: the emulator's binary, for tests that kill it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use comfyui_emulator::HeldPort;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{Http, Run, binaries, eventually, within};

/// A child process whose output goes to a file, and line by line to whoever waits for one.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Process {
    /// Standard error is appended to `log`; standard output too, and can be waited for.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log).expect("the log opens");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(open())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (mut copy, (sender, lines)) = (open(), mpsc::unbounded_channel());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = writeln!(copy, "{line}");
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// The next line of standard output; none when it was closed.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Of its resident memory, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kib << 10
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// By the shell's own `kill`, since the standard library sends only SIGKILL.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &command]).status().expect("a shell");
        assert!(status.success(), "{command}");
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the process ends", || std::future::ready(child.try_wait().expect("it is ours"))).await
    }
}

impl Process {
    /// SIGKILL, if it lives.
    pub(crate) fn put_down(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.put_down();
    }
}

/// Emulated instances `i0`, `i1`, ... as processes, of both releases by turns, each with an oracle on disk.
#[derive(Debug)]
pub struct InstanceProcesses(Vec<InstanceProcess>);

/// One of them. Its port and its files stay when it is killed and started again.
#[derive(Debug)]
pub struct InstanceProcess {
    name: String,
    flavour: &'static str,
    folder: TempDir,
    port: HeldPort,
    url: String,
    process: Process,
}

impl InstanceProcesses {
    pub async fn of(count: usize) -> Self {
        let mut all = Vec::new();
        for at in 0..count {
            all.push(InstanceProcess::start(at).await);
        }
        Self(all)
    }

    pub fn instances(&self) -> Vec<String> {
        self.0.iter().map(|instance| format!("{}={}", instance.name, instance.url)).collect()
    }

    pub fn get(&mut self, at: usize) -> &mut InstanceProcess {
        &mut self.0[at]
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until an execution is held on any instance; says on which.
    pub async fn held_anywhere(&self) -> usize {
        let waits = self.0.iter().map(|instance| Box::pin(instance.held()));
        futures_util::future::select_all(waits).await.1
    }

    /// Every node of every execution takes this much longer.
    pub async fn slow(&self, extra_ms: u64) {
        for instance in &self.0 {
            instance.slow(extra_ms).await;
        }
    }

    /// Every execution that was ever started, by what the instances wrote down before they started it.
    pub fn runs(&self) -> Vec<Run> {
        self.0.iter().flat_map(InstanceProcess::runs).collect()
    }
}

impl InstanceProcess {
    async fn start(at: usize) -> Self {
        let flavour = if at.is_multiple_of(2) { "0.8.0" } else { "0.3.64" };
        let folder = tempfile::tempdir().expect("a folder");
        let port = HeldPort::new(0).expect("a port");
        let (process, url) = spawn(folder.path(), flavour, &port).await;
        Self { name: format!("i{at}"), flavour, folder, port, url, process }
    }

    pub fn http(&self) -> Http {
        Http::new(&self.url)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: it answers nothing, and its connections stay open.
    pub fn stop(&self) {
        self.process.signal("STOP");
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// A new process on the same port and files.
    pub async fn start_again(&mut self) {
        (self.process, _) = spawn(self.folder.path(), self.flavour, &self.port).await;
    }

    pub async fn slow(&self, extra_ms: u64) {
        self.http().post("/emulator/fault", &json!({ "fault": "slow", "extra_ms": extra_ms })).await.ok();
    }

    /// From now on every execution stops at its first node.
    pub async fn hold(&self) {
        self.http().post("/emulator/gate", &json!({ "hold": true })).await.ok();
    }

    pub async fn open(&self) {
        self.http().post("/emulator/gate", &json!({ "open": true })).await.ok();
    }

    /// Waits until an execution is held.
    pub async fn held(&self) {
        eventually("a held execution", || async {
            let gate = self.http().get_json("/emulator/gate").await;
            (gate["held"].as_u64() > Some(0)).then_some(())
        })
        .await;
    }

    fn runs(&self) -> Vec<Run> {
        let text = std::fs::read_to_string(oracle(self.folder.path())).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let started = lines.filter(|line| line["event"] == "started");
        let run = |line: Value| Run {
            instance: self.name.clone(),
            upstream_id: line["prompt_id"].as_str().expect("an id").to_owned(),
        };
        started.map(run).collect()
    }
}

fn oracle(folder: &Path) -> PathBuf {
    folder.join("oracle.jsonl")
}

async fn spawn(folder: &Path, flavour: &str, port: &HeldPort) -> (Process, String) {
    let mut command = Command::new(binaries::emulator());
    command.stdin(Stdio::null());
    command.args(["--flavour", flavour, "--port", &port.addr().port().to_string()]);
    command.arg("--dir").arg(folder.join("comfy")).arg("--oracle").arg(oracle(folder));
    let mut process = Process::start(&mut command, &folder.join("log"));
    let line = within("the emulator's first line", process.line()).await;
    let line = line.unwrap_or_else(|| panic!("the emulator did not start; see {}", folder.display()));
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
    (process, url.trim().to_owned())
}
