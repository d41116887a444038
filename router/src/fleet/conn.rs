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
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Url;

/// hyper's own bound is 417 KiB a connection: with 32 images of 1.5 MiB under way that was 60 MiB of memory, and no faster.
const MAX_READ: usize = 128 << 10;

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
    driver: http1::Connection<Counted, Body>,
    written: Arc<AtomicU64>,
    ended: bool,
}

/// What is left of a connection after a `101`.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    /// Read already, and the first bytes of the new protocol.
    pub(super) early: Bytes,
}

impl Conn {
    pub(super) async fn open(url: &Url, patience: Duration) -> Result<Self, ConnectError> {
        let stream = connect(url, patience).await?;
        let written = Arc::new(AtomicU64::new(0));
        let io = Counted { io: TokioIo::new(stream), written: written.clone() };
        let handshake = http1::Builder::new().max_buf_size(MAX_READ).handshake(io).await;
        let (sender, driver) = handshake.map_err(|error| ConnectError::Failed(io::Error::other(error)))?;
        Ok(Self { sender, driver, written, ended: false })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let before = self.written();
        let mut answer = pin!(self.sender.try_send_request(request));
        let outcome = poll_fn(|cx| {
            let ended = self.ended || Pin::new(&mut self.driver).poll_without_shutdown(cx).is_ready();
            self.ended = ended;
            match answer.as_mut().poll(cx) {
                Poll::Pending if ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
            }
        });
        let (source, request) = match outcome.await {
            Some(Ok(response)) => return Ok(response),
            Some(Err(mut error)) => {
                let request = error.take_message().map(Box::new);
                (Broken::Http(error.into_error()), request)
            }
            None => (Broken::Ended, None),
        };
        Err(ExchangeError { source, unsent: self.written() == before, request })
    }

    /// Reads and writes what can be read and written now. True while the connection lives.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.ended = self.ended || Pin::new(&mut self.driver).poll_without_shutdown(cx).is_ready();
        !self.ended
    }

    /// Can it take a request at once?
    pub(super) fn is_free(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx) && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Takes the socket out, once a `101` has ended HTTP on it.
    pub(super) async fn upgrade(mut self) -> Upgraded {
        poll_fn(|cx| if self.drive(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let parts = self.driver.into_parts();
        Upgraded { stream: parts.io.io.into_inner(), early: parts.read_buf }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
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

/// A socket that counts what the kernel took from us.
struct Counted {
    io: TokioIo<TcpStream>,
    written: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = outcome {
            self.written.fetch_add(written as u64, Ordering::Relaxed);
        }
        outcome
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(outcome)
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
