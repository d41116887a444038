//! Versions of the policy come, are tried, and go, by file, command and admin listener, while jobs run.

use std::time::{Duration, Instant};

use comfy_router_tests::{
    Client, Fleet, PolicyFile, Router, Serve, component, eventually, failed_start, kinds, plain,
};
use serde_json::Value;

async fn status(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await
}

async fn serving(router: &Router) -> String {
    status(router).await["serving"]["digest"].as_str().expect("a digest").to_owned()
}

/// State and reason of the version whose digest begins so.
async fn state(router: &Router, digest: &str) -> Vec<String> {
    let status = status(router).await;
    let rows = status["versions"].as_array().expect("versions");
    let its =
        rows.iter().filter(|row| row["version"]["digest"].as_str().is_some_and(|d| d.starts_with(digest)));
    its.map(|row| row["state"].as_str().expect("a state").to_owned()).collect()
}

async fn runs(client: &Client, colour: u32) -> String {
    let id = client.post(&plain(colour)).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    id
}

/// The digests that were asked where this job should run.
async fn routed_by(router: &Router, id: &str) -> Vec<String> {
    let job = router.job(id).await;
    let decisions = job["decisions"].as_array().expect("decisions").iter();
    let routed = decisions.filter(|decision| decision["hook"] == "route");
    routed.map(|decision| decision["version"]["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// A file with this component, whose name is the policy's.
fn file(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
    let path = folder.path().join(format!("{name}.wasm"));
    std::fs::write(&path, content).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn a_version_is_swapped_rolled_back_and_promoted_by_command() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).patient().start().await;
    let client = Client::connect(&router, "c").await;
    let first = serving(&router).await;
    let folder = tempfile::tempdir().expect("a folder");
    let fair = file(&folder, "fair", &component("fair-share"));

    assert!(router.command(&["policy", "swap", &fair]).await.starts_with("live: fair "));
    let second = serving(&router).await;
    assert_ne!(first, second);
    let id = runs(&client, 1).await;
    assert_eq!(routed_by(&router, &id).await, std::slice::from_ref(&second));
    assert_eq!(
        (state(&router, &first).await, state(&router, &second).await),
        (vec!["last_good".into()], vec!["live".into()])
    );

    router.command(&["policy", "rollback"]).await;
    assert_eq!(serving(&router).await, first);
    assert_eq!(state(&router, &second).await, ["retired"]);
    let nothing = failed_start(&["policy", "rollback", "--admin", router.admin().base()], &[]).await;
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.err.contains("no version to return to"), "{}", nothing.err);

    router.command(&["policy", "promote", &second[..6]]).await;
    assert_eq!(serving(&router).await, second);
    let list = router.command(&["policy", "list"]).await;
    for expected in ["live", "last_good", "shipped", "upload", &first, &second] {
        assert!(list.contains(expected), "{expected} in\n{list}");
    }

    let junk = file(&folder, "junk", b"no component");
    let refused = failed_start(&["policy", "swap", &junk, "--admin", router.admin().base()], &[]).await;
    assert!(refused.code == Some(1) && refused.err.contains("not WebAssembly"), "{}", refused.err);
    assert_eq!(serving(&router).await, second);
    assert!(router.command(&["policy", "list"]).await.contains("refused: the file is not WebAssembly"));
}

#[tokio::test]
async fn a_canary_that_fails_is_returned_and_no_job_with_it() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).patient().start().await;
    let client = Client::connect(&router, "c").await;
    let folder = tempfile::tempdir().expect("a folder");
    router.command(&["policy", "swap", &file(&folder, "good", &component("least-loaded"))]).await;
    let good = serving(&router).await;
    // The load gate's calls, which are dated 2023, see no trap.
    let settings = r#"{"on": "route", "do": "trap", "from_ms": 1750000000000.0}"#;
    let hostile = file(&folder, "hostile", &component("hostile"));
    let swap = ["policy", "swap", &hostile, "--as", "canary", "--share", "0.5", "--settings", settings];
    let said = router.command(&swap).await;
    let bad = said.trim().rsplit(' ').next().expect("a digest").to_owned();
    assert_eq!(
        (serving(&router).await, state(&router, &bad).await),
        (good.clone(), vec!["canary".to_owned()])
    );

    let mut colour = 0;
    while status(&router).await["lanes"][0]["canary"].is_object() {
        colour += 1;
        assert!(colour < 200, "three failures in a row end it");
        runs(&client, colour).await;
    }
    assert_eq!(state(&router, &bad).await, ["failed"]);
    assert_eq!(serving(&router).await, good);
    assert_eq!(router.metric("comfy_router_policy_canaries_ended_total", "returned").await, 1.0);
    // What was asked and what came of it was written down, once.
    let dumps = router.state_dir().join("policy").join("dumps");
    let dump = eventually("the last calls are written down", || async {
        let files = std::fs::read_dir(&dumps).ok()?.filter_map(|file| Some(file.ok()?.path()));
        files.filter(|path| path.extension().is_some_and(|end| end == "json")).last()
    })
    .await;
    let dump: Value = serde_json::from_slice(&std::fs::read(dump).expect("it is read")).expect("JSON");
    let last = dump["calls"].as_array().expect("calls").last().expect("a call");
    assert_eq!((&last["hook"], &last["answer"]["failed"]), (&"route".into(), &"trap".into()), "{last}");
    assert!(last["question"]["route"]["candidates"].is_array(), "{last}");
}

