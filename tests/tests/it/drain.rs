//! SIGTERM under load.

use std::time::{Duration, Instant};

use comfy_router_tests::{Books, Client, Fleet, Http, Message, Run, Serve, eventually, plain, within};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

#[tokio::test]
async fn sigterm_lets_running_jobs_end_and_keeps_the_rest() {
    let fleet = Fleet::of(2).await;
    fleet.hold();
    let mut router = Serve::over(fleet.instances()).start().await;
    let mut client = Client::connect(&router, "c").await;
    let mut ids = Vec::new();
    for colour in 1..=6 {
        ids.push(client.post(&plain(colour)).await);
    }
    fleet.held(0).await;
    fleet.held(1).await;
    let running = client.queue().await.0;

    router.terminate();
    let refused = eventually("new prompts are refused", || async {
        let answer = client.http.post("/prompt", &serde_json::json!({ "prompt": plain(0xff) })).await;
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty(), "it says when to come again");
    let readiness = router.admin().get("/readyz").await;
    assert_eq!(readiness.status, 503);
    let reason = readiness.json()["reasons"][0].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("draining"), "{reason}");
    assert_eq!(router.admin().get("/livez").await.status, 200, "it is alive all the same");
    fleet.open();
    for id in &running {
        client.end_of(id).await;
    }
    assert_eq!(within("the router ends", router.ended()).await, Some(0));
    client.hears("a goodbye that means come again", |said| *said == Message::Closed(Some(1001))).await;
    assert_eq!(fleet.started(), running.len(), "nothing new was started");

    router.start_again().await;
    client.reconnect().await;
    for id in ids.iter().filter(|id| !running.contains(id)) {
        client.end_of(id).await;
    }
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.nothing_is_lost(&ids);
    books.nothing_ran_unrecorded(&Run::of(&fleet));
}

#[tokio::test]
async fn the_deadline_ends_a_drain_and_the_job_is_taken_up_at_the_next_start() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let mut router = Serve::over(fleet.instances()).set("timeouts.drain_s=1").start().await;
    let mut client = Client::connect(&router, "c").await;
    let id = client.post(&plain(0x1d1e)).await;
    fleet.held(0).await;
    let asked = Instant::now();
    router.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());

    router.start_again().await;
    client.reconnect().await;
    router.instances_up(1).await;
    fleet.open();
    client.end_of(&id).await;
    assert_eq!(client.colour_made_by(&id).await, 0x1d1e);
    assert_eq!(fleet.started(), 1, "the same execution ended");
}

#[tokio::test]
async fn a_second_sigterm_ends_the_wait() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let mut router = Serve::over(fleet.instances()).set("timeouts.drain_s=3600").start().await;
    let mut client = Client::connect(&router, "c").await;
    let id = client.post(&plain(0x2_51_97)).await;
    fleet.held(0).await;
    router.terminate();
    eventually("the drain", || async { (router.admin().get("/readyz").await.status == 503).then_some(()) })
        .await;
    router.stop().await;

    router.start_again().await;
    client.reconnect().await;
    router.instances_up(1).await;
    fleet.open();
    client.end_of(&id).await;
    assert_eq!(fleet.started(), 1, "the same execution ended");
}

#[tokio::test]
async fn with_a_socket_of_its_supervisor_a_restart_refuses_no_connection() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).on(socket).start().await;
    router.stop().await;

    let address = router.url().trim_start_matches("http://").to_owned();
    let mut early = TcpStream::connect(&address).await.expect("it waits for the next router");
    let request = format!("GET /prompt HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    early.write_all(request.as_bytes()).await.expect("a request");
    router.start_again().await;
    let mut answer = String::new();
    within("an answer", early.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Posts as a client does that wants its prompt taken once, whatever happens: the same key until there is an answer.
async fn insists(http: &Http, key: &str, graph: &Value) -> String {
    let headers = [("idempotency-key", key)];
    let body = json!({ "prompt": graph, "client_id": "insistent" }).to_string();
    eventually("a prompt is taken", || async {
        let answer = http.try_send(Method::POST, "/prompt", &headers, body.clone()).await.ok()?;
        assert!([200, 503].contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.text());
        (answer.status == 200).then(|| answer.json()["prompt_id"].as_str().expect("an id").to_owned())
    })
    .await
}

#[tokio::test]
async fn upgrades_under_load_lose_nothing_and_run_nothing_twice() {
    let fleet = Fleet::of(2).await;
    let mut router = Serve::over(fleet.instances()).set("timeouts.drain_s=1").start().await;
    let http = router.http();
    let (upgraded, upgrading) = watch::channel(false);
    let posting = async {
        let mut ids = Vec::new();
        while !*upgrading.borrow() {
            let id = insists(&http, &format!("key {}", ids.len()), &plain(ids.len() as u32)).await;
            let path = format!("/history/{id}");
            eventually("its end", || async {
                let history = http.try_send(Method::GET, &path, &[], "").await.ok()?;
                (history.status == 200 && history.json()[&id]["status"]["completed"] == true).then_some(())
            })
            .await;
            ids.push(id);
        }
        ids
    };
    let upgrades = async {
        for _ in 0..3 {
            let before = fleet.started();
            eventually("work", || async { (fleet.started() > before + 3).then_some(()) }).await;
            router.stop().await;
            router.start_again().await;
            router.instances_up(2).await;
        }
        upgraded.send_replace(true);
    };
    let (ids, ()) = tokio::join!(posting, upgrades);
    router.stop().await;
    assert_eq!(fleet.started(), ids.len());
    let books = Books::read(&router.state_dir());
    books.nothing_is_lost(&ids);
    books.nothing_ran_unrecorded(&Run::of(&fleet));
    assert_eq!(books.attempts(), ids.len(), "each ran once");
}
