//! Queue, history, interrupt and free.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::{
    App,
    reply::{self, Reply},
    request::{JsonBody, Limit},
};
use crate::validate::truthy;

pub(super) async fn show(State(life): State<App>) -> Reply {
    reply::json(&life.queue.show(life.machine.config.flavour))
}

pub(super) async fn change(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    if flag(&body, "clear") {
        life.queue.clear(&life.hub);
    }
    for id in ids(&body) {
        life.queue.delete(id, &life.hub);
    }
    reply::empty(StatusCode::OK)
}

/// Global unless the body names a prompt. A body that is no JSON counts as empty, one that is no object fails.
pub(super) async fn interrupt(State(life): State<App>, Limit(body): Limit) -> Reply {
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::Object(Map::new()));
    let Value::Object(body) = body else { return reply::trouble() };
    match body.get("prompt_id").filter(|id| truthy(id)) {
        None => life.interrupt.raise(),
        Some(id) if life.queue.running().is_some_and(|item| Some(item.prompt_id.as_str()) == id.as_str()) => {
            life.interrupt.raise();
        }
        Some(_) => {}
    }
    reply::empty(StatusCode::OK)
}

pub(super) async fn free(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    life.machine.visit("POST /free".into());
    life.queue.set_free(flag(&body, "unload_models"), flag(&body, "free_memory"));
    reply::empty(StatusCode::OK)
}

pub(super) async fn history(State(life): State<App>, Query(query): Query<IndexMap<String, String>>) -> Reply {
    let number = |key: &str| query.get(key).map(|text| text.trim().parse::<i64>()).transpose();
    let (Ok(max_items), Ok(offset)) = (number("max_items"), number("offset")) else {
        return reply::trouble();
    };
    reply::json(&life.queue.history(max_items, offset.unwrap_or(-1)))
}

/// Never 404: an unknown, pending or running prompt is an empty object.
pub(super) async fn history_entry(State(life): State<App>, Path(prompt_id): Path<String>) -> Reply {
    let mut found = Map::new();
    if let Some(entry) = life.queue.entry(&prompt_id) {
        found.insert(prompt_id, entry);
    }
    reply::json(&found)
}

pub(super) async fn change_history(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    if flag(&body, "clear") {
        life.queue.forget_all();
    }
    for id in ids(&body) {
        life.queue.forget(id);
    }
    reply::empty(StatusCode::OK)
}

fn flag(body: &Value, key: &str) -> bool {
    body.get(key).is_some_and(truthy)
}

fn ids(body: &Value) -> impl Iterator<Item = &str> {
    body.get("delete").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
