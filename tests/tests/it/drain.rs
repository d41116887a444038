//! SIGTERM under load.

use std::time::{Duration, Instant};

use comfy_router_tests::{Books, Client, Fleet, Run, Serve, eventually, plain, within};

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
    assert_eq!(router.admin().get("/readyz").await.status, 503);
    fleet.open();
    for id in &running {
        client.end_of(id).await;
    }
    assert_eq!(within("the router ends", router.ended()).await, Some(0));
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
