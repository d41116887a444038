//! `POST /prompt`: what is taken, what is refused and in whose words, and what a client may safely repeat.

use comfy_router_tests::{Answer, Client, Fleet, Http, Router, Serve, diffusion, kinds, plain};
use comfyui_emulator::{Config, Emulator, Models};
use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

async fn one() -> (Fleet, Router) {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

async fn keyed(http: &Http, key: &str, body: &Value) -> Answer {
    let headers = [("idempotency-key", key)];
    http.try_send(Method::POST, "/prompt", &headers, body.to_string()).await.expect("an answer")
}

#[tokio::test]
async fn one_idempotency_key_is_one_job_also_at_once_and_after_a_restart() {
    let (fleet, mut router) = one().await;
    let http = router.http();
    let mut graph = plain(0x1de);
    // Left out and told of, in the first answer as in every later one.
    graph["9"] = json!({"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}});
    let body = json!({ "prompt": graph });
    let answers = join_all((0..8).map(|_| keyed(&http, "a key", &body))).await;
    let first = answers[0].text();
    assert!(answers[0].json()["node_errors"]["9"].is_object(), "{first}");
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.text()), (200, first.clone()));
    }
    let id = answers[0].json()["prompt_id"].as_str().expect("an id").to_owned();
    Client::silent(&router, "c").history_when_ended(&id).await;
    assert_eq!(keyed(&http, "a key", &body).await.text(), first, "also when it is over");

    let other = keyed(&http, "a key", &json!({ "prompt": plain(1) })).await;
    assert_eq!(
        (other.status.as_u16(), &other.json()["error"]["type"]),
        (422, &json!("idempotency_key_reused"))
    );

    router.kill();
    router.start_again().await;
    assert_eq!(keyed(&router.http(), "a key", &body).await.text(), first, "also after a kill -9");
    router.instances_up(1).await;
    assert_eq!(fleet.started(), 1);
    let another = keyed(&router.http(), "another key", &body).await.ok().json();
    assert_ne!(another["prompt_id"], json!(id));
    assert_eq!(keyed(&router.http(), &"k".repeat(300), &body).await.status, 400);
}

#[tokio::test]
async fn an_idempotency_key_is_forgotten_in_time() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("ledger.idempotency_keys=1").start().await;
    let http = router.http();
    let body = json!({ "prompt": plain(3) });
    let first = keyed(&http, "one", &body).await.ok();
    let id = first.json()["prompt_id"].as_str().expect("an id").to_owned();
    Client::silent(&router, "c").history_when_ended(&id).await;
    let first = first.text();
    keyed(&http, "two", &body).await.ok();
    assert_ne!(keyed(&http, "one", &body).await.ok().text(), first, "only the newest is kept");
}

#[tokio::test]
async fn the_same_prompt_under_the_same_id_is_one_job() {
    let (fleet, router) = one().await;
    fleet.hold();
    let client = Client::connect(&router, "c").await;
    let body = json!({ "prompt": plain(5), "prompt_id": "mine" });
    let answers = join_all((0..5).map(|_| client.try_post(body.clone()))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == answers[0].text()));
    let other = client.try_post(json!({ "prompt": plain(6), "prompt_id": "mine" })).await;
    assert_eq!((other.status.as_u16(), other.json()), (409, json!({ "error": "prompt_id already exists" })));
    fleet.open();
    client.end_of("mine").await;
    assert_eq!(fleet.started(), 1);
    let again = client.post_as("mine", &plain(6)).await;
    client.history_when_ended(&again).await;
    client.all_done().await;
    assert_eq!(client.colour_made_by("mine").await, 6, "once it is over the id is free, as in ComfyUI");
}

#[tokio::test]
async fn a_refusal_names_what_is_missing_and_which_instance_lacks_it() {
    let models = || Models::none().with("checkpoints", "only-here.safetensors", 1);
    let left = Emulator::start(Config {
        models: models(),
        removed_nodes: vec!["ImageBlur".into()],
        ..Config::default()
    });
    let right = Emulator::start(Config { models: Models::none(), ..Config::default() });
    let (left, right) = (left.await.expect("starts"), right.await.expect("starts"));
    let instances = vec![format!("left={}", left.url()), format!("right={}", right.url())];
    let router = Serve::over(instances).start().await;
    let refused = async |graph: Value| {
        let answer = router.http().post("/prompt", &json!({ "prompt": graph })).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()["error"].clone()
    };

    let mut unknown = plain(1);
    unknown["1"]["class_type"] = json!("Nobodys");
    let error = refused(unknown).await;
    assert_eq!(error["message"], "Cannot execute because node Nobodys does not exist.");
    let lacks = |error: &Value, at: usize| error["extra_info"]["instances"][at]["lacks"].clone();
    for at in [0, 1] {
        assert_eq!(lacks(&error, at), json!({ "nodes": ["Nobodys"], "models": [] }));
    }

    let mut graph = diffusion("only-here.safetensors", 1, 1);
    graph["8"] =
        json!({"class_type": "ImageBlur", "inputs": {"image": ["6", 0], "blur_radius": 1, "sigma": 1.0}});
    let error = refused(graph.clone()).await;
    assert_eq!(error["type"], "no_capable_instance");
    assert_eq!(lacks(&error, 0), json!({ "nodes": ["ImageBlur"], "models": [] }));
    assert_eq!(lacks(&error, 1), json!({ "nodes": [], "models": ["checkpoints/only-here.safetensors"] }));
    let details = "left lacks node ImageBlur; right lacks model checkpoints/only-here.safetensors";
    assert_eq!(error["details"], details);

    let error = refused(diffusion("nowhere.safetensors", 1, 1)).await;
    assert_eq!(error["type"], "prompt_outputs_failed_validation");
    assert_eq!(lacks(&error, 0)["models"], json!(["checkpoints/nowhere.safetensors"]));

    graph.as_object_mut().expect("a graph").remove("8");
    let client = Client::connect(&router, "c").await;
    let id = client.post(&graph).await;
    client.end_of(&id).await;
    assert_eq!(router.job(&id).await["attempts"][0]["instance"], "left", "only there");
}

