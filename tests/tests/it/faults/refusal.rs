//! An instance answers, but not well: 500, half an answer, no memory, words about jobs that are not ours.

use comfy_router_tests::{Books, eventually};
use comfyui_emulator::{Config, Each, GpuSpec};

use super::*;

#[tokio::test]
async fn an_instance_that_keeps_failing_is_given_nothing_but_single_trials() {
    let fleet = Fleet::of(1).await;
    let settings = ["limits.attempts=50", "fleet.quarantine_s=1"];
    let serve = settings.iter().fold(Serve::over(fleet.instances()), |serve, setting| serve.set(setting));
    let mut router = serve.start().await;
    let client = Client::connect(&router, "c").await;
    fleet.control(0).inject(Fault::FailPosts { count: 6, status: 500 });
    let id = client.post(&plain(0xb4)).await;
    let shown = router.instance_is(0, "quarantined").await;
    let reason = shown["reason"].as_str().expect("a reason");
    assert!(reason.contains("500") && reason.contains("scripted failure"), "{reason}");
    succeeds(&client, &id, 0xb4).await;
    router.instance_is(0, "up").await;
    assert_eq!(router.metric("comfy_router_instance_quarantines_total", "i0").await, 2.0, "one trial failed");
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.nothing_is_lost(std::slice::from_ref(&id));
    let expected = [["dispatch"; 6].as_slice(), &["success"]].concat();
    assert_eq!((books.attempts_ended(&id), fleet.started()), (expected, 1));
}

#[tokio::test]
async fn half_an_answer_never_looks_whole_and_is_not_kept() {
    let (fleet, _router, client) = two().await;
    let id = client.post(&plain(0x4a1f)).await;
    client.end_of(&id).await;
    let image = client.history(&id).await["outputs"]["2"]["images"][0].clone();
    for control in fleet.controls() {
        control.inject(Fault::BreakAnswers { path: "/view".into(), count: 1 });
    }
    let path = format!(
        "/view?filename={}&subfolder={}&type=output",
        image["filename"].as_str().expect("a name"),
        image["subfolder"].as_str().expect("a folder")
    );
    let broken = client.http.try_send(hyper::Method::GET, &path, &[], "").await;
    assert!(broken.is_err(), "{broken:?}");
    assert_eq!(client.colour_made_by(&id).await, 0x4a1f);
}

/// Two instances whose cards have these MiB.
async fn with_memory(mib: [u64; 2]) -> (Fleet, Router, Client) {
    let config = |(index, memory_total_mib)| Config {
        gpu: Some(GpuSpec { memory_total_mib, ..GpuSpec::new(index) }),
        ..Config::default()
    };
    let fleet = Fleet::with((0..).zip(mib).map(config)).await;
    let router = Serve::over(fleet.instances()).set("telemetry.nvml=false").start().await;
    eventually("both cards are known", || async {
        let fleet = router.admin().get_json("/api/fleet").await;
        let known = |at: usize| fleet["instances"][at]["gpu"]["vram_total_mib"].as_u64() == Some(mib[at]);
        (known(0) && known(1)).then_some(())
    })
    .await;
    let client = Client::connect(&router, "c").await;
    (fleet, router, client)
}

/// The small card is taken first: the other one is held by another job.
async fn out_of_memory_on_the_first(fleet: &Fleet, client: &Client) -> String {
    fleet.control(1).hold(Each::Execution);
    fleet.control(0).inject(Fault::OutOfMemory { count: 1 });
    let mut ids = vec![client.post(&plain(0x01)).await, client.post(&plain(0x02)).await];
    fleet.held(1).await;
    fleet.control(0).wait_ended(1).await;
    fleet.open();
    for id in &ids {
        client.end_of(id).await;
    }
    let upstream = &fleet.executions()[0][0].prompt_id;
    let mut failed = None;
    for id in ids.drain(..) {
        let job = client.http.get_json(&format!("/history/{id}")).await;
        failed = failed.or((job[&id]["status"]["status_str"] == "error").then_some(id));
    }
    failed.unwrap_or_else(|| upstream.clone())
}

#[tokio::test]
async fn a_job_out_of_memory_is_tried_once_where_there_is_more() {
    let (fleet, mut router, client) = with_memory([8_192, 24_576]).await;
    out_of_memory_on_the_first(&fleet, &client).await;
    let ran = fleet.executions();
    assert_eq!((ran[0].len(), ran[1].len()), (1, 2), "the larger card ran both in the end");
    assert_eq!(ran[0][0].outcome, Some(Outcome::Error));
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.nothing_ran_unrecorded(&Run::of(&fleet));
}

#[tokio::test]
async fn a_job_out_of_memory_ends_with_its_nodes_name_where_no_card_is_larger() {
    let (fleet, mut router, client) = with_memory([8_192, 8_192]).await;
    let id = out_of_memory_on_the_first(&fleet, &client).await;
    let said = client.said_of(&id);
    let error = said.iter().find(|message| message.kind() == "execution_error").expect("an error");
    let data = error.data();
    assert!(data["exception_type"].as_str().is_some_and(|kind| kind.contains("OutOfMemory")), "{data}");
    assert_eq!((&data["node_id"], &data["node_type"]), (&json!("1"), &json!("EmptyImage")));
    assert_eq!(attempts(&router, &id).await.len(), 1);
    assert_eq!(fleet.started(), 2);
    router.stop().await;
    Books::read(&router.state_dir()).nothing_ran_unrecorded(&Run::of(&fleet));
}

#[tokio::test]
async fn a_job_of_somebody_else_takes_a_slot_and_belongs_to_nobody() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("fleet.poll_ms=100").start().await;
    let client = Client::connect(&router, "c").await;
    fleet.hold();
    let direct = Http::new(&fleet.url(0));
    let sid = &fleet.control(0).sockets()[0];
    let body = json!({ "prompt": plain(0xf0), "prompt_id": "theirs", "client_id": sid });
    direct.post("/prompt", &body).await.ok();
    fleet.held(0).await;
    eventually("it is seen", || async {
        let fleet = router.admin().get_json("/api/fleet").await;
        (fleet["instances"][0]["foreign"]["running"] == 1).then_some(())
    })
    .await;
    let own = client.post(&plain(0x0f)).await;
    assert_eq!(client.queue().await, (vec![], vec![own.clone()]), "ours waits, theirs is not ours to show");
    assert_eq!(router.admin().get("/api/jobs/theirs").await.status, 404);
    fleet.open();
    succeeds(&client, &own, 0x0f).await;
    let strange = client.record().iter().filter(|message| message.is_of("theirs")).count();
    assert_eq!(strange, 0, "though its events came over the router's own socket");
    assert_eq!(client.http.get_json("/history").await.as_object().map(|all| all.len()), Some(1));
}
