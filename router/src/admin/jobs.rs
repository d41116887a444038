//! Jobs: lists, the order of the queue, and an operator's orders about one job.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Parts, error, ledger_error, shown, stopped};
use crate::comfy::errors::clip;
use crate::ledger::{JobFilter, JobStateFilter, Page};
use crate::model::job::{Job, JobClass};
use crate::scheduler::ChangeError;
use crate::scheduler::input::{Change, ChangeRefused, Place, Scope};

/// Of an order's body.
const MAX_BODY: usize = 64 << 10;
/// Numbers and priorities beyond this are refused: sums of them must stay finite.
const MOST: f64 = 1e12;

/// `?state=open|ended&tenant=...&before=SEQ&limit=N`, newest first.
pub(super) async fn list(State(parts): State<Arc<Parts>>, Query(query): Query<Pairs>) -> Answer {
    let (filter, page) = match job_page(&query) {
        Ok(wanted) => wanted,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, "query", &wrong),
    };
    match parts.ledger.jobs(filter, page).await {
        Ok(jobs) => shown(StatusCode::OK, &json!({"jobs": jobs, "next": jobs.last().map(|job| job.seq)})),
        Err(failed) => ledger_error(&failed),
    }
}

/// Of a query, decoded.
type Pairs = Vec<(String, String)>;

fn unknown(name: &str) -> String {
    format!("unknown parameter {}", clip(name, 40))
}

fn number(name: &str, value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| format!("{name} must be a number"))
}

fn job_page(query: &Pairs) -> Result<(JobFilter, Page), String> {
    let (mut filter, mut page) = (JobFilter::default(), Page::default());
    for (name, value) in query {
        match name.as_str() {
            "state" => {
                filter.state = Some(match value.as_str() {
                    "open" => JobStateFilter::Open,
                    "ended" => JobStateFilter::Ended,
                    _ => return Err("state must be open or ended".to_owned()),
                });
            }
            "tenant" => filter.tenant = Some(value.to_owned()),
            "before" => page.before = Some(number(name, value)?),
            "limit" => page.limit = number(name, value)?.clamp(1, i64::from(Page::MAX)) as u32,
            other => return Err(unknown(other)),
        }
    }
    Ok((filter, page))
}

/// `?offset=N&limit=N`: what runs, and what waits in the order in which it would run now.
pub(super) async fn queue(State(parts): State<Arc<Parts>>, Query(query): Query<Pairs>) -> Answer {
    let (offset, limit) = match queue_page(&query) {
        Ok(page) => page,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, "query", &wrong),
    };
    let view = match parts.scheduler.queue().await {
        Ok(view) => view,
        Err(failed) => return stopped(failed),
    };
    let pending = view.pending.iter().skip(offset).take(limit).map(|job| brief(job)).collect::<Vec<_>>();
    let more = offset.saturating_add(pending.len()) < view.pending.len();
    let body = json!({
        "running": view.running.iter().map(|job| brief(job)).collect::<Vec<_>>(),
        "pending": pending,
        "waiting": view.pending.len(),
        "next": more.then_some(offset + limit),
    });
    shown(StatusCode::OK, &body)
}

fn queue_page(query: &Pairs) -> Result<(usize, usize), String> {
    let (mut offset, mut limit) = (0, 100);
    for (name, value) in query {
        match name.as_str() {
            "offset" => offset = number(name, value)?.max(0) as usize,
            "limit" => limit = number(name, value)?.clamp(1, i64::from(Page::MAX)) as usize,
            other => return Err(unknown(other)),
        }
    }
    Ok((offset, limit))
}

fn brief(job: &Job) -> Value {
    json!({
        "prompt_id": job.prompt_id,
        "number": job.number,
        "class": job.class,
        "tenant": job.tenant,
        "client_id": job.client_id,
        "accepted_at": job.accepted_at,
    })
}

/// A waiting job is taken out of the queue, a running one is interrupted.
pub(super) async fn cancel(State(parts): State<Arc<Parts>>, Path(id): Path<String>) -> Answer {
    match parts.scheduler.cancel(vec![id.clone()], Scope::Everybody).await {
        Ok(0) => no_open_job(),
        Ok(_) => {
            tracing::info!(prompt_id = clip(&id, 200), "an operator cancelled a job");
            shown(StatusCode::OK, &json!({"prompt_id": id, "cancelled": true}))
        }
        Err(failed) => stopped(failed),
    }
}

