//! Uploads, results and who may read them.

use comfy_router_tests::{
    Client, Fleet, Http, Router, Serve, colour_of, eventually, kinds, loading, plain, png_of,
};
use comfyui_emulator::{Config, Fault};
use hyper::Method;
use serde_json::{Value, json};

/// Name, colour, further fields of the form.
type Upload<'a> = (&'a str, u32, &'a [(&'a str, &'a str)]);

async fn of(count: usize) -> (Fleet, Router, Client) {
    let fleet = Fleet::of(count).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    (fleet, router, client)
}

/// The one picture of a job that has ended, as its history names it.
async fn picture(client: &Client, id: &str) -> Value {
    let history = client.history_when_ended(id).await;
    let outputs = history["outputs"].as_object().expect("outputs");
    outputs.values().find_map(|output| output["images"].get(0)).expect("a picture").clone()
}

/// The path of a file as clients are told of it.
fn path(file: &Value) -> String {
    let text = |name: &str| file[name].as_str().expect("text").to_owned();
    format!("/view?filename={}&subfolder={}&type={}", text("filename"), text("subfolder"), text("type"))
}

fn instance_of(file: &Value) -> usize {
    let folder = file["subfolder"].as_str().expect("text");
    folder.trim_start_matches("~i").parse().expect("a number")
}

async fn runs(client: &Client, graph: &Value) -> u32 {
    let id = client.post(graph).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    client.colour_made_by(&id).await
}

#[tokio::test]
async fn uploads_are_named_and_compared_as_in_comfyui() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let alone = Fleet::of(1).await;
    let (through, direct) = (router.http(), Http::new(&alone.url(0)));
    let long = "x".repeat(100);
    let uploads: [Upload<'_>; 12] = [
        ("a.png", 1, &[]),
        ("a.png", 1, &[]),
        ("a.png", 2, &[]),
        ("a.png", 2, &[]),
        ("a.png", 3, &[]),
        ("a.png", 4, &[("overwrite", "true")]),
        ("a.png", 4, &[]),
        ("a.png", 5, &[("subfolder", "s/t")]),
        ("a.png", 6, &[("type", "temp")]),
        (".hidden", 7, &[("overwrite", "yes")]),
        (".hidden", 8, &[]),
        (&long, 9, &[("type", "output"), ("overwrite", "1")]),
    ];
    for (name, colour, fields) in uploads {
        let expected = direct.upload_with(name, &png_of(colour), fields).await.ok().json();
        let told = through.upload_with(name, &png_of(colour), fields).await.ok().json();
        assert_eq!(told, expected, "{name} {fields:?}");
        let file = json!({ "filename": told["name"], "subfolder": told["subfolder"], "type": told["type"] });
        let view = through.get(&path(&file).replace(' ', "%20")).await.ok();
        assert_eq!(view.body, png_of(colour), "{name} {fields:?}");
    }
    for (name, fields) in [("../a.png", &[][..]), ("a.png", &[("subfolder", "../x")]), ("", &[])] {
        assert_eq!(through.upload_with(name, b"x", fields).await.status, 400, "{name:?} {fields:?}");
        assert_eq!(direct.upload_with(name, b"x", fields).await.status, 400);
    }
    assert_eq!(through.upload_with("a.png", b"x", &[("type", "models")]).await.status, 400);
    assert_eq!(through.send(Method::POST, "/upload/image", "no form").await.status, 400);
}

#[tokio::test]
async fn a_file_that_lies_on_an_instance_keeps_its_name_and_content() {
    let (fleet, router, client) = of(2).await;
    let by_hand = fleet.control(1).dir().join("input/example.png");
    std::fs::write(&by_hand, png_of(1)).expect("written");
    let told = router.http().upload("example.png", &png_of(2)).await.ok().json();
    assert_eq!(told["name"], "example (1).png");
    let told = router.http().upload("example.png", &png_of(1)).await.ok().json();
    assert_eq!(told["name"], "example.png", "the same content has the same name");
    assert_eq!(runs(&client, &loading("example (1).png")).await, 2);
    assert_eq!(std::fs::read(&by_hand).expect("there"), png_of(1));
}

