//! `/api/jobs`: the queue and the history as newer frontends ask for them.
//!
//! Filters, order and pages are found from a few columns of each job; texts are read for the page alone.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answered, Failed};
use super::history::alone;
use super::{Call, Front};
use crate::comfy::jobs::{JobsQuery, Key, Listed, State, Status};
use crate::ledger::{HistoryKey, HistoryRow, HistorySeq, Part};
use crate::model::id::JobId;
use crate::model::job::{Body, Job};
use crate::scheduler::QueueView;

/// Where the job of a list is.
enum Found {
    Open(Arc<Job>, State<'static>),
    Ended(HistorySeq),
}

impl Front {
    pub(super) async fn jobs(&self, call: Call) -> Answered {
        let query = match JobsQuery::parse(&call.query()) {
            Ok(query) => query,
            Err(error) => return Ok(answer::json_value(StatusCode::BAD_REQUEST, &json!({"error": error}))),
        };
        // The queue first: a job that ends in between is then in both, and shown once.
        let open = match query.wants_queue() {
            true => self.open_jobs(&call.caller).await?,
            false => Arc::default(),
        };
        let ended = match query.wants_history() {
            true => self.parts.ledger.history_keys(alone(&call.caller)).await?,
            false => Vec::new(),
        };
        let (page, total) = query.page(keys(&open, &ended));
        let jobs = self.shown(page).await?;
        Ok(answer::json_value(StatusCode::OK, &query.answer(jobs, total)))
    }

    /// Texts are read a few entries at a time.
    async fn shown(&self, page: Vec<Found>) -> Result<Vec<Value>, Failed> {
        const AT_ONCE: usize = 64;
        let mut jobs = Vec::with_capacity(page.len());
        for some in page.chunks(AT_ONCE) {
            let seq = |found: &Found| if let Found::Ended(seq) = found { Some(*seq) } else { None };
            let seqs: Vec<HistorySeq> = some.iter().filter_map(seq).collect();
            let rows = match seqs.is_empty() {
                true => Vec::new(),
                false => self.parts.ledger.history_rows(seqs, Part::Results).await?,
            };
            let mut rows = rows.iter().peekable();
            for found in some {
                match found {
                    Found::Open(job, state) => jobs.push(Listed { job, state: state.clone() }.object()),
                    // One that is not there any more was deleted meanwhile.
                    Found::Ended(seq) => {
                        jobs.extend(rows.next_if(|row| row.seq == *seq).map(|row| ended(row).object()))
                    }
                }
            }
        }
        Ok(jobs.into_iter().map(Value::Object).collect())
    }

    pub(super) async fn job(&self, call: Call) -> Answered {
        let id = call.params.first().map(String::as_str).unwrap_or_default();
        // The queue first: a job that ends in between is then found in the history.
        let open = self.parts.scheduler.find(id).await?.filter(|(job, _)| call.caller.may_see(&job.tenant));
        let open = match open {
            Some((job, runs)) => self.with_texts(job).await?.map(|job| (job, runs)),
            None => None,
        };
        let detail = match open {
            Some((job, true)) => Some(Listed { job: &job, state: State::InProgress }.detail()),
            Some((job, false)) => Some(Listed { job: &job, state: State::Pending }.detail()),
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

    /// None: it is over, and has no texts any more.
    async fn with_texts(&self, job: Arc<Job>) -> Result<Option<Arc<Job>>, Failed> {
        if job.body.stored.is_none() {
            return Ok(Some(job));
        }
        let texts = self.parts.ledger.texts(vec![job.id]).await?.remove(&job.id);
        let whole = |texts| Job { body: Arc::new(Body::with_texts(&job.body, texts)), ..Job::clone(&job) };
        Ok(texts.map(|texts| Arc::new(whole(texts))))
    }
}

fn keys<'a>(open: &'a QueueView, ended: &'a [HistoryKey]) -> Vec<Key<'a, Found>> {
    let mut keys = Vec::with_capacity(open.running.len() + open.pending.len() + ended.len());
    let over: HashSet<JobId> = ended.iter().rev().take(RECENT).map(|key| key.id).collect();
    let running = open.running.iter().map(|job| (job, State::InProgress));
    for (job, state) in running.chain(open.pending.iter().map(|job| (job, State::Pending))) {
        if over.contains(&job.id) {
            continue;
        }
        let listed = Listed { job, state: state.clone() };
        keys.push(Key {
            status: listed.status(),
            created: job.accepted_at,
            times: (None, None),
            workflow_id: job.body.workflow_id.as_deref(),
            item: Found::Open(job.clone(), state),
        });
    }
    keys.extend(ended.iter().map(|key| Key {
        status: Status::of(key.outcome),
        created: key.accepted_at,
        times: (key.began_at, key.done_at),
        workflow_id: key.workflow_id.as_deref(),
        item: Found::Ended(key.seq),
    }));
    keys
}

/// More jobs than can end between two questions.
const RECENT: usize = 1_000;

fn ended(row: &HistoryRow) -> Listed<'_> {
    Listed { job: &row.job, state: State::Ended { outcome: row.outcome, history: &row.history } }
}
