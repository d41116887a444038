//! What valid input looks like: recordings of real servers, the example cases, the examples of a configuration, our policies.

use std::sync::OnceLock;

use comfy_router::policy::Shipped;
use comfy_router::policy::tools::{Desk, Player, Settings};
use comfy_router::simulation::{Imagined, imagined, simulate};
use serde_json::Value;

pub(crate) const OBJECT_INFO: &str = include_str!("../seeds/object_info.json");
const RECORDINGS: [&str; 2] = [
    include_str!("../../recordings/comfyui-0.3.64.jsonl"),
    include_str!("../../recordings/comfyui-0.8.0.jsonl"),
];
const CASES: [&str; 5] = [
    include_str!("../../../examples/policies/cases/affinity.json"),
    include_str!("../../../examples/policies/cases/heat.json"),
    include_str!("../../../examples/policies/cases/priority.json"),
    include_str!("../../../examples/policies/cases/quota.json"),
    include_str!("../../../examples/policies/cases/settings.json"),
];
const CONFIGS: [&str; 3] = [
    include_str!("../../../examples/configs/launch.toml"),
    include_str!("../../../examples/configs/public.toml"),
    include_str!("../../../examples/configs/two-gpus.toml"),
];
/// The first byte is the method that was asked with.
const HEADS: [&str; 9] = [
    "GHTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\nDate: Tue, 24 Nov 2026 20:30:00 GMT\r\nServer: Python/3.12 aiohttp/3.11.18\r\n\r\n{}",
    "GHTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello and more",
    "HHTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
    "GHTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
    "GHTTP/1.1 204 No Content\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\n\r\n",
    "GHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "GHTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "GHTTP/1.1 404 Not Found\r\nTransfer-Encoding: identity\r\nTrailer: x\r\nTE: y\r\nContent-Length: 1\r\n\r\nx",
    "GHTTP/1.0 200 OK\r\nUpgrade: h2c\r\nProxy-Connection: close\r\nContent-Length: 18446744073709551615\r\n\r\n",
];
const NAMES: [&str; 8] = [
    "picture.png",
    "sub/folder/picture.png [output]",
    "~gpu0/sub/x.png",
    "~gpu0",
    "a b%.png",
    "clipspace/x.png [temp]",
    "../x",
    "",
];

/// Of a target.
///
/// # Panics
/// There is no such target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "prompt" => posted(),
        "frame" => frames(),
        "head" => texts(&HEADS),
        "socket" => streams(),
        "object_info" => texts(&[OBJECT_INFO]),
        "names" => texts(&NAMES),
        "upload" => uploads(),
        "config" => texts(&CONFIGS),
        "cases" => texts(&CASES),
        "log" => vec![recording().to_vec()],
        "component" => Shipped::ALL.into_iter().map(|shipped| shipped.bytes().to_vec()).collect(),
        "answers" => answers(),
        other => panic!("there is no target called {other}"),
    }
}

fn recorded() -> impl Iterator<Item = Value> {
    RECORDINGS.into_iter().flat_map(str::lines).filter_map(|line| serde_json::from_str(line).ok())
}

fn posted() -> Vec<Vec<u8>> {
    let of = |entry: Value| {
        let prompt = entry["path"].as_str()?.ends_with("/prompt") && entry["request"].is_object();
        prompt.then(|| entry["request"].to_string().into_bytes())
    };
    recorded().filter_map(of).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = recorded()
        .filter(|entry| entry["kind"] == "ws" && entry["json"].is_object())
        .map(|entry| [b"\0", entry["json"].to_string().as_bytes()].concat())
        .collect();
    let meta = br#"{"node_id": "3", "prompt_id": "p", "image_type": "image/png"}"#;
    let length = (meta.len() as u32).to_be_bytes();
    frames.push([b"\x01\0\0\0\x01\0\0\0\x02".as_slice(), b"\x89PNG\r\n\x1a\nxxxx"].concat());
    frames.push([b"\x01\0\0\0\x04".as_slice(), &length, meta, b"\xff\xd8\xff\xe0xxxx"].concat());
    frames.push([b"\x01\0\0\0\x03\0\0\0\x013".as_slice(), b"a text"].concat());
    frames
}

