//! The whole script of ComfyUI's recorded sessions, played against an emulated ComfyUI and against the router in front
//! of another one: what differs is written down in `docs/compatibility.md`.

use comfy_router_tests::Serve;
use comfy_router_tests::replay::{Asked, Stage, Transcript, differences, known, play};
use comfyui_emulator::{Config, Emulator, Flavour, Models};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/compatibility.md");
const RECORDINGS: [&str; 2] = [
    include_str!("../../recordings/comfyui-0.3.64.jsonl"),
    include_str!("../../recordings/comfyui-0.8.0.jsonl"),
];

async fn emulator(flavour: Flavour) -> Emulator {
    let config = Config { flavour, models: Models::none(), ..Config::default() };
    Emulator::start(config).await.expect("an emulator starts")
}

async fn plays(flavour: Flavour) -> (Transcript, Transcript) {
    let alone = emulator(flavour).await;
    let direct = play(&alone.url(), Stage::Emulated(Box::new(alone.control()))).await;
    let behind = emulator(flavour).await;
    let router = Serve::over(vec![format!("i0={}", behind.url())]).start().await;
    let routed = play(router.url(), Stage::Emulated(Box::new(behind.control()))).await;
    (direct, routed)
}

async fn the_router_is_taken_for(flavour: Flavour) {
    let (direct, routed) = plays(flavour).await;
    assert!(direct.entries.len() > 100, "the whole script was played");
    let differences = differences(&direct, &routed);
    let unexplained: Vec<String> =
        differences.iter().filter(|one| one.known.is_none()).map(ToString::to_string).collect();
    assert!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
}

#[tokio::test]
async fn the_router_is_taken_for_comfyui_0_3_64() {
    the_router_is_taken_for(Flavour::V0_3_64).await;
}

#[tokio::test]
async fn the_router_is_taken_for_comfyui_0_8_0() {
    the_router_is_taken_for(Flavour::V0_8_0).await;
}

#[tokio::test]
async fn every_recorded_request_is_played() {
    let alone = emulator(Flavour::V0_8_0).await;
    let played = play(&alone.url(), Stage::Emulated(Box::new(alone.control()))).await.asked;
    for recording in RECORDINGS {
        let lines = recording.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
        for line in lines.filter(|line| line["kind"] == "http") {
            let recorded = asked(&line);
            assert!(played.iter().any(|own| shape(own) == shape(&recorded)), "not played: {recorded:?}");
        }
    }
}

fn asked(line: &Value) -> Asked {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let body = match (&line["upload"], &line["raw"], &line["request"]) {
        (Value::Object(upload), ..) => {
            serde_json::json!({"filename": upload["filename"], "fields": upload["fields"]})
        }
        (_, Value::String(raw), _) => Value::String(raw.clone()),
        (_, _, request) => request.clone(),
    };
    Asked { method: text("method"), path: text("path"), body }
}

/// What stays the same when ids and the length of long jobs are others.
fn shape(asked: &Asked) -> (String, String, Vec<String>) {
    let path: Vec<String> =
        asked.path.split('/').map(|part| if is_id(part) { "<id>".into() } else { part.to_owned() }).collect();
    let mut keys: Vec<String> =
        asked.body.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    if let Some(prompt) = asked.body["prompt"].as_object() {
        let classes = prompt.values().filter_map(|node| node["class_type"].as_str().map(str::to_owned));
        let mut classes: Vec<String> = classes.collect();
        classes.sort();
        classes.dedup();
        keys.push(classes.join(","));
    }
    keys.sort();
    (asked.method.clone(), path.join("/"), keys)
}

fn is_id(part: &str) -> bool {
    part.starts_with('<') || (part.len() == 36 && part.matches('-').count() == 4)
}

#[test]
fn every_known_difference_is_written_down() {
    for key in known::keys() {
        assert!(DOCUMENT.contains(&format!("`{key}`")), "docs/compatibility.md has no row `{key}`");
    }
}
