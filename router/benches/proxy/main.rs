//! Question: what does the router cost next to a reverse proxy that only forwards, and what does it add to one disk sync
//! when it accepts a prompt? Release build, ledger, policy, metrics and logs as in service; the peer is nginx, tuned.
//!
//! `cargo bench -p comfy-router --bench proxy`; it needs `nginx` and `wrk` (Debian: `apt-get install nginx-light wrk`) and
//! skips the comparison without them. Everything is on 127.0.0.1 and, where `taskset` is installed, on one core, so that
//! figures are CPU time and not luck with cores. Compare within a run only. Settings, as environment variables:
//! `PROXY_BENCH_ROUNDS` (5), `PROXY_BENCH_SECONDS` of each measurement (1), `PROXY_BENCH_CPU` (0; `all` pins nothing),
//! `PROXY_BENCH_DIR` for the ledger (the system's temporary folder). About two minutes.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

mod load;
#[allow(dead_code, reason = "shared with the websocket benchmark")]
mod processes;
mod prompt;
mod upstream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{LOADS, Load, Measured};
use processes::{Peer, Process};

struct Settings {
    rounds: usize,
    seconds: u32,
    place: PathBuf,
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("upstream") {
        return upstream::serve(arguments.next().and_then(|port| port.parse().ok()).expect("a port"));
    }
    let settings = Settings {
        rounds: setting("PROXY_BENCH_ROUNDS", 5),
        seconds: setting("PROXY_BENCH_SECONDS", 1),
        place: setting("PROXY_BENCH_DIR", std::env::temp_dir()),
    };
    let folder = tempfile::TempDir::new_in(&settings.place).expect("a folder");
    let (upstream, port) = processes::upstream();
    started(folder.path(), port);
    let (router, address) = processes::router(folder.path(), port);
    std::thread::sleep(Duration::from_secs(1));
    println!("idle memory of the router: {:.1} MiB (PSS)", router.pss_mib());
    match load::missing() {
        None => forwarding(&settings, folder.path(), &router, port, address.port()),
        Some(tools) => println!("skipped: no {tools}; Debian: apt-get install nginx-light wrk"),
    }
    prompt::accepting(folder.path(), address);
    drop((router, upstream));
}

/// From `exec` to the first answer of the router's own and to the first that came from an instance.
fn started(folder: &Path, upstream: u16) {
    let mut took: Vec<(Duration, Duration)> = (0..5)
        .map(|_| {
            let (process, address) = processes::start_router(folder, upstream);
            let own = processes::answers(address, "/queue", &process);
            let passed = processes::answers(address, "/bench/1k", &process);
            (own, passed)
        })
        .collect();
    took.sort();
    let (own, passed) = took[took.len() / 2];
    println!(
        "start to first answer, median of {}: {:.0} ms; to the first answer of an instance: {:.0} ms",
        took.len(),
        own.as_secs_f64() * 1e3,
        passed.as_secs_f64() * 1e3
    );
}

fn forwarding(settings: &Settings, folder: &Path, router: &Process, upstream: u16, port: u16) {
    let (nginx, nginx_port) = processes::nginx(folder, upstream);
    let script = load::script(folder);
    let peers = [
        Peer { name: "direct", port: upstream, process: None },
        Peer { name: "nginx", port: nginx_port, process: Some(&nginx) },
        Peer { name: "router", port, process: Some(router) },
    ];
    println!("forwarding, {} rounds of {} s, peers in random order", settings.rounds, settings.seconds);
    println!(
        "{:<16} {:<7} {:>9} {:>8} {:>9} {:>9} {:>9} {:>8} {:>7}",
        "load", "peer", "req/s", "/ nginx", "p50 us", "p99 us", "CPU us", "PSS MiB", "errors"
    );
    for load in LOADS {
        let mut seen: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
        for _ in 0..settings.rounds {
            let mut order: Vec<&Peer<'_>> = peers.iter().collect();
            order.sort_by_cached_key(|_| uuid::Uuid::new_v4());
            for peer in order {
                seen.entry(peer.name).or_default().push(load::run(load, peer, &script, settings.seconds));
            }
        }
        show(load, &peers, &seen);
    }
}

fn show(load: &Load, peers: &[Peer<'_>], seen: &BTreeMap<&str, Vec<Measured>>) {
    let nginx = median(&seen["nginx"], |m| m.rate);
    for peer in peers {
        let all = &seen[peer.name];
        let rate = median(all, |m| m.rate);
        let errors: u64 = all.iter().map(|m| m.errors).sum();
        println!(
            "{:<16} {:<7} {rate:>9.0} {:>8.2} {:>9.0} {:>9.0} {:>9.1} {:>8.1} {errors:>7}",
            load.name,
            peer.name,
            rate / nginx,
            median(all, |m| m.p50_us),
            median(all, |m| m.p99_us),
            median(all, |m| m.cpu_us),
            peer.process.map_or(0.0, Process::pss_mib),
        );
    }
}

fn median(all: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
