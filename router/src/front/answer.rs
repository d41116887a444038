//! The router's own answers, in ComfyUI's manner; the one place where errors of the parts become replies.

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::assets::FetchError;
use crate::comfy::{PromptError, errors};
use crate::fleet::ForwardError;
use crate::ledger::LedgerError;
use crate::metrics;
use crate::model::id::InstanceId;
use crate::scheduler::input::Refusal;
use crate::scheduler::{Stopped, SubmitError};

pub(super) type Answer = Response<Body>;

/// Seconds after which a client may find an instance or a restarted router.
const SOON: u32 = 5;

/// An empty body without a type, as ComfyUI answers commands.
pub(super) fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

pub(super) fn ok() -> Answer {
    status(StatusCode::OK)
}

fn with_type(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let body: Bytes = body.into();
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(super) fn json_text(body: impl Into<Bytes>) -> Answer {
    with_type(StatusCode::OK, "application/json; charset=utf-8", body)
}

pub(super) fn json_value(code: StatusCode, body: &Value) -> Answer {
    with_type(code, "application/json; charset=utf-8", body.to_string())
}

pub(super) fn text(code: StatusCode, body: &str) -> Answer {
    with_type(code, "text/plain; charset=utf-8", body.to_owned())
}

/// aiohttp's words. The rest of the body stays unread, so the connection serves no other request.
pub(super) fn too_large(limit: u64) -> Answer {
    last(text(StatusCode::PAYLOAD_TOO_LARGE, &format!("Maximum request body size {limit} exceeded.")))
}

/// The last answer on its connection.
pub(super) fn last(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A prompt that cannot run: 400 in ComfyUI's shape.
pub(super) fn refused(error: &PromptError) -> Answer {
    with_type(StatusCode::BAD_REQUEST, "application/json; charset=utf-8", error.body())
}

/// `{"error": {...}, "node_errors": {}}` with another status.
fn error(code: StatusCode, kind: &str, message: &str, details: &str) -> Answer {
    let body = errors::body(kind, message, details, json!({}));
    with_type(code, "application/json; charset=utf-8", body)
}

fn later(mut answer: Answer, seconds: u32) -> Answer {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// No instance is up, or none has ever been.
pub(super) fn no_instance() -> Answer {
    let message = "No ComfyUI instance is reachable";
    let details = "the router is running, but none of its instances answers";
    later(error(StatusCode::SERVICE_UNAVAILABLE, "no_instance", message, details), SOON)
}

/// A file that a prompt reads is on one instance, and could not be taken from there.
pub(super) fn not_gathered(file: &str, failed: &FetchError) -> Answer {
    let message = format!("The file {} could not be taken from its instance", errors::clip(file, 200));
    later(error(StatusCode::SERVICE_UNAVAILABLE, "input_unavailable", &message, &failed.to_string()), SOON)
}

/// The instance that has what is asked for is down.
pub(super) fn instance_down(instance: &InstanceId) -> Answer {
    let message = format!("ComfyUI instance {instance}, which has the file, is down");
    later(
        error(StatusCode::SERVICE_UNAVAILABLE, "instance_down", &message, "outputs.keep copies results"),
        SOON,
    )
}

/// The instance did not answer.
pub(super) fn unreachable(instance: &InstanceId, failed: &ForwardError) -> Answer {
    tracing::warn!(instance = %instance, error = %failed, "request could not be passed on");
    let message = format!("ComfyUI instance {instance} did not answer");
    error(StatusCode::BAD_GATEWAY, "instance_unreachable", &message, &failed.to_string())
}

pub(super) fn not_submitted(failed: &SubmitError) -> Answer {
    let refusal = match failed {
        SubmitError::Refused(refusal) => refusal,
        SubmitError::Stopped(stopped) => return stopped_answer(*stopped),
    };
    let message = refusal.to_string();
    let (word, kind, code, retry) = match refusal {
        Refusal::QueueFull { .. } => ("full", "queue_full", 429, Some(30)),
        Refusal::TenantFull { .. } => ("full", "tenant_queue_full", 429, Some(30)),
        Refusal::IdTaken => {
            metrics::job_refused("invalid");
            return json_value(StatusCode::CONFLICT, &json!({"error": message}));
        }
        Refusal::KeyReused => ("invalid", "idempotency_key_reused", 422, None),
        Refusal::Policy { status, retry_after_s, .. } => {
            ("policy", "rejected_by_policy", *status, *retry_after_s)
        }
        Refusal::Draining => ("draining", "draining", 503, Some(SOON)),
        Refusal::Storage { full, .. } => ("ledger", "not_stored", if *full { 507 } else { 503 }, Some(SOON)),
    };
    metrics::job_refused(word);
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::FORBIDDEN);
    let answer = error(code, kind, &message, "");
    match retry {
        Some(seconds) => later(answer, seconds),
        None => answer,
    }
}

pub(super) fn stopped_answer(stopped: Stopped) -> Answer {
    later(error(StatusCode::SERVICE_UNAVAILABLE, "stopping", &stopped.to_string(), ""), SOON)
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        Self(stopped_answer(stopped))
    }
}

impl From<LedgerError> for Failed {
    fn from(failed: LedgerError) -> Self {
        tracing::error!(error = %failed, "the ledger could not answer a client");
        let message = "The job history cannot be read or changed";
        Self(error(StatusCode::SERVICE_UNAVAILABLE, "ledger", message, failed.kind()))
    }
}

impl From<Answer> for Failed {
    fn from(answer: Answer) -> Self {
        Self(answer)
    }
}

impl From<Failed> for Answer {
    fn from(failed: Failed) -> Self {
        failed.0
    }
}

/// An answer that is an error, so that handlers can use `?`.
#[derive(Debug)]
pub(super) struct Failed(pub(super) Answer);

pub(super) type Answered = Result<Answer, Failed>;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn refusals_have_their_status_and_say_when_to_come_again() {
        let cases = [
            (Refusal::QueueFull { queued: 5, limit: 5 }, 429, true),
            (Refusal::Draining, 503, true),
            (Refusal::Storage { full: true, reason: "disk".into() }, 507, true),
            (
                Refusal::Policy { status: 403, retry_after_s: None, reason: "no batch at night".into() },
                403,
                false,
            ),
            (Refusal::IdTaken, 409, false),
        ];
        for (refusal, code, retry) in cases {
            let answer = not_submitted(&SubmitError::Refused(refusal));
            assert_eq!((answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER)), (code, retry));
        }
        let policy = Refusal::Policy { status: 403, retry_after_s: None, reason: "no batch at night".into() };
        let said = body(not_submitted(&SubmitError::Refused(policy))).await;
        assert!(said.contains("no batch at night"), "{said}");
        assert_eq!(
            body(not_submitted(&SubmitError::Refused(Refusal::IdTaken))).await,
            r#"{"error":"prompt_id already exists"}"#
        );
    }

    #[tokio::test]
    async fn an_instance_that_fails_is_named() {
        let gpu0 = InstanceId::from("gpu0");
        let answer = unreachable(&gpu0, &ForwardError::Broken("connection reset".into()));
        assert_eq!(answer.status(), 502);
        let said = body(answer).await;
        assert!(said.contains("gpu0") && said.contains("connection reset"), "{said}");
    }
}
