//! ComfyUI clients as published, and scripts that behave as ComfyUI's own examples, each unchanged: every one runs its
//! workflows and gets its pictures.

use comfy_router_tests::{Client, Fleet, Foreign, Router, Serve, colour_of, loading, plain, png_of};
use comfyui_emulator::Fault;
use serde_json::{Value, json};

const COLOURS: [u32; 3] = [0x12_34_56, 0x65_43_21, 0xab_cd_ef];

async fn two() -> (Fleet, Router) {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

/// For clients that listen for events only once they have the answer to their prompt, which takes them a while on a busy
/// machine: no job is over as soon as it has begun.
fn slow_enough_to_listen(fleet: &Fleet) {
    fleet.controls().for_each(|control| control.inject(Fault::Slow { factor: 1.0, extra_ms: 100 }));
}

/// With the titles by which some clients find nodes.
fn titled(mut graph: Value) -> Value {
    let source = if graph["1"]["class_type"] == "LoadImage" { "Load Image" } else { "Empty" };
    graph["1"]["_meta"] = json!({ "title": source });
    graph["2"]["_meta"] = json!({ "title": "Save Image" });
    graph
}

/// Runs `client SERVER WORKFLOW...` and gives the colours of the pictures that it got, in its order.
async fn pictures(client: Foreign, router: &Router, workflows: &[Value]) -> Vec<u32> {
    let mut run = client.argument(router.url());
    for (at, workflow) in workflows.iter().enumerate() {
        let file = run.file(&format!("workflow-{at}.json"), workflow.to_string().as_bytes());
        run = run.argument(file);
    }
    let told = run.succeeds().await;
    told.lines().filter(|line| line.ends_with(".png")).map(|name| colour_of(&run.left(name))).collect()
}

fn three() -> Vec<Value> {
    COLOURS.map(|colour| titled(plain(colour))).to_vec()
}

#[tokio::test]
async fn a_script_like_the_websocket_example_gets_its_pictures() {
    let (fleet, router) = two().await;
    let got = pictures(Foreign::python("clients/ws_then_view.py"), &router, &three()).await;
    assert_eq!(got, COLOURS);
    assert_eq!(fleet.started(), 3);
}

#[tokio::test]
async fn a_script_like_the_example_for_websocket_images_gets_them_as_frames() {
    let (_fleet, router) = two().await;
    let saving = |colour| {
        let mut graph = plain(colour);
        graph["1"]["inputs"]["batch_size"] = json!(2);
        graph["2"] = json!({ "class_type": "SaveImageWebsocket", "inputs": { "images": ["1", 0] } });
        graph
    };
    let workflows: Vec<Value> = COLOURS.into_iter().map(saving).collect();
    let got = pictures(Foreign::python("clients/ws_images.py"), &router, &workflows).await;
    assert_eq!(got, COLOURS.into_iter().flat_map(|colour| [colour, colour]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_script_that_only_polls_gets_its_pictures() {
    let (fleet, router) = two().await;
    let got = pictures(Foreign::python("clients/poll_only.py"), &router, &three()).await;
    assert_eq!(got, COLOURS);
    assert_eq!(fleet.started(), 3);
}

#[tokio::test]
async fn comfy_api_simplified_uploads_runs_and_gets_its_pictures() {
    let (fleet, router) = two().await;
    let client = Foreign::python("clients/api_simplified.py");
    client.file("upload.png", &png_of(0x77_00_11));
    let mut workflows = three();
    workflows.push(titled(loading("set by the client")));
    let got = pictures(client, &router, &workflows).await;
    assert_eq!(got[..3], COLOURS);
    assert_eq!(got[3..], [0x77_00_11], "what it uploaded");
    assert_eq!(fleet.started(), 4);
}

#[tokio::test]
async fn saintno_sdk_gets_its_pictures_while_others_make_the_queue_move() {
    let (fleet, router) = two().await;
    slow_enough_to_listen(&fleet);
    let others = async {
        let client = Client::connect(&router, "other").await;
        for colour in 0..10 {
            let id = client.post(&plain(colour)).await;
            client.end_of(&id).await;
        }
    };
    let workflows = three();
    let client = pictures(Foreign::node("clients/saintno_sdk.mjs"), &router, &workflows);
    let (got, ()) = tokio::join!(client, others);
    assert_eq!(got, COLOURS);
}

#[tokio::test]
async fn stable_canvas_client_gets_its_pictures_by_websocket_and_by_polling() {
    let (fleet, router) = two().await;
    slow_enough_to_listen(&fleet);
    let got = pictures(Foreign::node("clients/stable_canvas.mjs"), &router, &three()).await;
    assert_eq!(got, [COLOURS, COLOURS].concat());
}

#[tokio::test]
async fn comfy_cli_runs_a_workflow_of_the_api_and_one_of_the_page() {
    let (fleet, router) = two().await;
    let of_the_api = plain(COLOURS[0]).to_string();
    let of_the_page = include_str!("../../browser/workflows/diffusion.json");
    for workflow in [of_the_api.as_str(), of_the_page] {
        let picture = run_by_comfy_cli(&router, workflow).await;
        let size = png_size(&picture);
        assert!(size == (32, 16) && colour_of(&picture) == COLOURS[0] || size == (512, 512), "{size:?}");
    }
    assert_eq!(fleet.started(), 2);
}

/// The one picture that `comfy run` says it made, fetched from where it says.
async fn run_by_comfy_cli(router: &Router, workflow: &str) -> Vec<u8> {
    let comfy =
        Foreign::python_program("comfy").variable("DO_NOT_TRACK", "1").variable("COMFY_NO_WATCH", "1");
    let file = comfy.file("workflow.json", workflow.as_bytes());
    let (host, port) = router.url().trim_start_matches("http://").rsplit_once(':').expect("a port");
    let mut run = comfy
        .arguments(&["--skip-prompt", "run", "--wait", "--json", "--timeout", "30"])
        .arguments(&["--host", host, "--port", port, "--workflow"])
        .argument(file);
    let told = run.succeeds().await;
    let last = told.lines().last().unwrap_or_default();
    let envelope: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!((&envelope["ok"], &envelope["data"]["status"]), (&json!(true), &json!("completed")), "{told}");
    let outputs = envelope["data"]["outputs"].as_array().expect("a list");
    let [Value::String(output)] = &outputs[..] else { panic!("one picture: {told}") };
    let path = output.strip_prefix(router.url()).expect("of this router");
    router.http().get(path).await.ok().body.to_vec()
}

/// Width and height, from the head of a PNG.
fn png_size(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}