#[tokio::test]
async fn an_upload_is_sent_to_an_instance_once_and_again_when_it_may_be_lost() {
    let mut fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let staged = async || router.metric("comfy_router_uploads_staged_total", "").await;
    router.http().upload("a.png", &png_of(1)).await.ok();
    assert_eq!(staged().await, 1.0, "at once, so that lists and pages show it");
    assert_eq!(runs(&client, &loading("a.png")).await, 1);
    assert_eq!(runs(&client, &loading("a.png")).await, 1);
    assert_eq!(staged().await, 1.0);
    fleet.crash(0).await;
    router.instances_down(1).await;
    let _ = std::fs::remove_file(fleet.control(0).dir().join("input/a.png"));
    fleet.restart(0).await;
    router.instances_up(1).await;
    assert_eq!(runs(&client, &loading("a.png")).await, 1, "it is given what it lost");
    assert_eq!(staged().await, 2.0);
}

#[tokio::test]
async fn an_upload_follows_its_job_to_another_instance() {
    let mut fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    router.http().upload("a.png", &png_of(0x0a11)).await.ok();
    fleet.hold();
    let id = client.post(&loading("a.png")).await;
    let first = fleet.held_anywhere().await;
    fleet.crash(first).await;
    fleet.held(1 - first).await;
    fleet.open();
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    assert_eq!(client.colour_made_by(&id).await, 0x0a11);
    assert_eq!(router.job(&id).await["attempts"].as_array().expect("attempts").len(), 2);
}

#[tokio::test]
async fn an_uploads_names_survive_the_home_instance_and_the_router() {
    let mut fleet = Fleet::of(2).await;
    let mut router = Serve::over(fleet.instances()).start().await;
    router.http().upload("a.png", &png_of(1)).await.ok();
    fleet.crash(0).await;
    router.instances_down(1).await;
    let told = router.http().upload("a.png", &png_of(2)).await.ok().json();
    assert_eq!(told["name"], "a (1).png", "the new home instance has no such file, and yet it is taken");
    router.stop().await;
    router.start_again().await;
    router.instances_up(1).await;
    let client = Client::connect(&router, "c").await;
    assert_eq!(runs(&client, &loading("a.png")).await, 1);
    assert_eq!(runs(&client, &loading("a (1).png")).await, 2);
}

