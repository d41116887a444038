//! `POST /prompt` and its counter-part: number, validation, queueing, in the order of the real handler.

use axum::{
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use serde_json::{Map, Number, Value, json};
use uuid::Uuid;

use super::{
    App,
    reply::{self, Reply},
    request::JsonBody,
};
use crate::{
    config::Flavour,
    control::{fault::Moment, oracle::inputs_hash},
    life::Life,
    pyjson,
    queue::Item,
    validate::{self, Rejected},
};

pub(super) async fn show(State(life): State<App>) -> Reply {
    reply::json(&json!({ "exec_info": { "queue_remaining": life.queue.remaining() } }))
}

pub(super) async fn submit(State(life): State<App>, request: Request) -> Reply {
    let body = match JsonBody::from_request(request, &life).await {
        Ok(JsonBody(body)) => body,
        Err(refusal) => return refusal,
    };
    life.reach(Moment::PostReceived).await;
    if let Some(status) = life.machine.faults.take_failed_post() {
        return reply::text(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            "scripted failure",
        );
    }
    let answer = accept(&life, body).unwrap_or_else(|refusal| refusal);
    life.reach(Moment::PostAccepted).await;
    if let Some(ms) = life.machine.faults.take_post_delay() {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
    }
    answer
}

/// The reply, or the refusal.
fn accept(life: &Life, body: Value) -> Result<Reply, Reply> {
    let Value::Object(mut body) = body else { return Err(reply::trouble()) };
    let number = number(life, &body)?;
    let Some(prompt) = body.remove("prompt") else {
        return Err(rejected(&Rejected::new("no_prompt", "No prompt provided", "No prompt provided")));
    };
    let prompt_id = body.get("prompt_id").map_or_else(|| Uuid::new_v4().to_string(), pyjson::text);
    let inputs_hash = inputs_hash(&prompt);
    let mut prompt = match prompt {
        Value::Object(prompt) => prompt,
        Value::Array(items) if items.is_empty() => Map::new(),
        _ => return Err(reply::trouble()),
    };
    let targets: Option<Vec<String>> = body
        .get("partial_execution_targets")
        .and_then(Value::as_array)
        .map(|ids| ids.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let machine = &life.machine;
    let valid = validate::validate(&machine.catalogue, &machine.dirs, &mut prompt, targets.as_deref());
    let valid = valid.map_err(|refusal| rejected(&refusal))?;
    let extra_data = extra_data(life, &body)?;
    let answer = json!({ "prompt_id": prompt_id, "number": number, "node_errors": valid.node_errors });
    let item = Item { number, prompt_id, prompt, extra_data, outputs: valid.outputs, inputs_hash };
    if life.queue.put(item, &life.hub) { Ok(reply::json(&answer)) } else { Err(reply::trouble()) }
}

/// An automatic number is an integer, a given one always a float.
fn number(life: &Life, body: &Map<String, Value>) -> Result<Number, Reply> {
    let Some(given) = body.get("number") else {
        let front = body.get("front").is_some_and(validate::truthy);
        return Ok(life.queue.take_number(front).into());
    };
    let number = match given {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        _ => None,
    };
    number.and_then(Number::from_f64).ok_or_else(reply::trouble)
}

fn extra_data(life: &Life, body: &Map<String, Value>) -> Result<Map<String, Value>, Reply> {
    let mut extra_data = match body.get("extra_data") {
        None => Map::new(),
        Some(Value::Object(extra_data)) => extra_data.clone(),
        Some(_) => return Err(reply::trouble()),
    };
    if let Some(client_id) = body.get("client_id") {
        extra_data.insert("client_id".into(), client_id.clone());
    }
    if life.machine.config.flavour == Flavour::V0_8_0 {
        extra_data.insert("create_time".into(), json!(life.queue.create_time()));
    }
    Ok(extra_data)
}

fn rejected(refusal: &Rejected) -> Reply {
    let body = json!({ "error": refusal.error, "node_errors": refusal.node_errors });
    reply::json_with(StatusCode::BAD_REQUEST, &body)
}
