//! Files over HTTP: what SaveImage wrote, uploads, ranges, masks, user data, limits.

use comfyui_emulator::{Config, Emulator, Flavour};
use hyper::Method;
use serde_json::json;

use crate::client::{Http, plain, png_pixel};

async fn start(config: Config) -> (Emulator, Http) {
    let emulator = Emulator::start(config).await.expect("starts");
    let http = Http::new(&emulator.url());
    (emulator, http)
}

fn rgba(width: u32, height: u32, pixel: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&pixel.repeat((width * height) as usize)).expect("pixels");
    writer.finish().expect("an end");
    out
}

#[tokio::test]
async fn the_image_of_the_job_is_the_image_viewed() {
    let (emulator, http) = start(Config::default()).await;
    http.prompt(&plain(0x0a_14_1e, "sub/mine"), None).await;
    emulator.control().wait_ended(1).await;
    let image = http.get("/api/view?filename=mine_00001_.png&subfolder=sub&rand=1").await;
    assert_eq!((image.status.as_u16(), image.header("content-type")), (200, "image/png"));
    assert_eq!(png_pixel(&image.body), (32, 16, vec![0x0a, 0x14, 0x1e]));
    assert_eq!(
        http.get("/view?filename=mine_00001_.png%20[output]&subfolder=sub&type=temp").await.status,
        200
    );
    assert_eq!(http.get("/view?filename=mine_00001_.png&subfolder=../input").await.status, 403);
    assert_eq!(http.get("/view?filename=mine_00001_.png&type=elsewhere").await.status, 400);
}

#[tokio::test]
async fn an_uploaded_image_goes_through_a_job() {
    let (emulator, http) = start(Config::default()).await;
    let picture = rgba(3, 2, [9, 8, 7, 255]);
    assert_eq!(http.upload("/upload/image", "in.png", &picture, &[]).await.json()["name"], "in.png");
    let mut prompt = plain(0, "loaded");
    prompt["1"] = json!({ "class_type": "LoadImage", "inputs": { "image": "in.png" } });
    http.prompt(&prompt, None).await;
    emulator.control().wait_ended(1).await;
    let image = http.get("/view?filename=loaded_00001_.png").await;
    assert_eq!(png_pixel(&image.body), (3, 2, vec![9, 8, 7]));
    let info = http.get("/object_info/LoadImage").await.json();
    assert_eq!(info["LoadImage"]["input"]["required"]["image"][0], json!(["in.png"]));
}

#[tokio::test]
async fn changed_uploads_get_new_names() {
    let (_emulator, http) = start(Config::default()).await;
    let mut names = Vec::new();
    for (content, fields) in
        [("one", &[][..]), ("one", &[]), ("two", &[]), ("three", &[("overwrite", "true")])]
    {
        let answer = http.upload("/upload/image", "a.png", content.as_bytes(), fields).await.json();
        names.push(answer["name"].as_str().expect("a name").to_owned());
    }
    assert_eq!(names, ["a.png", "a.png", "a (1).png", "a.png"]);
    assert_eq!(http.upload("/upload/image", "a.png", b"x", &[("type", "wrong")]).await.status, 500);
    assert_eq!(http.upload("/upload/image", "../../a.png", b"x", &[]).await.status, 400);
    assert_eq!(http.get("/view?filename=a.png&type=input").await.body, "three");
}

#[tokio::test]
async fn masks_join_an_original() {
    let (_emulator, http) = start(Config::default()).await;
    http.upload("/upload/image", "base.png", &rgba(2, 2, [50, 60, 70, 255]), &[]).await;
    let original = json!({ "filename": "base.png", "type": "input" }).to_string();
    let mask = rgba(2, 2, [0, 0, 0, 128]);
    let answer = http.upload("/upload/mask", "masked.png", &mask, &[("original_ref", &original)]).await;
    assert_eq!(answer.json()["name"], "masked.png");
    let merged = http.get("/view?filename=masked.png&type=input").await;
    assert_eq!(png_pixel(&merged.body), (2, 2, vec![50, 60, 70, 128]));
    let gone = json!({ "filename": "none.png", "type": "input" }).to_string();
    assert_eq!(http.upload("/upload/mask", "m2.png", &mask, &[("original_ref", &gone)]).await.status, 200);
    assert_eq!(http.get("/view?filename=m2.png&type=input").await.status, 404);
    assert_eq!(http.upload("/upload/mask", "m3.png", &mask, &[]).await.status, 500);
}

#[tokio::test]
async fn ranges_and_validators_work() {
    let (_emulator, http) = start(Config::default()).await;
    http.upload("/upload/image", "r.txt", b"0123456789", &[]).await;
    let path = "/view?filename=r.txt&type=input";
    let ask = |headers: Vec<(&'static str, String)>| {
        let http = http.clone();
        async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            http.try_send(Method::GET, path, &headers, "").await.expect("an answer")
        }
    };
    let part = ask(vec![("range", "bytes=2-4".into())]).await;
    assert_eq!((part.status.as_u16(), part.header("content-range")), (206, "bytes 2-4/10"));
    assert_eq!(part.body, "234");
    assert_eq!(ask(vec![("range", "bytes=-3".into())]).await.body, "789");
    let beyond = ask(vec![("range", "bytes=20-".into())]).await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */10"));
    let whole = ask(vec![]).await;
    assert_eq!(whole.header("cache-control"), "");
    let etag = whole.header("etag").to_owned();
    assert_eq!(ask(vec![("if-none-match", etag.clone())]).await.status, 304);
    assert_eq!(ask(vec![("if-match", "\"other\"".into())]).await.status, 412);
    assert_eq!(ask(vec![("if-modified-since", whole.header("last-modified").into())]).await.status, 304);
    let changed = ask(vec![("range", "bytes=0-1".into()), ("if-range", "\"other\"".into())]).await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn previews_and_channels_are_re_encoded() {
    let (_emulator, http) = start(Config::default()).await;
    http.upload("/upload/image", "p.png", &rgba(4, 4, [1, 2, 3, 77]), &[]).await;
    let get = |query: &str| {
        let (http, path) = (http.clone(), format!("/view?filename=p.png&type=input&{query}"));
        async move { http.get(&path).await }
    };
    let webp = get("preview=webp;75").await;
    assert_eq!((webp.header("content-type"), webp.header("etag")), ("image/webp", ""));
    assert_eq!(get("preview=jpeg;75&channel=rgba").await.header("content-type"), "image/webp");
    assert_eq!(get("preview=jpeg;75").await.body[..3], [0xff, 0xd8, 0xff]);
    assert_eq!(png_pixel(&get("channel=rgb").await.body).2, [1, 2, 3]);
    assert_eq!(png_pixel(&get("channel=a").await.body).2, [0, 0, 0, 77]);
}

