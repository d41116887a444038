//! The policy: what serves, and loading it anew.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use serde_json::json;

use super::{Answer, Parts, error, shown};
use crate::policy::Source;

/// The policy host has its own limit; this one only bounds what is read.
const MAX_COMPONENT: usize = 64 << 20;

pub(super) async fn status(State(parts): State<Arc<Parts>>) -> Answer {
    shown(StatusCode::OK, &parts.policy.status())
}

/// With a body: that component serves from now on. Without: the configured file is read again. Whatever is refused
/// leaves the present policy in charge.
pub(super) async fn reload(State(parts): State<Arc<Parts>>, request: Request<Body>) -> Answer {
    let Ok(body) = Limited::new(request.into_body(), MAX_COMPONENT).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the component is larger than 64 MiB");
    };
    let bytes = body.to_bytes();
    let source = match (&parts.policy_file, bytes.is_empty()) {
        (_, false) => Source::Bytes { name: "upload".to_owned(), bytes: bytes.to_vec() },
        (Some(file), true) => Source::File(file.clone()),
        (None, true) => {
            let message = "no policy file is configured (policy.file); post a component to serve it";
            return error(StatusCode::CONFLICT, "no_file", message);
        }
    };
    match parts.policy.load(source).await {
        Ok(version) => shown(StatusCode::OK, &json!({"serving": version})),
        Err(refused) => error(StatusCode::UNPROCESSABLE_ENTITY, refused.reason(), &refused.to_string()),
    }
}

/// The last decisions with what they were made from, one JSON object a line: what `comfy-router policy replay` reads.
pub(super) async fn recording(State(parts): State<Arc<Parts>>) -> impl axum::response::IntoResponse {
    ([(hyper::header::CONTENT_TYPE, "application/x-ndjson")], parts.policy.recording())
}
