//! One event, one small set of statements, and the rules no event may break: an id, an attempt number and an upstream
//! id are used once; at most one attempt of a job is live; nothing follows a job's end.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use super::error::ApplyError;
use super::record::{Accepted, Ended, Record, word};
use crate::model::decision::DecisionRecord;
use crate::model::event::Standing;
use crate::model::id::JobId;
use crate::model::job::{Attempt, AttemptOutcome, Job, JobOutcome, Number, Once, WallMs};
use crate::model::seen::Seen;

type Applied = Result<(), ApplyError>;

pub(super) fn apply(conn: &Connection, record: &Record) -> Applied {
    match record {
        Record::Accepted(accepted) => accept(conn, accepted),
        Record::Started { job, attempt } => start(conn, *job, attempt),
        Record::AttemptEnded { job, number, outcome, at, detail } => {
            end_attempt(conn, *job, *number, outcome, *at, detail)
        }
        Record::StopAsked { job, number, why } => ask_to_stop(conn, *job, *number, why),
        Record::Ended(ended) => end(conn, ended),
        Record::Changed { job, standing } => change(conn, *job, standing),
        Record::Decision(decision) => decide(conn, decision),
        Record::DeleteHistory { prompt_ids, tenant } => {
            prompt_ids.iter().try_for_each(|id| forget(conn, id, tenant.as_deref()))
        }
        Record::ClearHistory { tenant } => clear_history(conn, tenant.as_deref()),
    }
}

/// Milliseconds and the like: SQLite's integers end at `i64::MAX`.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl ToSql for Number {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Counted(n) => ValueRef::Integer(*n),
            Self::Given(n) => ValueRef::Real(*n),
        }))
    }
}

fn accept(conn: &Connection, accepted: &Accepted) -> Applied {
    const EVENT: &str = "job_accepted";
    let job = &accepted.job;
    let seq = insert_job(conn, accepted).map_err(ApplyError::of(EVENT, job.id))?;
    conn.prepare_cached("INSERT INTO body VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            seq,
            job.body.prompt,
            job.body.extra_data,
            accepted.rest,
            accepted.needs,
            accepted.sum
        ])
        .map_err(ApplyError::of(EVENT, job.id))?;
    conn.prepare_cached("INSERT INTO about VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            seq,
            accepted.rest,
            accepted.needs,
            job.body.digest(),
            job.body.text_bytes() as i64,
            accepted.about_sum
        ])
        .map_err(ApplyError::of(EVENT, job.id))?;
    if let Number::Counted(n) = job.number {
        // ComfyUI counts up and shows the negative of the count for `front`.
        let next = int(n.unsigned_abs()).saturating_add(1);
        conn.prepare_cached("UPDATE counter SET next = max(next, ?1)")?.execute([next])?;
    }
    job.once.as_deref().map_or(Ok(()), |once| remember_once(conn, job, once))
}

/// Refuses a key that another job took meanwhile.
fn remember_once(conn: &Connection, job: &Job, once: &Once) -> Applied {
    conn.prepare_cached("DELETE FROM once WHERE until <= ?1")?.execute([int(job.accepted_at)])?;
    conn.prepare_cached(
        "INSERT INTO once (tenant, key, digest, until, prompt_id, number, node_errors)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        job.tenant,
        once.key,
        once.digest,
        int(once.until),
        job.prompt_id,
        job.number,
        once.node_errors
    ])
    .map_err(ApplyError::of("job_accepted", job.id))?;
    Ok(())
}

fn insert_job(conn: &Connection, accepted: &Accepted) -> rusqlite::Result<i64> {
    let Accepted { job, priority, limits, .. } = accepted;
    conn.prepare_cached(
        "INSERT INTO job (id, prompt_id, number, client_id, tenant, class, requested_number, requested_front,
            accepted_at, score, ageing, queue_ms, run_ms, stall_ms, workflow_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .insert(params![
        job.id.to_string(),
        job.prompt_id,
        job.number,
        job.client_id,
        job.tenant,
        word(&job.class),
        job.requested.number,
        job.requested.front,
        int(job.accepted_at),
        priority.score,
        priority.ageing_per_second,
        limits.queue_ms,
        limits.run_ms,
        limits.stall_ms,
        job.body.workflow_id,
    ])
}

fn change(conn: &Connection, job: JobId, standing: &Standing) -> Applied {
    const EVENT: &str = "job_changed";
    let seq = open_job(conn, EVENT, job)?;
    let Standing { number, requested, class, place, priority, pinned, limits } = standing;
    conn.prepare_cached(
        "UPDATE job SET number = ?2, requested_number = ?3, requested_front = ?4, class = ?5, place = ?6, score = ?7,
            ageing = ?8, pinned = ?9, queue_ms = ?10, run_ms = ?11, stall_ms = ?12 WHERE seq = ?1",
    )?
    .execute(params![
        seq,
        number,
        requested.number,
        requested.front,
        word(class),
        place,
        priority.score,
        priority.ageing_per_second,
        pinned,
        limits.queue_ms,
        limits.run_ms,
        limits.stall_ms,
    ])
    .map_err(ApplyError::of(EVENT, job))?;
    Ok(())
}

/// The row of a job that is not over.
fn open_job(conn: &Connection, event: &'static str, job: JobId) -> Result<i64, ApplyError> {
    let found = conn
        .prepare_cached("SELECT seq, outcome FROM job WHERE id = ?1")?
        .query_row([job.to_string()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)))
        .optional()?;
    match found {
        Some((seq, None)) => Ok(seq),
        Some((_, Some(outcome))) => {
            Err(ApplyError::refused(event, job, &format!("it is over already: {outcome}")))
        }
        None => Err(ApplyError::refused(event, job, "it was never accepted")),
    }
}