#[tokio::test]
async fn bodies_have_one_limit() {
    let (_emulator, http) = start(Config { max_upload_size: 1000, ..Config::default() }).await;
    let answer = http.send(Method::POST, "/prompt", vec![b' '; 1001]).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.body, "Maximum request body size 1000 exceeded.");
    assert_eq!(http.upload("/upload/image", "big.png", &[0; 1000], &[]).await.status, 413);
    assert_eq!(http.get("/features").await.json()["max_upload_size"], 1000);
}

#[tokio::test]
async fn user_data_keeps_encoded_slashes() {
    let (_emulator, http) = start(Config::default()).await;
    let path = "/api/userdata/workflows%2Fa%20b.json";
    assert_eq!(http.get(path).await.status, 404);
    let stored = http.send(Method::POST, path, "{}").await;
    assert_eq!(stored.json(), json!("workflows/a b.json"));
    assert_eq!(http.send(Method::POST, &format!("{path}?overwrite=false"), "{}").await.status, 409);
    assert_eq!(http.get("/userdata?dir=workflows").await.json(), json!(["a b.json"]));
    assert_eq!(http.get("/userdata/workflows/a%20b.json").await.status, 404);
    assert_eq!(http.get("/userdata?dir=").await.status, 400);
    let moved = http.send(Method::POST, &format!("{path}/move/b.json?full_info=true"), "").await;
    assert_eq!(moved.json()["path"], "b.json");
    assert_eq!(http.send(Method::DELETE, "/userdata/b.json", "").await.status, 204);
    assert_eq!(http.send(Method::DELETE, "/userdata/b.json", "").await.status, 404);
    http.post("/settings", &json!({ "a": 1 })).await;
    http.post("/api/settings/b", &json!("x")).await;
    assert_eq!(http.get("/settings").await.json(), json!({ "a": 1, "b": "x" }));
    assert_eq!(http.get("/settings/none").await.json(), json!(null));
}

#[tokio::test]
async fn routes_have_their_twins_and_strangers_do_not() {
    let (_emulator, http) = start(Config { flavour: Flavour::V0_3_64, ..Config::default() }).await;
    for path in
        ["/queue", "/history", "/object_info", "/system_stats", "/models/loras", "/i18n", "/users", "/"]
    {
        assert_eq!(http.get(path).await.status, 200, "{path}");
        assert_eq!(http.get(&format!("/api{path}")).await.status, 200, "/api{path}");
    }
    assert_eq!(http.get("/internal/folder_paths").await.status, 200);
    for path in ["/api/internal/logs", "/jobs", "/api/jobs", "/upload/image", "/global_subgraphs"] {
        assert_eq!(http.get(path).await.status, 404, "{path}");
    }
    let answer = http.post("/api/jobs/cancel", &json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET,HEAD"));
    assert_eq!(http.send(Method::HEAD, "/queue", "").await.status, 200);
}

#[tokio::test]
async fn jobs_refuse_unknown_statuses() {
    let (_emulator, http) = start(Config::default()).await;
    let answer = http.get("/api/jobs?status=completed,cancelled").await;
    assert_eq!(answer.status, 400);
    let text = "Invalid status value(s): cancelled. Valid values: pending, in_progress, completed, failed";
    assert_eq!(answer.json()["error"], text);
    assert_eq!(http.get("/api/jobs?limit=0").await.json()["error"], "limit must be a positive integer");
    assert_eq!(http.get("/jobs").await.status, 404);
    assert_eq!(http.get("/api/api/jobs").await.status, 200);
}

#[tokio::test]
async fn secrets_show_in_the_old_queue_only() {
    for (flavour, shown) in [(Flavour::V0_3_64, true), (Flavour::V0_8_0, false)] {
        let (emulator, http) = start(Config { flavour, ..Config::default() }).await;
        let control = emulator.control();
        control.hold(comfyui_emulator::Each::Execution);
        let body = json!({ "prompt": plain(1, "s"), "extra_data": { "api_key_comfy_org": "secret" } });
        let id = http.post("/prompt", &body).await.json()["prompt_id"].clone();
        control.wait_held(1).await;
        let queue = http.get("/queue").await.json();
        assert_eq!(queue["queue_running"][0][3].get("api_key_comfy_org").is_some(), shown);
        control.open();
        control.wait_ended(1).await;
        let history = http.history(id.as_str().expect("an id")).await;
        assert!(history["prompt"][3].get("api_key_comfy_org").is_none());
    }
}
