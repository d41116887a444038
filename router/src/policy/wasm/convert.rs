//! Between the words of the model and the records of the WIT, field by field. Nothing is judged here.

use super::bindings::comfy_router::policy::types as wit;
use super::bindings::exports::comfy_router::policy as hooks;
use crate::model::decision::{
    Act, Admission, AttemptReport, Cause, Failure, Limit, Order, Pair, Placement, Progress, RecoveryDecision,
    ResultKind, Route, RouteDecision, TimeoutDecision,
};
use crate::model::job::JobClass;
use crate::model::view::{Candidate, InstanceView, JobView, Load, Offer, Seat};

pub(super) fn job(job: &JobView, handle: u32) -> wit::Job {
    wit::Job {
        handle,
        tenant: job.tenant,
        client: job.client,
        class: class(job.class),
        number: job.number,
        front: job.front,
        nodes: job.nodes,
        outputs: job.outputs,
        images: job.images,
        steps: job.steps,
        megapixels: job.megapixels,
        work: job.work,
        signature: job.signature,
        models: job.models,
        input_kib: job.input_kib,
        attempt: job.attempt,
        waited_ms: job.waited_ms,
        run_ms: job.run_ms,
    }
}

pub(super) fn class(class: JobClass) -> wit::JobClass {
    match class {
        JobClass::Interactive => wit::JobClass::Interactive,
        JobClass::Standard => wit::JobClass::Standard,
        JobClass::Batch => wit::JobClass::Batch,
    }
}

pub(super) fn class_from(class: wit::JobClass) -> JobClass {
    match class {
        wit::JobClass::Interactive => JobClass::Interactive,
        wit::JobClass::Standard => JobClass::Standard,
        wit::JobClass::Batch => JobClass::Batch,
    }
}

pub(super) fn seat(seat: &Seat) -> hooks::placement::Seat {
    let gpu = &seat.gpu;
    hooks::placement::Seat {
        instance: seat.instance,
        free_slots: seat.free_slots,
        free_in_ms: seat.free_in_ms,
        running: seat.running,
        pending: seat.pending,
        vram_free_mib: gpu.vram_free_mib,
        vram_total_mib: gpu.vram_total_mib,
        gpu_utilization_percent: gpu.utilization_percent,
        temperature_c: gpu.temperature_c,
        slowdown_margin_c: gpu.slowdown_margin_c,
        power_mw: gpu.power_mw,
        power_limit_mw: gpu.power_limit_mw,
        throttled: gpu.throttled,
        failures: seat.failures,
        reading_age_ms: gpu.reading_age_ms,
    }
}

pub(super) fn offer(offer: &Offer) -> hooks::placement::Offer {
    hooks::placement::Offer {
        job: offer.job,
        seat: offer.seat,
        models_resident: offer.models_resident,
        load_ms: offer.load_ms,
        run_ms: offer.run_ms,
        same_signature: offer.same_signature,
    }
}

pub(super) fn placement(answer: hooks::placement::PlacementDecision) -> Placement {
    let pair = |pair: hooks::placement::Pair| Pair { job: pair.job, seat: pair.seat };
    Placement {
        pairs: answer.pairs.into_iter().map(pair).collect(),
        hold_ms: answer.hold_ms,
        reason: answer.reason,
    }
}

pub(super) fn candidate(candidate: &Candidate) -> wit::Candidate {
    let gpu = &candidate.gpu;
    wit::Candidate {
        instance: candidate.instance,
        free_slots: candidate.free_slots,
        running: candidate.running,
        pending: candidate.pending,
        models_resident: candidate.models_resident,
        load_ms: candidate.load_ms,
        free_in_ms: candidate.free_in_ms,
        run_ms: candidate.run_ms,
        vram_free_mib: gpu.vram_free_mib,
        vram_total_mib: gpu.vram_total_mib,
        gpu_utilization_percent: gpu.utilization_percent,
        temperature_c: gpu.temperature_c,
        slowdown_margin_c: gpu.slowdown_margin_c,
        power_mw: gpu.power_mw,
        power_limit_mw: gpu.power_limit_mw,
        throttled: gpu.throttled,
        failures: candidate.failures,
        reading_age_ms: gpu.reading_age_ms,
        same_signature: candidate.same_signature,
    }
}

pub(super) fn instance(instance: &InstanceView) -> wit::InstanceState {
    let gpu = &instance.gpu;
    wit::InstanceState {
        instance: instance.instance,
        up: instance.up,
        draining: instance.draining,
        running: instance.running,
        pending: instance.pending,
        idle_ms: instance.idle_ms,
        models_resident: instance.models_resident,
        vram_free_mib: gpu.vram_free_mib,
        vram_total_mib: gpu.vram_total_mib,
        gpu_utilization_percent: gpu.utilization_percent,
        temperature_c: gpu.temperature_c,
        slowdown_margin_c: gpu.slowdown_margin_c,
        throttled: gpu.throttled,
        failures: instance.failures,
        reading_age_ms: gpu.reading_age_ms,
    }
}

