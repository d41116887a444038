//! The one place for metric and label names: a small function for each thing that happens, called by whoever sees it
//! happen. Owns the process-wide recorder; never opens a port (admin serves [`Metrics::render`]) and never judges.
//!
//! Labels are bounded: enum words, route kinds, instance names, GPU ids and policy versions; the last three through a
//! bound that answers `other` beyond its size. No text of a client, tenant or prompt is ever a label.
//! Without [`install`] every function is a no-op, so tests need no recorder.

mod hot;
mod labels;
mod table;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ::metrics::{SharedString, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::model::decision::{Fallback, Hook, PolicyVersion};
use crate::model::id::InstanceId;
use crate::model::job::{AttemptOutcome, JobClass, JobOutcome};
use labels::{figure_labels, flag, gpu_label, instance_label, version_label};
use table::Kind;

pub use hot::{
    FrameKind, InstanceFrames, InstanceRequests, RouteKind, client_frame, http_received, http_request,
    http_sent,
};

/// The installed recorder.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot install the metrics recorder: {0}")]
    Recorder(#[from] BuildError),
    #[error("cannot start the metrics thread: {0}")]
    Thread(#[from] std::io::Error),
}

static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

/// Installs the process-wide recorder; a second call gives the first one's again.
pub fn install() -> Result<Metrics, InstallError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metrics) = &*installed {
        return Ok(metrics.clone());
    }
    let handle = builder()?.install_recorder()?;
    describe();
    hot::prepare();
    started();
    // Histograms gather samples until they are drained; a scrape drains them, and this does when nobody scrapes.
    let upkeep = handle.clone();
    std::thread::Builder::new().name("metrics-upkeep".into()).spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            upkeep.run_upkeep();
        }
    })?;
    Ok(installed.insert(Metrics(handle)).clone())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in table::TABLE {
        if let Kind::Histogram(texts) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &table::buckets(texts))?;
        }
    }
    Ok(builder)
}

