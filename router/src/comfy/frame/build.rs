//! Messages that the router itself makes.

use serde_json::{Value, json};

use super::Utf8Bytes;
use crate::model::job::{Job, JobOutcome, WallMs};

pub fn event(kind: &str, data: Value) -> Utf8Bytes {
    Utf8Bytes::from(json!({"type": kind, "data": data}).to_string())
}

/// Only the first `status` on a socket carries its sid.
pub fn status(remaining: usize, sid: Option<&str>) -> Utf8Bytes {
    let mut data = json!({"status": {"exec_info": {"queue_remaining": remaining}}});
    if let Some(sid) = sid {
        data["sid"] = Value::from(sid);
    }
    event("status", data)
}

pub fn feature_flags(flags: &Value) -> Utf8Bytes {
    event("feature_flags", flags.clone())
}

pub fn execution_start(prompt_id: &str, at: WallMs) -> Utf8Bytes {
    event("execution_start", json!({"prompt_id": prompt_id, "timestamp": at}))
}

/// The last event of every job.
pub fn executing_done(prompt_id: &str) -> Utf8Bytes {
    event("executing", json!({"node": null, "prompt_id": prompt_id}))
}

/// What ended a job that no instance reports the end of. All of ComfyUI's members are there: clients index them.
#[derive(Debug, Clone, Default)]
pub struct JobError {
    kind: String,
    message: String,
    /// The first node that the instance refused.
    node_id: String,
    node_type: String,
    /// What the instance answered to the prompt; null if it refused nothing.
    node_errors: Value,
}

impl JobError {
    /// The type of an error by which an instance refused a prompt.
    pub const REFUSED: &str = "comfy_router.Refused";

    /// `node_errors` as an instance's 400 has them, as JSON; empty when there are none.
    pub fn new(kind: &str, message: &str, node_errors: &str) -> Self {
        let node_errors: Value = serde_json::from_str(node_errors).unwrap_or_default();
        let first = node_errors.as_object().and_then(|nodes| nodes.iter().next());
        let (node_id, node_type) = first.map_or_else(Default::default, |(id, errors)| {
            (id.clone(), errors["class_type"].as_str().unwrap_or_default().to_owned())
        });
        Self { kind: kind.to_owned(), message: message.to_owned(), node_id, node_type, node_errors }
    }

    /// The event's `data`, which is also the history message's.
    pub fn data(&self, prompt_id: &str, at: WallMs) -> Value {
        let mut data = json!({
            "prompt_id": prompt_id,
            "node_id": self.node_id,
            "node_type": self.node_type,
            "executed": [],
            "exception_message": self.message,
            "exception_type": self.kind,
            "traceback": [],
            "current_inputs": {},
            "current_outputs": [],
            "timestamp": at,
        });
        if !self.node_errors.is_null() {
            data["node_errors"] = self.node_errors.clone();
        }
        data
    }

    pub fn event(&self, prompt_id: &str, at: WallMs) -> Utf8Bytes {
        event("execution_error", self.data(prompt_id, at))
    }
}

/// The event that ends a job whose end no instance tells: its kind and its data, which says what the router knows.
pub fn end_of(job: &Job, end: &UntoldEnd<'_>, at: WallMs) -> (&'static str, Value) {
    let (kind, retryable) = match end.outcome {
        JobOutcome::Success => {
            return ("execution_success", json!({"prompt_id": job.prompt_id, "timestamp": at}));
        }
        JobOutcome::Interrupted | JobOutcome::Cancelled => {
            return ("execution_interrupted", interrupted_data(&job.prompt_id, at));
        }
        JobOutcome::TimedOut => ("comfy_router.TimedOut", false),
        JobOutcome::Lost => ("comfy_router.Lost", true),
        JobOutcome::Unknown => ("comfy_router.Unknown", true),
        JobOutcome::Error => (JobError::REFUSED, false),
    };
    let mut data = JobError::new(kind, end.detail, end.node_errors).data(&job.prompt_id, at);
    data["comfy_router"] = json!({"job": job.id, "attempt": end.attempt, "retryable": retryable});
    ("execution_error", data)
}

/// What is known of such an end.
#[derive(Debug, Clone, Copy)]
pub struct UntoldEnd<'a> {
    pub outcome: JobOutcome,
    /// The last attempt's number, if there was one.
    pub attempt: Option<u32>,
    pub detail: &'a str,
    /// Of an instance's refusal, as JSON; empty when there is none.
    pub node_errors: &'a str,
}

/// `data` of an interruption that no instance reports.
fn interrupted_data(prompt_id: &str, at: WallMs) -> Value {
    json!({"prompt_id": prompt_id, "node_id": "", "node_type": "", "executed": [], "timestamp": at})
}
