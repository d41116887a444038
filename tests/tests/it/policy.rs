//! The policy is a file that may change, be broken or be hostile while jobs run.

use comfy_router_tests::{Client, Fleet, PolicyFile, Router, Serve, component, eventually, kinds, plain};
use serde_json::Value;

async fn policy(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await
}

/// The policies that decided where this job runs.
async fn routed_by(router: &Router, id: &str) -> Vec<String> {
    let job = router.job(id).await;
    let decisions = job["decisions"].as_array().expect("decisions");
    let routed = decisions.iter().filter(|decision| decision["hook"] == "route");
    routed.map(|decision| decision["policy"]["name"].as_str().expect("a name").to_owned()).collect()
}

async fn runs(client: &Client, colour: u32) -> String {
    let id = client.post(&plain(colour)).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    id
}

#[tokio::test]
async fn a_new_file_decides_from_the_next_decision_on() {
    let fleet = Fleet::of(2).await;
    let file = PolicyFile::holding(&component("least-loaded"));
    let router = Serve::over(fleet.instances()).policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let before = runs(&client, 1).await;
    let first = policy(&router).await["serving"].clone();
    assert_eq!(first["name"], "least-loaded");
    assert_eq!(routed_by(&router, &before).await, ["least-loaded"]);

    // Jobs run and wait while the file is replaced.
    fleet.hold();
    let mut ids = Vec::new();
    for colour in 2..=9 {
        ids.push(client.post(&plain(colour)).await);
    }
    fleet.held(0).await;
    fleet.held(1).await;
    file.replace(&component("fair-share"));
    eventually("the new policy serves", || async {
        (policy(&router).await["serving"]["name"] == "fair-share").then_some(())
    })
    .await;
    fleet.open();
    for id in &ids {
        let said = client.end_of(id).await;
        assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    }
    for id in &ids[2..] {
        let by = routed_by(&router, id).await;
        assert_eq!(by.last().map(String::as_str), Some("fair-share"), "{id} was routed by {by:?}");
    }
    assert_ne!(policy(&router).await["serving"]["digest"], first["digest"]);
    assert!(router.metric("comfy_router_decisions_total", "fair-share").await > 0.0);
    assert!(router.metric("comfy_router_policy_swaps_total", "").await >= 1.0);
    assert_eq!(router.metric("comfy_router_policy_fallbacks_total", "").await, 0.0, "no decision fell back");
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_policy_in_charge_and_says_why() {
    let fleet = Fleet::of(1).await;
    let file = PolicyFile::holding(&component("least-loaded"));
    let router = Serve::over(fleet.instances()).policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let serving = policy(&router).await["serving"].clone();
    // A module that is no component, and something that is not WebAssembly at all.
    let broken: [&[u8]; 2] = [b"\0asm\x01\0\0\0", b"this is not WebAssembly"];
    for (count, content) in broken.into_iter().enumerate() {
        file.replace(content);
        let failures = (count + 1) as f64;
        eventually("the file is refused", || async {
            let refused = router.metric("comfy_router_policy_load_failures_total", "").await;
            (refused >= failures).then_some(())
        })
        .await;
        let status = policy(&router).await;
        assert_eq!(status["serving"], serving);
        assert!(status["refused"]["message"].as_str().is_some_and(|why| why.len() > 10), "{status}");
        let id = runs(&client, 0x100 + count as u32).await;
        assert_eq!(routed_by(&router, &id).await, ["least-loaded"]);
    }
    file.replace(&component("fair-share"));
    eventually("a good file serves", || async {
        (policy(&router).await["serving"]["name"] == "fair-share").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hostile_policy_leaves_the_router_unharmed() {
    for deed in ["loop", "trap", "memory", "host_calls", "unknown", "long_list"] {
        let fleet = Fleet::of(2).await;
        let file = PolicyFile::holding(&component("hostile"));
        // From 1 ms on: the sample calls before it is taken into service do not see it misbehave.
        let serve = Serve::over(fleet.instances()).policy(&file.path());
        let serve = serve.set(r#"policy.settings.on="route""#).set(&format!("policy.settings.do={deed:?}"));
        let router = serve.set("policy.settings.from_ms=1000.0").start().await;
        assert_eq!(policy(&router).await["newest"]["version"]["name"], "hostile", "{deed} is loaded");
        let client = Client::connect(&router, "c").await;
        for colour in 1..=5 {
            runs(&client, colour).await;
        }
        let fallbacks = router.metric("comfy_router_policy_fallbacks_total", "").await;
        assert!(fallbacks > 0.0, "{deed}: the built-in stood in");
        assert_eq!(router.admin().get("/readyz").await.status, 200, "{deed}");
    }
}

#[tokio::test]
async fn a_policy_that_does_not_start_is_no_reason_not_to_serve() {
    let fleet = Fleet::of(1).await;
    let file = PolicyFile::holding(b"not a policy");
    let router = Serve::over(fleet.instances()).policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    runs(&client, 3).await;
    let status = policy(&router).await;
    assert!(status["refused"]["message"].is_string(), "{status}");
}
