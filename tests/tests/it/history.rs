//! What is over, as `/history` and `/api/jobs` tell it: from the router's own record, whatever happened to whom.

use comfy_router_tests::{Client, Fleet, Serve, plain};
use hyper::Method;
use serde_json::{Value, json};

fn ids(list: &Value) -> Vec<String> {
    let jobs = list["jobs"].as_array().expect("jobs").iter();
    jobs.map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

async fn jobs(client: &Client, query: &str) -> Vec<String> {
    ids(&client.http.get_json(&format!("/api/jobs?{query}")).await)
}

#[tokio::test]
async fn lists_of_jobs_are_the_same_after_a_restart_whatever_instance_ran_them() {
    let fleet = Fleet::of(2).await;
    let mut router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    for (id, colour) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        client.post_as(id, &plain(colour)).await;
        client.end_of(id).await;
    }
    fleet.hold();
    client.post_as("stopped", &plain(5)).await;
    fleet.held_anywhere().await;
    let cancelled = client.http.post("/api/jobs/stopped/cancel", &json!({})).await.ok().json();
    assert_eq!(cancelled, json!({ "cancelled": true }));
    client.end_of("stopped").await;

    assert_eq!(jobs(&client, "").await, ["stopped", "d", "c", "b", "a"]);
    assert_eq!(jobs(&client, "status=cancelled").await, ["stopped"]);
    assert_eq!(jobs(&client, "status=completed,failed&sort_order=asc").await, ["a", "b", "c", "d"]);
    let page = client.http.get_json("/api/jobs?status=completed&limit=2&offset=1").await;
    assert_eq!(ids(&page), ["c", "b"]);
    assert_eq!(page["pagination"], json!({ "offset": 1, "limit": 2, "total": 4, "has_more": true }));
    let by_duration = client.http.get_json("/api/jobs?status=completed&sort_by=execution_duration").await;
    let took = |job: &Value| {
        job["execution_end_time"].as_f64().unwrap_or(0.0)
            - job["execution_start_time"].as_f64().unwrap_or(0.0)
    };
    let times: Vec<f64> = by_duration["jobs"].as_array().expect("jobs").iter().map(took).collect();
    assert!(times.len() == 4 && times.is_sorted_by(|a, b| a >= b), "{times:?}");

    let before = (client.http.get_json("/api/jobs").await, client.http.get_json("/history").await);
    let detail = client.http.get_json("/api/jobs/b").await;
    assert_eq!(detail["workflow"]["prompt"], plain(2));
    fleet.open();
    router.kill();
    router.start_again().await;
    assert_eq!((client.http.get_json("/api/jobs").await, client.http.get_json("/history").await), before);
    assert_eq!(client.http.get_json("/api/jobs/b").await, detail);
}

#[tokio::test]
async fn pages_of_a_long_history_are_whole_and_in_order() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    // Large enough that the list is sent in several pieces.
    let note = "x".repeat(60_000);
    let names: Vec<String> = (0..40).map(|n| format!("job {n}")).collect();
    for name in &names {
        let body = json!({ "prompt": plain(7), "prompt_id": name, "extra_data": { "extra_pnginfo": { "note": note } } });
        client.try_post(body).await.ok();
    }
    client.all_done().await;
    let keys = async |query: &str| -> Vec<String> {
        let list = client.http.get_json(&format!("/history{query}")).await;
        list.as_object().expect("entries").keys().cloned().collect()
    };
    assert_eq!(keys("").await, names);
    assert_eq!(keys("?max_items=30").await, names[10..]);
    assert_eq!(keys("?max_items=3&offset=20").await, names[20..23]);
    assert_eq!(keys("?max_items=0&offset=0").await, names[..1], "as in ComfyUI");
    let entry = &client.http.get_json("/history?max_items=1").await["job 39"];
    assert_eq!(entry["prompt"][3]["extra_pnginfo"]["note"], json!(note));
    let total = &client.http.get_json("/api/jobs?limit=5").await["pagination"]["total"];
    assert_eq!(*total, 40);
    client.http.post("/history", &json!({ "delete": ["job 39", "job 0", "nobody"] })).await.ok();
    assert_eq!(keys("").await, names[1..39]);
}