/// Websocket streams; the first byte says how they are cut.
fn streams() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        let length = payload.len();
        let mut bytes = match length {
            ..=125 => vec![first, length as u8],
            126..=0xffff => [&[first, 126][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        bytes.extend_from_slice(payload);
        bytes
    };
    let event = br#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}}"#;
    let text = "a t\u{e9}xt in parts".as_bytes();
    vec![
        [vec![0], frame(0x81, event), frame(0x82, &[1; 300]), frame(0x88, &[3, 0xe8])].concat(),
        [vec![5], frame(0x01, &text[..4]), frame(0x89, b"hi"), frame(0x00, &[]), frame(0x80, &text[4..])]
            .concat(),
        [vec![255], frame(0x82, &[7; 5_000]), frame(0x8a, b""), frame(0x82, &[8; 66_000])].concat(),
        [vec![40], frame(0x02, &[1; 5_000]), frame(0x00, &[2; 5_000]), frame(0x80, &[3; 70_000])].concat(),
        [vec![1], frame(0x81, b"\xff\xfe"), frame(0x81, event)].concat(),
    ]
}

/// Forms as browsers and scripts write them: the line of the content type, then the body.
fn uploads() -> Vec<Vec<u8>> {
    let form = |fields: &[(&str, &[u8])]| {
        let mut body = b"multipart/form-data; boundary=X\n".to_vec();
        for (head, content) in fields {
            body.extend_from_slice(
                format!("--X\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--X--\r\n");
        body
    };
    let png: &[u8] = b"\x89PNG\r\n\x1a\n--X is no boundary here\r\n--";
    let named = "name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png";
    vec![
        form(&[(named, png)]),
        form(&[
            (named, png),
            ("name=\"type\"", b"input"),
            ("name=\"subfolder\"", b"s"),
            ("name=\"overwrite\"", b"true"),
        ]),
        form(&[("name=\"overwrite\"", b"1"), (named, b""), (named, png)]),
        form(&[("name=\"image\"; filename*=UTF-8''%e2%82%ac.png", png)]),
        form(&[(named, png), ("name=\"original_ref\"", br#"{"filename": "a.png", "type": "output"}"#)]),
        // More than may be kept, and a text longer than the form may be.
        form(&[(named, &[7; 3_000])]),
        form(&[("name=\"subfolder\"", &[b'x'; 5_000])]),
        b"multipart/form-data; boundary=\"a b\"\n--a b--\r\n".to_vec(),
        b"application/json\n{\"image\": 1}".to_vec(),
    ]
}

/// A quarter of an hour of a made-up day, as the router records it.
fn recording() -> &'static [u8] {
    static RECORDING: OnceLock<Vec<u8>> = OnceLock::new();
    RECORDING.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (policy, log) = (folder.path().join("p.wasm"), folder.path().join("log.jsonl"));
        std::fs::write(&policy, Shipped::ModelAffinity.bytes()).expect("written");
        let settings = Settings::new();
        let mut desk =
            Desk::open(&Player { component: &policy, settings: &settings }).expect("a shipped policy");
        desk.record(Box::new(std::fs::File::create(&log).expect("a file")));
        let day = Imagined { jobs: 12, instances: 2, hours: 1, load: 0.3, seed: 3 };
        simulate(&imagined(day), &mut desk).expect("recorded");
        std::fs::read(&log).expect("it is there")
    })
}

/// Answers as guests lay them out: a number, an address, a length, over and over.
fn answers() -> Vec<Vec<u8>> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    vec![
        // ranked: rows 0 and 1 at 1040; a reason of no length.
        words(&[0, 1_040, 2, 1_040, 0, 1]),
        // hold for 1500.
        words(&[1, 1_500, 0, 1_024, 4]),
        words(&[2, 0, 0, 1_024, 4]),
        // A score of 1, an ageing of 0.
        [1.0_f64.to_le_bytes().to_vec(), 0.0_f64.to_le_bytes().to_vec(), words(&[1_024, 0])].concat(),
        // A list of one order.
        words(&[1_032, 1, 0, 6, 1, 1_024, 0]),
    ]
}
