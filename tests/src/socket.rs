//! One websocket, and what came over it.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

use crate::within;

/// What a server sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Event(Value),
    /// A binary frame: its type, and the rest.
    Binary(u32, Bytes),
    /// The connection is over, with this close code if there was a close frame.
    Closed(Option<u16>),
}

impl Message {
    /// The event's type; `binary N` for a binary frame.
    pub fn kind(&self) -> String {
        match self {
            Self::Event(event) => event["type"].as_str().unwrap_or("?").to_owned(),
            Self::Binary(kind, _) => format!("binary {kind}"),
            Self::Closed(_) => "closed".to_owned(),
        }
    }

    /// The event's data; null for anything else.
    pub fn data(&self) -> &Value {
        match self {
            Self::Event(event) => &event["data"],
            _ => &Value::Null,
        }
    }

    pub fn is_of(&self, prompt_id: &str) -> bool {
        self.data()["prompt_id"] == prompt_id
    }

    /// `executing {node: null}` of this prompt, which is the last that is said of it.
    pub fn ends(&self, prompt_id: &str) -> bool {
        self.kind() == "executing" && self.data()["node"].is_null() && self.is_of(prompt_id)
    }
}

/// An open websocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// # Errors
    /// When the server refuses the connection or the upgrade.
    pub async fn open(base: &str, path: &str) -> anyhow::Result<Self> {
        let authority = base.trim_start_matches("http://");
        let opening = async {
            let stream = TcpStream::connect(authority).await?;
            let (socket, _) = client_async(format!("ws://{authority}{path}"), stream).await?;
            Ok(Self(socket))
        };
        within("the websocket opens", opening).await
    }

    /// One whose owner reads slowly: next to nothing waits on its side of the connection.
    ///
    /// # Errors
    /// When the server refuses the connection or the upgrade.
    pub async fn open_narrow(base: &str, path: &str) -> anyhow::Result<Self> {
        let authority = base.trim_start_matches("http://");
        let opening = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4 << 10)?;
            let stream = socket.connect(authority.parse()?).await?;
            let (socket, _) = client_async(format!("ws://{authority}{path}"), stream).await?;
            Ok(Self(socket))
        };
        within("the websocket opens", opening).await
    }

    /// Says goodbye and waits for the answer; what the server sent before it is lost.
    ///
    /// # Panics
    /// When the server gives no answer.
    pub async fn close(mut self) {
        self.0.close(None).await.expect("the websocket is open");
        let answered = within("an answer to a goodbye", async {
            loop {
                match self.0.next().await {
                    Some(Ok(tungstenite::Message::Close(_))) => return true,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return false,
                }
            }
        });
        assert!(answered.await, "a goodbye is answered");
    }

    pub async fn next(&mut self) -> Message {
        use tungstenite::Message as Frame;
        loop {
            return match self.0.next().await {
                Some(Ok(Frame::Text(text))) => match serde_json::from_str(&text) {
                    Ok(event) => Message::Event(event),
                    Err(_) => Message::Event(Value::String(text.to_string())),
                },
                Some(Ok(Frame::Binary(bytes))) if bytes.len() >= 4 => {
                    let kind = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    Message::Binary(kind, bytes.slice(4..))
                }
                Some(Ok(Frame::Close(frame))) => Message::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => continue,
                None | Some(Err(_)) => Message::Closed(None),
            };
        }
    }

    /// # Panics
    /// When the server has closed it.
    pub async fn send(&mut self, text: &str) {
        self.try_send(text).await.expect("the websocket is open");
    }

    /// # Errors
    /// When the server has closed it.
    pub async fn try_send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.0.send(tungstenite::Message::text(text)).await?)
    }
}
