//! Known holes of ComfyUI and its manager, tried through the router on an instance that has all of them: shut as the
//! router comes. Each test first shows that the hole is there.

use comfy_router_tests::{Client, Fleet, Http, Router, Serve, loading, png_of};
use comfyui_emulator::Config;
use hyper::Method;
use serde_json::{Value, json};

const SCRIPT: &str = "<script>fetch('/prompt', {method: 'POST'})</script>";

async fn careless() -> (Fleet, Router) {
    let fleet = Fleet::with([Config { careless: true, ..Config::default() }]).await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

fn direct(fleet: &Fleet) -> Http {
    Http::new(&fleet.url(0))
}

/// CVE-2024-10099, CVE-2026-56670: an uploaded page or picture is a program in the viewer's name.
#[tokio::test]
async fn an_uploaded_page_or_svg_is_never_run_by_a_browser() {
    let (fleet, router) = careless().await;
    let http = router.http();
    for (name, kind) in [("x.html", "text/html"), ("x.svg", "image/svg+xml"), ("x.js", "text/javascript")] {
        http.upload(name, SCRIPT.as_bytes()).await.ok();
        let path = format!("/view?filename={name}&type=input");
        assert_eq!(direct(&fleet).get(&path).await.ok().header("content-type"), kind, "the hole is there");
        for path in [path.clone(), format!("/api{path}"), path.replace("/view", "/%76iew")] {
            let answer = http.get(&path).await.ok();
            assert_eq!(answer.body, SCRIPT, "the file itself is there");
            assert_eq!(answer.header("content-type"), "application/octet-stream", "{path}");
            assert!(answer.header("content-disposition").starts_with("attachment"), "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("content-security-policy").starts_with("sandbox"));
        }
    }
    let shown = [("sec-fetch-dest", "image")];
    let path = "/view?filename=x.svg&type=input";
    let picture = http.try_send(Method::GET, path, &shown, "").await.expect("an answer");
    assert_eq!(picture.header("content-type"), "image/svg+xml", "where a page asks for an image it is one");
    http.upload("photo.png", &png_of(7)).await.ok();
    let photo = http.get("/view?filename=photo.png&type=input").await.ok();
    assert_eq!((photo.header("content-type"), photo.header("content-security-policy")), ("image/png", ""));
}

/// CVE-2026-56672: the same by way of user data.
#[tokio::test]
async fn user_data_is_never_run_by_a_browser() {
    let (fleet, router) = careless().await;
    let http = router.http();
    http.send(Method::POST, "/userdata/x.html", SCRIPT).await.ok();
    assert_eq!(direct(&fleet).get("/userdata/x.html").await.ok().header("content-type"), "text/html");
    let answer = http.get("/userdata/x.html").await.ok();
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert!(answer.header("content-disposition").starts_with("attachment"));
    http.send(Method::POST, "/userdata/workflows%2Fa.json", "{}").await.ok();
    assert_eq!(
        http.get("/userdata/workflows%2Fa.json").await.ok().header("content-type"),
        "application/json"
    );
}

/// CVE-2026-56671: the preview of a model is any file.
#[tokio::test]
async fn a_model_preview_leads_nowhere_else() {
    let (fleet, router) = careless().await;
    let secret = fleet.control(0).dir().join("secret");
    std::fs::write(&secret, "s3cret").expect("written");
    std::fs::create_dir_all(fleet.control(0).dir().join("models/loras")).expect("made");
    let path = "/experiment/models/preview/loras/0/..%2F..%2Fsecret";
    assert_eq!(direct(&fleet).get(path).await.ok().text(), "s3cret", "the hole is there");
    for path in [
        path.to_owned(),
        format!("/api{path}"),
        path.replace("..", "%2e%2E"),
        path.replace("%2F", "%5C"),
        path.replace("/loras/", "/../"),
    ] {
        let answer = router.http().get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
}

/// CVE-2025-67303: whoever may write user data may tell the manager to install anything. And its own paths.
#[tokio::test]
async fn the_manager_and_its_settings_are_out_of_reach() {
    let (fleet, router) = careless().await;
    let http = router.http();
    let weak = "[default]\nsecurity_level = weak\n";
    let config = fleet.control(0).dir().join("user/default/ComfyUI-Manager/config.ini");
    for path in [
        "/userdata/ComfyUI-Manager%2Fconfig.ini",
        "/api/userdata/ComfyUI-Manager%2Fconfig.ini",
        "/userdata/.%2FComfyUI-Manager%2Fconfig.ini",
        "/userdata/%43omfyui-manager%252Fconfig.ini",
        "/userdata/__manager%2Fconfig.ini",
    ] {
        assert_eq!(http.send(Method::POST, path, weak).await.status, 403, "{path}");
        assert_eq!(http.get(path).await.status, 403, "{path}");
    }
    http.send(Method::POST, "/userdata/innocent.json", weak).await.ok();
    let moved = "/userdata/innocent.json/move/ComfyUI-Manager%2Fconfig.ini";
    assert_eq!(http.send(Method::POST, moved, "").await.status, 403);
    assert_eq!(http.get("/userdata?dir=ComfyUI-Manager").await.status, 403);
    assert_eq!(http.get("/v2/userdata?path=ComfyUI-Manager").await.status, 403);
    assert!(!config.exists());
    assert_eq!(direct(&fleet).send(Method::POST, moved, "").await.status, 200, "the hole is there");
    assert!(config.exists());

    for path in ["/manager/reboot", "/customnode/install/git_url", "/api/manager/queue/start"] {
        assert_eq!(direct(&fleet).send(Method::POST, path, "x").await.status, 200, "the hole is there");
        let before = fleet.control(0).visits().len();
        assert_eq!(http.send(Method::POST, path, "x").await.status, 403, "{path}");
        assert_eq!(http.get(&path.replace("manager", "%6danager")).await.status, 403, "{path}");
        assert_eq!(fleet.control(0).visits().len(), before);
    }
}

#[tokio::test]
async fn an_operator_may_open_the_manager() {
    let fleet = Fleet::with([Config { careless: true, ..Config::default() }]).await;
    let open = r#"route=[{prefix="/manager/",to="home"}]"#;
    let router = Serve::over(fleet.instances()).set(open).start().await;
    assert_eq!(router.http().send(Method::POST, "/manager/reboot", "x").await.status, 200);
    assert_eq!(router.http().send(Method::POST, "/customnode/install/git_url", "x").await.status, 403);
}

/// CVE-2026-56673: an image may be loaded from anywhere on the instance's disk.
#[tokio::test]
async fn a_prompt_loads_no_file_from_outside_the_instances_folders() {
    let (fleet, router) = careless().await;
    let secret = fleet.control(0).dir().join("secret.png");
    std::fs::write(&secret, png_of(0x5ec4e7)).expect("written");
    let post =
        async |http: &Http, name: &str| http.post("/prompt", &json!({ "prompt": loading(name) })).await;
    assert_eq!(post(&direct(&fleet), "../secret.png").await.status, 200, "the hole is there");
    fleet.control(0).wait_ended(1).await;
    let absolute = secret.to_str().expect("UTF-8").to_owned();
    for name in [
        "../secret.png",
        "sub/../../secret.png",
        "../secret.png [output]",
        "..\\secret.png",
        "../secret.png[temp]",
        &absolute,
        &format!("{absolute} [input]"),
        "C:\\secret.png",
    ] {
        let answer = post(&router.http(), name).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        let error = &answer.json()["node_errors"]["1"]["errors"][0];
        assert_eq!(error["type"], "custom_validation_failed", "{error}");
        assert_eq!(error["details"], json!(format!("image - Invalid image file: {name}")));
    }
    assert_eq!(fleet.started(), 1, "nothing of this came to the instance");
    let client = Client::silent(&router, "c");
    client.http.upload("fine..png", &png_of(1)).await.ok();
    client.post(&loading("fine..png")).await;
}

/// CVE-2026-56674: a sandboxed page has the origin `null`.
#[tokio::test]
async fn a_page_of_no_origin_may_change_nothing() {
    let (fleet, router) = careless().await;
    let null = [("origin", "null")];
    let body = json!({ "unload_models": true }).to_string();
    let post = async |http: &Http| {
        http.try_send(Method::POST, "/free", &null, body.clone()).await.expect("an answer").status
    };
    assert_eq!(post(&direct(&fleet)).await, 200, "the hole is there");
    assert_eq!(post(&router.http()).await, 403);
}

/// With keys a router is shared: what a server logs is about everybody.
#[tokio::test]
async fn the_servers_log_is_nobodys_where_tenants_are_apart() {
    let fleet = Fleet::of(1).await;
    let keys = r#"front.api_keys=[{name="ann",key="the-key-of-ann-0123"}]"#;
    let router = Serve::over(fleet.instances()).set(keys).start().await;
    let key = [("authorization", "Bearer the-key-of-ann-0123")];
    for (method, path) in [
        (Method::GET, "/internal/logs"),
        (Method::GET, "/internal/logs/raw"),
        (Method::GET, "/internal/files/output"),
        (Method::PATCH, "/internal/logs/subscribe"),
    ] {
        let body = json!({ "clientId": "ann", "enabled": true }).to_string();
        let answer = router.http().try_send(method, path, &key, body).await.expect("an answer");
        assert_eq!(answer.status, 403, "{path}");
    }
    let open = Serve::over(fleet.instances()).start().await;
    assert!(open.http().get("/internal/logs").await.ok().json().is_string());
    let _: Value = open.http().get_json("/internal/files/output").await;
}
