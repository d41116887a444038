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

/// What a socket is told on connecting while a job of its runs. No prompt id: ComfyUI sends none either.
pub fn executing_now(display_node: &str) -> Utf8Bytes {
    event("executing", json!({"node": display_node}))
}

/// The last event of every job.
pub fn executing_done(prompt_id: &str) -> Utf8Bytes {
    event("executing", json!({"node": null, "prompt_id": prompt_id}))
}

/// What ended a job that no instance reports the end of. All of ComfyUI's members are there: clients index them.
#[derive(Debug, Clone, Default)]
pub struct JobError<'a> {
    pub node_id: &'a str,
    pub node_type: &'a str,
    pub exception_type: &'a str,
    pub exception_message: &'a str,
}

impl JobError<'_> {
    /// The event's `data`, which is also the history message's.
    pub fn data(&self, prompt_id: &str, at: WallMs) -> Value {
        json!({
            "prompt_id": prompt_id,
            "node_id": self.node_id,
            "node_type": self.node_type,
            "executed": [],
            "exception_message": self.exception_message,
            "exception_type": self.exception_type,
            "traceback": [],
            "current_inputs": {},
            "current_outputs": [],
            "timestamp": at,
        })
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
