//! The connections to one instance, and the answers that come over them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};

use super::conn::{self, Conn, ConnectError, ExchangeError};
use super::hops;
use super::line::{Heard, Line, Rest};
use super::plain::Plain;
use crate::config::Url;

/// aiohttp closes a connection after 75 s of silence; one that is older than this is not worth the risk.
const MAX_IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nothing of the request was sent.
    #[error("{0}")]
    Unsent(String),
    /// The instance may have received it.
    #[error("{0}")]
    Lost(String),
}

pub(super) struct Pool {
    url: Url,
    host: HeaderValue,
    patience: Duration,
    keep: usize,
    /// The last used is on top: the others grow old and go.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    kept: Kept,
    since: Instant,
}

/// A connection as it was used last. Either kind is made of the other without a word to the instance.
enum Kept {
    Conn(Box<Conn>),
    Line(Line),
}

/// The body of an answer. It owns the connection until it ends, and then gives it back.
pub(super) struct Answer {
    body: Incoming,
    conn: Option<Box<Conn>>,
    pool: Arc<Pool>,
}

impl Pool {
    pub(super) fn new(url: Url, patience: Duration, keep: usize) -> Self {
        // A URL's authority was parsed as one, so it is always a good header.
        let host =
            HeaderValue::try_from(url.authority()).unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self { url, host, patience, keep, idle: Mutex::default() }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// A connection of its own, which is not given back.
    pub(super) async fn fresh(&self) -> Result<Conn, ConnectError> {
        Conn::open(&self.url, self.patience).await
    }

    /// Sends a request over a kept or a new connection. An idle connection that turns out to be dead is replaced, as long as
    /// nothing was sent or sending it twice does no harm.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<Body>,
    ) -> Result<Response<Answer>, SendError> {
        let Some(conn) = self.take_conn().await else { return self.send_fresh(request).await };
        let again = repeatable(&request);
        match self.exchange(conn, request).await {
            Ok(response) => Ok(response),
            Err(ExchangeError { request: Some(request), unsent: true, .. }) => {
                self.send_fresh(*request).await
            }
            Err(error) => match again {
                Some(copy) => self.send_fresh(copy).await,
                None => Err(error.into()),
            },
        }
    }

    async fn send_fresh(self: &Arc<Self>, request: Request<Body>) -> Result<Response<Answer>, SendError> {
        let conn = Box::new(self.fresh().await?);
        Ok(self.exchange(conn, request).await?)
    }

    async fn exchange(
        self: &Arc<Self>,
        mut conn: Box<Conn>,
        request: Request<Body>,
    ) -> Result<Response<Answer>, ExchangeError> {
        let response = conn.exchange(request).await?;
        Ok(self.answer(conn, response).await)
    }

    /// Sends a plain request over a kept or a new connection; over a new one, too, if the kept one breaks.
    pub(super) async fn fetch(self: &Arc<Self>, request: &Plain) -> Result<Response<Body>, SendError> {
        if let Some(mut line) = self.take_line()
            && let Ok(heard) = line.exchange(request).await
            && let Ok(answer) = self.heard(line, heard, request).await
        {
            return Ok(answer);
        }
        let mut line = Line::new(conn::connect(&self.url, self.patience).await?);
        let heard = line.exchange(request).await.map_err(|error| SendError::Lost(error.to_string()))?;
        self.heard(line, heard, request).await
    }

    async fn heard(
        self: &Arc<Self>,
        line: Line,
        heard: Heard,
        request: &Plain,
    ) -> Result<Response<Body>, SendError> {
        let (head, begun) = match heard {
            Heard::Plain(head, begun) => (head, begun),
            Heard::Other(early) => {
                return Box::pin(self.hand_over(line, early, request.method.clone())).await;
            }
        };
        let body = if begun.len() as u64 == head.body_bytes {
            if head.keep {
                self.keep_line(line);
            }
            Body::from(begun)
        } else {
            Body::new(Rest::new(line, begun, &head, self.clone()))
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// Has hyper read the answer to a request that was sent already.
    async fn hand_over(
        self: &Arc<Self>,
        line: Line,
        early: Bytes,
        method: Method,
    ) -> Result<Response<Body>, SendError> {
        let conn = Box::new(Conn::taking_over(line.into_stream(), early).await?);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        let response = self.exchange(conn, request).await?;
        Ok(hops::downstream(response.map(Body::new), false))
    }

    /// Ties an answer to the connection that it is still being read from.
    pub(super) async fn answer(
        self: &Arc<Self>,
        conn: Box<Conn>,
        response: Response<Incoming>,
    ) -> Response<Answer> {
        let mut response = response.map(|body| Answer { body, conn: Some(conn), pool: self.clone() });
        let answer = response.body_mut();
        if answer.body.is_end_stream() {
            std::future::poll_fn(|cx| {
                answer.give_back(cx);
                Poll::Ready(())
            })
            .await;
        }
        response
    }

    /// A kept connection. Whether the instance has closed it will be seen before it is written to.
    fn take(&self) -> Option<Kept> {
        let top = self.lock().pop()?;
        // Those below are older.
        (top.since.elapsed() < MAX_IDLE).then_some(top.kept)
    }

    async fn take_conn(&self) -> Option<Box<Conn>> {
        match self.take()? {
            Kept::Conn(conn) => Some(conn),
            Kept::Line(line) => Some(Box::new(Conn::over(line.into_stream()).await.ok()?)),
        }
    }

    fn take_line(&self) -> Option<Line> {
        match self.take()? {
            Kept::Line(line) => Some(line),
            Kept::Conn(conn) => conn.into_line(),
        }
    }

    /// Closes what is dead or old. Nobody polls idle connections, so nobody else would notice.
    pub(super) fn sweep(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut lives = |kept: &mut Kept| match kept {
            Kept::Conn(conn) => conn.is_free(&mut cx),
            Kept::Line(line) => line.is_quiet(),
        };
        self.lock().retain_mut(|idle| idle.since.elapsed() < MAX_IDLE && lives(&mut idle.kept));
    }

    /// Closes all idle connections.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn keep_conn(&self, conn: Box<Conn>) {
        if !conn.is_taken_over() {
            self.keep(Kept::Conn(conn));
        } else if let Some(line) = conn.into_line() {
            self.keep(Kept::Line(line));
        }
    }

    pub(super) fn keep_line(&self, line: Line) {
        self.keep(Kept::Line(line));
    }

    fn keep(&self, kept: Kept) {
        let mut idle = self.lock();
        if idle.len() < self.keep {
            idle.push(Idle { kept, since: Instant::now() });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn give_back(&mut self, cx: &mut Context<'_>) {
        if let Some(mut conn) = self.conn.take()
            && conn.is_reusable(cx)
        {
            self.pool.keep_conn(conn);
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asking first tells the connection that the body is wanted; driving it then fetches what has arrived.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if let Some(conn) = &mut self.conn {
            conn.drive(cx);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = self.poll_body(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.conn = None,
            Poll::Ready(None) => self.give_back(cx),
            // Whoever reads a body of known length does not ask again after the last of it.
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.give_back(cx),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A copy of a request that may be sent twice: it changes nothing and has no body.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

impl From<ExchangeError> for SendError {
    fn from(error: ExchangeError) -> Self {
        match error.unsent {
            true => Self::Unsent(error.to_string()),
            false => Self::Lost(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("url", &self.url).finish_non_exhaustive()
    }
}
