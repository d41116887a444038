//! What the router itself asks of an instance: small requests with bounded answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::AsyncReadExt;

use super::conn::ConnectError;
use super::pool::{Pool, SendError};
use crate::comfy::json;
use crate::model::job::UploadRef;

/// `/object_info` of a large install is about 10 MB, a history entry with its workflow about 1 MB.
const MAX_REPLY: usize = 64 << 20;
const FILE_CHUNK: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("there is no instance `{0}`")]
    NoSuchInstance(crate::model::id::InstanceId),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{path} gave no answer: {what}")]
    Broken { path: String, what: String },
    #[error("{path} gave no answer within {after:?}")]
    Timeout { path: String, after: Duration },
    #[error("{path} answered {status}: {body}")]
    Status { path: String, status: StatusCode, body: String },
    #[error("{path} answered what cannot be read: {what}")]
    Unreadable { path: String, what: String },
    #[error("{path}: {error}")]
    File { path: String, error: std::io::Error },
}

impl CallError {
    /// Nothing listens there: waiting for a second sign would be waste.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Refused))
    }
}

/// The prompt ids in an instance's queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueSnapshot {
    pub running: Vec<String>,
    pub pending: Vec<String>,
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

pub(super) async fn get(pool: &Arc<Pool>, path: &str, patience: Duration) -> Result<Bytes, CallError> {
    call(pool, Method::GET, path, None, patience).await
}

pub(super) async fn post(
    pool: &Arc<Pool>,
    path: &str,
    body: String,
    patience: Duration,
) -> Result<Bytes, CallError> {
    call(pool, Method::POST, path, Some(body.into()), patience).await
}

/// Asks for log lines on the websocket of this sid.
pub(super) async fn subscribe_logs(
    pool: &Arc<Pool>,
    sid: &str,
    enabled: bool,
    patience: Duration,
) -> Result<(), CallError> {
    let body = format!(r#"{{"clientId":{},"enabled":{enabled}}}"#, json::quote(sid));
    call(pool, Method::PATCH, "/internal/logs/subscribe", Some(body.into()), patience).await.map(drop)
}

/// One request and its whole answer; any status but a 2xx is an error.
async fn call(
    pool: &Arc<Pool>,
    method: Method,
    path: &str,
    body: Option<Bytes>,
    patience: Duration,
) -> Result<Bytes, CallError> {
    let request = request(pool, method, path, body);
    let reply = within(path, patience, reply(pool, path, request)).await?;
    expect_success(path, reply)
}

async fn reply(pool: &Arc<Pool>, path: &str, request: Request<Body>) -> Result<Reply, CallError> {
    let response = pool.send(request).await.map_err(|error| match error {
        SendError::Connect(error) => CallError::Connect(error),
        SendError::Unsent(what) | SendError::Lost(what) => broken(path, what),
    })?;
    let (head, body) = response.into_parts();
    let whole = Limited::new(body, MAX_REPLY).collect().await.map_err(|error| broken(path, error))?;
    Ok(Reply { status: head.status, body: whole.to_bytes() })
}

pub(super) fn request(pool: &Pool, method: Method, path: &str, body: Option<Bytes>) -> Request<Body> {
    let json = body.is_some().then_some(HeaderValue::from_static("application/json"));
    let mut request = Request::new(body.map_or_else(Body::empty, Body::from));
    *request.method_mut() = method;
    // Paths are ours, or made of ids that hold no odd characters.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(HOST, pool.host().clone());
    if let Some(json) = json {
        request.headers_mut().insert(CONTENT_TYPE, json);
    }
    request
}

pub(super) async fn within<T>(
    path: &str,
    patience: Duration,
    work: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let timeout = || CallError::Timeout { path: path.into(), after: patience };
    tokio::time::timeout(patience, work).await.map_err(|_| timeout())?
}

/// `GET /queue`. Items are not looked at beyond their ids: they hold whole prompts.
pub(super) async fn queue(pool: &Arc<Pool>, patience: Duration) -> Result<QueueSnapshot, CallError> {
    const PATH: &str = "/queue";
    let body = get(pool, PATH, patience).await?;
    parse_queue(&body).map_err(|what| CallError::Unreadable { path: PATH.into(), what })
}

fn parse_queue(body: &[u8]) -> Result<QueueSnapshot, String> {
    #[derive(Deserialize)]
    struct Queue {
        queue_running: Vec<Item>,
        queue_pending: Vec<Item>,
    }
    struct Item(String);
    impl<'de> Deserialize<'de> for Item {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Parts;
            impl<'de> serde::de::Visitor<'de> for Parts {
                type Value = Item;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("[number, prompt id, …]")
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut parts: A) -> Result<Item, A::Error> {
                    let missing = || serde::de::Error::custom("a queue item has no prompt id");
                    parts.next_element::<IgnoredAny>()?.ok_or_else(missing)?;
                    let id = parts.next_element()?.ok_or_else(missing)?;
                    while parts.next_element::<IgnoredAny>()?.is_some() {}
                    Ok(Item(id))
                }
            }
            deserializer.deserialize_seq(Parts)
        }
    }
    let text = json::text(body).map_err(|error| error.to_string())?;
    let queue: Queue = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let ids = |items: Vec<Item>| items.into_iter().map(|Item(id)| id).collect();
    Ok(QueueSnapshot { running: ids(queue.queue_running), pending: ids(queue.queue_pending) })
}

/// `GET /history/{id}`: the entry as JSON text, or none while the instance has not finished it or does not know it.
pub(super) async fn history(
    pool: &Arc<Pool>,
    id: &str,
    patience: Duration,
) -> Result<Option<String>, CallError> {
    let path = format!("/history/{id}");
    let body = get(pool, &path, patience).await?;
    let unreadable = |what: String| CallError::Unreadable { path: path.clone(), what };
    let text = json::text(&body).map_err(|error| unreadable(error.to_string()))?;
    let entries: json::Members<'_> =
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    Ok(entries.get(id).map(|entry| entry.get().to_owned()))
}

