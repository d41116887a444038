//! Class, then ComfyUI's own `front` and `number`, then age.

use comfy_router_policy::{Job, JobClass, PriorityDecision};

const CLASS_POINTS: f64 = 100.0;

/// A client's `number` orders its jobs within this much of a class, so that it lifts none into another class.
const NUMBER_POINTS: f64 = 40.0;

/// More than any class, and more than ageing gives in ten days: `front` means front.
const FRONT_POINTS: f64 = 1_000_000.0;

pub(crate) fn of(job: &Job, ageing_per_second: f64) -> PriorityDecision {
    if job.front {
        // Alike, and so by ComfyUI's number: the last comes first.
        return PriorityDecision::new(FRONT_POINTS, 0.0, "front of the queue");
    }
    let (class, name) = match job.class {
        JobClass::Interactive => (2.0, "interactive"),
        JobClass::Standard => (1.0, "standard"),
        JobClass::Batch => (0.0, "batch"),
    };
    let number = job.number.filter(|number| number.is_finite()).unwrap_or(0.0);
    let shift = -NUMBER_POINTS * number / (1.0 + number.abs());
    PriorityDecision::new(class * CLASS_POINTS + shift, ageing_per_second, name)
}
