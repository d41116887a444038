//! The real binary, started as an operator starts it.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use comfyui_emulator::HeldPort;
use futures_util::FutureExt;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    COMPILING, DEADLINE, Http, LaunchedProcess, binaries, eventually, process::Process, within, within_time,
};

/// What `comfy-router serve` is told.
#[derive(Debug, Clone, Default)]
pub struct Serve {
    arguments: Vec<String>,
    instances: usize,
    /// A file system of its own for the state, of so many MiB.
    disk_mib: Option<u32>,
    /// Where clients connect, if a supervisor holds that socket.
    socket: Option<Arc<TcpListener>>,
    /// It compiles a component of many megabytes before it serves.
    compiles: bool,
    /// What operators must show.
    admin_key: Option<String>,
    variables: Vec<(String, String)>,
}

impl Serve {
    /// In front of these instances, each `name=url`.
    pub fn over(instances: Vec<String>) -> Self {
        let count = instances.len();
        let arguments = instances.into_iter().flat_map(|instance| ["--instance".to_owned(), instance]);
        Self { arguments: arguments.collect(), instances: count, ..Self::default() }
    }

    /// One more setting, `key=value`.
    #[must_use]
    pub fn set(self, setting: &str) -> Self {
        self.argument("--set", setting)
    }

    /// Operators need this key, which the test shows.
    #[must_use]
    pub fn admin_key(self, key: &str) -> Self {
        Self { admin_key: Some(key.to_owned()), ..self }.set(&format!("admin_key={key:?}"))
    }

    #[must_use]
    pub fn policy(self, file: &Path) -> Self {
        self.argument("--policy", file.to_str().expect("UTF-8"))
    }

    /// With a deadline for the policy that no busy machine misses.
    #[must_use]
    pub fn patient(self) -> Self {
        self.set("policy.limits.deadline_ms=1000")
    }

    /// With a policy of many megabytes: neither the router nor the test gives up while it is compiled beside other tests.
    #[must_use]
    pub fn compiles(self) -> Self {
        let limit = format!("policy.limits.compile_s={}", COMPILING.as_secs());
        Self { compiles: true, ..self }.set(&limit)
    }

    #[must_use]
    pub fn argument(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// In its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A configuration file of `instances` instances, in place of [`over`](Self::over).
    pub fn configured(file: &Path, instances: usize) -> Self {
        Self { instances, ..Self::default() }.argument("--config", file.to_str().expect("UTF-8"))
    }

    /// Clients connect to a socket that the test holds, as a supervisor would.
    #[must_use]
    pub fn on(self, socket: TcpListener) -> Self {
        Self { socket: Some(Arc::new(socket)), ..self }
    }

    /// With its state on a disk of its own of this size. Needs the right to make one: see [`may_make_disks`].
    #[must_use]
    pub fn on_a_disk_of(self, mib: u32) -> Self {
        Self { disk_mib: Some(mib), ..self }
    }

    /// Starts it on ports of its own, and waits until every instance is up.
    pub async fn start(self) -> Router {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = [(); 2].map(|()| HeldPort::new(0).expect("a port"));
        let supervised = self.socket.as_ref().map(|socket| socket.local_addr().expect("an address"));
        let addresses = (supervised.unwrap_or(ports[0].addr()), ports[1].addr());
        let (process, url, admin) = ready(&self, folder.path(), addresses).await;
        let instances = self.instances;
        let router =
            Router { serve: self, folder: Some(folder), process, addresses, url, admin, _ports: ports };
        router.instances_up(instances).await;
        router
    }
}

/// A running router. When its test fails, what it wrote is kept and its last words are shown.
#[derive(Debug)]
pub struct Router {
    serve: Serve,
    folder: Option<TempDir>,
    process: Process,
    /// For clients and for operators.
    addresses: (SocketAddr, SocketAddr),
    url: String,
    admin: String,
    _ports: [HeldPort; 2],
}

impl Router {
    /// Where clients connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn http(&self) -> Http {
        Http::new(&self.url)
    }

    /// Where operators connect, as an address.
    pub fn admin_url(&self) -> &str {
        &self.admin
    }

    /// Where operators connect.
    pub fn admin(&self) -> Http {
        let http = Http::new(&self.admin);
        match &self.serve.admin_key {
            Some(key) => http.showing(key),
            None => http,
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        state(self.folder())
    }

    /// Everything it wrote so far, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log(self.folder())).unwrap_or_default()
    }

