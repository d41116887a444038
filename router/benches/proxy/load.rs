//! What is sent, by `wrk`, and what came of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::processes::{self, Peer};

pub(crate) struct Load {
    pub(crate) name: &'static str,
    path: &'static str,
    post_bytes: usize,
    connections: u32,
}

const fn load(name: &'static str, path: &'static str, post_bytes: usize, connections: u32) -> Load {
    Load { name, path, post_bytes, connections }
}

pub(crate) const LOADS: &[Load] = &[
    load("1 KiB, 32", "/bench/1k", 0, 32),
    load("1 KiB, 1", "/bench/1k", 0, 1),
    load("1.5 MiB, 32", "/bench/image", 0, 32),
    load("1.5 MiB, 1", "/bench/image", 0, 1),
    load("POST 60 KiB, 32", "/bench/sink", 60 << 10, 32),
    load("POST 60 KiB, 1", "/bench/sink", 60 << 10, 1),
];

pub(crate) struct Measured {
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the proxy for each request.
    pub(crate) cpu_us: f64,
    /// Answers that are no 2xx or 3xx, and broken connections.
    pub(crate) errors: u64,
}

/// The tools that are not installed.
pub(crate) fn missing() -> Option<String> {
    let absent = |tool: &&&str| Command::new(tool).arg("-v").output().is_err();
    let missing: Vec<&str> = ["nginx", "wrk"].iter().filter(absent).copied().collect();
    (!missing.is_empty()).then(|| missing.join(" and no "))
}

const SCRIPT: &str = r#"
function init(args)
  local bytes = tonumber(args[1])
  if bytes > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", bytes)
  end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("measured %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#;

pub(crate) fn script(folder: &Path) -> PathBuf {
    let script = folder.join("load.lua");
    std::fs::write(&script, SCRIPT).expect("writes");
    script
}

pub(crate) fn run(load: &Load, peer: &Peer<'_>, script: &Path, seconds: u32) -> Measured {
    let busy = || peer.process.map_or(0.0, processes::Process::cpu_us);
    let before = busy();
    let output = processes::pinned("wrk")
        .args(["-t1", &format!("-c{}", load.connections), &format!("-d{seconds}s"), "--latency", "-s"])
        .arg(script)
        .arg(format!("http://127.0.0.1:{}{}", peer.port, load.path))
        .args(["--", &load.post_bytes.to_string()])
        .output()
        .expect("wrk runs");
    let cpu = busy() - before;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("measured "));
    let figures: Vec<f64> = line
        .unwrap_or_else(|| {
            panic!("wrk says what it measured: {said}{}", String::from_utf8_lossy(&output.stderr))
        })
        .split(' ')
        .map(|figure| figure.parse().expect("a figure"))
        .collect();
    let [requests, duration_us, errors, p50_us, p99_us] = figures[..] else { panic!("five figures: {said}") };
    assert!(requests > 0.0, "{} answers: {said}", peer.name);
    Measured {
        rate: requests / duration_us * 1e6,
        p50_us,
        p99_us,
        cpu_us: cpu / requests,
        errors: errors as u64,
    }
}
