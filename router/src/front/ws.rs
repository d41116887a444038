//! A client's websocket: its session's outbox on one side, the connection on the other.

mod batch;
mod line;
mod order;
mod receipt;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Ws};

use super::answer::{self, Answered};
use super::{Call, Front, body};
use crate::comfy::{frame, json};
use crate::metrics;
use crate::sessions::{Closed, Connection, Message};
use crate::tasks::{self, OnError};
use line::{End, Line};
use order::Order;
use receipt::Receipts;

/// How long a client may take to accept the end of its connection.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a preview waits for the `progress` that goes before it.
const LINGER: Duration = Duration::from_millis(20);
/// Clients say little; each of a thousand idle ones holds this much.
const READ_BUFFER: usize = 2 << 10;

type Socket = WebSocketStream<End>;

impl Front {
    pub(super) fn websocket(self: Arc<Self>, mut call: Call) -> Answered {
        let Some(accept) = accept_key(call.request.headers()) else {
            return Ok(answer::text(
                StatusCode::BAD_REQUEST,
                "this is a websocket: No WebSocket UPGRADE hdr",
            ));
        };
        let query = call.query();
        let connected = self.parts.sessions.connect(body::value(&query, "clientId"), &call.caller.tenant);
        let connection = match connected {
            Ok(connection) => connection,
            Err(full) => return Ok(answer::text(StatusCode::SERVICE_UNAVAILABLE, &full.to_string())),
        };
        let upgrade = hyper::upgrade::on(&mut call.request);
        let front = self.clone();
        tasks::spawn("client websocket", OnError::Log, async move { front.serve(upgrade, connection).await });
        let mut answer = answer::status(StatusCode::SWITCHING_PROTOCOLS);
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        Ok(answer)
    }

    async fn serve(&self, upgrade: OnUpgrade, mut connection: Connection) {
        let Some((stream, early)) = taken_over(upgrade).await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(self.limits.ws_message_bytes))
            .max_frame_size(Some(self.limits.ws_message_bytes));
        let line = Arc::new(Line::new(stream));
        let mut socket =
            WebSocketStream::from_partially_read(End(line.clone()), early, Role::Server, Some(config)).await;
        tracing::debug!(client = %connection.sid, "client connected");
        let ended = self.converse(&mut socket, &line, &connection).await;
        connection.outbox.shut();
        let (reason, code) = match ended {
            Ended::Left => {
                connection.closed_well();
                // Many clients wait for the answer to their goodbye.
                let _ = tokio::time::timeout(GOODBYE, socket.flush()).await;
                return;
            }
            Ended::Broken(error) => {
                tracing::debug!(client = %connection.sid, error = %error, "client connection broke");
                return;
            }
            Ended::Stuck => ("slow", None),
            Ended::Closed(Closed::Slow) => ("slow", Some(CloseCode::Again)),
            Ended::Closed(Closed::Shutdown) => ("draining", Some(CloseCode::Away)),
            Ended::TooBig => ("protocol", Some(CloseCode::Size)),
        };
        metrics::client_closed(reason);
        tracing::info!(client = %connection.sid, reason, "client is disconnected");
        if let Some(code) = code {
            let bye = CloseFrame { code, reason: reason.into() };
            let _ = tokio::time::timeout(GOODBYE, socket.close(Some(bye))).await;
        }
    }

    async fn converse(&self, socket: &mut Socket, line: &Arc<Line>, connection: &Connection) -> Ended {
        let mut flags = Flags::default();
        let (mut waiting, mut order, mut receipts) = (Vec::new(), Order::default(), Receipts::new());
        let mut open = false;
        loop {
            if flags.preview_metadata && !open && !order.holds_one() {
                open = true;
                connection.outbox.open(line.clone());
            }
            let mut closed = None;
            tokio::select! {
                taken = connection.outbox.take(&mut waiting) => match taken {
                    Ok(()) if flags.preview_metadata => {}
                    Ok(()) => order.arrange(&mut waiting),
                    Err(why) => {
                        order.release(&mut waiting);
                        closed = Some(why);
                    }
                },
                // Within a block: a timer costs something even where nobody waits for it.
                () = async { tokio::time::sleep(LINGER).await }, if order.holds_one() => {
                    order.release(&mut waiting);
                }
                heard = socket.next() => match heard {
                    Some(Ok(Ws::Text(text))) => if flags.hear(text.as_str()) {
                        let reply = frame::feature_flags(&Box::pin(self.features()).await);
                        connection.outbox.push(Message::passing(reply));
                    },
                    Some(Ok(Ws::Pong(receipt))) => if let Some(moment) = receipts.read(&receipt) {
                        connection.has_got_until(moment);
                    },
                    // Pings are answered by the library; ComfyUI ignores whatever else a client says.
                    Some(Ok(Ws::Close(_))) => return Ended::Left,
                    Some(Ok(_)) => {}
                    Some(Err(tungstenite::Error::Capacity(_))) => return Ended::TooBig,
                    Some(Err(error)) => return Ended::Broken(error),
                    None => return Ended::Broken(tungstenite::Error::ConnectionClosed),
                },
            }
            if closed.is_none() && waiting.iter().any(Message::is_news) {
                self.answering.settled(connection.client()).await;
            }
            receipts.note(&waiting);
            line.add(waiting.drain(..), flags.preview_metadata);
            if let Err(ended) = deliver(line, connection).await {
                return ended;
            }
            if let Some(receipt) = receipts.wanted(connection.outbox.emptied())
                && let Err(error) = socket.send(Ws::Ping(receipt)).await
            {
                return Ended::Broken(error);
            }
            if let Some(why) = closed {
                return Ended::Closed(why);
            }
        }
    }
}