#[tokio::test]
async fn a_mask_is_merged_with_a_result_of_another_instance() {
    let (fleet, router, client) = of(2).await;
    // A result of the second instance, while the first, at home, is busy.
    fleet.hold();
    let first = client.post(&plain(1)).await;
    let second = client.post(&plain(0x00ab_cdef)).await;
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    for id in [&first, &second] {
        client.end_of(id).await;
    }
    let pictures = [picture(&client, &first).await, picture(&client, &second).await];
    let away = pictures.iter().find(|file| instance_of(file) == 1).expect("one of them");
    let colour = colour_of(&client.view(away).await.ok().body);
    let original = json!({ "filename": away["filename"], "subfolder": away["subfolder"], "type": "output" });
    let fields = [("original_ref", original.to_string())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let told = router.http().upload_to("/upload/mask", "mask.png", &png_of(0), &fields).await.ok().json();
    assert_eq!(told, json!({ "name": "mask.png", "subfolder": "", "type": "input" }));
    let merged = router.http().get("/view?filename=mask.png&type=input").await.ok();
    assert_eq!(colour_of(&merged.body), colour, "the original's colours");
    assert_eq!(runs(&client, &loading("mask.png")).await, colour);

    let missing = json!({ "filename": "nope.png", "type": "input" }).to_string();
    let told = router
        .http()
        .upload_to("/upload/mask", "none.png", &png_of(0), &[("original_ref", &missing)])
        .await
        .ok()
        .json();
    assert_eq!(told["name"], "none.png", "as in ComfyUI");
    assert_eq!(router.http().get("/view?filename=none.png&type=input").await.status, 404);
    assert_eq!(router.http().upload_to("/upload/mask", "a.png", &png_of(0), &[]).await.status, 400);
}

#[tokio::test]
async fn a_result_is_found_by_its_bare_name_and_never_mistaken_for_a_namesake() {
    let (fleet, _router, client) = of(2).await;
    fleet.hold();
    let ids = [client.post(&plain(0xaa)).await, client.post(&plain(0xbb)).await];
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    let mut last = json!(null);
    for id in &ids {
        client.end_of(id).await;
        last = picture(&client, id).await;
    }
    let pictures = [picture(&client, &ids[0]).await, picture(&client, &ids[1]).await];
    assert_eq!(pictures[0]["filename"], pictures[1]["filename"], "they are namesakes");
    let name = last["filename"].as_str().expect("text");
    // By its bare name it is the one written last, wherever the job runs; by its whole name it is exactly that one.
    let bare = colour_of(&client.http.get(&format!("/view?filename={name}&type=output")).await.ok().body);
    fleet.hold();
    let again = [
        client.post(&loading(&format!("{name} [output]"))).await,
        client.post(&loading(&format!("{name} [output]"))).await,
    ];
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    for id in &again {
        client.end_of(id).await;
        assert_eq!(client.colour_made_by(id).await, bare);
    }
    for (file, colour) in pictures.iter().zip([0xaa, 0xbb]) {
        let folder = file["subfolder"].as_str().expect("text");
        assert_eq!(runs(&client, &loading(&format!("{folder}/{name} [output]"))).await, colour);
    }
    let history = client.history(&again[0]).await;
    assert_eq!(
        history["prompt"][2]["1"]["inputs"]["image"],
        json!(format!("{name} [output]")),
        "as it was posted"
    );
}

#[tokio::test]
async fn a_file_on_one_instances_disk_can_be_loaded_on_any() {
    let (fleet, _router, client) = of(2).await;
    std::fs::write(fleet.control(1).dir().join("input/only.png"), png_of(0x1ef7)).expect("written");
    fleet.hold();
    let ids = [client.post(&loading("only.png")).await, client.post(&loading("only.png")).await];
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    for id in &ids {
        client.end_of(id).await;
        assert_eq!(client.colour_made_by(id).await, 0x1ef7);
    }
    assert!(!fleet.control(0).dir().join("input/only.png").exists(), "no instance's own names are touched");
    assert_eq!(client.http.get("/view?filename=only.png&type=input").await.ok().body, png_of(0x1ef7));
}

#[tokio::test]
async fn kept_files_are_served_in_parts_and_not_twice() {
    let (_fleet, router, _client) = of(1).await;
    let http = router.http();
    let bytes = png_of(0x42);
    http.upload("a.png", &bytes).await.ok();
    let view = "/view?filename=a.png&type=input";
    let get = async |headers: &[(&str, &str)]| {
        http.try_send(Method::GET, view, headers, "").await.expect("an answer")
    };
    let whole = get(&[]).await;
    assert_eq!(whole.header("content-disposition"), "filename=\"a.png\"");
    let part = get(&[("range", "bytes=1-3")]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &bytes[1..4]));
    assert_eq!(part.header("content-range"), format!("bytes 1-3/{}", bytes.len()));
    assert_eq!(get(&[("range", "bytes=99999-")]).await.status, 416);
    assert_eq!(get(&[("if-none-match", whole.header("etag"))]).await.status, 304);
    assert_eq!(get(&[("if-modified-since", whole.header("last-modified"))]).await.status, 304);
    let head = http.try_send(Method::HEAD, view, &[], "").await.expect("an answer");
    assert_eq!((head.header("content-length"), head.body.len()), (bytes.len().to_string().as_str(), 0));
    let preview = http.get(&format!("{view}&preview=webp;80")).await.ok();
    assert_eq!(preview.header("content-type"), "image/webp");
    let channel = http.get(&format!("{view}&channel=rgb")).await.ok();
    assert_eq!(colour_of(&channel.body), 0x42);
}

#[tokio::test]
async fn a_file_that_breaks_off_at_its_instance_breaks_off_at_the_client() {
    let (fleet, router, client) = of(2).await;
    let id = client.post(&plain(0x6)).await;
    client.end_of(&id).await;
    let file = picture(&client, &id).await;
    let at = instance_of(&file);
    let whole = client.view(&file).await.ok();
    fleet.control(at).inject(Fault::BreakAnswers { path: "/view".into(), count: 1 });
    let broken = client.http.try_send(Method::GET, &path(&file), &[], "").await;
    let error = broken.expect_err("a part of a file is no whole answer");
    assert!(format!("{error:#}").contains("connection"), "{error:#}");
    assert_eq!(client.view(&file).await.ok().body, whole.body, "nothing of it was remembered");
    // The same on its way to another job: what came in part is not given to any instance.
    fleet.control(at).inject(Fault::BreakAnswers { path: "/view".into(), count: 1 });
    let folder = file["subfolder"].as_str().expect("text");
    let name = format!("{folder}/{} [output]", file["filename"].as_str().expect("text"));
    let refused = client.try_post(json!({ "prompt": loading(&name) })).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["error"]["type"], "input_unavailable");
    assert_eq!(runs(&client, &loading(&name)).await, 0x6);
    assert_eq!(router.metric("comfy_router_uploads_staged_total", "").await, 1.0, "it came whole, once");
}

