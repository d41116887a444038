//! What comes to the router's door: other sites' pages, keys, hostile requests, clients that do things in their own order.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use comfy_router_tests::{Client, Fleet, Http, Message, Router, Serve, Socket, complete, plain, within};
use comfyui_emulator::Each;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn one() -> (Fleet, Router) {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

async fn status(http: &Http, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    http.try_send(method, path, headers, body.to_owned()).await.expect("an answer").status.as_u16()
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_everywhere() {
    let (fleet, router) = one().await;
    let http = router.http();
    let prompt = json!({ "prompt": plain(1) }).to_string();
    for headers in [
        &[("origin", "http://evil.example")][..],
        &[("origin", "null")],
        &[("host", "evil.example"), ("accept-language", "en")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(status(&http, Method::POST, "/prompt", headers, &prompt).await, 403, "{headers:?}");
        assert_eq!(status(&http, Method::POST, "/%70rompt", headers, &prompt).await, 403, "{headers:?}");
        assert_eq!(status(&http, Method::GET, "/users", headers, "").await, 403, "{headers:?}");
    }
    assert_eq!(status(&http, Method::GET, "/prompt", &[("origin", router.url())], "").await, 200);
    assert_eq!(fleet.started(), 0);
}

#[tokio::test]
async fn an_encoded_path_does_not_go_round_the_queue() {
    let (_fleet, router) = one().await;
    let body = json!({ "prompt": plain(1), "prompt_id": "encoded" }).to_string();
    assert_eq!(status(&router.http(), Method::POST, "/api/%70rompt", &[], &body).await, 200);
    assert_eq!(router.job("encoded").await["prompt_id"], "encoded");
}

#[tokio::test]
async fn keys_keep_tenants_apart() {
    let fleet = Fleet::of(1).await;
    let keys =
        r#"front.api_keys=[{name="ann",key="the-key-of-ann-0123"},{name="bob",key="the-key-of-bob-0123"}]"#;
    let router = Serve::over(fleet.instances()).set(keys).start().await;
    let http = router.http();
    let (ann, bob) =
        (("authorization", "Bearer the-key-of-ann-0123"), ("authorization", "Bearer the-key-of-bob-0123"));
    let get =
        async |path: &str, who| http.try_send(Method::GET, path, &[who], "").await.expect("an answer").json();
    assert_eq!(http.get("/queue").await.status, 401);

    fleet.hold();
    let body = json!({ "prompt": plain(1), "prompt_id": "anns" }).to_string();
    assert_eq!(status(&http, Method::POST, "/prompt", &[ann], &body).await, 200);
    fleet.held(0).await;
    assert_eq!(get("/queue", bob).await["queue_running"], json!([]));
    assert_eq!(get("/queue", ann).await["queue_running"][0][1], "anns");
    assert_eq!(status(&http, Method::POST, "/interrupt", &[bob], r#"{"prompt_id":"anns"}"#).await, 200);
    assert_eq!(status(&http, Method::POST, "/interrupt", &[bob], "").await, 200);
    fleet.open();
    comfy_router_tests::eventually("ann's history", async || {
        (get("/history/anns", ann).await != json!({})).then_some(())
    })
    .await;
    assert_eq!(
        get("/history/anns", ann).await["anns"]["status"]["status_str"],
        "success",
        "bob interrupted nothing"
    );
    assert_eq!(get("/history", bob).await, json!({}));
    assert_eq!(status(&http, Method::POST, "/history", &[bob], r#"{"clear":true}"#).await, 200);
    assert_ne!(get("/history", ann).await, json!({}));
    assert_eq!(status(&http, Method::GET, "/api/jobs/anns", &[bob], "").await, 404);
    assert!(!router.log().contains("the-key-of"), "no key is ever logged");
}

#[tokio::test]
async fn the_end_of_an_old_socket_does_not_silence_the_new_one() {
    let (_fleet, router) = one().await;
    let mut old = Socket::open(router.url(), "/ws?clientId=ann").await.expect("a websocket");
    assert_eq!(old.next().await.data()["sid"], "ann");
    let new = Client::connect(&router, "ann").await;
    drop(old);
    let id = new.post(&plain(3)).await;
    assert_eq!(complete(&new.end_of(&id).await, &plain(3)), Ok(()));
}

#[tokio::test]
async fn a_client_that_connects_only_after_its_job_is_done_hears_of_it() {
    let (_fleet, router) = one().await;
    let mut late = Client::silent(&router, "late");
    let id = late.post(&plain(4)).await;
    late.history_when_ended(&id).await;
    late.reconnect().await;
    let said = late.end_of(&id).await;
    assert!(said.iter().any(|message| message.kind() == "execution_success"), "{said:?}");
}

#[tokio::test]
async fn a_result_can_be_another_jobs_input_on_another_instance() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "ann").await;
    let made = client.post(&plain(0x123456)).await;
    let history = client.history_when_ended(&made).await;
    let outputs = history["outputs"].as_object().expect("outputs");
    let file = outputs.values().find_map(|output| output["images"].get(0)).expect("a picture").clone();
    let name =
        format!("{}/{} [output]", file["subfolder"].as_str().unwrap(), file["filename"].as_str().unwrap());
    let load = json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": name } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "again" } },
    });
    // Two at a time, so that both instances need the picture.
    fleet.hold();
    let (first, second) = (client.post(&load).await, client.post(&load).await);
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    for id in [first, second] {
        let said = client.end_of(&id).await;
        assert!(said.iter().any(|message| message.kind() == "execution_success"), "{said:?}");
        assert_eq!(client.colour_made_by(&id).await, 0x123456);
    }
}

#[tokio::test]
async fn jobs_are_listed_as_newer_frontends_ask_for_them() {
    let (fleet, router) = one().await;
    let client = Client::connect(&router, "ann").await;
    let done = client.post(&plain(1)).await;
    client.end_of(&done).await;
    fleet.hold();
    let running = client.post(&plain(2)).await;
    fleet.held(0).await;
    let waiting = client.post(&plain(3)).await;
    let ids = |jobs: &Value| {
        jobs["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|j| j["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let open =
        client.http.get_json("/api/jobs?status=in_progress,pending&sort_order=asc&limit=200&offset=0").await;
    assert_eq!(ids(&open), [running.clone(), waiting.clone()]);
    let ended = client.http.get_json("/api/jobs?status=completed,failed,cancelled&limit=64").await;
    assert_eq!(ids(&ended), std::slice::from_ref(&done));
    assert_eq!(ended["jobs"][0]["outputs_count"], 1);
    assert_eq!(ended["pagination"], json!({ "offset": 0, "limit": 64, "total": 1, "has_more": false }));
    let detail = client.http.get_json(&format!("/api/jobs/{done}")).await;
    assert_eq!(detail["workflow"]["prompt"], plain(1));
    let cancel =
        async |id: &str| client.http.post(&format!("/api/jobs/{id}/cancel"), &json!({})).await.ok().json();
    assert_eq!(cancel(&waiting).await, json!({ "cancelled": true }));
    assert_eq!(cancel(&done).await, json!({ "cancelled": false }));
    assert_eq!(client.http.get("/api/jobs?status=odd").await.status, 400);
    fleet.open();
    client.end_of(&running).await;
}

#[tokio::test]
async fn bodies_beyond_the_limits_are_refused() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("limits.prompt_bytes=65536").start().await;
    let http = router.http();
    let refused = async |body: String| status(&http, Method::POST, "/prompt", &[], &body).await;
    assert_eq!(refused("x".repeat(70_000)).await, 413);
    assert_eq!(refused(format!("{{\"prompt\":{}", "[".repeat(60_000))).await, 400);
    assert_eq!(refused(format!("{{\"prompt\":{{}},\"prompt_id\":\"{}\"}}", "x".repeat(300))).await, 400);
    let packed = [("content-encoding", "gzip")];
    assert_eq!(status(&http, Method::POST, "/prompt", &packed, "x").await, 415);
    assert_eq!(
        http.get("/livez").await.status,
        404,
        "the router still answers, and that is the operator's path"
    );
}

/// Sends bytes as they are and gives what comes back until the connection ends.
async fn raw(router: &Router, bytes: Vec<u8>) -> String {
    let address = router.url().trim_start_matches("http://").to_owned();
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("the router listens");
        // The router may close before it has read everything.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    within("the router ends the connection", talk).await.expect("it was read")
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_not_passed_on() {
    let (_fleet, router) = one().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = smuggled.len();
    for head in [
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n"),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        " folded: header\r\n".to_owned(),
        "Bad Name: x\r\n".to_owned(),
        format!("X: {}\r\n", "x".repeat(64 << 10)),
        "X: y\r\n".repeat(200),
    ] {
        let request = format!("POST /userdata/x HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n{smuggled}");
        let answer = raw(&router, request.into_bytes()).await;
        let first = answer.lines().next().unwrap_or_default();
        assert!(
            first.is_empty() || first.contains(" 400 ") || first.contains(" 431 "),
            "{head:.60}: {first}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            usize::from(!first.is_empty()),
            "{head:.60}: {answer}"
        );
    }
}

/// The first connection is in the middle of an answer for longer than the second may take over a head.
#[tokio::test]
async fn a_client_may_wait_for_long_but_not_be_waited_for() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances())
        .set("limits.header_timeout_ms=300")
        .set("limits.idle_timeout_ms=300")
        .start()
        .await;
    fleet.control(0).hold(Each::Execution);
    let answer = router.http().begin(Method::GET, "/custom/stream", &[], "").await.expect("an answer");
    for slow in [
        "",
        "GET /prompt HTT",
        "GET /prompt HTTP/1.1\r\nHost: x\r\n",
        "GET /prompt HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answered = unfinished(&router, slow).await;
        assert_eq!(
            answered.matches("HTTP/1.1 200").count(),
            usize::from(slow.ends_with("\r\n\r\n")),
            "{slow:?}"
        );
    }
    fleet.control(0).open();
    let whole = within("the rest of the answer", answer.into_body().collect()).await.expect("unbroken");
    assert_eq!(whole.to_bytes(), "first second");
}

#[tokio::test]
async fn a_client_may_ask_again_later_than_it_may_take_over_its_first_head() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("limits.header_timeout_ms=300").start().await;
    let address = router.url().trim_start_matches("http://");
    let mut kept = tokio::net::TcpStream::connect(address).await.expect("the router listens");
    for _ in 0..2 {
        kept.write_all(b"GET /prompt HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("is sent");
        let mut answer = [0; 12];
        within("an answer", kept.read_exact(&mut answer)).await.expect("it is kept");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = vec![0; 4096];
        let read = within("the rest", kept.read(&mut rest)).await.expect("it is kept");
        assert!(rest[..read].ends_with(b"}}"), "{}", String::from_utf8_lossy(&rest[..read]));
        // Another one that was opened later has been waited for too long.
        assert_eq!(unfinished(&router, "GET").await, "");
    }
}

/// Sends bytes, and gives what comes back until the router ends the connection, which stays open on this side.
async fn unfinished(router: &Router, bytes: &str) -> String {
    let address = router.url().trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the router listens");
    stream.write_all(bytes.as_bytes()).await.expect("is sent");
    let mut answer = Vec::new();
    let _ = within("the router ends the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_message_too_large_ends_a_websocket_and_nothing_else() {
    let (_fleet, router) = one().await;
    let client = Client::connect(&router, "ann").await;
    let mut loud = Socket::open(router.url(), "/ws?clientId=loud").await.expect("a websocket");
    assert_eq!(loud.next().await.data()["sid"], "loud");
    // The router may close before it has read everything.
    let _ = loud.try_send(&"x".repeat(2 << 20)).await;
    let closed = within("the loud client is cut off", async {
        loop {
            if let Message::Closed(code) = loud.next().await {
                return code;
            }
        }
    });
    assert!(matches!(closed.await, Some(1009) | None));
    let id = client.post(&plain(5)).await;
    assert_eq!(complete(&client.end_of(&id).await, &plain(5)), Ok(()));
}
