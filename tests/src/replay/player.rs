//! Sends requests, listens with several clients, and writes down what is heard.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfyui_emulator::{Control, Each};
use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Entry, Transcript, normal};
use crate::{Answer, Http, Message, Socket};

/// How long the script waits for anything. A ComfyUI on a busy machine without a GPU is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the play is in front of.
#[derive(Debug)]
pub enum Stage {
    /// A ComfyUI, whose large jobs run for seconds.
    Real,
    /// An emulator, whose jobs end when they are let go.
    Emulated(Box<Control>),
}

/// A request as it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// JSON, or text that is none.
    pub body: Value,
}

#[derive(Debug)]
pub(super) struct Player {
    http: Http,
    stage: Stage,
    scene: &'static str,
    clients: BTreeMap<String, Listener>,
    /// Ids of this play, and what they are called in its transcript.
    names: Vec<(String, String)>,
    interrupted: Vec<String>,
    transcript: Transcript,
}

#[derive(Debug)]
struct Listener {
    record: watch::Sender<Vec<Message>>,
    /// Of the record, already written down.
    told: usize,
    /// The last count it was told; the router repeats it now and then.
    remaining: Option<Value>,
    task: AbortHandle,
}

impl Player {
    pub(super) fn new(base: &str, stage: Stage) -> Self {
        Self {
            http: Http::new(base),
            stage,
            scene: "",
            clients: BTreeMap::new(),
            names: Vec::new(),
            interrupted: Vec::new(),
            transcript: Transcript::default(),
        }
    }

    pub(super) fn finish(mut self) -> Transcript {
        self.scene("");
        std::mem::take(&mut self.transcript)
    }

    /// Ends the scene before: what its clients heard is written down.
    pub(super) fn scene(&mut self, name: &'static str) {
        let names: Vec<String> = self.clients.keys().cloned().collect();
        names.iter().for_each(|who| self.write_down(who));
        self.scene = name;
    }

    /// A client with a websocket; `flags` as its first message, if it sends any.
    pub(super) async fn connect(&mut self, who: &str, sid: &str, flags: Option<Value>) {
        let mut socket =
            Socket::open(self.http.base(), &format!("/ws?clientId={sid}")).await.expect("a websocket");
        if let Some(flags) = flags {
            socket.send(&json!({"type": "feature_flags", "data": flags}).to_string()).await;
        }
        let record = watch::Sender::new(Vec::new());
        let task = listen(socket, record.clone());
        self.clients.insert(who.to_owned(), Listener { record, told: 0, remaining: None, task });
        self.hears(who, "status", |message| message.kind() == "status").await;
    }

    pub(super) fn leave(&mut self, who: &str) {
        self.write_down(who);
        if let Some(client) = self.clients.remove(who) {
            client.task.abort();
        }
    }

    pub(super) async fn hears(&self, who: &str, what: &str, wanted: impl Fn(&Message) -> bool) {
        let client = &self.clients[who];
        let mut changes = client.record.subscribe();
        let heard = changes.wait_for(|record| record[client.told..].iter().any(&wanted));
        let waited = tokio::time::timeout(PATIENCE, heard).await;
        assert!(waited.is_ok(), "{}: {who} did not hear {what}: {:?}", self.scene, client.record.borrow());
    }

    /// Waits until `who` is told that this job's node is at work.
    pub(super) async fn works_on(&self, who: &str, job: &str, node: &str) {
        let at = |message: &Message| {
            message.is_of(job) && message.kind() == "executing" && message.data()["node"] == node
        };
        self.hears(who, &format!("node {node}"), at).await;
    }

    /// Waits for the last event of this job.
    pub(super) async fn hears_end(&self, who: &str, job: &str) {
        self.hears(who, &format!("the end of {job}"), |message| message.ends(job)).await;
    }

