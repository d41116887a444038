//! A stand-in for ComfyUI that pushes: to whoever opens `/stream` (the peers' clients, one socket each), and for every
//! prompt it was given over the one socket that gave it (the router's). Each message says when it was sent and which of
//! its stream it is.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::wire::{self, PREVIEW_BYTES};

type Answer = Response<Full<Bytes>>;
type Sink = mpsc::UnboundedSender<Message>;

/// What each stream carries, a second.
#[derive(Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) events: u32,
    pub(crate) previews: u32,
    /// Of events to everybody, from each instance.
    pub(crate) broadcasts: u32,
}

struct Upstream {
    instance: usize,
    instances: u32,
    rates: Rates,
    sent: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The router's socket.
    router: Option<Sink>,
    running: Vec<Value>,
    streams: Vec<Stream>,
}

struct Stream {
    sink: Sink,
    prompt_id: String,
    rates: Rates,
    events: u64,
    previews: u64,
    broadcasts: u64,
}

pub(crate) fn serve(ports: &[u16], rates: Rates) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let instances = ports.iter().enumerate().map(|(instance, port)| {
            let (sent, state) = (AtomicU64::new(0), Mutex::default());
            let upstream = Arc::new(Upstream { instance, instances: ports.len() as u32, rates, sent, state });
            spawn(push(upstream.clone()));
            accept(upstream, *port)
        });
        futures_util::future::join_all(instances).await;
    });
}

#[allow(clippy::disallowed_methods, reason = "nothing of the router is linked in: that takes a minute")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

async fn accept(upstream: Arc<Upstream>, port: u16) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("binds");
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        stream.set_nodelay(true).expect("a socket option");
        let upstream = upstream.clone();
        let service = service_fn(move |request| {
            let upstream = upstream.clone();
            async move { Ok::<_, Infallible>(upstream.answer(request).await) }
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        spawn(async move { drop(served.await) });
    }
}

/// Streams take turns within their period, so that the load is even.
async fn push(upstream: Arc<Upstream>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let preview = Bytes::from(vec![7; PREVIEW_BYTES]);
    for now in 1_u64.. {
        ticks.tick().await;
        let mut state = upstream.state();
        for (at, stream) in state.streams.iter_mut().enumerate() {
            // How many are due after so many milliseconds, each stream a little later than the one before.
            let due = |rate: u32| (now + at as u64 * 7) * u64::from(rate) / 1_000;
            let (mut sent, rates) = (0, stream.rates);
            while stream.events < due(rates.events) {
                sent += stream.event();
            }
            while stream.previews < due(rates.previews) {
                sent += stream.preview(&preview);
            }
            while stream.broadcasts < due(rates.broadcasts) {
                sent += stream.broadcast(upstream.instance);
            }
            upstream.sent.fetch_add(sent, Ordering::Relaxed);
        }
        state.streams.retain(|stream| !stream.sink.is_closed());
    }
}

impl Stream {
    fn event(&mut self) -> u64 {
        self.events += 1;
        let text = wire::event("progress", &self.prompt_id, self.events);
        u64::from(self.sink.send(Message::text(text)).is_ok())
    }

    fn broadcast(&mut self, instance: usize) -> u64 {
        self.broadcasts += 1;
        let text = wire::event(&format!("bench.{instance}"), "", self.broadcasts);
        u64::from(self.sink.send(Message::text(text)).is_ok())
    }

    fn preview(&mut self, image: &Bytes) -> u64 {
        self.previews += 1;
        let about = json!({ "node_id": "1", "prompt_id": self.prompt_id, "display_node_id": "1",
            "parent_node_id": null, "real_node_id": "1", "image_type": "image/jpeg" });
        let about = about.to_string();
        let mut frame = BytesMut::with_capacity(8 + about.len() + image.len());
        frame.put_u32(4);
        frame.put_u32(about.len() as u32);
        frame.put_slice(about.as_bytes());
        frame.put_u64(wire::now_us());
        frame.put_u64(self.previews);
        frame.put_slice(&image[16..]);
        u64::from(self.sink.send(Message::binary(frame.freeze())).is_ok())
    }
}

impl Upstream {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        match request.uri().path() {
            "/ws" => self.websocket(request, true),
            "/stream" => self.websocket(request, false),
            "/prompt" => self.prompt(request).await,
            "/sent" => text(&json!(self.sent.load(Ordering::Relaxed))),
            "/queue" => text(&json!({ "queue_running": self.state().running, "queue_pending": [] })),
            "/system_stats" => text(&json!({ "system": { "comfyui_version": "0.8.0" }, "devices": [] })),
            "/object_info" => text(&wire::object_info()),
            _ => text(&json!({})),
        }
    }

    /// Taken, and never over: it is a stream from now on.
    async fn prompt(&self, request: Request<Incoming>) -> Answer {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let id = body["prompt_id"].as_str().expect("an id").to_owned();
        let mut state = self.state();
        state.running.push(json!([0, id, {}, {}, []]));
        let number = state.running.len();
        if let Some(sink) = state.router.clone() {
            let start = json!({ "type": "execution_start", "data": { "prompt_id": id, "timestamp": 1 } });
            let _ = sink.send(Message::text(start.to_string()));
            state.streams.push(Stream::new(sink, &id, Rates { broadcasts: 0, ..self.rates }));
        }
        text(&json!({ "prompt_id": id, "number": number, "node_errors": {} }))
    }

    fn websocket(self: &Arc<Self>, mut request: Request<Incoming>, router: bool) -> Answer {
        let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
        let upgrade = hyper::upgrade::on(&mut request);
        let upstream = self.clone();
        spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let (sink, queue) = mpsc::unbounded_channel();
            upstream.joined(sink, router);
            write(socket, queue).await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, accept.unwrap_or_default())
            .body(Full::default())
            .expect("an answer")
    }

    fn joined(&self, sink: Sink, router: bool) {
        let status =
            json!({ "type": "status", "data": { "status": { "exec_info": { "queue_remaining": 0 } } } });
        let _ = sink.send(Message::text(status.to_string()));
        let mut state = self.state();
        if router {
            state.router = Some(sink.clone());
            let rates = Rates { events: 0, previews: 0, ..self.rates };
            state.streams.push(Stream::new(sink, "", rates));
        } else {
            // One socket carries to its client what all instances say.
            let rates = Rates { broadcasts: self.rates.broadcasts * self.instances, ..self.rates };
            state.streams.push(Stream::new(sink, "p", rates));
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn new(sink: Sink, prompt_id: &str, rates: Rates) -> Self {
        Self { sink, prompt_id: prompt_id.to_owned(), rates, events: 0, previews: 0, broadcasts: 0 }
    }
}

async fn write(
    mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut queue: mpsc::UnboundedReceiver<Message>,
) {
    loop {
        tokio::select! {
            message = queue.recv() => {
                let Some(message) = message else { return };
                let mut written = socket.feed(message).await;
                while let Ok(more) = queue.try_recv() {
                    written = written.and(socket.feed(more).await);
                }
                if written.is_err() || socket.flush().await.is_err() {
                    return;
                }
            }
            heard = socket.next() => if !matches!(heard, Some(Ok(_))) { return },
        }
    }
}

fn text(body: &Value) -> Answer {
    let body = Full::new(body.to_string().into());
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).expect("an answer")
}
