//! The queue: how long it is, what is in it, taking jobs out and interrupting them.
//!
//! `clear`, and `/interrupt` without an id, mean the caller's own tenant: HTTP requests carry no client id, and what
//! is harmless with one user and one instance would end other people's jobs here. Where nobody uses `Comfy-User` or
//! keys, everybody is the tenant `default` and both mean everything, as in ComfyUI.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer, Answered};
use super::gate::Caller;
use super::{Call, Front, body};
use crate::comfy::history;
use crate::metrics::RouteKind;
use crate::scheduler::QueueView;
use crate::scheduler::input::{Scope, Target};

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Change {
    pub(super) clear: Value,
    pub(super) delete: Vec<Value>,
}

impl Change {
    pub(super) fn clears(&self) -> bool {
        !matches!(&self.clear, Value::Null | Value::Bool(false))
    }

    pub(super) fn ids(self) -> Vec<String> {
        self.delete.into_iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
    }
}

impl Front {
    pub(super) fn remaining(&self) -> Answer {
        let remaining = self.parts.scheduler.remaining();
        answer::json_text(format!(r#"{{"exec_info": {{"queue_remaining": {remaining}}}}}"#))
    }

    pub(super) async fn queue(&self, call: Call) -> Answered {
        let view = self.open_jobs(&call.caller).await?;
        let running = view.running.iter().map(AsRef::as_ref);
        Ok(answer::json_text(history::queue(running, view.pending.iter().map(AsRef::as_ref))))
    }

    /// The open jobs that the caller may see.
    pub(super) async fn open_jobs(&self, caller: &Caller) -> Result<QueueView, answer::Failed> {
        let mut view = self.parts.scheduler.queue().await?;
        view.running.retain(|job| caller.may_see(&job.tenant));
        view.pending.retain(|job| caller.may_see(&job.tenant));
        Ok(view)
    }

    /// Only waiting jobs can be taken out; unknown ids are ignored.
    pub(super) async fn change_queue(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        let Some(change) = body::parsed::<Change>(&body)? else { return Ok(answer::ok()) };
        if change.clears() {
            self.parts.scheduler.clear(Scope::Tenant(caller.tenant.clone())).await?;
        }
        let ids = self.own(&caller, change.ids()).await?;
        if !ids.is_empty() {
            self.parts.scheduler.delete(ids).await?;
        }
        Ok(answer::ok())
    }

    pub(super) async fn interrupt(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        // As in ComfyUI a body that cannot be read means no id.
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        let id = body
            .as_ref()
            .and_then(|body| body.get("prompt_id"))
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty());
        match id {
            // The id says which job is meant; where ComfyUI leaves one alone that waits, a client that named it (the
            // page's own queue panel does) wants it gone.
            Some(id) => {
                self.cancel(&caller, vec![id.to_owned()]).await?;
            }
            None => {
                let mine = Scope::Tenant(caller.tenant);
                self.parts.scheduler.interrupt(Target::Running(mine)).await?;
            }
        }
        Ok(answer::ok())
    }

    /// `POST /api/jobs/{id}/cancel`: a running job is interrupted, a waiting one taken out.
    pub(super) async fn cancel_job(&self, call: Call) -> Answered {
        let cancelled = self.cancel(&call.caller, call.params).await?;
        Ok(answer::json_value(StatusCode::OK, &json!({"cancelled": cancelled > 0})))
    }

    pub(super) async fn cancel_jobs(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        let error = |text: &str| answer::json_value(StatusCode::BAD_REQUEST, &json!({"error": text}));
        let Ok(body) = serde_json::from_slice::<Value>(&body) else {
            return Ok(error("Request body must be valid JSON"));
        };
        let Some(ids) = body.get("job_ids").and_then(Value::as_array) else {
            return Ok(error("job_ids must be a list"));
        };
        let invalid: Vec<&Value> = ids.iter().filter(|id| !id.is_string()).take(100).collect();
        if !invalid.is_empty() {
            let body = json!({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid});
            return Ok(answer::json_value(StatusCode::BAD_REQUEST, &body));
        }
        let ids = ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        let cancelled = self.cancel(&caller, ids).await?;
        Ok(answer::json_value(StatusCode::OK, &json!({"cancelled": cancelled > 0})))
    }

    /// A job that starts between the two steps is caught by the second.
    async fn cancel(&self, caller: &Caller, ids: Vec<String>) -> Result<usize, answer::Failed> {
        let ids = self.own(caller, ids).await?;
        let mut cancelled = self.parts.scheduler.delete(ids.clone()).await?;
        for id in ids {
            cancelled += self.parts.scheduler.interrupt(Target::Prompt(id)).await?;
        }
        Ok(cancelled)
    }

    /// Those of the ids that the caller may change.
    async fn own(&self, caller: &Caller, ids: Vec<String>) -> Result<Vec<String>, answer::Failed> {
        if !caller.apart || ids.is_empty() {
            return Ok(ids);
        }
        let view = self.open_jobs(caller).await?;
        let mine: std::collections::HashSet<&str> =
            view.running.iter().chain(&view.pending).map(|job| job.prompt_id.as_str()).collect();
        Ok(ids.into_iter().filter(|id| mine.contains(id.as_str())).collect())
    }

    pub(super) async fn command(&self, call: Call) -> Result<(Caller, bytes::Bytes), answer::Failed> {
        let body = body::read(call.request, self.limits.body_bytes, RouteKind::Here).await?;
        Ok((call.caller, body))
    }
}
