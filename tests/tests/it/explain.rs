//! `explain`: why a job ran where it did, and why one waits.

use comfy_router_tests::{Client, Fleet, Serve, diffusion, eventually, failed_start, plain};
use serde_json::{Value, json};

#[tokio::test]
async fn a_job_that_ran_tells_what_was_seen_said_and_done() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    router.admin().post("/api/fleet/i1/drain", &Value::Null).await.ok();
    eventually("it drains", || async {
        let fleet = router.admin().get_json("/api/fleet").await;
        (fleet["instances"][1]["draining"] == true).then_some(())
    })
    .await;
    let id = client.post(&diffusion("sdxl.safetensors", 1, 2)).await;
    client.end_of(&id).await;

    let job = router.admin().get_json(&format!("/api/jobs/{id}/explain")).await;
    assert!(job["now"].is_null(), "it is over");
    let decisions = job["decisions"].as_array().expect("decisions");
    let of = |hook: &str| decisions.iter().find(|decision| decision["hook"] == hook).expect("a decision");
    assert_eq!(of("admit")["seen"]["instances"], 2);
    let route = of("route");
    assert_eq!(route["seen"]["candidates"][0]["name"], "i0");
    assert_eq!(route["seen"]["excluded"], json!([{"name": "i1", "why": "drained by an operator"}]));
    assert_eq!(route["did"], "dispatched to i0");

    let page = router.command(&["explain", &id]).await;
    for expected in [
        "success",
        "saw i0",
        "free, 0 models there",
        "left out i1",
        "drained by an operator",
        "-> dispatched to i0",
        "attempt 1 on i0: success",
    ] {
        assert!(page.contains(expected), "{expected} in\n{page}");
    }
}

#[tokio::test]
async fn a_job_that_waits_tells_for_what() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    fleet.hold();
    let running = client.post(&plain(1)).await;
    fleet.held(0).await;
    let ahead = client.post(&plain(2)).await;
    let waiting = client.post(&plain(3)).await;
    let job = router.admin().get_json(&format!("/api/jobs/{waiting}/explain")).await;
    assert_eq!(job["now"]["waiting"]["ahead"], 1, "{job}");
    assert_eq!(job["now"]["instances"][0]["free_slots"], 0, "{job}");
    let page = router.command(&["explain", &waiting]).await;
    assert!(page.contains("now: 1 before it") && page.contains("busy"), "{page}");
    fleet.open();
    for id in [running, ahead, waiting] {
        client.end_of(&id).await;
    }
    let nobody = failed_start(&["explain", "nobody", "--admin", router.admin().base()], &[]).await;
    assert!(
        nobody.code == Some(1) && nobody.err.contains("there is no job of this prompt id"),
        "{}",
        nobody.err
    );
    let deaf = failed_start(&["explain", "x", "--admin", "127.0.0.1:1"], &[]).await;
    assert!(deaf.err.contains("no router answers at 127.0.0.1:1"), "{}", deaf.err);
}
