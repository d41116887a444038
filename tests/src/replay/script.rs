//! What is played: every request of the recordings in `tests/recordings`, in their order, and after each scene what
//! they leave out.

mod files;
mod lists;

use hyper::Method;
use serde_json::{Value, json};

use super::Transcript;
use super::player::Player;

const PIXELS: u32 = 0x33_66_99;

pub(super) async fn play(mut player: Player) -> Transcript {
    let play = &mut player;
    greetings(play).await;
    jobs(play).await;
    refusals(play).await;
    every_node_error(play).await;
    submissions(play).await;
    files::uploads(play).await;
    files::files(play).await;
    several(play).await;
    previews(play).await;
    lists::forms(play).await;
    held_queue(play).await;
    misc(play).await;
    player.finish()
}

async fn greetings(play: &mut Player) {
    play.scene("feature flags");
    play.connect("aaaa", "aaaa", Some(json!({"supports_preview_metadata": true}))).await;
    play.hears("aaaa", "flags", |message| message.kind() == "feature_flags").await;
    play.connect("bbbb", "bbbb", None).await;
}

fn image(width: Value, color: u32) -> Value {
    json!({"class_type": "EmptyImage", "inputs": {"width": width, "height": width, "batch_size": 1, "color": color}})
}

fn blurred(color: u32) -> Value {
    json!({
        "1": image(json!(256), color),
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 5, "sigma": 2.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}},
    })
}

/// The same with one thing changed.
fn with(mut graph: Value, path: &str, value: Value) -> Value {
    *graph.pointer_mut(path).expect("it is there") = value;
    graph
}

async fn jobs(play: &mut Player) {
    play.scene("plain job");
    let first = play.submit("plain", json!({"prompt": blurred(255), "client_id": "aaaa"})).await;
    play.hears_end("aaaa", &first).await;
    play.remaining(0).await;

    play.scene("same job again: cached");
    let again = play.submit("again", json!({"prompt": blurred(255), "client_id": "aaaa"})).await;
    play.hears_end("aaaa", &again).await;
    play.remaining(0).await;

    play.scene("client-chosen prompt_id and api prefix");
    let id = "8a92a8a2-cf25-45cb-9f42-eb0c4a46097e";
    play.name(id, "chosen");
    let body = json!({"prompt": blurred(7), "client_id": "bbbb", "prompt_id": id,
        "extra_data": {"extra_pnginfo": {"workflow": {"id": "w1"}}}});
    play.submit_to("/api/prompt", "chosen", body).await;
    play.hears_end("bbbb", id).await;
    play.remaining(0).await;
    for path in [
        &format!("/history/{id}"),
        "/history?max_items=1",
        "/api/jobs",
        &format!("/api/jobs/{id}"),
        "/history/nope",
        "/api/jobs/nope",
    ] {
        play.get(path).await;
    }
}

fn saved(images: Value) -> Value {
    json!({"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "t"}})
}

async fn refusals(play: &mut Player) {
    play.scene("errors");
    play.post("/prompt", json!({"client_id": "aaaa"})).await;
    play.post("/prompt", json!("{\"prompt\": ")).await;
    play.post("/prompt", json!({"prompt": {}, "client_id": "aaaa"})).await;
    let mut lacking = blurred(255);
    lacking["2"]["inputs"].as_object_mut().expect("inputs").remove("sigma");
    let bad = with(with(blurred(255), "/1/inputs/width", json!(-5)), "/1/inputs/height", json!("abc"));
    for graph in [
        with(blurred(255), "/1/class_type", json!("NoSuchNode")),
        bad,
        lacking,
        with(blurred(255), "/2/inputs/image", json!(["1", 5])),
        with(blurred(255), "/2/inputs/image", json!(["99", 0])),
        json!({"1": image(json!(256), 255)}),
        json!({
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "missing.safetensors"}},
            "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
            "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
            "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
        }),
    ] {
        play.post("/prompt", json!({"prompt": graph})).await;
    }
    let mut partly = blurred(255);
    partly["9"] = json!({"class_type": "SaveImage", "inputs": {"images": ["88", 0], "filename_prefix": "y"}});
    let id = play.submit("partly", json!({"prompt": partly, "client_id": "aaaa"})).await;
    play.hears_end("aaaa", &id).await;
    play.remaining(0).await;
}

