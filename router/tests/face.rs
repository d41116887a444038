//! The whole router over emulated instances, as clients see it.

#[path = "face/world.rs"]
mod world;

use serde_json::{Value, json};
use world::{Client, World, blur, picture};

#[tokio::test(flavor = "multi_thread")]
async fn each_client_gets_exactly_its_own_job_and_its_own_file() {
    let world = World::start(2).await;
    let mut clients = Vec::new();
    for name in ["ann", "bob", "cem", "dan"] {
        clients.push(world.connect(Some(name)).await);
    }
    let mut prompts = Vec::new();
    for (i, client) in clients.iter().enumerate() {
        let own_id = (i % 2 == 0).then(|| format!("my \"job\" {i}"));
        prompts.push(world.post(blur(16 + i), &client.sid, own_id.as_deref()).await);
    }
    for (i, (client, prompt)) in clients.iter_mut().zip(&prompts).enumerate() {
        let events = client.until_done(prompt).await;
        assert_complete(&events, prompt);
        let images = &events.iter().find(|e| e["type"] == "executed").unwrap()["data"]["output"]["images"];
        let file = &images[0];
        assert!(file["subfolder"].as_str().unwrap().starts_with("~gpu"), "{file}");
        let (width, _) = picture(&world.view(file).await);
        assert_eq!(width as usize, 16 + i, "the picture of another job");
        let history = world.get_json(&format!("/history/{}", world::encode(prompt))).await;
        assert_eq!(history[prompt]["outputs"]["3"]["images"][0], *file);
        assert_eq!(history[prompt]["prompt"][3]["client_id"], client.sid.as_str());
        assert_eq!(history[prompt]["status"]["completed"], true);
    }
    let busy = world.instances().iter().filter(|one| !one.control().executions().is_empty()).count();
    assert_eq!(busy, 2, "both instances worked");
}

