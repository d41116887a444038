//! What an operator is told of jobs and attempts: one log line and the metrics of each change.

use std::time::Duration;

use crate::fleet;
use crate::metrics;
use crate::model::event::Event;
use crate::model::id::InstanceId;
use crate::model::job::{Attempt, AttemptOutcome, Job, JobClass, JobOutcome};
use crate::relay::End;

use super::core::Core;
use super::input::{Announcement, Closed, News};

/// Classes of the jobs that these events accept.
pub(super) fn accepted(events: &[Event]) -> Vec<JobClass> {
    let class = |event: &Event| match event {
        Event::JobAccepted { job, .. } => Some(job.class),
        _ => None,
    };
    events.iter().filter_map(class).collect()
}

pub(super) fn started(job: &Job, attempt: &Attempt) {
    metrics::attempt_started(&attempt.instance);
    if attempt.number == 1 {
        let waited = attempt.started_at.saturating_sub(job.accepted_at);
        metrics::job_started(job.class, Duration::from_millis(waited));
    }
    tracing::info!(
        job = %job.id,
        prompt_id = %job.prompt_id,
        attempt = attempt.number,
        instance = %attempt.instance,
        client = job.client_id.as_deref().unwrap_or("-"),
        tenant = %job.tenant,
        "attempt started"
    );
}

pub(super) fn closed(closed: &Closed) {
    let Closed { job, attempt, outcome, detail, ran_ms, load_ms } = closed;
    metrics::attempt_ended(&attempt.instance, outcome, Duration::from_millis((*ran_ms).into()));
    if *load_ms > 0 {
        metrics::model_load(&attempt.instance, Duration::from_millis((*load_ms).into()));
    }
    let client = job.client_id.as_deref().unwrap_or("-");
    if *outcome == AttemptOutcome::Success {
        tracing::info!(job = %job.id, attempt = attempt.number, instance = %attempt.instance, client, ran_ms, load_ms, "attempt ended");
    } else {
        tracing::warn!(job = %job.id, attempt = attempt.number, instance = %attempt.instance, client, ran_ms, outcome = outcome.as_str(), detail, "attempt ended");
    }
}

pub(super) fn ended(end: &Announcement) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let took = now.saturating_sub(Duration::from_millis(end.job.accepted_at));
    metrics::job_ended(end.job.class, end.outcome, took);
    let client = end.job.client_id.as_deref().unwrap_or("-");
    let (job, outcome) = (end.job.id, end.outcome.as_str());
    let took_ms = took.as_millis() as u64;
    if end.outcome == JobOutcome::Success {
        tracing::info!(%job, client, outcome, took_ms, "job ended");
    } else {
        tracing::warn!(%job, client, outcome, took_ms, detail = end.detail, "job ended");
    }
}

pub(super) fn told(instance: &InstanceId, news: &News) {
    match news {
        News::Quarantined { reason } => {
            metrics::instance_quarantined(instance);
            tracing::warn!(%instance, reason, "instance is in quarantine, it is given nothing for now");
        }
        News::Released => tracing::info!(%instance, "instance works again, its quarantine is over"),
        News::NeedsRestart { reason } => {
            tracing::error!(%instance, reason, "instance cannot be restarted by the router, restart it by hand");
        }
    }
}

/// The figures that are levels.
pub(super) fn gauges(core: &Core, fleet: &fleet::Handle) {
    for class in JobClass::ALL {
        metrics::queue_depth(class, core.waiting_of(class));
    }
    let reports = core.report();
    metrics::running_jobs(reports.iter().map(|report| report.live.len()).sum());
    for (info, report) in fleet.instances().iter().zip(&reports) {
        let state = metrics::InstanceState {
            up: info.is_up(),
            draining: report.draining,
            quarantined: report.quarantine.is_some(),
            slots: report.free_slots + report.live.len() as u32,
            running: report.live.len() as u32 + info.foreign.running,
            pending: info.foreign.pending,
        };
        metrics::instance(&info.id, state);
    }
}

impl From<Announcement> for End {
    fn from(announcement: Announcement) -> Self {
        let Announcement { job, outcome, attempt, detail, node_errors, remaining } = announcement;
        Self { job, outcome, attempt, detail, node_errors, remaining }
    }
}
