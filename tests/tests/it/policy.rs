//! The policy is a file that may change, be broken or be hostile while jobs run.

use comfy_router_tests::{Client, Fleet, PolicyFile, Router, Serve, component, eventually, kinds, plain};
use serde_json::Value;

async fn policy(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await
}

/// The version that serves: name and digest.
async fn serving(router: &Router) -> Value {
    policy(router).await["serving"].clone()
}

/// Waits until another version serves.
async fn swapped(router: &Router, before: &Value) -> Value {
    eventually("another version serves", || async {
        let now = serving(router).await;
        (now != *before).then_some(now)
    })
    .await
}

/// The versions that were asked where this job should run.
async fn routed_by(router: &Router, id: &str) -> Vec<Value> {
    let job = router.job(id).await;
    let decisions = job["decisions"].as_array().expect("decisions");
    let routed = decisions.iter().filter(|decision| decision["hook"] == "route");
    routed.map(|decision| decision["version"].clone()).collect()
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
    let router = Serve::over(fleet.instances()).patient().policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let before = runs(&client, 1).await;
    let old = serving(&router).await;
    assert_eq!(routed_by(&router, &before).await, std::slice::from_ref(&old));

    // Jobs run and wait while the file is replaced.
    fleet.hold();
    let mut ids = Vec::new();
    for colour in 2..=9 {
        ids.push(client.post(&plain(colour)).await);
    }
    fleet.held(0).await;
    fleet.held(1).await;
    file.replace(&component("fair-share"));
    let new = swapped(&router, &old).await;
    assert_ne!(new["digest"], old["digest"]);
    fleet.open();
    for id in &ids {
        let said = client.end_of(id).await;
        assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    }
    for id in &ids[2..] {
        let by = routed_by(&router, id).await;
        assert_eq!(by.last(), Some(&new), "{id} was routed by {by:?}");
    }
    for (digest, least) in [(&old["digest"], 3.0), (&new["digest"], 6.0)] {
        let version = digest.as_str().expect("a digest");
        let decided = router.metric("comfy_router_decisions_total", version).await;
        assert!(decided >= least, "{version} decided {decided} times");
    }
    assert!(router.metric("comfy_router_policy_swaps_total", "").await >= 1.0);
}

#[tokio::test]
async fn replacing_the_policy_again_and_again_fails_no_job() {
    let fleet = Fleet::of(3).await;
    let file = PolicyFile::holding(&component("least-loaded"));
    let router = Serve::over(fleet.instances()).patient().policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let done = std::cell::Cell::new(false);
    let swapping = async {
        let mut version = serving(&router).await;
        for at in 0..10 {
            file.replace(&component(["fair-share", "model-affinity", "least-loaded"][at % 3]));
            version = swapped(&router, &version).await;
        }
        done.set(true);
    };
    let posting = async {
        let mut ids = Vec::new();
        while !done.get() {
            ids.push(runs(&client, ids.len() as u32).await);
        }
        ids
    };
    let (ids, ()) = tokio::join!(posting, swapping);
    let serving = serving(&router).await;
    let mut versions = Vec::new();
    for id in ids {
        let by = routed_by(&router, &id).await;
        assert_eq!(by.len(), 1, "one version decided about {id}: {by:?}");
        versions.extend(by);
    }
    versions.dedup();
    assert!(versions.len() > 1, "jobs ran under several versions");
    assert!(router.metric("comfy_router_policy_swaps_total", "").await >= 10.0, "{serving} is not the first");
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_policy_in_charge_and_says_why() {
    let fleet = Fleet::of(1).await;
    let file = PolicyFile::holding(&component("least-loaded"));
    let router = Serve::over(fleet.instances()).policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let old = serving(&router).await;
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
        assert_eq!(status["serving"], old);
        assert!(status["refused"]["message"].as_str().is_some_and(|why| why.len() > 10), "{status}");
        let id = runs(&client, 0x100 + count as u32).await;
        assert_eq!(routed_by(&router, &id).await, std::slice::from_ref(&old));
    }
    // Another component from elsewhere takes nothing away from that; a good file does.
    let upload = PolicyFile::holding(&component("matcher"));
    let elsewhere = upload.path();
    let swap = ["policy", "swap", elsewhere.to_str().expect("UTF-8"), "--as", "shadow"];
    router.command(&swap).await;
    assert!(policy(&router).await["refused"].is_object());
    file.replace(&component("fair-share"));
    let new = swapped(&router, &old).await;
    eventually("what was refused is past", || async {
        policy(&router).await["refused"].is_null().then_some(())
    })
    .await;
    let id = runs(&client, 0x200).await;
    assert_eq!(routed_by(&router, &id).await, [new]);
}

#[tokio::test]
async fn a_hostile_policy_leaves_the_router_unharmed() {
    for deed in ["loop", "trap", "memory", "host_calls", "unknown", "long_list"] {
        let fleet = Fleet::of(2).await;
        let file = PolicyFile::holding(&component("hostile"));
        // The sample calls before it is taken into service, which are dated 2023, do not see it misbehave.
        let serve = Serve::over(fleet.instances()).policy(&file.path());
        let serve = serve.set(r#"policy.settings.on="route""#).set(&format!("policy.settings.do={deed:?}"));
        let router = serve.set("policy.settings.from_ms=1_750_000_000_000.0").start().await;
        assert!(policy(&router).await["newest"].is_object(), "{deed} is in service");
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

#[tokio::test]
async fn a_policy_that_places_fills_every_slot_and_loses_nothing_when_it_fails() {
    for deed in ["match", "nobody", "duplicate", "trap"] {
        let fleet = Fleet::of(3).await;
        let file = PolicyFile::holding(&component("matcher"));
        let serve = Serve::over(fleet.instances()).patient().policy(&file.path());
        // The sample calls before it is taken into service, which are dated 2023, do not see it misbehave.
        let serve = serve
            .set(&format!("policy.settings.do={deed:?}"))
            .set("policy.settings.from_ms=1_750_000_000_000.0");
        let router = serve.start().await;
        let client = Client::connect(&router, "c").await;
        fleet.hold();
        let mut ids = Vec::new();
        for colour in 1..=6 {
            ids.push(client.post(&plain(colour)).await);
        }
        // Left out by the policy they start all the same once they were held as long as may be; nobody waits for that.
        if deed != "nobody" {
            for at in 0..3 {
                fleet.held(at).await;
            }
            fleet.open();
            for id in &ids {
                let said = client.end_of(id).await;
                assert!(kinds(&said).contains(&"execution_success".to_owned()), "{deed}: {:?}", kinds(&said));
            }
            let job = router.job(&ids[0]).await;
            let placed =
                job["decisions"].as_array().expect("decisions").iter().rfind(|d| d["hook"] == "place");
            let placed = placed.expect("it was placed");
            assert_eq!(
                (&placed["fallback"].is_null(), &placed["seen"]["candidates"].is_array()),
                (&(deed == "match"), &true)
            );
        }
        // One that fails three times in a row is switched off, and with it the question that only it is asked.
        if matches!(deed, "match" | "nobody") {
            assert_eq!(
                router.metric("comfy_router_decisions_total", "route").await,
                0.0,
                "route is not asked"
            );
        }
        eventually("place is asked", || async {
            (router.metric("comfy_router_decisions_total", "place").await >= 1.0).then_some(())
        })
        .await;
    }
}
