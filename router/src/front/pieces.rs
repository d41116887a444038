//! Long answers, made and sent piece by piece: a queue or a history of thousands of prompts is never in memory as a
//! whole.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::answer::{self, Answered};
use crate::comfy::history as shapes;
use crate::ledger::{self, HistorySeq, LedgerError, Part};
use crate::model::id::JobId;
use crate::model::job::{Body as Prompt, Job};
use crate::scheduler::QueueView;

/// A piece is sent when it has reached this size, in bytes.
const PIECE: usize = 256 << 10;
/// What an entry of the queue takes beside its prompt, mostly.
const AROUND: usize = 512;
/// Entries read from the ledger at a time.
const ROWS: usize = 16;

/// One piece is an answer of known length; more are sent as they are made. A failure after the first two ends the
/// connection, so that no client takes a part for the whole.
pub(super) async fn answer(
    pieces: impl Stream<Item = Result<String, LedgerError>> + Send + 'static,
) -> Answered {
    let mut pieces = Box::pin(pieces.map_ok(Bytes::from));
    let first = pieces.try_next().await?.unwrap_or_default();
    let Some(second) = pieces.try_next().await? else { return Ok(answer::json_text(first)) };
    let all = stream::iter([Ok(first), Ok(second)]).chain(pieces);
    let logged = all.inspect_err(|error| tracing::error!(%error, "a long answer broke off"));
    let mut answer = Response::new(Body::from_stream(logged));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    Ok(answer)
}

/// `{"queue_running": [...], "queue_pending": [...]}`
pub(super) fn queue(
    ledger: ledger::Handle,
    view: &QueueView,
) -> impl Stream<Item = Result<String, LedgerError>> + Send + use<> {
    let jobs = |jobs: &[Arc<Job>]| jobs.iter().cloned().map(Item::Job).collect::<Vec<_>>();
    let mut parts = vec![Item::Text(r#"{"queue_running": ["#)];
    parts.extend(jobs(&view.running));
    parts.push(Item::Text(r#"], "queue_pending": ["#));
    parts.extend(jobs(&view.pending));
    parts.push(Item::Text("]}"));
    let left = Queue { ledger, parts: parts.into_iter(), first: true };
    stream::try_unfold(left, |mut left| async move { Ok(left.piece().await?.map(|piece| (piece, left))) })
}

enum Item {
    Text(&'static str),
    Job(Arc<Job>),
}

struct Queue {
    ledger: ledger::Handle,
    parts: std::vec::IntoIter<Item>,
    /// No item of the list has been written yet.
    first: bool,
}

impl Queue {
    async fn piece(&mut self) -> Result<Option<String>, LedgerError> {
        if self.parts.len() == 0 {
            return Ok(None);
        }
        let mut text = String::new();
        while text.len() < PIECE {
            let (some, bytes) = self.next_parts();
            if some.is_empty() {
                break;
            }
            // At once: growing step by step, it would be copied, and end up to twice as large as what is in it.
            text.reserve(bytes + some.len() * AROUND);
            self.write(some, &mut text).await?;
        }
        Ok(Some(text))
    }

    /// As many as fill a piece, and their size.
    fn next_parts(&mut self) -> (Vec<Item>, usize) {
        let (mut some, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE
            && let Some(part) = self.parts.next()
        {
            bytes += if let Item::Job(job) = &part { job.body.text_bytes() } else { 0 };
            some.push(part);
        }
        (some, bytes)
    }

    async fn write(&mut self, parts: Vec<Item>, text: &mut String) -> Result<(), LedgerError> {
        let stored = |part: &Item| match part {
            Item::Job(job) if job.body.stored.is_some() => Some(job.id),
            _ => None,
        };
        let wanted: Vec<JobId> = parts.iter().filter_map(stored).collect();
        let mut read = match wanted.is_empty() {
            true => Default::default(),
            false => self.ledger.texts(wanted).await?,
        };
        for part in parts {
            let job = match part {
                Item::Text(words) => {
                    text.push_str(words);
                    self.first = true;
                    continue;
                }
                Item::Job(job) if job.body.stored.is_none() => job,
                Item::Job(job) => {
                    // Without texts it has gone from the queue meanwhile.
                    let Some(texts) = read.remove(&job.id) else { continue };
                    Arc::new(Job { body: Arc::new(Prompt::with_texts(&job.body, texts)), ..Job::clone(&job) })
                }
            };
            text.push_str(if self.first { "" } else { ", " });
            shapes::push_queue_item(text, &job);
            self.first = false;
        }
        Ok(())
    }
}

/// `{prompt_id: entry, ...}` in the order given.
pub(super) fn history(
    ledger: ledger::Handle,
    seqs: Vec<HistorySeq>,
) -> impl Stream<Item = Result<String, LedgerError>> + Send {
    let left = History { ledger, seqs, at: 0, text: "{".to_owned(), first: true, done: false };
    stream::try_unfold(left, |mut left| async move { Ok(left.piece().await?.map(|piece| (piece, left))) })
}

struct History {
    ledger: ledger::Handle,
    seqs: Vec<HistorySeq>,
    at: usize,
    text: String,
    first: bool,
    done: bool,
}

impl History {
    async fn piece(&mut self) -> Result<Option<String>, LedgerError> {
        if self.done {
            return Ok(None);
        }
        while self.text.len() < PIECE && self.at < self.seqs.len() {
            let end = self.seqs.len().min(self.at + ROWS);
            let some = self.seqs[self.at..end].to_vec();
            self.at = end;
            for row in self.ledger.history_rows(some, Part::Whole).await? {
                self.text.push_str(if self.first { "" } else { ", " });
                self.text.push_str(&shapes::listed_entry(&row.job, row.ended_before, &row.history));
                self.first = false;
            }
        }
        if self.at == self.seqs.len() {
            self.done = true;
            self.text.push('}');
        }
        Ok(Some(std::mem::take(&mut self.text)))
    }
}
