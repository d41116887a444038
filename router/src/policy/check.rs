//! Judges what a guest answered: refuses what makes no sense against its question, cuts down what is too much.
//! Whatever passes may be used without a further look at its shape.

use super::config::{Bounds, GuestLimits};
use crate::model::decision::{
    Admission, Limits, Order, Placement, Priority, RecoveryDecision, Route, RouteDecision, TimeoutDecision,
};
use crate::model::view::{Candidate, InstanceView, Offer, Seat};

/// Scores and ageing beyond this are cut: sums of them must stay finite.
const MOST_POINTS: f64 = 1e12;

/// A day: nobody waits longer to try again.
const MOST_RETRY_AFTER_S: u32 = 86_400;

/// The answer makes no sense, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nonsense(pub String);

type Checked<T> = Result<T, Nonsense>;

fn nonsense<T>(why: impl Into<String>) -> Checked<T> {
    Err(Nonsense(why.into()))
}

/// One line of at most `max` bytes: control characters become spaces, because texts go to logs and to clients.
pub(crate) fn text(text: &str, max: usize) -> String {
    let end = text.floor_char_boundary(max);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Check<'a> {
    pub limits: &'a GuestLimits,
    pub bounds: &'a Bounds,
}

impl Check<'_> {
    pub(crate) fn text(&self, said: &str) -> String {
        text(said, self.limits.text_bytes as usize)
    }

    fn rows(&self, what: &str, count: usize) -> Checked<()> {
        if count > self.limits.rows as usize {
            return nonsense(format!("{count} {what}, and an answer may have {}", self.limits.rows));
        }
        Ok(())
    }

    pub(crate) fn admission(&self, admission: Admission) -> Admission {
        match admission {
            Admission::Admit => Admission::Admit,
            Admission::Reject { status, retry_after_s, reason } => Admission::Reject {
                status: if (400..500).contains(&status) { status } else { 503 },
                retry_after_s: retry_after_s.map(|s| s.min(MOST_RETRY_AFTER_S)),
                reason: self.text(&reason),
            },
        }
    }

    pub(crate) fn priority(&self, priority: Priority) -> Checked<Priority> {
        let Priority { score, ageing_per_second: ageing } = priority;
        if !score.is_finite() {
            return nonsense(format!("a score of {score}"));
        }
        if !ageing.is_finite() || ageing < 0.0 {
            return nonsense(format!("ageing of {ageing} a second"));
        }
        Ok(Priority {
            score: score.clamp(-MOST_POINTS, MOST_POINTS),
            ageing_per_second: ageing.min(MOST_POINTS),
        })
    }

    pub(crate) fn limits(&self, limits: Limits) -> Limits {
        // No limit at all is the most a policy can ask for, and a limit of nothing would end every job.
        let cut = |asked: Option<u32>, most: Option<u32>| match (asked, most) {
            (Some(asked), Some(most)) => Some(asked.min(most).max(1)),
            (Some(asked), None) => Some(asked.max(1)),
            (None, most) => most,
        };
        Limits {
            queue_ms: cut(limits.queue_ms, self.bounds.max_queue_ms),
            run_ms: cut(limits.run_ms, self.bounds.max_run_ms),
            stall_ms: cut(limits.stall_ms, self.bounds.max_stall_ms),
        }
    }

    pub(crate) fn timeout(&self, decision: TimeoutDecision) -> TimeoutDecision {
        match decision {
            TimeoutDecision::Extend { ms } => {
                TimeoutDecision::Extend { ms: ms.clamp(1, self.bounds.max_extend_ms) }
            }
            TimeoutDecision::Retry => TimeoutDecision::Retry,
            TimeoutDecision::Fail { reason } => TimeoutDecision::Fail { reason: self.text(&reason) },
        }
    }

    pub(crate) fn route(&self, decision: RouteDecision, candidates: &[Candidate]) -> Checked<RouteDecision> {
        let route = match decision.route {
            Route::Ranked(rows) => Route::Ranked(self.ranking(rows, candidates.len())?),
            Route::Hold { ms } => Route::Hold { ms: ms.clamp(1, self.bounds.max_hold_ms) },
            Route::Reject => Route::Reject,
        };
        Ok(RouteDecision { route, reason: self.text(&decision.reason) })
    }

    fn ranking(&self, rows: Vec<u32>, candidates: usize) -> Checked<Vec<u32>> {
        self.rows("rows", rows.len())?;
        if rows.is_empty() {
            return nonsense("a ranking of nobody");
        }
        let mut seen = vec![false; candidates];
        for &row in &rows {
            match seen.get_mut(row as usize) {
                None => return nonsense(format!("row {row} of {candidates} candidates")),
                Some(true) => return nonsense(format!("row {row} twice")),
                Some(seen) => *seen = true,
            }
        }
        Ok(rows)
    }

    /// A matching within what was offered.
    pub(crate) fn placement(
        &self,
        answer: Placement,
        jobs: usize,
        seats: &[Seat],
        offers: &[Offer],
    ) -> Checked<Placement> {
        self.rows("pairs", answer.pairs.len())?;
        let mut placed = vec![false; jobs];
        let mut free: Vec<u32> = seats.iter().map(|seat| seat.free_slots).collect();
        for &pair in &answer.pairs {
            let (job, seat) = (pair.job, pair.seat);
            match placed.get_mut(job as usize) {
                None => return nonsense(format!("job row {job} of {jobs}")),
                Some(true) => return nonsense(format!("job row {job} twice")),
                Some(placed) => *placed = true,
            }
            match free.get_mut(seat as usize) {
                None => return nonsense(format!("seat row {seat} of {}", seats.len())),
                Some(0) => return nonsense(format!("more jobs for seat row {seat} than it has free slots")),
                Some(free) => *free -= 1,
            }
            if offers.binary_search_by_key(&(job, seat), |offer| (offer.job, offer.seat)).is_err() {
                return nonsense(format!("job row {job} on seat row {seat}, which was not offered"));
            }
        }
        let hold_ms = answer.hold_ms.clamp(1, self.bounds.max_hold_ms);
        Ok(Placement { hold_ms, reason: self.text(&answer.reason), ..answer })
    }

    pub(crate) fn recovery(&self, decision: RecoveryDecision) -> RecoveryDecision {
        match decision {
            RecoveryDecision::Retry { delay_ms, avoid_instance } => RecoveryDecision::Retry {
                delay_ms: delay_ms.min(self.bounds.max_retry_delay_ms),
                avoid_instance,
            },
            RecoveryDecision::Fail => RecoveryDecision::Fail,
        }
    }

    pub(crate) fn orders(&self, orders: Vec<Order>, instances: &[InstanceView]) -> Checked<Vec<Order>> {
        self.rows("orders", orders.len())?;
        if let Some(order) = orders.iter().find(|o| !instances.iter().any(|i| i.instance == o.instance)) {
            return nonsense(format!("an order for instance {}, which is not there", order.instance));
        }
        // Each is an act upon an instance, and doing it twice at once is nothing more. The last word counts.
        let mut kept: Vec<Order> = Vec::new();
        for order in orders.into_iter().rev() {
            if !kept.iter().any(|known| (known.instance, known.act) == (order.instance, order.act)) {
                kept.push(Order { reason: self.text(&order.reason), ..order });
            }
        }
        kept.reverse();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn check<T>(act: impl FnOnce(Check<'_>) -> T) -> T {
        act(Check { limits: &GuestLimits::default(), bounds: &Bounds::default() })
    }

    fn route(route: Route) -> Checked<RouteDecision> {
        check(|c| c.route(RouteDecision { route, reason: String::new() }, &sample::candidates(3)))
    }

    #[test]
    fn rankings_name_each_candidate_at_most_once() {
        assert!(route(Route::Ranked(vec![2, 0])).is_ok());
        for rows in [vec![3], vec![u32::MAX], vec![1, 1], Vec::new(), vec![0; 2_000]] {
            assert!(route(Route::Ranked(rows.clone())).is_err(), "{} rows", rows.len());
        }
        let held = route(Route::Hold { ms: u32::MAX }).unwrap().route;
        assert_eq!(held, Route::Hold { ms: Bounds::default().max_hold_ms });
    }

    #[test]
    fn a_placement_is_a_matching_within_the_offers() {
        use crate::model::decision::Pair;
        let (jobs, seats, offers) = sample::window(3, 4);
        let judge = |pairs: &[(u32, u32)]| {
            let pairs = pairs.iter().map(|&(job, seat)| Pair { job, seat }).collect();
            let answer = Placement { pairs, hold_ms: u32::MAX, reason: "x".repeat(9_999) };
            check(|c| c.placement(answer, jobs.len(), &seats, &offers))
        };
        let good = judge(&[(0, 0), (1, 1)]).unwrap();
        assert_eq!((good.hold_ms, good.reason.len()), (Bounds::default().max_hold_ms, 4_096));
        assert!(judge(&[]).is_ok(), "all may wait");
        let long = vec![(0, 0); 2_000];
        let bad: [&[(u32, u32)]; 7] =
            [&[(3, 0)], &[(0, 4)], &[(u32::MAX, 0)], &[(0, 0), (0, 1)], &[(0, 0), (1, 0)], &[(0, 2)], &long];
        for pairs in bad {
            assert!(judge(pairs).is_err(), "{pairs:?}");
        }
        assert!(
            !offers.iter().any(|o| (o.job, o.seat) == (2, 3)) && judge(&[(2, 3)]).is_err(),
            "not offered"
        );
    }

    #[test]
    fn priorities_are_finite_and_never_age_backwards() {
        let judge = |score, ageing_per_second| check(|c| c.priority(Priority { score, ageing_per_second }));
        for (score, ageing) in
            [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, f64::INFINITY), (1.0, -0.1), (1.0, f64::NAN)]
        {
            assert!(judge(score, ageing).is_err(), "{score} {ageing}");
        }
        assert_eq!(judge(f64::MAX, f64::MAX).unwrap(), Priority { score: 1e12, ageing_per_second: 1e12 });
    }

    #[test]
    fn texts_become_one_short_line() {
        assert_eq!(text("a\nb\x1b[0m", 100), "a b [0m");
        assert_eq!(text(&"é".repeat(10), 5), "éé");
    }

    #[test]
    fn a_refusal_has_a_status_that_refuses() {
        let status = |status| {
            let refusal = Admission::Reject { status, retry_after_s: Some(u32::MAX), reason: String::new() };
            match check(|c| c.admission(refusal)) {
                Admission::Reject { status, retry_after_s, .. } => (status, retry_after_s),
                Admission::Admit => panic!("a refusal stays one"),
            }
        };
        assert_eq!([status(200), status(429), status(599)].map(|s| s.0), [503, 429, 503]);
        assert_eq!(status(429).1, Some(86_400));
    }

    #[test]
    fn limits_are_cut_to_the_operators_bounds() {
        let bounds = Bounds { max_run_ms: Some(1_000), ..Bounds::default() };
        let check = Check { limits: &GuestLimits::default(), bounds: &bounds };
        let cut = check.limits(Limits { queue_ms: Some(0), run_ms: None, stall_ms: Some(7) });
        assert_eq!(cut, Limits { queue_ms: Some(1), run_ms: Some(1_000), stall_ms: Some(7) });
    }

    #[test]
    fn orders_are_for_instances_that_exist() {
        use crate::model::decision::Act;
        let order = |instance| Order { instance, act: Act::Drain, reason: "x".repeat(9_999) };
        let instances = sample::instances(2);
        assert!(check(|c| c.orders(vec![order(2)], &instances)).is_err());
        assert!(check(|c| c.orders(vec![order(0); 1_025], &instances)).is_err());
        assert_eq!(check(|c| c.orders(vec![order(1)], &instances)).unwrap()[0].reason.len(), 4_096);
        let flood = (0..1_024).map(|n| order(n % 2)).collect();
        assert_eq!(check(|c| c.orders(flood, &instances)).unwrap().len(), 2, "each once");
    }
}
