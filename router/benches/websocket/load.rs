//! The clients: many websockets in one process, which note when what was sent arrives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::upstream::spawn;
use crate::wire;

/// What a load process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Where to connect; clients take turns.
    pub(crate) ports: Vec<u16>,
    pub(crate) path: String,
    pub(crate) clients: usize,
    /// Each client posts a prompt, which is its stream.
    pub(crate) prompts: bool,
    /// The first client reads nothing.
    pub(crate) slow: bool,
    pub(crate) seconds: u64,
    /// Every client waits for a message whose kind begins so before the measurement begins.
    pub(crate) begins_with: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) events: Summary,
    pub(crate) previews: Summary,
    /// Messages between two that arrived, and did not.
    pub(crate) gaps: u64,
    /// Clients that were disconnected.
    pub(crate) lost: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Default)]
struct Notes {
    measuring: bool,
    events: Vec<u32>,
    previews: Vec<u32>,
    gaps: u64,
    lost: u64,
    begun: usize,
}

type Shared = Arc<Mutex<Notes>>;

/// Prints `ready` when every client hears, then `done` and the figures. In between whoever started this looks at `/proc`.
pub(crate) fn run(orders: &Orders) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let notes = Shared::default();
        let slow = if orders.slow { Some(deaf(orders).await) } else { None };
        for at in usize::from(orders.slow)..orders.clients {
            let socket = connect(orders, at).await;
            spawn(listen(socket, notes.clone(), orders.begins_with.clone()));
        }
        let wanted = orders.clients - usize::from(orders.slow);
        while lock(&notes).begun < wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What was late because everybody connected at once is not measured.
        tokio::time::sleep(Duration::from_secs(1)).await;
        lock(&notes).measuring = true;
        println!("ready");
        tokio::time::sleep(Duration::from_secs(orders.seconds)).await;
        lock(&notes).measuring = false;
        println!("done");
        let mut notes = lock(&notes);
        let heard = Heard {
            events: summary(&mut notes.events),
            previews: summary(&mut notes.previews),
            gaps: notes.gaps,
            lost: notes.lost,
        };
        println!("{}", serde_json::to_string(&heard).expect("JSON"));
        drop(slow);
    });
}

fn lock(notes: &Shared) -> std::sync::MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn summary(late_us: &mut [u32]) -> Summary {
    late_us.sort_unstable();
    let at = |share: f64| {
        late_us
            .get((late_us.len().saturating_sub(1) as f64 * share) as usize)
            .map_or(0.0, |us| f64::from(*us) / 1e3)
    };
    Summary { count: late_us.len() as u64, p50_ms: at(0.5), p99_ms: at(0.99) }
}

async fn connect(orders: &Orders, at: usize) -> WebSocketStream<TcpStream> {
    let port = orders.ports[at % orders.ports.len()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    open(orders, at, port, stream).await
}

/// One with next to no buffer, which nobody will read from again.
async fn deaf(orders: &Orders) -> WebSocketStream<TcpStream> {
    let port = orders.ports[0];
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a socket option");
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await.expect("connects");
    open(orders, 0, port, stream).await
}

async fn open(orders: &Orders, at: usize, port: u16, stream: TcpStream) -> WebSocketStream<TcpStream> {
    stream.set_nodelay(true).expect("a socket option");
    let url = format!("ws://127.0.0.1:{port}{}?clientId=bench-{at}", orders.path);
    let (mut socket, _) = client_async(url, stream).await.expect("a websocket");
    let flags = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;
    socket.send(Message::text(flags)).await.expect("sends");
    if orders.prompts {
        post(port, &wire::prompt(&format!("bench-{at}"))).await;
    }
    socket
}

async fn post(port: u16, body: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    let length = body.len();
    let head = format!(
        "POST /prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("HTTP/1.1 200"), "a prompt is taken: {answer}");
}

async fn listen(mut socket: WebSocketStream<TcpStream>, notes: Shared, begins_with: String) {
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut begun = false;
    while let Some(Ok(message)) = socket.next().await {
        let now = wire::now_us();
        let (kind, stamp) = match &message {
            Message::Text(text) => (kind_of(text), wire::stamp_of_event(text)),
            Message::Binary(frame) => ("preview", wire::stamp_of_preview(frame)),
            _ => continue,
        };
        let mut notes = lock(&notes);
        if !begun && kind.starts_with(&begins_with) {
            begun = true;
            notes.begun += 1;
        }
        let Some((sent, number)) = stamp else { continue };
        let before = match last.get_mut(kind) {
            Some(before) => std::mem::replace(before, number),
            None => last.insert(kind.to_owned(), number).unwrap_or(number - 1),
        };
        if notes.measuring {
            notes.gaps += number.saturating_sub(before + 1);
            let late = now.saturating_sub(sent).min(u64::from(u32::MAX)) as u32;
            if kind == "preview" { &mut notes.previews } else { &mut notes.events }.push(late);
        }
    }
    lock(&notes).lost += 1;
}

fn kind_of(text: &str) -> &str {
    let rest = text
        .find(r#""type": ""#)
        .map(|at| &text[at + 9..])
        .or_else(|| Some(&text[text.find(r#""type":""#)? + 8..]));
    rest.and_then(|rest| rest.split('"').next()).unwrap_or_default()
}
