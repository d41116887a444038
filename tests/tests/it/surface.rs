//! Several instances seen as one: lists of what any of them has, figures of all, and who answers what else.

use comfy_router_tests::{Fleet, Http, Router, Serve, eventually};
use comfyui_emulator::{Config, Models};
use hyper::Method;
use serde_json::{Value, json};

/// Two instances that have little in common.
async fn unlike() -> (Fleet, Router) {
    let models = |own: &str| {
        Models::none().with("checkpoints", "both.safetensors", 1).with("checkpoints", own, 2).with(
            "embeddings",
            &format!("style-{own}"),
            1,
        )
    };
    let class = json!({ "input": { "required": { "image": ["IMAGE"] } }, "output": ["IMAGE"] });
    let only = |name: &str| vec![(name.to_owned(), class.clone())];
    let fleet = Fleet::with([
        Config {
            models: models("left.ckpt"),
            extra_nodes: only("Left"),
            max_upload_size: 50 << 20,
            ..Config::default()
        },
        Config {
            models: models("right.ckpt").with("unusual", "x.bin", 1),
            extra_nodes: only("Right"),
            max_upload_size: 20 << 20,
            ..Config::default()
        },
    ])
    .await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

fn names(list: &Value) -> Vec<String> {
    let name = |item: &Value| item.get("name").unwrap_or(item).as_str().expect("a name").to_owned();
    list.as_array().expect("a list").iter().map(name).collect()
}

#[tokio::test]
async fn lists_hold_what_any_instance_has() {
    let (_fleet, router) = unlike().await;
    let http = router.http();
    let both = ["both.safetensors", "left.ckpt", "right.ckpt"];
    for path in ["/models/checkpoints", "/api/models/checkpoints", "/experiment/models/checkpoints"] {
        assert_eq!(names(&http.get_json(path).await), both, "{path}");
    }
    assert_eq!(names(&http.get_json("/embeddings").await), ["style-left", "style-right"]);
    assert!(names(&http.get_json("/models").await).contains(&"unusual".to_owned()));
    assert!(names(&http.get_json("/experiment/models").await).contains(&"unusual".to_owned()));
    assert_eq!(names(&http.get_json("/models/unusual").await), ["x.bin"]);
    assert_eq!(http.get("/models/nope").await.status, 404);
    let info = http.get_json("/object_info").await;
    assert_eq!(info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0], json!(both));
    assert!(info.get("Left").is_some() && info.get("Right").is_some());
    assert_eq!(http.get_json("/object_info/Right").await["Right"], info["Right"]);
    assert_eq!(http.get_json("/object_info/Nope").await, json!({}));
    let stats = http.get_json("/system_stats").await;
    let instances: Vec<&Value> =
        stats["devices"].as_array().expect("devices").iter().map(|device| &device["instance"]).collect();
    assert_eq!(instances, [&json!("i0"), &json!("i1")]);
    assert_eq!(http.get_json("/features").await["max_upload_size"], json!(20 << 20), "the least of all");
}

#[tokio::test]
async fn the_operator_sees_which_instance_has_what() {
    let (_fleet, router) = unlike().await;
    let catalogue = router.admin().get_json("/api/catalogue").await;
    assert_eq!(catalogue["instances"], json!(["i0", "i1"]));
    assert_eq!(catalogue["classes"]["Left"], json!(["i0"]));
    assert_eq!(catalogue["classes"]["SaveImage"], json!(["i0", "i1"]));
    assert_eq!(catalogue["models"]["checkpoints"]["both.safetensors"], json!(["i0", "i1"]));
    assert_eq!(catalogue["models"]["checkpoints"]["right.ckpt"], json!(["i1"]));
    let partial = router.admin().get_json("/api/catalogue?partial").await;
    assert!(partial["classes"].get("SaveImage").is_none(), "only what some lack");
    assert_eq!(partial["classes"]["Right"], json!(["i1"]));
}

#[tokio::test]
async fn object_info_is_answered_from_memory_and_not_sent_twice() {
    let (fleet, router) = unlike().await;
    let first = router.http().get("/object_info").await.ok();
    let tag = [("if-none-match", first.header("etag"))];
    let again = router.http().try_send(Method::GET, "/object_info", &tag, "").await.expect("an answer");
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    // With its instances frozen it could not be asked for.
    fleet
        .controls()
        .for_each(|control| control.inject(comfyui_emulator::Fault::Freeze { at: Default::default() }));
    assert_eq!(router.http().get("/object_info").await.ok().body, first.body);
    fleet.controls().for_each(|control| control.inject(comfyui_emulator::Fault::Thaw));
}

#[tokio::test]
async fn who_asks_for_fresh_lists_gets_them_at_once() {
    let (fleet, router) = unlike().await;
    let listed = async |headers: &[(&str, &str)]| {
        let answer =
            router.http().try_send(Method::GET, "/object_info", headers, "").await.expect("an answer");
        names(&answer.json()["LoadImage"]["input"]["required"]["image"][0])
    };
    assert_eq!(listed(&[]).await, [""; 0]);
    std::fs::write(fleet.control(1).dir().join("input/by-hand.png"), b"x").expect("written");
    assert_eq!(listed(&[]).await, [""; 0], "nobody asked the disk");
    assert_eq!(listed(&[("cache-control", "no-cache")]).await, ["by-hand.png"]);
    router.http().upload("sent.png", b"y").await.ok();
    assert_eq!(listed(&[]).await, ["sent.png", "by-hand.png"]);
}

