//! Instances that the router starts itself.

use comfy_router_tests::{Client, Launched, LaunchedProcess, Router, eventually, plain, run};
use serde_json::json;

fn process(router: &Router, instance: &str) -> LaunchedProcess {
    LaunchedProcess::of(router, instance).expect("is recorded")
}

async fn another(router: &Router, instance: &str, before: u64) -> LaunchedProcess {
    eventually("another process", || async {
        LaunchedProcess::of(router, instance).filter(|process| process.pid != before)
    })
    .await
}

#[tokio::test]
async fn launched_instances_run_jobs_and_end_with_the_router() {
    let launched = Launched::of(2, "gpus = []\nper_gpu = 2");
    let mut router = launched.serve().start().await;
    let client = Client::connect(&router, "one").await;
    for colour in 1..=4 {
        let id = client.post(&plain(colour)).await;
        client.end_of(&id).await;
        assert_eq!(client.colour_made_by(&id).await, colour);
    }
    let processes = ["local-0", "local-1"].map(|name| process(&router, name));
    for process in &processes {
        assert!(process.lives() && process.log().contains("listening on"), "{}", process.log());
    }
    let fleet = router.admin().get_json("/api/fleet").await;
    assert_eq!(fleet["instances"][1]["name"], "local-1");
    let log = router.log();
    assert!(!log.contains("take it out of the configuration"), "that is no advice here:\n{log}");

    router.stop().await;
    assert!(processes.iter().all(|process| !process.lives()));
    assert!(!launched.listens(0).await && !launched.listens(1).await);
    assert!(!router.log().contains("instance is down"), "that they end is no news");
}