async fn every_node_error(play: &mut Player) {
    play.scene("every node error");
    let latent =
        json!({"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}});
    let of_images = |images: Value| json!({"1": image(json!(64), 1), "e": latent, "3": saved(images)});
    let turned = |from: &str| json!({"class_type": "ImageInvert", "inputs": {"image": [from, 0]}});
    let mut without_class = blurred(1);
    without_class["2"].as_object_mut().expect("a node").remove("class_type");
    for graph in [
        of_images(json!(["e", 0])),
        of_images(json!(["1", 0, 0])),
        of_images(json!([])),
        of_images(json!(["1", 0.0])),
        of_images(json!(["1", "0"])),
        of_images(json!(["1", -2])),
        of_images(json!([1, 0])),
        of_images(json!([["1"], 0])),
        of_images(json!(["1", 9])),
        with(blurred(1), "/2/inputs/sigma", json!(11)),
        with(blurred(1), "/2/inputs/sigma", json!("x")),
        with(blurred(1), "/2/inputs/sigma", json!(null)),
        with(blurred(1), "/2/inputs/sigma", json!({"__value__": [1]})),
        with(blurred(1), "/2/inputs/blur_radius", json!(3.9e9)),
        with(blurred(1), "/1/inputs/color", json!(16_777_216)),
        with(blurred(1), "/1/inputs/batch_size", json!({"a": 1})),
        json!({"1": image(json!(64), 1), "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0],
            "upscale_method": "by hand", "width": 8, "height": 8, "crop": "it's"}}, "3": saved(json!(["2", 0]))}),
        json!({"1": turned("2"), "2": turned("1"), "3": saved(json!(["1", 0]))}),
        json!({"3": saved(json!(["3", 0]))}),
        without_class,
        json!({"1": image(json!(64), 1), "3": saved(json!(["1", 0])), "4": {"class_type": "NoSuchNode"}}),
    ] {
        play.post("/prompt", json!({"prompt": graph, "client_id": "aaaa"})).await;
    }
}

async fn submissions(play: &mut Player) {
    play.scene("ids, order and targets");
    play.post("/prompt", json!({"prompt": [], "client_id": "aaaa"})).await;
    let two = json!({"1": image(json!(64), 5), "2": saved(json!(["1", 0])), "3": saved(json!(["1", 0]))});
    play.post("/prompt", json!({"prompt": two, "partial_execution_targets": ["1"], "client_id": "aaaa"}))
        .await;
    let one = json!({"prompt": two, "partial_execution_targets": ["3"], "client_id": "aaaa"});
    let id = play.submit("only the third", one).await;
    play.hears_end("aaaa", &id).await;
    play.get(&format!("/history/{id}")).await;
    let own =
        json!({"prompt": blurred(9), "prompt_id": "an id of my own ✓", "client_id": "aaaa", "number": "2.5"});
    let id = play.submit("own", own).await;
    play.hears_end("aaaa", &id).await;
    let inside = json!({"prompt": blurred(10), "extra_data": {"client_id": "bbbb"}, "front": true});
    let id = play.submit("inside", inside).await;
    play.hears_end("bbbb", &id).await;
    let unheard = play.submit("unheard", json!({"prompt": blurred(11)})).await;
    play.ended(&unheard).await;
    play.remaining(0).await;
    play.get(&format!("/history/{unheard}")).await;
    for odd in [json!({"prompt": 7}), json!({"prompt": blurred(1), "number": "soon"}), json!([])] {
        play.post("/prompt", odd).await;
    }
}

/// Runs for seconds without a GPU.
fn long(color: u32) -> Value {
    let mut graph = json!({"1": image(json!(1024), color)});
    for at in 2..20 {
        let inputs = json!({"image": [(at - 1).to_string(), 0], "blur_radius": 12, "sigma": 2.0});
        graph[at.to_string()] = json!({"class_type": "ImageBlur", "inputs": inputs});
    }
    graph["99"] =
        json!({"class_type": "SaveImage", "inputs": {"images": ["19", 0], "filename_prefix": "long"}});
    graph
}

async fn several(play: &mut Player) {
    play.scene("queue several, inspect, delete one, interrupt one");
    play.hold();
    let first = play.submit("first", json!({"prompt": long(1), "client_id": "aaaa"})).await;
    play.interrupts(&first);
    play.works_on("aaaa", &first, "1").await;
    let second = play.submit("second", json!({"prompt": long(2), "client_id": "aaaa"})).await;
    let third = play.submit("third", json!({"prompt": long(3), "client_id": "aaaa", "front": true})).await;
    play.interrupts(&third);
    let fourth = play.submit("fourth", json!({"prompt": long(4), "client_id": "bbbb", "number": -5})).await;
    play.interrupts(&fourth);
    play.remaining(4).await;
    play.get("/queue").await;
    play.get("/prompt").await;
    play.get("/api/jobs?status=pending,in_progress&sort_order=asc&limit=2").await;
    play.post("/queue", json!({"delete": [second]})).await;
    play.remaining(3).await;
    play.post("/interrupt", json!({"prompt_id": second})).await;
    play.post("/interrupt", json!({"prompt_id": first})).await;
    play.hears_end("aaaa", &first).await;
    play.works_on("aaaa", &third, "1").await;
    play.remaining(2).await;
    play.get("/queue").await;
    play.post("/interrupt", json!({})).await;
    play.hears_end("aaaa", &third).await;
    play.works_on("bbbb", &fourth, "1").await;
    play.remaining(1).await;
    play.post("/queue", json!({"clear": true})).await;
    play.get("/queue").await;
    for id in [&first, &second, &third, &fourth] {
        play.get(&format!("/history/{id}")).await;
    }

    play.scene("execution error");
    play.upload("broken.png", b"not an image", &[]).await;
    let failing = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 0, "height": 0, "crop": "disabled"}},
        "3": {"class_type": "ImageCrop", "inputs": {"image": ["1", 0], "width": 1, "height": 1, "x": 0, "y": 0}},
        "4": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["3", 0]}},
        "5": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "e"}},
    });
    let failing = play.submit("failing", json!({"prompt": failing, "client_id": "aaaa"})).await;
    play.remaining(2).await;
    play.get(&format!("/history/{failing}")).await;

    play.scene("a second socket of the same client while its job runs");
    play.leave("bbbb");
    play.connect("bbbb", "bbbb", None).await;
    play.hears("bbbb", "what runs", |message| message.kind() == "executing").await;
    play.post("/interrupt", json!({"prompt_id": fourth})).await;
    play.hears_end("bbbb", &fourth).await;
    play.open();
    play.hears_end("aaaa", &failing).await;
    play.remaining(0).await;
    play.get(&format!("/history/{failing}")).await;
}

