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
    request::{JsonBody, Limit, int},
};
use crate::validate::truthy;

pub(super) async fn show(State(life): State<App>) -> Reply {
    reply::json(&life.queue.show(life.machine.config.flavour))
}

pub(super) async fn change(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    let Some(change) = Change::of(&body) else { return reply::trouble() };
    if change.clear {
        life.queue.clear(&life.hub);
    }
    let Some(ids) = change.delete else { return reply::trouble() };
    for id in ids {
        life.queue.delete(&id, &life.hub);
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
    let number = |key: &str| query.get(key).map(|text| int(text).ok_or(())).transpose();
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
    let Some(change) = Change::of(&body) else { return reply::trouble() };
    if change.clear {
        life.queue.forget_all();
    }
    let Some(ids) = change.delete else { return reply::trouble() };
    for id in ids {
        life.queue.forget(&id);
    }
    reply::empty(StatusCode::OK)
}

/// `{"clear": ..., "delete": [...]}`
struct Change {
    clear: bool,
    /// None: there is no loop over what is there, which Python notices when it has cleared already.
    delete: Option<Vec<String>>,
}

impl Change {
    /// None where Python raises at once. In a list or a text it looks for the words.
    fn of(body: &Value) -> Option<Self> {
        let names = |text: &str| ["clear", "delete"].iter().any(|name| text.contains(name));
        match body {
            Value::Object(members) => {
                let delete = members.get("delete").map_or(Some(Vec::new()), looped);
                Some(Self { clear: flag(body, "clear"), delete })
            }
            Value::Array(items) if !items.iter().any(|item| item == "clear" || item == "delete") => {
                Some(Self { clear: false, delete: Some(Vec::new()) })
            }
            Value::String(text) if !names(text) => Some(Self { clear: false, delete: Some(Vec::new()) }),
            _ => None,
        }
    }
}

fn looped(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => Some(items.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()),
        Value::Object(members) => Some(members.keys().cloned().collect()),
        Value::String(text) => Some(text.chars().map(String::from).collect()),
        _ => None,
    }
}

fn flag(body: &Value, key: &str) -> bool {
    body.get(key).is_some_and(truthy)
}
