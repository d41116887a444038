//! Passing a client's request on to an instance, and the answer back: streamed both ways, framing and path untouched.

use axum::body::Body;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use std::io;
use std::sync::Arc;

use super::conn::{ConnectError, Upgraded};
use super::pool::{Pool, SendError};
use crate::tasks::{self, OnError};

/// Why there is no answer to pass back. An answer that breaks off later ends the client's body with an error instead.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("there is no instance `{0}`")]
    NoSuchInstance(crate::model::id::InstanceId),
    #[error("the instance cannot be reached: {0}")]
    Connect(#[source] ConnectError),
    #[error("the instance gave no answer: {0}")]
    Broken(String),
}

pub(super) async fn forward(
    pool: &Arc<Pool>,
    mut request: Request<Body>,
) -> Result<Response<Body>, ForwardError> {
    let tunnel = wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
    upstream(&mut request, pool.host(), tunnel.is_some());
    match tunnel {
        None => Ok(downstream(pool.send(request).await?.map(Body::new), false)),
        Some(client) => upgrade(pool, request, client).await,
    }
}

/// A websocket goes over a connection of its own; bytes are passed only after the instance has agreed.
async fn upgrade(
    pool: &Arc<Pool>,
    request: Request<Body>,
    client: OnUpgrade,
) -> Result<Response<Body>, ForwardError> {
    let mut conn = pool.fresh().await.map_err(ForwardError::Connect)?;
    let answer = conn.exchange(request).await.map_err(|error| ForwardError::Broken(error.to_string()))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(downstream(pool.answer(Box::new(conn), answer).await.map(Body::new), false));
    }
    tasks::spawn("tunnel", OnError::Log, async move {
        let Some(instance) = conn.upgrade().await else { return };
        if let Err(error) = tunnel(client, instance).await {
            tracing::debug!(error = %error, "tunnel ended");
        }
    });
    Ok(downstream(answer.map(|_| Body::empty()), true))
}

async fn tunnel(client: OnUpgrade, instance: Upgraded) -> io::Result<()> {
    let Upgraded { mut stream, early } = instance;
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    client.write_all(&early).await?;
    tokio::io::copy_bidirectional(&mut client, &mut stream).await.map(|_| ())
}

fn upstream(request: &mut Request<Body>, host: &HeaderValue, websocket: bool) {
    // Origin form, byte for byte as the client encoded it: `workflows%2Fa.json` is one segment.
    if request.uri().scheme().is_some()
        && let Some(path) = request.uri().path_and_query()
    {
        *request.uri_mut() = Uri::from(path.clone());
    }
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip(headers, |name| of_the_connection(name) || of_the_front(name));
    if websocket {
        keep_websocket(headers);
    }
    headers.insert(HOST, host.clone());
}

fn downstream(mut response: Response<Body>, websocket: bool) -> Response<Body> {
    strip(response.headers_mut(), of_the_connection);
    if websocket {
        keep_websocket(response.headers_mut());
    }
    response
}

/// What speaks of one connection only (RFC 9110, 7.6.1).
fn of_the_connection(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    )
}

/// ComfyUI compares Origin with Host and refuses what its own page did not send; the front has made that check.
fn of_the_front(name: &str) -> bool {
    matches!(
        name,
        "origin" | "expect" | "sec-fetch-dest" | "sec-fetch-mode" | "sec-fetch-site" | "sec-fetch-user"
    )
}

/// Removes headers, and those that `Connection` names. Few messages have any: one pass over what is there costs less than
/// asking for each.
fn strip(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let mut going: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    if going.contains(&CONNECTION) {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
        // A client must not be able to remove the headers that the request is framed and addressed by.
        going.extend(named.filter(|name: &HeaderName| *name != CONTENT_LENGTH && *name != HOST));
    }
    for name in going {
        headers.remove(name);
    }
}

/// Of an upgrade, only a websocket's is passed on: `h2c` would open a second protocol behind the front's back.
fn keep_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn wants_websocket(request: &Request<Body>) -> bool {
    let says = |name: HeaderName, word: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    request.method() == Method::GET
        && request.headers().contains_key(UPGRADE)
        && says(UPGRADE, "websocket")
        && says(CONNECTION, "upgrade")
}

impl From<SendError> for ForwardError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect(error) => Self::Connect(error),
            SendError::Unsent(what) | SendError::Lost(what) => Self::Broken(what),
        }
    }
}
