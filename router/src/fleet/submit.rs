//! `POST /prompt` to an instance, and what became of it.
//!
//! The answer decides whether a job may be sent elsewhere, so it is exact: a prompt is *refused* only when it certainly did
//! not enter the instance's queue, and *unknown* whenever it may have. Each submission has a connection of its own, so that
//! no idle connection can die between the check and the write; a connection costs less than an unknown outcome.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{excerpt, request};
use super::pool::Pool;
use crate::comfy::json;
use crate::model::id::InstanceId;

const MAX_REPLY: usize = 16 << 20;

/// A prompt that is in the instance's queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    pub prompt_id: String,
    /// The instance's own count.
    pub number: f64,
    /// JSON object, of outputs that were left out; `{}` as a rule.
    pub node_errors: String,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// The instance read the prompt and will not have it; another would say the same unless it has other nodes or files.
    #[error("the instance refused the prompt as invalid ({status})")]
    Invalid { status: u16, body: Bytes },
    /// The prompt is certainly not in its queue.
    #[error("the instance did not take the prompt: {0}")]
    Refused(String),
    /// It may be in its queue, running or done.
    #[error("the instance may have taken the prompt: {0}")]
    Unknown(String),
    #[error("there is no instance `{0}`")]
    NoSuchInstance(InstanceId),
}

pub(super) async fn submit(
    pool: &Arc<Pool>,
    body: Bytes,
    patience: Duration,
) -> Result<Submitted, SubmitError> {
    let mut conn = pool.fresh().await.map_err(|error| SubmitError::Refused(error.to_string()))?;
    let request = request(pool, Method::POST, "/prompt", Some(body));
    let answered = async {
        let response = conn.exchange(request).await.map_err(|error| match error.unsent {
            true => SubmitError::Refused(error.to_string()),
            false => SubmitError::Unknown(error.to_string()),
        })?;
        let response = pool.answer(Box::new(conn), response).await;
        let status = response.status();
        let body = Limited::new(Body::new(response.into_body()), MAX_REPLY).collect().await;
        Ok((status, body.map(|body| body.to_bytes()).map_err(|error| error.to_string())))
    };
    match tokio::time::timeout(patience, answered).await {
        Err(_) => Err(SubmitError::Unknown(format!("no answer within {patience:?}"))),
        Ok(Err(error)) => Err(error),
        Ok(Ok((status, body))) => judge(status, body),
    }
}

/// ComfyUI queues a prompt as its last step before a 200, so its own errors, 500 included, come before that. A 502 or 504
/// is a proxy's in between, and says nothing of the instance.
fn judge(status: StatusCode, body: Result<Bytes, String>) -> Result<Submitted, SubmitError> {
    match status.as_u16() {
        200..=299 => {
            let body = body.map_err(|error| SubmitError::Unknown(format!("{status}, then {error}")))?;
            read(&body).ok_or_else(|| SubmitError::Unknown(format!("{status}: {}", excerpt(&body))))
        }
        status @ (400 | 413 | 422) => Err(SubmitError::Invalid { status, body: body.unwrap_or_default() }),
        500 | 501 | 503 | 300..=499 => {
            let body = body.unwrap_or_default();
            Err(SubmitError::Refused(format!("{status}: {}", excerpt(&body))))
        }
        _ => Err(SubmitError::Unknown(format!("{status}: {}", excerpt(&body.unwrap_or_default())))),
    }
}

fn read(body: &[u8]) -> Option<Submitted> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        prompt_id: String,
        #[serde(default)]
        number: f64,
        #[serde(borrow, default)]
        node_errors: Option<&'a RawValue>,
    }
    let text = json::text(body).ok()?;
    let reply: Reply<'_> = serde_json::from_str(&text).ok()?;
    let node_errors = reply.node_errors.map_or("{}", RawValue::get).to_owned();
    Some(Submitted { prompt_id: reply.prompt_id, number: reply.number, node_errors })
}
