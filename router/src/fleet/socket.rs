//! A websocket to an instance: the handshake, messages in, and the little that is said to an instance.

mod frames;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Buf, BufMut, BytesMut};
use hyper::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use super::conn::ConnectError;
use super::pool::Pool;
pub use frames::{Incoming, Message, Violation};

/// Results of `SaveImageWebsocket` are whole PNG files in one message.
const MAX_MESSAGE: usize = 64 << 20;
/// An instance that takes no answers to its pings does not make them pile up.
const MAX_OUTGOING: usize = 4 << 10;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Broken(String),
    #[error("the instance answered {0} and not as a websocket")]
    Refused(StatusCode),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("the instance closed the websocket")]
    Closed,
    #[error("the instance sent {0}")]
    Violation(#[from] Violation),
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    incoming: Incoming,
    outgoing: BytesMut,
}

impl Socket {
    pub(super) async fn open(pool: &Pool, path: &str) -> Result<Self, HandshakeError> {
        let key = generate_key();
        let request = Request::get(path)
            .header(HOST, pool.host())
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .body(Body::empty())
            .map_err(|error| HandshakeError::Broken(error.to_string()))?;
        let mut conn = pool.fresh().await?;
        let answer =
            conn.exchange(request).await.map_err(|error| HandshakeError::Broken(error.to_string()))?;
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS
            || accepted.is_none_or(|accept| accept != derive_accept_key(key.as_bytes()).as_str())
        {
            return Err(HandshakeError::Refused(answer.status()));
        }
        let ended = || HandshakeError::Broken("the connection ended after the handshake".into());
        let upgraded = conn.upgrade().await.ok_or_else(ended)?;
        let incoming = Incoming::new(&upgraded.early, MAX_MESSAGE);
        Ok(Self { stream: upgraded.stream, incoming, outgoing: BytesMut::new() })
    }

    /// The next message. Nothing is lost when the wait is given up.
    pub(super) async fn next(&mut self) -> Result<Message, SocketError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.read().await? == 0 {
                return Err(SocketError::Closed);
            }
        }
    }

    /// The next message of those that have been read already. Pings are answered.
    pub(super) fn take(&mut self) -> Result<Option<Message>, Violation> {
        let message = self.incoming.take()?;
        if let Some(Message::Ping(payload)) = &message {
            self.queue(PONG, payload);
        }
        Ok(message)
    }

    pub(super) async fn text(&mut self, text: &str) -> io::Result<()> {
        self.queue(TEXT, text.as_bytes());
        self.flush().await
    }

    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.queue(PING, &[]);
        self.flush().await
    }

    /// Says goodbye and reads until the instance has ended its side.
    pub(super) async fn part(mut self) {
        self.queue(CLOSE, &1_000_u16.to_be_bytes());
        if self.flush().await.is_ok() {
            while self.next().await.is_ok() {}
        }
    }

    /// A whole, masked frame of at most 125 bytes (RFC 6455, 5.2).
    fn queue(&mut self, kind: u8, payload: &[u8]) {
        debug_assert!(payload.len() <= 125, "a short message");
        if self.outgoing.len() > MAX_OUTGOING {
            return;
        }
        let mask: [u8; 4] = *Uuid::new_v4().as_bytes().last_chunk().expect("16 bytes");
        self.outgoing.put_slice(&[kind, 0x80 | payload.len() as u8]);
        self.outgoing.put_slice(&mask);
        self.outgoing.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            // An answer to a ping that cannot be written now is when the socket is woken.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            pin!(self.stream.read_buf(self.incoming.room())).poll(cx)
        })
        .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.outgoing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.outgoing.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
