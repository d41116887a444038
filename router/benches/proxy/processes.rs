//! The processes that are compared: a stand-in for ComfyUI, the router, nginx. All of them end with their [`Process`].

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Process {
    child: Child,
    started: Instant,
}

/// Somebody to send requests to.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) process: Option<&'a Process>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { child, started }
    }

    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
    }

    /// Memory, what is shared with others counted in part. 0 where the system does not tell.
    pub(crate) fn pss_mib(&self) -> f64 {
        let rollup = self.proc_file("smaps_rollup");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: Option<f64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kib.unwrap_or(0.0) / 1024.0
    }

    /// CPU time used so far, in steps of 10 ms. 0 where the system does not tell.
    pub(crate) fn cpu_us(&self) -> f64 {
        let stat = self.proc_file("stat");
        // After the name, which may hold anything: state is the first field, user and system time the 12th and 13th.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10_000.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On the one core that everybody shares, if it can be had.
pub(crate) fn pinned(program: &str) -> Command {
    let cpu = std::env::var("PROXY_BENCH_CPU").unwrap_or_else(|_| "0".into());
    let can =
        || Command::new("taskset").args(["-c", &cpu, "true"]).status().is_ok_and(|status| status.success());
    if cpu == "all" || !can() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu, program]);
    command
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}

pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// This program once more, in its other role.
pub(crate) fn upstream() -> (Process, u16) {
    let [port] = free_ports();
    let myself = std::env::current_exe().expect("this program");
    let mut command = pinned(&myself.display().to_string());
    let process = Process::start(command.args(["upstream", &port.to_string()]));
    answers(local(port), "/bench/1k", &process);
    (process, port)
}

/// A router that has found its instance.
pub(crate) fn router(folder: &Path, upstream: u16) -> (Process, SocketAddr) {
    let (process, address) = start_router(folder, upstream);
    answers(address, "/bench/1k", &process);
    (process, address)
}

pub(crate) fn start_router(folder: &Path, upstream: u16) -> (Process, SocketAddr) {
    let [port, admin] = free_ports();
    let state = folder.join("state");
    let mut command = pinned(env!("CARGO_BIN_EXE_comfy-router"));
    command
        .args(["serve", "--instance", &format!("http://127.0.0.1:{upstream}")])
        .args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")])
        .args(["--set", "limits.tenant_jobs=100000", "--set", "limits.queue_jobs=100000"])
        .args(["--log", "warn", "--state-dir"])
        .arg(&state);
    (Process::start(&mut command), local(port))
}

/// One process, large buffers, no log, connections kept on both sides; a body below 256 KiB never touches the disk.
pub(crate) fn nginx(folder: &Path, upstream: u16) -> (Process, u16) {
    let [port] = free_ports();
    let prefix = folder.join("nginx");
    std::fs::create_dir_all(&prefix).expect("a folder");
    let file = prefix.join("nginx.conf");
    let text = NGINX.replace("{listen}", &port.to_string()).replace("{upstream}", &upstream.to_string());
    std::fs::write(&file, text).expect("writes");
    let mut command = pinned("nginx");
    command.arg("-p").arg(&prefix).arg("-c").arg(&file).args(["-e", "stderr"]);
    let process = Process::start(&mut command);
    answers(local(port), "/bench/1k", &process);
    (process, port)
}

const NGINX: &str = "
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 4096; multi_accept on; }
http {
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_timeout 75s; keepalive_requests 100000000;
  client_max_body_size 100m; client_body_buffer_size 256k;
  proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 256k; proxy_max_temp_file_size 0;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream comfy { server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:{listen} backlog=1024;
    location / { proxy_pass http://comfy; proxy_http_version 1.1; proxy_set_header Connection \"\"; }
  }
}
";

/// Waits until it is so.
pub(crate) fn until(process: &Process, what: &str, is_so: impl Fn() -> bool) {
    while !is_so() {
        assert!(process.started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a 200, and says how long that took since the process was started.
pub(crate) fn answers(address: SocketAddr, path: &str, process: &Process) -> Duration {
    while process.started.elapsed() < PATIENCE {
        if get(address, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return process.started.elapsed();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no 200 from {address}{path} within {PATIENCE:?}");
}

pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
