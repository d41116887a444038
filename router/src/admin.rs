//! The operator's face, on a listener of its own: health, metrics, what the fleet, the jobs and the policy are doing,
//! and the few orders an operator gives.
//!
//! Owns nothing but its listener. It shows what other parts know and passes orders on. Whoever has the admin key is the
//! operator; without one, whoever reaches the address, which only a loopback address may allow.

mod catalogue;
mod door;
mod health;
mod jobs;
mod listen;
mod memory;
mod page;
mod policy;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::middleware;
use axum::routing::{get, post, put};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::clock::Clock;
use crate::config::Secret;
use crate::drain::Watch;
use crate::ledger::LedgerError;
use crate::metrics::Metrics;
use crate::model::decision::Act;
use crate::{fleet, ledger, processes, scheduler, sessions, telemetry};

pub use listen::Listener;

/// What the face shows. The handles are those of the running organs.
#[derive(Clone)]
pub struct Parts {
    pub scheduler: scheduler::Handle,
    pub ledger: ledger::Handle,
    pub fleet: fleet::Handle,
    pub processes: processes::Handle,
    pub policy: crate::policy::Handle,
    pub telemetry: telemetry::Handle,
    pub sessions: sessions::Handle,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
    /// Of the process: readiness ends when it begins.
    pub drain: Watch,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("admin::Parts").finish_non_exhaustive()
    }
}

type Answer = Response<Body>;

/// Answers the operator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin(Router);

impl Admin {
    pub fn new(parts: Parts, key: &Secret) -> Self {
        Self(router(parts, door::Key::of(key)))
    }
}

/// Every route of the operator's face.
fn router(parts: Parts, key: door::Key) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(scrape))
        .route("/api/fleet", get(view::fleet))
        .route("/api/fleet/{instance}/drain", post(drain))
        .route("/api/fleet/{instance}/resume", post(resume))
        .route("/api/catalogue", get(catalogue::catalogue))
        .route("/api/fleet/{instance}/restart", post(restart))
        .route("/api/queue", get(jobs::queue))
        .route("/api/jobs", get(jobs::list))
        .route("/api/jobs/{id}", get(view::job).patch(jobs::change))
        .route("/api/jobs/{id}/cancel", post(jobs::cancel))
        .route("/api/jobs/{id}/explain", get(view::explain))
        .route("/api/decisions", get(decisions))
        .route("/api/policy", get(policy::status))
        .route("/api/policy/reload", post(policy::reload))
        .route("/api/policy/recording", get(policy::recording))
        .route("/api/policy/versions", post(policy::upload))
        .route("/api/policy/rollback", post(policy::roll_back))
        .route("/api/policy/promote", post(policy::promote))
        .route("/api/policy/withdraw", post(policy::withdraw))
        .route("/api/policy/unpin", post(policy::unpin))
        .route("/api/policy/settings", put(policy::resettle))
        .route("/api/policy/state", get(memory::all))
        .route("/api/policy/state/{policy}", get(memory::of).delete(memory::clear))
        .route("/api/policy/state/{policy}/{*key}", put(memory::put).delete(memory::delete))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "not_found", "there is no such page") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "method", "not this method")
        })
        .layer(middleware::from_fn_with_state(key, door::guard))
        .with_state(Arc::new(parts))
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn shown(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", body),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, "encode", &failed.to_string()),
    }
}

fn error(status: StatusCode, kind: &str, message: &str) -> Answer {
    let body = json!({"error": {"type": kind, "message": message}}).to_string();
    answer(status, "application/json", body)
}

fn ledger_error(failed: &LedgerError) -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, failed.kind(), &failed.to_string())
}

fn stopped(failed: scheduler::Stopped) -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "stopped", &failed.to_string())
}

async fn scrape(State(parts): State<Arc<Parts>>) -> Answer {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", parts.metrics.render())
}

async fn drain(State(parts): State<Arc<Parts>>, Path(instance): Path<String>) -> Answer {
    operate(&parts, &instance, Act::Drain).await
}

async fn resume(State(parts): State<Arc<Parts>>, Path(instance): Path<String>) -> Answer {
    operate(&parts, &instance, Act::Resume).await
}

async fn restart(State(parts): State<Arc<Parts>>, Path(instance): Path<String>) -> Answer {
    let unsupervised = |info: &&fleet::InstanceInfo| info.id.as_str() == instance && !info.supervised;
    if parts.fleet.instances().iter().any(|info| unsupervised(&info)) {
        let why = "no `restart` command is configured for this instance";
        return error(StatusCode::CONFLICT, "not_supervised", why);
    }
    operate(&parts, &instance, Act::Restart).await
}

async fn operate(parts: &Parts, name: &str, act: Act) -> Answer {
    let instances = parts.fleet.instances();
    let Some(info) = instances.iter().find(|info| info.id.as_str() == name) else {
        return error(StatusCode::NOT_FOUND, "no_such_instance", "there is no instance of this name");
    };
    match parts.scheduler.operate(info.index as usize, act).await {
        Ok(()) => {
            tracing::info!(instance = %info.id, act = ?act, "operator's order");
            shown(StatusCode::OK, &json!({"instance": info.id, "ordered": act}))
        }
        Err(failed) => stopped(failed),
    }
}

/// The newest decisions, of all jobs.
async fn decisions(State(parts): State<Arc<Parts>>, RawQuery(query): RawQuery) -> Answer {
    let limit = query.as_deref().and_then(|query| query.strip_prefix("limit=")?.parse().ok()).unwrap_or(100);
    match parts.ledger.decisions(limit).await {
        Ok(decisions) => shown(StatusCode::OK, &json!({"decisions": decisions})),
        Err(failed) => ledger_error(&failed),
    }
}
