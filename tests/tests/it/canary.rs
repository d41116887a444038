//! When a canary is returned, as the configuration says, and how much it and a policy that places are given.

use comfy_router_tests::{
    Client, Fleet, PolicyFile, Router, Serve, component, eventually, failed_start, plain,
};
use comfyui_emulator::Fault;
use serde_json::{Value, json};

async fn policy(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await
}

/// The version with this state: digest and reason.
async fn version(router: &Router, state: &str) -> Option<(String, String)> {
    let policy = policy(router).await;
    let row = policy["versions"].as_array()?.iter().find(|row| row["state"] == state)?;
    let digest = row["version"]["digest"].as_str()?.to_owned();
    Some((digest, row["reason"].as_str().unwrap_or_default().to_owned()))
}

/// Posted while nothing runs, then run one after the other to the end.
async fn burst(fleet: &Fleet, client: &Client, jobs: u32) -> Vec<String> {
    fleet.hold();
    let mut ids = Vec::new();
    for colour in 0..jobs {
        ids.push(client.post(&plain(colour)).await);
    }
    fleet.held(0).await;
    fleet.open();
    for id in &ids {
        client.end_of(id).await;
    }
    ids
}

async fn decided_by(router: &Router, id: &str, hook: &str) -> Vec<Value> {
    let job = router.job(id).await;
    let decisions = job["decisions"].as_array().expect("decisions").iter();
    decisions.filter(|decision| decision["hook"] == hook).cloned().collect()
}

/// A router with a canary that thinks little of each job, so that they wait for those of the live version.
async fn modest(fleet: &Fleet, limits: &[&str]) -> (Router, PolicyFile) {
    let mut serve = Serve::over(fleet.instances()).patient();
    for limit in limits {
        serve = serve.set(&format!("policy.canary.{limit}"));
    }
    let router = serve.start().await;
    let file = PolicyFile::holding(&component("hostile"));
    let path = file.path();
    let swap = ["policy", "swap", path.to_str().expect("UTF-8"), "--as", "canary", "--share", "0.5"];
    router.command(&swap).await;
    (router, file)
}

#[tokio::test]
async fn a_canary_whose_jobs_wait_longer_is_returned_and_they_run_all_the_same() {
    let fleet = Fleet::of(1).await;
    let limits = ["attempts=5", "wait_percent=0", "wait_ms=1"];
    let (router, _file) = modest(&fleet, &limits).await;
    let (digest, _) = version(&router, "canary").await.expect("a canary");
    let client = Client::connect(&router, "c").await;
    burst(&fleet, &client, 40).await;
    let (failed, why) = eventually("it is returned", || async { version(&router, "failed").await }).await;
    assert_eq!(failed, digest);
    assert!(why.starts_with("its jobs wait ") && why.contains(" ms, the others "), "{why}");
    assert!(policy(&router).await["lanes"][0]["canary"].is_null());
    assert_eq!(router.metric("comfy_router_policy_canaries_ended_total", "returned").await, 1.0);
    assert!(router.log().contains("canary ended"), "{}", router.log());
    assert!(router.command(&["policy", "list"]).await.contains("its jobs wait "));
    let after = client.post(&plain(99)).await;
    client.end_of(&after).await;
    let routed = decided_by(&router, &after, "route").await;
    assert!(routed.iter().all(|decision| decision["version"]["digest"] != *digest), "{routed:?}");
}

/// Jobs one after the other, of which those of the canary fail, until each side has so many.
async fn its_jobs_fail(fleet: &Fleet, client: &Client, router: &Router, digest: &str, each: usize) {
    let order =
        async |act: &str| router.admin().post(&format!("/api/fleet/i0/{act}"), &Value::Null).await.ok();
    let mut ran = [0, 0];
    while ran.iter().any(|ended| *ended < each) {
        // It waits until it is known whose it is.
        order("drain").await;
        let id = client.post(&plain(ran.iter().sum::<usize>() as u32)).await;
        let judged = eventually("it is known by whom it was judged", || async {
            decided_by(router, &id, "prioritize").await.pop()
        });
        let its = judged.await["version"]["digest"] == *digest;
        if its {
            fleet.control(0).inject(Fault::NodeError { message: "out of paint".into(), count: 1 });
        }
        ran[usize::from(its)] += 1;
        order("resume").await;
        client.end_of(&id).await;
    }
}