    /// Where its state is, seen from outside when it has a disk of its own.
    pub fn disk(&self) -> PathBuf {
        let state = self.state_dir();
        let inside = state.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.process.id().to_string()).join("root").join(inside)
    }

    /// Its process ends at the next passage of this point; see `failpoint` in the router.
    pub fn arm(&self, point: &str) {
        std::fs::write(failpoints(self.folder()).join(point), "").expect("is armed");
    }

    pub fn disarm(&self, point: &str) {
        std::fs::remove_file(failpoints(self.folder()).join(point)).expect("was armed");
    }

    pub fn disarm_all(&self) {
        for file in std::fs::read_dir(failpoints(self.folder())).expect("a folder").flatten() {
            // One may be on its way out at this moment.
            let _ = std::fs::remove_file(file.path());
        }
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("the router lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is there");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// Waits until an instance is in this state; gives what is shown of it.
    pub async fn instance_is(&self, at: usize, state: &str) -> Value {
        eventually(&format!("i{at} is {state}"), || async {
            let mut fleet = self.admin().get_json("/api/fleet").await;
            let shown = fleet["instances"][at].take();
            (shown["state"] == state).then_some(shown)
        })
        .await
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.process.signal("HUP");
    }

    /// Runs another command of the binary against this router, which must go well. Gives what it printed.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let exit = failed_start(&[arguments, &["--admin", &self.admin]].concat(), &[]).await;
        assert_eq!(exit.code, Some(0), "{arguments:?}: {}{}", exit.out, exit.err);
        exit.out
    }

    /// Waits for its end; gives the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        self.process.ended().await.code()
    }

    /// SIGTERM, which must end it well.
    pub async fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.ended().await, Some(0), "SIGTERM ends the router well");
    }

    /// A new process with the same state and ports. Waits until it serves, not for its instances.
    pub async fn start_again(&mut self) {
        (self.process, _, _) = ready(&self.serve, self.folder(), self.addresses).await;
    }

    /// Waits until so many instances are up.
    pub async fn instances_up(&self, count: usize) {
        eventually(&format!("{count} instances are up"), || {
            self.instances_in_state("up").map(|up| (up == count).then_some(()))
        })
        .await;
    }

    /// Waits until so many instances are up and could be given attempts, if only single ones on trial.
    pub async fn instances_serve(&self, count: usize) {
        let serves =
            |instance: &&Value| instance["state"] == "up" || instance["quarantine"]["probing"] == true;
        let mut instances = Vec::new();
        let all = async {
            while instances.iter().filter(serves).count() != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let fleet = self.admin().get_json("/api/fleet").await;
                instances.clone_from(fleet["instances"].as_array().expect("a list"));
            }
        };
        let waited = tokio::time::timeout(DEADLINE, all).await;
        assert!(waited.is_ok(), "{count} instances do not serve within {DEADLINE:?}: {instances:#?}");
    }

    /// Waits until so many instances are down.
    pub async fn instances_down(&self, count: usize) {
        eventually(&format!("{count} instances are down"), || {
            self.instances_in_state("down").map(|down| (down == count).then_some(()))
        })
        .await;
    }

    async fn instances_in_state(&self, state: &str) -> usize {
        let fleet = self.admin().get_json("/api/fleet").await;
        let instances = fleet["instances"].as_array().expect("a list");
        instances.iter().filter(|instance| instance["state"] == state).count()
    }

    /// What the operator is shown of a job.
    pub async fn job(&self, prompt_id: &str) -> Value {
        self.admin().get_json(&format!("/api/jobs/{prompt_id}")).await
    }

    /// The sum of all samples of this metric whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.admin().get("/metrics").await.ok().text();
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (own, own_labels) = sample.split_once('{').unwrap_or((sample, ""));
            (own == name && own_labels.contains(labels)).then(|| value.parse::<f64>().ok())?
        });
        samples.sum()
    }

    /// The most memory it has ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.process.peak_memory()
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept until it is dropped").path()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // What it launched outlives it when it is killed.
        if let Some(folder) = &self.folder {
            self.process.put_down();
            LaunchedProcess::kill_all(&state(folder.path()));
        }
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(60)..].join("\n");
        let kept = self.folder.take().map(TempDir::keep);
        eprintln!(
            "--- the router's last words (all of them and its state are kept in {kept:?}):\n{last}\n---"
        );
    }
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

fn failpoints(folder: &Path) -> PathBuf {
    folder.join("failpoints")
}

