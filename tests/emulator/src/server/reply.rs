//! Replies as aiohttp forms them: `json_response`, empty responses without a content type, raised errors as text.

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use crate::pyjson;

pub(super) type Reply = Response<Body>;

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Reply {
    json_with(StatusCode::OK, value)
}

pub(super) fn json_with<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Reply {
    let headers = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, headers, pyjson::dumps(value)).into_response()
}

pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    reply
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

/// An exception that no handler caught.
pub(super) fn trouble() -> Reply {
    let body = "500 Internal Server Error\n\nServer got itself in trouble";
    let mut reply = text(StatusCode::INTERNAL_SERVER_ERROR, body);
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

pub(super) fn too_large(limit: u64) -> Reply {
    text(StatusCode::PAYLOAD_TOO_LARGE, format!("Maximum request body size {limit} exceeded."))
}

/// What the catch-all static route answers: a chunked empty 404 to a GET, 405 to everything else.
pub(super) async fn unknown_path(method: Method) -> Reply {
    if method == Method::GET || method == Method::HEAD {
        let nothing = futures_util::stream::empty::<Result<bytes::Bytes, std::io::Error>>();
        let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
        return (StatusCode::NOT_FOUND, headers, Body::from_stream(nothing)).into_response();
    }
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
    reply
}