#[tokio::test]
async fn a_canary_whose_jobs_fail_is_returned_and_kept_where_so_many_failures_are_allowed() {
    for (percent, returned) in [(99, true), (100, false)] {
        let fleet = Fleet::of(1).await;
        let limits = ["attempts=3", &format!("failures_percent={percent}"), "wait_ms=600000"];
        let (router, _file) = modest(&fleet, &limits).await;
        let (digest, _) = version(&router, "canary").await.expect("a canary");
        let client = Client::connect(&router, "c").await;
        its_jobs_fail(&fleet, &client, &router, &digest, 3).await;
        if returned {
            let (failed, why) =
                eventually("it is returned", || async { version(&router, "failed").await }).await;
            assert_eq!((failed, &*why), (digest, "100 % of its attempts fail, of the others 0 %"));
            assert_eq!(router.metric("comfy_router_policy_canaries_ended_total", "returned").await, 1.0);
            continue;
        }
        let trial = eventually("all are counted", || async {
            let trial = policy(&router).await["lanes"][0]["canary"].clone();
            let enough = |side: &str| trial[side]["ended"].as_u64() >= Some(3);
            (enough("canary") && enough("live")).then_some(trial)
        })
        .await;
        assert_eq!(
            (&trial["canary"]["failed"], &trial["live"]["failed"]),
            (&trial["canary"]["ended"], &json!(0))
        );
        assert_eq!(version(&router, "canary").await.map(|(digest, _)| digest), Some(digest));
    }
}

#[tokio::test]
async fn a_canary_is_kept_where_so_much_waiting_is_allowed_or_too_little_is_known() {
    for limits in [
        ["attempts=5", "wait_percent=100000"],
        ["attempts=30", "wait_percent=0"],
        ["attempts=5", "wait_ms=600000"],
    ] {
        let fleet = Fleet::of(1).await;
        let (router, _file) = modest(&fleet, &[&limits[..], &["failures_percent=100"]].concat()).await;
        let client = Client::connect(&router, "c").await;
        let ids = burst(&fleet, &client, 40).await;
        let trial = eventually("all are counted", || async {
            let trial = policy(&router).await["lanes"][0]["canary"].clone();
            let ended = trial["canary"]["ended"].as_u64()? + trial["live"]["ended"].as_u64()?;
            (ended == 40).then_some(trial)
        })
        .await;
        let wait = |side: &str| trial[side]["mean_wait_ms"].as_f64().expect("a number");
        assert!(wait("canary") > wait("live") + 1.0, "its jobs did wait: {trial}");
        // What it was given is what its share of the jobs was.
        let digest = trial["version"]["digest"].clone();
        let mut its = 0;
        for id in &ids {
            let routed = decided_by(&router, id, "route").await;
            its += u64::from(routed.last().is_some_and(|decision| decision["version"]["digest"] == digest));
        }
        assert_eq!(trial["canary"]["ended"], its, "{trial}");
        assert_eq!(
            version(&router, "canary").await.map(|(digest, _)| json!(digest)),
            Some(digest),
            "{limits:?}"
        );
    }
}

#[tokio::test]
async fn a_share_is_kept_to_at_both_ends_and_no_share_is_refused() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).patient().start().await;
    let client = Client::connect(&router, "c").await;
    let file = PolicyFile::holding(&component("least-loaded"));
    let path = file.path().to_str().expect("UTF-8").to_owned();
    for share in ["0", "1", "-0.5", "1.5", "NaN", "inf"] {
        let share = format!("--share={share}");
        let swap = ["policy", "swap", &path, "--as", "canary", &share, "--admin", router.admin_url()];
        let refused = failed_start(&swap, &[]).await;
        assert_ne!(refused.code, Some(0), "{share}: {}", refused.out);
        assert!(refused.err.contains("share"), "{share}: {}", refused.err);
        assert!(policy(&router).await["lanes"][0]["canary"].is_null(), "{share}");
    }
    // Less than one in a million, more than all but that.
    for (share, all) in [("0.0000001", false), ("0.9999999", true)] {
        router.command(&["policy", "swap", &path, "--as", "canary", "--share", share]).await;
        let (digest, _) = version(&router, "canary").await.expect("a canary");
        for colour in 0..10 {
            let id = client.post(&plain(colour)).await;
            client.end_of(&id).await;
            let routed = decided_by(&router, &id, "route").await;
            let by_canary = routed.iter().all(|decision| decision["version"]["digest"] == *digest);
            assert_eq!(by_canary, all, "{share}: {routed:?}");
        }
    }
}

#[tokio::test]
async fn a_policy_that_places_is_asked_about_the_window_that_is_configured() {
    for (window, asked) in [(3, "of 3 jobs"), (500, "of 7 jobs")] {
        let fleet = Fleet::of(1).await;
        let file = PolicyFile::holding(&component("matcher"));
        let serve = Serve::over(fleet.instances()).patient().policy(&file.path());
        let router = serve.set(&format!("policy.window={window}")).start().await;
        let client = Client::connect(&router, "c").await;
        let ids = burst(&fleet, &client, 8).await;
        let placed = decided_by(&router, &ids[1], "place").await;
        let last = placed.last().expect("it was placed");
        assert!(last["reason"].as_str().is_some_and(|why| why.contains(asked)), "window {window}: {last}");
        assert!(last["fallback"].is_null(), "{last}");
    }
}
