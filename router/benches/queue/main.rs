//! Question: does a queue of 10 000 prompts stay light? How long `GET /queue` and a page of `GET /api/jobs` take with so
//! many; whether `POST /prompt` is as fast behind 10 000 as behind 10; how long the router needs after a `kill -9`
//! until it shows all of them again, and how much memory they take. The aims: the queue in 50 ms, the restart in 1 s,
//! 40 MiB. Once with prompts of 1.5 KiB, which fit into memory, once with prompts of 60 KiB, of which only the ledger
//! has most.
//!
//! `cargo bench -p comfy-router --bench queue`. The router is the binary as in service, its one instance is busy for
//! ever. Asserts that every prompt is there, before and after.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

#[path = "../proxy/processes.rs"]
#[allow(dead_code, reason = "the other benchmark needs the rest")]
mod processes;
#[path = "../proxy/upstream.rs"]
mod upstream;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

const FEW: usize = 10;
const MANY: usize = 10_000;
const TIMES: usize = 100;
const LISTS: usize = 20;
const TOGETHER: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, port] = &arguments[..]
        && role == "upstream"
    {
        return upstream::serve(port.parse().expect("a port"));
    }
    for bytes in [1_536, 60 << 10] {
        measure(bytes);
    }
}

fn measure(bytes: usize) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (_upstream, port) = processes::upstream();
    let body = body(bytes);
    println!("\nprompts of {} bytes", body.len());
    let (router, address) = processes::router(folder.path(), port);
    let empty_mib = router.pss_mib();
    Client::connect(address, &body).post();

    fill(address, &body, FEW);
    let few = posts(address, &body, &format!("POST /prompt behind {FEW}"));
    fill(address, &body, MANY - FEW - TIMES);
    let many = posts(address, &body, &format!("POST /prompt behind {MANY}"));
    println!("{:<44} {:>9.2} times", "  the second by the first, p50", many / few);
    lists(address);
    println!("{:<44} {:>+9.1} MiB", "memory beside an empty router", router.pss_mib() - empty_mib);
    drop(router);
    restarted(folder.path(), port, empty_mib);
}

fn lists(address: SocketAddr) {
    let mut queue = Vec::new();
    let mut size = 0;
    for _ in 0..LISTS {
        let started = Instant::now();
        let answer = get(address, "/queue");
        queue.push(started.elapsed());
        assert_eq!(waiting(&answer), MANY + TIMES);
        size = answer.len();
    }
    report(&format!("GET /queue, {} KiB", size >> 10), &mut queue);
    let mut page = Vec::new();
    for _ in 0..LISTS {
        let started = Instant::now();
        let answer = get(address, "/api/jobs?status=in_progress,pending&limit=200&offset=5000");
        page.push(started.elapsed());
        let list: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(list["jobs"].as_array().map(Vec::len), Some(200));
    }
    report("GET /api/jobs, 200 of the middle", &mut page);
    let mut counts = Vec::new();
    for _ in 0..LISTS {
        let started = Instant::now();
        assert!(get(address, "/prompt").starts_with(b"{"));
        counts.push(started.elapsed());
    }
    report("GET /prompt", &mut counts);
}

/// After a SIGKILL: from the start of the process until the whole queue has been shown.
fn restarted(folder: &Path, port: u16, empty_mib: f64) {
    let fresh = tempfile::TempDir::new().expect("a folder");
    let (empty, address) = processes::start_router(fresh.path(), port);
    let alone = processes::answers(address, "/prompt", &empty);
    drop(empty);
    let (router, address) = processes::start_router(folder, port);
    let answered = processes::answers(address, "/prompt", &router);
    let mib = router.pss_mib();
    let shown = Instant::now();
    assert_eq!(waiting(&get(address, "/queue")), MANY + TIMES, "all of them are there again");
    println!("{:<44} {:>9.1} ms", "start with an empty ledger to first answer", millis(alone));
    println!("{:<44} {:>9.1} ms", "restart with all of them to first answer", millis(answered));
    println!("{:<44} {:>9.1} ms", "  and the first GET /queue", millis(shown.elapsed()));
    println!("{:<44} {:>+9.1} MiB", "memory then, beside an empty router", mib - empty_mib);
    println!("{:<44} {:>+9.1} MiB", "  after the first GET /queue", router.pss_mib() - empty_mib);
}

fn waiting(queue: &[u8]) -> usize {
    let queue: Value = serde_json::from_slice(queue).expect("JSON");
    queue["queue_pending"].as_array().map_or(0, Vec::len)
}

/// On connections that share commits.
fn fill(address: SocketAddr, body: &str, count: usize) {
    std::thread::scope(|scope| {
        for at in 0..TOGETHER {
            let own = count / TOGETHER + usize::from(at < count % TOGETHER);
            scope.spawn(move || {
                let mut client = Client::connect(address, body);
                (0..own).for_each(|_| client.post());
            });
        }
    });
}

fn posts(address: SocketAddr, body: &str, what: &str) -> f64 {
    let mut client = Client::connect(address, body);
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        client.post();
        took.push(started.elapsed());
    }
    report(what, &mut took)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Prints, and gives the median in milliseconds.
fn report(what: &str, took: &mut [Duration]) -> f64 {
    took.sort();
    let at = |share: f64| millis(took[((took.len() - 1) as f64 * share) as usize]);
    println!("{what:<44} p50 {:>8.2} ms   p90 {:>8.2} ms   max {:>8.2} ms", at(0.5), at(0.9), at(1.0));
    at(0.5)
}

/// The body alone. HTTP/1.0, so that it ends with the connection and not in chunks.
fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("writes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("reads");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{path}");
    answer.split_off(end + 4)
}

/// One connection that posts the same prompt again and again; the router gives each an id of its own.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
}

impl Client {
    fn connect(router: SocketAddr, body: &str) -> Self {
        let stream = TcpStream::connect(router).expect("connects");
        stream.set_nodelay(true).expect("a socket option");
        let length = body.len();
        let head = format!("POST /prompt HTTP/1.1\r\nHost: {router}\r\nContent-Length: {length}\r\n\r\n");
        Self { stream, request: [head.as_bytes(), body.as_bytes()].concat() }
    }

    fn post(&mut self) {
        self.stream.write_all(&self.request).expect("writes");
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        // An accepted prompt's answer is small and ends with the errors of its nodes, which are none.
        while !answer.ends_with(b"\"node_errors\": {}}") {
            let read = self.stream.read(&mut part).expect("reads");
            answer.extend_from_slice(&part[..read]);
            let so_far = String::from_utf8_lossy(&answer);
            assert!(read > 0 && so_far.starts_with("HTTP/1.1 200"), "accepted: {so_far}");
        }
    }
}

/// A chain of nodes for a third of the size, an editor's copy of it for the rest.
fn body(bytes: usize) -> String {
    let node = |text: &str| json!({ "class_type": text, "inputs": { "text": "a quiet harbour at dawn" } });
    let nodes = (bytes / 3 / 100).max(2);
    let mut graph = Map::new();
    for n in 0..nodes {
        let mut node = node(if n + 1 == nodes { "Save" } else { "Text" });
        if n > 0 {
            node["inputs"]["before"] = json!([(n - 1).to_string(), 0]);
        }
        graph.insert(n.to_string(), node);
    }
    let whole = |note: &str| {
        let extra = json!({ "extra_pnginfo": { "workflow": { "id": "w", "note": note } } });
        json!({ "prompt": graph, "client_id": "bench", "extra_data": extra }).to_string()
    };
    whole(&"n".repeat(bytes.saturating_sub(whole("").len())))
}
