//! The queue through ComfyUI's API.

use comfy_router_tests::{Client, Fleet, Router, Serve, kinds, plain};
use comfyui_emulator::Outcome;
use hyper::Method;
use serde_json::json;

async fn one() -> (Fleet, Router, Client) {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    (fleet, router, client)
}

/// `a` runs, the others wait in this order.
async fn a_runs_and_bcd_wait(fleet: &Fleet, client: &Client) {
    client.post_as("a", &plain(0xa)).await;
    fleet.held(0).await;
    for (id, colour) in [("b", 0xb), ("c", 0xc), ("d", 0xd)] {
        client.post_as(id, &plain(colour)).await;
    }
}

#[tokio::test]
async fn the_queue_shows_what_runs_and_what_waits_in_order() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    let queue = client.http.get_json("/queue").await;
    let running = &queue["queue_running"][0];
    assert_eq!((&running[0], &running[1], &running[2]), (&json!(0), &json!("a"), &plain(0xa)));
    assert_eq!(running[3]["client_id"], "c");
    assert_eq!(running[4], json!(["2"]));
    let numbers: Vec<_> =
        queue["queue_pending"].as_array().expect("a list").iter().map(|item| &item[0]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(client.queue().await.1, ["b", "c", "d"]);
    assert_eq!(client.remaining().await, 4);
    assert_eq!(client.http.get_json("/api/queue").await, queue, "the twin says the same");
}

#[tokio::test]
async fn front_and_number_order_the_queue() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    let front = |id: &str| json!({ "prompt": plain(0x1), "prompt_id": id, "front": true });
    let early = json!({ "prompt": plain(0x2), "prompt_id": "early", "number": -5 });
    for body in [front("front"), early, front("before front")] {
        client.try_post(body).await.ok();
    }
    assert_eq!(client.queue().await.1, ["before front", "front", "early", "b", "c", "d"]);
    fleet.open();
    client.all_done().await;
    let order = client.http.get_json("/history").await;
    let order: Vec<_> = order.as_object().expect("entries").keys().cloned().collect();
    assert_eq!(order, ["a", "before front", "front", "early", "b", "c", "d"]);
}

#[tokio::test]
async fn a_deleted_job_never_runs() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    client.http.post("/queue", &json!({ "delete": ["c", "a", "unknown"] })).await.ok();
    assert_eq!(client.queue().await, (vec!["a".to_owned()], vec!["b".to_owned(), "d".to_owned()]));
    fleet.open();
    client.end_of("d").await;
    assert!(client.history("c").await.is_null(), "a deleted job leaves no history");
    assert!(client.said_of("c").is_empty());
    assert_eq!(fleet.started(), 3);
}

#[tokio::test]
async fn clear_empties_the_queue_and_lets_the_running_job_end() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    client.http.post("/queue", &json!({ "clear": true })).await.ok();
    assert_eq!(client.queue().await, (vec!["a".to_owned()], vec![]));
    fleet.open();
    client.end_of("a").await;
    client.all_done().await;
    assert_eq!(fleet.started(), 1);
}

#[tokio::test]
async fn an_interrupt_with_an_id_ends_that_job_alone() {
    let fleet = Fleet::of(2).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    for (id, colour) in [("a", 0xa), ("b", 0xb)] {
        client.post_as(id, &plain(colour)).await;
    }
    fleet.held(0).await;
    fleet.held(1).await;
    client.http.post("/interrupt", &json!({ "prompt_id": "a" })).await.ok();
    let said = client.end_of("a").await;
    assert!(kinds(&said).contains(&"execution_interrupted".to_owned()), "{:?}", kinds(&said));
    assert_eq!(client.queue().await.0, ["b"]);
    fleet.open();
    assert!(kinds(&client.end_of("b").await).contains(&"execution_success".to_owned()));
    let outcomes: Vec<_> = fleet.executions().into_iter().flatten().map(|run| run.outcome).collect();
    assert!(outcomes.contains(&Some(Outcome::Interrupted)) && outcomes.contains(&Some(Outcome::Success)));
}