/// `POST /upload/image`, streamed from a file, under exactly the name that is asked for.
pub(super) async fn upload(
    pool: &Arc<Pool>,
    file: &UploadRef,
    source: &Path,
    patience: Duration,
) -> Result<(), CallError> {
    form(pool, "/upload/image", (file, &[]), source, patience).await
}

/// `POST /upload/mask`: the picture that `original_ref` names gets the transparency of the mask.
pub(super) async fn upload_mask(
    pool: &Arc<Pool>,
    file: &UploadRef,
    mask: &Path,
    original_ref: &str,
    patience: Duration,
) -> Result<(), CallError> {
    form(pool, "/upload/mask", (file, &[("original_ref", original_ref)]), mask, patience).await
}

async fn form(
    pool: &Arc<Pool>,
    path: &'static str,
    (file, fields): (&UploadRef, &[(&str, &str)]),
    source: &Path,
    patience: Duration,
) -> Result<(), CallError> {
    let failed = |error| CallError::File { path: source.display().to_string(), error };
    let opened = tokio::fs::File::open(source).await.map_err(failed)?;
    let length = opened.metadata().await.map_err(failed)?.len();
    let boundary = format!("comfy-router-{}", uuid::Uuid::new_v4().simple());
    let (head, tail) = multipart(&boundary, file, fields);
    let total = head.len() as u64 + length + tail.len() as u64;

    let body = Body::from_stream(parts(head, opened, tail));
    let mut request = request(pool, Method::POST, path, None).map(|_| body);
    let kind = format!("multipart/form-data; boundary={boundary}");
    let kind = HeaderValue::try_from(kind).map_err(|error| broken(path, error))?;
    request.headers_mut().insert(CONTENT_TYPE, kind);
    request.headers_mut().insert(CONTENT_LENGTH, total.into());

    let reply = within(path, patience, reply(pool, path, request)).await?;
    let body = expect_success(path, reply)?;
    let unreadable = |what: String| CallError::Unreadable { path: path.into(), what };
    #[derive(Deserialize)]
    struct Stored {
        name: String,
    }
    let stored: Stored = json::parse(&body).map_err(|error| unreadable(error.to_string()))?;
    match stored.name == file.name {
        true => Ok(()),
        false => Err(unreadable(format!("`{}` was stored as `{}`", file.name, stored.name))),
    }
}

fn multipart(boundary: &str, file: &UploadRef, fields: &[(&str, &str)]) -> (Bytes, Bytes) {
    let mut head = String::new();
    let place = [("type", file.kind.as_str()), ("subfolder", &file.subfolder), ("overwrite", "true")];
    for (name, value) in place.iter().chain(fields) {
        head +=
            &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    let name = quoted(&file.name);
    head +=
        &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n");
    head += "Content-Type: application/octet-stream\r\n\r\n";
    (head.into(), format!("\r\n--{boundary}--\r\n").into())
}

/// For a quoted string in a header. A line break could begin a header of its own, so it becomes a space.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted
}

/// The head, the file, the tail.
fn parts(
    head: Bytes,
    file: tokio::fs::File,
    tail: Bytes,
) -> impl stream::Stream<Item = std::io::Result<Bytes>> {
    enum Next {
        Head(Bytes, tokio::fs::File, Bytes),
        File(tokio::fs::File, Bytes),
        End,
    }
    stream::try_unfold(Next::Head(head, file, tail), |next| async move {
        match next {
            Next::Head(head, file, tail) => Ok(Some((head, Next::File(file, tail)))),
            Next::File(mut file, tail) => {
                let mut chunk = BytesMut::with_capacity(FILE_CHUNK);
                match file.read_buf(&mut chunk).await? {
                    0 => Ok(Some((tail, Next::End))),
                    _ => Ok(Some((chunk.freeze(), Next::File(file, tail)))),
                }
            }
            Next::End => Ok(None),
        }
    })
}

fn expect_success(path: &str, reply: Reply) -> Result<Bytes, CallError> {
    match reply.status.is_success() {
        true => Ok(reply.body),
        false => {
            Err(CallError::Status { path: path.into(), status: reply.status, body: excerpt(&reply.body) })
        }
    }
}

/// The beginning of an answer, for a log line.
pub(super) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(512)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn broken(path: &str, what: impl ToString) -> CallError {
    CallError::Broken { path: path.into(), what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_read_by_its_ids() {
        let body = br#"{"queue_running": [[3, "a", {"1": {"inputs": {"x": NaN}}}, {}, ["9"]]],
            "queue_pending": [[4.5, "b", {}, {}, [], {"auth": "x"}], [-1, "c"]]}"#;
        let expected = QueueSnapshot { running: vec!["a".into()], pending: vec!["b".into(), "c".into()] };
        assert_eq!(parse_queue(body), Ok(expected));
        for wrong in [&b"{}"[..], b"[]", br#"{"queue_running":[[1]],"queue_pending":[]}"#, b"\xff"] {
            assert!(parse_queue(wrong).is_err());
        }
    }

    #[test]
    fn a_hostile_name_cannot_leave_its_quotes() {
        let file = UploadRef {
            kind: "input".into(),
            subfolder: String::new(),
            name: "a\"\r\nContent-Type: x\\".into(),
        };
        let (head, _) = multipart("b", &file, &[]);
        let head = String::from_utf8(head.to_vec()).unwrap();
        assert!(head.contains("filename=\"a\\\"  Content-Type: x\\\\\"\r\n"), "{head}");
    }
}
