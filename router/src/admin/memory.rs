//! What policies remember: to be looked at and put right by hand.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Parts, error, policy, shown};

const LISTED: usize = 1_000;
/// Somewhat more than a value may have, so that the host's own sentence is what is read.
const MAX_VALUE: usize = 128 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    prefix: String,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Life {
    ttl_ms: Option<u32>,
}

/// Every policy that remembers something, in figures.
pub(super) async fn all(State(parts): State<Arc<Parts>>) -> Answer {
    shown(StatusCode::OK, &json!({"policies": parts.policy.held()}))
}

/// `?prefix=...&limit=N`, in order of keys.
pub(super) async fn of(
    State(parts): State<Arc<Parts>>,
    Path(policy): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let most = wanted.limit.unwrap_or(100).clamp(1, LISTED);
    let now = parts.clock.now().wall;
    let entries = parts.policy.remembered(&policy, &wanted.prefix, most, now);
    shown(StatusCode::OK, &json!({"policy": policy, "entries": entries}))
}

/// The body is the value.
pub(super) async fn put(
    State(parts): State<Arc<Parts>>,
    Path((of, key)): Path<(String, String)>,
    Query(life): Query<Life>,
    request: Request<Body>,
) -> Answer {
    let bytes = match policy::read(request, MAX_VALUE).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let Ok(value) = String::from_utf8(bytes.to_vec()) else {
        return error(StatusCode::BAD_REQUEST, "text", "a value is text in UTF-8");
    };
    change(&parts, &of, key, Some(value), life.ttl_ms)
}

pub(super) async fn delete(
    State(parts): State<Arc<Parts>>,
    Path((of, key)): Path<(String, String)>,
) -> Answer {
    change(&parts, &of, key, None, None)
}

pub(super) async fn clear(State(parts): State<Arc<Parts>>, Path(of): Path<String>) -> Answer {
    let forgotten = parts.policy.forget(&of);
    tracing::info!(policy = %of, keys = forgotten, "operator cleared what the policy remembers");
    shown(StatusCode::OK, &json!({"policy": of, "forgotten": forgotten}))
}

fn change(parts: &Parts, of: &str, key: String, value: Option<String>, ttl_ms: Option<u32>) -> Answer {
    let forgets = value.is_none();
    match parts.policy.remember(of, key.clone(), value, ttl_ms, parts.clock.now().wall) {
        Ok(()) => {
            tracing::info!(policy = %of, key, forgets, "operator changed what the policy remembers");
            shown(StatusCode::OK, &json!({"policy": of, "key": key}))
        }
        Err(why) => error(StatusCode::UNPROCESSABLE_ENTITY, "refused", why),
    }
}
