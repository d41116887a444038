//! Websocket behaviour that the recordings do not show: previews, broadcasts, errors, interrupts, reconnects.

use comfyui_emulator::{Config, Each, Emulator, Fault, Flavour};
use serde_json::{Value, json};

use crate::client::{Frame, Http, Socket, diffusion, plain};

async fn start(flavour: Flavour) -> (Emulator, Http) {
    let emulator = Emulator::start(Config { flavour, ..Config::default() }).await.expect("starts");
    let http = Http::new(&emulator.url());
    (emulator, http)
}

/// The frames of one job, without the whole-registry events.
async fn frames(socket: &mut Socket) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match socket.frame().await {
            Frame::Event(event) if event["type"] == "execution_success" => return frames,
            frame => frames.push(frame),
        }
    }
}

fn order(frames: &[Frame]) -> Vec<String> {
    let name = |frame: &Frame| match frame {
        Frame::Event(event) => event["type"].as_str().expect("a type").to_owned(),
        Frame::Binary(bytes) => format!("binary {}", bytes[3]),
        Frame::Closed => "closed".into(),
    };
    frames.iter().map(name).collect()
}

#[tokio::test]
async fn previews_follow_the_flags_of_the_owner() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let mut old = Socket::connect(&emulator.url(), "old").await;
    let mut new = Socket::connect(&emulator.url(), "new").await;
    new.send(&json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } })).await;
    new.until("feature_flags").await;

    http.prompt(&diffusion("sd15.safetensors", 1, 2), Some("old")).await;
    let seen = frames(&mut old).await;
    let names = order(&seen).join(" ");
    assert!(names.contains("progress_state progress binary 1 progress_state progress binary 1"), "{names}");
    let plain = seen.iter().find_map(|frame| match frame {
        Frame::Binary(bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(plain.expect("a preview")[..11], [0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xd8, 0xff]);

    let id = http.prompt(&diffusion("sd15.safetensors", 2, 2), Some("new")).await;
    let seen = frames(&mut new).await;
    assert!(
        order(&seen).join(" ").contains("progress_state binary 4 progress progress_state binary 4 progress")
    );
    let Some(Frame::Binary(bytes)) = seen.iter().find(|frame| matches!(frame, Frame::Binary(_))) else {
        panic!("no preview");
    };
    let length = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
    let metadata: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("metadata");
    assert_eq!(metadata["prompt_id"], json!(id));
    assert_eq!((&metadata["node_id"], &metadata["image_type"]), (&json!("5"), &json!("image/jpeg")));
    assert_eq!(bytes[8 + length..][..3], [0xff, 0xd8, 0xff]);
}

#[tokio::test]
async fn later_flags_are_ignored() {
    let (emulator, _http) = start(Flavour::V0_8_0).await;
    let mut socket = Socket::connect(&emulator.url(), "late").await;
    let flags = json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } });
    socket.send(&json!({ "type": "hello" })).await;
    socket.send(&flags).await;
    let mut fresh = Socket::connect(&emulator.url(), "fresh").await;
    fresh.send(&flags).await;
    fresh.until("feature_flags").await;
    assert_eq!(socket.event().await["type"], "status");
    assert_eq!(emulator.control().frames_sent("late"), 1);
}