fn no_open_job() -> Answer {
    error(StatusCode::NOT_FOUND, "no_open_job", &ChangeRefused::Unknown.to_string())
}

/// `{"place": "front" | "back" | "normal", "number": N, "class": "interactive" | ..., "priority": N | null}`, any of them.
pub(super) async fn change(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "an order may have 64 KiB");
    };
    let change = match wanted(&body.to_bytes()) {
        Ok(change) => change,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, "order", &wrong),
    };
    match parts.scheduler.change(id.clone(), change).await {
        Ok(standing) => {
            tracing::info!(
                prompt_id = clip(&id, 200),
                place = change.place.map(Place::as_str),
                number = change.number,
                class = change.class.map(JobClass::as_str),
                priority = change.priority.flatten(),
                "an operator changed a job"
            );
            let mut body = json!(standing);
            body["prompt_id"] = json!(id);
            shown(StatusCode::OK, &body)
        }
        Err(ChangeError::Stopped(failed)) => stopped(failed),
        Err(ChangeError::Refused(refused)) => match &refused {
            ChangeRefused::Unknown => no_open_job(),
            ChangeRefused::NotWaiting => error(StatusCode::CONFLICT, "not_waiting", &refused.to_string()),
            ChangeRefused::Storage { full: true, .. } => {
                error(StatusCode::INSUFFICIENT_STORAGE, "full", &refused.to_string())
            }
            ChangeRefused::Storage { .. } => {
                error(StatusCode::SERVICE_UNAVAILABLE, "ledger", &refused.to_string())
            }
        },
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    place: Option<Place>,
    number: Option<f64>,
    class: Option<JobClass>,
    #[serde(default, deserialize_with = "present")]
    priority: Option<Option<f64>>,
}

/// Tells `null` from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn wanted(body: &[u8]) -> Result<Change, String> {
    let order: Order = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let Order { place, number, class, priority } = order;
    for (name, value) in [("number", number), ("priority", priority.flatten())] {
        if value.is_some_and(|value| !value.is_finite() || value.abs() > MOST) {
            return Err(format!("{name} must be between -1e12 and 1e12"));
        }
    }
    let change = Change { place, number, class, priority };
    if change == Change::default() {
        return Err("say what is to change: place, number, class or priority".to_owned());
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_jobs_are_asked_for_in_plain_words() {
        let pairs = |query: &str| {
            let uri = format!("/api/jobs?{query}").parse().unwrap();
            Query::<Pairs>::try_from_uri(&uri).unwrap().0
        };
        let (job_page, queue_page) =
            (|query: &str| job_page(&pairs(query)), |query: &str| queue_page(&pairs(query)));
        let (filter, page) = job_page("state=open&tenant=ann%20%C3%A4&before=12&limit=99999").unwrap();
        assert_eq!(filter, JobFilter { state: Some(JobStateFilter::Open), tenant: Some("ann ä".into()) });
        assert_eq!(page, Page { before: Some(12), limit: Page::MAX });
        assert_eq!(job_page("limit=-5").unwrap().1.limit, 1);
        for wrong in ["state=odd", "limit=x", "colour=red"] {
            assert!(job_page(wrong).is_err(), "{wrong}");
        }
        assert_eq!(queue_page("offset=7&limit=99999"), Ok((7, Page::MAX as usize)));
        assert_eq!(queue_page("offset=-7"), Ok((0, 100)));
        assert!(queue_page("before=1").is_err());
    }

    #[test]
    fn orders_say_what_they_mean_or_are_refused() {
        let read = |body: &str| wanted(body.as_bytes());
        assert_eq!(read(r#"{"place": "front"}"#).unwrap().place, Some(Place::Front));
        assert_eq!(read(r#"{"priority": null}"#).unwrap().priority, Some(None));
        let both = read(r#"{"priority": -2, "class": "batch", "number": 0.5}"#).unwrap();
        assert_eq!(
            (both.priority, both.class, both.number),
            (Some(Some(-2.0)), Some(JobClass::Batch), Some(0.5))
        );
        for wrong in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"place": "first"}"#,
            r#"{"class": "root"}"#,
            r#"{"number": "5"}"#,
            r#"{"number": 1e300}"#,
            r#"{"priority": -1e13}"#,
            r#"{"place": "front", "colour": 1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
