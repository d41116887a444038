//! A plain ComfyUI client for tests: HTTP answers as they are, websocket frames with a generous deadline.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ascii"))
    }
}

impl Http {
    pub(crate) fn new(base: &str) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), base: base.to_owned() }
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let call = async {
            let response = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(DEADLINE, call).await.map_err(|_| "deadline".to_owned())?
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.try_send(method, path, &[], body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await
    }

    /// Posts a prompt that must be accepted; gives its id.
    pub(crate) async fn prompt(&self, prompt: &Value, client_id: Option<&str>) -> String {
        let mut body = json!({ "prompt": prompt });
        if let Some(client_id) = client_id {
            body["client_id"] = json!(client_id);
        }
        let answer = self.post("/prompt", &body).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["prompt_id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn upload(
        &self,
        path: &str,
        file_name: &str,
        content: &[u8],
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut body = Vec::new();
        for (name, value) in fields {
            body.extend(
                format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                    .bytes(),
            );
        }
        let disposition = format!("Content-Disposition: form-data; name=\"image\"; filename=\"{file_name}\"");
        body.extend(format!("--xyz\r\n{disposition}\r\nContent-Type: image/png\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--xyz--\r\n");
        let headers = [("content-type", "multipart/form-data; boundary=xyz")];
        self.try_send(Method::POST, path, &headers, body).await.expect("an answer")
    }

    pub(crate) async fn history(&self, prompt_id: &str) -> Value {
        self.get(&format!("/history/{prompt_id}")).await.json()[prompt_id].clone()
    }
}

pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    pub(crate) read: u64,
    seen: VecDeque<Value>,
}

/// A binary frame or a JSON event.
#[derive(Debug)]
pub(crate) enum Frame {
    Event(Value),
    Binary(Vec<u8>),
    Closed,
}

impl Socket {
    pub(crate) async fn connect(base: &str, sid: &str) -> Self {
        let address = base.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let url = format!("ws://{address}/ws?clientId={sid}");
        let (stream, _) = client_async(url, stream).await.expect("a websocket");
        Self { stream, read: 0, seen: VecDeque::new() }
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        let next =
            tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("a frame before the deadline");
        self.read += 1;
        match next {
            Some(Ok(Message::Text(text))) => Frame::Event(serde_json::from_str(&text).expect("json")),
            Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.to_vec()),
            _ => Frame::Closed,
        }
    }

    pub(crate) async fn event(&mut self) -> Value {
        match self.frame().await {
            Frame::Event(event) => event,
            other => panic!("not an event: {other:?}"),
        }
    }

    /// Reads up to the event of this type; what came before is in `seen`.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            if let Frame::Event(event) = self.frame().await {
                if event["type"] == kind {
                    return event;
                }
                self.seen.push_back(event);
            }
        }
    }

    /// Reads up to `executing {node: null}` of this prompt; gives the types of its events, in order.
    pub(crate) async fn job(&mut self, prompt_id: &str) -> Vec<String> {
        let mut types = Vec::new();
        loop {
            let event = match self.frame().await {
                Frame::Event(event) => event,
                Frame::Binary(bytes) => {
                    types.push(format!("binary {}", bytes[3]));
                    continue;
                }
                Frame::Closed => panic!("closed after {types:?}"),
            };
            if event["data"]["prompt_id"] == prompt_id {
                types.push(event["type"].as_str().expect("a type").to_owned());
                if event["type"] == "executing" && event["data"]["node"].is_null() {
                    return types;
                }
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.stream.send(Message::text(message.to_string())).await.expect("sent");
    }

    pub(crate) async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}

/// EmptyImage -> SaveImage.
pub(crate) fn plain(colour: u32, prefix: &str) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 32, "height": 16, "batch_size": 1, "color": colour } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": prefix } },
    })
}

/// A text-to-image graph with the standard models.
pub(crate) fn diffusion(checkpoint: &str, seed: u64, steps: u32) -> Value {
    json!({
        "1": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": checkpoint } },
        "2": { "class_type": "CLIPTextEncode", "inputs": { "text": "a fox", "clip": ["1", 1] } },
        "3": { "class_type": "CLIPTextEncode", "inputs": { "text": "", "clip": ["1", 1] } },
        "4": { "class_type": "EmptyLatentImage", "inputs": { "width": 64, "height": 64, "batch_size": 1 } },
        "5": { "class_type": "KSampler", "inputs": {
            "model": ["1", 0], "seed": seed, "steps": steps, "cfg": 7.0, "sampler_name": "euler",
            "scheduler": "normal", "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
            "denoise": 1.0 } },
        "6": { "class_type": "VAEDecode", "inputs": { "samples": ["5", 0], "vae": ["1", 2] } },
        "7": { "class_type": "SaveImage", "inputs": { "images": ["6", 0], "filename_prefix": "fox" } },
    })
}

/// Size and first pixel of a PNG.
pub(crate) fn png_pixel(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a png");
    let mut buffer = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut buffer).expect("pixels");
    (info.width, info.height, buffer[..info.color_type.samples()].to_vec())
}