fn describe() {
    for metric in table::TABLE {
        match metric.kind {
            Kind::Counter => ::metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => ::metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => ::metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

fn started() {
    gauge!(table::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    gauge!(table::START_TIME).set(now.as_secs_f64());
}

// -- jobs

/// A job is durable and its 200 may leave.
pub fn job_accepted(class: JobClass) {
    counter!(table::JOBS_ACCEPTED, "class" => class.as_str()).increment(1);
}

/// A prompt was not taken; `reason` is a word of the caller's own: `invalid`, `policy`, `full`, `draining`, `ledger`.
pub fn job_refused(reason: &'static str) {
    counter!(table::JOBS_REFUSED, "reason" => reason).increment(1);
}

/// A job's first attempt starts.
pub fn job_started(class: JobClass, waited: Duration) {
    histogram!(table::JOB_WAIT, "class" => class.as_str()).record(waited.as_secs_f64());
}

/// `took` counts from acceptance.
pub fn job_ended(class: JobClass, outcome: JobOutcome, took: Duration) {
    counter!(table::JOBS_ENDED, "outcome" => outcome.as_str(), "class" => class.as_str()).increment(1);
    histogram!(table::JOB_RESPONSE, "class" => class.as_str()).record(took.as_secs_f64());
}

pub fn queue_depth(class: JobClass, jobs: usize) {
    gauge!(table::QUEUED, "class" => class.as_str()).set(jobs as f64);
}

pub fn running_jobs(jobs: usize) {
    gauge!(table::RUNNING).set(jobs as f64);
}

// -- attempts and instances

pub fn attempt_started(instance: &InstanceId) {
    counter!(table::ATTEMPTS_STARTED, "instance" => instance_label(instance)).increment(1);
}

pub fn attempt_ended(instance: &InstanceId, outcome: &AttemptOutcome, ran: Duration) {
    let instance = instance_label(instance);
    counter!(table::ATTEMPTS_ENDED, "instance" => instance.clone(), "outcome" => outcome.as_str())
        .increment(1);
    histogram!(table::ATTEMPT_RUN, "instance" => instance).record(ran.as_secs_f64());
}

/// An attempt had to load models, as far as the instance lets it be seen.
pub fn model_load(instance: &InstanceId, took: Duration) {
    let instance = instance_label(instance);
    counter!(table::MODEL_LOADS, "instance" => instance.clone()).increment(1);
    histogram!(table::MODEL_LOAD_TIME, "instance" => instance).record(took.as_secs_f64());
}

/// What the scheduler and the fleet know of one instance.
#[derive(Debug, Clone, Copy, Default)]
pub struct InstanceState {
    pub up: bool,
    pub draining: bool,
    pub quarantined: bool,
    pub slots: u32,
    pub running: u32,
    pub pending: u32,
}

pub fn instance(instance: &InstanceId, state: InstanceState) {
    let label = instance_label(instance);
    gauge!(table::INSTANCE_UP, "instance" => label.clone()).set(flag(state.up));
    gauge!(table::INSTANCE_DRAINING, "instance" => label.clone()).set(flag(state.draining));
    gauge!(table::INSTANCE_QUARANTINED, "instance" => label.clone()).set(flag(state.quarantined));
    gauge!(table::INSTANCE_SLOTS, "instance" => label.clone()).set(f64::from(state.slots));
    gauge!(table::INSTANCE_RUNNING, "instance" => label.clone()).set(f64::from(state.running));
    gauge!(table::INSTANCE_PENDING, "instance" => label).set(f64::from(state.pending));
}

pub fn instance_quarantined(instance: &InstanceId) {
    counter!(table::QUARANTINES, "instance" => instance_label(instance)).increment(1);
}

pub fn instance_restart(instance: &InstanceId, done: bool) {
    let outcome = if done { "done" } else { "failed" };
    counter!(table::RESTARTS, "instance" => instance_label(instance), "outcome" => outcome).increment(1);
}

pub fn instance_process_end(instance: &InstanceId) {
    counter!(table::PROCESS_ENDS, "instance" => instance_label(instance)).increment(1);
}

pub fn upload_staged(instance: &InstanceId, bytes: u64) {
    let instance = instance_label(instance);
    counter!(table::UPLOADS_STAGED, "instance" => instance.clone()).increment(1);
    counter!(table::UPLOADS_STAGED_BYTES, "instance" => instance).increment(bytes);
}

pub fn output_kept(bytes: u64) {
    counter!(table::OUTPUTS_KEPT).increment(1);
    counter!(table::OUTPUTS_KEPT_BYTES).increment(bytes);
}

pub fn output_not_kept() {
    counter!(table::OUTPUTS_NOT_KEPT).increment(1);
}

// -- GPUs

/// One device's figures in base units; none is exported as `NaN`, so that no old value lingers.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuFigures {
    pub utilization_ratio: Option<f64>,
    pub memory_used_bytes: Option<u64>,
    pub memory_total_bytes: Option<u64>,
    pub temperature_celsius: Option<f64>,
    pub slowdown_celsius: Option<f64>,
    pub power_watts: Option<f64>,
    pub power_limit_watts: Option<f64>,
    pub sm_clock_hertz: Option<f64>,
    pub throttled: Option<bool>,
    pub ecc_uncorrected: Option<u64>,
    pub age_seconds: Option<f64>,
}

/// `uuid` names the device; `source` is the telemetry source's own word.
pub fn gpu_info(uuid: &Arc<str>, name: &Arc<str>, index: Option<u32>, source: &'static str) {
    let index = index.map_or(SharedString::from(""), |i| i.to_string().into());
    let name: SharedString = name.clone().into();
    gauge!(table::GPU_INFO, "gpu" => gpu_label(uuid), "name" => name, "index" => index, "source" => source)
        .set(1.0);
}

pub fn gpu(uuid: &Arc<str>, figures: GpuFigures) {
    let set = |name: &'static str, value: Option<f64>| {
        gauge!(name, "gpu" => gpu_label(uuid)).set(value.unwrap_or(f64::NAN));
    };
    set(table::GPU_UTILIZATION, figures.utilization_ratio);
    set(table::GPU_MEMORY_USED, figures.memory_used_bytes.map(|n| n as f64));
    set(table::GPU_MEMORY_TOTAL, figures.memory_total_bytes.map(|n| n as f64));
    set(table::GPU_TEMPERATURE, figures.temperature_celsius);
    set(table::GPU_SLOWDOWN, figures.slowdown_celsius);
    set(table::GPU_POWER, figures.power_watts);
    set(table::GPU_POWER_LIMIT, figures.power_limit_watts);
    set(table::GPU_CLOCK, figures.sm_clock_hertz);
    set(table::GPU_THROTTLED, figures.throttled.map(flag));
    set(table::GPU_ECC_ERRORS, figures.ecc_uncorrected.map(|n| n as f64));
    set(table::GPU_READING_AGE, figures.age_seconds);
}

/// The instance uses this GPU from now on, or no longer does.
pub fn instance_gpu(instance: &InstanceId, uuid: &Arc<str>, uses: bool) {
    gauge!(table::INSTANCE_GPU, "instance" => instance_label(instance), "gpu" => gpu_label(uuid))
        .set(flag(uses));
}

/// A sample of `source` (`nvml`, `system_stats`, `emulated`) failed or is overdue.
pub fn telemetry_error(source: &'static str) {
    counter!(table::TELEMETRY_ERRORS, "source" => source).increment(1);
}

// -- policy

/// One policy call. `fallback` says why the built-in stood in for it, if it did.
pub fn decision(hook: Hook, version: &PolicyVersion, fallback: Option<Fallback>, took: Duration) {
    let outcome = fallback.map_or("answered", Fallback::as_str);
    counter!(table::DECISIONS, "hook" => hook.as_str(), "policy" => version_label(version), "outcome" => outcome)
        .increment(1);
    histogram!(table::DECISION_TIME, "hook" => hook.as_str()).record(took.as_secs_f64());
    // A hook that is not exported is answered by the built-in by design: no fallback to alert on.
    if let Some(reason) = fallback.filter(|f| *f != Fallback::NotExported) {
        counter!(table::FALLBACKS, "hook" => hook.as_str(), "reason" => reason.as_str()).increment(1);
    }
}

/// `version` serves from now on; the one before no longer does.
pub fn policy_serves(version: &PolicyVersion) {
    static SERVING: Mutex<Option<PolicyVersion>> = Mutex::new(None);
    let mut serving = SERVING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = serving.replace(version.clone()) {
        gauge!(table::POLICY_INFO, "policy" => version_label(&before)).set(0.0);
        counter!(table::POLICY_SWAPS).increment(u64::from(before != *version));
    }
    gauge!(table::POLICY_INFO, "policy" => version_label(version)).set(1.0);
}

/// A policy file was refused; `reason` is a word of the policy host's own: `not_wasm`, `wrong_world`, `settings`, ...
pub fn policy_load_failed(reason: &'static str) {
    counter!(table::POLICY_LOAD_FAILURES, "reason" => reason).increment(1);
}

/// A shadow was asked: `agreed`, `differed`, `failed`; or `dropped`, because it could not keep up.
pub fn policy_shadow(outcome: &'static str) {
    counter!(table::POLICY_SHADOW, "outcome" => outcome).increment(1);
}

/// A canary is no longer obeyed: because it did worse, or by an operator's word.
pub fn policy_canary_ended(worse: bool) {
    counter!(table::POLICY_CANARIES, "how" => if worse { "returned" } else { "withdrawn" }).increment(1);
}

/// A question that is not in the recording.
pub fn policy_recording_dropped() {
    counter!(table::POLICY_RECORD_DROPPED).increment(1);
}

/// What policies remember could not be written.
pub fn policy_state_failed() {
    counter!(table::POLICY_STATE_ERRORS).increment(1);
}

/// A counter of the policy's own.
pub fn policy_counter(policy: &Arc<str>, name: &Arc<str>, by: u64) {
    let (policy, name) = figure_labels(policy, name);
    counter!(table::POLICY_COUNTER, "policy" => policy, "name" => name).increment(by);
}

/// A gauge of the policy's own.
pub fn policy_gauge(policy: &Arc<str>, name: &Arc<str>, value: f64) {
    let (policy, name) = figure_labels(policy, name);
    gauge!(table::POLICY_GAUGE, "policy" => policy, "name" => name).set(value);
}

pub fn policy_gauge_add(policy: &Arc<str>, name: &Arc<str>, by: f64) {
    let (policy, name) = figure_labels(policy, name);
    gauge!(table::POLICY_GAUGE, "policy" => policy, "name" => name).increment(by);
}

// -- clients

pub fn ws_clients(clients: usize) {
    gauge!(table::WS_CLIENTS).set(clients as f64);
}

/// A frame was dropped, or replaced by a newer one of its kind, because the client reads slowly.
pub fn client_frame_dropped(kind: FrameKind) {
    counter!(table::CLIENT_DROPPED, "kind" => kind.as_str()).increment(1);
}

/// The router closed a client's websocket: `slow`, `replaced`, `draining`, `protocol`.
pub fn client_closed(reason: &'static str) {
    counter!(table::CLIENT_CLOSED, "reason" => reason).increment(1);
}

// -- ledger

/// One durable transaction: how many callers shared it and how many events it held.
pub fn ledger_commit(callers: usize, events: usize, took: Duration) {
    histogram!(table::LEDGER_COMMIT).record(took.as_secs_f64());
    histogram!(table::LEDGER_BATCH).record(callers as f64);
    counter!(table::LEDGER_EVENTS).increment(events as u64);
}

/// A commit failed: `refused`, `full`, `io`, `stopped`.
pub fn ledger_error(kind: &'static str) {
    counter!(table::LEDGER_ERRORS, "kind" => kind).increment(1);
}

pub fn ledger_file(bytes: u64) {
    gauge!(table::LEDGER_FILE).set(bytes as f64);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a scrape shows of what `act` did.
    fn scrape(act: impl FnOnce()) -> String {
        let recorder = builder().expect("buckets are not empty").build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            act();
        });
        recorder.handle().render()
    }

    #[test]
    fn names_are_unique_and_end_in_their_unit() {
        let mut names = BTreeSet::new();
        for metric in table::TABLE {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            let base = metric.name.trim_end_matches("_total");
            match metric.unit {
                ::metrics::Unit::Seconds => assert!(base.ends_with("_seconds"), "{}", metric.name),
                ::metrics::Unit::Bytes => assert!(base.ends_with("_bytes"), "{}", metric.name),
                _ => assert!(!base.ends_with("_seconds") && !base.ends_with("_bytes"), "{}", metric.name),
            }
            if let Kind::Histogram(texts) = metric.kind {
                let buckets = table::buckets(texts);
                assert_eq!(buckets.len(), texts.len(), "{} has a bucket that is no number", metric.name);
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
            }
        }
    }

    #[test]
    fn a_finished_job_shows_as_throughput_and_response_time() {
        let text = scrape(|| {
            job_started(JobClass::Batch, Duration::from_millis(300));
            job_ended(JobClass::Batch, JobOutcome::TimedOut, Duration::from_secs(3));
        });
        assert!(
            text.contains("comfy_router_jobs_ended_total{outcome=\"timed_out\",class=\"batch\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("comfy_router_job_response_seconds_bucket{class=\"batch\",le=\"5\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("comfy_router_job_response_seconds_bucket{class=\"batch\",le=\"2.5\"} 0"),
            "{text}"
        );
        assert!(text.contains("comfy_router_job_queue_wait_seconds_sum{class=\"batch\"} 0.3"), "{text}");
        assert!(text.contains("# HELP comfy_router_jobs_ended_total Throughput"), "{text}");
    }

    #[test]
    fn an_unknown_gpu_value_is_not_a_number() {
        let text = scrape(|| {
            let uuid = Arc::from("GPU-1");
            gpu(&uuid, GpuFigures { utilization_ratio: Some(0.5), ..GpuFigures::default() });
        });
        assert!(text.contains("comfy_router_gpu_utilization_ratio{gpu=\"GPU-1\"} 0.5"), "{text}");
        assert!(text.contains("comfy_router_gpu_power_watts{gpu=\"GPU-1\"} NaN"), "{text}");
    }

    #[test]
    fn a_hook_that_is_not_exported_is_no_fallback() {
        let version = PolicyVersion { name: "mine".into(), digest: "0123456789ab".into() };
        let text = scrape(|| {
            decision(Hook::Admit, &version, Some(Fallback::NotExported), Duration::ZERO);
            decision(Hook::Route, &version, Some(Fallback::Trap), Duration::from_micros(40));
        });
        assert!(text.contains("hook=\"route\",policy=\"mine@0123456789ab\",outcome=\"trap\"} 1"), "{text}");
        assert!(text.contains("policy_fallbacks_total{hook=\"route\",reason=\"trap\"} 1"), "{text}");
        assert!(!text.contains("policy_fallbacks_total{hook=\"admit\""), "{text}");
    }

    #[test]
    fn installing_twice_gives_the_same_recorder() {
        let first = install().expect("installs");
        let second = install().expect("is installed");
        ws_clients(7);
        assert!(first.render().contains("comfy_router_ws_clients 7"));
        assert!(second.render().contains("comfy_router_build_info"));
    }
}