#[tokio::test]
async fn what_only_an_instance_can_know_ends_the_job_with_its_words() {
    // A class of a custom pack may check its choices itself, so the router lets any pass; this instance does not.
    let picky = json!({"PickyImage": {"input": {"required": {"kind": [["round", "square"], {}]}}, "output": ["IMAGE"],
        "output_node": true, "python_module": "custom_nodes.picky", "name": "PickyImage"}});
    let extra_nodes = picky.as_object().expect("classes").clone().into_iter().collect();
    let fleet = Fleet::with([Config { extra_nodes, ..Config::default() }]).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let graph = json!({"1": {"class_type": "PickyImage", "inputs": {"kind": "flat"}}});
    let id = client.post_as("refused", &graph).await;
    let said = client.end_of(&id).await;
    let error =
        said.iter().find(|message| message.kind() == "execution_error").expect("an error").data().clone();
    for field in ["node_id", "node_type", "exception_message", "exception_type"] {
        assert!(error[field].is_string(), "{field}: {error}");
    }
    for field in ["executed", "traceback", "current_outputs"] {
        assert!(error[field].is_array(), "{field}: {error}");
    }
    assert!(error["timestamp"].is_number() && error["current_inputs"].is_object());
    assert_eq!((&error["node_id"], &error["node_type"]), (&json!("1"), &json!("PickyImage")));
    assert_eq!(error["node_errors"]["1"]["errors"][0]["type"], "value_not_in_list");
    assert!(!kinds(&said).contains(&"execution_success".to_owned()));
    let history = client.history(&id).await;
    assert_eq!(history["status"]["status_str"], "error");
    assert_eq!(history["status"]["messages"][0][1]["node_errors"], error["node_errors"]);
    assert_eq!(router.job(&id).await["attempts"].as_array().expect("attempts").len(), 1, "no second try");
    assert_eq!(fleet.started(), 0);
}

#[tokio::test]
async fn hostile_bodies_are_refused_before_any_instance_is_touched() {
    let (fleet, router) = one().await;
    let http = router.http();
    let answer = async |body: Vec<u8>| {
        let answer = http.try_send(Method::POST, "/prompt", &[], body).await.expect("an answer");
        (answer.status.as_u16(), answer.json()["error"]["type"].as_str().unwrap_or_default().to_owned())
    };
    let nested = |open: &str, shut: &str| {
        format!("{{\"prompt\":{}{}}}", open.repeat(100_000), shut.repeat(100_000)).into_bytes()
    };
    let chain = (0..2_000).map(|at| match at {
        0 => r#""0":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":1}}"#
            .to_owned(),
        at => format!(r#""{at}":{{"class_type":"ImageInvert","inputs":{{"image":["{}",0]}}}}"#, at - 1),
    });
    let chain = chain.collect::<Vec<_>>().join(",");
    let saved = r#""s":{"class_type":"SaveImage","inputs":{"images":["0",0],"filename_prefix":"x"}}"#;
    for (body, kind) in [
        (nested("[", "]"), "invalid_json"),
        (nested("{\"a\":", "}"), "invalid_json"),
        (b"{\"prompt\": {\"\xff\": 1}}".to_vec(), "invalid_json"),
        (b"{\"prompt\": ".to_vec(), "invalid_json"),
        (br#"{"prompt": {}, "prompt": {}}"#.to_vec(), "invalid_json"),
        (format!("{{\"prompt\":{{{chain},{saved}}}}}").into_bytes(), "invalid_prompt"),
    ] {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(answer(body).await, (400, kind.to_owned()), "{start}");
    }
    assert_eq!(fleet.started(), 0);
    assert_eq!(http.get("/prompt").await.status, 200, "nothing overflowed");
}