async fn previews(play: &mut Player) {
    play.scene("images over the websocket");
    let graph = |color: u32| {
        json!({"1": image(json!(64), color),
            "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}})
    };
    for (who, color) in [("aaaa", 21), ("bbbb", 22)] {
        let id = play
            .submit(
                if who == "aaaa" { "with ids" } else { "without ids" },
                json!({"prompt": graph(color), "client_id": who}),
            )
            .await;
        play.hears_end(who, &id).await;
    }
    let preview = json!({"1": image(json!(64), 23),
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}});
    let id = play.submit("temporary", json!({"prompt": preview, "client_id": "aaaa"})).await;
    play.hears_end("aaaa", &id).await;
    play.remaining(0).await;
    play.get(&format!("/history/{id}")).await;
}

/// What a queue shows, and which commands leave it alone.
async fn held_queue(play: &mut Player) {
    play.scene("what waits is shown without credentials, and taken out by name only");
    play.hold();
    let running = play.submit("held", json!({"prompt": long(31), "client_id": "aaaa"})).await;
    play.interrupts(&running);
    play.works_on("aaaa", &running, "1").await;
    let secretive = json!({"prompt": blurred(32), "client_id": "bbbb", "extra_data": {
        "auth_token_comfy_org": "hush", "api_key_comfy_org": "hush", "extra_pnginfo": {"workflow": {"id": "w2"}}}});
    let secretive = play.submit("secretive", secretive).await;
    let unwanted =
        play.submit("unwanted", json!({"prompt": blurred(33), "client_id": "bbbb", "number": 7})).await;
    play.remaining(3).await;
    play.get("/queue").await;
    for path in [
        "/api/jobs?status=pending&sort_order=asc",
        "/api/jobs?status=in_progress",
        "/api/jobs?workflow_id=w2",
    ] {
        play.get(path).await;
    }
    for id in [&running, &secretive] {
        play.get(&format!("/api/jobs/{id}")).await;
        play.get(&format!("/history/{id}")).await;
    }
    for body in [json!({"clear": 0}), json!({"delete": [running, "nope"]}), json!({"delete": [[secretive]]})]
    {
        play.post("/queue", body).await;
    }
    for body in [json!({"prompt_id": 7}), json!({"prompt_id": [running]}), json!({"prompt_id": "nope"})] {
        play.post("/interrupt", body).await;
    }
    play.get("/prompt").await;
    play.post("/queue", json!({"delete": {(unwanted.as_str()): true}})).await;
    play.remaining(2).await;
    play.post("/interrupt", json!("{")).await;
    play.hears_end("aaaa", &running).await;
    play.open();
    play.hears_end("bbbb", &secretive).await;
    play.remaining(0).await;
    for id in [&running, &secretive, &unwanted] {
        play.get(&format!("/history/{id}")).await;
        play.get(&format!("/api/jobs/{id}")).await;
    }
}

async fn misc(play: &mut Player) {
    play.scene("misc");
    for path in [
        "/view?filename=nope.png&type=input",
        "/view?filename=../../etc/passwd&type=input",
        "/view?filename=none.png",
        "/view?type=input",
        "/features",
        "/models",
        "/embeddings",
    ] {
        play.get(path).await;
    }
    play.post("/free", json!({"unload_models": true, "free_memory": true})).await;
    for path in ["/object_info/EmptyImage", "/object_info/Nope", "/users", "/settings", "/system_stats"] {
        play.get(path).await;
    }
    play.ask(Method::GET, "/prompt", &[("Origin", "http://evil.com")], Value::Null).await;
    for path in [
        "/history?max_items=2",
        "/history?max_items=1&offset=0",
        "/history?max_items=0",
        "/models/nope",
        "/no/such/path",
        "/internal/files/input",
    ] {
        play.get(path).await;
    }
    play.post("/no/such/path", json!({})).await;
    play.post("/history", json!({"delete": ["nope"]})).await;
    play.post("/history", json!({"clear": true})).await;
    play.get("/history").await;
}