fn live_attempt(conn: &Connection, seq: i64) -> rusqlite::Result<Option<u32>> {
    conn.prepare_cached("SELECT number FROM attempt WHERE job = ?1 AND outcome IS NULL")?
        .query_row([seq], |row| row.get(0))
        .optional()
}

fn start(conn: &Connection, job: JobId, attempt: &Attempt) -> Applied {
    const EVENT: &str = "attempt_started";
    let seq = open_job(conn, EVENT, job)?;
    if let Some(live) = live_attempt(conn, seq)? {
        return Err(ApplyError::refused(EVENT, job, &format!("attempt {live} is live")));
    }
    let last: Option<u32> = conn
        .prepare_cached("SELECT max(number) FROM attempt WHERE job = ?1")?
        .query_row([seq], |row| row.get(0))?;
    if attempt.number <= last.unwrap_or(0) {
        let reason = format!("attempt {} follows attempt {}", attempt.number, last.unwrap_or(0));
        return Err(ApplyError::refused(EVENT, job, &reason));
    }
    conn.prepare_cached(
        "INSERT INTO attempt (job, number, upstream_id, instance, started_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        seq,
        attempt.number,
        attempt.upstream_id.to_string(),
        attempt.instance.as_str(),
        int(attempt.started_at)
    ])
    .map_err(ApplyError::of(EVENT, job))?;
    Ok(())
}

fn end_attempt(
    conn: &Connection,
    job: JobId,
    number: u32,
    outcome: &AttemptOutcome,
    at: WallMs,
    detail: &str,
) -> Applied {
    const EVENT: &str = "attempt_ended";
    let seq = open_job(conn, EVENT, job)?;
    let changed = conn
        .prepare_cached(
            "UPDATE attempt SET outcome = ?3, ended_at = ?4, detail = ?5
             WHERE job = ?1 AND number = ?2 AND outcome IS NULL",
        )?
        .execute(params![seq, number, word(outcome), int(at), detail])
        .map_err(ApplyError::of(EVENT, job))?;
    if changed == 1 {
        return Ok(());
    }
    Err(ApplyError::refused(EVENT, job, &format!("attempt {number} is not live")))
}

/// Changes nothing where there is no such live attempt: its start may have been refused for want of room.
fn ask_to_stop(conn: &Connection, job: JobId, number: u32, why: &str) -> Applied {
    conn.prepare_cached(
        "UPDATE attempt SET stop = ?3
         WHERE job = (SELECT seq FROM job WHERE id = ?1) AND number = ?2 AND outcome IS NULL",
    )?
    .execute(params![job.to_string(), number, why])
    .map_err(ApplyError::of("stop_asked", job))?;
    Ok(())
}

fn end(conn: &Connection, ended: &Ended) -> Applied {
    const EVENT: &str = "job_ended";
    let seq = open_job(conn, EVENT, ended.job)?;
    if let Some(live) = live_attempt(conn, seq)? {
        return Err(ApplyError::refused(EVENT, ended.job, &format!("attempt {live} is live")));
    }
    // As in ComfyUI: what was taken out of the queue leaves no history.
    let remembered = ended.outcome != JobOutcome::Cancelled;
    if remembered {
        supersede(conn, seq)?;
    }
    conn.prepare_cached(
        "UPDATE job SET outcome = ?2, ended_at = ?3, in_history = ?4, began_at = ?5, done_at = ?6,
            ended_seq = (SELECT coalesce(max(ended_seq), 0) + 1 FROM job) WHERE seq = ?1",
    )?
    .execute(params![
        seq,
        ended.outcome.as_str(),
        int(ended.at),
        remembered,
        ended.times.0.map(int),
        ended.times.1.map(int)
    ])?;
    conn.prepare_cached("DELETE FROM about WHERE job = ?1")?.execute([seq])?;
    if !remembered {
        return Ok(strip(conn, seq)?);
    }
    let history = &ended.history;
    conn.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            seq,
            history.outputs,
            history.status,
            history.meta,
            history.node_errors,
            ended.files,
            ended.sum
        ])
        .map_err(ApplyError::of(EVENT, ended.job))?;
    remember_files(conn, seq, ended)
}

