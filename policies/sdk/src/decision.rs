//! Short ways to say an answer.

use crate::{
    AdmissionDecision, Limits, Pair, PlacementDecision, PriorityDecision, Rejection, RouteAnswer,
    RouteDecision,
};

/// Rows of a ranking, counted as the host or as Rust counts.
pub trait Ranking {
    fn rows(self) -> Vec<u32>;
}

impl<I: IntoIterator<Item = usize>> Ranking for I {
    fn rows(self) -> Vec<u32> {
        self.into_iter().map(|row| row as u32).collect()
    }
}

impl RouteDecision {
    /// Rows of the candidates, best first. With none left, the job is held for a second.
    pub fn ranked(rows: impl Ranking, reason: impl Into<String>) -> Self {
        let rows = rows.rows();
        let answer = if rows.is_empty() { RouteAnswer::Hold(1_000) } else { RouteAnswer::Ranked(rows) };
        Self { answer, reason: reason.into() }
    }

    pub fn hold(ms: u32, reason: impl Into<String>) -> Self {
        Self { answer: RouteAnswer::Hold(ms), reason: reason.into() }
    }

    /// The reason is told to the client.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self { answer: RouteAnswer::Reject, reason: reason.into() }
    }
}

impl PlacementDecision {
    /// Rows of jobs with the rows of their seats. The jobs left out are asked about again within a second.
    pub fn pairs(pairs: impl IntoIterator<Item = (u32, u32)>, reason: impl Into<String>) -> Self {
        let pairs = pairs.into_iter().map(|(job, seat)| Pair { job, seat }).collect();
        Self { pairs, hold_ms: 1_000, reason: reason.into() }
    }
}

impl PriorityDecision {
    /// Higher runs earlier; above 0 of ageing, nothing waits for ever.
    pub fn new(score: f64, ageing_per_second: f64, reason: impl Into<String>) -> Self {
        Self { score, ageing_per_second, reason: reason.into() }
    }
}

impl AdmissionDecision {
    /// Refuses with 429, to be tried again after so many seconds.
    pub fn busy(retry_after_s: u32, reason: impl Into<String>) -> Self {
        Self::Reject(Rejection { status: 429, retry_after_s: Some(retry_after_s), reason: reason.into() })
    }
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self = Self { queue_ms: None, run_ms: None, stall_ms: None };
}
