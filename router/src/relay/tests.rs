//! Events in, messages out; the ledger's word in between.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;
use crate::clock::ManualClock;
use crate::comfy::frame::Utf8Bytes;
use crate::model::event::OutputFile;
use crate::sessions::{Connection, Payload};

struct World {
    relay: Handle,
    reports: mpsc::Receiver<Report>,
    sessions: sessions::Handle,
}

fn world() -> World {
    let (_, sessions) = sessions::Service::new(sessions::Config::default());
    let (sender, reports) = mpsc::channel(64);
    let relay = Handle::new(sender, sessions.clone(), Told::default(), Arc::new(ManualClock::default()));
    World { relay, reports, sessions }
}

fn job(client: Option<&str>) -> (Arc<Job>, Attempt) {
    let job = Job { client_id: client.map(str::to_owned), ..crate::scheduler::core::plain_job("t") };
    let attempt = Attempt {
        number: 1,
        upstream_id: UpstreamId::mint(),
        instance: InstanceId::from("gpu0"),
        started_at: 0,
    };
    (Arc::new(job), attempt)
}

impl World {
    fn register(&self, job: &Arc<Job>, attempt: &Attempt) {
        self.relay.register(job.clone(), attempt.clone());
    }

    async fn says(&self, text: String) {
        let frame = Frame::text(Utf8Bytes::from(text)).expect("an event");
        let event = FleetEvent { instance: InstanceId::from("gpu0"), kind: EventKind::Frame(frame) };
        self.relay.tell(event).await.expect("somebody takes reports");
    }

    /// Everything before has been handled when this report comes through.
    async fn flush(&mut self) -> Vec<Report> {
        let event = FleetEvent { instance: InstanceId::from("gpu0"), kind: EventKind::SocketDown };
        self.relay.tell(event).await.expect("somebody takes reports");
        let mut seen = Vec::new();
        loop {
            match self.reports.recv().await.expect("the relay is there") {
                Report::Fleet(_) => return seen,
                report => seen.push(report),
            }
        }
    }
}

async fn texts(connection: &Connection, count: usize) -> Vec<serde_json::Value> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let mut messages = Vec::new();
        connection.outbox.take(&mut messages).await.expect("open");
        for message in messages {
            if let Payload::Text(text) = message.payload {
                seen.push(serde_json::from_str(text.as_str()).expect("JSON"));
            }
        }
    }
    seen
}

