//! Gates and the oracle, in process and over HTTP.

use comfyui_emulator::{Config, Each, Emulator, Execution, Outcome, inputs_hash};
use serde_json::json;

use crate::client::{Http, Socket, diffusion, plain};

async fn start() -> (Emulator, Http) {
    let emulator = Emulator::start(Config::default()).await.expect("starts");
    let http = Http::new(&emulator.url());
    (emulator, http)
}

#[tokio::test]
async fn a_held_execution_runs_when_released() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    control.hold(Each::Execution);
    let first = http.prompt(&plain(1, "a"), None).await;
    let second = http.prompt(&plain(2, "b"), None).await;
    control.wait_held(1).await;
    assert_eq!(http.get("/queue").await.json()["queue_running"][0][1], json!(first));
    assert_eq!(http.history(&first).await, json!(null));
    control.release(1);
    control.wait_ended(1).await;
    control.wait_held(1).await;
    assert_eq!(http.get("/queue").await.json()["queue_running"][0][1], json!(second));
    control.open();
    let ran = control.wait_ended(2).await;
    assert_eq!(ran.iter().map(|e| e.prompt_id.clone()).collect::<Vec<_>>(), [first, second]);
}

#[tokio::test]
async fn the_oracle_knows_what_ran() {
    let (emulator, http) = start().await;
    let prompt = plain(7, "o");
    let id = http.prompt(&prompt, Some("me")).await;
    let ran = emulator.control().wait_ended(1).await;
    let execution = &ran[0];
    assert_eq!((execution.prompt_id.as_str(), execution.client_id.as_deref()), (id.as_str(), Some("me")));
    assert_eq!((execution.outcome, execution.life), (Some(Outcome::Success), 1));
    assert_eq!(execution.nodes_run, ["1", "2"]);
    assert_eq!(execution.inputs_hash, inputs_hash(&prompt));
}

#[tokio::test]
async fn everything_is_there_over_http() {
    let (_emulator, http) = start().await;
    let gate = http.post("/emulator/gate", &json!({ "hold": true, "each": "node" })).await.json();
    assert_eq!(gate, json!({ "holding": true, "each": "node", "held": 0, "tickets": 0 }));
    http.prompt(&plain(1, "h"), None).await;
    assert_eq!(http.get("/emulator/gate?held=1").await.json()["held"], 1);
    http.post("/emulator/gate", &json!({ "release": 2 })).await;
    let executions = http.get("/emulator/executions?ended=1").await.json();
    let executions: Vec<Execution> =
        serde_json::from_value(executions["executions"].clone()).expect("executions");
    assert_eq!(executions[0].outcome, Some(Outcome::Success));
    let state = http.get("/emulator/state").await.json();
    assert_eq!((&state["life"], &state["running"]), (&json!(1), &json!(null)));
    assert_eq!(http.post("/emulator/fault", &json!({ "fault": "nonsense" })).await.status, 400);
    http.post("/emulator/reset", &json!({})).await;
    assert_eq!(http.get("/emulator/executions").await.json()["executions"], json!([]));
    assert_eq!(http.get("/emulator/gpu").await.json(), json!(null));
}

#[tokio::test]
async fn steps_can_be_held_one_by_one() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    let mut socket = Socket::connect(&emulator.url(), "s").await;
    control.hold(Each::Step);
    http.prompt(&diffusion("sd15.safetensors", 1, 3), Some("s")).await;
    for step in 1..=3 {
        control.wait_held(1).await;
        control.release(1);
        assert_eq!(socket.until("progress").await["data"]["value"], step);
    }
    control.wait_ended(1).await;
}
