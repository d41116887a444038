//! What the operator sees of instances and jobs.

use std::sync::Arc;

use axum::extract::{Path, State};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Parts, error, ledger_error, shown, stopped};
use crate::fleet::{InstanceInfo, State as Health};
use crate::ledger::JobRow;
use crate::model::decision::DecisionRecord;
use crate::model::id::JobId;
use crate::scheduler::input::InstanceReport;

/// Every instance: how it is, what runs on it, what its GPU says.
pub(super) async fn fleet(State(parts): State<Arc<Parts>>) -> Answer {
    let reports = match parts.scheduler.fleet().await {
        Ok(reports) => reports,
        Err(failed) => return stopped(failed),
    };
    let readings = parts.telemetry.snapshot();
    let now = parts.clock.now().tick;
    let instances = parts.fleet.instances();
    let shown_instances: Vec<Value> = instances
        .iter()
        .map(|info| {
            let mut shown = instance(info, reports.get(info.index as usize));
            shown["process"] = json!(parts.processes.status(&info.id));
            shown["gpu"] = json!(readings.of(&info.id).map(|reading| reading.view(now)));
            shown
        })
        .collect();
    let body = json!({
        "instances": shown_instances,
        "open_jobs": parts.scheduler.remaining(),
        "websockets": parts.sessions.sockets(),
        "gpus": readings.devices,
    });
    shown(StatusCode::OK, &body)
}

fn instance(info: &InstanceInfo, report: Option<&InstanceReport>) -> Value {
    let quarantine = report.and_then(|report| report.quarantine.as_ref());
    let (state, reason) = match (&info.state, quarantine) {
        (Health::Starting, _) => ("starting", None),
        (Health::Up, Some(quarantine)) => ("quarantined", Some(quarantine.reason.as_str())),
        (Health::Up, None) if report.is_some_and(|report| !report.linked) => {
            ("up", Some("its websocket is not connected"))
        }
        (Health::Up, None) => ("up", None),
        (Health::Down { reason }, _) => ("down", Some(reason.as_ref())),
    };
    let devices: Vec<Value> = info
        .devices
        .iter()
        .map(
            |d| json!({"name": d.name, "type": d.kind, "vram_total": d.vram_total, "vram_free": d.vram_free}),
        )
        .collect();
    json!({
        "name": info.id,
        "index": info.index,
        "url": info.url,
        "labels": *info.labels,
        "state": state,
        "reason": reason,
        "version": info.version.as_deref(),
        "devices": devices,
        "node_classes": info.catalogue.len(),
        "models": info.catalogue.capabilities().models.values().map(std::collections::HashSet::len).sum::<usize>(),
        "slots": info.slots,
        "foreign": {"running": info.foreign.running, "pending": info.foreign.pending},
        "draining": report.is_some_and(|report| report.draining),
        "quarantine": quarantine.map(|q| json!({"reason": q.reason, "for_ms": q.for_ms, "probing": q.probing})),
        "given_up": report.map(|report| report.given_up),
        "supervised": info.supervised,
        "free_slots": report.map(|report| report.free_slots),
        "running": report.map(|report| report.live.clone()),
        "resident_models": report.map(|report| report.resident.as_ref().clone()),
    })
}

/// One job by its prompt id: every attempt, every decision. The prompt itself is not shown: it may be private.
pub(super) async fn job(State(parts): State<Arc<Parts>>, Path(id): Path<String>) -> Answer {
    let job = found(&parts, &id).await;
    job.map_or_else(|refused| refused, |(_, job)| shown(StatusCode::OK, &job))
}

/// The same, and for an open job why it is where it is.
pub(super) async fn explain(State(parts): State<Arc<Parts>>, Path(id): Path<String>) -> Answer {
    let (id, mut job) = match found(&parts, &id).await {
        Ok(found) => found,
        Err(refused) => return refused,
    };
    match parts.scheduler.explain(id).await {
        Ok(now) => job["now"] = json!(now),
        Err(failed) => return stopped(failed),
    }
    shown(StatusCode::OK, &job)
}

async fn found(parts: &Parts, id: &str) -> Result<(JobId, Value), Answer> {
    let row = match parts.ledger.job(id).await {
        Ok(Some(row)) => row,
        Ok(None) => {
            return Err(error(StatusCode::NOT_FOUND, "no_such_job", "there is no job of this prompt id"));
        }
        Err(failed) => return Err(ledger_error(&failed)),
    };
    let decisions = match parts.ledger.decisions_of(row.job.id).await {
        Ok(decisions) => decisions,
        Err(failed) => return Err(ledger_error(&failed)),
    };
    let state = match (row.outcome, parts.scheduler.state(row.job.id).await) {
        (Some(outcome), _) => json!(outcome),
        (None, Ok(state)) => json!(state),
        (None, Err(failed)) => return Err(stopped(failed)),
    };
    Ok((row.job.id, detail(&row, &state, &decisions)))
}

fn detail(row: &JobRow, state: &Value, decisions: &[DecisionRecord]) -> Value {
    let job = &row.job;
    json!({
        "id": job.id,
        "prompt_id": job.prompt_id,
        "number": job.number,
        "client_id": job.client_id,
        "tenant": job.tenant,
        "class": job.class,
        "accepted_at": job.accepted_at,
        "ended_at": row.ended_at,
        "state": state,
        "priority": row.priority,
        "priority_pinned": row.pinned,
        "place": row.place,
        "limits": row.limits,
        "needs": *job.needs,
        "attempts": row.attempts,
        "decisions": decisions,
    })
}