fn kinds(messages: &[serde_json::Value]) -> Vec<&str> {
    messages.iter().map(|m| m["type"].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_job_is_told_of_under_its_own_id_and_its_end_waits_for_the_ledger() {
    let mut world = world();
    let client = world.sessions.connect(Some("c"), "t").expect("connects");
    let (job, attempt) = job(Some("c"));
    let upstream = attempt.upstream_id;
    world.register(&job, &attempt);
    world
        .says(format!(r#"{{"type":"execution_start","data":{{"prompt_id":"{upstream}","timestamp":1}}}}"#))
        .await;
    world
        .says(format!(r#"{{"type":"execution_success","data":{{"prompt_id":"{upstream}","timestamp":2}}}}"#))
        .await;
    world.says(format!(r#"{{"type":"executing","data":{{"node":null,"prompt_id":"{upstream}"}}}}"#)).await;
    let reports = world.flush().await;
    assert!(reports.iter().any(|r| matches!(r, Report::Over { .. })));
    let first = texts(&client, 2).await;
    assert_eq!(kinds(&first), ["status", "execution_start"]);
    assert_eq!(first[1]["data"]["prompt_id"], job.prompt_id.as_str());

    let end = End {
        job: job.clone(),
        outcome: JobOutcome::Success,
        attempt: Some(attempt),
        detail: String::new(),
        node_errors: String::new(),
        remaining: 0,
    };
    world.relay.announce(&end);
    let last = texts(&client, 3).await;
    assert_eq!(kinds(&last), ["execution_success", "status", "executing"]);
    assert_eq!(last[0]["data"]["prompt_id"], job.prompt_id.as_str());
    assert_eq!(last[2]["data"], serde_json::json!({"node": null, "prompt_id": job.prompt_id}));
}

#[tokio::test]
async fn nobody_hears_of_anothers_job_nor_of_one_that_is_not_ours() {
    let mut world = world();
    let mine = world.sessions.connect(Some("mine"), "t").expect("connects");
    let other = world.sessions.connect(Some("other"), "t").expect("connects");
    let (job, attempt) = job(Some("mine"));
    world.register(&job, &attempt);
    world
        .says(format!(r#"{{"type":"execution_start","data":{{"prompt_id":"{}"}}}}"#, attempt.upstream_id))
        .await;
    world.says(r#"{"type":"execution_start","data":{"prompt_id":"foreign"}}"#.into()).await;
    world.says(r#"{"type":"status","data":{"status":{"exec_info":{"queue_remaining":7}}}}"#.into()).await;
    world.flush().await;
    world.relay.status(1);
    assert_eq!(kinds(&texts(&mine, 3).await), ["status", "execution_start", "status"]);
    let others = texts(&other, 2).await;
    assert_eq!(others[1]["data"]["status"]["exec_info"]["queue_remaining"], 1);
}

#[tokio::test]
async fn files_carry_their_instance_and_are_remembered_as_evidence() {
    let mut world = world();
    let client = world.sessions.connect(Some("c"), "t").expect("connects");
    let (job, attempt) = job(Some("c"));
    let id = attempt.upstream_id;
    world.register(&job, &attempt);
    let output = r#"{"images":[{"filename":"ComfyUI_00001_.png","subfolder":"","type":"output"}]}"#;
    world.says(format!(r#"{{"type":"executed","data":{{"node":"3","display_node":"3","output":{output},"prompt_id":"{id}"}}}}"#)).await;
    world.says(format!(r#"{{"type":"execution_success","data":{{"prompt_id":"{id}"}}}}"#)).await;
    let reports = world.flush().await;
    let seen = texts(&client, 2).await;
    assert_eq!(seen[1]["data"]["output"]["images"][0]["subfolder"], "~gpu0");
    let evidence = reports.into_iter().find_map(|r| match r {
        Report::Over { evidence, .. } => Some(evidence),
        _ => None,
    });
    let evidence = evidence.expect("it is over");
    let file =
        OutputFile { kind: "output".into(), subfolder: String::new(), filename: "ComfyUI_00001_.png".into() };
    assert_eq!(evidence.files, [file]);
    assert_eq!(evidence.verdict, Verdict::Success);
    assert_eq!(evidence.outputs, [("3".to_owned(), output.to_owned())]);
}

#[tokio::test]
async fn an_end_that_no_instance_told_of_is_told_with_all_that_clients_look_at() {
    let world = world();
    let client = world.sessions.connect(Some("c"), "t").expect("connects");
    let (job, attempt) = job(Some("c"));
    let end = End {
        job,
        outcome: JobOutcome::Lost,
        attempt: Some(attempt),
        detail: "gone".into(),
        node_errors: String::new(),
        remaining: 2,
    };
    world.relay.announce(&end);
    let seen = texts(&client, 4).await;
    assert_eq!(kinds(&seen), ["status", "execution_error", "status", "executing"]);
    assert_eq!(seen[1]["data"]["exception_message"], "gone");
    assert!(seen[1]["data"]["traceback"].is_array() && seen[1]["data"]["node_id"].is_string());
}

#[tokio::test]
async fn progress_is_reported_now_and_then_and_loading_is_timed() {
    let (_, sessions) = sessions::Service::new(sessions::Config::default());
    let (sender, reports) = mpsc::channel(64);
    let clock = ManualClock::default();
    let relay = Handle::new(sender, sessions.clone(), Told::default(), Arc::new(clock.clone()));
    let mut world = World { relay, reports, sessions };
    let (plain, attempt) = job(None);
    let model = crate::model::job::ModelRef { folder: "checkpoints".into(), name: "m".into() };
    let needs = crate::model::job::Needs { models: vec![model], ..(*plain.needs).clone() };
    let prompt = r#"{"1":{"class_type":"CheckpointLoaderSimple","inputs":{}},"2":{"class_type":"KSampler","inputs":{}}}"#;
    let body = crate::model::job::Body { prompt: prompt.into(), ..(*plain.body).clone() };
    let job = Arc::new(Job { needs: needs.into(), body: body.into(), ..(*plain).clone() });
    let id = attempt.upstream_id;
    world.register(&job, &attempt);
    let at = |node: &str| format!(r#"{{"type":"executing","data":{{"node":"{node}","prompt_id":"{id}"}}}}"#);
    world.says(at("1")).await;
    world.flush().await;
    clock.advance(std::time::Duration::from_millis(3_100));
    world.says(at("2")).await;
    for value in 1..=4 {
        world
            .says(format!(
                r#"{{"type":"progress","data":{{"value":{value},"max":4,"prompt_id":"{id}","node":"2"}}}}"#
            ))
            .await;
    }
    let reports = world.flush().await;
    let progress = reports.iter().filter(|r| matches!(r, Report::Progress { .. })).count();
    assert_eq!(progress, 1, "one for the node, none for steps within the same moment");
    world.says(format!(r#"{{"type":"execution_success","data":{{"prompt_id":"{id}"}}}}"#)).await;
    let over = world.flush().await;
    assert!(matches!(&over[0], Report::Over { evidence, .. } if evidence.load_ms == 3_100));
}
