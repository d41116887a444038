//! Replays recorded sessions of the real servers and compares answers, headers and per-client event order.
//!
//! The recording's own order is kept by gates: a node runs only when the next recorded job event needs it.
//! `status` events race with job events and with HTTP answers in the real server, so those of a client are
//! compared at the end, as a sequence of their own; that every final `executing` follows its `status` is checked
//! apart.

use std::collections::HashMap;

use comfyui_emulator::{Config, Control, Each, Emulator, Flavour, Models};
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::client::{Answer, DEADLINE, Http, Socket};

#[tokio::test]
async fn speaks_as_0_3_64_did() {
    replay(Flavour::V0_3_64, include_str!("../../../recordings/comfyui-0.3.64.jsonl")).await;
}

#[tokio::test]
async fn speaks_as_0_8_0_did() {
    replay(Flavour::V0_8_0, include_str!("../../../recordings/comfyui-0.8.0.jsonl")).await;
}

async fn replay(flavour: Flavour, recording: &str) {
    let config = Config { flavour, models: Models::none(), ..Config::default() };
    let emulator = Emulator::start(config).await.expect("starts");
    let control = emulator.control();
    control.hold(Each::Inside);
    let mut replay = Replay {
        url: emulator.url(),
        http: Http::new(&emulator.url()),
        control,
        clients: HashMap::new(),
        ids: Vec::new(),
        one_pixel: one_pixel(recording),
    };
    let lines: Vec<Value> =
        recording.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    for (at, line) in lines.iter().enumerate() {
        let what = format!("{} line {}", flavour.version(), at + 1);
        match line["kind"].as_str().expect("a kind") {
            "http" => replay.http(line, &what).await,
            "ws" => replay.event(line, &what).await,
            _ if line["name"] == "feature flags" => replay.send_flags().await,
            _ => {}
        }
    }
    replay.check_status(flavour.version()).await;
    replay.check_ends();
}

struct Replay {
    url: String,
    http: Http,
    control: Control,
    clients: HashMap<String, Client>,
    /// Recorded id, id of this run.
    ids: Vec<(String, String)>,
    one_pixel: Vec<u8>,
}

/// One recorded socket.
struct Client {
    sid: String,
    socket: Socket,
    status: Vec<Value>,
    job: Vec<Value>,
    all: Vec<Value>,
    expected_status: Vec<Value>,
    next_status: usize,
    next_job: usize,
}

impl Replay {
    async fn http(&mut self, line: &Value, what: &str) {
        let path = self.own_ids(line["path"].as_str().expect("a path"));
        let method: Method = line["method"].as_str().expect("a method").parse().expect("a method");
        let answer = match &line["upload"] {
            Value::Null => {
                let request = match (&line["raw"], &line["request"]) {
                    (Value::String(raw), _) => raw.clone(),
                    (_, Value::Null) => String::new(),
                    (_, request) => self.own_ids(&request.to_string()),
                };
                let headers: Vec<(&str, &str)> = line["request_headers"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
                    .collect();
                self.http.try_send(method, &path, &headers, request).await.expect(what)
            }
            upload => self.upload(&path, upload).await,
        };
        self.learn_id(line, &answer);
        let expected = serde_json::from_str(&self.own_ids(&line.to_string())).expect("ids are plain text");
        compare_answer(&expected, &answer, what);
    }

    async fn upload(&self, path: &str, upload: &Value) -> Answer {
        let content = match upload["content"].as_str() {
            Some("1x1.png") => self.one_pixel.clone(),
            other => other.expect("content").as_bytes().to_vec(),
        };
        let fields: Vec<(&str, &str)> = upload["fields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        self.http.upload(path, upload["filename"].as_str().expect("a name"), &content, &fields).await
    }

    fn learn_id(&mut self, line: &Value, answer: &Answer) {
        if let Some(recorded) = line["body"]["prompt_id"].as_str() {
            let own = answer.json()["prompt_id"].as_str().expect("an id").to_owned();
            self.ids.push((recorded.to_owned(), own));
        }
    }

    fn own_ids(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (recorded, own)| text.replace(recorded, own))
    }

    async fn send_flags(&mut self) {
        let flags = json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } });
        self.clients.get_mut("aaaa").expect("aaaa").socket.send(&flags).await;
    }

    async fn event(&mut self, line: &Value, what: &str) {
        let who = line["who"].as_str().expect("who").to_owned();
        if !self.clients.contains_key(&who) {
            let sid = who.split('-').next().expect("a sid").to_owned();
            let socket = Socket::connect(&self.url, &sid).await;
            let (status, job, all) = (Vec::new(), Vec::new(), Vec::new());
            let expected_status = Vec::new();
            let client =
                Client { sid, socket, status, job, all, expected_status, next_status: 0, next_job: 0 };
            self.clients.insert(who.clone(), client);
        }
        let mut expected: Value =
            serde_json::from_str(&self.own_ids(&line["json"].to_string())).expect("json");
        mask(&mut expected);
        let client = self.clients.get_mut(&who).expect("connected");
        if expected["type"] == "status" {
            client.expected_status.push(expected);
            return;
        }
        let own = tokio::time::timeout(DEADLINE, client.next(&expected["type"], &self.control)).await;
        assert_eq!(own.expect(what), expected, "{what}");
    }

    async fn check_status(&mut self, what: &str) {
        for client in self.clients.values_mut() {
            for expected in std::mem::take(&mut client.expected_status) {
                let own = tokio::time::timeout(DEADLINE, client.next(&json!("status"), &self.control)).await;
                assert_eq!(own.expect(what), expected, "{what}: {}", client.sid);
            }
        }
    }

    fn check_ends(&self) {
        for client in self.clients.values() {
            for pair in client.all.windows(2).filter(|pair| pair[1]["data"].get("display_node").is_none()) {
                if pair[1]["type"] == "executing" && pair[1]["data"]["node"].is_null() {
                    assert_eq!(pair[0]["type"], "status", "{}: {pair:?}", client.sid);
                }
            }
        }
    }
}

