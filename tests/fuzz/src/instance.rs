//! What an instance sends before anything is understood: heads of answers and websocket frames. Both are read by readers of
//! our own, and each is held to what a well-known library makes of the same bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::pin;

use axum::body::Body;
use bytes::Bytes;
use comfy_router::fleet::{Head, Incoming, Message, Violation};
use hyper::body::Body as _;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error, WebSocket};

/// The longest message, small enough that inputs pass it.
const MAX: usize = 100 << 10;

/// The head of an answer; the first byte says what was asked. What is read here, hyper reads alike.
pub fn head(data: &[u8]) {
    let Some((asked, answer)) = data.split_first() else { return };
    let method = if *asked == b'H' { Method::HEAD } else { Method::GET };
    let answer = Bytes::copy_from_slice(answer);
    let Some(head) = Head::read(&answer, &method) else { return };
    assert!(head.end <= answer.len());
    // Without what follows the body, which has hyper end the connection.
    let end = head.body_bytes.saturating_add(head.end as u64).min(answer.len() as u64);
    let (status, headers, body_bytes) =
        by_hyper(&answer.slice(..end as usize), method).expect("hyper reads what is plain");
    assert_eq!((head.status, Some(head.body_bytes)), (status, body_bytes));
    for name in headers.keys().chain(head.headers.keys()) {
        if !of_the_connection(name.as_str()) {
            let values = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
            assert_eq!(values(&head.headers), values(&headers), "{name}");
        } else {
            assert!(!head.headers.contains_key(name), "{name} goes no further");
        }
    }
}

/// RFC 9110, 7.6.1.
fn of_the_connection(name: &str) -> bool {
    let names =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    names.contains(&name)
}

fn by_hyper(answer: &Bytes, method: Method) -> hyper::Result<(StatusCode, HeaderMap, Option<u64>)> {
    thread_local! {
        static RUNTIME: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    let exchange = async {
        let (mut instance, router) = tokio::io::duplex(answer.len() + 4_096);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(router)).await?;
        let request = Request::builder().method(method).uri("/").body(Body::empty()).expect("a request");
        // An answer that comes before its question is none.
        let answers = async {
            let _ = instance.read(&mut [0; 1_024]).await;
            let _ = instance.write_all(answer).await;
            std::future::pending::<()>().await;
        };
        let mut answered = pin!(sender.send_request(request));
        // It may end together with its answer.
        let response = tokio::select! {
            response = &mut answered => response,
            () = answers => unreachable!("it stays there"),
            _ = connection => answered.await,
        };
        let (head, body) = response?.into_parts();
        Ok((head.status, head.headers, body.size_hint().exact()))
    };
    RUNTIME.with(|runtime| runtime.block_on(exchange))
}

/// A websocket's stream; the first byte says in which pieces it comes. What is read here is what tungstenite reads, and
/// whatever is refused there is refused.
pub fn socket(data: &[u8]) {
    let Some((pieces, stream)) = data.split_first() else { return };
    let ours = read(stream, 1 + usize::from(*pieces) * 37);
    assert_eq!(ours, read(stream, stream.len().max(1)), "it does not matter how it is cut");
    let (messages, violation) = ours;
    let (theirs, error) = by_tungstenite(stream);
    assert!(
        messages.len() >= theirs.len() && messages[..theirs.len()] == theirs,
        "{messages:?}, not {theirs:?}"
    );
    match error {
        // It waits for the rest of a frame whose head is enough to refuse it, or for more.
        None => assert_eq!(messages, theirs),
        // A text is looked at when it is whole, and why an instance closes does not matter.
        Some(Error::Utf8(_)) => {}
        Some(Error::Protocol(ProtocolError::InvalidCloseSequence)) => {
            assert_eq!(messages.last(), Some(&Message::Close));
        }
        Some(error) => {
            assert!(violation.is_some(), "{error} passed");
            assert_eq!(messages, theirs, "{error}");
        }
    }
}

/// Up to the end, a close or a violation.
fn read(stream: &[u8], step: usize) -> (Vec<Message>, Option<Violation>) {
    let mut incoming = Incoming::new(&[], MAX);
    let mut messages = Vec::new();
    for piece in stream.chunks(step) {
        incoming.room().extend_from_slice(piece);
        loop {
            match incoming.take() {
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
                Ok(Some(message)) => messages.push(message),
            }
            if messages.last() == Some(&Message::Close) {
                return (messages, None);
            }
        }
    }
    (messages, None)
}

fn by_tungstenite(stream: &[u8]) -> (Vec<Message>, Option<Error>) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX)).max_frame_size(Some(MAX));
    let mut socket = WebSocket::from_raw_socket(Wire(stream), Role::Client, Some(config));
    let mut messages = Vec::new();
    loop {
        let message = match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Message::Text(text),
            Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes),
            Ok(tungstenite::Message::Ping(bytes)) => Message::Ping(bytes),
            Ok(tungstenite::Message::Pong(_)) => Message::Pong,
            Ok(tungstenite::Message::Close(_)) => Message::Close,
            Ok(tungstenite::Message::Frame(frame)) => unreachable!("{frame} is no message"),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return (messages, None),
            Err(error) => return (messages, Some(error)),
        };
        messages.push(message);
        if messages.last() == Some(&Message::Close) {
            return (messages, None);
        }
    }
}

/// What comes, and then nothing more; what goes is lost.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.is_empty() {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Read::read(&mut self.0, buffer),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
