//! Sends each job to the instance with the fewest jobs, whatever models it has.
//!
//! The yardstick for the other policies, and the simplest example of one. It needs no predictions, so it is also right
//! when they would be wrong: on a fleet whose instances keep all their models loaded.

use comfy_router_policy::{Candidate, Job, RouteDecision, Routing};

#[derive(Debug, Default)]
pub struct LeastLoaded;

comfy_router_policy::export!(LeastLoaded: routing);

impl Routing for LeastLoaded {
    fn route(&mut self, _job: &Job, candidates: &[Candidate]) -> RouteDecision {
        let mut rows: Vec<usize> =
            (0..candidates.len()).filter(|&row| candidates[row].free_slots > 0).collect();
        rows.sort_by_key(|&row| rank(&candidates[row]));
        let reason = rows.first().map_or_else(
            || "no instance has room".to_owned(),
            |&row| format!("{} jobs there", jobs(&candidates[row])),
        );
        RouteDecision::ranked(rows, reason)
    }
}

/// Lower is better. A card that slows itself down, or that has just failed others, comes last among equals.
fn rank(candidate: &Candidate) -> (u32, bool, u32, u32) {
    let memory_first = u32::MAX - candidate.vram_free_mib.unwrap_or(0);
    (jobs(candidate), candidate.throttled == Some(true), candidate.failures, memory_first)
}

fn jobs(candidate: &Candidate) -> u32 {
    candidate.running.saturating_add(candidate.pending)
}

#[cfg(test)]
mod cases {
    use comfy_router_policy::RouteAnswer;
    use comfy_router_policy::testing::{candidate, job};

    use super::*;

    fn ranked(candidates: &[Candidate]) -> Vec<u32> {
        match LeastLoaded.route(&job(), candidates).answer {
            RouteAnswer::Ranked(rows) => rows,
            other => panic!("not ranked but {other:?}"),
        }
    }

    #[test]
    fn the_emptiest_comes_first_and_foreign_jobs_count() {
        let busy = Candidate { running: 1, pending: 3, ..candidate(0) };
        let busier = Candidate { running: 5, ..candidate(1) };
        assert_eq!(ranked(&[busier, busy, candidate(2)]), [2, 1, 0]);
    }

    #[test]
    fn among_equals_a_healthy_card_with_more_memory_comes_first() {
        let hot = Candidate { throttled: Some(true), vram_free_mib: Some(20_000), ..candidate(0) };
        let small = Candidate { vram_free_mib: Some(1_000), ..candidate(1) };
        let large = Candidate { vram_free_mib: Some(9_000), ..candidate(2) };
        let failing = Candidate { failures: 1, vram_free_mib: Some(20_000), ..candidate(3) };
        assert_eq!(ranked(&[hot, small, large, failing]), [2, 1, 3, 0]);
    }

    #[test]
    fn without_room_anywhere_the_job_waits() {
        let full = Candidate { free_slots: 0, ..candidate(0) };
        let decision = LeastLoaded.route(&job(), &[full]);
        assert!(matches!(decision.answer, RouteAnswer::Hold(_)), "{decision:?}");
    }
}
