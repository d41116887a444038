//! The binary: ready line, abort, kill, and what the oracle file knows afterwards.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use comfyui_emulator::{Execution, Outcome};
use serde_json::{Value, json};

use crate::client::{Http, plain};

/// A process that does not outlive its test.
struct Process {
    child: Child,
    http: Http,
}

impl Process {
    fn start(dir: &Path, extra: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_comfyui-emulator"))
            .args(["--dir", dir.join("comfy").to_str().expect("utf-8")])
            .args(["--oracle", dir.join("oracle.jsonl").to_str().expect("utf-8")])
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").expect("the ready line").to_owned();
        Self { child, http: Http::new(&url) }
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn oracle(dir: &Path) -> Vec<Value> {
    let mut text = String::new();
    std::fs::File::open(dir.join("oracle.jsonl"))
        .expect("the oracle")
        .read_to_string(&mut text)
        .expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

#[tokio::test]
async fn a_killed_process_leaves_files_and_oracle() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(dir.path(), &["--flavour", "0.3.64"]);
    process.http.prompt(&plain(3, "kept"), None).await;
    process.http.get("/emulator/executions?ended=1").await;
    process.http.post("/emulator/gate", &json!({ "hold": true })).await;
    let lost = process.http.prompt(&plain(4, "lost"), None).await;
    process.http.get("/emulator/gate?held=1").await;
    process.kill();

    let lines = oracle(dir.path());
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().expect("an event")).collect();
    assert_eq!(events, ["started", "ended", "started"]);
    assert_eq!(lines[2]["prompt_id"], json!(lost));

    let again = Process::start(dir.path(), &[]);
    assert_eq!(again.http.get("/history").await.json(), json!({}));
    assert_eq!(again.http.get("/view?filename=kept_00001_.png").await.status, 200);
    assert_eq!(again.http.get("/system_stats").await.json()["system"]["comfyui_version"], "0.8.0");
}

#[tokio::test]
async fn a_scripted_crash_aborts_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(dir.path(), &[]);
    process.http.post("/emulator/fault", &json!({ "fault": "crash", "at": { "after_nodes": 1 } })).await;
    process.http.prompt(&plain(3, "x"), None).await;
    let status = process.child.wait().expect("it ends");
    assert!(!status.success());
    assert_eq!(oracle(dir.path()).len(), 1);
}

#[tokio::test]
async fn flags_shape_the_instance() {
    let dir = tempfile::tempdir().expect("a folder");
    let arguments = [
        "--gpu",
        "3",
        "--vram-mib",
        "9000",
        "--model",
        "loras/x.safetensors:5",
        "--node",
        "Mine",
        "--without",
        "KSampler",
    ];
    let process = Process::start(dir.path(), &arguments);
    let gpu = process.http.get("/emulator/gpu").await.json();
    assert_eq!((&gpu["index"], &gpu["memory_total_mib"]), (&json!(3), &json!(9000)));
    assert_eq!(process.http.get("/models/loras").await.json(), json!(["x.safetensors"]));
    assert_eq!(process.http.get("/object_info/KSampler").await.json(), json!({}));
    let mut prompt = plain(6, "custom");
    prompt["2"]["inputs"]["images"] = json!(["3", 0]);
    prompt["3"] = json!({ "class_type": "Mine", "inputs": { "image": ["1", 0] } });
    process.http.prompt(&prompt, None).await;
    let ran = process.http.get("/emulator/executions?ended=1").await.json()["executions"].clone();
    let ran: Vec<Execution> = serde_json::from_value(ran).expect("executions");
    assert_eq!((ran[0].outcome, ran[0].nodes_run.len()), (Some(Outcome::Success), 3));
}
