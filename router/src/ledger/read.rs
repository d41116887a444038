//! The queries. Each runs on a reader's connection, in one read transaction, and never waits for the writer.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::record::{Rest, from_word, sum};
use super::rows::{AttemptRow, Counts, JobFilter, JobRow, JobStateFilter, JobSummary, OnceRow, Page};
use crate::model::decision::{DecisionRecord, Limits, PolicyVersion, Priority};
use crate::model::event::{History, OpenJob, OutputFile, StopReason};
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::job::{
    Attempt, AttemptOutcome, Body, Job, JobOutcome, Needs, Number, Requested, Stored, Texts, WallMs,
};
use crate::model::seen::Seen;

/// SQLite's errors, and rows that are not what was written.
#[derive(Debug)]
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Damaged(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Damaged(error.to_string()),
            error => Self::Sqlite(error),
        }
    }
}

pub(super) type Read<T> = Result<T, ReadError>;

impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Integer(n) => Ok(Self::Counted(n)),
            ValueRef::Real(n) => Ok(Self::Given(n)),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A text column that holds an enum's serde name or a UUID.
struct Word<T>(T);

impl<T: DeserializeOwned> FromSql for Word<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        from_word(value.as_str()?).map(Self).map_err(|e| FromSqlError::Other(Box::new(e)))
    }
}

pub(super) fn get_word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    row.get::<_, Word<T>>(column).map(|w| w.0)
}

pub(super) fn maybe_word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, Option<Word<T>>>(column)?.map(|w| w.0))
}

/// A text column that holds JSON.
struct Json<T>(T);

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(|e| FromSqlError::Other(Box::new(e)))
    }
}

/// Everything of a job but its texts; column names are those of the table.
pub(super) const HEAD: &str = "j.seq, j.id, j.prompt_id, j.number, j.client_id, j.tenant, j.class, j.requested_number,
    j.requested_front, j.accepted_at, j.score, j.ageing, j.queue_ms, j.run_ms, j.stall_ms, j.outcome, j.ended_at,
    j.place, j.pinned, j.workflow_id";
pub(super) const BODY: &str = "b.prompt, b.extra_data, b.rest, b.needs, b.sum AS body_sum";
pub(super) const HISTORY: &str = "h.outputs, h.status, h.meta, h.node_errors, h.files, h.sum AS history_sum";

/// A row's times are never negative.
pub(super) fn wall(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<WallMs>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
}

pub(super) fn head(row: &Row<'_>) -> rusqlite::Result<(i64, JobRow)> {
    let job = Job {
        id: get_word(row, "id")?,
        prompt_id: row.get("prompt_id")?,
        number: row.get("number")?,
        client_id: row.get("client_id")?,
        tenant: row.get("tenant")?,
        class: get_word(row, "class")?,
        requested: Requested { number: row.get("requested_number")?, front: row.get("requested_front")? },
        accepted_at: wall(row, "accepted_at")?.unwrap_or_default(),
        body: Arc::new(Body { workflow_id: row.get("workflow_id")?, ..Body::default() }),
        needs: Arc::default(),
        once: None,
    };
    let limits =
        Limits { queue_ms: row.get("queue_ms")?, run_ms: row.get("run_ms")?, stall_ms: row.get("stall_ms")? };
    let (outcome, ended_at) = (maybe_word(row, "outcome")?, wall(row, "ended_at")?);
    let priority = Priority { score: row.get("score")?, ageing_per_second: row.get("ageing")? };
    let (place, pinned) = (row.get("place")?, row.get("pinned")?);
    let found = JobRow { job, priority, limits, place, pinned, outcome, ended_at, attempts: Vec::new() };
    Ok((row.get("seq")?, found))
}

/// Fills in what was posted; a job that was taken out of the history has no body any more.
pub(super) fn add_body(job: &mut Job, row: &Row<'_>) -> Read<()> {
    let Some(prompt) = row.get::<_, Option<String>>("prompt")? else {
        return Ok(());
    };
    let (extra_data, rest, needs): (String, String, String) =
        (row.get("extra_data")?, row.get("rest")?, row.get("needs")?);
    if row.get::<_, Vec<u8>>("body_sum")? != sum(&[&prompt, &extra_data, &rest, &needs]) {
        return Err(ReadError::Damaged(format!("the prompt of job {} is not what was written", job.id)));
    }
    let damaged = |e: serde_json::Error| ReadError::Damaged(format!("job {}: {e}", job.id));
    let body = Rest::body(&rest, prompt, extra_data, None).map_err(damaged)?;
    let needs: Needs = serde_json::from_str(&needs).map_err(damaged)?;
    job.body = Arc::new(body);
    job.needs = Arc::new(needs);
    Ok(())
}

