//! What policies remember survives a crash, and an operator may look at it and change it.

use comfy_router_tests::{Client, Fleet, Router, Serve, component, eventually, kinds, plain};
use hyper::Method;
use serde_json::{Value, json};

/// `hostile` counts its calls of `route` in `state` and says how many there were.
async fn counting(fleet: &Fleet, folder: &tempfile::TempDir) -> Router {
    let path = folder.path().join("counter.wasm");
    std::fs::write(&path, component("hostile")).expect("written");
    let serve = Serve::over(fleet.instances()).patient().policy(&path);
    let serve = serve.set(r#"policy.settings.on="route""#).set(r#"policy.settings.do="count""#);
    serve.start().await
}

async fn count(router: &Router, client: &Client) -> String {
    let id = client.post(&plain(1)).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    let job = router.job(&id).await;
    let decisions = job["decisions"].as_array().expect("decisions");
    let route = decisions.iter().rfind(|decision| decision["hook"] == "route").expect("a route");
    route["reason"].as_str().expect("a reason").to_owned()
}

async fn entries(router: &Router) -> Value {
    router.admin().get_json("/api/policy/state/counter").await["entries"].clone()
}

#[tokio::test]
async fn a_crash_and_a_restart_forget_nothing_that_had_a_moment() {
    let (fleet, folder) = (Fleet::of(1).await, tempfile::tempdir().expect("a folder"));
    let mut router = counting(&fleet, &folder).await;
    let mut client = Client::connect(&router, "c").await;
    assert_eq!((count(&router, &client).await, count(&router, &client).await), ("1".into(), "2".into()));
    eventually("the file has it", || async {
        let file = router.state_dir().join("policy").join("state.db-wal");
        // The key and the value, side by side in the last page written.
        let bytes = std::fs::read(file).ok()?;
        bytes.windows(13).any(|w| w == b"countercount2").then_some(())
    })
    .await;
    router.kill();
    router.start_again().await;
    router.instances_up(1).await;
    client.reconnect().await;
    assert_eq!(count(&router, &client).await, "3");
    // A stop that is asked for loses nothing at all.
    router.stop().await;
    router.start_again().await;
    router.instances_up(1).await;
    client.reconnect().await;
    assert_eq!(count(&router, &client).await, "4");
}

#[tokio::test]
async fn an_operator_reads_changes_and_forgets() {
    let (fleet, folder) = (Fleet::of(1).await, tempfile::tempdir().expect("a folder"));
    let router = counting(&fleet, &folder).await;
    let client = Client::connect(&router, "c").await;
    count(&router, &client).await;
    assert_eq!(entries(&router).await, json!({"count": {"value": "1"}}));
    let held = router.admin().get_json("/api/policy/state").await;
    assert_eq!(
        (&held["policies"][0]["policy"], &held["policies"][0]["keys"]),
        (&"counter".into(), &1.into())
    );

    let admin = router.admin();
    admin.send(Method::PUT, "/api/policy/state/counter/count", "41").await.ok();
    assert_eq!(count(&router, &client).await, "42");
    admin.send(Method::PUT, "/api/policy/state/counter/a/b%20c?ttl_ms=60000", "x").await.ok();
    let of = admin.get_json("/api/policy/state/counter?prefix=a/").await;
    assert!(of["entries"]["a/b c"]["until"].is_u64(), "{of}");
    let long = format!("/api/policy/state/counter/{}", "k".repeat(300));
    let refused = admin.send(Method::PUT, &long, "x").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    admin.send(Method::DELETE, "/api/policy/state/counter/count", "").await.ok();
    assert_eq!(count(&router, &client).await, "1");
    let cleared = admin.send(Method::DELETE, "/api/policy/state/counter", "").await.ok().json();
    assert_eq!(cleared["forgotten"], 2);
    assert_eq!(entries(&router).await, json!({}));
}