#[tokio::test]
async fn a_kept_output_outlives_its_instance_and_the_router() {
    let mut fleet = Fleet::of(2).await;
    let mut router = Serve::over(fleet.instances()).set("outputs.keep=true").start().await;
    let client = Client::connect(&router, "c").await;
    let id = client.post(&plain(0x0c0de)).await;
    client.end_of(&id).await;
    let file = picture(&client, &id).await;
    eventually("it is kept", async || {
        (router.metric("comfy_router_outputs_kept_total", "").await == 1.0).then_some(())
    })
    .await;
    fleet.crash(instance_of(&file)).await;
    router.instances_down(1).await;
    assert_eq!(colour_of(&client.view(&file).await.ok().body), 0x0c0de);
    let part = client
        .http
        .try_send(Method::GET, &path(&file), &[("range", "bytes=0-3")], "")
        .await
        .expect("an answer");
    assert_eq!((part.status.as_u16(), &part.body[1..]), (206, &b"PNG"[..]));
    let preview = client.http.get(&format!("{}&preview=webp;50", path(&file))).await.ok();
    assert_eq!(preview.header("content-type"), "image/webp", "the other instance makes it");
    let name =
        format!("{}/{} [output]", file["subfolder"].as_str().unwrap(), file["filename"].as_str().unwrap());
    assert_eq!(runs(&client, &loading(&name)).await, 0x0c0de, "and it can be loaded");
    router.stop().await;
    router.start_again().await;
    assert_eq!(colour_of(&router.http().get(&path(&file)).await.ok().body), 0x0c0de);
}

