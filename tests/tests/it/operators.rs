//! What an operator does to jobs: through the admin listener, and through the command line that talks to it.

use comfy_router_tests::{Client, Fleet, Foreign, Router, Serve, failed_start, kinds, plain};
use hyper::Method;
use serde_json::{Value, json};

/// `a` runs, `b` to `e` wait in this order.
async fn a_queue() -> (Fleet, Router, Client) {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    client.post_as("a", &plain(1)).await;
    fleet.held(0).await;
    for (id, colour) in [("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
        client.post_as(id, &plain(colour)).await;
    }
    (fleet, router, client)
}

async fn order(router: &Router, id: &str, order: Value) -> Value {
    let answer = router.admin().send(Method::PATCH, &format!("/api/jobs/{id}"), order.to_string()).await;
    answer.ok().json()
}

#[tokio::test]
async fn a_moved_job_runs_where_it_was_moved_also_after_a_restart() {
    let (fleet, mut router, mut client) = a_queue().await;
    order(&router, "e", json!({ "place": "front" })).await;
    order(&router, "b", json!({ "place": "back" })).await;
    let standing = order(&router, "d", json!({ "class": "interactive", "number": -3.5 })).await;
    assert_eq!((&standing["class"], &standing["number"]), (&json!("interactive"), &json!(-3.5)));
    let moved = ["e", "d", "c", "b"].map(str::to_owned).to_vec();
    assert_eq!(client.queue().await.1, moved);
    let queue = client.http.get_json("/queue").await;
    assert_eq!((&queue["queue_pending"][1][0], &queue["queue_pending"][1][1]), (&json!(-3.5), &json!("d")));
    assert_eq!(router.job("e").await["place"], 1);

    router.kill();
    router.start_again().await;
    client.reconnect().await;
    assert_eq!(client.queue().await.1, moved);
    router.instances_up(1).await;
    fleet.open();
    client.all_done().await;
    let history = client.http.get_json("/history").await;
    let ran: Vec<&String> = history.as_object().expect("entries").keys().collect();
    assert_eq!(ran, ["a", "e", "d", "c", "b"]);
}

#[tokio::test]
async fn a_pinned_priority_outlives_the_policys_judgement_until_it_is_given_back() {
    let (_fleet, router, client) = a_queue().await;
    let pinned = order(&router, "d", json!({ "priority": 1e9 })).await;
    assert_eq!((&pinned["pinned"], &pinned["priority"]["score"]), (&json!(true), &json!(1e9)));
    // Another policy judges everything anew.
    router.admin().post("/api/policy/reload", &json!({})).await;
    order(&router, "c", json!({ "number": 5 })).await;
    assert_eq!(client.queue().await.1, ["d", "b", "e", "c"]);
    assert_eq!(order(&router, "d", json!({ "priority": null })).await["pinned"], false);
    assert_eq!(client.queue().await.1, ["b", "d", "e", "c"]);
}

#[tokio::test]
async fn orders_that_cannot_be_followed_say_why_and_change_nothing() {
    let (_fleet, router, client) = a_queue().await;
    let refused = async |id: &str, body: &str| {
        let answer = router.admin().send(Method::PATCH, &format!("/api/jobs/{id}"), body.to_owned()).await;
        (answer.status.as_u16(), answer.json()["error"]["type"].as_str().expect("a type").to_owned())
    };
    assert_eq!(refused("nobody", r#"{"place": "front"}"#).await, (404, "no_open_job".into()));
    assert_eq!(refused("a", r#"{"place": "front"}"#).await, (409, "not_waiting".into()));
    for body in
        ["", "{}", "[]", r#"{"place": "top"}"#, r#"{"number": 1e300}"#, r#"{"class": 1}"#, r#"{"x": 1}"#]
    {
        assert_eq!(refused("b", body).await, (400, "order".into()), "{body}");
    }
    let large = format!(r#"{{"place": "{}"}}"#, "x".repeat(100_000));
    assert_eq!(refused("b", &large).await, (413, "too_large".into()));
    let cancel = router.admin().post("/api/jobs/nobody/cancel", &json!({})).await;
    assert_eq!((cancel.status.as_u16(), &cancel.json()["error"]["type"]), (404, &json!("no_open_job")));
    let evil = [("origin", "http://evil.example")];
    let foreign = router.admin().try_send(Method::PATCH, "/api/jobs/b", &evil, r#"{"place": "back"}"#).await;
    assert_eq!(foreign.expect("an answer").status, 403, "a page elsewhere is no operator");
    assert_eq!(client.queue().await.1, ["b", "c", "d", "e"]);
}

#[tokio::test]
async fn the_queue_is_shown_in_pages_and_any_job_can_be_cancelled() {
    let (fleet, router, client) = a_queue().await;
    let admin = router.admin();
    let page = admin.get_json("/api/queue?limit=2&offset=1").await;
    let ids = |jobs: &Value| -> Vec<String> {
        jobs.as_array()
            .expect("jobs")
            .iter()
            .map(|job| job["prompt_id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(
        (ids(&page["running"]), ids(&page["pending"])),
        (vec!["a".into()], vec!["c".into(), "d".into()])
    );
    assert_eq!((&page["waiting"], &page["next"]), (&json!(4), &json!(3)));
    assert_eq!(admin.get_json("/api/queue?offset=3").await["next"], Value::Null);
    for id in ["c", "a"] {
        admin.post(&format!("/api/jobs/{id}/cancel"), &json!({})).await.ok();
    }
    let said = client.end_of("a").await;
    assert!(kinds(&said).contains(&"execution_interrupted".to_owned()), "{:?}", kinds(&said));
    fleet.open();
    client.all_done().await;
    assert_eq!(router.job("c").await["state"], "cancelled");
    assert_eq!(router.job("a").await["state"], "interrupted");
    assert_eq!(fleet.started(), 4);
}

#[tokio::test]
async fn the_command_line_lists_moves_sets_and_cancels() {
    let (_fleet, router, client) = a_queue().await;
    let admin = router.admin().base().to_owned();
    let run = async |words: &[&str]| {
        let arguments = [&["jobs", "--admin", &admin][..], words].concat();
        failed_start(&arguments, &[]).await
    };
    let done = run(&["move", "e", "--front"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "moved e to front\n"), "{}", done.err);
    assert_eq!(run(&["set", "d", "--class", "batch", "--number", "-1"]).await.code, Some(0));
    assert_eq!(client.queue().await.1, ["e", "b", "c", "d"]);
    let list = run(&["list", "--limit", "2"]).await.out;
    let first: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(first[1..4], [["runs", "a"], ["1", "e"], ["2", "b"]], "{list}");
    assert!(list.contains("4 waiting"), "{list}");
    let json: Value = serde_json::from_str(&run(&["list", "--json"]).await.out).expect("JSON");
    assert_eq!(json["pending"][3]["class"], "batch");
    let some = run(&["cancel", "b", "nobody", "c"]).await;
    assert_eq!((some.code, some.out.as_str()), (Some(1), "cancelled b\ncancelled c\n"));
    assert!(some.err.contains("nobody: no open job has this prompt id"), "{}", some.err);
    assert_eq!(client.queue().await.1, ["e", "d"]);
    let running = run(&["move", "a", "--back"]).await;
    assert!(running.code == Some(1) && running.err.contains("the job no longer waits"), "{}", running.err);
    let nobody = failed_start(&["jobs", "--admin", "127.0.0.1:1", "list"], &[]).await;
    assert!(nobody.code == Some(1) && nobody.err.contains("no router answers"), "{}", nobody.err);
}

#[tokio::test]
async fn where_operators_need_a_key_nothing_is_shown_or_done_without_it() {
    const KEY: &str = "0123456789abcdef";
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).admin_key(KEY).start().await;
    let stranger = comfy_router_tests::Http::new(router.admin_url());
    for path in ["/api/fleet", "/api/policy", "/api/jobs", "/metrics", "/api/policy/recording"] {
        for stranger in [stranger.clone(), stranger.clone().showing("another key")] {
            let refused = stranger.get(path).await;
            assert_eq!(refused.status, 401, "{path}");
            assert!(refused.text().contains("COMFY_ROUTER_ADMIN_KEY"), "{}", refused.text());
        }
    }
    assert_eq!(stranger.post("/api/fleet/i0/drain", &Value::Null).await.status, 401);
    assert_eq!(router.admin().get_json("/api/fleet").await["instances"][0]["draining"], false);
    for path in ["/", "/livez", "/readyz"] {
        stranger.get(path).await.ok();
    }
    let arguments = ["jobs", "list", "--admin", router.admin_url()];
    let refused = failed_start(&arguments, &[]).await;
    assert!(refused.code == Some(1) && refused.err.contains("the admin key is needed"), "{}", refused.err);
    let listed = failed_start(&arguments, &[("COMFY_ROUTER_ADMIN_KEY", KEY)]).await;
    assert_eq!((listed.code, listed.out.lines().last()), (Some(0), Some("0 waiting")), "{}", listed.err);
    assert!(!router.log().contains(KEY));
}

#[tokio::test]
async fn the_status_page_shows_reasons_and_what_its_links_lead_to_also_where_a_key_is_needed() {
    const KEY: &str = "0123456789abcdef";
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).admin_key(KEY).set("policy.settings.typo=1").start().await;
    let client = Client::connect(&router, "c").await;
    client.post_as("a-job", &plain(1)).await;
    client.end_of("a-job").await;
    let told = Foreign::node("browser/operator.mjs")
        .arguments(&["--url", router.admin().base(), "--key", KEY, "--job", "a-job"])
        .arguments(&["--reason", "it refuses its settings: unknown field `typo`"])
        .succeeds()
        .await;
    assert_eq!(told, "ok\n");
    assert!(!router.log().contains(KEY));
}

#[tokio::test]
async fn jobs_are_listed_by_a_tenant_of_any_name() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let body = json!({ "prompt": plain(1), "prompt_id": "hers" }).to_string();
    let hers = router.http().try_send(Method::POST, "/prompt", &[("comfy-user", "ann b")], body).await;
    hers.expect("an answer").ok();
    let listed = router.admin().get_json("/api/jobs?tenant=ann%20b").await;
    assert_eq!(listed["jobs"][0]["prompt_id"], "hers");
}
