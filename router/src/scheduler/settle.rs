//! What became of an attempt: from its instance's own history if it can be asked, from the events seen if not.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::comfy::files;
use crate::comfy::frame::JobError;
use crate::comfy::json::quote;
use crate::fleet;
use crate::model::event::History;
use crate::model::id::UpstreamId;
use crate::model::job::{Attempt, Job};
use crate::relay::{Evidence, Verdict};

use super::dispatch;
use super::input::{EndKind, Ending, Input, InstanceChange, Sighting};

/// ComfyUI writes the history entry within milliseconds of the last event, unless it collects garbage just then.
const HISTORY_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Of an error's text, in one line of the log.
const MAX_DETAIL: usize = 500;

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    outputs: &'a RawValue,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Status {
    status_str: String,
    #[serde(default)]
    messages: Vec<(String, Value)>,
}

/// The end of an attempt whose instance said that it is over.
pub(super) async fn ending(
    fleet: &fleet::Handle,
    job: &Job,
    attempt: &Attempt,
    evidence: &Evidence,
) -> Ending {
    let (kind, detail) = verdict(&evidence.verdict);
    let history = match wait_for_history(fleet, attempt).await {
        Some(entry) => from_entry(&entry, job, attempt),
        None => None,
    };
    let history = history.unwrap_or_else(|| from_evidence(evidence, attempt));
    Ending { kind, detail, history, load_ms: evidence.load_ms }
}

