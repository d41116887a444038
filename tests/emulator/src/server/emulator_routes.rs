//! `/emulator/...`: the control of this instance over HTTP, for tests of a separate process and for the demo.
//! Answers while the emulated server is frozen or hung.

use std::time::Duration;

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    reply::{self, Reply},
    request::JsonBody,
};
use crate::{
    control::{Control, fault::Fault, gate::Each, oracle::Execution},
    host::gpu::GpuOverrides,
};

type Params = IndexMap<String, String>;

const DEFAULT_WAIT_MS: u64 = 10_000;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/emulator/gpu", get(gpu).post(override_gpu))
        .route("/emulator/executions", get(executions))
        .route("/emulator/gate", get(show_gate).post(set_gate))
        .route("/emulator/fault", post(fault))
        .route("/emulator/reset", post(reset))
        .route("/emulator/state", get(state))
}

fn control(life: &App) -> Control {
    Control::new(life.machine.clone())
}

fn bad_request(error: &serde_json::Error) -> Reply {
    reply::json_with(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() }))
}

fn number(query: &Params, key: &str) -> Option<u64> {
    query.get(key).and_then(|text| text.parse().ok())
}

/// Null for a CPU instance.
async fn gpu(State(life): State<App>) -> Reply {
    reply::json(&control(&life).gpu())
}

async fn override_gpu(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    match serde_json::from_value::<GpuOverrides>(body) {
        Ok(overrides) => {
            control(&life).override_gpu(overrides);
            reply::json(&control(&life).gpu())
        }
        Err(error) => bad_request(&error),
    }
}

/// `?started=n` or `?ended=n` waits until so many have, at most `timeout_ms`; then answers what there is.
async fn executions(State(life): State<App>, Query(query): Query<Params>) -> Reply {
    let oracle = &life.machine.oracle;
    let (started, ended) = (number(&query, "started").unwrap_or(0), number(&query, "ended").unwrap_or(0));
    let done = |all: &[Execution]| all.iter().filter(|execution| execution.outcome.is_some()).count() as u64;
    let wait = oracle.wait(|all| all.len() as u64 >= started && done(all) >= ended);
    within(&query, wait).await;
    reply::json(&json!({ "executions": oracle.executions() }))
}

async fn within<T>(query: &Params, wait: impl Future<Output = T>) {
    let limit = Duration::from_millis(number(query, "timeout_ms").unwrap_or(DEFAULT_WAIT_MS));
    let _ = tokio::time::timeout(limit, wait).await;
}

/// `?held=n` waits until so many executions are held.
async fn show_gate(State(life): State<App>, Query(query): Query<Params>) -> Reply {
    let gate = &life.machine.gate;
    within(&query, gate.wait_held(number(&query, "held").unwrap_or(0))).await;
    reply::json(&gate.report())
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GateChange {
    hold: bool,
    each: Each,
    release: u64,
    open: bool,
}

async fn set_gate(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    let change = match serde_json::from_value::<GateChange>(body) {
        Ok(change) => change,
        Err(error) => return bad_request(&error),
    };
    let control = control(&life);
    if change.hold {
        control.hold(change.each);
    }
    if change.release > 0 {
        control.release(change.release);
    }
    if change.open {
        control.open();
    }
    reply::json(&control.gate())
}

async fn fault(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    match serde_json::from_value::<Fault>(body) {
        Ok(fault) => {
            control(&life).inject(fault);
            reply::json(&json!({}))
        }
        Err(error) => bad_request(&error),
    }
}

async fn reset(State(life): State<App>) -> Reply {
    control(&life).reset();
    reply::json(&json!({}))
}

async fn state(State(life): State<App>) -> Reply {
    let running: Value = life.queue.running().map_or(Value::Null, |item| json!(item.prompt_id));
    reply::json(&json!({
        "flavour": life.machine.config.flavour.version(),
        "life": life.number,
        "sockets": life.hub.sids(),
        "running": running,
        "pending": life.queue.pending().iter().map(|item| item.prompt_id.clone()).collect::<Vec<_>>(),
        "page_cache": life.machine.host.cached_files(),
    }))
}
