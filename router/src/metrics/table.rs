//! Every metric this process exports: name, kind, unit, meaning and, for histograms, buckets. Nothing else in the
//! crate spells a metric name.

use metrics::Unit;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [&'static str]),
}

#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) help: &'static str,
}

/// Buckets are written as text so that `Kind` stays comparable; `buckets` parses them once at start.
pub(super) fn buckets(texts: &[&str]) -> Vec<f64> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

const JOB: Kind = Kind::Histogram(&[
    "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "20", "30", "60", "120", "300", "600", "1800",
    "3600",
]);
const LOAD: Kind = Kind::Histogram(&["0.1", "0.25", "0.5", "1", "2.5", "5", "10", "20", "40", "80", "160"]);
const DECISION: Kind = Kind::Histogram(&[
    "0.000005", "0.00001", "0.000025", "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005",
    "0.01", "0.05",
]);
const HTTP: Kind = Kind::Histogram(&[
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
    "10", "30",
]);
const DISK: Kind = Kind::Histogram(&[
    "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "10",
]);
const BATCH: Kind = Kind::Histogram(&["1", "2", "4", "8", "16", "32", "64", "128", "256"]);

macro_rules! metrics_table {
    ($($konst:ident $name:literal $kind:expr, $unit:ident, $help:literal;)*) => {
        $(pub(super) const $konst: &str = concat!("comfy_router_", $name);)*
        pub(super) const TABLE: &[Metric] =
            &[$(Metric { name: $konst, kind: $kind, unit: Unit::$unit, help: $help }),*];
    };
}

use Kind::{Counter, Gauge};