#[tokio::test]
async fn a_job_without_client_is_broadcast_in_part() {
    let (emulator, http) = start(Flavour::V0_3_64).await;
    let mut socket = Socket::connect(&emulator.url(), "watcher").await;
    http.prompt(&diffusion("sd15.safetensors", 1, 1), None).await;
    emulator.control().wait_ended(1).await;
    let mut names = Vec::new();
    while socket.read < emulator.control().frames_sent("watcher") {
        names.extend(order(&[socket.frame().await]));
    }
    names.dedup();
    let expected = ["status", "progress_state", "progress", "binary 1", "progress_state", "status"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn websocket_images_are_whole_pngs() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let mut socket = Socket::connect(&emulator.url(), "krita").await;
    let mut prompt = plain(0x10_20_30, "x");
    prompt["2"] = json!({ "class_type": "SaveImageWebsocket", "inputs": { "images": ["1", 0] } });
    http.prompt(&prompt, Some("krita")).await;
    let seen = frames(&mut socket).await;
    let Some(Frame::Binary(bytes)) = seen.iter().find(|frame| matches!(frame, Frame::Binary(_))) else {
        panic!("no image");
    };
    assert_eq!(bytes[..8], [0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(crate::client::png_pixel(&bytes[8..]), (32, 16, vec![0x10, 0x20, 0x30]));
}

#[tokio::test]
async fn progress_text_reaches_everybody() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let mut bystander = Socket::connect(&emulator.url(), "bystander").await;
    bystander.until("status").await;
    let mut prompt = plain(1, "t");
    prompt["77"] = json!({ "class_type": "GetImageSize", "inputs": { "image": ["1", 0] } });
    prompt["78"] = json!({ "class_type": "EmptyImage",
        "inputs": { "width": ["77", 0], "height": ["77", 1], "batch_size": 1, "color": 2 } });
    prompt["2"]["inputs"]["images"] = json!(["78", 0]);
    http.prompt(&prompt, Some("owner")).await;
    let bytes = loop {
        if let Frame::Binary(bytes) = bystander.frame().await {
            break bytes;
        }
    };
    assert_eq!(bytes, b"\0\0\0\x03\0\0\0\x0277width: 32, height: 16\n batch size: 1");
    emulator.control().wait_ended(1).await;
    let image = http.get("/view?filename=t_00001_.png").await;
    assert_eq!(crate::client::png_pixel(&image.body), (32, 16, vec![0, 0, 2]));
}

#[tokio::test]
async fn a_broken_upload_fails_its_job_and_not_the_next() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let mut socket = Socket::connect(&emulator.url(), "e").await;
    http.upload("/upload/image", "broken.png", b"no image", &[]).await;
    let mut prompt = plain(1, "e");
    prompt["1"] = json!({ "class_type": "LoadImage", "inputs": { "image": "broken.png" } });
    let id = http.prompt(&prompt, Some("e")).await;
    let error = socket.until("execution_error").await["data"].clone();
    assert_eq!((&error["node_id"], &error["node_type"]), (&json!("1"), &json!("LoadImage")));
    assert_eq!(error["exception_type"], "PIL.UnidentifiedImageError");
    assert!(error["exception_message"].as_str().expect("text").ends_with("broken.png'\n"));
    assert_eq!(error["current_inputs"], json!({ "image": ["broken.png"] }));
    let keys: Vec<&str> = error.as_object().expect("data").keys().map(String::as_str).collect();
    let expected = [
        "prompt_id",
        "node_id",
        "node_type",
        "executed",
        "exception_message",
        "exception_type",
        "traceback",
        "current_inputs",
        "current_outputs",
        "timestamp",
    ];
    assert_eq!(keys, expected);
    assert_eq!(socket.event().await["type"], "status");
    assert_eq!(socket.event().await["data"], json!({ "node": null, "prompt_id": id }));
    let status = http.history(&id).await["status"].clone();
    assert_eq!((&status["status_str"], &status["completed"]), (&json!("error"), &json!(false)));
    assert_eq!(status["messages"][2][0], "execution_error");
    let next = http.prompt(&plain(2, "e"), Some("e")).await;
    assert!(socket.job(&next).await.contains(&"execution_success".to_owned()));
}

#[tokio::test]
async fn out_of_memory_strikes_the_sampler() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let mut socket = Socket::connect(&emulator.url(), "o").await;
    emulator.control().inject(Fault::OutOfMemory { count: 1 });
    http.prompt(&diffusion("sd15.safetensors", 1, 2), Some("o")).await;
    let error = socket.until("execution_error").await["data"].clone();
    assert_eq!(
        (&error["exception_type"], &error["node_id"]),
        (&json!("torch.OutOfMemoryError"), &json!("5"))
    );
    let message = error["exception_message"].as_str().expect("text");
    assert!(message.contains("\nThis error means you ran out of memory on your GPU.\n\nTIPS:"), "{message}");
}

#[tokio::test]
async fn interrupts_stop_a_sampler_between_steps() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let control = emulator.control();
    let mut socket = Socket::connect(&emulator.url(), "i").await;
    control.hold(Each::Step);
    let id = http.prompt(&diffusion("sd15.safetensors", 1, 9), Some("i")).await;
    control.wait_held(1).await;
    http.post("/interrupt", &json!({ "prompt_id": "another" })).await;
    assert_eq!(control.gate().held, 1);
    http.post("/interrupt", &json!({ "prompt_id": id })).await;
    let data = socket.until("execution_interrupted").await["data"].clone();
    assert_eq!((&data["node_id"], &data["node_type"]), (&json!("5"), &json!("KSampler")));
    assert_eq!(http.post("/interrupt", &json!([])).await.status, 500);
    let status = http.history(&id).await["status"].clone();
    assert_eq!(
        (&status["status_str"], &status["messages"][2][0]),
        (&json!("error"), &json!("execution_interrupted"))
    );
}

#[tokio::test]
async fn an_idle_interrupt_hits_nobody() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    assert_eq!(http.send(hyper::Method::POST, "/interrupt", "").await.status, 200);
    let id = http.prompt(&plain(1, "idle"), None).await;
    emulator.control().wait_ended(1).await;
    assert_eq!(http.history(&id).await["status"]["status_str"], "success");
}

#[tokio::test]
async fn a_part_of_a_prompt_comes_from_the_cache() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let mut socket = Socket::connect(&emulator.url(), "c").await;
    let first = http.prompt(&diffusion("sd15.safetensors", 1, 1), Some("c")).await;
    socket.job(&first).await;
    http.prompt(&diffusion("sd15.safetensors", 2, 1), Some("c")).await;
    let cached = socket.until("execution_cached").await;
    assert_eq!(cached["data"]["nodes"], json!(["1", "2", "3", "4"]));
    let ran = emulator.control().wait_ended(2).await;
    assert_eq!(ran[1].nodes_run, ["5", "6", "7"]);
}

#[tokio::test]
async fn the_owner_who_returns_learns_the_node() {
    let (emulator, http) = start(Flavour::V0_8_0).await;
    let control = emulator.control();
    control.hold(Each::Execution);
    http.prompt(&plain(1, "r"), Some("me")).await;
    control.wait_held(1).await;
    let mut socket = Socket::connect(&emulator.url(), "me").await;
    let status = socket.event().await;
    assert_eq!(status["data"], json!({ "status": { "exec_info": { "queue_remaining": 1 } }, "sid": "me" }));
    assert_eq!(socket.event().await, json!({ "type": "executing", "data": { "node": "1" } }));
    control.open();
    assert_eq!(socket.until("execution_success").await["type"], "execution_success");
    socket.close().await;
}

#[tokio::test]
async fn a_socket_without_client_id_gets_one() {
    let (emulator, _http) = start(Flavour::V0_8_0).await;
    let mut socket = Socket::connect(&emulator.url(), "").await;
    let sid = socket.event().await["data"]["sid"].as_str().expect("a sid").to_owned();
    assert!(sid.len() == 32 && sid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sid}");
}