#[tokio::test]
async fn a_launched_instance_that_dies_is_started_again_and_its_job_is_done() {
    let launched = Launched::of(1, "gpus = []");
    let router = launched.serve().set("fleet.poll_ms=100").start().await;
    let client = Client::connect(&router, "one").await;
    let instance = comfy_router_tests::Http::new(
        router.admin().get_json("/api/fleet").await["instances"][0]["url"].as_str().expect("a url"),
    );
    instance.post("/emulator/gate", &json!({ "hold": true })).await.ok();
    let id = client.post(&plain(7)).await;
    eventually("the job runs", || async {
        (instance.get_json("/emulator/gate").await["held"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let first = process(&router, "local");
    first.kill();
    let second = another(&router, "local", first.pid).await;
    client.end_of(&id).await;
    assert_eq!(client.colour_made_by(&id).await, 7);
    assert_eq!(router.job(&id).await["attempts"].as_array().map(Vec::len), Some(2));
    assert!(second.lives() && !first.lives());
    assert!(router.log().contains("instance's process ended, it is started again"), "{}", router.log());
    let ends = router.metric("comfy_router_instance_process_ends_total", "local").await;
    assert!((ends - 1.0).abs() < f64::EPSILON, "{ends}");
    let shown = &router.admin().get_json("/api/fleet").await["instances"][0]["process"];
    assert_eq!((&shown["pid"], &shown["ends"]), (&json!(second.pid), &json!(1)));
    assert!(shown["last_end"].as_str().is_some_and(|how| how.starts_with("signal: 9")), "{shown}");
}

#[tokio::test]
async fn a_router_that_was_killed_is_followed_by_one_that_takes_its_instances_up() {
    let launched = Launched::of(1, "gpus = []");
    let mut router = launched.serve().start().await;
    let first = process(&router, "local");
    router.kill();
    assert!(first.lives());
    router.start_again().await;
    router.instances_up(1).await;
    assert_eq!(process(&router, "local").pid, first.pid);
    let client = Client::connect(&router, "one").await;
    let id = client.post(&plain(7)).await;
    client.end_of(&id).await;
    router.stop().await;
    assert!(!first.lives(), "it is this router's now");
}

#[tokio::test]
async fn kept_instances_outlive_the_router() {
    let launched = Launched::of(1, "gpus = []\nkeep = true");
    let mut router = launched.serve().start().await;
    let first = process(&router, "local");
    router.stop().await;
    assert!(first.lives() && launched.listens(0).await);
    router.start_again().await;
    router.instances_up(1).await;
    assert_eq!(process(&router, "local").pid, first.pid);
    router.stop().await;
    first.kill();
}

#[tokio::test]
async fn a_launched_instance_that_stops_answering_is_replaced_and_its_job_is_done() {
    let launched = Launched::of(1, "gpus = []\nstop_s = 1");
    let settings =
        ["fleet.poll_ms=100", "fleet.health_timeout_ms=500", "fleet.failures=2", "fleet.restart_after_s=1"];
    let router = settings.iter().fold(launched.serve(), |serve, setting| serve.set(setting)).start().await;
    let client = Client::connect(&router, "one").await;
    let first = process(&router, "local");
    first.stop();
    let id = client.post(&plain(7)).await;
    let second = another(&router, "local", first.pid).await;
    client.end_of(&id).await;
    assert_eq!(client.colour_made_by(&id).await, 7);
    assert!(second.lives() && !first.lives());
    assert!(router.log().contains("it has stopped answering"), "{}", router.log());
}

#[tokio::test]
async fn an_operator_restarts_a_launched_instance() {
    let launched = Launched::of(1, "gpus = []");
    let router = launched.serve().set("fleet.poll_ms=100").start().await;
    let first = process(&router, "local");
    router.admin().post("/api/fleet/local/restart", &json!({})).await.ok();
    let second = another(&router, "local", first.pid).await;
    assert!(!first.lives() && second.lives());
    router.instances_up(1).await;
}

#[tokio::test]
async fn each_is_pinned_to_its_gpu_and_knows_nothing_of_the_routers_secrets() {
    let launched = Launched::of(2, "gpus = [3, \"GPU-abc\"]\nenv = { SHOWN = \"{name} {gpu} {port}\" }");
    let key = "a-key-of-the-clients";
    let router = launched.serve().variable("COMFY_ROUTER_API_KEY", key).start().await;
    let (a, b) = (process(&router, "gpu3"), process(&router, "gpu-1"));
    for (process, gpu) in [(&a, "3"), (&b, "GPU-abc")] {
        assert_eq!(process.variable("CUDA_VISIBLE_DEVICES").as_deref(), Some(gpu));
        assert_eq!(process.variable("CUDA_DEVICE_ORDER").as_deref(), Some("PCI_BUS_ID"));
        assert_eq!(process.variable("COMFY_ROUTER_API_KEY"), None);
        assert!(process.variable("PATH").is_some(), "the rest is handed on");
    }
    assert!(b.variable("SHOWN").expect("is set").starts_with("gpu-1 GPU-abc "));
}

#[tokio::test]
async fn a_check_says_what_would_be_launched_and_launches_nothing() {
    let launched = Launched::of(2, "gpus = [0, 1]");
    let state = tempfile::tempdir().expect("a folder");
    let (file, dir) = (launched.file(), state.path().join("state"));
    let arguments = ["serve", "--check", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"];
    let paths = [file.to_str().expect("UTF-8"), "--state-dir", dir.to_str().expect("UTF-8")];
    let exit = run(&[&arguments[..], &paths[..]].concat());
    assert_eq!(exit.code, Some(0), "{}{}", exit.out, exit.err);
    assert!(exit.out.contains("would launch gpu0 at http://127.0.0.1:"), "{}", exit.out);
    assert!(exit.out.contains("on GPU 1"), "{}", exit.out);
    assert!(!dir.join("instances").exists());
}

#[tokio::test]
async fn without_a_gpu_to_be_found_the_start_says_what_to_write() {
    let launched = Launched::of(1, "");
    let state = tempfile::tempdir().expect("a folder");
    let (file, dir) = (launched.file(), state.path().join("state"));
    let paths = [file.to_str().expect("UTF-8"), "--state-dir", dir.to_str().expect("UTF-8")];
    let exit = run(&[&["serve", "--config"][..], &paths[..]].concat());
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.err.contains("telemetry.nvml is off") && exit.err.contains("launch.gpus = []"),
        "{}",
        exit.err
    );
}
