//! Messages that the router itself makes.

use serde_json::{Value, json};

use super::Utf8Bytes;
use crate::model::job::WallMs;

fn event(kind: &str, data: Value) -> Utf8Bytes {
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

pub fn execution_success(prompt_id: &str, at: WallMs) -> Utf8Bytes {
    event("execution_success", json!({"prompt_id": prompt_id, "timestamp": at}))
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

/// `data` of an interruption that no instance reports.
pub fn interrupted_data(prompt_id: &str, at: WallMs) -> Value {
    json!({"prompt_id": prompt_id, "node_id": "", "node_type": "", "executed": [], "timestamp": at})
}

pub fn execution_interrupted(prompt_id: &str, at: WallMs) -> Utf8Bytes {
    event("execution_interrupted", interrupted_data(prompt_id, at))
}
