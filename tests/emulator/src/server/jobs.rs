//! `/api/jobs` of 0.8.0: queue and history in one list.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{
    App,
    reply::{self, Reply},
    request::int,
};
use crate::{life::Life, queue::Item};

const STATUSES: [&str; 4] = ["pending", "in_progress", "completed", "failed"];
type Params = IndexMap<String, String>;

pub(super) async fn list(State(life): State<App>, Query(query): Query<Params>) -> Reply {
    let wanted = match Wanted::parse(&query) {
        Ok(wanted) => wanted,
        Err(text) => return reply::json_with(StatusCode::BAD_REQUEST, &json!({ "error": text })),
    };
    let mut jobs: Vec<Value> = all(&life).into_iter().filter(|job| wanted.accepts(job)).collect();
    jobs.sort_by(|a, b| {
        let (a, b) = if wanted.descending { (b, a) } else { (a, b) };
        wanted.key(a).total_cmp(&wanted.key(b))
    });
    let total = jobs.len();
    let page: Vec<Value> =
        jobs.into_iter().skip(wanted.offset).take(wanted.limit.unwrap_or(usize::MAX)).collect();
    let has_more = wanted.offset + page.len() < total;
    let pagination =
        json!({ "offset": wanted.offset, "limit": wanted.limit, "total": total, "has_more": has_more });
    reply::json(&json!({ "jobs": page, "pagination": pagination }))
}

pub(super) async fn detail(State(life): State<App>, Path(job_id): Path<String>) -> Reply {
    if let Some(entry) = life.queue.entry(&job_id) {
        let mut job = finished(&job_id, &entry);
        job["outputs"] = entry["outputs"].clone();
        job["execution_status"] = entry["status"].clone();
        job["workflow"] = json!({ "prompt": entry["prompt"][2], "extra_data": entry["prompt"][3] });
        return reply::json(&job);
    }
    match waiting(&life).into_iter().find(|job| job["id"] == job_id.as_str()) {
        Some(job) => reply::json(&job),
        None => reply::json_with(StatusCode::NOT_FOUND, &json!({ "error": "Job not found" })),
    }
}

struct Wanted {
    statuses: Vec<String>,
    workflow_id: Option<String>,
    by_duration: bool,
    descending: bool,
    limit: Option<usize>,
    offset: usize,
}

impl Wanted {
    fn parse(query: &Params) -> Result<Self, String> {
        let text = |key: &str| query.get(key).map(String::as_str);
        let statuses: Vec<String> = match text("status").filter(|list| !list.is_empty()) {
            Some(list) => {
                list.split(',').map(|s| s.trim().to_lowercase()).filter(|s| !s.is_empty()).collect()
            }
            None => STATUSES.map(str::to_owned).to_vec(),
        };
        let invalid: Vec<&str> =
            statuses.iter().map(String::as_str).filter(|s| !STATUSES.contains(s)).collect();
        if !invalid.is_empty() {
            let valid = STATUSES.join(", ");
            return Err(format!("Invalid status value(s): {}. Valid values: {valid}", invalid.join(", ")));
        }
        let by_duration = match text("sort_by").unwrap_or("created_at").to_lowercase().as_str() {
            "created_at" => false,
            "execution_duration" => true,
            _ => return Err("sort_by must be 'created_at' or 'execution_duration'".into()),
        };
        let descending = match text("sort_order").unwrap_or("desc").to_lowercase().as_str() {
            "desc" => true,
            "asc" => false,
            _ => return Err("sort_order must be 'asc' or 'desc'".into()),
        };
        let limit = match text("limit").map(int) {
            None => None,
            Some(Some(limit)) if limit > 0 => Some(limit as usize),
            Some(Some(_)) => return Err("limit must be a positive integer".into()),
            Some(None) => return Err("limit must be an integer".into()),
        };
        let offset = int(text("offset").unwrap_or("0")).ok_or("offset must be an integer")?;
        let workflow_id = text("workflow_id").filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(Self { statuses, workflow_id, by_duration, descending, limit, offset: offset.max(0) as usize })
    }

    fn accepts(&self, job: &Value) -> bool {
        let status = job["status"].as_str().unwrap_or_default();
        let workflow = job["workflow_id"].as_str();
        self.statuses.iter().any(|wanted| wanted == status)
            && self.workflow_id.as_deref().is_none_or(|wanted| workflow == Some(wanted))
    }

    fn key(&self, job: &Value) -> f64 {
        let number = |key: &str| job[key].as_f64().unwrap_or(0.0);
        if self.by_duration {
            number("execution_end_time") - number("execution_start_time")
        } else {
            number("create_time")
        }
    }
}

fn all(life: &Life) -> Vec<Value> {
    let history = life.queue.history(None, -1);
    let mut jobs = waiting(life);
    jobs.extend(history.iter().map(|(id, entry)| finished(id, entry)));
    jobs
}

fn waiting(life: &Life) -> Vec<Value> {
    let running = life.queue.running().map(|item| queued(&item, "in_progress"));
    running.into_iter().chain(life.queue.pending().iter().map(|item| queued(item, "pending"))).collect()
}

fn queued(item: &Item, status: &str) -> Value {
    pruned(json!({
        "id": item.prompt_id,
        "status": status,
        "priority": item.number,
        "create_time": item.extra_data.get("create_time"),
        "outputs_count": 0,
        "workflow_id": workflow_id(&Value::Object(item.extra_data.clone())),
    }))
}

fn finished(id: &str, entry: &Value) -> Value {
    let message = |names: &[&str]| {
        let mut all = entry["status"]["messages"].as_array().into_iter().flatten();
        all.find(|message| message[0].as_str().is_some_and(|name| names.contains(&name)))
            .map(|message| &message[1])
    };
    let ends = ["execution_success", "execution_error", "execution_interrupted"];
    let (count, preview) = outputs(&entry["outputs"]);
    pruned(json!({
        "id": id,
        "status": if entry["status"]["status_str"] == "success" { "completed" } else { "failed" },
        "priority": entry["prompt"][0],
        "create_time": entry["prompt"][3]["create_time"],
        "execution_start_time": message(&["execution_start"]).map(|data| &data["timestamp"]),
        "execution_end_time": message(&ends).map(|data| &data["timestamp"]),
        "execution_error": message(&["execution_error"]),
        "outputs_count": count,
        "preview_output": preview,
        "workflow_id": workflow_id(&entry["prompt"][3]),
    }))
}

fn workflow_id(extra_data: &Value) -> Value {
    extra_data["extra_pnginfo"]["workflow"]["id"].clone()
}

/// How many files there are, and the one to show: the first of type `output`, else the first.
fn outputs(outputs: &Value) -> (usize, Value) {
    let mut count = 0;
    let mut shown: Option<Value> = None;
    for (node, kinds) in outputs.as_object().into_iter().flatten() {
        for (kind, items) in kinds.as_object().into_iter().flatten().filter(|(kind, _)| *kind != "animated") {
            for item in items.as_array().into_iter().flatten().filter(|item| item.is_object()) {
                count += 1;
                let better =
                    item["type"] == "output" && shown.as_ref().is_none_or(|shown| shown["type"] != "output");
                if better || shown.is_none() {
                    let mut preview = item.clone();
                    preview["nodeId"] = json!(node);
                    preview["mediaType"] = json!(kind);
                    shown = Some(preview);
                }
            }
        }
    }
    (count, shown.unwrap_or_default())
}

fn pruned(job: Value) -> Value {
    match job {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}