/// ComfyUI empties its `temp` whenever it starts.
#[tokio::test]
async fn a_kept_picture_of_a_preview_node_outlives_a_restart_of_its_instance() {
    let mut fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).set("outputs.keep=true").start().await;
    let client = Client::connect(&router, "c").await;
    let mut graph = plain(0x0c0de);
    graph["2"] = json!({ "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } });
    let id = client.post(&graph).await;
    client.end_of(&id).await;
    let file = picture(&client, &id).await;
    assert_eq!(file["type"], "temp");
    eventually("it is kept", async || {
        (router.metric("comfy_router_outputs_kept_total", "").await == 1.0).then_some(())
    })
    .await;
    let at = instance_of(&file);
    fleet.crash(at).await;
    router.instances_down(1).await;
    assert_eq!(colour_of(&client.view(&file).await.ok().body), 0x0c0de, "while its instance is away");
    fleet.restart(at).await;
    router.instances_down(0).await;
    let there = format!("/view?filename={}&type=temp", file["filename"].as_str().expect("text"));
    assert_eq!(Http::new(&fleet.url(at)).get(&there).await.status, 404, "the instance has it no more");
    assert_eq!(colour_of(&client.view(&file).await.ok().body), 0x0c0de);
}

#[tokio::test]
async fn a_kept_preview_goes_when_no_job_in_the_history_names_it_any_more() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("outputs.keep=true").start().await;
    let client = Client::connect(&router, "c").await;
    let mut graph = plain(0x0c0de);
    // Another picture than the result: the same content would be kept once.
    graph["4"] = plain(0x0cafe)["1"].clone();
    graph["3"] = json!({ "class_type": "PreviewImage", "inputs": { "images": ["4", 0] } });
    let (first, second) = (client.post(&graph).await, client.post(&graph).await);
    let mut shown = Vec::new();
    for id in [&first, &second] {
        client.end_of(id).await;
        shown.push(client.history(id).await["outputs"]["3"]["images"][0].clone());
    }
    assert_eq!(
        (&shown[0], &shown[0]["type"]),
        (&shown[1], &json!("temp")),
        "the second one's nodes were cached"
    );
    let contents = router.state_dir().join("outputs/contents");
    let kept = || std::fs::read_dir(&contents).expect("there").count();
    let becomes = async |count: usize| {
        eventually("so many are kept", async || (kept() == count).then_some(())).await;
    };
    becomes(2).await;
    let log = || std::fs::read_to_string(router.state_dir().join("outputs/names.jsonl")).expect("there");
    client.http.post("/history", &json!({ "delete": [first] })).await.ok();
    // Another one that goes shows that the history has been looked through since.
    let mut other = plain(0x0beef);
    other["2"] = json!({ "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } });
    let third = client.post(&other).await;
    client.end_of(&third).await;
    becomes(3).await;
    client.http.post("/history", &json!({ "delete": [third] })).await.ok();
    becomes(2).await;
    assert_eq!(log().matches("forgotten").count(), 1, "what the second names stays");
    client.http.post("/history", &json!({ "delete": [second] })).await.ok();
    becomes(1).await;
    assert_eq!(log().matches("forgotten").count(), 2, "and the result stays");
}

#[tokio::test]
async fn an_output_that_is_not_kept_says_where_it_is() {
    let (mut fleet, router, client) = of(2).await;
    let id = client.post(&plain(1)).await;
    client.end_of(&id).await;
    let file = picture(&client, &id).await;
    fleet.crash(instance_of(&file)).await;
    router.instances_down(1).await;
    let answer = client.view(&file).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains(&format!("i{}", instance_of(&file))), "{}", answer.text());
    assert_eq!(client.http.get("/view?filename=x.png&subfolder=~nobody").await.status, 404);
}

#[tokio::test]
async fn the_oldest_kept_outputs_make_room() {
    let fleet = Fleet::of(1).await;
    let router =
        Serve::over(fleet.instances()).set("outputs.keep=true").set("outputs.bytes=1048576").start().await;
    let client = Client::connect(&router, "c").await;
    for colour in 0..3 {
        let big = json!({
            "1": { "class_type": "LoadImage", "inputs": { "image": format!("{colour}.png") } },
            "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "big" } },
        });
        router
            .http()
            .upload(&format!("{colour}.png"), &comfy_router_tests::noise(400, u64::from(colour as u32)))
            .await
            .ok();
        let id = client.post(&big).await;
        client.end_of(&id).await;
    }
    eventually("all were copied", async || {
        (router.metric("comfy_router_outputs_kept_total", "").await == 3.0).then_some(())
    })
    .await;
    let contents = router.state_dir().join("outputs/contents");
    let sizes =
        std::fs::read_dir(contents).expect("there").map(|entry| entry.unwrap().metadata().unwrap().len());
    let total: u64 = sizes.sum();
    assert!((1..=1 << 20).contains(&total), "{total}");
}

#[tokio::test]
async fn with_one_folder_for_all_any_instance_serves_a_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let shared = || Config { dir: Some(folder.path().to_owned()), ..Config::default() };
    let mut fleet = Fleet::with([shared(), shared()]).await;
    let router = Serve::over(fleet.instances()).set("outputs.shared=true").start().await;
    let client = Client::connect(&router, "c").await;
    let id = client.post(&plain(0x5a5a)).await;
    client.end_of(&id).await;
    let file = picture(&client, &id).await;
    fleet.crash(instance_of(&file)).await;
    router.instances_down(1).await;
    assert_eq!(colour_of(&client.view(&file).await.ok().body), 0x5a5a);
    let name =
        format!("{}/{} [output]", file["subfolder"].as_str().unwrap(), file["filename"].as_str().unwrap());
    assert_eq!(runs(&client, &loading(&name)).await, 0x5a5a);
    assert_eq!(router.metric("comfy_router_uploads_staged_total", "").await, 0.0, "nothing is copied");
}

#[tokio::test]
async fn pages_for_files_of_custom_nodes_find_the_instance_too() {
    let (_fleet, _router, client) = of(2).await;
    let id = client.post(&plain(0x77)).await;
    client.end_of(&id).await;
    let file = picture(&client, &id).await;
    let page = path(&file).replace("/view?", "/custom/view?");
    assert_eq!(colour_of(&client.http.get(&page).await.ok().body), 0x77);
}
