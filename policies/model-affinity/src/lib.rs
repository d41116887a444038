//! Sends each job where its models are, and keeps it for such an instance while that is the faster way.
//!
//! Loading a checkpoint takes as long as many jobs run, so the instance that is free first is often not the one that
//! is done first. Every instance gets a predicted end: time until free, plus loading, plus running. The earliest free
//! one wins, unless a busy one that has all the models would be done earlier still: then the job is held for it.
//! Predictions err, so a job is held for at most `max_extra_wait_ms` in all, counted from its first hold.

mod patience;
mod urgency;

use comfy_router_policy::{
    Candidate, Job, Lifecycle, Priority, PriorityDecision, RouteDecision, Routing, clock, settings,
};
use serde::Deserialize;

use patience::Patience;

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The most a job may wait for a busy instance while another is free.
    pub max_extra_wait_ms: u32,
    /// Taken for a load nothing is known about: the median switch of a pipeline in a published production trace of
    /// image generation (GenTD26).
    pub assumed_load_ms: u32,
    /// Predicted end is moved by this for each recent failure, so that an instance that fails fast does not look fast.
    pub failure_ms: u32,
    /// Points a waiting job gains in a second; a class is 100 points.
    pub ageing_per_second: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_extra_wait_ms: 15_000, assumed_load_ms: 8_500, failure_ms: 5_000, ageing_per_second: 1.0 }
    }
}

#[derive(Debug, Default)]
pub struct ModelAffinity {
    settings: Settings,
    patience: Patience,
}

comfy_router_policy::export!(ModelAffinity: lifecycle, priority, routing);

impl Lifecycle for ModelAffinity {
    fn configure(json: &str) -> Result<Self, String> {
        let settings: Settings = settings(json)?;
        if !settings.ageing_per_second.is_finite() || settings.ageing_per_second < 0.0 {
            return Err("ageing_per_second must be a number of at least 0".to_owned());
        }
        Ok(Self { settings, patience: Patience::default() })
    }
}

impl Priority for ModelAffinity {
    fn prioritize(&mut self, job: &Job) -> PriorityDecision {
        urgency::of(job, self.settings.ageing_per_second)
    }
}

impl Routing for ModelAffinity {
    fn route(&mut self, job: &Job, candidates: &[Candidate]) -> RouteDecision {
        let ends: Vec<u64> = candidates.iter().map(|c| self.predicted_end(job, c, candidates)).collect();
        let mut free: Vec<usize> =
            (0..candidates.len()).filter(|&row| candidates[row].free_slots > 0).collect();
        free.sort_by_key(|&row| (ends[row], among_equals(&candidates[row])));
        let Some(&best) = free.first() else {
            return RouteDecision::hold(1_000, "no instance has room");
        };
        if let Some(wait) = self.worth_waiting(job, candidates, &ends, ends[best]) {
            return RouteDecision::hold(
                wait,
                format!("models are loaded on a busy instance, free in {wait} ms"),
            );
        }
        self.patience.forget(job, clock::now_ms());
        RouteDecision::ranked(free, reason(job, &candidates[best]))
    }
}

impl ModelAffinity {
    fn predicted_end(&self, job: &Job, candidate: &Candidate, all: &[Candidate]) -> u64 {
        let wait = if candidate.free_slots > 0 { 0 } else { candidate.free_in_ms.unwrap_or(0) };
        // Without a figure for this instance the slowest known one, so that being unknown is no advantage.
        let run = candidate
            .run_ms
            .or(job.run_ms)
            .or_else(|| all.iter().filter_map(|c| c.run_ms).max())
            .unwrap_or(0);
        let failures = u64::from(self.settings.failure_ms) * u64::from(candidate.failures);
        u64::from(wait) + u64::from(self.load_ms(job, candidate)) + u64::from(run) + failures
    }

    fn load_ms(&self, job: &Job, candidate: &Candidate) -> u32 {
        if has_all(job, candidate) { 0 } else { candidate.load_ms.unwrap_or(self.settings.assumed_load_ms) }
    }

    /// How long to hold the job for a busy instance that has its models, if it would end there before `otherwise`.
    fn worth_waiting(&mut self, job: &Job, all: &[Candidate], ends: &[u64], otherwise: u64) -> Option<u32> {
        let (row, wait) = (0..all.len())
            .filter(|&row| all[row].free_slots == 0 && job.models > 0 && has_all(job, &all[row]))
            .filter_map(|row| Some((row, all[row].free_in_ms?)))
            .min_by_key(|&(row, _)| ends[row])?;
        if ends[row] >= otherwise {
            return None;
        }
        let left = self.patience.left(job, clock::now_ms(), self.settings.max_extra_wait_ms);
        // A prediction of 0 for a busy instance is overdue: look again soon.
        (wait <= left && left > 0).then(|| wait.clamp(50, left.max(50)))
    }
}

fn has_all(job: &Job, candidate: &Candidate) -> bool {
    candidate.models_resident >= job.models || candidate.load_ms == Some(0)
}

/// The node cache first; then leave the instance with the least memory free to others, because it holds the most.
fn among_equals(candidate: &Candidate) -> (bool, u32, bool, u32) {
    let jobs = candidate.running.saturating_add(candidate.pending);
    let memory_first = u32::MAX - candidate.vram_free_mib.unwrap_or(0);
    (!candidate.same_signature, jobs, candidate.throttled == Some(true), memory_first)
}

fn reason(job: &Job, candidate: &Candidate) -> String {
    match (job.models, has_all(job, candidate)) {
        (0, _) => "no models needed".to_owned(),
        (_, true) => "models loaded".to_owned(),
        (_, false) => format!("{} of {} models loaded", candidate.models_resident, job.models),
    }
}

#[cfg(test)]
mod cases;
