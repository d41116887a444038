//! `/internal/*`: for the page of the same server, without `/api` twins.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::{Map, Value, json};

use super::{
    App,
    reply::{self, Reply},
    request::JsonBody,
};
use crate::{
    config::Flavour,
    files::{Place, plain_files},
};

const BOOT: &str = "Starting server\n";

/// A JSON string, not an object.
pub(super) async fn logs() -> Reply {
    reply::json(BOOT)
}

pub(super) async fn raw_logs() -> Reply {
    reply::json(
        &json!({ "entries": [{ "t": "2026-01-01T00:00:00", "m": BOOT }], "size": { "cols": 80, "rows": 24 } }),
    )
}

/// Log lines come only from `Control::log`.
pub(super) async fn subscribe(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    let (Some(sid), Some(enabled)) = (body.get("clientId"), body.get("enabled")) else {
        return reply::trouble();
    };
    life.hub.subscribe_logs(sid.as_str().unwrap_or_default(), *enabled == Value::Bool(true));
    reply::empty(StatusCode::OK)
}

pub(super) async fn folder_paths(State(life): State<App>) -> Reply {
    let root = life.machine.dirs.root();
    let folders: Map<String, Value> = life
        .machine
        .catalogue
        .folders()
        .into_iter()
        .map(|folder| (folder.to_owned(), json!([root.join("models").join(folder)])))
        .collect();
    reply::json(&folders)
}

/// Newest first, not recursive.
pub(super) async fn files(State(life): State<App>, Path(place): Path<String>) -> Reply {
    let Some(place) = Place::parse(&place) else {
        return reply::json_with(StatusCode::BAD_REQUEST, &json!({ "error": "Invalid directory type" }));
    };
    let folder = life.machine.dirs.place(place);
    let hides_dots = life.machine.config.flavour == Flavour::V0_8_0;
    let mut names = plain_files(&folder);
    names.retain(|name| !(hides_dots && name.starts_with('.')));
    names.sort_by_key(|name| std::fs::metadata(folder.join(name)).and_then(|file| file.modified()).ok());
    names.reverse();
    reply::json(&names)
}