pub(super) fn history_columns(job: JobId, row: &Row<'_>) -> Read<History> {
    let mut history = History {
        outputs: row.get("outputs")?,
        status: row.get("status")?,
        meta: row.get("meta")?,
        node_errors: row.get("node_errors")?,
        files: Vec::new(),
    };
    let files: String = row.get("files")?;
    let texts = [&*history.outputs, &history.status, &history.meta, &history.node_errors, &files];
    if row.get::<_, Vec<u8>>("history_sum")? != sum(&texts) {
        return Err(ReadError::Damaged(format!("the results of job {job} are not what was written")));
    }
    history.files =
        serde_json::from_str(&files).map_err(|e| ReadError::Damaged(format!("job {job}: {e}")))?;
    Ok(history)
}

pub(super) fn attempts(conn: &Connection, seq: i64) -> Read<Vec<AttemptRow>> {
    let mut query =
        conn.prepare_cached(&format!("SELECT {ATTEMPT} FROM attempt a WHERE a.job = ?1 ORDER BY a.number"))?;
    let rows = query.query_map([seq], attempt)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

const ATTEMPT: &str =
    "a.job, a.number, a.upstream_id, a.instance, a.started_at, a.outcome, a.ended_at, a.detail, a.stop";

fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    let attempt = Attempt {
        number: row.get("number")?,
        upstream_id: get_word::<UpstreamId>(row, "upstream_id")?,
        instance: InstanceId(row.get::<_, String>("instance")?.into()),
        started_at: wall(row, "started_at")?.unwrap_or_default(),
    };
    Ok(AttemptRow {
        attempt,
        outcome: maybe_word(row, "outcome")?,
        ended_at: wall(row, "ended_at")?,
        detail: row.get("detail")?,
        stop: row.get::<_, Option<Json<StopReason>>>("stop")?.map(|stop| stop.0),
    })
}

#[derive(Default)]
struct Attempts {
    all: Vec<(Attempt, Option<AttemptOutcome>)>,
    /// Of the live one.
    stop: Option<StopReason>,
}

/// By job. At once: SQLite prepares a query for one job's attempts anew for each of thousands of jobs.
fn open_attempts(conn: &Connection) -> Read<HashMap<i64, Attempts>> {
    let mut query = conn.prepare_cached(&format!(
        "SELECT {ATTEMPT} FROM job j JOIN attempt a ON a.job = j.seq WHERE j.outcome IS NULL
         ORDER BY a.job, a.number"
    ))?;
    let mut rows = query.query([])?;
    let mut found: HashMap<_, Attempts> = HashMap::new();
    while let Some(row) = rows.next()? {
        let AttemptRow { attempt, outcome, stop, .. } = attempt(row)?;
        let of_job = found.entry(row.get("job")?).or_default();
        of_job.stop = stop.filter(|_| outcome.is_none());
        of_job.all.push((attempt, outcome));
    }
    Ok(found)
}

pub(super) fn open_jobs(conn: &Connection, text_bytes: usize) -> Read<Vec<OpenJob>> {
    let sql = format!(
        "SELECT {HEAD}, a.rest, a.needs, a.digest, a.bytes, a.sum AS about_sum
         FROM job j LEFT JOIN about a ON a.job = j.seq WHERE j.outcome IS NULL ORDER BY j.seq"
    );
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query([])?;
    let (mut jobs, mut left, mut attempts) = (Vec::new(), text_bytes, open_attempts(conn)?);
    while let Some(row) = rows.next()? {
        let (seq, mut found) = head(row)?;
        match about(&mut found.job, row)? {
            Some(bytes) if bytes > left => {}
            known => {
                let texts = whole(conn, seq, &mut found.job)?;
                left = left.saturating_sub(known.unwrap_or(texts));
            }
        }
        let Attempts { all: attempts, stop } = attempts.remove(&seq).unwrap_or_default();
        let JobRow { job, priority, limits, place, pinned, .. } = found;
        jobs.push(OpenJob { job, priority, limits, place, pinned, attempts, stop });
    }
    Ok(jobs)
}

