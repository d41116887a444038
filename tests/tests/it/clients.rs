//! Each client sees its own jobs and nothing else, and gets its own pictures.

use std::collections::HashSet;

use comfy_router_tests::{Client, Fleet, Message, Serve, Socket, complete, diffusion, kinds, plain, within};
use comfyui_emulator::Outcome;
use serde_json::json;

const CLIENTS: u32 = 4;
const PROMPTS: u32 = 10;

/// Half of the prompts have ids of the client's own, and half of those are no UUIDs.
fn own_id(client: u32, at: u32) -> Option<String> {
    match at % 4 {
        0 => Some(format!("00000000-0000-4000-8000-{client:04}{at:08}")),
        2 => Some(format!("client {client}, prompt {at} ✓")),
        _ => None,
    }
}

async fn forty_prompts_of_four_clients(instances: usize) {
    let fleet = Fleet::of(instances).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let mut posted = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::connect(&router, &format!("client-{number}")).await;
        let mut prompts = Vec::new();
        for at in 0..PROMPTS {
            let colour = 0x10_0000 + (number << 8) + at;
            let id = match own_id(number, at) {
                Some(id) => client.post_as(&id, &plain(colour)).await,
                None => client.post(&plain(colour)).await,
            };
            assert!(own_id(number, at).is_none_or(|own| own == id), "a client's own id is kept");
            prompts.push((id, colour));
        }
        posted.push((client, prompts));
    }
    for at in 0..instances {
        fleet.held(at).await;
    }
    fleet.open();

    let mut names = HashSet::new();
    for (client, prompts) in &posted {
        for (id, colour) in prompts {
            let said = client.end_of(id).await;
            let history = client.history(id).await;
            assert_eq!(
                history["status"]["completed"], true,
                "history is there when the end is told: {history}"
            );
            complete(&said, &plain(*colour)).unwrap_or_else(|wrong| panic!("{id} {wrong}"));
            assert_eq!(client.colour_made_by(id).await, *colour, "{id} got its own picture");
            names.insert(history["outputs"]["2"]["images"][0]["filename"].to_string());
        }
        let own: HashSet<&str> = prompts.iter().map(|(id, _)| id.as_str()).collect();
        for message in client.record() {
            let of = message.data()["prompt_id"].as_str().map(str::to_owned);
            assert!(of.is_none_or(|id| own.contains(id.as_str())), "a stranger's message: {message:?}");
        }
    }
    assert!(names.len() < (CLIENTS * PROMPTS) as usize, "file names collide between instances: {names:?}");
    assert_eq!(fleet.started(), (CLIENTS * PROMPTS) as usize, "each prompt ran once");
    for runs in fleet.executions() {
        assert!(runs.iter().any(|run| run.outcome == Some(Outcome::Success)), "every instance worked");
    }
}

#[tokio::test]
async fn forty_prompts_of_four_clients_on_two_instances() {
    forty_prompts_of_four_clients(2).await;
}

#[tokio::test]
async fn forty_prompts_of_four_clients_on_four_instances() {
    forty_prompts_of_four_clients(4).await;
}

#[tokio::test]
async fn a_preview_carries_the_id_that_its_client_knows() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "painter").await;
    let other = Client::connect(&router, "onlooker").await;
    let id = client.post_as("my fox", &diffusion("sd15.safetensors", 7, 4)).await;
    let said = client.end_of(&id).await;
    let steps = kinds(&said).iter().filter(|kind| *kind == "progress").count();
    assert!(steps >= 1, "progress is told: {:?}", kinds(&said));

    let preview = client.hears("a preview", |message| matches!(message, Message::Binary(4, _))).await;
    let Message::Binary(_, bytes) = preview else { panic!("just matched") };
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    let metadata: serde_json::Value = serde_json::from_slice(&bytes[4..4 + length]).expect("JSON");
    assert_eq!((&metadata["prompt_id"], &metadata["node_id"]), (&json!("my fox"), &json!("5")));
    assert_eq!(bytes[4 + length..][..2], [0xff, 0xd8], "the picture follows");
    assert!(
        other.record().iter().all(|message| message.kind() == "status" || message.kind() == "feature_flags")
    );
}

#[tokio::test]
async fn a_client_without_the_feature_gets_previews_of_the_old_kind() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let mut socket = Socket::open(router.url(), "/ws?clientId=old").await.expect("a websocket");
    let client = Client::silent(&router, "old");
    client.post(&diffusion("sd15.safetensors", 8, 4)).await;
    loop {
        match within("a preview", socket.next()).await {
            Message::Binary(1, bytes) => {
                assert_eq!(bytes[..6], [0, 0, 0, 1, 0xff, 0xd8], "a JPEG");
                break;
            }
            Message::Binary(kind, _) => panic!("a frame of type {kind}"),
            Message::Closed(code) => panic!("closed with {code:?}"),
            Message::Event(_) => {}
        }
    }
}

#[tokio::test]
async fn a_prompt_without_a_client_is_told_to_nobody() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "listener").await;
    let answer = router.http().post("/prompt", &json!({ "prompt": plain(0x77) })).await.ok().json();
    let id = answer["prompt_id"].as_str().expect("an id");
    client.history_when_ended(id).await;
    assert_eq!(client.colour_made_by(id).await, 0x77);
    let own = client.post(&plain(0x78)).await;
    client.end_of(&own).await;
    assert!(client.said_of(id).is_empty());
}

#[tokio::test]
async fn a_client_that_comes_back_hears_the_end() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let router = Serve::over(fleet.instances()).start().await;
    let mut client = Client::connect(&router, "wanderer").await;
    let id = client.post(&plain(0x99)).await;
    fleet.held(0).await;
    client.leave();
    client.reconnect().await;
    fleet.open();
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{said:?}");
}
