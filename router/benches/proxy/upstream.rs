//! A stand-in for ComfyUI that costs as little as possible: what the router wants to know of an instance, three fixed
//! routes to measure with, and prompts that run for ever.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Answer = Response<Full<Bytes>>;

struct Upstream {
    small: Bytes,
    image: Bytes,
    /// Queue items of the prompts it was given.
    running: Mutex<Vec<Value>>,
}

pub(crate) fn serve(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let filler = "x".repeat(1024 - r#"{"text":""}"#.len());
    let upstream = Arc::new(Upstream {
        small: format!(r#"{{"text":"{filler}"}}"#).into(),
        image: vec![7; 1536 << 10].into(),
        running: Mutex::default(),
    });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("binds");
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("a socket option");
            let upstream = upstream.clone();
            let service = service_fn(move |request| {
                let upstream = upstream.clone();
                async move { Ok::<_, Infallible>(upstream.answer(request).await) }
            });
            let served =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            spawn(async move { drop(served.await) });
        }
    });
}

#[allow(clippy::disallowed_methods, reason = "nothing of the router is linked in: that takes a minute")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

impl Upstream {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/bench/1k") => bytes("application/json", &self.small),
            (&Method::GET, "/bench/image") => bytes("image/png", &self.image),
            (&Method::POST, "/bench/sink") => {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                bytes("application/json", &Bytes::from_static(b"{}"))
            }
            (&Method::GET, "/ws") => websocket(request),
            (&Method::GET, "/system_stats") => text(&system_stats()),
            (&Method::GET, "/object_info") => text(&object_info()),
            (&Method::GET, "/queue") => {
                text(&json!({ "queue_running": *self.running(), "queue_pending": [] }))
            }
            (&Method::POST, "/prompt") => self.prompt(request).await,
            _ => text(&json!({})),
        }
    }

    /// Takes it and never ends it.
    async fn prompt(&self, request: Request<Incoming>) -> Answer {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let id = &body["prompt_id"];
        self.running().push(json!([0, id, {}, {}, []]));
        text(&json!({ "prompt_id": id, "number": 0, "node_errors": {} }))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Value>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(kind: &'static str, body: &Bytes) -> Answer {
    Response::builder().header(CONTENT_TYPE, kind).body(Full::new(body.clone())).expect("an answer")
}

fn text(body: &Value) -> Answer {
    bytes("application/json", &body.to_string().into())
}

fn websocket(mut request: Request<Incoming>) -> Answer {
    let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let upgrade = hyper::upgrade::on(&mut request);
    spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let status =
            json!({ "type": "status", "data": { "status": { "exec_info": { "queue_remaining": 0 } } } });
        let _ = socket.send(Message::text(status.to_string())).await;
        while let Some(Ok(_)) = socket.next().await {}
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept.unwrap_or_default())
        .body(Full::default())
        .expect("an answer")
}

fn system_stats() -> Value {
    json!({
        "system": { "os": "posix", "comfyui_version": "0.8.0", "python_version": "3.12", "argv": ["main.py"] },
        "devices": [{ "name": "cpu", "type": "cpu", "index": null, "vram_total": 8 << 30_u64, "vram_free": 4 << 30_u64 }],
    })
}

/// One class that reads a text and the node before it, and one that saves.
fn object_info() -> Value {
    let class = |name: &str, output: bool| {
        json!({
            "input": { "required": { "text": ["STRING", {}] }, "optional": { "before": ["ANY", {}] } },
            "input_order": { "required": ["text"], "optional": ["before"] },
            "output": ["ANY"], "output_is_list": [false], "output_name": ["ANY"], "name": name,
            "display_name": name, "description": "", "category": "bench", "output_node": output,
        })
    };
    json!({ "Text": class("Text", false), "Save": class("Save", true) })
}
