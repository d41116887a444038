//! One HTTP/1.1 connection to an instance, driven by whoever uses it.
//!
//! A connection is no task of its own: the future that waits for its answer also does its reading and writing. That saves
//! two task switches per exchange, hands the body over in the same poll as the head, and, since the socket stays ours, lets
//! us count what was really written to it. Rejected: hyper-util's pooled client, which spawns each connection and cannot
//! tell a request that was never sent from one that was lost.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::line::Line;
use crate::config::Url;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Failed(#[source] io::Error),
}

/// An exchange that failed.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(super) struct ExchangeError {
    source: Broken,
    /// Not a byte of the request was written, so it may be sent again whatever it is.
    pub(super) unsent: bool,
    /// The request, when the connection did not even begin with it.
    pub(super) request: Option<Box<Request<Body>>>,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{}", chain(.0))]
    Http(#[source] hyper::Error),
    #[error("the connection ended before the answer")]
    Ended,
}

pub(super) struct Conn {
    sender: http1::SendRequest<Body>,
    /// None once nothing more can come of it.
    driver: Option<http1::Connection<Wire, Body>>,
    written: Arc<AtomicU64>,
    ended: bool,
    /// Writes nothing.
    taken_over: bool,
}

/// What is left of a connection after a `101`.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    /// Read already, and the first bytes of the new protocol.
    pub(super) early: Bytes,
}

impl Conn {
    pub(super) async fn open(url: &Url, patience: Duration) -> Result<Self, ConnectError> {
        Self::over(connect(url, patience).await?).await
    }

    /// Over a connection that is there.
    pub(super) async fn over(stream: TcpStream) -> Result<Self, ConnectError> {
        Self::with(stream, None).await
    }

    /// Over a connection that a request has been sent over already; `early` is what has been read of its answer. The
    /// next request goes nowhere but into hyper, which then knows what the answer is to.
    pub(super) async fn taking_over(stream: TcpStream, early: Bytes) -> Result<Self, ConnectError> {
        Self::with(stream, Some(Early { bytes: early, waiting: None, due: false })).await
    }

    async fn with(stream: TcpStream, early: Option<Early>) -> Result<Self, ConnectError> {
        let written = Arc::new(AtomicU64::new(0));
        let taken_over = early.is_some();
        let io = Wire { io: TokioIo::new(stream), written: written.clone(), unheard: taken_over, early };
        let handshake = http1::Builder::new().handshake(io).await;
        let (sender, driver) = handshake.map_err(|error| ConnectError::Failed(io::Error::other(error)))?;
        Ok(Self { sender, driver: Some(driver), written, ended: false, taken_over })
    }

    /// Sends a request and waits for the head of its answer. A connection that has died meanwhile is noticed before anything is
    /// written: reading comes first.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let before = self.written();
        let mut answer = pin!(self.sender.try_send_request(request));
        let outcome = poll_fn(|cx| {
            if !self.ended && poll(&mut self.driver, cx) {
                self.ended = true;
            }
            let mut answered = answer.as_mut().poll(cx);
            if answered.is_pending() && self.ended {
                // What the connection never took up comes back when it is gone.
                self.driver = None;
                answered = answer.as_mut().poll(cx);
            }
            answered
        });
        let mut error = match outcome.await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let request = error.take_message().map(Box::new);
        let source = match self.driver {
            Some(_) => Broken::Http(error.into_error()),
            None => Broken::Ended,
        };
        Err(ExchangeError { source, unsent: self.written() == before, request })
    }

    /// Reads and writes what can be read and written now. True while the connection lives.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.ended = self.ended || poll(&mut self.driver, cx);
        !self.ended
    }

    /// Can it take another request, now that an answer has been read to its end? Not if that came before all of the request
    /// was read.
    pub(super) fn is_reusable(&mut self, cx: &mut Context<'_>) -> bool {
        // The poll that read the last of an answer has usually ended the exchange too.
        (!self.ended && self.sender.is_ready()) || self.is_free(cx)
    }

    /// Could it take a request at once? This looks at the socket.
    pub(super) fn is_free(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx) && self.sender.is_ready()
    }

    /// Takes the socket out, once a `101` has ended HTTP on it.
    pub(super) async fn upgrade(mut self) -> Option<Upgraded> {
        poll_fn(|cx| if self.drive(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let parts = self.driver?.into_parts();
        Some(Upgraded { stream: parts.io.io.into_inner(), early: parts.read_buf })
    }

    /// It only read an answer, so that it cannot send a request.
    pub(super) fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// The connection alone, if nothing more is to be read. To be asked only between two requests.
    pub(super) fn into_line(self) -> Option<Line> {
        let parts = self.driver?.into_parts();
        let is_all_read =
            parts.read_buf.is_empty() && parts.io.early.is_none_or(|early| early.bytes.is_empty());
        is_all_read.then(|| Line::new(parts.io.io.into_inner()))
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// True when there is nothing more to do.
fn poll(driver: &mut Option<http1::Connection<Wire, Body>>, cx: &mut Context<'_>) -> bool {
    driver.as_mut().is_none_or(|driver| Pin::new(driver).poll_without_shutdown(cx).is_ready())
}

pub(super) async fn connect(url: &Url, patience: Duration) -> Result<TcpStream, ConnectError> {
    let connecting = TcpStream::connect((url.host(), url.port()));
    let stream = match tokio::time::timeout(patience, connecting).await {
        Err(_) => return Err(ConnectError::Timeout(patience)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ConnectError::Refused);
        }
        Ok(Err(error)) => return Err(ConnectError::Failed(error)),
        Ok(Ok(stream)) => stream,
    };
    // Without it the last part of a body waits for the other side's delayed acknowledgement.
    stream.set_nodelay(true).map_err(ConnectError::Failed)?;
    Ok(stream)
}

/// An error with its causes: hyper says what failed, its source says why.
fn chain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The socket. It counts what the kernel took from us, and lets the instance have the last word: one that has closed may
/// have answered before (it need not read a body that it refuses), and hyper would give up at the write that fails. So
/// whatever cannot be written any more counts as written, and what is read next, an answer or the end, decides.
struct Wire {
    io: TokioIo<TcpStream>,
    written: Arc<AtomicU64>,
    unheard: bool,
    early: Option<Early>,
}

/// Read before hyper came. It is handed out when hyper has written its request: before, it would be an answer to none.
struct Early {
    bytes: Bytes,
    due: bool,
    waiting: Option<Waker>,
}

impl Early {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBufCursor<'_>) -> Poll<()> {
        if !self.due {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let piece = self.bytes.split_to(self.bytes.len().min(buf.remaining()));
        buf.put_slice(&piece);
        Poll::Ready(())
    }
}

impl Wire {
    fn write(
        &mut self,
        length: usize,
        write: impl FnOnce(Pin<&mut TokioIo<TcpStream>>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(early) = &mut self.early {
            early.due = true;
            early.waiting.take().into_iter().for_each(Waker::wake);
        }
        if self.unheard {
            return Poll::Ready(Ok(length));
        }
        match write(Pin::new(&mut self.io)) {
            Poll::Ready(Ok(written)) => {
                self.written.fetch_add(written as u64, Ordering::Relaxed);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) if is_closed(error.kind()) => {
                self.unheard = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

fn is_closed(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(early) = self.early.as_mut().filter(|early| !early.due || !early.bytes.is_empty()) {
            return early.poll_read(cx, &mut buf).map(Ok);
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(buf.len(), |io| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.write(length, |io| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