#[tokio::test]
async fn an_interrupt_with_the_id_of_a_waiting_job_takes_it_out_of_the_queue() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    client.http.post("/interrupt", &json!({ "prompt_id": "c" })).await.ok();
    assert_eq!(client.queue().await, (vec!["a".to_owned()], vec!["b".to_owned(), "d".to_owned()]));
    fleet.open();
    client.all_done().await;
    assert_eq!(fleet.started(), 3);
}

#[tokio::test]
async fn an_interrupt_without_an_id_ends_what_runs_and_the_next_job_starts() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    client.http.send(Method::POST, "/interrupt", "").await.ok();
    let said = client.end_of("a").await;
    assert!(kinds(&said).contains(&"execution_interrupted".to_owned()), "{:?}", kinds(&said));
    fleet.open();
    for id in ["b", "c", "d"] {
        assert!(kinds(&client.end_of(id).await).contains(&"execution_success".to_owned()));
    }
}

#[tokio::test]
async fn commands_that_name_nothing_stop_nothing() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    for (path, body, status) in [
        ("/interrupt", r#"{"prompt_id": 7}"#, 200),
        ("/interrupt", r#"{"prompt_id": ["a"]}"#, 200),
        ("/interrupt", "null", 400),
        ("/interrupt", r#"["a"]"#, 400),
        ("/queue", r#"{"clear": 0}"#, 200),
        ("/queue", r#"{"clear": ""}"#, 200),
        ("/queue", r#"{"delete": [["b"], 7, "a"]}"#, 200),
        ("/queue", r#"{"clear": true, "delete": 7}"#, 400),
        ("/queue", "", 400),
        ("/queue", "null", 400),
    ] {
        assert_eq!(
            client.http.send(Method::POST, path, body.to_owned()).await.status,
            status,
            "{path} {body}"
        );
    }
    let all = ["b", "c", "d"].map(str::to_owned).to_vec();
    assert_eq!(client.queue().await, (vec!["a".to_owned()], all), "everything is where it was");
    assert!(client.said_of("a").iter().all(|message| message.kind() != "execution_interrupted"));
    fleet.open();
    client.all_done().await;
    assert_eq!(fleet.started(), 4);
}

#[tokio::test]
async fn several_jobs_are_cancelled_at_once_and_the_answer_says_whether_any_was() {
    let (fleet, _router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    let cancel = async |body: &str| {
        let answer = client.http.send(Method::POST, "/api/jobs/cancel", body.to_owned()).await;
        (answer.status.as_u16(), answer.json())
    };
    assert_eq!(cancel(r#"{"job_ids": ["nobody"]}"#).await, (200, json!({"cancelled": false})));
    assert_eq!(cancel(r#"{"job_ids": ["a", "c", "nobody"]}"#).await, (200, json!({"cancelled": true})));
    assert_eq!(cancel("{").await, (400, json!({"error": "Request body must be valid JSON"})));
    assert_eq!(cancel("{}").await, (400, json!({"error": "job_ids must be a list"})));
    let invalid = json!({"error": "job_ids contains invalid id(s)", "invalid_ids": ["7"]});
    assert_eq!(cancel(r#"{"job_ids": ["b", 7]}"#).await, (400, invalid));
    client.end_of("a").await;
    fleet.open();
    client.all_done().await;
    assert!(client.history("c").await.is_null());
    assert_eq!(client.http.get_json("/api/jobs?status=cancelled").await["jobs"][0]["id"], "a");
    assert_eq!(fleet.started(), 3);
}

#[tokio::test]
async fn credentials_are_neither_shown_nor_stored() {
    let (fleet, router, client) = one().await;
    a_runs_and_bcd_wait(&fleet, &client).await;
    let extra =
        json!({"auth_token_comfy_org": "hush-hush", "api_key_comfy_org": "hush-hush", "kept": "visible"});
    client.try_post(json!({"prompt": plain(9), "prompt_id": "secretive", "extra_data": extra})).await.ok();
    let shown = async |path: &str| {
        let text = client.http.get(path).await.ok().text();
        assert!(!text.contains("hush-hush") && !text.contains("comfy_org"), "{path}: {text}");
        text
    };
    assert!(shown("/queue").await.contains("visible"));
    assert!(shown("/api/jobs/secretive").await.contains("visible"));
    shown("/api/jobs").await;
    fleet.open();
    client.all_done().await;
    for path in ["/history", "/history/secretive", "/api/jobs/secretive"] {
        assert!(shown(path).await.contains("visible"), "{path}");
    }
    let files = std::fs::read_dir(router.state_dir())
        .expect("the state")
        .map(|entry| entry.expect("an entry").path());
    for file in files.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).expect("readable");
        let found = bytes.windows(9).any(|window| window == b"hush-hush");
        assert!(!found, "{} holds a credential", file.display());
    }
    assert!(!router.log().contains("hush-hush"));
}

#[tokio::test]
async fn the_same_id_twice_is_one_job() {
    let (fleet, _router, client) = one().await;
    let body = json!({ "prompt": plain(0x2), "prompt_id": "twice" });
    let (first, second) = tokio::join!(client.try_post(body.clone()), client.try_post(body));
    let (first, second) = (first.status.as_u16(), second.status.as_u16());
    assert!(first == 200 || second == 200, "one is accepted: {first}, {second}");
    fleet.held(0).await;
    assert_eq!(client.queue().await, (vec!["twice".to_owned()], vec![]));
    fleet.open();
    client.end_of("twice").await;
    client.all_done().await;
    assert_eq!(fleet.started(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_a_400_that_says_so() {
    let (fleet, _router, client) = one().await;
    for body in ["", "{", "nonsense", "\u{0}", "[1, 2", r#"{"prompt": "#] {
        let answer = client.http.send(Method::POST, "/prompt", body.to_owned()).await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "invalid_json", "{body:?}");
    }
    let deep = format!(r#"{{"prompt": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(client.http.send(Method::POST, "/prompt", deep).await.status, 400);
    assert_eq!(client.http.send(Method::POST, "/prompt", vec![0xff, 0xfe]).await.status, 400);
    assert_eq!(fleet.started(), 0);
}

#[tokio::test]
async fn prompts_that_cannot_run_are_refused_as_comfyui_refuses_them() {
    let (fleet, _router, client) = one().await;
    let refused = async |body: serde_json::Value| {
        let answer = client.try_post(body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()
    };
    let unknown = json!({ "1": { "class_type": "NoSuchNode", "inputs": {} } });
    let answer = refused(json!({ "prompt": unknown })).await;
    assert_eq!(answer["error"]["type"], "invalid_prompt");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("NoSuchNode")), "{answer}");
    assert_eq!((&answer["error"]["details"], &answer["node_errors"]), (&json!("Node ID '#1'"), &json!({})));

    assert_eq!(refused(json!({})).await["error"]["type"], "no_prompt");
    let mut no_output = plain(1);
    no_output.as_object_mut().expect("a graph").remove("2");
    assert_eq!(refused(json!({ "prompt": no_output })).await["error"]["type"], "prompt_no_outputs");

    let mut missing = plain(1);
    missing["1"]["inputs"].as_object_mut().expect("inputs").remove("width");
    let answer = refused(json!({ "prompt": missing })).await;
    assert_eq!(answer["error"]["type"], "prompt_outputs_failed_validation");
    assert_eq!(answer["node_errors"]["1"]["errors"][0]["type"], "required_input_missing");
    assert_eq!(fleet.started(), 0);
}

#[tokio::test]
async fn history_can_be_paged_deleted_and_cleared() {
    let (fleet, _router, client) = one().await;
    fleet.open();
    for (id, colour) in [("a", 1), ("b", 2), ("c", 3)] {
        client.post_as(id, &plain(colour)).await;
        client.end_of(id).await;
    }
    let keys = async |path: &str| -> Vec<String> {
        client.http.get_json(path).await.as_object().expect("entries").keys().cloned().collect()
    };
    assert_eq!(keys("/history").await, ["a", "b", "c"]);
    assert_eq!(keys("/history?max_items=2").await, ["b", "c"]);
    assert_eq!(keys("/history?max_items=1&offset=1").await, ["b"]);
    client.http.post("/history", &json!({ "delete": ["b"] })).await.ok();
    assert_eq!(keys("/history").await, ["a", "c"]);
    client.http.post("/history", &json!({ "clear": true })).await.ok();
    assert!(keys("/history").await.is_empty());
    assert_eq!(client.http.get_json("/history/a").await, json!({}));
}
