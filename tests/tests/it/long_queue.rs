//! A queue whose prompts are not in memory is a queue like any other.

use comfy_router_tests::{Books, Client, Fleet, Run, Serve, plain};
use serde_json::{Value, json};

#[tokio::test]
async fn prompts_that_only_the_ledger_has_are_shown_moved_run_and_survive_a_restart() {
    let fleet = Fleet::of(2).await;
    fleet.hold();
    let serve = Serve::over(fleet.instances()).set("limits.queue_memory_bytes=2000");
    let mut router = serve.start().await;
    let mut client = Client::connect(&router, "c").await;
    let note = "n".repeat(400);
    let names: Vec<String> = (0..30).map(|n| format!("job-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let extra = json!({ "extra_pnginfo": { "workflow": { "id": format!("w{n}"), "note": note } } });
        let body = json!({ "prompt": plain(n as u32 + 1), "prompt_id": name, "extra_data": extra });
        client.try_post(body).await.ok();
    }
    fleet.held(0).await;
    fleet.held(1).await;
    let before = client.http.get_json("/queue").await;
    let pending = before["queue_pending"].as_array().expect("a list");
    assert_eq!((before["queue_running"].as_array().expect("a list").len(), pending.len()), (2, 28));
    for (n, item) in pending.iter().enumerate() {
        assert_eq!((&item[1], &item[2]), (&json!(names[n + 2]), &plain(n as u32 + 3)));
        assert_eq!(item[3]["extra_pnginfo"]["workflow"]["note"], json!(note));
    }
    let detail = client.http.get_json("/api/jobs/job-20").await;
    assert_eq!((&detail["workflow"]["prompt"], &detail["workflow_id"]), (&plain(21), &json!("w20")));
    let of_workflow = client.http.get_json("/api/jobs?workflow_id=w29").await;
    assert_eq!(of_workflow["jobs"][0]["id"], "job-29");
    // The same prompt under a known id is the same job, though its text is not at hand; another is refused.
    let again = |colour| json!({ "prompt": plain(colour), "prompt_id": "job-29" });
    assert_eq!(client.try_post(again(30)).await.status, 200);
    assert_eq!(client.try_post(again(31)).await.status, 409);

    router.kill();
    router.start_again().await;
    client.reconnect().await;
    assert_eq!(client.http.get_json("/queue").await, before);
    assert_eq!(client.try_post(again(31)).await.status, 409);
    router.instances_up(2).await;
    let front = json!({ "place": "front" }).to_string();
    router.admin().send(hyper::Method::PATCH, "/api/jobs/job-29", front).await.ok();
    fleet.open();
    for (n, name) in names.iter().enumerate() {
        client.end_of(name).await;
        assert_eq!(client.colour_made_by(name).await, n as u32 + 1);
    }
    let history = client.http.get_json("/history").await;
    let place = |name: &str| history.as_object().and_then(|all| all.keys().position(|key| key == name));
    assert!(place("job-29") < place("job-10"), "it was moved to the front");
    assert_eq!(fleet.started(), names.len());
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.nothing_is_lost(&names);
    books.nothing_ran_unrecorded(&Run::of(&fleet));
}

#[tokio::test]
async fn odd_workflows_of_one_client_break_no_list_for_another() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let odd = [
        json!(null),
        json!({ "workflow": null }),
        json!({ "workflow": { "id": 7 } }),
        json!([1]),
        json!("x"),
    ];
    for (n, extra) in odd.into_iter().enumerate() {
        let body = json!({ "prompt": plain(1), "prompt_id": n.to_string(), "extra_data": { "extra_pnginfo": extra } });
        client.try_post(body).await.ok();
    }
    let list = client.http.get_json("/api/jobs?sort_order=asc").await;
    assert_eq!(list["pagination"]["total"], 5);
    assert!(
        list["jobs"].as_array().expect("jobs").iter().all(|job| job.get("workflow_id").is_none()),
        "{list}"
    );
    fleet.open();
    client.all_done().await;
    let list: Value = client.http.get_json("/api/jobs?status=completed,failed,cancelled").await;
    assert_eq!(list["pagination"]["total"], 5);
}