#[tokio::test]
async fn clients_with_keys_see_and_change_their_own_jobs_only() {
    let fleet = Fleet::of(1).await;
    let keys =
        r#"front.api_keys=[{name="ann",key="the-key-of-ann-0123"},{name="bob",key="the-key-of-bob-0123"}]"#;
    let router = Serve::over(fleet.instances()).set(keys).start().await;
    let http = router.http();
    let ask = async |who: &str, method: Method, path: &str, body: Value| -> Value {
        let key = format!("Bearer the-key-of-{who}-0123");
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer =
            http.try_send(method, path, &[("authorization", &key)], text).await.expect("an answer").ok();
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    };
    fleet.hold();
    for (who, id, colour) in [("ann", "a1", 1), ("bob", "b1", 2), ("ann", "a2", 3), ("bob", "b2", 4)] {
        ask(who, Method::POST, "/prompt", json!({ "prompt": plain(colour), "prompt_id": id })).await;
    }
    fleet.held(0).await;
    let queue = ask("bob", Method::GET, "/queue", Value::Null).await;
    assert_eq!(
        (queue["queue_running"].as_array().expect("a list").len(), &queue["queue_pending"][0][1]),
        (0, &json!("b1"))
    );
    // None of these is bob's.
    for (path, body) in [
        ("/queue", json!({ "delete": ["a2"] })),
        ("/interrupt", json!({ "prompt_id": "a1" })),
        ("/interrupt", json!({})),
    ] {
        ask("bob", Method::POST, path, body).await;
    }
    for path in ["/api/jobs/a1/cancel", "/api/jobs/a2/cancel"] {
        assert_eq!(ask("bob", Method::POST, path, json!({})).await, json!({ "cancelled": false }));
    }
    assert_eq!(
        http.try_send(Method::GET, "/api/jobs/a1", &[("authorization", "Bearer the-key-of-bob-0123")], "")
            .await
            .expect("an answer")
            .status,
        404
    );
    ask("bob", Method::POST, "/queue", json!({ "clear": true })).await;
    fleet.open();
    comfy_router_tests::eventually("ann's jobs end", || async {
        let mine = ask("ann", Method::GET, "/history", Value::Null).await;
        (mine.as_object().expect("entries").len() == 2).then_some(())
    })
    .await;
    assert_eq!(ids(&ask("ann", Method::GET, "/api/jobs?status=completed", Value::Null).await), ["a2", "a1"]);
    assert_eq!(ask("bob", Method::GET, "/history", Value::Null).await, json!({}));
    ask("bob", Method::POST, "/history", json!({ "clear": true, "delete": ["a1"] })).await;
    assert_eq!(
        ask("ann", Method::GET, "/history/a1", Value::Null).await["a1"]["status"]["status_str"],
        "success"
    );
    assert_eq!(fleet.started(), 2);
}

#[tokio::test]
async fn a_job_that_no_instance_ended_has_a_status_in_its_history() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).set("timeouts.queue_s=1").start().await;
    let client = Client::connect(&router, "c").await;
    client.post_as("first", &plain(1)).await;
    fleet.held(0).await;
    client.post_as("late", &plain(2)).await;
    client.end_of("late").await;
    let entry = client.history("late").await;
    assert_eq!(
        (&entry["status"]["status_str"], &entry["status"]["completed"]),
        (&json!("error"), &json!(false))
    );
    let message = &entry["status"]["messages"][0];
    assert_eq!((&message[0], &message[1]["prompt_id"]), (&json!("execution_error"), &json!("late")));
    assert!(message[1]["exception_message"].as_str().is_some_and(|text| text.contains("queue")), "{message}");
    assert_eq!(client.http.get_json("/api/jobs/late").await["execution_error"], message[1]);
    fleet.open();
    client.end_of("first").await;
}

/// The stock page takes no entry of the list whose number is not above those it has.
#[tokio::test]
async fn numbers_in_the_list_rise_though_jobs_end_out_of_order() {
    let fleet = Fleet::of(2).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    client.post_as("first", &plain(1)).await;
    let at = fleet.held_anywhere().await;
    client.post_as("second", &plain(2)).await;
    fleet.held(1 - at).await;
    fleet.control(1 - at).open();
    client.end_of("second").await;
    fleet.open();
    client.end_of("first").await;

    let list = client.http.get_json("/history?max_items=64").await;
    let list = list.as_object().expect("an object");
    let numbers: Vec<i64> =
        list.values().map(|entry| entry["prompt"][0].as_i64().expect("an integer")).collect();
    assert_eq!(list.keys().collect::<Vec<_>>(), ["second", "first"]);
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert_eq!(client.history("first").await["prompt"][0], 0, "its own number");
}
