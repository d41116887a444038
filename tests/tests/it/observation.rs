//! What an operator can see.

use comfy_router_tests::{Client, Fleet, Serve, diffusion, eventually, plain};
use comfyui_emulator::{Config, GpuSpec, Timing};
use hyper::Method;

/// Instances whose work and model loads take a hundredth of the usual time.
fn with_gpus(count: u32) -> impl Iterator<Item = Config> {
    let timing = Timing::Realistic { speed: 100.0 };
    (0..count).map(move |index| Config { gpu: Some(GpuSpec::new(index)), timing, ..Config::default() })
}

#[tokio::test]
async fn the_five_measures_are_there_and_move() {
    let fleet = Fleet::with(with_gpus(2)).await;
    let router = Serve::over(fleet.instances()).set("telemetry.emulated=true").start().await;
    let client = Client::connect(&router, "c").await;
    let ended = router.metric("comfy_router_jobs_ended_total", "").await;
    for colour in 0..4 {
        let id = client.post(&plain(colour)).await;
        client.end_of(&id).await;
    }
    let id = client.post(&diffusion("sdxl.safetensors", 1, 2)).await;
    client.end_of(&id).await;

    assert_eq!(router.metric("comfy_router_jobs_ended_total", "success").await, ended + 5.0, "throughput");
    assert_eq!(router.metric("comfy_router_job_response_seconds_count", "").await, 5.0, "response time");
    assert_eq!(router.metric("comfy_router_job_queue_wait_seconds_count", "").await, 5.0, "queue wait");
    assert!(router.metric("comfy_router_model_loads_total", "").await >= 1.0, "model loads");
    eventually("the GPUs' figures", || async {
        let total = router.metric("comfy_router_gpu_memory_total_bytes", "").await;
        let used = router.metric("comfy_router_gpu_memory_used_bytes", "").await;
        let text = router.admin().get("/metrics").await.ok().text();
        let utilization = text.contains("\ncomfy_router_gpu_utilization_ratio{");
        (total > 2e9 && used > 1e9 && used < total && utilization).then_some(())
    })
    .await;
    assert_eq!(router.metric("comfy_router_ws_clients", "").await, 1.0);
    eventually("the instances' figures", || async {
        (router.metric("comfy_router_instance_up", "").await == 2.0).then_some(())
    })
    .await;
    let sent = router.metric("comfy_router_http_sent_bytes_total", "home").await;
    let page = router.http().get("/").await.ok().body.len();
    assert_eq!(router.metric("comfy_router_http_sent_bytes_total", "home").await, sent + page as f64);
    assert!(router.metric("comfy_router_decisions_total", "route").await >= 5.0);
    assert_eq!(router.metric("comfy_router_jobs_accepted_total", "").await, 5.0);
}

#[tokio::test]
async fn every_metric_is_described_and_no_label_holds_what_a_client_wrote() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "secretive-client").await;
    let id = client.post_as("telltale-prompt", &plain(1)).await;
    client.end_of(&id).await;
    let text = router.admin().get("/metrics").await.ok().text();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let described = |name: &str| text.contains(&format!("# HELP {name} "));
        assert!(described(name) || described(base), "{name} is described");
        assert!(!line.contains("secretive") && !line.contains("telltale"), "{line}");
    }
}

#[tokio::test]
async fn the_admin_listener_answers() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let admin = router.admin();
    let client = Client::connect(&router, "c").await;
    let id = client.post_as("seen", &plain(1)).await;
    client.end_of(&id).await;

    assert_eq!(admin.get("/livez").await.ok().text().trim(), "ok");
    assert_eq!(admin.get_json("/readyz").await["ready"], true);
    assert!(admin.get("/").await.ok().text().contains("<html"));
    let fleet_view = admin.get_json("/api/fleet").await;
    assert_eq!(fleet_view["instances"].as_array().map(Vec::len), Some(2));
    let versions = [&fleet_view["instances"][0]["version"], &fleet_view["instances"][1]["version"]];
    assert_eq!(versions, ["0.8.0", "0.3.64"]);
    assert_eq!(admin.get_json("/api/jobs").await["jobs"].as_array().map(Vec::len), Some(1));
    let job = router.job("seen").await;
    assert_eq!((&job["state"], &job["client_id"]), (&"success".into(), &"c".into()));
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1));
    let decisions = job["decisions"].as_array().expect("decisions");
    for decision in decisions {
        assert!(decision["reason"].is_string() && decision["took_us"].is_number(), "{decision}");
    }
    assert!(decisions.iter().any(|decision| decision["hook"] == "route"), "{job}");
    assert!(!admin.get_json("/api/decisions").await["decisions"].as_array().expect("a list").is_empty());
    assert_eq!(admin.get("/api/jobs/unseen").await.status, 404);
    assert_eq!(admin.get("/nowhere").await.status, 404);
    assert_eq!(router.http().get("/metrics").await.status, 404, "clients do not see the operator's face");
}

#[tokio::test]
async fn a_drained_instance_gets_nothing_until_it_is_resumed() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    router.admin().send(Method::POST, "/api/fleet/i0/drain", "").await.ok();
    for colour in 0..4 {
        let id = client.post(&plain(colour)).await;
        client.end_of(&id).await;
    }
    assert_eq!((fleet.executions()[0].len(), fleet.executions()[1].len()), (0, 4));
    router.admin().send(Method::POST, "/api/fleet/i0/resume", "").await.ok();
    fleet.hold();
    client.post(&plain(0x10)).await;
    client.post(&plain(0x11)).await;
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    client.all_done().await;
}

#[tokio::test]
async fn log_lines_about_a_job_name_it() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).argument("--log-format", "json").start().await;
    let client = Client::connect(&router, "c").await;
    let id = client.post(&plain(1)).await;
    client.end_of(&id).await;
    let job = router.job(&id).await["id"].as_str().expect("an id").to_owned();
    let log = router.log();
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let about: Vec<_> = lines.iter().filter(|line| line["job"] == job.as_str()).collect();
    assert!(!about.is_empty(), "lines about the job:\n{log}");
    assert!(about.iter().any(|line| line["instance"] == "i0"), "{about:?}");
}
