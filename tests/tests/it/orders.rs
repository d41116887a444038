//! What an operator ordered about the policy at night holds in the morning.

use comfy_router_tests::{Client, Fleet, PolicyFile, Router, Serve, component, kinds, plain};
use serde_json::Value;

async fn status(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await
}

async fn serving(router: &Router) -> String {
    status(router).await["serving"]["digest"].as_str().expect("a digest").to_owned()
}

/// Killed, so that nothing is written in farewell, and started again.
async fn killed_and_back(router: &mut Router) {
    router.kill();
    router.start_again().await;
    router.instances_up(1).await;
}

async fn decided_by(router: &Router) -> String {
    let client = Client::connect(router, "c").await;
    let id = client.post(&plain(7)).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    let job = router.job(&id).await;
    let decisions = job["decisions"].as_array().expect("decisions").iter();
    let mut routed = decisions.filter(|decision| decision["hook"] == "route");
    let route = routed.next_back().expect("it was routed");
    route["version"]["digest"].as_str().expect("a digest").to_owned()
}

/// A file whose name is the policy's.
fn file(folder: &tempfile::TempDir, name: &str) -> String {
    let path = folder.path().join(format!("{name}.wasm"));
    std::fs::write(&path, component(name)).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn a_swap_and_a_rollback_hold_after_a_restart_until_they_are_taken_back() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).patient().start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let first = serving(&router).await;
    assert_eq!(status(&router).await["ordered"], serde_json::json!([]));
    router
        .command(&[
            "policy",
            "swap",
            &file(&folder, "fair-share"),
            "--settings",
            r#"{"default_weight": 2.0}"#,
        ])
        .await;
    let second = serving(&router).await;

    killed_and_back(&mut router).await;
    assert_eq!(serving(&router).await, second, "the same component, told the same");
    assert_eq!(decided_by(&router).await, second);
    let list = router.command(&["policy", "list"]).await;
    assert!(list.contains("by an operator's order, not what is configured (model-affinity)"), "{list}");
    assert!(router.log().contains("an operator's order about the policy holds"), "{}", router.log());

    // What it would return to is there too; and what is configured is no order.
    router.command(&["policy", "rollback"]).await;
    assert_eq!(serving(&router).await, first);
    assert_eq!(status(&router).await["ordered"], serde_json::json!([]));
    killed_and_back(&mut router).await;
    assert_eq!(serving(&router).await, first);

    router.command(&["policy", "swap", &file(&folder, "least-loaded")]).await;
    assert_ne!(serving(&router).await, first);
    router.command(&["policy", "unpin"]).await;
    assert_eq!(serving(&router).await, first);
    killed_and_back(&mut router).await;
    assert_eq!(serving(&router).await, first);
}

#[tokio::test]
async fn a_file_that_was_rolled_back_stays_so_and_the_next_one_serves() {
    let fleet = Fleet::of(1).await;
    let file = PolicyFile::holding(&component("least-loaded"));
    let path = file.path();
    let serve = Serve::over(fleet.instances()).patient().argument("--policy", path.to_str().expect("UTF-8"));
    let mut router = serve.start().await;
    let good = serving(&router).await;
    file.replace(&component("fair-share"));
    comfy_router_tests::eventually("the new file serves", || async {
        (serving(&router).await != good).then_some(())
    })
    .await;
    router.command(&["policy", "rollback"]).await;
    assert_eq!(serving(&router).await, good);
    killed_and_back(&mut router).await;
    assert_eq!(serving(&router).await, good, "not what lies in the file");
    assert_eq!(decided_by(&router).await, good);

    // A broken file is no reason to serve nothing; a good one ends the order.
    router.kill();
    file.replace(b"no component");
    router.start_again().await;
    assert_eq!(serving(&router).await, good);
    assert!(router.log().contains("what is configured now cannot serve, what was ordered before does"));
    router.kill();
    file.replace(&component("model-affinity"));
    router.start_again().await;
    router.instances_up(1).await;
    let next = serving(&router).await;
    assert_ne!(next, good);
    assert!(router.log().contains("an operator's order about the policy is over"));
    killed_and_back(&mut router).await;
    assert_eq!(serving(&router).await, next);
    assert_eq!(status(&router).await["ordered"], serde_json::json!([]));
}

#[tokio::test]
async fn a_canary_and_a_shadow_go_on_after_a_restart_and_are_withdrawn_for_good() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).patient().start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let live = serving(&router).await;
    router
        .command(&["policy", "swap", &file(&folder, "fair-share"), "--as", "canary", "--share", "0.25"])
        .await;
    router.command(&["policy", "swap", &file(&folder, "least-loaded"), "--as", "shadow"]).await;
    let before = status(&router).await["lanes"][0].clone();
    killed_and_back(&mut router).await;
    let after = status(&router).await["lanes"][0].clone();
    assert_eq!(serving(&router).await, live);
    for trial in ["canary", "shadow"] {
        assert!(before[trial]["version"].is_object(), "{before}");
        assert_eq!(before[trial]["version"], after[trial]["version"], "the {trial}");
    }
    assert_eq!(after["canary"]["share"], 0.25);
    assert!(router.log().contains("a canary was on trial before the restart"));
    router.command(&["policy", "withdraw"]).await;
    killed_and_back(&mut router).await;
    let after = status(&router).await["lanes"][0].clone();
    assert!(after["canary"].is_null() && after["shadow"].is_null(), "{after}");
    let kept = std::fs::read_dir(router.state_dir().join("policy/versions")).expect("a folder").count();
    assert!(kept <= 2, "what could serve no more is not kept: {kept} files");
}

#[tokio::test]
async fn a_second_router_on_the_same_state_leaves_the_orders_of_the_first_alone() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).patient().start().await;
    let folder = tempfile::tempdir().expect("a folder");
    router.command(&["policy", "swap", &file(&folder, "fair-share")]).await;
    let ordered = serving(&router).await;
    let orders = || std::fs::read_to_string(router.state_dir().join("policy/orders.json")).expect("orders");
    let before = orders();
    let state = router.state_dir();
    let (instances, policy) = (fleet.instances(), file(&folder, "least-loaded"));
    let arguments =
        [&["serve"], &comfy_router_tests::placed(&instances[0], &state)[..], &["--policy", &policy]].concat();
    let exit = comfy_router_tests::failed_start(&arguments, &[]).await;
    assert!(exit.code == Some(1) && exit.err.contains("in use"), "{}", exit.err);
    assert_eq!(orders(), before);
    killed_and_back(&mut router).await;
    assert_eq!(serving(&router).await, ordered);
}
