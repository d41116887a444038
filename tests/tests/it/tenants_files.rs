//! Where keys keep tenants apart, nobody reads another's files by their names, though all instances' disks are one.

use comfy_router_tests::{Answer, Fleet, Http, Router, Serve, colour_of, eventually, loading, plain, png_of};
use hyper::Method;
use serde_json::{Value, json};

const KEYS: &str =
    r#"front.api_keys=[{name="ann",key="the-key-of-ann-0123"},{name="bob",key="the-key-of-bob-0123"}]"#;

/// A client with its key.
struct Tenant {
    http: Http,
    key: String,
}

impl Tenant {
    fn new(router: &Router, name: &str) -> Self {
        Self { http: router.http(), key: format!("Bearer the-key-of-{name}-0123") }
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Answer {
        let headers = [("authorization", self.key.as_str())];
        self.http.try_send(method, path, &headers, body).await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, String::new()).await
    }

    async fn upload(&self, name: &str, colour: u32, fields: &[(&str, &str)]) -> Value {
        let headers = [("authorization", self.key.as_str())];
        self.http.upload_as(&headers, "/upload/image", name, &png_of(colour), fields).await.ok().json()
    }

    async fn try_post(&self, graph: &Value) -> Answer {
        self.send(Method::POST, "/prompt", json!({ "prompt": graph }).to_string()).await
    }

    /// The picture that a prompt makes.
    async fn made(&self, graph: &Value) -> Value {
        let id = self.try_post(graph).await.ok().json()["prompt_id"].as_str().expect("an id").to_owned();
        let entry = eventually("its history", async || {
            let entry = self.get(&format!("/history/{id}")).await.ok().json()[&id].take();
            (!entry.is_null()).then_some(entry)
        })
        .await;
        entry["outputs"]["2"]["images"][0].clone()
    }

    async fn view(&self, file: &Value) -> Answer {
        let text = |name: &str| file[name].as_str().expect("text").replace(' ', "%20");
        let (name, folder, kind) = (text("filename"), text("subfolder"), text("type"));
        self.get(&format!("/view?filename={name}&subfolder={folder}&type={kind}")).await
    }
}

async fn two() -> (Fleet, Router, Tenant, Tenant) {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).set(KEYS).start().await;
    let (ann, bob) = (Tenant::new(&router, "ann"), Tenant::new(&router, "bob"));
    (fleet, router, ann, bob)
}

#[tokio::test]
async fn an_upload_is_its_tenants_own() {
    let (fleet, _router, ann, bob) = two().await;
    let told = ann.upload("a.png", 0xa, &[]).await;
    assert_eq!(told, json!({ "name": "a.png", "subfolder": "", "type": "input" }));
    assert_eq!(bob.upload("a.png", 0xb, &[]).await, told, "names of others are not in the way");
    bob.upload("a.png", 0xb, &[("overwrite", "true")]).await;
    let input = |name: &str| json!({ "filename": name, "subfolder": "", "type": "input" });
    assert_eq!(colour_of(&ann.view(&input("a.png")).await.ok().body), 0xa);
    assert_eq!(colour_of(&bob.view(&input("a.png")).await.ok().body), 0xb);
    for at in 0..2 {
        let made = ann.made(&loading("a.png")).await;
        assert_eq!(colour_of(&ann.view(&made).await.ok().body), 0xa, "{at}");
        let made = bob.made(&loading("a.png")).await;
        assert_eq!(colour_of(&bob.view(&made).await.ok().body), 0xb, "{at}");
    }
    ann.upload("secret.png", 0x5ec, &[]).await;
    for name in ["secret.png", "@ann/secret.png", "./@ann/secret.png", "@ann\\secret.png"] {
        let answer = bob.try_post(&loading(name)).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.text().contains("Invalid image file"), "{name}: {}", answer.text());
    }
    for query in [
        "filename=secret.png&type=input",
        "filename=secret.png&type=input&subfolder=@ann",
        "filename=secret.png&type=input&subfolder=%40ann",
        "filename=secret.png&type=input&subfolder=./@ann",
        "filename=secret.png%20[input]&subfolder=@ann",
        "filename=secret.png&type=input&subfolder=~i0/@ann",
        "filename=secret.png&type=input&subfolder=~i1/@ann",
    ] {
        for page in ["/view", "/api/view", "/custom/view"] {
            let answer = bob.get(&format!("{page}?{query}")).await;
            assert!(answer.status == 404 || answer.status == 403, "{page}?{query}: {}", answer.status);
        }
    }
    std::fs::write(fleet.control(0).dir().join("input/for-all.png"), png_of(0xf)).expect("written");
    assert_eq!(colour_of(&bob.view(&input("for-all.png")).await.ok().body), 0xf, "put there by the operator");
}

#[tokio::test]
async fn a_result_is_its_tenants_own() {
    let (_fleet, _router, ann, bob) = two().await;
    let anns = ann.made(&plain(0xa)).await;
    let bobs = bob.made(&plain(0xb)).await;
    assert_eq!(colour_of(&ann.view(&anns).await.ok().body), 0xa);
    assert_eq!(colour_of(&bob.view(&bobs).await.ok().body), 0xb);
    assert_eq!(bob.view(&anns).await.status, 404);
    assert_eq!(ann.view(&bobs).await.status, 404);
    let name = anns["filename"].as_str().expect("text");
    let folder = anns["subfolder"].as_str().expect("text");
    for named in [format!("{folder}/{name} [output]"), format!("{folder}/{name}[output]")] {
        let answer = bob.try_post(&loading(&named)).await;
        assert_eq!(answer.status, 400, "{named}: {}", answer.text());
    }
    // A bare name is everybody's own last one.
    let bobs_name = bobs["filename"].as_str().expect("text");
    let own = bob.made(&loading(&format!("{bobs_name} [output]"))).await;
    assert_eq!(colour_of(&bob.view(&own).await.ok().body), 0xb);
    let bare = json!({ "filename": name, "subfolder": "", "type": "output" });
    assert_eq!(colour_of(&ann.view(&bare).await.ok().body), 0xa);
    assert_eq!(bob.get("/view?filename=unheard-of.png&type=output").await.status, 404);
    let page = format!("/custom/view?filename={name}&subfolder={folder}&type=output");
    assert_eq!(bob.get(&page).await.status, 404);
    assert_eq!(ann.get(&page).await.status, 200);
}

#[tokio::test]
async fn a_preview_can_be_seen_by_its_tenant_while_the_job_still_runs() {
    let (fleet, _router, ann, bob) = two().await;
    let graph = json!({
        "1": { "class_type": "EmptyImage", "inputs": { "width": 32, "height": 16, "batch_size": 1, "color": 0x7e } },
        "2": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
        "3": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "later" } },
    });
    let mut socket =
        comfy_router_tests::Socket::open(ann.http.base(), "/ws?clientId=ann&token=the-key-of-ann-0123")
            .await
            .expect("a websocket");
    fleet.controls().for_each(|control| control.hold(comfyui_emulator::Each::Node));
    let body = json!({ "prompt": graph, "client_id": "ann" }).to_string();
    ann.send(Method::POST, "/prompt", body).await.ok();
    let at = fleet.held_anywhere().await;
    fleet.control(at).release(2);
    let shown = loop {
        let message = comfy_router_tests::within("the preview", socket.next()).await;
        if message.kind() == "executed" {
            break message.data()["output"]["images"][0].clone();
        }
    };
    assert_eq!(shown["type"], "temp");
    assert_eq!(colour_of(&ann.view(&shown).await.ok().body), 0x7e);
    assert_eq!(bob.view(&shown).await.status, 404);
    fleet.open();
}
