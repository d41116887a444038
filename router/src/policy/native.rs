//! The built-in policy: what the router does when no component answers. It holds no state, allocates little and cannot
//! fail, because every failure of a component ends here.

use super::config::Config;
use crate::model::decision::{
    Admission, Answer, Cause, Failure, Limit, Limits, Order, Pair, Placement, Priority, Progress, Question,
    RecoveryDecision, Route, RouteDecision, TimeoutDecision,
};
use crate::model::job::JobClass;
use crate::model::view::{Candidate, JobView, Offer, Seat};

/// Points between two classes.
const CLASS_POINTS: f64 = 100.0;
/// A client's `number` moves its job within these points, so that it orders the client's own jobs among their class
/// and cannot lift a batch job above an interactive one.
const NUMBER_POINTS: f64 = 40.0;
/// More than any class, and more than ageing gives in ten days: `front` means front.
const FRONT_POINTS: f64 = 1_000_000.0;

/// Answers a whole question.
pub(crate) fn answer(question: &Question, config: &Config) -> Answer {
    match question {
        Question::Intake { job, .. } => Answer::Intake {
            admission: Admission::Admit,
            priority: prioritize(job, config),
            limits: limits_for(config),
        },
        Question::Reassess { job } => {
            Answer::Reassess { priority: prioritize(job, config), limits: limits_for(config) }
        }
        Question::Route { candidates, .. } => Answer::Route(route(candidates)),
        Question::Place { seats, offers, .. } => Answer::Place(place(seats, offers)),
        Question::OnTimeout { job, limit, progress } => {
            Answer::OnTimeout(on_timeout(job, *limit, progress, config))
        }
        Question::OnFailure { failure, .. } => Answer::OnFailure(on_failure(failure, config)),
        Question::Tick { .. } => Answer::Tick(tick()),
        Question::Observe { .. } => Answer::Observe,
    }
}

pub(crate) fn prioritize(job: &JobView, config: &Config) -> Priority {
    let class = match job.class {
        JobClass::Interactive => 2.0,
        JobClass::Standard => 1.0,
        JobClass::Batch => 0.0,
    };
    let number = job.number.filter(|n| n.is_finite()).unwrap_or(0.0);
    let shift = -NUMBER_POINTS * number / (1.0 + number.abs());
    if job.front {
        // Alike, and so by ComfyUI's number: the last comes first.
        return Priority { score: FRONT_POINTS, ageing_per_second: 0.0 };
    }
    Priority { score: class * CLASS_POINTS + shift, ageing_per_second: config.builtin.ageing_per_second }
}

pub(crate) fn limits_for(config: &Config) -> Limits {
    config.builtin.limits
}

/// Least loaded first; among equals the one with more of the models, then the one with more free memory, then the
/// first. Rows without a free slot are left out: the host takes the first row that has one anyway.
pub(crate) fn route(candidates: &[Candidate]) -> RouteDecision {
    let mut rows: Vec<u32> =
        (0..candidates.len() as u32).filter(|&row| candidates[row as usize].free_slots > 0).collect();
    rows.sort_by_key(|&row| {
        let c = &candidates[row as usize];
        let models_first = u32::MAX - c.models_resident;
        let memory_first = u32::MAX - c.gpu.vram_free_mib.unwrap_or(0);
        (c.running + c.pending, c.failures, models_first, memory_first, row)
    });
    if rows.is_empty() {
        return RouteDecision { route: Route::Hold { ms: 1_000 }, reason: "no free slot".to_owned() };
    }
    RouteDecision { route: Route::Ranked(rows), reason: "least loaded".to_owned() }
}

/// What `route` would say to one job after the other: each takes the least loaded seat that is left.
pub(crate) fn place(seats: &[Seat], offers: &[Offer]) -> Placement {
    let mut free: Vec<u32> = seats.iter().map(|seat| seat.free_slots).collect();
    let mut pairs: Vec<Pair> = Vec::new();
    for of_job in offers.chunk_by(|a, b| a.job == b.job) {
        let best = of_job.iter().filter(|offer| free[offer.seat as usize] > 0).min_by_key(|offer| {
            let seat = &seats[offer.seat as usize];
            let given = seat.free_slots - free[offer.seat as usize];
            let memory_first = u32::MAX - seat.gpu.vram_free_mib.unwrap_or(0);
            let load = seat.running.saturating_add(seat.pending).saturating_add(given);
            (load, seat.failures, u32::MAX - offer.models_resident, memory_first, offer.seat)
        });
        if let Some(offer) = best {
            free[offer.seat as usize] -= 1;
            pairs.push(Pair { job: offer.job, seat: offer.seat });
        }
    }
    Placement { pairs, hold_ms: 1_000, reason: "least loaded".to_owned() }
}