impl Client {
    /// The next event of the kind, letting held nodes run only when everything sent has been read.
    async fn next(&mut self, kind: &Value, control: &Control) -> Value {
        loop {
            let (list, next) = match kind == "status" {
                true => (&self.status, &mut self.next_status),
                false => (&self.job, &mut self.next_job),
            };
            if let Some(event) = list.get(*next) {
                *next += 1;
                return event.clone();
            }
            if control.frames_sent(&self.sid) == self.socket.read {
                tokio::select! {
                    biased;
                    event = self.socket.event() => self.keep(event),
                    () = held(control) => {
                        if control.frames_sent(&self.sid) == self.socket.read {
                            control.release(1);
                            released(control).await;
                        }
                    }
                }
            } else {
                let event = self.socket.event().await;
                self.keep(event);
            }
        }
    }

    fn keep(&mut self, mut event: Value) {
        mask(&mut event);
        self.all.push(event.clone());
        if event["type"] == "status" { &mut self.status } else { &mut self.job }.push(event);
    }
}

async fn held(control: &Control) {
    control.wait_held(1).await;
}

/// The ticket was taken: the node is running or done.
async fn released(control: &Control) {
    while control.gate().tickets > 0 {
        tokio::task::yield_now().await;
    }
}

fn one_pixel(recording: &str) -> Vec<u8> {
    let lines = recording.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    let mut bodies = lines.filter(|line| line["path"] == "/view?filename=nope.png&type=input");
    let body = bodies.next().expect("the uploaded file is viewed")["body"].clone();
    body.as_str()
        .expect("bytes as latin text")
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect()
}

fn compare_answer(line: &Value, answer: &Answer, what: &str) {
    assert_eq!(json!(answer.status.as_u16()), line["status"], "{what}: {:?}", answer.body);
    let mut expected = line["body"].clone();
    let mut own = match &expected {
        Value::String(_) => json!(answer.body.iter().map(|byte| char::from(*byte)).collect::<String>()),
        _ => answer.json(),
    };
    mask(&mut expected);
    mask(&mut own);
    assert_eq!(own, expected, "{what}");
    let text = line["body"].to_string();
    let free_length = text.contains("traceback") || text.contains("ram_total");
    for (name, value) in line["headers"].as_object().into_iter().flatten() {
        let own = answer.header(name);
        match name.as_str() {
            "Etag" | "Last-Modified" => assert!(!own.is_empty(), "{what}: {name}"),
            "Content-Length" if free_length => {}
            _ => assert_eq!(json!(own), *value, "{what}: {name}"),
        }
    }
}

/// What differs between two runs of one server, or was stripped from the recording.
fn mask(value: &mut Value) {
    const GONE: [&str; 3] = ["tooltip", "description", "argv"];
    const ANY: [&str; 13] = [
        "timestamp",
        "create_time",
        "execution_start_time",
        "execution_end_time",
        "traceback",
        "ram_total",
        "ram_free",
        "vram_total",
        "vram_free",
        "torch_vram_total",
        "torch_vram_free",
        "python_version",
        "pytorch_version",
    ];
    match value {
        Value::Object(map) => {
            mask_map(map, &GONE, &ANY);
            map.values_mut().for_each(mask);
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn mask_map(map: &mut Map<String, Value>, gone: &[&str], any: &[&str]) {
    map.retain(|key, _| !gone.contains(&key.as_str()));
    for (key, value) in map.iter_mut() {
        if any.contains(&key.as_str()) {
            *value = json!("masked");
        } else if key == "executed"
            && let Value::Array(ids) = value
        {
            ids.sort_by_key(ToString::to_string);
        }
    }
}
