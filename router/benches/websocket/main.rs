//! Question: what do websockets cost through the router, next to a proxy that tunnels each one? Release build; the peer is
//! nginx, one worker. Four instances, stood in for by one process that stamps what it sends; clients note what arrives
//! and when, and count gaps in each stream.
//!
//! - One to one: 100 clients, each with a job of its own: 50 events of 200 bytes and 10 previews of 60 KiB a second. nginx
//!   tunnels 100 sockets; the router gets everything over four, one an instance.
//! - Fan-out: what a custom node tells everybody, to 100 and to 1 000 clients.
//! - A reader that does not read, among the 100: what the others notice, and what memory it takes.
//! - 1 000 idle sockets.
//!
//! `cargo bench -p comfy-router --bench websocket`; without `nginx` the comparison is skipped. Everything is on 127.0.0.1
//! and, where `taskset` is installed, on one core. Compare within a run only. Settings, as environment variables:
//! `WS_BENCH_ROUNDS` (3), `WS_BENCH_SECONDS` of each measurement (5), `WS_BENCH_CLIENTS` of one to one (100),
//! `PROXY_BENCH_CPU` (0; `all` pins nothing), `WS_BENCH_ROUTER` (the binary just built). About four minutes.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

mod load;
mod peers;
#[allow(dead_code, reason = "shared with the proxy benchmark")]
#[path = "../proxy/processes.rs"]
mod processes;
mod upstream;
mod wire;

use std::path::Path;
use std::time::Duration;

use load::{Heard, Orders};
use processes::{Process, get, local};
use upstream::Rates;

const ONE_TO_ONE: Rates = Rates { events: 50, previews: 10, broadcasts: 0 };

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers = |from: usize| arguments[from..].iter().map(|n| n.parse::<u32>().expect("a number"));
    match arguments.first().map(String::as_str) {
        Some("upstream") => {
            let rates: Vec<u32> = numbers(1).take(3).collect();
            let ports: Vec<u16> = numbers(4).map(|port| port as u16).collect();
            upstream::serve(&ports, Rates { events: rates[0], previews: rates[1], broadcasts: rates[2] });
        }
        Some("load") => load::run(&serde_json::from_str(&arguments[1]).expect("orders")),
        _ => measure(),
    }
}

fn measure() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (folder, rounds, clients) =
        (folder.path(), setting("WS_BENCH_ROUNDS", 3), setting("WS_BENCH_CLIENTS", 100));
    let nginx = std::process::Command::new("nginx").arg("-v").output().is_ok();
    println!(
        "{:<24} {:<7} {:>9} {:>17} {:>17} {:>8} {:>8} {:>5} {:>5} {:>8}",
        "load",
        "peer",
        "heard/s",
        "event p50/99 ms",
        "image p50/99 ms",
        "CPU us",
        "sent/s",
        "gaps",
        "lost",
        "PSS MiB"
    );
    let loads = [
        ("one to one", clients, ONE_TO_ONE),
        ("fan-out, 100 clients", 100, Rates { events: 0, previews: 0, broadcasts: 12 }),
        ("fan-out, 1000 clients", 1_000, Rates { events: 0, previews: 0, broadcasts: 2 }),
    ];
    for (name, clients, rates) in loads {
        for _ in 0..rounds {
            let mut order: Vec<bool> = if nginx { vec![true, false] } else { vec![true] };
            order.sort_by_cached_key(|_| uuid::Uuid::new_v4());
            for router in order {
                let measured = compared(folder, router, clients, rates);
                show(name, if router { "router" } else { "nginx" }, &measured);
            }
        }
    }
    for _ in 0..rounds {
        slow(folder, clients);
    }
    idle(folder);
}

struct Measured {
    heard: Heard,
    seconds: f64,
    /// CPU time of the proxy.
    cpu_us: f64,
    /// Messages that the instances sent meanwhile.
    sent: u64,
    pss_mib: f64,
}

fn compared(folder: &Path, router: bool, clients: usize, rates: Rates) -> Measured {
    let (_upstream, ports) = peers::upstream(rates);
    if router {
        let (process, port, _) = peers::router(folder, &ports, clients);
        return watched(&process, &ports, &orders(vec![port], "/ws", clients, rates));
    }
    let (process, proxies) = peers::nginx(folder, &ports);
    watched(&process, &ports, &Orders { prompts: false, ..orders(proxies, "/stream", clients, rates) })
}

