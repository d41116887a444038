//! Passing a client's request on to an instance, and the answer back: streamed both ways, framing and path untouched.

use axum::body::Body;
use hyper::header::{CONNECTION, HeaderName, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::conn::{ConnectError, Upgraded};
use super::hops::{downstream, upstream};
use super::member::Member;
use super::plain::Plain;
use super::pool::{Pool, SendError};
use crate::model::id::InstanceId;
use crate::tasks::{self, OnError};

/// Why there is no answer to pass back. An answer that breaks off later ends the client's body with an error instead.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("there is no instance `{0}`")]
    NoSuchInstance(InstanceId),
    #[error("the instance cannot be reached: {0}")]
    Connect(#[source] ConnectError),
    #[error("the instance gave no answer: {0}")]
    Broken(String),
}

/// A request of the plain kind on its way to an instance: all that is left of it when its head has been read.
#[derive(Debug)]
pub struct Errand {
    member: Arc<Member>,
    plain: Plain,
}

impl Errand {
    /// None if the request is of another kind.
    pub(super) fn new(member: &Arc<Member>, request: &Request<Body>) -> Option<Self> {
        Some(Self { plain: Plain::of(request, member.pool().host())?, member: member.clone() })
    }

    pub fn instance(&self) -> &InstanceId {
        self.member.id()
    }

    /// Runs it; as [`Handle::forward`](super::Handle::forward).
    pub async fn run(&self) -> Result<Response<Body>, ForwardError> {
        let started = Instant::now();
        let answer = self.member.pool().fetch(&self.plain).await;
        let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        self.member.requests().count(status, started.elapsed());
        Ok(answer?)
    }
}

pub(super) async fn forward(
    pool: &Arc<Pool>,
    request: Request<Body>,
) -> Result<Response<Body>, ForwardError> {
    match Plain::of(&request, pool.host()) {
        Some(plain) => Ok(pool.fetch(&plain).await?),
        None => Box::pin(whole(pool, request)).await,
    }
}

/// As [`forward`], a request of any kind.
async fn whole(pool: &Arc<Pool>, mut request: Request<Body>) -> Result<Response<Body>, ForwardError> {
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