#[tokio::test]
async fn a_canary_decides_about_its_share_and_is_promoted() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).patient().start().await;
    let client = Client::connect(&router, "c").await;
    let live = serving(&router).await;
    let folder = tempfile::tempdir().expect("a folder");
    let fair = file(&folder, "fair", &component("fair-share"));
    router.command(&["policy", "swap", &fair, "--as", "canary", "--share", "0.5"]).await;
    assert_eq!(serving(&router).await, live);
    let (mut by_live, mut by_canary) = (0, 0);
    for colour in 0..60 {
        let id = runs(&client, colour).await;
        let job = router.job(&id).await;
        let of = |hook: &str| {
            let decisions = job["decisions"].as_array().expect("decisions").iter();
            decisions
                .filter(|d| d["hook"] == hook)
                .map(|d| d["version"]["digest"].clone())
                .collect::<Vec<_>>()
        };
        let (prioritized, routed) = (of("prioritize"), of("route"));
        assert_eq!(prioritized.last(), routed.last(), "one version decides all about a job");
        match routed.last() == Some(&live.clone().into()) {
            true => by_live += 1,
            false => by_canary += 1,
        }
    }
    // 60 fair coins: fewer than 10 of a kind come once in ten million times.
    assert!(by_live >= 10 && by_canary >= 10, "{by_live} and {by_canary}");
    router.command(&["policy", "promote"]).await;
    assert_ne!(serving(&router).await, live);
    assert_eq!(state(&router, &live).await, ["last_good"]);
}

#[tokio::test]
async fn a_shadow_is_compared_and_obeyed_in_nothing() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).patient().start().await;
    let client = Client::connect(&router, "c").await;
    let live = serving(&router).await;
    let folder = tempfile::tempdir().expect("a folder");
    let fair = file(&folder, "fair", &component("fair-share"));
    router.command(&["policy", "swap", &fair, "--as", "shadow"]).await;
    for colour in 0..5 {
        let id = runs(&client, colour).await;
        assert_eq!(routed_by(&router, &id).await, std::slice::from_ref(&live));
    }
    // Each job is asked about priority and place. The two rank alike in an idle fleet and score differently.
    let shadow = eventually("the shadow was asked", || async {
        let shadow = status(&router).await["lanes"][0]["shadow"].clone();
        (shadow["asked"].as_u64()? >= 10).then_some(shadow)
    })
    .await;
    assert!(shadow["agreed"].as_u64() >= Some(5), "{shadow}");
    let differences = shadow["differences"].as_array().expect("differences");
    assert!(differences.iter().any(|d| d["hook"] == "prioritize" && d["job"].is_string()), "{shadow}");
    assert!(router.command(&["policy", "list"]).await.contains("shadow of policy: agreed in "));
    router.command(&["policy", "withdraw"]).await;
    assert!(status(&router).await["lanes"][0]["shadow"].is_null());
}