    /// Waits for the history entry of a job whose client does not listen.
    pub(super) async fn ended(&self, job: &str) {
        let looking = async {
            while self.http.get_json(&format!("/history/{job}")).await[job].is_null() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("a history entry");
    }

    /// Waits until every client's last `status` says so many.
    pub(super) async fn remaining(&self, count: u64) {
        for (who, client) in &self.clients {
            let mut changes = client.record.subscribe();
            let last = |record: &Vec<Message>| {
                let status = record.iter().rev().find(|message| message.kind() == "status");
                status.is_some_and(|status| status.data()["status"]["exec_info"]["queue_remaining"] == count)
            };
            let waited = tokio::time::timeout(PATIENCE, changes.wait_for(last)).await;
            assert!(waited.is_ok(), "{}: {who} is not told that {count} remain", self.scene);
        }
    }

    /// From now on a job stays at its first node, where jobs are not slow by themselves.
    pub(super) fn hold(&self) {
        if let Stage::Emulated(control) = &self.stage {
            control.hold(Each::Execution);
        }
    }

    pub(super) fn open(&self) {
        if let Stage::Emulated(control) = &self.stage {
            control.open();
        }
    }

    pub(super) fn name(&mut self, id: &str, name: &str) {
        self.names.push((id.to_owned(), format!("<{name}>")));
    }

    /// This job will be cut short: how far it comes is chance.
    pub(super) fn interrupts(&mut self, job: &str) {
        self.interrupted.push(job.to_owned());
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Value::Null).await
    }

    pub(super) async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, &[], body).await
    }

    /// A prompt that is taken; gives its id, which is called `name` from now on.
    pub(super) async fn submit(&mut self, name: &str, body: Value) -> String {
        self.submit_to("/prompt", name, body).await
    }

    pub(super) async fn submit_to(&mut self, path: &str, name: &str, body: Value) -> String {
        let answer = self.send(Method::POST, path, &[], &body).await;
        next_millisecond().await;
        let id = answer.json()["prompt_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {}", answer.text()))
            .to_owned();
        self.name(&id, name);
        self.note(&Method::POST, path, &body, &answer);
        id
    }

    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let answer = self.send(method.clone(), path, headers, &body).await;
        self.note(&method, path, &body, &answer);
        answer
    }

    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let text = match body {
            Value::Null => String::new(),
            Value::String(raw) => raw.clone(),
            body => body.to_string(),
        };
        let answer = self.http.try_send(method, path, headers, text).await;
        answer.unwrap_or_else(|error| panic!("{}: {path}: {error:#}", self.scene))
    }

    /// `POST /upload/image`
    pub(super) async fn upload(&mut self, name: &str, content: &[u8], fields: &[(&str, &str)]) {
        self.upload_to("/upload/image", name, content, fields).await;
    }

    pub(super) async fn upload_to(
        &mut self,
        path: &str,
        name: &str,
        content: &[u8],
        fields: &[(&str, &str)],
    ) {
        let answer = self.http.upload_to(path, name, content, fields).await;
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.note(&Method::POST, path, &json!({"filename": name, "fields": fields}), &answer);
    }

    fn note(&mut self, method: &Method, path: &str, body: &Value, answer: &Answer) {
        let path = self.named(path);
        self.transcript.asked.push(Asked {
            method: method.to_string(),
            path: path.clone(),
            body: body.clone(),
        });
        let body = match serde_json::from_slice::<Value>(&answer.body) {
            Ok(body) => self.normal(&body),
            Err(_) => {
                json!(self.named(&answer.body.iter().map(|byte| char::from(*byte)).collect::<String>()))
            }
        };
        let mut headers = serde_json::Map::new();
        for name in [
            "content-type",
            "cache-control",
            "accept-ranges",
            "content-disposition",
            "content-range",
            "allow",
            "pragma",
        ] {
            if !answer.header(name).is_empty() {
                headers.insert(name.to_owned(), json!(answer.header(name)));
            }
        }
        for name in ["etag", "last-modified"] {
            if !answer.header(name).is_empty() {
                headers.insert(name.to_owned(), json!("some"));
            }
        }
        let count = self.transcript.entries.iter().filter(|entry| entry.scene == self.scene).count();
        let what = format!("{count} {method} {path}");
        let heard = json!({"status": answer.status.as_u16(), "headers": headers, "body": body});
        self.transcript.entries.push(Entry { scene: self.scene, what, heard });
    }

    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }

    fn normal(&self, heard: &Value) -> Value {
        let mut heard: Value =
            serde_json::from_str(&self.named(&heard.to_string())).unwrap_or_else(|_| heard.clone());
        normal::value(&mut heard);
        normal::where_interrupted(&mut heard);
        heard
    }

    /// What a client heard since it was last looked at: each job's events in order, the counts it was told, the rest.
    fn write_down(&mut self, who: &str) {
        let Some(client) = self.clients.get_mut(who) else { return };
        let record = client.record.borrow().clone();
        let new = &record[client.told..];
        let before = client.told.checked_sub(1).map(|at| record[at].clone());
        client.told = record.len();
        let mut jobs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut counts: Vec<Value> = Vec::new();
        let mut previous = before;
        for message in new {
            let count = &message.data()["status"]["exec_info"]["queue_remaining"];
            let of = message.data()["prompt_id"].as_str().map_or("no job", |id| id);
            let status = message.kind() == "status";
            let changed = status && client.remaining.replace(count.clone()).as_ref() != Some(count);
            // The greeting is heard as it is.
            if status && message.data().get("sid").is_none() {
                counts.extend(changed.then(|| count.clone()));
            } else {
                let mut heard = heard(message);
                if message.ends(of) {
                    let follows = previous.as_ref().map_or_else(String::new, Message::kind);
                    heard["follows"] = json!(follows);
                }
                jobs.entry(of.to_owned()).or_default().push(heard);
            }
            previous = Some(message.clone());
        }
        for (job, events) in jobs {
            let mut events: Vec<Value> = events.iter().map(|event| self.normal(event)).collect();
            if self.interrupted.contains(&job) {
                normal::cut_short(&mut events);
            }
            if events.is_empty() {
                continue;
            }
            let what = format!("{who} hears of {}", self.named(&job));
            self.transcript.entries.push(Entry { scene: self.scene, what, heard: Value::Array(events) });
        }
        if !counts.is_empty() {
            let what = format!("{who} is told how many remain");
            self.transcript.entries.push(Entry { scene: self.scene, what, heard: Value::Array(counts) });
        }
    }
}