pub(crate) fn on_timeout(
    job: &JobView,
    limit: Limit,
    progress: &Progress,
    config: &Config,
) -> TimeoutDecision {
    match limit {
        Limit::Stall if job.attempt < config.builtin.attempts => TimeoutDecision::Retry,
        Limit::Queue => {
            fail(format!("waited {} ms in the queue, which is over its limit", progress.elapsed_ms))
        }
        Limit::Run => fail(format!("ran {} ms, which is over its limit", progress.elapsed_ms)),
        Limit::Stall => fail(format!("showed no progress for {} ms", progress.silent_ms)),
    }
}

fn fail(reason: String) -> TimeoutDecision {
    TimeoutDecision::Fail { reason }
}

/// Once more, elsewhere, unless the graph itself is at fault: a node that raised or a refused prompt fails anywhere.
pub(crate) fn on_failure(failure: &Failure, config: &Config) -> RecoveryDecision {
    let again = match failure.cause {
        Cause::Crash | Cause::Lost | Cause::OutOfMemory | Cause::Dispatch => {
            failure.attempt < config.builtin.attempts
        }
        Cause::NodeError | Cause::Rejected => false,
    };
    if again { RecoveryDecision::Retry { delay_ms: 0, avoid_instance: true } } else { RecoveryDecision::Fail }
}

pub(crate) fn tick() -> Vec<Order> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn candidate(running: u32, free_slots: u32) -> Candidate {
        Candidate { running, free_slots, ..Candidate::default() }
    }

    #[test]
    fn the_least_loaded_free_instance_is_first_and_busy_ones_are_left_out() {
        let decision = route(&[candidate(2, 1), candidate(0, 1), candidate(0, 0)]);
        assert_eq!(decision.route, Route::Ranked(vec![1, 0]));
        assert!(matches!(route(&[candidate(1, 0)]).route, Route::Hold { .. }));
    }

    #[test]
    fn a_window_is_spread_over_the_free_seats_in_the_order_of_its_jobs() {
        let seat = |running, free_slots| Seat { running, free_slots, ..Seat::default() };
        let offer = |job, seat| Offer { job, seat, ..Offer::default() };
        let seats = [seat(1, 1), seat(0, 2), seat(0, 0)];
        let offers =
            [offer(0, 0), offer(0, 1), offer(1, 1), offer(1, 2), offer(2, 0), offer(2, 1), offer(3, 1)];
        let pairs: Vec<_> = place(&seats, &offers).pairs.iter().map(|p| (p.job, p.seat)).collect();
        assert_eq!(pairs, [(0, 1), (1, 1), (2, 0)]);
    }

    #[test]
    fn a_class_outranks_any_number_and_front_outranks_a_class() {
        let config = Config::default();
        let score = |class, number, front| {
            prioritize(&JobView { class, number, front, ..sample::job() }, &config).score
        };
        let interactive = score(JobClass::Interactive, Some(1e300), false);
        assert!(interactive > score(JobClass::Standard, Some(-1e300), false));
        assert!(score(JobClass::Batch, None, true) > score(JobClass::Interactive, Some(-5.0), false));
        assert!(score(JobClass::Standard, Some(-2.0), false) > score(JobClass::Standard, None, false));
        assert!(score(JobClass::Standard, Some(f64::NAN), false).is_finite());
    }

    #[test]
    fn a_crash_is_tried_once_more_elsewhere_and_a_bad_graph_is_not() {
        let config = Config::default();
        let failure = |cause, attempt| Failure { cause, instance: 0, attempt, ran_ms: 10 };
        let again = RecoveryDecision::Retry { delay_ms: 0, avoid_instance: true };
        assert_eq!(on_failure(&failure(Cause::Crash, 1), &config), again);
        assert_eq!(on_failure(&failure(Cause::Crash, 2), &config), RecoveryDecision::Fail);
        assert_eq!(on_failure(&failure(Cause::NodeError, 1), &config), RecoveryDecision::Fail);
    }

    #[test]
    fn a_stall_is_retried_once_and_a_long_run_fails_with_its_time() {
        let config = Config::default();
        let progress = Progress { elapsed_ms: 900, silent_ms: 50, ..Progress::default() };
        let job = |attempt| JobView { attempt, ..sample::job() };
        assert_eq!(on_timeout(&job(1), Limit::Stall, &progress, &config), TimeoutDecision::Retry);
        let TimeoutDecision::Fail { reason } = on_timeout(&job(1), Limit::Run, &progress, &config) else {
            panic!("a passed run limit fails")
        };
        assert!(reason.contains("900 ms"), "{reason}");
    }
}
