//! Clients that come late, return, or listen twice.

use comfy_router_tests::{
    Client, Fleet, Message, Router, complete, diffusion, eventually, kinds, plain, within,
};
use comfyui_emulator::{Audience, Each};
use serde_json::{Value, json};

use super::{next, next_own, of_jobs, one, until_end};

/// Posted, at its second sampler step, and everything until there has come through the router.
async fn sampling(fleet: &Fleet, router: &Router, client: &Client) -> String {
    let witness = Client::connect(router, "witness").await;
    let id = client.post(&diffusion("sd15.safetensors", 7, 4)).await;
    within("the first step", fleet.control(0).wait_held(1)).await;
    fleet.control(0).release(1);
    within("the second step", fleet.control(0).wait_held(1)).await;
    fleet.control(0).say(Audience::Everybody, "marker", &json!({}));
    witness.hears("the marker", |message| message.kind() == "marker").await;
    id
}

/// What a client is told that comes while a job is at its second step.
fn present(heard: &[Message], id: &str) {
    let kinds = kinds(heard);
    assert_eq!(kinds[..2], ["execution_start", "execution_cached"], "{kinds:?}");
    let at = heard.iter().rfind(|message| message.kind() == "executing").expect("the node it is at");
    assert_eq!((&at.data()["node"], &at.data()["prompt_id"]), (&json!("5"), &json!(id)));
    let bar = heard.iter().find(|message| message.kind() == "progress").expect("how far it is");
    assert_eq!((&bar.data()["value"], &bar.data()["max"]), (&json!(1), &json!(4)));
    let state = heard.iter().find(|message| message.kind() == "progress_state").expect("how far all are");
    assert_eq!(state.data()["nodes"]["1"]["state"], "finished");
    assert!(heard.iter().any(|message| message.kind() == "binary 1"), "the newest preview: {kinds:?}");
    for kind in ["executing", "progress", "progress_state", "binary 1"] {
        assert_eq!(kinds.iter().filter(|seen| *seen == kind).count(), 1, "once: {kinds:?}");
    }
}

#[tokio::test]
async fn a_client_that_connects_in_mid_run_is_told_where_its_job_is_and_goes_on() {
    let (fleet, router) = one().await;
    fleet.control(0).hold(Each::Step);
    let client = Client::silent(&router, "late");
    let id = sampling(&fleet, &router, &client).await;
    let mut socket = client.socket().await;
    present(&next_own(&mut socket, 6).await, &id);
    fleet.open();
    let rest = until_end(&mut socket, &id).await;
    assert_eq!(of_jobs(&rest).iter().filter(|kind| *kind == "progress").count(), 3, "{:?}", kinds(&rest));
    assert!(kinds(&rest).contains(&"execution_success".to_owned()));
}

#[tokio::test]
async fn a_page_that_is_reloaded_in_mid_run_is_told_where_its_job_is_and_goes_on() {
    let (fleet, router) = one().await;
    fleet.control(0).hold(Each::Step);
    let client = Client::silent(&router, "page");
    let before = client.socket().await;
    let id = sampling(&fleet, &router, &client).await;
    before.close().await;
    let mut after = client.socket().await;
    present(&next_own(&mut after, 6).await, &id);
    fleet.open();
    until_end(&mut after, &id).await;
    // It has heard the end, and need not be told again.
    after.close().await;
    let mut again = client.socket().await;
    assert_eq!(kinds(&next(&mut again, 2).await), ["status", "status"]);
}

#[tokio::test]
async fn a_client_that_returns_while_its_old_connection_half_lives_misses_nothing() {
    let (fleet, router) = one().await;
    let client = Client::silent(&router, "mobile");
    // Its owner is gone; nobody has noticed, and the end of its job was sent there.
    let half = client.socket().await;
    let first = client.post(&plain(1)).await;
    client.history_when_ended(&first).await;
    client.all_done().await;

    let mut new = client.socket().await;
    let heard = until_end(&mut new, &first).await;
    assert!(kinds(&heard).contains(&"executed".to_owned()), "{:?}", kinds(&heard));

    // The end of the old connection takes nothing from the new one.
    fleet.hold();
    let second = client.post(&plain(2)).await;
    fleet.held(0).await;
    drop(half);
    eventually("the old connection is gone", async || {
        (router.metric("comfy_router_ws_clients", "").await == 1.0).then_some(())
    })
    .await;
    fleet.open();
    let heard = until_end(&mut new, &second).await;
    let own: Vec<Message> = heard.into_iter().filter(|message| message.is_of(&second)).collect();
    assert_eq!(complete(&own, &plain(2)), Ok(()));
}

#[tokio::test]
async fn of_two_tabs_the_newer_hears_of_the_job_and_the_older_takes_over() {
    let (fleet, router) = one().await;
    fleet.hold();
    let client = Client::silent(&router, "twice");
    let mut older = client.socket().await;
    let id = client.post(&plain(7)).await;
    fleet.held(0).await;
    let mut newer = client.socket().await;
    fleet.open();
    let heard = until_end(&mut newer, &id).await;
    let own: Vec<Message> = heard.into_iter().filter(|message| message.is_of(&id)).collect();
    let whole: Vec<Message> =
        own.iter().filter(|message| message.kind() != "progress_state").cloned().collect();
    assert_eq!(complete(&whole, &plain(7)), Ok(()));

    fleet.hold();
    let second = client.post(&plain(8)).await;
    fleet.held(0).await;
    newer.close().await;
    fleet.open();
    let heard = until_end(&mut older, &second).await;
    let success = heard.iter().filter(|message| message.kind() == "execution_success");
    let of: Vec<&Value> = success.map(|message| &message.data()["prompt_id"]).collect();
    assert_eq!(of, [&json!(id), &json!(second)], "it is told what it missed, too");
}