/// Fills in everything but the large texts; gives their size. None: it was accepted by a version that did not keep
/// these apart.
fn about(job: &mut Job, row: &Row<'_>) -> Read<Option<usize>> {
    let Some(rest) = row.get::<_, Option<String>>("rest")? else { return Ok(None) };
    let needs: String = row.get("needs")?;
    if row.get::<_, Vec<u8>>("about_sum")? != sum(&[&rest, &needs]) {
        return Err(ReadError::Damaged(format!("what job {} needs is not what was written", job.id)));
    }
    let damaged = |e: serde_json::Error| ReadError::Damaged(format!("job {}: {e}", job.id));
    let bytes = usize::try_from(row.get::<_, i64>("bytes")?).unwrap_or_default();
    let stored = Stored { digest: row.get("digest")?, bytes };
    let body = Rest::body(&rest, String::new(), String::new(), Some(stored)).map_err(damaged)?;
    job.needs = Arc::new(serde_json::from_str(&needs).map_err(damaged)?);
    job.body = Arc::new(body);
    Ok(Some(bytes))
}

/// Reads the whole body; gives the size of its large texts.
fn whole(conn: &Connection, seq: i64, job: &mut Job) -> Read<usize> {
    let mut query = conn.prepare_cached(&format!("SELECT {BODY} FROM body b WHERE b.job = ?1"))?;
    let mut rows = query.query([seq])?;
    if let Some(row) = rows.next()? {
        add_body(job, row)?;
    }
    Ok(job.body.text_bytes())
}

pub(super) fn texts(conn: &Connection, jobs: &[JobId]) -> Read<HashMap<JobId, Texts>> {
    let sql = format!("SELECT {HEAD}, {BODY} FROM job j JOIN body b ON b.job = j.seq WHERE j.id = ?1");
    let mut query = conn.prepare_cached(&sql)?;
    let mut found = HashMap::with_capacity(jobs.len());
    for id in jobs {
        let mut rows = query.query([id.to_string()])?;
        let Some(row) = rows.next()? else { continue };
        let (_, mut row_of) = head(row)?;
        add_body(&mut row_of.job, row)?;
        let body = Arc::unwrap_or_clone(row_of.job.body);
        found.insert(*id, Texts { prompt: body.prompt, extra_data: body.extra_data });
    }
    Ok(found)
}