#[tokio::test]
async fn versions_change_ten_times_a_second_and_each_decision_is_by_exactly_one() {
    let fleet = Fleet::of(3).await;
    let router = Serve::over(fleet.instances()).patient().start().await;
    let client = Client::connect(&router, "c").await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut digests = vec![serving(&router).await];
    for name in ["fair-share", "least-loaded"] {
        router.command(&["policy", "swap", &file(&folder, name, &component(name))]).await;
        digests.push(serving(&router).await);
    }
    // A minute where there is time for it; COMFY_ROUTER_TEST_ROUNDS counts tenths of a second.
    let rounds = comfy_router_tests::Chance::rounds(30);
    let done = std::cell::Cell::new(false);
    let swapping = async {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        let mut longest = Duration::ZERO;
        for at in 0..rounds as usize {
            every.tick().await;
            let asked = Instant::now();
            let path = format!("/api/policy/promote?digest={}", digests[at % 3]);
            router.admin().post(&path, &Value::Null).await.ok();
            longest = longest.max(asked.elapsed());
        }
        done.set(true);
        longest
    };
    let posting = async {
        let mut ids = Vec::new();
        while !done.get() {
            ids.push(runs(&client, ids.len() as u32).await);
        }
        ids
    };
    let (ids, longest) = tokio::join!(posting, swapping);
    let mut seen = std::collections::BTreeSet::new();
    for id in &ids {
        let by = routed_by(&router, id).await;
        assert_eq!(by.len(), 1, "one version decided about {id}: {by:?}");
        seen.extend(by);
    }
    assert!(seen.len() > 1, "jobs ran under several versions: {seen:?}");
    assert!(seen.iter().all(|digest| digests.contains(digest)), "{seen:?}");
    assert_eq!(router.metric("comfy_router_policy_fallbacks_total", "").await, 0.0);
    eprintln!("{} jobs under {rounds} changes of version, the longest took {longest:?}", ids.len());
}

#[tokio::test]
async fn settings_are_judged_and_changed_without_a_new_file() {
    let fleet = Fleet::of(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("router.toml");
    let written =
        |wait: &str| std::fs::write(&config, format!("[policy.settings]\nmax_extra_wait_ms = {wait}\n"));
    written("1000").expect("written");
    let serve =
        Serve::over(fleet.instances()).patient().argument("--config", config.to_str().expect("UTF-8"));
    let router = serve.start().await;
    let client = Client::connect(&router, "c").await;
    let first = serving(&router).await;

    router.command(&["policy", "settings", r#"{"max_extra_wait_ms": 2000}"#]).await;
    let second = serving(&router).await;
    assert!(
        first != second && first[..12] == second[..12],
        "{first} and {second}: one component, told otherwise"
    );
    let id = runs(&client, 1).await;
    assert_eq!(routed_by(&router, &id).await, std::slice::from_ref(&second));

    let admin = router.admin();
    let arguments = ["policy", "settings", r#"{"max_wait": 1}"#, "--admin", admin.base()];
    let refused = failed_start(&arguments, &[]).await;
    assert!(refused.code == Some(1) && refused.err.contains("unknown field `max_wait`"), "{}", refused.err);
    assert_eq!(serving(&router).await, second);

    written("3000").expect("written");
    router.hang_up();
    let third = eventually("SIGHUP reads the file again", || async {
        let now = serving(&router).await;
        (now != second).then_some(now)
    })
    .await;
    assert_eq!(third[..12], first[..12]);
    written("\"many\"").expect("written");
    for times in 1..=2 {
        router.hang_up();
        eventually("and says what is wrong with it, each time", || async {
            let said = router.log().matches("policy settings refused, the present ones stay").count();
            (said == times).then_some(())
        })
        .await;
    }
    let refusal = || async { router.admin().get_json("/api/policy").await["refused"].clone() };
    assert!(!refusal().await.is_null());
    written("3000").expect("written");
    router.hang_up();
    eventually("what is in force again is nothing to complain of", || async {
        refusal().await.is_null().then_some(())
    })
    .await;
    assert_eq!(serving(&router).await, third);
    // A new file is told what the old one was told last.
    let fair = PolicyFile::holding(&component("fair-share"));
    let path = fair.path().to_str().expect("UTF-8").to_owned();
    let refused = failed_start(&["policy", "swap", &path, "--admin", router.admin().base()], &[]).await;
    assert!(refused.err.contains("unknown field `max_extra_wait_ms`"), "{}", refused.err);
    router.command(&["policy", "swap", &path, "--settings", r#"{"default_weight": 2.0}"#]).await;
    assert_ne!(serving(&router).await, third);
}
