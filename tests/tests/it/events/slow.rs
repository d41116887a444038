//! Clients that read slowly, or not at all.

use comfy_router_tests::{
    Client, Fleet, Message, Serve, Socket, complete, diffusion, eventually, kinds, plain, within,
};
use comfyui_emulator::Audience;
use serde_json::json;

use super::until_end;

#[tokio::test]
async fn a_slow_reader_delays_nobody_loses_previews_first_and_hears_the_end() {
    slow_reader(false).await;
}

/// Its previews and progress do not wait as long as nothing else does.
#[tokio::test]
async fn a_slow_reader_that_wants_metadata_hears_no_less() {
    slow_reader(true).await;
}

async fn slow_reader(metadata: bool) {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances())
        .set("limits.ws_queue_messages=64")
        .set("limits.ws_queue_bytes=262144")
        .start()
        .await;
    const STEPS: u32 = 3_000;
    let slow = Client::silent(&router, "slow");
    let mut narrow =
        Socket::open_narrow(router.url(), "/ws?clientId=slow").await.expect("the router takes a websocket");
    let flags = json!({"type": "feature_flags", "data": {"supports_preview_metadata": metadata}});
    narrow.try_send(&flags.to_string()).await.expect("flags are heard");
    let mut graph = diffusion("sd15.safetensors", 7, STEPS);
    graph["4"]["inputs"]["width"] = json!(512);
    graph["4"]["inputs"]["height"] = json!(512);
    let long = slow.post(&graph).await;

    // The other's jobs come and go while nothing is read.
    let quick = Client::connect(&router, "quick").await;
    for colour in 0..5 {
        let id = quick.post(&plain(colour)).await;
        assert_eq!(complete(&quick.end_of(&id).await, &plain(colour)), Ok(()));
    }
    slow.history_when_ended(&long).await;
    let dropped = async |kind: &str| {
        router.metric("comfy_router_client_frames_dropped_total", &format!("kind=\"{kind}\"")).await
    };
    assert!(dropped("preview").await > 0.0, "drops are counted");
    assert_eq!(dropped("terminal").await + dropped("ordinary").await, 0.0);

    let heard = until_end(&mut narrow, &long).await;
    let count = |kind: &str| heard.iter().filter(|message| message.kind() == kind).count();
    let previews = if metadata { "binary 4" } else { "binary 1" };
    assert!((1..STEPS as usize).contains(&count(previews)), "previews gave way: {}", count(previews));
    assert!(count("progress_state") < 2 * STEPS as usize, "progress gave way");
    let told: Vec<Message> = heard.iter().filter(|message| message.is_of(&long)).cloned().collect();
    assert_eq!(complete(&told, &graph), Ok(()));
    let bars = heard.iter().filter(|message| message.kind() == "progress");
    let last = bars.map(|bar| bar.data()["value"].as_u64().unwrap_or_default()).collect::<Vec<_>>();
    assert!(last.is_sorted(), "what is left is in order");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_hears_of_the_end_when_it_returns() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("limits.ws_queue_messages=16").start().await;
    fleet.hold();
    let client = Client::silent(&router, "deaf");
    let mut narrow =
        Socket::open_narrow(router.url(), "/ws?clientId=deaf").await.expect("the router takes a websocket");
    let id = client.post(&plain(1)).await;
    fleet.held(0).await;
    let news = json!({"text": "x".repeat(64 << 10)});
    eventually("the client is given up", async || {
        for _ in 0..20 {
            fleet.control(0).say(Audience::Everybody, "news", &news);
        }
        let dropped = "comfy_router_client_frames_dropped_total";
        (router.metric(dropped, "kind=\"ordinary\"").await > 0.0).then_some(())
    })
    .await;
    let closed = within("the close", async {
        loop {
            if let Message::Closed(code) = narrow.next().await {
                return code;
            }
        }
    });
    assert_eq!(closed.await, Some(1013));
    fleet.open();
    client.history_when_ended(&id).await;
    let heard = until_end(&mut client.socket().await, &id).await;
    assert!(kinds(&heard).contains(&"execution_success".to_owned()));
    assert_eq!(router.metric("comfy_router_client_closed_total", "reason=\"slow\"").await, 1.0);
}
