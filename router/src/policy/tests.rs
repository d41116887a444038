//! The whole host, through its handle, with real components: the shipped policies and the hostile fixture.

mod compatibility;
mod displaced;
mod hostile;
mod lanes;
mod refusal;
mod remembering;
mod service;
mod tools;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Config, GuestLimits, Handle, sample, start};
use crate::clock::ManualClock;
use crate::model::decision::{Answer, Consultation, Decided, Fallback, Question, Route, RouteDecision};

/// Later than any sample view, so that a fixture told to begin here passes the load gate.
const LATER_MS: u64 = 2_000_000_000_000;

/// A deadline that a busy build machine does not miss for a policy that answers.
const PATIENT: GuestLimits = GuestLimits {
    call_ms: 500,
    configure_ms: 500,
    memory_mib: 64,
    stack_kib: 512,
    host_calls: 10_000,
    transfer_kib: 2 * 1024,
    log_bytes_per_second: 64 * 1024,
    text_bytes: 4 * 1024,
    rows: 1_024,
    component_mib: 64,
    compile_s: 60,
};

fn built(policy: &str) -> PathBuf {
    PathBuf::from(concat!(env!("OUT_DIR"), "/policies")).join(format!("{policy}.wasm"))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// The fixture, told to do `deed` on `hook` once it is in service.
fn hostile(hook: &str, deed: &str) -> Config {
    let settings = json!({"on": hook, "do": deed, "from_ms": LATER_MS as f64});
    Config { file: Some(built("hostile")), settings: object(settings), limits: PATIENT, ..Config::default() }
}

fn started(config: Config) -> (Handle, ManualClock) {
    let clock = ManualClock::default();
    let handle = start(config, Arc::new(clock.clone())).expect("the policy host starts");
    assert_eq!(handle.status().refused, None);
    (handle, clock)
}

fn later(question: Question) -> Consultation {
    let mut consultation = sample::ask(7, 4, question);
    consultation.context.now_ms = LATER_MS;
    consultation
}

fn route_question() -> Question {
    Question::Route { job: sample::job(), candidates: sample::candidates(4) }
}

async fn route(handle: &Handle) -> (RouteDecision, Option<Fallback>, Decided) {
    let decided = handle.decide(later(route_question())).await;
    let Answer::Route(decision) = &decided.answer else { panic!("{:?} is no route", decided.answer) };
    assert_eq!(decided.records.len(), 1);
    (decision.clone(), decided.records[0].fallback, decided.clone())
}

fn is_usable(decision: &RouteDecision) {
    let Route::Ranked(rows) = &decision.route else { panic!("{decision:?} ranks nothing") };
    assert!(rows.iter().all(|&row| row < 4), "{rows:?}");
}
