//! One client of the public API, over real TCP: a websocket, prompts posted at their times, every image fetched and
//! checked. It knows nothing of the router but its address, and says what it sees as [`News`].

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use super::http::{Http, HttpError};
use super::image;
use super::workload::{self, Prompt};
use crate::tasks::{self, OnError};

/// Something a client saw, of the prompt with this index.
#[derive(Debug)]
pub(super) struct News {
    pub(super) index: usize,
    pub(super) at: Instant,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Accepted {
        prompt_id: String,
    },
    Refused(String),
    Started,
    Doing(Doing),
    Preview,
    /// The websocket said that it is over.
    Finished,
    Failed(String),
    /// Its images were fetched: so many are right, or this is wrong.
    Checked(Result<usize, String>),
}

/// What a running prompt is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Starting,
    Loading,
    Sampling { percent: u8 },
    Imaging,
}

impl Doing {
    fn of(class: &str) -> Self {
        match class {
            "KSampler" => Self::Sampling { percent: 0 },
            class if class.contains("Loader") => Self::Loading,
            "CLIPTextEncode" | "EmptyLatentImage" => Self::Starting,
            _ => Self::Imaging,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Starting => "prepare",
            Self::Loading => "load model",
            Self::Sampling { .. } => "sample",
            Self::Imaging => "image",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: SocketAddr, error: std::io::Error },
    #[error("websocket: {0}")]
    Socket(#[from] tungstenite::Error),
    #[error("the websocket was closed with {0} prompts open")]
    Closed(usize),
}

type Socket = WebSocketStream<TcpStream>;

struct Client {
    plan: workload::Client,
    sid: String,
    began: Instant,
    http: Http,
    news: mpsc::Sender<News>,
    /// Accepted prompts that are not over: place in the plan, and its graph, by id.
    open: HashMap<String, (usize, Value)>,
    /// Prompts of the plan that were posted.
    sent: usize,
}

/// Connects and sends the plan. Returns when its last prompt is over; images may still be on their way. Where that
/// cannot be, every prompt that is not over has failed for that reason.
pub(super) async fn run(
    plan: workload::Client,
    address: SocketAddr,
    began: Instant,
    news: mpsc::Sender<News>,
) {
    let sid = Uuid::new_v4().simple().to_string();
    let http = Http::new(address, plan.tenant);
    let mut client = Client { plan, sid, began, http, news, open: HashMap::new(), sent: 0 };
    if let Err(error) = client.go(address).await {
        let unsent = client.sent..client.plan.prompts.len();
        for place in client.open.values().map(|(place, _)| *place).chain(unsent) {
            client.tell(place, What::Failed(error.to_string())).await;
        }
    }
}

async fn connect(address: SocketAddr, sid: &str, user: &'static str) -> Result<Socket, ClientError> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| ClientError::Connect { address, error })?;
    let mut request = format!("ws://{address}/ws?clientId={sid}").into_client_request()?;
    request.headers_mut().insert("comfy-user", HeaderValue::from_static(user));
    Ok(client_async(request, stream).await?.0)
}

impl Client {
    async fn go(&mut self, address: SocketAddr) -> Result<(), ClientError> {
        let mut socket = connect(address, &self.sid, self.plan.tenant).await?;
        while self.sent < self.plan.prompts.len() || !self.open.is_empty() {
            let due = self.plan.prompts.get(self.sent).map(|prompt| self.began + prompt.at);
            tokio::select! {
                // A due prompt first: a chatty socket must not keep it back.
                biased;
                () = tokio::time::sleep_until(due.unwrap_or(self.began)), if due.is_some() => {
                    self.post(self.sent).await;
                    self.sent += 1;
                }
                message = socket.next() => match message {
                    Some(message) => self.message(message?).await,
                    None => return Err(ClientError::Closed(self.open.len())),
                },
            }
        }
        Ok(())
    }

    async fn post(&mut self, place: usize) {
        let prompt = &self.plan.prompts[place];
        let graph = prompt.graph();
        let mut body = json!({
            "prompt": graph,
            "client_id": self.sid,
            "extra_data": { "comfy_router": { "class": self.plan.class } },
        });
        if prompt.own_id {
            body["prompt_id"] = json!(Uuid::new_v4().to_string());
        }
        let what = match self.http.post_json("/prompt", &body).await {
            Ok(answer) => accepted(&answer, &body["prompt_id"]),
            Err(error) => What::Refused(error.to_string()),
        };
        if let What::Accepted { prompt_id } = &what {
            self.open.insert(prompt_id.clone(), (place, graph));
        }
        self.tell(place, what).await;
    }

    async fn tell(&self, place: usize, what: What) {
        let news = News { index: self.plan.prompts[place].index, at: Instant::now(), what };
        // Nobody listens any more: the demo was given up.
        let _ = self.news.send(news).await;
    }

    async fn message(&mut self, message: Message) {
        let Message::Text(text) = message else {
            if let (Message::Binary(_), Some((place, _))) = (&message, self.open.values().next()) {
                self.tell(*place, What::Preview).await;
            }
            return;
        };
        let Ok(event) = serde_json::from_str::<Value>(&text) else { return };
        let data = &event["data"];
        let Some((place, graph)) = data["prompt_id"].as_str().and_then(|id| self.open.get(id)) else {
            return;
        };
        let Some(what) = read(event["type"].as_str().unwrap_or_default(), data, graph) else { return };
        let place = *place;
        let over = matches!(what, What::Finished | What::Failed(_));
        let finished = what == What::Finished;
        self.tell(place, what).await;
        if over {
            let id = data["prompt_id"].as_str().unwrap_or_default();
            self.open.remove(id);
            if finished {
                self.check_images(place, id.to_owned());
            }
        }
    }

    /// Beside the socket, so that no event is seen late.
    fn check_images(&self, place: usize, prompt_id: String) {
        let (http, news) = (self.http.clone(), self.news.clone());
        let prompt = self.plan.prompts[place].clone();
        tasks::spawn("demo images", OnError::Log, async move {
            let checked = images(&http, &prompt_id, &prompt).await;
            let what = What::Checked(checked);
            let _ = news.send(News { index: prompt.index, at: Instant::now(), what }).await;
        });
    }
}

fn accepted(answer: &Value, chosen: &Value) -> What {
    match answer["prompt_id"].as_str() {
        Some(id) if chosen.is_null() || chosen == id => What::Accepted { prompt_id: id.to_owned() },
        _ => What::Refused(format!("the answer names another prompt: {answer}")),
    }
}

/// What a websocket event says of its prompt; none: nothing that is shown.
fn read(kind: &str, data: &Value, graph: &Value) -> Option<What> {
    match kind {
        "execution_start" => Some(What::Started),
        "executing" => match data["node"].as_str() {
            Some(node) => {
                Some(What::Doing(Doing::of(graph[node]["class_type"].as_str().unwrap_or_default())))
            }
            None => Some(What::Finished),
        },
        "progress" => {
            let (value, max) = (data["value"].as_f64()?, data["max"].as_f64()?);
            let percent = (value / max.max(1.0) * 100.0).clamp(0.0, 100.0) as u8;
            Some(What::Doing(Doing::Sampling { percent }))
        }
        "execution_error" => {
            let text = |key: &str| data[key].as_str().unwrap_or_default().trim().to_owned();
            Some(What::Failed(format!("{}: {}", text("exception_type"), text("exception_message"))))
        }
        "execution_interrupted" => Some(What::Failed("interrupted".to_owned())),
        _ => None,
    }
}

/// Fetches what the history lists, and looks at it.
async fn images(http: &Http, prompt_id: &str, prompt: &Prompt) -> Result<usize, String> {
    let told = |error: HttpError| error.to_string();
    let history = http.get_json(&format!("/history/{prompt_id}")).await.map_err(told)?;
    let entry = &history[prompt_id];
    if entry["status"]["status_str"] != "success" {
        return Err(format!("its history does not say success: {}", entry["status"]["status_str"]));
    }
    let listed = entry["outputs"]["9"]["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    if listed.len() != 1 {
        return Err(format!("its history lists {} images, not 1", listed.len()));
    }
    for file in listed {
        let part = |key: &str| encoded(file[key].as_str().unwrap_or_default());
        let path = format!(
            "/view?filename={}&subfolder={}&type={}",
            part("filename"),
            part("subfolder"),
            part("type")
        );
        image::check(&http.get(&path).await.map_err(told)?, prompt)?;
    }
    Ok(listed.len())
}

/// For a query: everything but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_say_what_a_prompt_is_at() {
        let graph =
            json!({ "1": { "class_type": "CheckpointLoaderSimple" }, "6": { "class_type": "KSampler" } });
        let says = |kind: &str, data: Value| read(kind, &data, &graph);
        assert_eq!(says("execution_start", json!({})), Some(What::Started));
        assert_eq!(says("executing", json!({ "node": "1" })), Some(What::Doing(Doing::Loading)));
        assert_eq!(says("executing", json!({ "node": null })), Some(What::Finished));
        let half = Some(What::Doing(Doing::Sampling { percent: 50 }));
        assert_eq!(says("progress", json!({ "value": 10, "max": 20, "node": "6" })), half);
        assert_eq!(says("status", json!({})), None);
        let error = json!({ "exception_type": "E", "exception_message": "no\n" });
        assert_eq!(says("execution_error", error), Some(What::Failed("E: no".into())));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("gpu 0/a&b=ü"), "gpu%200%2Fa%26b%3D%C3%BC");
    }

    /// Against an instance without a router: the client must not need one.
    #[tokio::test]
    async fn a_client_gets_its_images_from_a_plain_instance() {
        let models =
            workload::CHECKPOINTS.iter().fold(comfyui_emulator::Models::standard(), |models, name| {
                models.with("checkpoints", &format!("{name}.safetensors"), 1)
            });
        let config = comfyui_emulator::Config { models, ..comfyui_emulator::Config::default() };
        let emulator = comfyui_emulator::Emulator::start(config).await.unwrap();
        let mut plan = workload::plan(60, 1).swap_remove(1);
        plan.prompts.iter_mut().for_each(|prompt| prompt.at = Duration::ZERO);
        let count = plan.prompts.len();
        let (news, mut seen) = mpsc::channel(10_000);
        run(plan, emulator.addr(), Instant::now(), news).await;
        let mut whats = Vec::new();
        while let Some(news) = seen.recv().await {
            whats.push(news.what);
        }
        let said = |wanted: &What| whats.iter().filter(|what| *what == wanted).count();
        assert!(count > 5);
        assert_eq!((said(&What::Started), said(&What::Finished)), (count, count));
        assert_eq!(said(&What::Checked(Ok(1))), count, "{whats:?}");
    }
}