pub(super) fn load(load: &Load) -> wit::Load {
    wit::Load {
        queued: load.queued,
        running: load.running,
        instances: load.instances,
        free_slots: load.free_slots,
        tenant_queued: load.tenant_queued,
        tenant_running: load.tenant_running,
        client_queued: load.client_queued,
    }
}

pub(super) fn admission(answer: hooks::admission::AdmissionDecision) -> Admission {
    match answer {
        hooks::admission::AdmissionDecision::Admit => Admission::Admit,
        hooks::admission::AdmissionDecision::Reject(no) => {
            Admission::Reject { status: no.status, retry_after_s: no.retry_after_s, reason: no.reason }
        }
    }
}

pub(super) fn limit(limit: Limit) -> hooks::timeouts::Limit {
    match limit {
        Limit::Queue => hooks::timeouts::Limit::Queue,
        Limit::Run => hooks::timeouts::Limit::Run,
        Limit::Stall => hooks::timeouts::Limit::Stall,
    }
}

pub(super) fn progress(progress: &Progress) -> hooks::timeouts::Progress {
    hooks::timeouts::Progress {
        elapsed_ms: progress.elapsed_ms,
        silent_ms: progress.silent_ms,
        nodes_done: progress.nodes_done,
        node_percent: progress.node_percent,
    }
}

pub(super) fn timeout(answer: hooks::timeouts::TimeoutDecision) -> TimeoutDecision {
    match answer {
        hooks::timeouts::TimeoutDecision::Extend(ms) => TimeoutDecision::Extend { ms },
        hooks::timeouts::TimeoutDecision::Retry => TimeoutDecision::Retry,
        hooks::timeouts::TimeoutDecision::Fail(reason) => TimeoutDecision::Fail { reason },
    }
}

pub(super) fn route(answer: hooks::routing::RouteDecision) -> RouteDecision {
    let route = match answer.answer {
        hooks::routing::RouteAnswer::Ranked(rows) => Route::Ranked(rows),
        hooks::routing::RouteAnswer::Hold(ms) => Route::Hold { ms },
        hooks::routing::RouteAnswer::Reject => Route::Reject,
    };
    RouteDecision { route, reason: answer.reason }
}

pub(super) fn failure(failure: &Failure) -> hooks::recovery::Failure {
    let cause = match failure.cause {
        Cause::Crash => hooks::recovery::Cause::Crash,
        Cause::Lost => hooks::recovery::Cause::Lost,
        Cause::OutOfMemory => hooks::recovery::Cause::OutOfMemory,
        Cause::NodeError => hooks::recovery::Cause::NodeError,
        Cause::Rejected => hooks::recovery::Cause::Rejected,
        Cause::Dispatch => hooks::recovery::Cause::Dispatch,
    };
    hooks::recovery::Failure {
        cause,
        instance: failure.instance,
        attempt: failure.attempt,
        ran_ms: failure.ran_ms,
    }
}

pub(super) fn recovery(answer: hooks::recovery::RecoveryDecision) -> RecoveryDecision {
    match answer {
        hooks::recovery::RecoveryDecision::Retry(again) => {
            RecoveryDecision::Retry { delay_ms: again.delay_ms, avoid_instance: again.avoid_instance }
        }
        hooks::recovery::RecoveryDecision::Fail => RecoveryDecision::Fail,
    }
}

pub(super) fn order(order: hooks::housekeeping::Order) -> Order {
    let act = match order.act {
        hooks::housekeeping::Act::FreeModels => Act::FreeModels,
        hooks::housekeeping::Act::FreeMemory => Act::FreeMemory,
        hooks::housekeeping::Act::Drain => Act::Drain,
        hooks::housekeeping::Act::Resume => Act::Resume,
        hooks::housekeeping::Act::Interrupt(requeue) => Act::Interrupt { requeue },
        hooks::housekeeping::Act::Restart => Act::Restart,
        hooks::housekeeping::Act::CapSlots(slots) => Act::CapSlots(slots),
    };
    Order { instance: order.instance, act, reason: order.reason }
}

pub(super) fn outcome(report: &AttemptReport) -> hooks::feedback::Outcome {
    let kind = match report.kind {
        ResultKind::Success => hooks::feedback::ResultKind::Success,
        ResultKind::Error => hooks::feedback::ResultKind::Error,
        ResultKind::Cancelled => hooks::feedback::ResultKind::Cancelled,
        ResultKind::Lost => hooks::feedback::ResultKind::Lost,
        ResultKind::TimedOut => hooks::feedback::ResultKind::TimedOut,
    };
    hooks::feedback::Outcome {
        tenant: report.tenant,
        client: report.client,
        signature: report.signature,
        instance: report.instance,
        attempt: report.attempt,
        kind,
        wait_ms: report.wait_ms,
        run_ms: report.run_ms,
        predicted_ms: report.predicted_ms,
        load_ms: report.load_ms,
    }
}