metrics_table! {
    BUILD_INFO "build_info" Gauge, Count, "1, with the version of the router";
    START_TIME "start_time_seconds" Gauge, Seconds, "Unix time at which the process started";

    JOBS_ACCEPTED "jobs_accepted_total" Counter, Count, "Jobs that were made durable and answered 200";
    JOBS_REFUSED "jobs_refused_total" Counter, Count, "Prompts that were not taken, by reason";
    JOBS_ENDED "jobs_ended_total" Counter, Count, "Throughput: jobs that ended, by outcome";
    JOB_RESPONSE "job_response_seconds" JOB, Seconds, "Response time: from acceptance to the end of a job";
    JOB_WAIT "job_queue_wait_seconds" JOB, Seconds, "From acceptance to the start of a job's first attempt";
    QUEUED "queue_jobs" Gauge, Count, "Jobs that wait in the router";
    RUNNING "running_jobs" Gauge, Count, "Jobs with a live attempt";

    ATTEMPTS_STARTED "attempts_started_total" Counter, Count, "Attempts sent to an instance";
    ATTEMPTS_ENDED "attempts_ended_total" Counter, Count, "Attempts that ended, by instance and outcome";
    ATTEMPT_RUN "attempt_run_seconds" JOB, Seconds, "Run time of attempts, by instance";
    MODEL_LOADS "model_loads_total" Counter, Count, "Attempts that had to load at least one model";
    MODEL_LOAD_TIME "model_load_seconds" LOAD, Seconds, "Time attempts spent on loading models, as far as it shows";

    INSTANCE_UP "instance_up" Gauge, Count, "1 while the instance answers";
    INSTANCE_DRAINING "instance_draining" Gauge, Count, "1 while the instance is given no new attempts";
    INSTANCE_QUARANTINED "instance_quarantined" Gauge, Count, "1 while the instance is given nothing, or single attempts on trial, because it failed";
    QUARANTINES "instance_quarantines_total" Counter, Count, "Quarantines of the instance";
    RESTARTS "instance_restarts_total" Counter, Count, "Restarts of the instance by the router, by outcome";
    PROCESS_ENDS "instance_process_ends_total" Counter, Count, "Times that the process of a launched instance ended by itself";
    INSTANCE_SLOTS "instance_slots" Gauge, Count, "Attempts the instance may be given at a time";
    INSTANCE_RUNNING "instance_running_jobs" Gauge, Count, "Jobs that run on the instance, those of others included";
    INSTANCE_PENDING "instance_pending_jobs" Gauge, Count, "Jobs in the instance's own queue, those of others included";
    INSTANCE_GPU "instance_gpu_info" Gauge, Count, "1 for the GPU that the instance uses, 0 for one it no longer uses";
    UPSTREAM_REQUESTS "instance_requests_total" Counter, Count, "Requests to instances by status class, or `failed`";
    UPSTREAM_TIME "instance_request_seconds" HTTP, Seconds, "Time until an instance's answer began";
    UPSTREAM_FRAMES "instance_frames_total" Counter, Count, "Websocket frames received from instances";
    UPSTREAM_FRAME_BYTES "instance_frame_bytes_total" Counter, Bytes, "Websocket payload received from instances";
    UPLOADS_STAGED "uploads_staged_total" Counter, Count, "Uploaded inputs copied to an instance before an attempt";
    UPLOADS_STAGED_BYTES "uploads_staged_bytes_total" Counter, Bytes, "Bytes of uploaded inputs copied to instances";
    OUTPUTS_KEPT "outputs_kept_total" Counter, Count, "Outputs copied from their instance after their job, with outputs.keep";
    OUTPUTS_KEPT_BYTES "outputs_kept_bytes_total" Counter, Bytes, "Bytes of such outputs";
    OUTPUTS_NOT_KEPT "outputs_not_kept_total" Counter, Count, "Outputs that could not be copied";

    GPU_INFO "gpu_info" Gauge, Count, "1, with the name, index and source of the GPU";
    GPU_UTILIZATION "gpu_utilization_ratio" Gauge, Count, "Share of the last sample period in which the GPU was busy, 0-1";
    GPU_MEMORY_USED "gpu_memory_used_bytes" Gauge, Bytes, "GPU memory in use";
    GPU_MEMORY_TOTAL "gpu_memory_total_bytes" Gauge, Bytes, "GPU memory";
    GPU_TEMPERATURE "gpu_temperature_celsius" Gauge, Count, "GPU temperature";
    GPU_SLOWDOWN "gpu_slowdown_temperature_celsius" Gauge, Count, "Temperature at which the GPU slows itself down";
    GPU_POWER "gpu_power_watts" Gauge, Count, "Power drawn";
    GPU_POWER_LIMIT "gpu_power_limit_watts" Gauge, Count, "Enforced power limit";
    GPU_CLOCK "gpu_sm_clock_hertz" Gauge, Count, "Clock of the streaming multiprocessors";
    GPU_THROTTLED "gpu_throttled" Gauge, Count, "1 while heat or hardware reasons hold the clocks back";
    GPU_ECC_ERRORS "gpu_ecc_uncorrected_errors" Gauge, Count, "Uncorrected memory errors since the driver was loaded";
    GPU_READING_AGE "gpu_reading_age_seconds" Gauge, Seconds, "Age of the GPU's figures when they were last merged";
    TELEMETRY_ERRORS "telemetry_errors_total" Counter, Count, "Failed or overdue samples, by source";

    DECISIONS "decisions_total" Counter, Count, "Policy calls by hook, version and outcome (`answered` or why the built-in stood in)";
    DECISION_TIME "decision_seconds" DECISION, Seconds, "Time of a policy call, by hook";
    FALLBACKS "policy_fallbacks_total" Counter, Count, "Decisions the built-in made in the policy's place, by hook and reason";
    POLICY_SWAPS "policy_swaps_total" Counter, Count, "Times another policy version began to serve";
    POLICY_LOAD_FAILURES "policy_load_failures_total" Counter, Count, "Policy files that were refused, by reason";
    POLICY_SHADOW "policy_shadow_answers_total" Counter, Count, "What shadows said against the live version: `agreed`, `differed`, `failed`, or `dropped` unasked";
    POLICY_CANARIES "policy_canaries_ended_total" Counter, Count, "Canaries that ended, by how: `returned` because they did worse, or `withdrawn`";
    POLICY_RECORD_DROPPED "policy_recordings_dropped_total" Counter, Count, "Questions to the policy that came too fast to be recorded; a replay lacks them";
    POLICY_STATE_ERRORS "policy_state_errors_total" Counter, Count, "Writes of what policies remember that failed; they are tried again";
    POLICY_COUNTER "policy_counter_total" Counter, Count, "Counters that policies keep themselves, by policy and name";
    POLICY_GAUGE "policy_gauge" Gauge, Count, "Gauges that policies keep themselves, by policy and name";
    POLICY_INFO "policy_info" Gauge, Count, "1 for the policy version that serves, 0 for earlier ones";

    WS_CLIENTS "ws_clients" Gauge, Count, "Connected websocket clients";
    CLIENT_FRAMES "client_frames_total" Counter, Count, "Websocket frames queued for clients, by kind";
    CLIENT_FRAME_BYTES "client_frame_bytes_total" Counter, Bytes, "Websocket payload queued for clients, by kind";
    CLIENT_DROPPED "client_frames_dropped_total" Counter, Count, "Frames dropped or merged because a client reads slowly, by kind";
    CLIENT_CLOSED "client_closed_total" Counter, Count, "Websockets the router closed, by reason";

    HTTP_REQUESTS "http_requests_total" Counter, Count, "Requests of clients by kind of route and status class";
    HTTP_TIME "http_request_seconds" HTTP, Seconds, "Time until the answer to a client began, by kind of route";
    HTTP_IN "http_received_bytes_total" Counter, Bytes, "Body bytes received from clients, by kind of route";
    HTTP_OUT "http_sent_bytes_total" Counter, Bytes, "Body bytes sent to clients, by kind of route";

    LEDGER_COMMIT "ledger_commit_seconds" DISK, Seconds, "Time of one durable transaction of the ledger";
    LEDGER_BATCH "ledger_commit_callers" BATCH, Count, "Callers whose events shared one transaction";
    LEDGER_EVENTS "ledger_events_total" Counter, Count, "Events made durable";
    LEDGER_ERRORS "ledger_errors_total" Counter, Count, "Commits that failed, by kind of error";
    LEDGER_FILE "ledger_file_bytes" Gauge, Bytes, "Size of the ledger's database file";
}
