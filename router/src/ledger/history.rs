//! The queries of the history. It is chosen from in the index alone; texts are read for the entries that are shown,
//! some at a time.

use rusqlite::{Connection, Row, params};

use super::read::{
    BODY, HEAD, HISTORY, Read, ReadError, add_body, attempts, get_word, head, history_columns, maybe_word,
    wall,
};
use super::rows::{HistoryKey, HistoryQuery, HistoryRow, HistorySeq, Part, Window};
use crate::model::event::OutputFile;
use crate::model::id::InstanceId;

pub(super) fn window(conn: &Connection, query: HistoryQuery, tenant: Option<&str>) -> Read<Vec<HistorySeq>> {
    let (filter, limit, offset, newest_first) = match query.window() {
        Window::Nothing => return Ok(Vec::new()),
        Window::Last(n) => ("DESC", n, 0, true),
        Window::From { skip, take } => ("ASC", take.unwrap_or(-1), skip, false),
    };
    let sql = format!(
        "SELECT seq FROM job WHERE in_history = 1 AND (?1 IS NULL OR tenant = ?1)
         ORDER BY ended_seq {filter} LIMIT ?2 OFFSET ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![tenant, limit, offset], |row| row.get(0).map(HistorySeq))?;
    let mut seqs: Vec<HistorySeq> = rows.collect::<rusqlite::Result<_>>()?;
    if newest_first {
        seqs.reverse();
    }
    Ok(seqs)
}

pub(super) fn shown_files(conn: &Connection) -> Read<Vec<(InstanceId, OutputFile)>> {
    let mut statement = conn.prepare_cached(
        "SELECT h.files, (SELECT instance FROM attempt WHERE job = j.seq ORDER BY number DESC LIMIT 1) AS instance
         FROM job j JOIN history h ON h.job = j.seq WHERE j.in_history = 1 AND instr(h.files, '\"temp\"') > 0",
    )?;
    let mut rows = statement.query([])?;
    let mut shown = Vec::new();
    while let Some(row) = rows.next()? {
        let (files, instance): (String, Option<String>) = (row.get("files")?, row.get("instance")?);
        let Some(instance) = instance.map(|name| InstanceId(name.into())) else { continue };
        let files: Vec<OutputFile> = serde_json::from_str(&files)
            .map_err(|e| ReadError::Damaged(format!("the files of a job: {e}")))?;
        let temporary = files.into_iter().filter(|file| file.kind == "temp");
        shown.extend(temporary.map(|file| (instance.clone(), file)));
    }
    Ok(shown)
}

pub(super) fn keys(conn: &Connection, tenant: Option<&str>) -> Read<Vec<HistoryKey>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, id, outcome, accepted_at, began_at, done_at, workflow_id FROM job
         WHERE in_history = 1 AND (?1 IS NULL OR tenant = ?1) ORDER BY ended_seq",
    )?;
    let rows = statement.query_map([tenant], |row| {
        Ok(HistoryKey {
            seq: HistorySeq(row.get("seq")?),
            id: get_word(row, "id")?,
            outcome: maybe_word(row, "outcome")?.unwrap_or(crate::model::job::JobOutcome::Lost),
            accepted_at: wall(row, "accepted_at")?.unwrap_or_default(),
            began_at: wall(row, "began_at")?,
            done_at: wall(row, "done_at")?,
            workflow_id: row.get("workflow_id")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn rows(conn: &Connection, seqs: &[HistorySeq], part: Part) -> Read<Vec<HistoryRow>> {
    let (columns, join) = match part {
        Part::Whole => (format!("{HEAD}, j.ended_seq, {BODY}, {HISTORY}"), "JOIN body b ON b.job = j.seq"),
        Part::Results => (format!("{HEAD}, j.ended_seq, {HISTORY}"), ""),
    };
    let sql = format!(
        "SELECT {columns} FROM job j {join} JOIN history h ON h.job = j.seq WHERE j.seq = ?1 AND j.in_history = 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = Vec::with_capacity(seqs.len());
    for HistorySeq(seq) in seqs {
        let mut rows = statement.query([seq])?;
        if let Some(row) = rows.next()? {
            found.push(entry(conn, row, part)?);
        }
    }
    Ok(found)
}

pub(super) fn of(conn: &Connection, prompt_id: &str) -> Read<Option<HistoryRow>> {
    let sql = format!(
        "SELECT {HEAD}, j.ended_seq, {BODY}, {HISTORY} FROM job j JOIN body b ON b.job = j.seq JOIN history h ON h.job = j.seq
         WHERE j.prompt_id = ?1 AND j.in_history = 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([prompt_id])?;
    rows.next()?.map(|row| entry(conn, row, Part::Whole)).transpose()
}

fn entry(conn: &Connection, row: &Row<'_>, part: Part) -> Read<HistoryRow> {
    let (seq, mut head) = head(row)?;
    if part == Part::Whole {
        add_body(&mut head.job, row)?;
    }
    let id = head.job.id;
    let (Some(outcome), Some(ended_at)) = (head.outcome, head.ended_at) else {
        return Err(ReadError::Damaged(format!("job {id} is in the history and has no end")));
    };
    let history = history_columns(id, row)?;
    Ok(HistoryRow {
        seq: HistorySeq(seq),
        // They count from 1.
        ended_before: row.get::<_, i64>("ended_seq")? - 1,
        job: head.job,
        outcome,
        ended_at,
        history,
        attempts: attempts(conn, seq)?,
    })
}
