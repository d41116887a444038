//! `POST /prompt` of 60 KiB, to its 200: parsed, validated, judged by the policy and durable. Next to it, one append with
//! one fdatasync on the same disk, the two by turns. The one instance is busy for ever, so nothing else is written.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

const SIZE: usize = 60 << 10;
const ALONE: usize = 200;
const TOGETHER: usize = 32;
const FOR: Duration = Duration::from_secs(3);

pub(crate) fn accepting(folder: &Path, router: SocketAddr) {
    let body = body();
    println!("POST /prompt of {} bytes until it is durable and answered; the disk by turns", body.len());
    let (mut bare, mut whole) = (sink(folder, "bare"), sink(folder, "whole"));
    let mut client = Client::connect(router, &body);
    let (mut small, mut large, mut posts) = (Vec::new(), Vec::new(), Vec::new());
    client.post();
    for _ in 0..ALONE {
        small.push(timed(|| synced(&mut bare, &body.as_bytes()[..300])));
        large.push(timed(|| synced(&mut whole, body.as_bytes())));
        posts.push(timed(|| client.post()));
    }
    let sync = report("append of 300 bytes, fdatasync", &mut small);
    report("append of the same bytes, fdatasync", &mut large);
    let post = report("POST /prompt, 1 connection", &mut posts);
    println!("{:<38} {:>+8.2} ms, {:.2} times", "  less the small fdatasync, p50", post - sync, post / sync);
    together(router, &body);
}

/// As many at once as share one commit.
fn together(router: SocketAddr, body: &str) {
    let started = Instant::now();
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let one = || {
            let mut client = Client::connect(router, body);
            let mut took = Vec::new();
            while started.elapsed() < FOR {
                took.push(timed(|| client.post()));
            }
            took
        };
        let clients: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(one)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    report("POST /prompt, 32 connections", &mut took);
    println!("{:<38} {rate:>8.0} /s", "");
}

fn sink(folder: &Path, name: &str) -> File {
    File::create(folder.join(name)).expect("a file")
}

fn synced(file: &mut File, bytes: &[u8]) {
    file.write_all(bytes).expect("writes");
    file.sync_data().expect("syncs");
}

fn timed(act: impl FnOnce()) -> Duration {
    let started = Instant::now();
    act();
    started.elapsed()
}

/// Prints, and gives the median in milliseconds.
fn report(what: &str, took: &mut [Duration]) -> f64 {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{what:<38} p50 {:>8.2} ms   p90 {:>8.2} ms   p99 {:>8.2} ms", at(0.5), at(0.9), at(0.99));
    at(0.5)
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
        let head = format!(
            "POST /prompt HTTP/1.1\r\nHost: {router}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
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

/// A graph of 60 nodes, and the editor's copy of it that makes up the rest.
fn body() -> String {
    let mut graph = Map::new();
    for n in 0..60 {
        let class = if n == 59 { "Save" } else { "Text" };
        let mut inputs = json!({ "text": "a quiet harbour at dawn, ".repeat(10) });
        if n > 0 {
            inputs["before"] = json!([(n - 1).to_string(), 0]);
        }
        graph.insert(n.to_string(), json!({ "class_type": class, "inputs": inputs }));
    }
    let with = |filler: usize| {
        let workflow = json!({ "nodes": "n".repeat(filler) });
        let extra: Value = json!({ "extra_pnginfo": { "workflow": workflow } });
        json!({ "prompt": graph, "client_id": "bench", "extra_data": extra }).to_string()
    };
    let rest = SIZE.saturating_sub(with(0).len());
    with(rest)
}