fn orders(ports: Vec<u16>, path: &str, clients: usize, rates: Rates) -> Orders {
    let begins_with = if rates.broadcasts > 0 { "bench." } else { "progress" }.to_owned();
    let seconds = setting("WS_BENCH_SECONDS", 5);
    Orders {
        ports,
        path: path.to_owned(),
        clients,
        prompts: rates.events > 0,
        slow: false,
        seconds,
        begins_with,
    }
}

fn watched(process: &Process, upstream: &[u16], orders: &Orders) -> Measured {
    let sent = || upstream.iter().map(|port| number(*port, "/sent")).sum::<u64>();
    let (heard, before, after) = peers::load(orders, || (process.cpu_us(), sent(), process.pss_mib()));
    let (cpu_us, sent, pss_mib) = (after.0 - before.0, after.1 - before.1, after.2);
    let measured = Measured { heard, seconds: orders.seconds as f64, cpu_us, sent, pss_mib };
    assert!(measured.heard.events.count > 0 && sent > 0, "nothing was heard: {:?}", measured.heard);
    measured
}

fn number(port: u16, path: &str) -> u64 {
    let answer = get(local(port), path).expect("an answer");
    answer.rsplit("\r\n").next().and_then(|body| body.trim().parse().ok()).expect("a number")
}

fn show(load: &str, peer: &str, measured: &Measured) {
    let Measured { heard, seconds, .. } = measured;
    let count = heard.events.count + heard.previews.count;
    let times = |summary: &load::Summary| format!("{:.2} / {:.1}", summary.p50_ms, summary.p99_ms);
    println!(
        "{load:<24} {peer:<7} {:>9.0} {:>17} {:>17} {:>8.1} {:>8.0} {:>5} {:>5} {:>8.1}",
        count as f64 / seconds,
        times(&heard.events),
        times(&heard.previews),
        measured.cpu_us / count as f64,
        measured.sent as f64 / seconds,
        heard.gaps,
        heard.lost,
        measured.pss_mib,
    );
}

/// The same load without and with a client that does not read. The kernel takes the first 4 MB for it, seven seconds of
/// previews.
fn slow(folder: &Path, clients: usize) {
    const SECONDS: u64 = 15;
    for slow in [false, true] {
        let (_upstream, ports) = peers::upstream(ONE_TO_ONE);
        let (process, port, admin) = peers::router(folder, &ports, clients);
        let orders = orders(vec![port], "/ws", clients, ONE_TO_ONE);
        let orders = Orders { slow, seconds: orders.seconds.max(SECONDS), ..orders };
        let measured = watched(&process, &ports, &orders);
        show("one to one", if slow { "+ deaf" } else { "router" }, &measured);
        if slow {
            let metrics = get(local(admin), "/metrics").expect("metrics");
            let dropped: Vec<&str> = metrics
                .lines()
                .filter(|line| line.starts_with("comfy_router_client_frames_dropped_total"))
                .collect();
            assert!(!dropped.is_empty(), "what the deaf client lost is counted");
            println!("  {}", dropped.join("\n  "));
        }
    }
}

/// Memory of a socket that only hears how long the queue is.
fn idle(folder: &Path) {
    const SOCKETS: usize = 1_000;
    let quiet = Rates { events: 0, previews: 0, broadcasts: 0 };
    let (_upstream, ports) = peers::upstream(quiet);
    let (process, port, _) = peers::router(folder, &ports, 4);
    std::thread::sleep(Duration::from_secs(2));
    let before = process.pss_mib();
    let orders = Orders { begins_with: "status".into(), ..orders(vec![port], "/ws", SOCKETS, quiet) };
    let (_, _, during) = peers::load(&orders, || process.pss_mib());
    println!(
        "idle: {before:.1} MiB (PSS), with {SOCKETS} sockets {during:.1} MiB: {:.1} KiB each",
        (during - before) * 1024.0 / SOCKETS as f64
    );
}
