//! Request bodies: one limit for all of them, JSON whatever the content type says.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::{
    App,
    reply::{self, Reply},
};

/// A whole body within the limit.
pub(super) struct Limit(pub(super) Bytes);

impl FromRequest<App> for Limit {
    type Rejection = Reply;

    async fn from_request(request: Request, life: &App) -> Result<Self, Reply> {
        let limit = life.machine.config.max_upload_size;
        read(request.into_body(), limit).await.map(Self)
    }
}

async fn read(body: Body, limit: u64) -> Result<Bytes, Reply> {
    match Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(reply::too_large(limit)),
        Err(_) => Err(reply::trouble()),
    }
}

/// A body that must be JSON; anything else is the server's trouble.
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = Reply;

    async fn from_request(request: Request, life: &App) -> Result<Self, Reply> {
        let Limit(bytes) = Limit::from_request(request, life).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|_| reply::trouble())
    }
}

/// Python's `int(text)`, as far as it fits; a number too large for that is the largest there is.
pub(super) fn int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.trim_start_matches(['+', '-']);
    let odd = digits.is_empty()
        || text.len() - digits.len() > 1
        || digits.starts_with('_')
        || digits.ends_with('_')
        || digits.contains("__")
        || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    if odd {
        return None;
    }
    let end = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.replace('_', "").parse().unwrap_or(end))
}
