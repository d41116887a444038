//! The processes: this program in its other roles, the router, nginx.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::load::{Heard, Orders};
use crate::processes::{self, Process, answers, free_ports, local, pinned};
use crate::upstream::Rates;

pub(crate) const INSTANCES: usize = 4;
/// The router's limit.
const MAX_SLOTS: usize = 64;

/// So many instances in one process.
pub(crate) fn upstream(rates: Rates) -> (Process, Vec<u16>) {
    let ports = free_ports::<INSTANCES>().to_vec();
    let mut command = itself();
    command.arg("upstream").args([rates.events, rates.previews, rates.broadcasts].map(|n| n.to_string()));
    let process = Process::start(command.args(ports.iter().map(ToString::to_string)));
    for port in &ports {
        answers(local(*port), "/sent", &process);
    }
    (process, ports)
}

/// A router whose instances run as many prompts at a time as its clients post.
pub(crate) fn router(folder: &Path, upstream: &[u16], clients: usize) -> (Process, u16, u16) {
    let state = tempfile::TempDir::new_in(folder).expect("a folder").keep();
    let slots = clients.div_ceil(INSTANCES).min(MAX_SLOTS);
    let instances = upstream
        .iter()
        .map(|port| format!("[[instance]]\nurl = \"http://127.0.0.1:{port}\"\nslots = {slots}\n"));
    let file = state.join("router.toml");
    std::fs::write(&file, instances.collect::<String>()).expect("writes");
    let [port, admin] = free_ports();
    let binary =
        std::env::var("WS_BENCH_ROUTER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_comfy-router").to_owned());
    let mut command = pinned(&binary);
    command
        .arg("serve")
        .args(["--log", "warn", "--config"])
        .arg(&file)
        .args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")])
        .args(["--set", "limits.tenant_jobs=100000", "--state-dir"])
        .arg(&state);
    let process = Process::start(&mut command);
    processes::until(&process, "every instance is up", || {
        processes::get(local(admin), "/api/fleet")
            .is_ok_and(|fleet| fleet.replace(' ', "").matches(r#""state":"up""#).count() == INSTANCES)
    });
    (process, port, admin)
}

/// One process that tunnels each websocket to its instance.
pub(crate) fn nginx(folder: &Path, upstream: &[u16]) -> (Process, Vec<u16>) {
    let prefix = tempfile::TempDir::new_in(folder).expect("a folder").keep();
    let ports = free_ports::<INSTANCES>().to_vec();
    let servers = ports.iter().zip(upstream).map(|(port, upstream)| {
        SERVER.replace("{listen}", &port.to_string()).replace("{upstream}", &upstream.to_string())
    });
    let file = prefix.join("nginx.conf");
    std::fs::write(&file, NGINX.replace("{servers}", &servers.collect::<String>())).expect("writes");
    let mut command = pinned("nginx");
    command.arg("-p").arg(&prefix).arg("-c").arg(&file).args(["-e", "stderr"]);
    let process = Process::start(&mut command);
    for port in &ports {
        answers(local(*port), "/sent", &process);
    }
    (process, ports)
}

const NGINX: &str = "
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 8192; multi_accept on; }
http {
  access_log off; tcp_nodelay on; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 256k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  {servers}
}
";
const SERVER: &str = "
  server {
    listen 127.0.0.1:{listen} backlog=2048;
    location / {
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_read_timeout 1h;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";
    }
  }
";

/// Runs the clients; looks at the beginning and at the end of the measurement.
pub(crate) fn load<T>(orders: &Orders, look: impl Fn() -> T) -> (Heard, T, T) {
    let mut child = itself()
        .arg("load")
        .arg(serde_json::to_string(orders).expect("JSON"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the load starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("the load goes on").expect("UTF-8");
    assert_eq!(line(), "ready");
    let begun = look();
    assert_eq!(line(), "done");
    let done = look();
    let heard = serde_json::from_str(&line()).expect("figures");
    assert!(child.wait().expect("the load ends").success());
    (heard, begun, done)
}

fn itself() -> std::process::Command {
    pinned(&std::env::current_exe().expect("this program").display().to_string())
}
