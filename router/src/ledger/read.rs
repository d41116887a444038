//! The queries. Each runs on a reader's connection, in one read transaction, and never waits for the writer.

use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::record::{Rest, from_word, sum};
use super::rows::{
    AttemptRow, Counts, HistoryQuery, HistoryRow, JobFilter, JobRow, JobStateFilter, JobSummary, OnceRow,
    Page, Window,
};
use crate::model::decision::{DecisionRecord, Limits, PolicyVersion, Priority};
use crate::model::event::{History, OpenJob, OutputFile};
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::job::{Attempt, Job, JobOutcome, Needs, Number, Requested, WallMs};

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

type Read<T> = Result<T, ReadError>;

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

fn get_word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    row.get::<_, Word<T>>(column).map(|w| w.0)
}

fn maybe_word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, Option<Word<T>>>(column)?.map(|w| w.0))
}

/// Everything of a job but its texts; column names are those of the table.
const HEAD: &str = "j.seq, j.id, j.prompt_id, j.number, j.client_id, j.tenant, j.class, j.requested_number,
    j.requested_front, j.accepted_at, j.score, j.ageing, j.queue_ms, j.run_ms, j.stall_ms, j.outcome, j.ended_at";
const BODY: &str = "b.prompt, b.extra_data, b.rest, b.needs, b.sum AS body_sum";
const HISTORY: &str = "h.outputs, h.status, h.meta, h.node_errors, h.files, h.sum AS history_sum";

/// A row's times are never negative.
fn wall(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<WallMs>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
}

fn head(row: &Row<'_>) -> rusqlite::Result<(i64, JobRow)> {
    let job = Job {
        id: get_word(row, "id")?,
        prompt_id: row.get("prompt_id")?,
        number: row.get("number")?,
        client_id: row.get("client_id")?,
        tenant: row.get("tenant")?,
        class: get_word(row, "class")?,
        requested: Requested { number: row.get("requested_number")?, front: row.get("requested_front")? },
        accepted_at: wall(row, "accepted_at")?.unwrap_or_default(),
        body: Arc::default(),
        needs: Arc::default(),
        once: None,
    };
    let limits =
        Limits { queue_ms: row.get("queue_ms")?, run_ms: row.get("run_ms")?, stall_ms: row.get("stall_ms")? };
    let (outcome, ended_at) = (maybe_word(row, "outcome")?, wall(row, "ended_at")?);
    let priority = Priority { score: row.get("score")?, ageing_per_second: row.get("ageing")? };
    Ok((row.get("seq")?, JobRow { job, priority, limits, outcome, ended_at, attempts: Vec::new() }))
}

/// Fills in what was posted; a job that was taken out of the history has no body any more.
fn add_body(job: &mut Job, row: &Row<'_>) -> Read<()> {
    let Some(prompt) = row.get::<_, Option<String>>("prompt")? else {
        return Ok(());
    };
    let (extra_data, rest, needs): (String, String, String) =
        (row.get("extra_data")?, row.get("rest")?, row.get("needs")?);
    if row.get::<_, Vec<u8>>("body_sum")? != sum(&[&prompt, &extra_data, &rest, &needs]) {
        return Err(ReadError::Damaged(format!("the prompt of job {} is not what was written", job.id)));
    }
    let damaged = |e: serde_json::Error| ReadError::Damaged(format!("job {}: {e}", job.id));
    let body = Rest::body(&rest, prompt, extra_data).map_err(damaged)?;
    let needs: Needs = serde_json::from_str(&needs).map_err(damaged)?;
    job.body = Arc::new(body);
    job.needs = Arc::new(needs);
    Ok(())
}

fn history_columns(job: JobId, row: &Row<'_>) -> Read<History> {
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

fn attempts(conn: &Connection, seq: i64) -> Read<Vec<AttemptRow>> {
    let mut query = conn.prepare_cached(
        "SELECT number, upstream_id, instance, started_at, outcome, ended_at, detail
         FROM attempt WHERE job = ?1 ORDER BY number",
    )?;
    let rows = query.query_map([seq], |row| {
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
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn open_jobs(conn: &Connection) -> Read<Vec<OpenJob>> {
    let sql = format!(
        "SELECT {HEAD}, {BODY} FROM job j LEFT JOIN body b ON b.job = j.seq WHERE j.outcome IS NULL ORDER BY j.seq"
    );
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        let (seq, mut found) = head(row)?;
        add_body(&mut found.job, row)?;
        let attempts = attempts(conn, seq)?.into_iter().map(|a| (a.attempt, a.outcome)).collect();
        jobs.push(OpenJob { job: found.job, priority: found.priority, limits: found.limits, attempts });
    }
    Ok(jobs)
}

pub(super) fn history(conn: &Connection, query: HistoryQuery) -> Read<Vec<HistoryRow>> {
    let (filter, values) = match query.window() {
        Window::Nothing => return Ok(Vec::new()),
        Window::Last(n) => ("ORDER BY ended_seq DESC LIMIT ?1 OFFSET ?2", [n, 0]),
        Window::From { skip, take } => ("ORDER BY ended_seq LIMIT ?1 OFFSET ?2", [take.unwrap_or(-1), skip]),
    };
    // The rows are chosen in the index alone; only those chosen have their texts read.
    let sql = format!(
        "SELECT {HEAD}, {BODY}, {HISTORY} FROM
            (SELECT seq AS chosen, ended_seq AS place FROM job WHERE in_history = 1 {filter})
         JOIN job j ON j.seq = chosen JOIN body b ON b.job = chosen JOIN history h ON h.job = chosen ORDER BY place"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(history_row(conn, row)?);
    }
    Ok(found)
}

fn history_row(conn: &Connection, row: &Row<'_>) -> Read<HistoryRow> {
    let (seq, mut head) = head(row)?;
    add_body(&mut head.job, row)?;
    let id = head.job.id;
    let (Some(outcome), Some(ended_at)) = (head.outcome, head.ended_at) else {
        return Err(ReadError::Damaged(format!("job {id} is in the history and has no end")));
    };
    let history = history_columns(id, row)?;
    Ok(HistoryRow { job: head.job, outcome, ended_at, history, attempts: attempts(conn, seq)? })
}

pub(super) fn history_of(conn: &Connection, prompt_id: &str) -> Read<Option<HistoryRow>> {
    let sql = format!(
        "SELECT {HEAD}, {BODY}, {HISTORY} FROM job j JOIN body b ON b.job = j.seq JOIN history h ON h.job = j.seq
         WHERE j.prompt_id = ?1 AND j.in_history = 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([prompt_id])?;
    rows.next()?.map(|row| history_row(conn, row)).transpose()
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

const DECISION: &str = "SELECT at, hook, policy, digest, fallback, took_us, said, reason, job, did, instance
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