#[derive(Debug)]
enum Ended {
    /// The client said goodbye.
    Left,
    Broken(tungstenite::Error),
    Closed(Closed),
    /// It does not even read the frame that is on its way.
    Stuck,
    TooBig,
}

/// What the client's first JSON message said; nothing later counts, as in ComfyUI.
#[derive(Debug, Default)]
struct Flags {
    heard: bool,
    preview_metadata: bool,
}

impl Flags {
    /// True if the message is the one to be answered with the router's own flags.
    fn hear(&mut self, text: &str) -> bool {
        if self.heard {
            return false;
        }
        let Ok(Value::Object(message)) = json::parse::<Value>(text.as_bytes()) else { return false };
        self.heard = true;
        if message.get("type").and_then(Value::as_str) != Some("feature_flags") {
            return false;
        }
        let flag = message.get("data").and_then(|data| data.get("supports_preview_metadata"));
        self.preview_metadata = flag == Some(&Value::Bool(true));
        true
    }
}

/// The connection once the handshake is answered, and what the client has said since. hyper's buffer goes.
async fn taken_over(upgrade: OnUpgrade) -> Option<(TcpStream, Vec<u8>)> {
    let Parts { io, read_buf, .. } = upgrade.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((io.into_inner(), read_buf.to_vec()))
}

/// Writes what waits. A client that stops reading is given up soon after its outbox overflows: what is half written must
/// be whole before anything else can be said.
async fn deliver(line: &Line, connection: &Connection) -> Result<(), Ended> {
    let mut write = pin!(line.flush());
    let written = tokio::select! {
        biased;
        written = &mut write => written,
        () = connection.outbox.overflowed() => {
            tokio::time::timeout(GOODBYE, write).await.map_err(|_| Ended::Stuck)?
        }
    };
    written.map_err(|error| Ended::Broken(error.into()))
}

/// The handshake's answer; none if this is no websocket handshake of version 13.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name, word: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let asked =
        says(UPGRADE, "websocket") && says(CONNECTION, "upgrade") && says(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| asked && key.len() <= 64)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(messages: &[&str]) -> (Vec<bool>, bool) {
        let mut flags = Flags::default();
        let replies = messages.iter().map(|message| flags.hear(message)).collect();
        (replies, flags.preview_metadata)
    }

    #[test]
    fn only_the_first_json_message_sets_flags() {
        let yes = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;
        assert_eq!(heard(&[yes]), (vec![true], true));
        assert_eq!(heard(&["not json", yes]), (vec![false, true], true));
        assert_eq!(heard(&[r#"{"type":"other"}"#, yes]), (vec![false, false], false));
        assert_eq!(heard(&[&yes.replace("true", "1")]), (vec![true], false));
        assert_eq!(heard(&[r#"{"type":"feature_flags","data":7}"#, yes]), (vec![true, false], false));
        assert_eq!(heard(&[&yes.replace("true", "true, \"x\": NaN")]), (vec![true], true));
        assert_eq!(heard(&["7", "[]", yes]), (vec![false, false, true], true), "they make ComfyUI stumble");
        assert_eq!(heard(&[&"[".repeat(100_000)]), (vec![false], false));
    }

    #[test]
    fn only_a_real_handshake_is_accepted() {
        let mut headers = HeaderMap::new();
        assert_eq!(accept_key(&headers), None);
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(accept_key(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert("sec-websocket-version", "8".parse().unwrap());
        assert_eq!(accept_key(&headers), None);
    }
}