/// `create_time` counts milliseconds: two prompts of the same one have no order.
async fn next_millisecond() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let then = now();
    while now() == then {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.clients.values().for_each(|client| client.task.abort());
    }
}

fn heard(message: &Message) -> Value {
    match message {
        Message::Event(event) => event.clone(),
        Message::Closed(code) => json!({"closed": code}),
        // Type 4 begins with a length and that much JSON.
        Message::Binary(4, bytes) if bytes.len() >= 4 => {
            let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            let about = bytes.get(4..4 + length).and_then(|text| serde_json::from_slice::<Value>(text).ok());
            json!({"binary": 4, "about": about, "image": magic(bytes.get(4 + length..).unwrap_or_default())})
        }
        Message::Binary(kind, bytes) => {
            let format = bytes.get(..4).unwrap_or_default();
            json!({"binary": kind, "format": format, "image": magic(bytes.get(4..).unwrap_or_default())})
        }
    }
}

fn magic(image: &[u8]) -> &'static str {
    match image {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xff, 0xd8, ..] => "jpeg",
        _ => "?",
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with its player")]
fn listen(mut socket: Socket, record: watch::Sender<Vec<Message>>) -> AbortHandle {
    let listening = async move {
        loop {
            let message = socket.next().await;
            let over = matches!(message, Message::Closed(_));
            record.send_modify(|record| record.push(message));
            if over {
                break;
            }
        }
    };
    tokio::spawn(listening).abort_handle()
}
