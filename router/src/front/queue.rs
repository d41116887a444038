//! The queue: how long it is, what is in it, taking jobs out and interrupting them.
//!
//! `clear`, and `/interrupt` without an id, mean the caller's own tenant: HTTP requests carry no client id, and what
//! is harmless with one user and one instance would end other people's jobs here. Where nobody uses `Comfy-User` or
//! keys, everybody is the tenant `default` and both mean everything, as in ComfyUI.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::answer::{self, Answer, Answered, Failed};
use super::change::{self, Change, Interrupted};
use super::gate::Caller;
use super::pieces;
use super::{Call, Front, body};
use crate::metrics::RouteKind;
use crate::scheduler::QueueView;
use crate::scheduler::input::{Scope, Target};

impl Front {
    pub(super) fn remaining(&self) -> Answer {
        let remaining = self.parts.scheduler.remaining();
        answer::json_text(format!(r#"{{"exec_info": {{"queue_remaining": {remaining}}}}}"#))
    }

    pub(super) async fn queue(&self, call: Call) -> Answered {
        let view = self.open_jobs(&call.caller).await?;
        pieces::answer(pieces::queue(self.parts.ledger.clone(), &view)).await
    }

    /// The open jobs that the caller may see.
    pub(super) async fn open_jobs(&self, caller: &Caller) -> Result<Arc<QueueView>, Failed> {
        let view = self.parts.scheduler.queue().await?;
        if !caller.apart {
            return Ok(view);
        }
        let mut own = QueueView::clone(&view);
        own.running.retain(|job| caller.may_see(&job.tenant));
        own.pending.retain(|job| caller.may_see(&job.tenant));
        Ok(Arc::new(own))
    }

    /// Only waiting jobs can be taken out; unknown ids are ignored.
    pub(super) async fn change_queue(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        let Change { clear, delete } = Change::read(&body)?;
        let scheduler = &self.parts.scheduler;
        if clear {
            scheduler.clear(Scope::Tenant(caller.tenant.clone())).await?;
        }
        if !delete.is_empty() {
            scheduler.delete(delete, reach(&caller)).await?;
        }
        Ok(answer::ok())
    }

    pub(super) async fn interrupt(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        match Interrupted::read(&body)? {
            // The id says which job is meant; where ComfyUI leaves one alone that waits, a client that named it (the
            // page's own queue panel does) wants it gone.
            Interrupted::Prompt(id) => self.parts.scheduler.cancel(vec![id], reach(&caller)).await?,
            Interrupted::Running => {
                let mine = Scope::Tenant(caller.tenant);
                self.parts.scheduler.interrupt(Target::Running(mine)).await?
            }
            Interrupted::Nothing => 0,
        };
        Ok(answer::ok())
    }

    /// `POST /api/jobs/{id}/cancel`: a running job is interrupted, a waiting one taken out.
    pub(super) async fn cancel_job(&self, call: Call) -> Answered {
        self.cancel(&call.caller, call.params).await
    }

    pub(super) async fn cancel_jobs(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        match change::job_ids(&body) {
            Ok(ids) => self.cancel(&caller, ids).await,
            Err(refusal) => Ok(answer::json_value(StatusCode::BAD_REQUEST, &refusal)),
        }
    }

    async fn cancel(&self, caller: &Caller, ids: Vec<String>) -> Answered {
        let cancelled = self.parts.scheduler.cancel(ids, reach(caller)).await?;
        Ok(answer::json_value(StatusCode::OK, &json!({"cancelled": cancelled > 0})))
    }

    pub(super) async fn command(&self, call: Call) -> Result<(Caller, bytes::Bytes), Failed> {
        let body = body::read(call.request, self.limits.body_bytes, RouteKind::Here).await?;
        Ok((call.caller, body))
    }
}

/// Whose jobs a caller may change by naming them.
fn reach(caller: &Caller) -> Scope {
    if caller.apart { Scope::Tenant(caller.tenant.clone()) } else { Scope::Everybody }
}
