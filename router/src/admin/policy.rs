//! The policy: what serves, and every change of it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Parts, error, shown};
use crate::model::decision::PolicyVersion;
use crate::policy::{Order, OrderError, Place, Settings, Source};

/// The policy host has its own limit; this one only bounds what is read.
const MAX_COMPONENT: usize = 64 << 20;
const MAX_SETTINGS: usize = 1 << 20;

/// Which component is meant: that of the policy, or the one that serves an interface such as `housekeeping`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lane {
    lane: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upload {
    lane: Option<String>,
    /// What the policy is called: it remembers under this name.
    name: Option<String>,
    #[serde(default, rename = "as")]
    place: As,
    /// Of the jobs, for a canary.
    share: Option<f64>,
    /// A JSON object; without it the component gets the settings of its place.
    settings: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum As {
    #[default]
    Live,
    Shadow,
    Canary,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Promotion {
    lane: Option<String>,
    /// The beginning of a digest.
    digest: Option<String>,
}

pub(super) async fn status(State(parts): State<Arc<Parts>>) -> Answer {
    shown(StatusCode::OK, &parts.policy.status())
}

/// With a body: that component serves from now on. Without: what is configured, its file read again. Whatever is refused
/// leaves the present policy in charge.
pub(super) async fn reload(State(parts): State<Arc<Parts>>, request: Request<Body>) -> Answer {
    let bytes = match read(request, MAX_COMPONENT).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let loaded = match bytes.is_empty() {
        true => parts.policy.unpin(None).await,
        false => {
            let source = Source::Bytes { name: "upload".to_owned(), bytes: bytes.to_vec() };
            parts.policy.load(source).await.map_err(OrderError::Load)
        }
    };
    match loaded {
        Ok(version) => shown(StatusCode::OK, &json!({"serving": version})),
        refused => done(refused),
    }
}

/// The last decisions with what they were made from, one JSON object a line: what `comfy-router policy replay` reads.
pub(super) async fn recording(State(parts): State<Arc<Parts>>) -> impl axum::response::IntoResponse {
    ([(hyper::header::CONTENT_TYPE, "application/x-ndjson")], parts.policy.recording())
}

/// A component as a new version: live, shadow, or canary for a share of the jobs.
pub(super) async fn upload(
    State(parts): State<Arc<Parts>>,
    Query(wanted): Query<Upload>,
    request: Request<Body>,
) -> Answer {
    let place = match (wanted.place, wanted.share) {
        (As::Live, None) => Place::Live,
        (As::Shadow, None) => Place::Shadow,
        (As::Canary, Some(share)) if share > 0.0 && share < 1.0 => Place::Canary(share),
        (As::Canary, _) => {
            return error(StatusCode::BAD_REQUEST, "share", "a canary needs a share above 0 and below 1");
        }
        _ => return error(StatusCode::BAD_REQUEST, "share", "only a canary has a share"),
    };
    let settings = match wanted.settings.as_deref().map(serde_json::from_str).transpose() {
        Ok(settings) => settings,
        Err(wrong) => {
            return error(StatusCode::BAD_REQUEST, "json", &format!("settings are no JSON object: {wrong}"));
        }
    };
    let bytes = match read(request, MAX_COMPONENT).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let name = wanted.name.filter(|name| !name.is_empty()).unwrap_or_else(|| "upload".to_owned());
    let source = Source::Bytes { name, bytes: bytes.to_vec() };
    done(parts.policy.place(wanted.lane.as_deref(), source, place, settings).await)
}

pub(super) async fn roll_back(State(parts): State<Arc<Parts>>, Query(lane): Query<Lane>) -> Answer {
    done(parts.policy.order(lane.lane.as_deref(), Order::RollBack).await)
}

pub(super) async fn promote(State(parts): State<Arc<Parts>>, Query(wanted): Query<Promotion>) -> Answer {
    done(parts.policy.order(wanted.lane.as_deref(), Order::Promote(wanted.digest)).await)
}

pub(super) async fn withdraw(State(parts): State<Arc<Parts>>, Query(lane): Query<Lane>) -> Answer {
    done(parts.policy.order(lane.lane.as_deref(), Order::Withdraw).await)
}

/// What is configured serves again, and after a restart.
pub(super) async fn unpin(State(parts): State<Arc<Parts>>, Query(lane): Query<Lane>) -> Answer {
    done(parts.policy.unpin(lane.lane.as_deref()).await)
}

/// Other settings for the component that serves, as a JSON object. It judges them before they count.
pub(super) async fn resettle(
    State(parts): State<Arc<Parts>>,
    Query(lane): Query<Lane>,
    request: Request<Body>,
) -> Answer {
    let bytes = match read(request, MAX_SETTINGS).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let settings: Settings = match serde_json::from_slice(&bytes) {
        Ok(settings) => settings,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, "json", &format!("no JSON object: {wrong}")),
    };
    done(parts.policy.resettle(lane.lane.as_deref(), settings).await)
}

pub(super) async fn read(request: Request<Body>, most: usize) -> Result<Bytes, Answer> {
    let too_large =
        |_| error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &format!("it is larger than {most} bytes"));
    Limited::new(request.into_body(), most).collect().await.map(|body| body.to_bytes()).map_err(too_large)
}

fn done(done: Result<PolicyVersion, OrderError>) -> Answer {
    match done {
        Ok(version) => shown(StatusCode::OK, &json!({"version": version})),
        Err(OrderError::Load(refused)) => {
            error(StatusCode::UNPROCESSABLE_ENTITY, refused.reason(), &refused.to_string())
        }
        Err(refused @ OrderError::NoSuchLane(..)) => {
            error(StatusCode::NOT_FOUND, "no_such_lane", &refused.to_string())
        }
        Err(refused @ OrderError::Refused(_)) => error(StatusCode::CONFLICT, "refused", &refused.to_string()),
    }
}
