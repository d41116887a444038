//! What the router does not know passes through to the home instance; files are where a client expects them.

use comfy_router_tests::{
    Client, Fleet, Message, Serve, Socket, colour_of, kinds, loading, plain, png_of, within,
};
use comfyui_emulator::Each;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;

#[tokio::test]
async fn an_unknown_path_streams_from_the_home_instance() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    fleet.control(0).hold(Each::Execution);
    let answer = router.http().begin(Method::GET, "/custom/stream", &[], "").await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut part = async || {
        let frame = within("a part of the body", body.frame()).await.expect("more").expect("unbroken");
        frame.into_data().expect("data")
    };
    assert_eq!(part().await, "first ", "the first part comes while the second is held back");
    fleet.control(0).open();
    assert_eq!(part().await, "second");
}

#[tokio::test]
async fn methods_bodies_and_answers_pass_unchanged() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let body: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    for method in [Method::POST, Method::PUT, Method::PATCH] {
        let answer = router.http().send(method.clone(), "/custom/mirror?x=%2F", body.clone()).await;
        assert!(answer.status == 200 && answer.body == body, "{method}: {}", answer.status);
    }
    let direct = comfy_router_tests::Http::new(&fleet.url(0)).get("/no/such/page").await;
    let through = router.http().get("/no/such/page").await;
    assert_eq!((through.status, &through.body), (direct.status, &direct.body));
    for path in ["/", "/extensions", "/models/checkpoints", "/embeddings", "/i18n"] {
        let direct = comfy_router_tests::Http::new(&fleet.url(0)).get(path).await;
        let through = router.http().get(path).await;
        assert_eq!((through.status, &through.body), (direct.status, &direct.body), "{path}");
    }
}

/// The emulator, as aiohttp, answers such a method without looking at the body, and then closes over unread bytes.
#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_read_is_passed_on() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let http = router.http();
    for size in [300_000, 0, 100_000] {
        for _ in 0..8 {
            let answer = http.send(Method::PUT, "/custom/echo", vec![b'x'; size]).await;
            assert_eq!(answer.status, 405, "{size}: {}", answer.text());
        }
    }
    assert_eq!(http.send(Method::POST, "/custom/mirror", "still there").await.text(), "still there");
}

#[tokio::test]
async fn a_websocket_on_an_unknown_path_is_tunnelled() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let mut socket = Socket::open(router.url(), "/custom/echo").await.expect("an upgrade");
    for word in [json!({ "type": "hello" }), json!({ "type": "x".repeat(100_000) })] {
        socket.send(&word.to_string()).await;
        assert_eq!(within("the echo", socket.next()).await, Message::Event(word));
    }
    assert!(Socket::open(router.url(), "/custom/mirror").await.is_err(), "what is no websocket stays none");
}

#[tokio::test]
async fn an_upload_can_be_loaded_on_every_instance() {
    let fleet = Fleet::of(3).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let uploaded = client.http.upload("photo.png", &png_of(0x0012_3456)).await.ok().json();
    assert_eq!(uploaded, json!({ "name": "photo.png", "subfolder": "", "type": "input" }));
    assert_eq!(colour_of(&client.view(&with_filename(&uploaded)).await.ok().body), 0x0012_3456);

    fleet.hold();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(client.post(&loading("photo.png")).await);
    }
    for at in 0..3 {
        fleet.held(at).await;
    }
    fleet.open();
    for id in &ids {
        let said = client.end_of(id).await;
        assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
        assert_eq!(client.colour_made_by(id).await, 0x0012_3456);
    }
}

fn with_filename(uploaded: &serde_json::Value) -> serde_json::Value {
    json!({ "filename": uploaded["name"], "subfolder": uploaded["subfolder"], "type": uploaded["type"] })
}

#[tokio::test]
async fn a_part_of_a_picture_can_be_asked_for() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let id = client.post(&plain(0x33)).await;
    client.end_of(&id).await;
    let image = client.history(&id).await["outputs"]["2"]["images"][0].clone();
    let whole = client.view(&image).await.ok();
    let text = |name: &str| image[name].as_str().expect("text").to_owned();
    let path = format!("/view?filename={}&subfolder={}&type=output", text("filename"), text("subfolder"));
    let part =
        client.http.try_send(Method::GET, &path, &[("range", "bytes=1-3")], "").await.expect("an answer");
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &whole.body[1..4]));
    assert_eq!(part.header("content-range"), format!("bytes 1-3/{}", whole.body.len()));
    assert_eq!(client.http.get("/view?filename=no_such_picture.png").await.status, 404);
    assert_eq!(client.http.get("/view?filename=../secret").await.status, 400);
}

#[tokio::test]
async fn the_fleet_looks_like_one_comfyui() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let http = router.http();
    let info = http.get_json("/object_info").await;
    assert_eq!(info["SaveImage"]["output_node"], true);
    assert_eq!(http.get_json("/api/object_info/KSampler").await["KSampler"], info["KSampler"]);
    assert!(http.get_json("/system_stats").await["system"]["comfyui_version"].is_string());
    assert_eq!(http.get_json("/features").await["supports_preview_metadata"], true);
    assert_eq!(http.get_json("/prompt").await, json!({ "exec_info": { "queue_remaining": 0 } }));
    http.post("/free", &json!({ "unload_models": true, "free_memory": true })).await.ok();
}
