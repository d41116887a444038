//! Files of any size: on disk, never in memory, and whole or not at all.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use comfy_router_tests::{Fleet, Http, Router, Serve, eventually, within};
use comfyui_emulator::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;
/// What a router may need more while a file of any size passes.
const ROOM: u64 = 24 << 20;

fn left_over(router: &Router) -> usize {
    std::fs::read_dir(router.state_dir().join("uploads/incoming")).map_or(0, Iterator::count)
}

/// The head of an upload of `size` bytes, and the end of its body.
fn frame(name: &str, size: usize) -> (String, &'static str) {
    let part =
        format!("--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n");
    let end = "\r\n--xyz--\r\n";
    let length = part.len() + size + end.len();
    let head = format!(
        "POST /upload/image HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {length}\r\n\r\n{part}"
    );
    (head, end)
}

fn connect(router: &Router) -> TcpStream {
    TcpStream::connect(router.url().trim_start_matches("http://")).expect("the router listens")
}

#[tokio::test]
async fn an_upload_given_up_half_way_leaves_nothing() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    router.http().upload("before.png", b"x").await.ok();
    let (before, mut stream) = (router.peak_memory(), connect(&router));
    let sent = tokio::task::spawn_blocking(move || {
        let (head, _) = frame("half.bin", 80 * MIB);
        stream.write_all(head.as_bytes()).expect("sent");
        let piece = vec![7; MIB];
        (0..40).for_each(|_| stream.write_all(&piece).expect("sent"));
        stream
    });
    let stream = within("half of it is sent", sent).await.expect("sent");
    eventually("it is on its way", async || (left_over(&router) == 1).then_some(())).await;
    stream.shutdown(Shutdown::Both).expect("given up");
    eventually("nothing is left of it", async || (left_over(&router) == 0).then_some(())).await;
    assert!(router.peak_memory() - before < ROOM, "{} bytes more", router.peak_memory() - before);
    assert_eq!(router.http().get("/view?filename=half.bin&type=input").await.status, 404);
    let there = Http::new(&fleet.url(0)).get_json("/internal/files/input").await;
    assert_eq!(there, json!(["before.png"]), "the instance never heard of it");
    let told = router.http().upload("half.bin", b"whole").await.ok().json();
    assert_eq!(told["name"], "half.bin", "its name is free");
}

#[tokio::test]
async fn a_large_upload_passes_through_to_an_instance_and_back_without_being_held() {
    const SIZE: usize = 64 * MIB;
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    router.http().upload("before.png", b"x").await.ok();
    let (before, mut stream) = (router.peak_memory(), connect(&router));
    let sent = tokio::task::spawn_blocking(move || {
        let (head, end) = frame("large.bin", SIZE);
        stream.write_all(head.as_bytes()).expect("sent");
        let piece: Vec<u8> = (0..MIB).map(|at| at as u8).collect();
        (0..SIZE / MIB).for_each(|_| stream.write_all(&piece).expect("sent"));
        stream.write_all(end.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let answer = within("it is stored", sent).await.expect("sent");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"large.bin\""), "{answer}");
    let staged = std::fs::metadata(fleet.control(0).dir().join("input/large.bin")).expect("it was staged");
    assert_eq!(staged.len(), SIZE as u64);
    let back = router.http().get("/view?filename=large.bin&type=input").await.ok();
    assert_eq!((back.body.len(), back.body[MIB + 3]), (SIZE, 3));
    assert!(router.peak_memory() - before < ROOM, "{} bytes more", router.peak_memory() - before);
}

#[tokio::test]
async fn a_client_that_reads_slowly_does_not_make_the_router_hold_what_it_has_not_read() {
    const SIZE: usize = 64 * MIB;
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    std::fs::write(fleet.control(0).dir().join("input/large.bin"), vec![7; SIZE]).expect("written");
    router.http().get("/prompt").await.ok();
    let before = router.peak_memory();
    let address = router.url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the router listens");
    let ask =
        "GET /view?filename=large.bin&type=input HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("sent");
    let mut read = 0;
    for _ in 0..500 {
        let mut some = [0; 64];
        read += stream.read(&mut some).await.expect("more of it");
        // Time enough for all of it to arrive at the router.
        router.http().get("/prompt").await.ok();
    }
    assert!(router.peak_memory() - before < ROOM, "{} bytes more", router.peak_memory() - before);
    let mut sink = tokio::io::sink();
    read += within("the rest", tokio::io::copy(&mut stream, &mut sink)).await.expect("whole") as usize;
    assert!((SIZE + 1..SIZE + 4_096).contains(&read), "the head and all of it: {read}");
    assert!(router.peak_memory() - before < ROOM, "{} bytes more", router.peak_memory() - before);
}

#[tokio::test]
async fn the_smallest_limit_of_all_instances_bounds_an_upload() {
    let limited = |max_upload_size| Config { max_upload_size, ..Config::default() };
    let fleet = Fleet::with([limited(100 << 20), limited(1 << 20)]).await;
    let router = Serve::over(fleet.instances()).start().await;
    assert_eq!(router.http().get_json("/features").await["max_upload_size"], json!(1 << 20));
    assert_eq!(router.http().upload("a.bin", &vec![0; MIB]).await.status, 413, "the form counts too");
    router.http().upload("a.bin", &vec![0; MIB - 1_000]).await.ok();
    // Not announced: it is counted while it comes.
    let (mut stream, piece) = (connect(&router), vec![0; 64 << 10]);
    let sent = tokio::task::spawn_blocking(move || {
        let head = "POST /upload/image HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\
            Content-Type: multipart/form-data; boundary=xyz\r\n\r\n";
        let part = "--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"b.bin\"\r\n\r\n";
        let _ = write!(stream, "{head}{:x}\r\n{part}\r\n", part.len());
        for _ in 0..20 {
            // The router may close before it has read everything.
            let _ = write!(stream, "{:x}\r\n", piece.len());
            let _ = stream.write_all(&piece);
            let _ = stream.write_all(b"\r\n");
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = within("it is refused", sent).await.expect("sent");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(router.http().get("/view?filename=b.bin&type=input").await.status, 404);
    assert_eq!(left_over(&router), 0);
}