/// ComfyUI's history is keyed by prompt id: the newest job of an id is the one that is seen.
fn supersede(conn: &Connection, seq: i64) -> rusqlite::Result<()> {
    let earlier: Vec<i64> = conn
        .prepare_cached(
            "SELECT seq FROM job WHERE in_history = 1 AND prompt_id = (SELECT prompt_id FROM job WHERE seq = ?1)",
        )?
        .query_map([seq], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    earlier.into_iter().try_for_each(|seq| strip(conn, seq))
}

fn remember_files(conn: &Connection, seq: i64, ended: &Ended) -> Applied {
    if ended.history.files.is_empty() {
        return Ok(());
    }
    let instance: Option<String> = conn
        .prepare_cached("SELECT instance FROM attempt WHERE job = ?1 ORDER BY number DESC LIMIT 1")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    let Some(instance) = instance else {
        return Err(ApplyError::refused(
            "job_ended",
            ended.job,
            "it names output files and never had an attempt",
        ));
    };
    let mut insert = conn.prepare_cached(
        "INSERT OR REPLACE INTO file (filename, subfolder, kind, instance, tenant)
         VALUES (?1, ?2, ?3, ?4, (SELECT tenant FROM job WHERE seq = ?5))",
    )?;
    for file in &ended.history.files {
        insert
            .execute(params![file.filename, file.subfolder, file.kind, instance, seq])
            .map_err(ApplyError::of("job_ended", ended.job))?;
    }
    Ok(())
}

fn decide(conn: &Connection, decision: &DecisionRecord) -> Applied {
    conn.prepare_cached(
        "INSERT INTO decision (at, hook, policy, digest, fallback, took_us, said, reason, job, did, instance,
            seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        int(decision.at),
        decision.hook.as_str(),
        &*decision.version.name,
        &*decision.version.digest,
        decision.fallback.map(|f| f.as_str()),
        decision.took_us,
        decision.said,
        decision.reason,
        decision.job.map(|job| job.to_string()),
        decision.did,
        decision.instance.as_ref().map(|i| i.as_str()),
        decision.seen.as_ref().and_then(Seen::json),
    ])?;
    Ok(())
}

/// Takes one finished job out of the history; its row stays for the record, without its texts.
fn strip(conn: &Connection, seq: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM body WHERE job = ?1")?.execute([seq])?;
    conn.prepare_cached("DELETE FROM history WHERE job = ?1")?.execute([seq])?;
    conn.prepare_cached("UPDATE job SET in_history = 0 WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

fn forget(conn: &Connection, prompt_id: &str, tenant: Option<&str>) -> Applied {
    let seq = conn
        .prepare_cached(
            "SELECT seq FROM job WHERE prompt_id = ?1 AND in_history = 1 AND (?2 IS NULL OR tenant = ?2)",
        )?
        .query_row(params![prompt_id, tenant], |row| row.get(0))
        .optional()?;
    Ok(seq.map_or(Ok(()), |seq| strip(conn, seq))?)
}

fn clear_history(conn: &Connection, tenant: Option<&str>) -> Applied {
    const CLEARED: &str = "SELECT seq FROM job WHERE in_history = 1 AND (?1 IS NULL OR tenant = ?1)";
    conn.execute(&format!("DELETE FROM body WHERE job IN ({CLEARED})"), [tenant])?;
    conn.execute(&format!("DELETE FROM history WHERE job IN ({CLEARED})"), [tenant])?;
    conn.execute(&format!("UPDATE job SET in_history = 0 WHERE seq IN ({CLEARED})"), [tenant])?;
    Ok(())
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) history: u32,
    pub(super) decisions: u32,
    pub(super) files: u32,
    pub(super) once: u32,
}

/// Deletes a bounded number of the oldest rows beyond `keep`. Sequences have no gaps in front, so that a row is too
/// old when it is so many behind the last one, and nothing need be counted.
pub(super) fn prune(conn: &Connection, keep: Keep) -> rusqlite::Result<()> {
    const STEP: i64 = 256;
    let old: Vec<i64> = conn
        .prepare_cached(
            "SELECT seq FROM job WHERE ended_seq <= (SELECT max(ended_seq) FROM job) - ?1 ORDER BY ended_seq LIMIT 64",
        )?
        .query_map([keep.history], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for seq in old {
        strip(conn, seq)?;
        conn.prepare_cached("DELETE FROM attempt WHERE job = ?1")?.execute([seq])?;
        conn.prepare_cached("DELETE FROM job WHERE seq = ?1")?.execute([seq])?;
    }
    conn.prepare_cached(
        "DELETE FROM decision WHERE seq <= (SELECT max(seq) FROM decision) - ?1
         AND seq < (SELECT min(seq) FROM decision) + ?2",
    )?
    .execute([i64::from(keep.decisions), STEP])?;
    conn.prepare_cached(
        "DELETE FROM file WHERE seq <= (SELECT max(seq) FROM file) - ?1 AND seq < (SELECT min(seq) FROM file) + ?2",
    )?
    .execute([i64::from(keep.files), STEP])?;
    conn.prepare_cached(
        "DELETE FROM once WHERE seq <= (SELECT max(seq) FROM once) - ?1 AND seq < (SELECT min(seq) FROM once) + ?2",
    )?
    .execute([i64::from(keep.once), STEP])?;
    Ok(())
}