/// All events of one job, in ComfyUI's order, and none of another's.
fn assert_complete(events: &[Value], prompt: &str) {
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).filter(|k| *k != "status").collect();
    let position = |kind: &str| kinds.iter().position(|k| *k == kind).unwrap_or_else(|| panic!("no {kind}: {kinds:?}"));
    assert!(position("execution_start") < position("execution_cached"));
    assert!(position("execution_cached") < position("executing"));
    assert!(position("executing") < position("executed"));
    assert!(position("executed") < position("execution_success"));
    let last = events.last().unwrap();
    assert_eq!(*last, json!({"type": "executing", "data": {"node": null, "prompt_id": prompt}}));
    for event in events.iter().filter(|e| e["type"] != "status") {
        assert_eq!(event["data"]["prompt_id"], prompt, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_connects_after_posting_still_hears_of_the_end() {
    let world = World::start(1).await;
    let prompt = world.post(blur(8), "late", None).await;
    world.history_of(&prompt).await;
    let mut late = world.connect(Some("late")).await;
    let events = late.until_done(&prompt).await;
    assert!(events.iter().any(|event| event["type"] == "execution_success"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_at_once_in_comfyuis_shape() {
    let world = World::start(1).await;
    let refused = async |body: &str| world.request("POST", "/prompt", &[], body.as_bytes()).await;
    let (status, _, body) = refused("{").await;
    assert_eq!((status, body["error"]["type"].as_str()), (400, Some("invalid_json")));
    let (status, _, body) = refused("{}").await;
    assert_eq!((status, body["error"]["type"].as_str()), (400, Some("no_prompt")));
    let unknown = json!({"prompt": {"1": {"class_type": "Nope", "inputs": {}}}}).to_string();
    let (status, _, body) = refused(&unknown).await;
    assert_eq!((status, body["error"]["message"].as_str()), (400, Some("Cannot execute because node Nope does not exist.")));
    let (status, _, body) = world.request("GET", "/api/jobs?status=odd", &[], b"").await;
    assert_eq!(status, 400, "{body}");
    let (status, ..) = world.request("POST", "/free", &[], b"").await;
    assert_eq!(status, 400);
    assert!(world.instances()[0].control().executions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_is_shut_to_other_sites() {
    let world = World::start(1).await;
    for headers in [
        &[("origin", "http://evil.com")][..],
        &[("origin", "null")],
        &[("host", "evil.com"), ("accept-language", "en")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(world.request("POST", "/prompt", headers, b"{}").await.0, 403, "{headers:?}");
        assert_eq!(world.request("GET", "/users", headers, b"").await.0, 403, "{headers:?}");
    }
    let own = format!("http://{}", world.address());
    assert_eq!(world.request("GET", "/prompt", &[("origin", &own)], b"").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_instances_look_like_one() {
    let world = World::start(3).await;
    let stats = world.get_json("/system_stats").await;
    let indices: Vec<_> = stats["devices"].as_array().unwrap().iter().map(|d| d["index"].clone()).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert!(stats["system"]["comfyui_version"].is_string());
    let info = world.get_json("/api/object_info").await;
    assert!(info["SaveImage"]["output_node"].as_bool().unwrap());
    assert_eq!(world.get_json("/object_info/SaveImage").await["SaveImage"], info["SaveImage"]);
    assert_eq!(world.get_json("/object_info/Nope").await, json!({}));
    assert_eq!(world.get_json("/features").await["supports_preview_metadata"], true);
    assert_eq!(world.get_json("/prompt").await, json!({"exec_info": {"queue_remaining": 0}}));
    assert_eq!(world.get_json("/queue").await, json!({"queue_running": [], "queue_pending": []}));
    assert_eq!(world.get_json("/history/none").await, json!({}));
    // Not in the table: the home instance answers, byte for byte.
    assert!(world.get_json("/users").await["storage"].is_string());
    assert_eq!(world.request("GET", "/api/jobs/none", &[], b"").await.0, 404);
    assert_eq!(world.request("POST", "/free", &[], br#"{"unload_models":true}"#).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_can_be_watched_cut_and_interrupted() {
    let world = World::start(1).await;
    let control = world.instances()[0].control();
    control.hold(comfyui_emulator::Each::Execution);
    let mut ann = world.connect(Some("ann")).await;
    let running = world.post(blur(8), "ann", None).await;
    control.wait_held(1).await;
    let waiting = world.post(blur(9), "ann", None).await;
    let cut = world.post(blur(10), "ann", None).await;
    let queue = world.get_json("/queue").await;
    assert_eq!(queue["queue_running"][0][1], running.as_str());
    assert_eq!(queue["queue_pending"][0][1], waiting.as_str());
    assert_eq!(queue["queue_pending"][1][3]["client_id"], "ann");
    assert_eq!(world.get_json("/prompt").await["exec_info"]["queue_remaining"], 3);
    let jobs = world.get_json("/api/jobs?status=pending,in_progress&sort_order=asc&limit=2").await;
    assert_eq!(jobs["jobs"][0]["status"], "in_progress");
    assert_eq!(jobs["pagination"]["total"], 3);

    let delete = json!({"delete": [cut]}).to_string();
    assert_eq!(world.request("POST", "/api/queue", &[], delete.as_bytes()).await.0, 200);
    assert_eq!(world.get_json("/prompt").await["exec_info"]["queue_remaining"], 2);
    assert_eq!(world.request("POST", "/interrupt", &[], b"").await.0, 200);
    control.open();
    let events = ann.until_done(&running).await;
    assert!(events.iter().any(|event| event["type"] == "execution_interrupted"), "{events:?}");
    assert_complete(&ann.until_done(&waiting).await, &waiting);
    let cancelled = world.request("POST", &format!("/api/jobs/{waiting}/cancel"), &[], b"").await;
    assert_eq!(cancelled.2, json!({"cancelled": false}), "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_there_wherever_the_job_runs() {
    let world = World::start(2).await;
    let name = world.upload("mine.png", &world::png(12, 5)).await;
    let controls: Vec<_> = world.instances().iter().map(|one| one.control()).collect();
    controls.iter().for_each(|control| control.hold(comfyui_emulator::Each::Execution));
    let load = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
    });
    let mut client = world.connect(Some("ann")).await;
    let first = world.post(load.clone(), "ann", None).await;
    let second = world.post(load, "ann", None).await;
    for control in &controls {
        control.wait_held(1).await;
        control.open();
    }
    let mut events = client.until_done(&first).await;
    events.extend(client.until_done(&second).await);
    assert!(!events.iter().any(|event| event["type"] == "execution_error"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_come_in_the_form_the_socket_asked_for() {
    let world = World::start(1).await;
    let sampler = json!({
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["4", 1]}},
        "3": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0],
            "latent_image": ["5", 0], "seed": 1, "steps": 3, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "s"}},
    });
    let mut old = world.connect(Some("old")).await;
    let mut new = world.connect(Some("new")).await;
    new.say(json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}})).await;
    let reply = new.event("feature_flags").await;
    assert_eq!(reply["data"]["supports_preview_metadata"], true);
    for (client, kind) in [(&mut old, 1), (&mut new, 4)] {
        let prompt = world.post(sampler.clone(), &client.sid, Some(&format!("for-{kind}"))).await;
        client.until_done(&prompt).await;
        assert!(!client.binary.is_empty(), "previews were sent");
        for frame in &client.binary {
            assert_eq!(frame[..4], [0, 0, 0, kind]);
            if kind == 4 {
                assert!(String::from_utf8_lossy(frame).contains(r#""prompt_id":"for-4""#));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_it_all() {
    let world = World::start(1).await;
    let prompt = world.post(blur(8), "ann", None).await;
    world.history_of(&prompt).await;
    let admin = async |path: &str| world.admin(path).await;
    assert_eq!(admin("/livez").await.0, 200);
    assert_eq!(admin("/readyz").await.1["ready"], true);
    let fleet = admin("/api/fleet").await.1;
    assert_eq!((&fleet["instances"][0]["name"], &fleet["instances"][0]["state"]), (&json!("gpu0"), &json!("up")));
    let job = admin(&format!("/api/jobs/{prompt}")).await.1;
    assert_eq!(job["state"], "success");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1);
    assert!(!job["decisions"].as_array().unwrap().is_empty());
    assert_eq!(admin("/api/jobs?state=ended").await.1["jobs"][0]["prompt_id"], prompt.as_str());
    assert!(admin("/api/policy").await.1["serving"]["name"].is_string());
    assert_eq!(admin("/api/jobs/none").await.0, 404);
    assert_eq!(admin("/nothing").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_tenants_apart() {
    let world = World::start_with(1, &[("front.api_keys", r#"[{name="ann",key="kkkk-ann"},{name="bob",key="kkkk-bob"}]"#)]).await;
    let (ann, bob) = (("authorization", "Bearer kkkk-ann"), ("authorization", "Bearer kkkk-bob"));
    assert_eq!(world.request("GET", "/queue", &[], b"").await.0, 401);
    let body = json!({"prompt": blur(8), "prompt_id": "anns"}).to_string();
    assert_eq!(world.request("POST", "/prompt", &[ann], body.as_bytes()).await.0, 200);
    world.until(async || world.request("GET", "/history/anns", &[ann], b"").await.2 != json!({})).await;
    assert_eq!(world.request("GET", "/history/anns", &[bob], b"").await.2, json!({}));
    assert_eq!(world.request("GET", "/history", &[bob], b"").await.2, json!({}));
    assert_eq!(world.request("POST", "/history", &[bob], br#"{"clear":true}"#).await.0, 200);
    assert_ne!(world.request("GET", "/history", &[ann], b"").await.2, json!({}));
    assert_eq!(world.request("GET", "/api/jobs/anns", &[bob], b"").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sid_on_two_sockets() {
    let world = World::start(1).await;
    let old: Client = world.connect(Some("ann")).await;
    let mut new = world.connect(Some("ann")).await;
    old.leave().await;
    let prompt = world.post(blur(8), "ann", None).await;
    assert_complete(&new.until_done(&prompt).await, &prompt);
}