/// May this process make disks for its children? Where it may not, tests that need one say so and do nothing.
pub fn may_make_disks() -> bool {
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]);
    command.output().is_ok_and(|output| output.status.success())
}

fn log(folder: &Path) -> PathBuf {
    folder.join("router.log")
}

/// Starts the binary and reads where it serves.
async fn ready(
    serve: &Serve,
    folder: &Path,
    (listen, admin): (SocketAddr, SocketAddr),
) -> (Process, String, String) {
    let mut command = serving(serve, folder);
    command.args(["serve", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    command.arg("--state-dir").arg(state(folder)).args(&serve.arguments);
    if !serve.arguments.iter().any(|argument| argument == "--log") {
        command.args(["--log", "info,comfy_router=debug"]);
    }
    let mut process = Process::start(&mut command, &log(folder));
    let patience = if serve.compiles { COMPILING } else { DEADLINE };
    let announced = within_time(patience, "the router serves", announced(&mut process)).await;
    let Some((url, admin)) = announced else {
        let log = std::fs::read_to_string(log(folder)).unwrap_or_default();
        panic!("the router did not start:\n{log}");
    };
    (process, url, admin)
}

fn serving(serve: &Serve, folder: &Path) -> Command {
    std::fs::create_dir_all(failpoints(folder)).expect("a folder");
    if let Some(socket) = &serve.socket {
        return supervised(socket);
    }
    let mut command = match serve.disk_mib {
        None => command(&[]),
        Some(mib) => {
            std::fs::create_dir_all(state(folder)).expect("a folder");
            let mount = format!("mount -t tmpfs -o size={mib}m tmpfs \"$STATE\" && exec \"$@\"");
            let mut command = without_our_variables(Command::new("unshare"));
            command.args(["-rm", "sh", "-c", &mount, "sh"]).arg(binaries::router());
            command.env("STATE", state(folder));
            command
        }
    };
    command.env("COMFY_FAILPOINTS", failpoints(folder));
    command.envs(serve.variables.iter().map(|(name, value)| (name, value)));
    command
}

/// The two lines that scripts wait for.
async fn announced(process: &mut Process) -> Option<(String, String)> {
    let (mut url, mut admin) = (None, None);
    loop {
        let line = process.line().await?;
        let address = |before: &str| Some(line.trim().strip_prefix(before)?.trim().to_owned());
        url = url.or_else(|| address("comfy-router serves "));
        admin = admin.or_else(|| address("admin at "));
        if let (Some(url), Some(admin)) = (&url, &admin) {
            return Some((url.clone(), admin.clone()));
        }
    }
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Exit {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs the binary with these arguments and variables, and waits for its end.
pub async fn failed_start(arguments: &[&str], variables: &[(&str, &str)]) -> Exit {
    let mut command = command(arguments);
    command.envs(variables.iter().copied());
    let run = tokio::task::spawn_blocking(move || command.output().expect("the router runs"));
    ended(within("the router gives up", run).await.expect("it ran"))
}

/// The arguments of one instance, this state and ports that are free.
///
/// # Panics
/// When the path is not UTF-8.
pub fn placed<'a>(instance: &'a str, state: &'a Path) -> [&'a str; 8] {
    let state = state.to_str().expect("UTF-8");
    ["--instance", instance, "--state-dir", state, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
}

/// Runs the binary to its end, whatever it says.
pub fn run(arguments: &[&str]) -> Exit {
    ended(command(arguments).output().expect("the binary runs"))
}

/// The same, with its standard output going there.
pub fn run_into(arguments: &[&str], out: impl Into<Stdio>) -> Exit {
    ended(command(arguments).stdout(out).output().expect("the binary runs"))
}

fn ended(output: std::process::Output) -> Exit {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Exit { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// As systemd starts it: with the socket as its first descriptor after the standard ones, and its own process id in the
/// environment, which only a shell in its place can tell.
fn supervised(socket: &TcpListener) -> Command {
    let script = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;
    let mut command = without_our_variables(Command::new("sh"));
    command.arg("-c").arg(script).arg(binaries::router());
    let socket = socket.try_clone().expect("a copy of the socket");
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    command
}

/// Without the variables of this process, which would configure it.
fn command(arguments: &[&str]) -> Command {
    let mut command = without_our_variables(Command::new(binaries::router()));
    // What the command line keeps for the user goes elsewhere.
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-cache"));
    command.args(arguments);
    command
}

fn without_our_variables(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("COMFY_ROUTER_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command
}
