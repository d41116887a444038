//! Instances fail in many ways; jobs do not notice, or are told why.

mod instance;
mod killed;
mod ledger;
mod refusal;
mod socket;

use comfy_router_tests::{Client, Fleet, Http, Router, Run, Serve, kinds, plain, within};
use comfyui_emulator::{Fault, Outcome};
use serde_json::{Value, json};

async fn two() -> (Fleet, Router, Client) {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    (fleet, router, client)
}

/// Attempts of a job, each with its instance and outcome.
async fn attempts(router: &Router, id: &str) -> Vec<Value> {
    router.job(id).await["attempts"].as_array().expect("attempts").clone()
}

/// A job held on one instance, and which one that is.
async fn held_job(fleet: &Fleet, client: &Client, colour: u32) -> (String, usize) {
    fleet.hold();
    let id = client.post(&plain(colour)).await;
    (id, fleet.held_anywhere().await)
}

async fn succeeds(client: &Client, id: &str, colour: u32) {
    let said = client.end_of(id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    assert!(!kinds(&said).contains(&"execution_error".to_owned()), "{:?}", kinds(&said));
    assert_eq!(client.colour_made_by(id).await, colour);
}

#[tokio::test]
async fn a_prompt_that_an_instance_answers_with_500_is_sent_elsewhere() {
    let (fleet, router, client) = two().await;
    for control in fleet.controls() {
        control.inject(Fault::FailPosts { count: 1, status: 500 });
    }
    let id = client.post(&plain(0x500)).await;
    succeeds(&client, &id, 0x500).await;
    assert_eq!(fleet.started(), 1);
    let attempts = attempts(&router, &id).await;
    assert_eq!(attempts.len(), 3, "both refused it once: {attempts:?}");
}

#[tokio::test]
async fn a_hung_instance_loses_its_job_after_the_stall_limit() {
    let fleet = Fleet::of(2).await;
    let router =
        Serve::over(fleet.instances()).set("timeouts.stall_s=1").set("timeouts.interrupt_s=1").start().await;
    let client = Client::connect(&router, "c").await;
    let (id, at) = held_job(&fleet, &client, 0x4a46).await;
    fleet.control(at).inject(Fault::Hang { at: Default::default() });
    fleet.open();
    succeeds(&client, &id, 0x4a46).await;
    let other = &fleet.executions()[1 - at];
    assert_eq!(other[0].outcome, Some(Outcome::Success), "the other instance ran it");
    assert_eq!(attempts(&router, &id).await.len(), 2);
}

#[tokio::test]
async fn a_job_that_runs_out_of_memory_is_tried_on_another_instance() {
    let (fleet, router, client) = two().await;
    let (first, busy) = held_job(&fleet, &client, 0x1).await;
    let free = 1 - busy;
    fleet.control(free).inject(Fault::OutOfMemory { count: 1 });
    let id = client.post(&plain(0x00f)).await;
    fleet.held(free).await;
    fleet.open();
    succeeds(&client, &first, 0x1).await;
    succeeds(&client, &id, 0x00f).await;
    let attempts = attempts(&router, &id).await;
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(fleet.executions()[free][0].outcome, Some(Outcome::Error));
    assert_eq!(fleet.executions()[busy].len(), 2, "the other instance ran it");
}

#[tokio::test]
async fn a_node_that_fails_is_told_to_the_client_and_not_tried_again() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    fleet.control(0).inject(Fault::NodeError { message: "no such colour".into(), count: 1 });
    let id = client.post_as("doomed", &plain(0xbad)).await;
    let said = client.end_of(&id).await;
    let error = said.iter().find(|message| message.kind() == "execution_error").expect("an error");
    assert!(error.data()["exception_message"].as_str().is_some_and(|text| text.contains("no such colour")));
    assert_eq!(error.data()["node_id"], "1");
    assert_eq!(client.history(&id).await["status"]["status_str"], "error");
    assert_eq!(fleet.started(), 1);
}

#[tokio::test]
async fn an_instance_that_restarts_empty_has_its_job_run_again() {
    let (mut fleet, router, client) = two().await;
    let (id, at) = held_job(&fleet, &client, 0xe3).await;
    fleet.restart(at).await;
    fleet.open();
    succeeds(&client, &id, 0xe3).await;
    assert_eq!(attempts(&router, &id).await.len(), 2);
    assert_eq!(fleet.started(), 2);
}

#[tokio::test]
async fn a_dead_instance_is_named_and_comes_back() {
    let (mut fleet, router, client) = two().await;
    fleet.crash(0).await;
    router.instances_down(1).await;
    let shown = router.admin().get_json("/api/fleet").await["instances"][0].clone();
    assert_eq!(shown["name"], "i0");
    assert!(shown["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{shown}");
    let id = client.post(&plain(0xa11)).await;
    succeeds(&client, &id, 0xa11).await;
    fleet.restart(0).await;
    router.instances_up(2).await;
}

#[tokio::test]
async fn a_job_waits_while_no_instance_is_up() {
    let fleet_of_one = Fleet::of(1).await;
    let mut fleet = fleet_of_one;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    fleet.crash(0).await;
    router.instances_down(1).await;
    let id = client.post(&plain(0x1a7e)).await;
    assert_eq!(client.queue().await, (vec![], vec![id.clone()]));
    fleet.restart(0).await;
    succeeds(&client, &id, 0x1a7e).await;
}

#[tokio::test]
async fn a_late_answer_to_a_prompt_does_not_run_it_twice() {
    let (fleet, _router, client) = two().await;
    for control in fleet.controls() {
        control.inject(Fault::DelayPosts { count: 1, ms: 700 });
    }
    let id = client.post(&plain(0x1a7)).await;
    within("the end", succeeds(&client, &id, 0x1a7)).await;
    assert_eq!(fleet.started(), 1);
    assert_eq!(client.http.get_json("/queue").await, json!({ "queue_running": [], "queue_pending": [] }));
}