async fn wait_for_history(fleet: &fleet::Handle, attempt: &Attempt) -> Option<String> {
    let mut pause = FIRST_PAUSE;
    let wait = async {
        loop {
            match fleet.history(&attempt.instance, attempt.upstream_id).await {
                Ok(Some(entry)) => return Some(entry),
                Ok(None) => {}
                // Gone, most likely: the events are all there is.
                Err(_) => return None,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::time::timeout(HISTORY_PATIENCE, wait).await.ok().flatten()
}

fn verdict(verdict: &Verdict) -> (EndKind, String) {
    match verdict {
        Verdict::Success => (EndKind::Success, String::new()),
        Verdict::Interrupted => (EndKind::Interrupted, "interrupted".into()),
        Verdict::Error(error) => {
            let kind = if error.is_out_of_memory() { EndKind::OutOfMemory } else { EndKind::NodeError };
            let what = format!("{} ({}): {}", error.node_type, error.node_id, error.exception_message.trim());
            (kind, clip(&what))
        }
    }
}

fn clip(text: &str) -> String {
    crate::comfy::errors::clip(text, MAX_DETAIL).to_owned()
}

/// Ask the instance what it knows of an attempt.
pub(super) async fn inspect(fleet: &fleet::Handle, job: &Job, attempt: &Attempt) -> Option<Input> {
    let sighting = look(fleet, job, attempt).await?;
    Some(Input::Attempt { job: job.id, number: attempt.number, sighting })
}

/// Queue first, then history: an attempt that ends in between is found by the second look.
async fn look(fleet: &fleet::Handle, job: &Job, attempt: &Attempt) -> Option<Sighting> {
    let upstream = attempt.upstream_id.to_string();
    let queue = fleet.queue(&attempt.instance).await.ok()?;
    if queue.running.contains(&upstream) {
        return Some(Sighting::Present { stuck: false });
    }
    if queue.pending.contains(&upstream) {
        return Some(Sighting::Present { stuck: queue.running.is_empty() });
    }
    match fleet.history(&attempt.instance, attempt.upstream_id).await.ok()? {
        Some(entry) => Some(found(&entry, job, attempt)),
        None => Some(Sighting::Absent),
    }
}

/// Does the instance still have an attempt that was given up? Then it is told again to let go of it.
pub(super) async fn zombie(fleet: &fleet::Handle, index: usize, upstream: UpstreamId) -> Option<Input> {
    let instance = fleet.instances().get(index)?.id.clone();
    let queue = fleet.queue(&instance).await.ok()?;
    let id = upstream.to_string();
    if !queue.running.contains(&id) && !queue.pending.contains(&id) {
        return Some(Input::Instance { index, change: InstanceChange::ZombieGone(upstream) });
    }
    dispatch::stop(fleet, &instance, upstream).await
}

fn found(entry: &str, job: &Job, attempt: &Attempt) -> Sighting {
    let Some(history) = from_entry(entry, job, attempt) else { return Sighting::Absent };
    let (kind, detail) = judged(&history.status);
    Sighting::Ended(Ending { kind, detail, history, load_ms: 0 })
}

/// The end that a history entry's status tells of.
fn judged(status: &str) -> (EndKind, String) {
    let Ok(status) = crate::comfy::json::parse::<Status>(status.as_bytes()) else {
        return (EndKind::Success, String::new());
    };
    let message =
        |kind: &str| status.messages.iter().rev().find(|(name, _)| name == kind).map(|(_, data)| data);
    if let Some(error) = message("execution_error") {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let data = crate::comfy::frame::ErrorData {
            node_id: text("node_id"),
            node_type: text("node_type"),
            exception_type: text("exception_type"),
            exception_message: text("exception_message"),
        };
        return verdict(&Verdict::Error(Box::new(data)));
    }
    match status.status_str.as_str() {
        "success" => (EndKind::Success, String::new()),
        _ if message("execution_interrupted").is_some() => (EndKind::Interrupted, "interrupted".into()),
        _ => (EndKind::NodeError, "the instance recorded an error".into()),
    }
}

/// From the instance's entry: under the client's prompt id, files tagged with their instance.
fn from_entry(entry: &str, job: &Job, attempt: &Attempt) -> Option<History> {
    let renamed = entry.replace(&quote(&attempt.upstream_id.to_string()), &quote(&job.prompt_id));
    let entry: Entry<'_> = serde_json::from_str(&renamed).ok()?;
    let (outputs, files) = files::tag_outputs(entry.outputs.get().as_bytes(), &attempt.instance).ok()?;
    let text = |raw: Option<&RawValue>| raw.map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned());
    Some(History {
        outputs,
        status: text(entry.status),
        meta: text(entry.meta),
        node_errors: String::new(),
        files,
    })
}

fn from_evidence(evidence: &Evidence, attempt: &Attempt) -> History {
    let mut outputs = Map::new();
    for (node, output) in &evidence.outputs {
        if let Ok(output) = crate::comfy::json::parse(output.as_bytes()) {
            outputs.insert(node.clone(), output);
        }
    }
    let success = evidence.verdict == Verdict::Success;
    let raw = Value::Object(outputs).to_string();
    let (outputs, files) = files::tag_outputs(raw.as_bytes(), &attempt.instance).unwrap_or_default();
    let status = format!(
        r#"{{"status_str":"{}","completed":{success},"messages":[{}]}}"#,
        if success { "success" } else { "error" },
        evidence.messages.join(",")
    );
    History { outputs, status, meta: "{}".into(), node_errors: String::new(), files }
}

/// What an instance's 400 says: one line, and what history keeps of it.
pub(super) fn rejection(job: &Job, body: &[u8]) -> (String, History) {
    let body: Value = crate::comfy::json::parse(body).unwrap_or_default();
    let node_errors = body.get("node_errors").map_or_else(|| "{}".to_owned(), Value::to_string);
    let detail = clip(&refusal(&body));
    let error = JobError::new(JobError::REFUSED, &detail, &node_errors);
    let status = json!({
        "status_str": "error",
        "completed": false,
        "messages": [["execution_error", error.data(&job.prompt_id, job.accepted_at)]],
    });
    let history = History {
        outputs: "{}".into(),
        status: status.to_string(),
        meta: "{}".into(),
        node_errors,
        files: Vec::new(),
    };
    (detail, history)
}

/// One line of what an instance says: its message, and the first error of each node, which may be all it says.
fn refusal(body: &Value) -> String {
    let message = body["error"]["message"].as_str().unwrap_or("the instance refused the prompt");
    let details = body["error"]["details"].as_str().unwrap_or_default();
    let of_nodes = body["node_errors"].as_object().into_iter().flatten().filter_map(|(id, node)| {
        let first = &node["errors"][0];
        let class = node["class_type"].as_str()?;
        Some(format!("{class} ({id}): {}: {}", first["message"].as_str()?, first["details"].as_str()?))
    });
    let told: Vec<String> =
        Some(format!("{message} {details}").trim().to_owned()).into_iter().chain(of_nodes).collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_repeats_half_a_character_of_the_prompt_is_an_error() {
        let status = r#"{"status_str": "error", "completed": false, "messages": [["execution_error",
            {"node_id": "3", "node_type": "N", "exception_type": "ValueError", "exception_message": "no \ud83d",
            "current_inputs": {"text": ["\ude00"]}}]]}"#;
        let (kind, detail) = judged(status);
        assert_eq!((kind, detail.as_str()), (EndKind::NodeError, "N (3): no \u{fffd}"));
        assert_eq!(judged("{}").0, EndKind::Success, "old entries have no status");
    }
}