#[tokio::test]
async fn what_lies_on_one_instance_is_found_there() {
    let (fleet, router) = unlike().await;
    let folder = fleet.control(1).dir().join("models/checkpoints");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("right.ckpt.preview.png"), b"a picture").expect("written");
    let preview = router.http().get("/experiment/models/preview/checkpoints/0/right.ckpt").await;
    assert_eq!(preview.ok().text(), "a picture");
    assert_eq!(router.http().get("/experiment/models/preview/checkpoints/0/left.ckpt").await.status, 404);
    assert_eq!(router.http().get("/view_metadata/checkpoints?filename=right.ckpt").await.status, 404);
}

#[tokio::test]
async fn settings_and_workflows_live_on_the_home_instance() {
    let (fleet, router) = unlike().await;
    let http = router.http();
    http.post("/settings", &json!({ "Comfy.A": 1 })).await.ok();
    http.post("/settings/Comfy.A", &json!(2)).await.ok();
    http.send(Method::POST, "/userdata/workflows%2Fa.json", "{}").await.ok();
    assert_eq!(http.get_json("/settings").await, json!({ "Comfy.A": 2 }), "the last writer wins");
    assert_eq!(Http::new(&fleet.url(0)).get_json("/settings").await, json!({ "Comfy.A": 2 }));
    assert_eq!(Http::new(&fleet.url(1)).get_json("/settings").await, json!({}));
    assert_eq!(http.get_json("/userdata?dir=workflows").await, json!(["a.json"]));
}

#[tokio::test]
async fn another_instance_is_home_while_the_first_is_down() {
    let mut fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    let http = router.http();
    let home = async || http.get("/custom/note/who").await.ok().text();
    let dir = |at: usize| fleet.control(at).dir().display().to_string();
    let (first, second) = (dir(0), dir(1));
    assert_eq!(home().await, first);
    fleet.crash(0).await;
    router.instances_down(1).await;
    assert_eq!(home().await, second);
    assert_eq!(http.get("/").await.status, 200);
    fleet.restart(0).await;
    router.instances_up(2).await;
    assert_eq!(home().await, first, "where the settings are");
}

const ROUTES: &str = r#"route=[{prefix="/custom/note/all/",to="broadcast"},{prefix="/custom/note/mine/",to="by-client"},
    {prefix="/custom/note/closed/",to="deny"}]"#;

#[tokio::test]
async fn a_prefix_is_sent_where_the_operator_says() {
    let fleet = Fleet::of(3).await;
    let router = Serve::over(fleet.instances()).set(ROUTES).start().await;
    let http = router.http();
    let body = vec![b'x'; 300_000];
    let answer = http.send(Method::PUT, "/api/custom/note/all/lora", b"x".to_vec()).await;
    assert_eq!(answer.status, 405, "these emulators have no such twin");
    let answer = http.send(Method::PUT, "/custom/note/all/lora", body).await.ok();
    assert_eq!(answer.text(), fleet.control(0).dir().display().to_string(), "the home instance's answer");
    for at in 0..3 {
        assert_eq!(fleet.control(at).visits(), ["PUT /custom/note/all/lora 300000"], "i{at}");
    }
    assert_eq!(http.get("/custom/note/closed/x").await.status, 403);
    http.get("/custom/note/other").await.ok();
    assert_eq!((fleet.control(0).visits().len(), fleet.control(1).visits().len()), (2, 1));
}

#[tokio::test]
async fn a_clients_requests_stay_with_one_instance() {
    let mut fleet = Fleet::of(3).await;
    let router = Serve::over(fleet.instances()).set(ROUTES).start().await;
    let http = router.http();
    let of =
        async |client: usize| http.get(&format!("/custom/note/mine/x?clientId=c{client}")).await.ok().text();
    let mut before = Vec::new();
    for client in 0..30 {
        before.push(of(client).await);
        assert_eq!(of(client).await, before[client]);
    }
    let dirs: Vec<String> = fleet.controls().map(|control| control.dir().display().to_string()).collect();
    assert!(dirs.iter().all(|dir| before.contains(dir)), "all instances have clients");
    fleet.crash(2).await;
    router.instances_down(1).await;
    for (client, before) in before.iter().enumerate() {
        let now = of(client).await;
        assert_ne!(now, dirs[2]);
        assert!(*before == dirs[2] || now == *before, "only the clients of the lost instance move");
    }
}

#[tokio::test]
async fn memory_is_freed_everywhere() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    router.http().post("/free", &json!({ "unload_models": true, "free_memory": true })).await.ok();
    eventually("both were told", async || {
        let told = |at: usize| fleet.control(at).visits().contains(&"POST /free".to_owned());
        (told(0) && told(1)).then_some(())
    })
    .await;
    assert_eq!(router.http().send(Method::POST, "/free", "").await.status, 400);
}
