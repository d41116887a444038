//! Users, settings and user data of the single default user.

use std::{fs, path::PathBuf, time::UNIX_EPOCH};

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{
    App, files,
    reply::{self, Reply},
    request::{JsonBody, Limit},
};
use crate::{files::inside, life::Life};

type Params = IndexMap<String, String>;

pub(super) async fn users() -> Reply {
    reply::json(&json!({ "storage": "server", "migrated": false }))
}

/// Only a multi-user server adds users; the single-user one fails in the attempt.
pub(super) async fn add_user() -> Reply {
    reply::trouble()
}

fn settings_path(life: &Life) -> PathBuf {
    life.machine.dirs.user().join("comfy.settings.json")
}

fn read_settings(life: &Life) -> Map<String, Value> {
    let text = fs::read(settings_path(life)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_settings(life: &Life, settings: &Map<String, Value>) -> Reply {
    let written = fs::create_dir_all(life.machine.dirs.user())
        .and_then(|()| fs::write(settings_path(life), Value::Object(settings.clone()).to_string()));
    if written.is_ok() { reply::empty(StatusCode::OK) } else { reply::trouble() }
}

pub(super) async fn settings(State(life): State<App>) -> Reply {
    reply::json(&read_settings(&life))
}

pub(super) async fn merge_settings(State(life): State<App>, JsonBody(body): JsonBody) -> Reply {
    let Value::Object(new) = body else { return reply::trouble() };
    let mut settings = read_settings(&life);
    settings.extend(new);
    write_settings(&life, &settings)
}

pub(super) async fn setting(State(life): State<App>, Path(id): Path<String>) -> Reply {
    reply::json(&read_settings(&life).remove(&id).unwrap_or_default())
}

pub(super) async fn set_setting(
    State(life): State<App>,
    Path(id): Path<String>,
    JsonBody(value): JsonBody,
) -> Reply {
    let mut settings = read_settings(&life);
    settings.insert(id, value);
    write_settings(&life, &settings)
}

fn truth(query: &Params, key: &str, default: bool) -> bool {
    query.get(key).map_or(default, |value| value == "true")
}

/// The file of one path segment, which may hold encoded slashes.
fn user_file(life: &Life, file: &str) -> Option<PathBuf> {
    inside(&life.machine.dirs.user(), file).filter(|path| *path != life.machine.dirs.user())
}

fn info(life: &Life, path: &std::path::Path) -> Value {
    let relative = path.strip_prefix(life.machine.dirs.user()).unwrap_or(path).to_string_lossy().into_owned();
    let metadata = fs::metadata(path).ok();
    let modified =
        metadata.as_ref().and_then(|m| m.modified().ok()).and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let seconds = modified.unwrap_or_default().as_secs_f64();
    json!({ "path": relative, "size": metadata.map_or(0, |m| m.len()), "modified": seconds, "created": seconds })
}

pub(super) async fn list(State(life): State<App>, Query(query): Query<Params>) -> Reply {
    let Some(dir) = query.get("dir").filter(|dir| !dir.is_empty()) else {
        return reply::text(StatusCode::BAD_REQUEST, "Directory not provided");
    };
    let Some(folder) = inside(&life.machine.dirs.user(), dir) else {
        return reply::empty(StatusCode::FORBIDDEN);
    };
    if !folder.is_dir() {
        return reply::text(StatusCode::NOT_FOUND, "Directory not found");
    }
    let mut paths = walk(&folder, truth(&query, "recurse", false));
    paths.sort();
    let show = |path: &PathBuf| {
        let relative = path.strip_prefix(&folder).unwrap_or(path).to_string_lossy().into_owned();
        if truth(&query, "full_info", false) {
            let mut full = info(&life, path);
            full["path"] = json!(relative);
            full
        } else if truth(&query, "split", false) {
            let parts = relative.split('/').map(Value::from);
            std::iter::once(json!(relative)).chain(parts).collect()
        } else {
            json!(relative)
        }
    };
    reply::json(&paths.iter().map(show).collect::<Vec<Value>>())
}

fn walk(folder: &std::path::Path, recurse: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_file() {
            found.push(path);
        } else if recurse {
            found.extend(walk(&path, true));
        }
    }
    found
}

pub(super) async fn read(State(life): State<App>, Path(file): Path<String>, headers: HeaderMap) -> Reply {
    match user_file(&life, &file) {
        None => reply::empty(StatusCode::FORBIDDEN),
        Some(path) => files::file(&path, &headers, life.machine.config.careless),
    }
}

pub(super) async fn write(
    State(life): State<App>,
    Path(file): Path<String>,
    Query(query): Query<Params>,
    Limit(body): Limit,
) -> Reply {
    let Some(path) = user_file(&life, &file) else { return reply::empty(StatusCode::FORBIDDEN) };
    if path.exists() && !truth(&query, "overwrite", true) {
        return reply::text(StatusCode::CONFLICT, "File already exists");
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, body));
    if written.is_err() {
        return reply::trouble();
    }
    described(&life, &path, &query)
}

fn described(life: &Life, path: &std::path::Path, query: &Params) -> Reply {
    let full = info(life, path);
    if truth(query, "full_info", false) { reply::json(&full) } else { reply::json(&full["path"]) }
}

pub(super) async fn delete(State(life): State<App>, Path(file): Path<String>) -> Reply {
    match user_file(&life, &file).map(fs::remove_file) {
        None => reply::empty(StatusCode::FORBIDDEN),
        Some(Ok(())) => reply::empty(StatusCode::NO_CONTENT),
        Some(Err(_)) => reply::empty(StatusCode::NOT_FOUND),
    }
}

pub(super) async fn rename(
    State(life): State<App>,
    Path((file, dest)): Path<(String, String)>,
    Query(query): Query<Params>,
) -> Reply {
    let (Some(from), Some(to)) = (user_file(&life, &file), user_file(&life, &dest)) else {
        return reply::empty(StatusCode::FORBIDDEN);
    };
    if !from.is_file() {
        return reply::empty(StatusCode::NOT_FOUND);
    }
    if to.exists() && !truth(&query, "overwrite", true) {
        return reply::text(StatusCode::CONFLICT, "File already exists");
    }
    let moved = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(&from, &to));
    if moved.is_ok() { described(&life, &to, &query) } else { reply::trouble() }
}
