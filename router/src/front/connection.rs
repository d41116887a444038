//! One client's connection: a task that ends with it, with the drain, or when the client takes too long over a head.
//!
//! hyper has a timer for heads, which it sets and takes back for each of them. Here a connection has one timer, which looks
//! when it fires since when the client has been waited for.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Front;
use super::listen::Place;
use crate::drain::Watch;
use crate::tasks::{self, OnError};

const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// For what a client still sends when it has its answer: as long as aiohttp reads on.
const LINGER: Duration = Duration::from_secs(10);

/// Serves the requests that come over it.
pub(super) fn serve(
    stream: TcpStream,
    builder: &http1::Builder,
    front: Arc<Front>,
    drain: Watch,
    place: Place,
) {
    // An answer that waits for the rest of a segment costs a client up to 40 ms.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let limits = &front.limits;
    let turn = Turn::new(
        Duration::from_millis(limits.header_timeout_ms),
        Duration::from_millis(limits.idle_timeout_ms),
    );
    let heads = turn.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let ours = heads.ours();
        let answer = front.clone().handle(incoming(request));
        async move { Ok::<_, Infallible>(answer.await.map(|body| Sent { body, _ours: ours })) }
    });
    let served = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tasks::spawn_guarded("client connection", OnError::Log, drain.guard(), async move {
        let _place = place;
        let mut served = pin!(served);
        let ended = match until(served.as_mut(), &drain, &turn).await {
            End::Itself(ended) => ended,
            End::TooSlow => return tracing::debug!("client took too long over the head of a request"),
            End::Drain => {
                served.as_mut().graceful_shutdown();
                tokio::time::timeout(LAST_ANSWERS, served).await.unwrap_or(Ok(()))
            }
        };
        // Broken and malformed connections are the clients' affair.
        if let Err(error) = ended {
            tracing::debug!(error = %error, "client connection ended");
        }
    });
}

/// Most requests have no body, and an empty one needs no allocation.
fn incoming(request: Request<Incoming>) -> Request<Body> {
    if request.body().is_end_stream() {
        return request.map(|_| Body::empty());
    }
    // This client waits for a word before it sends anything.
    let waits = request.headers().contains_key(EXPECT);
    request.map(|body| Body::new(Upload { body: Some(body), sent: !waits }))
}

enum End<T> {
    Itself(T),
    Drain,
    TooSlow,
}

/// What a connection ends with. Signal and timer are polled once, to be woken by them: a task's waker never changes, and
/// asking again at each of a connection's polls costs more than the rest of the loop.
async fn until<F: Future>(mut served: Pin<&mut F>, drain: &Watch, turn: &Turn) -> End<F::Output> {
    let mut signal = pin!(drain.signalled());
    let mut timer = pin!(sleep(turn.patience));
    let mut listening = false;
    poll_fn(|cx| {
        if !listening {
            listening = true;
            let _ = timer.as_mut().poll(cx);
            if signal.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Drain);
            }
        } else if drain.is_draining() {
            return Poll::Ready(End::Drain);
        }
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(End::Itself(ended));
        }
        while timer.is_elapsed() {
            let Some(next) = turn.next_look() else { return Poll::Ready(End::TooSlow) };
            timer.as_mut().reset(next);
            let _ = timer.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

/// Whose turn it is: the client's, to send a head, or ours, to answer.
struct Turn {
    opened: Instant,
    /// With the first head.
    patience: Duration,
    /// With any other, from the end of the answer before it: a client may ask again after a while.
    idle: Duration,
    /// Since when it has been the client's, in milliseconds from `opened`; 0 before its first request, or [`OURS`].
    clients_since: AtomicU64,
}

const OURS: u64 = u64::MAX;

impl Turn {
    fn new(patience: Duration, idle: Duration) -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), patience, idle, clients_since: AtomicU64::new(0) })
    }

    /// Ours, until this is dropped.
    fn ours(self: &Arc<Self>) -> Ours {
        self.clients_since.store(OURS, Ordering::Relaxed);
        Ours(self.clone())
    }

    /// When the client may have been waited for too long; none if it has.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let until = match self.clients_since.load(Ordering::Relaxed) {
            OURS => now + self.patience,
            // Nothing has been asked yet.
            0 => self.opened + self.patience,
            since => self.opened + Duration::from_millis(since) + self.idle,
        };
        (until > now).then_some(until)
    }
}

struct Ours(Arc<Turn>);

impl Drop for Ours {
    fn drop(&mut self) {
        let since = self.0.opened.elapsed().as_millis() as u64;
        self.0.clients_since.store(since.max(1), Ordering::Relaxed);
    }
}

/// The body of an answer. When it has been sent, the client has the next turn.
struct Sent {
    body: Body,
    _ours: Ours,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request. What nobody wants of it is read all the same: were the connection closed over unread bytes, the
/// client would not see its answer.
struct Upload {
    /// None once it has ended.
    body: Option<Incoming>,
    sent: bool,
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut rest) = self.body.take().filter(|rest| self.sent && !rest.is_end_stream()) else {
            return;
        };
        // At the end of the process there is nobody left to read it.
        if tokio::runtime::Handle::try_current().is_ok() {
            tasks::spawn("rest of a request", OnError::Log, async move {
                let to_its_end = async { while let Some(Ok(_)) = rest.frame().await {} };
                let _ = tokio::time::timeout(LINGER, to_its_end).await;
            });
        }
    }
}
