//! A router and its instances in this process, and a client for it.

use std::net::SocketAddr;
use std::time::Duration;

use comfy_router::app::Router;
use comfy_router::config::{Config, Sources};
use comfyui_emulator::Emulator;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Nothing here takes as long, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    instances: Vec<Emulator>,
    router: Router,
    _state: tempfile::TempDir,
}

pub struct Client {
    pub sid: String,
    pub binary: Vec<Vec<u8>>,
    socket: WebSocketStream<TcpStream>,
}

impl World {
    pub async fn start(instances: usize) -> Self {
        Self::start_with(instances, &[]).await
    }

    pub async fn start_with(count: usize, settings: &[(&str, &str)]) -> Self {
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(Emulator::start(comfyui_emulator::Config::default()).await.unwrap());
        }
        let state = tempfile::tempdir().unwrap();
        let named = instances.iter().enumerate().map(|(i, one)| format!("gpu{i}={}", one.url()));
        let mut env = vec![
            ("COMFY_ROUTER_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("COMFY_ROUTER_ADMIN".to_owned(), "127.0.0.1:0".to_owned()),
            ("COMFY_ROUTER_INSTANCES".to_owned(), named.collect::<Vec<_>>().join(",")),
            ("COMFY_ROUTER_STATE_DIR".to_owned(), state.path().display().to_string()),
            ("COMFY_ROUTER__TELEMETRY__NVML".to_owned(), "false".to_owned()),
        ];
        for (path, value) in settings {
            let name = format!("COMFY_ROUTER__{}", path.to_uppercase().replace('.', "__"));
            env.push((name, (*value).to_owned()));
        }
        let config = Config::load(Sources { env, ..Sources::default() }).unwrap_or_else(|e| panic!("{e}"));
        let router = Router::start(config).await.unwrap();
        router.looked(PATIENCE).await;
        let world = Self { instances, router, _state: state };
        world.until(async || world.ready().await).await;
        world
    }

    /// Every instance is up and hears its socket.
    async fn ready(&self) -> bool {
        let (_, fleet) = self.admin("/api/fleet").await;
        let up = fleet["instances"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "up"));
        up && self.instances.iter().all(|one| !one.control().sockets().is_empty())
    }

    pub fn instances(&self) -> &[Emulator] {
        &self.instances
    }

    pub fn address(&self) -> SocketAddr {
        self.router.listen_addr()
    }

    /// Asks until the answer is yes.
    pub async fn until(&self, mut done: impl AsyncFnMut() -> bool) {
        let asked = async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("it never became so");
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, hyper::HeaderMap, Value) {
        let (status, headers, body) = send(self.address(), method, path, headers, body).await;
        (status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let (status, _, body) = self.request("GET", path, &[], b"").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn admin(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = send(self.router.admin_addr(), "GET", path, &[], b"").await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The prompt id.
    pub async fn post(&self, graph: Value, client_id: &str, prompt_id: Option<&str>) -> String {
        let mut body = json!({"prompt": graph, "client_id": client_id});
        if let Some(id) = prompt_id {
            body["prompt_id"] = json!(id);
        }
        let (status, _, answer) = self.request("POST", "/prompt", &[], body.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        answer["prompt_id"].as_str().unwrap().to_owned()
    }

    /// Waits for a job's end.
    pub async fn history_of(&self, prompt: &str) -> Value {
        let path = format!("/history/{}", encode(prompt));
        self.until(async || self.get_json(&path).await != json!({})).await;
        self.get_json(&path).await
    }

    pub async fn view(&self, file: &Value) -> Vec<u8> {
        let get = |name: &str| encode(file[name].as_str().unwrap());
        let path = format!("/view?filename={}&subfolder={}&type={}", get("filename"), get("subfolder"), get("type"));
        let (status, headers, body) = send(self.address(), "GET", &path, &[("range", "bytes=0-7")], b"").await;
        assert_eq!((status, body.as_slice()), (206, &b"\x89PNG\r\n\x1a\n"[..]), "ranges pass through");
        let etag = headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(send(self.address(), "GET", &path, &[("if-none-match", &etag)], b"").await.0, 304);
        let (status, _, body) = send(self.address(), "GET", &path, &[], b"").await;
        assert_eq!(status, 200, "{path}");
        body
    }

    /// The name to use in a graph.
    pub async fn upload(&self, name: &str, content: &[u8]) -> String {
        let mut body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\nContent-Type: image/png\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--b--\r\n");
        let kind = [("content-type", "multipart/form-data; boundary=b")];
        let (status, _, answer) = self.request("POST", "/upload/image", &kind, &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["name"].as_str().unwrap().to_owned()
    }

    pub async fn connect(&self, sid: Option<&str>) -> Client {
        let path = sid.map_or("/ws".to_owned(), |sid| format!("/ws?clientId={sid}"));
        let url = format!("ws://{}{path}", self.address());
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut client = Client { sid: String::new(), binary: Vec::new(), socket };
        let first = client.next().await;
        assert_eq!(first["type"], "status");
        client.sid = first["data"]["sid"].as_str().unwrap().to_owned();
        client
    }
}

impl Client {
    /// The next JSON event; binary frames before it are put aside.
    pub async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("no event came");
            match message.expect("the socket is open").expect("a frame") {
                Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
                Message::Binary(bytes) => self.binary.push(bytes.to_vec()),
                _ => {}
            }
        }
    }

    pub async fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Every event up to the last one of the job.
    pub async fn until_done(&mut self, prompt: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let data = &event["data"];
            let done = event["type"] == "executing" && data["node"].is_null() && data["prompt_id"] == prompt;
            events.push(event);
            if done {
                return events;
            }
        }
    }

    pub async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn leave(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, hyper::HeaderMap, Vec<u8>) {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driven = comfy_router::tasks::spawn("test client", comfy_router::tasks::OnError::Log, async move {
        let _ = connection.await;
    });
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", to.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("no answer").unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    driven.abort();
    (head.status.as_u16(), head.headers, body)
}

/// A picture of this width, blurred and saved as node 3.
pub fn blur(width: usize) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 1, "sigma": 1.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}},
    })
}

/// Width and height of a PNG.
pub fn picture(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

pub fn png(width: u32, height: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![128; (width * height * 3) as usize]).unwrap();
    writer.finish().unwrap();
    out
}

pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}