/// The newest job of a prompt id.
pub(super) fn job(conn: &Connection, prompt_id: &str) -> Read<Option<JobRow>> {
    let sql = format!(
        "SELECT {HEAD}, {BODY} FROM job j LEFT JOIN body b ON b.job = j.seq
         WHERE j.prompt_id = ?1 ORDER BY j.seq DESC LIMIT 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([prompt_id])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let (seq, mut found) = head(row)?;
    add_body(&mut found.job, row)?;
    found.attempts = attempts(conn, seq)?;
    Ok(Some(found))
}

pub(super) fn jobs(conn: &Connection, filter: &JobFilter, page: Page) -> Read<Vec<JobSummary>> {
    let over = filter.state.map(|state| state == JobStateFilter::Ended);
    let mut query = conn.prepare_cached(
        "SELECT j.*, (SELECT count(*) FROM attempt WHERE job = j.seq) AS attempts,
            (SELECT instance FROM attempt WHERE job = j.seq ORDER BY number DESC LIMIT 1) AS instance
         FROM job j WHERE j.seq < ?1 AND (?2 IS NULL OR (j.outcome IS NOT NULL) = ?2)
            AND (?3 IS NULL OR j.tenant = ?3)
         ORDER BY j.seq DESC LIMIT ?4",
    )?;
    let values = params![page.before.unwrap_or(i64::MAX), over, filter.tenant, page.limit.min(Page::MAX)];
    let rows = query.query_map(values, |row| {
        let (seq, found) = head(row)?;
        let job = found.job;
        Ok(JobSummary {
            seq,
            id: job.id,
            prompt_id: job.prompt_id,
            number: job.number,
            client_id: job.client_id,
            tenant: job.tenant,
            class: job.class,
            accepted_at: job.accepted_at,
            outcome: found.outcome,
            ended_at: found.ended_at,
            attempts: row.get("attempts")?,
            instance: row.get::<_, Option<String>>("instance")?.map(|name| InstanceId(name.into())),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn locate(
    conn: &Connection,
    file: &OutputFile,
    instance: Option<&InstanceId>,
    tenant: Option<&str>,
) -> Read<Option<InstanceId>> {
    let found: Option<String> = conn
        .prepare_cached(
            "SELECT instance FROM file WHERE filename = ?1 AND subfolder = ?2 AND kind = ?3
                AND (?4 IS NULL OR instance = ?4) AND (?5 IS NULL OR tenant = ?5) ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(
            params![file.filename, file.subfolder, file.kind, instance.map(InstanceId::as_str), tenant],
            |row| row.get(0),
        )
        .optional()?;
    Ok(found.map(|name| InstanceId(name.into())))
}

pub(super) fn once(conn: &Connection, tenant: &str, key: &str) -> Read<Option<OnceRow>> {
    let mut query = conn.prepare_cached(
        "SELECT digest, until, prompt_id, number, node_errors FROM once WHERE tenant = ?1 AND key = ?2",
    )?;
    let found = query.query_row([tenant, key], |row| {
        Ok(OnceRow {
            digest: row.get("digest")?,
            until: wall(row, "until")?.unwrap_or_default(),
            prompt_id: row.get("prompt_id")?,
            number: row.get("number")?,
            node_errors: row.get("node_errors")?,
        })
    });
    Ok(found.optional()?)
}

pub(super) fn counter(conn: &Connection) -> Read<i64> {
    Ok(conn.query_row("SELECT next FROM counter", [], |row| row.get(0))?)
}

pub(super) fn identity(conn: &Connection) -> Read<String> {
    Ok(conn.query_row("SELECT identity FROM router", [], |row| row.get(0))?)
}

const DECISION: &str =
    "SELECT at, hook, policy, digest, fallback, took_us, said, reason, job, did, instance, seen
    FROM decision";

fn decision(row: &Row<'_>) -> rusqlite::Result<DecisionRecord> {
    Ok(DecisionRecord {
        at: wall(row, "at")?.unwrap_or_default(),
        hook: get_word(row, "hook")?,
        version: PolicyVersion {
            name: row.get::<_, String>("policy")?.into(),
            digest: row.get::<_, String>("digest")?.into(),
        },
        fallback: maybe_word(row, "fallback")?,
        took_us: row.get("took_us")?,
        said: row.get("said")?,
        reason: row.get("reason")?,
        job: maybe_word(row, "job")?,
        did: row.get("did")?,
        instance: row.get::<_, Option<String>>("instance")?.map(|name| InstanceId(name.into())),
        seen: row.get::<_, Option<String>>("seen")?.and_then(Seen::stored),
    })
}

/// Oldest first.
pub(super) fn decisions_of(conn: &Connection, job: JobId) -> Read<Vec<DecisionRecord>> {
    let mut query = conn.prepare_cached(&format!("{DECISION} WHERE job = ?1 ORDER BY seq LIMIT 1000"))?;
    let rows = query.query_map([job.to_string()], decision)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Newest first.
pub(super) fn decisions(conn: &Connection, limit: u32) -> Read<Vec<DecisionRecord>> {
    let mut query = conn.prepare_cached(&format!("{DECISION} ORDER BY seq DESC LIMIT ?1"))?;
    let rows = query.query_map([limit.min(Page::MAX)], decision)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn counts(conn: &Connection) -> Read<Counts> {
    let count =
        |sql: &str| -> Read<u64> { Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs()) };
    let mut ended = Vec::new();
    for outcome in JobOutcome::ALL {
        let found: i64 = conn
            .prepare_cached("SELECT count(*) FROM job WHERE outcome = ?1")?
            .query_row([outcome.as_str()], |row| row.get(0))?;
        ended.push((outcome, found.unsigned_abs()));
    }
    Ok(Counts {
        open: count("SELECT count(*) FROM job WHERE outcome IS NULL")?,
        ended,
        in_history: count("SELECT count(*) FROM job WHERE in_history = 1")?,
        attempts: count("SELECT count(*) FROM attempt")?,
        decisions: count("SELECT count(*) FROM decision")?,
        files: count("SELECT count(*) FROM file")?,
        bytes: count("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
    })
}
