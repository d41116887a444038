//! `/api/jobs`: the queue and the history as newer frontends ask for them.

use hyper::StatusCode;
use serde_json::json;

use super::answer::{self, Answered};
use super::{Call, Front};
use crate::comfy::jobs::{self, JobsQuery, Listed, State};
use crate::ledger::{HistoryQuery, HistoryRow};
use crate::model::job::Job;
use crate::scheduler::QueueView;

/// Finished jobs that a list looks at: the newest. The texts of all 10 000 would be some hundred MB.
const LISTED: i64 = 1_000;

impl Front {
    pub(super) async fn jobs(&self, call: Call) -> Answered {
        let query = match JobsQuery::parse(&call.query()) {
            Ok(query) => query,
            Err(error) => return Ok(answer::json_value(StatusCode::BAD_REQUEST, &json!({"error": error}))),
        };
        let open = match query.wants_queue() {
            true => self.open_jobs(&call.caller).await?,
            false => QueueView::default(),
        };
        let mut rows = match query.wants_history() {
            true => self.parts.ledger.history(HistoryQuery { max_items: Some(LISTED), offset: -1 }).await?,
            false => Vec::new(),
        };
        rows.retain(|row| call.caller.may_see(&row.job.tenant));
        Ok(answer::json_value(StatusCode::OK, &jobs::list(&query, listed(&open, &rows))))
    }

    pub(super) async fn job(&self, call: Call) -> Answered {
        let id = call.params.first().map(String::as_str).unwrap_or_default();
        // The queue first: a job that ends in between is then found in the history.
        let open = self.open_jobs(&call.caller).await?;
        let detail = match listed(&open, &[]).into_iter().find(|listed| listed.job.prompt_id == id) {
            Some(listed) => Some(listed.detail()),
            None => {
                let row = self.parts.ledger.history_of(id).await?;
                row.filter(|row| call.caller.may_see(&row.job.tenant)).map(|row| ended(&row).detail())
            }
        };
        Ok(match detail {
            Some(detail) => answer::json_value(StatusCode::OK, &detail),
            None => answer::json_value(StatusCode::NOT_FOUND, &json!({"error": "Job not found"})),
        })
    }
}

fn listed<'a>(open: &'a QueueView, rows: &'a [HistoryRow]) -> Vec<Listed<'a>> {
    let running = open.running.iter().map(|job| (job, State::InProgress));
    let open = running.chain(open.pending.iter().map(|job| (job, State::Pending)));
    let open = open.map(|(job, state)| Listed { job: job.as_ref() as &Job, state });
    open.chain(rows.iter().map(ended)).collect()
}

fn ended(row: &HistoryRow) -> Listed<'_> {
    Listed { job: &row.job, state: State::Ended { outcome: row.outcome, history: &row.history } }
}
