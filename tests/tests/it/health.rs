//! What probes and `serve --check` are told is true.

use comfy_router_tests::{Client, Fleet, Router, Serve, eventually, failed_start, placed, plain};
use serde_json::{Value, json};

async fn unready(router: &Router) -> Value {
    let answer = router.admin().get("/readyz").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["ready"], false);
    body["reasons"].clone()
}

fn says(reasons: &Value, part: &str) -> bool {
    let all = reasons.as_array().expect("a list");
    all.iter().any(|reason| reason.as_str().is_some_and(|reason| reason.contains(part)))
}

#[tokio::test]
async fn a_router_without_an_instance_is_alive_and_not_ready() {
    let mut fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let ready = router.admin().get_json("/readyz").await;
    assert_eq!((&ready["ready"], &ready["reasons"]), (&json!(true), &json!([])));
    fleet.crash(1).await;
    router.instances_down(1).await;
    assert_eq!(router.admin().get_json("/readyz").await["instances_up"], 1, "one is enough");
    fleet.crash(0).await;
    router.instances_down(2).await;
    let reasons = unready(&router).await;
    assert!(says(&reasons, "no instance is up: i0 is down (") && says(&reasons, "i1 is down ("), "{reasons}");
    router.admin().get("/livez").await.ok();
    fleet.restart(0).await;
    router.instances_up(1).await;
    router.admin().get("/readyz").await.ok();
}

#[tokio::test]
async fn a_router_whose_ledger_is_full_is_not_ready_until_there_is_room() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).set("ledger.max_file_mib=1").start().await;
    let client = Client::connect(&router, "c").await;
    let mut graph = plain(1);
    graph["1"]["_meta"] = json!({ "title": "x".repeat(100_000) });
    let refused = eventually("a prompt that is refused", || async {
        let answer = client.try_post(json!({ "prompt": graph })).await;
        (answer.status != 200).then_some(answer)
    });
    assert!(refused.await.status.is_server_error());
    let reasons = unready(&router).await;
    assert!(says(&reasons, "no room left for the ledger"), "{reasons}");
    router.admin().get("/livez").await.ok();

    client.http.post("/queue", &json!({ "clear": true })).await.ok();
    fleet.open();
    client.all_done().await;
    client.http.post("/history", &json!({ "clear": true })).await.ok();
    eventually("readiness", || async { (router.admin().get("/readyz").await.status == 200).then_some(()) })
        .await;
}

async fn check(arguments: &[&str]) -> (Option<i32>, String) {
    let exit = failed_start(&[&["serve", "--check"], arguments].concat(), &[]).await;
    (exit.code, exit.out + &exit.err)
}

#[tokio::test]
async fn a_check_passes_where_a_start_would_and_leaves_nothing() {
    let fleet = Fleet::of(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let (code, said) = check(&placed(&fleet.instances()[0], &state)).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("everything is in order"), "{said}");
    assert!(std::fs::read_dir(folder.path()).expect("a folder").next().is_none(), "nothing is left");
}

#[tokio::test]
async fn a_check_says_everything_that_is_wrong() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").expect("a file");
    let state = file.join("state");
    let state = state.to_str().expect("UTF-8");
    let (code, said) = check(&[
        "--instance",
        "gone=http://127.0.0.1:1",
        "--state-dir",
        state,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &taken,
    ])
    .await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["not reachable: gone", "cannot write the state directory", state] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_check_beside_a_running_router_passes() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let state = router.state_dir();
    let listen = router.url().trim_start_matches("http://");
    let (code, said) = check(&[
        "--instance",
        &fleet.instances()[0],
        "--state-dir",
        state.to_str().expect("UTF-8"),
        "--listen",
        listen,
    ])
    .await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a router runs on this state directory"), "{said}");
}

#[tokio::test]
async fn a_check_looks_at_the_components_of_single_interfaces_too() {
    let fleet = Fleet::of(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broken.wasm");
    std::fs::write(&file, "no component").expect("written");
    let hook = format!("policy.hooks.housekeeping={:?}", file.display().to_string());
    let state = folder.path().join("state");
    let instances = fleet.instances();
    let arguments = [&placed(&instances[0], &state)[..], &["--set", &hook]].concat();
    let (code, said) = check(&arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("broken.wasm") && said.contains("not WebAssembly"), "{said}");
}
