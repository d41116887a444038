//! The rules themselves, pure: the same view, settings and heat give the same answer.

use std::collections::BTreeSet;

use crate::settings::Settings;
use crate::{Candidate, Job, RouteAnswer, RouteDecision};
use crate::comfy_router::policy::types::JobClass;

/// An older temperature says nothing about now.
const FRESH_MS: u32 = 10_000;

/// What a recent failure counts as, so that an instance that fails fast does not look fast.
const FAILURE_MS: u64 = 5_000;

/// Until the next look, when there is nothing better to wait for.
const LOOK_AGAIN_MS: u32 = 1_000;

/// Points and why. A class is 100 points, `front` more than any class, and a client's `number` less than a class.
pub fn score(job: &Job) -> (f64, &'static str) {
    let (class, name) = match job.class {
        JobClass::Interactive => (200.0, "interactive"),
        JobClass::Standard => (100.0, "standard"),
        JobClass::Batch => (0.0, "batch"),
    };
    let number = job.number.filter(|number| number.is_finite()).unwrap_or(0.0);
    let shift = (-number).clamp(-40.0, 40.0);
    if job.front { (class + shift + 1_000.0, "front of the queue") } else { (class + shift, name) }
}

/// Which instances are too hot. Two thresholds, so that a card at one of them does not flap.
#[derive(Debug, Default)]
pub struct Heat(BTreeSet<u32>);

impl Heat {
    pub fn note(&mut self, candidates: &[Candidate], settings: &Settings) {
        for candidate in candidates {
            match temperature(candidate) {
                Some(celsius) if celsius >= settings.hot_c => {
                    self.0.insert(candidate.instance);
                }
                Some(celsius) if celsius <= settings.cool_c => {
                    self.0.remove(&candidate.instance);
                }
                // In between, or not known: as it was.
                _ => {}
            }
        }
    }

    fn is_hot(&self, candidate: &Candidate) -> bool {
        self.0.contains(&candidate.instance)
    }
}

fn temperature(candidate: &Candidate) -> Option<f64> {
    let fresh = candidate.reading_age_ms.is_some_and(|age| age <= FRESH_MS);
    candidate.temperature_c.filter(|_| fresh).map(f64::from)
}

pub fn route(job: &Job, candidates: &[Candidate], heat: &Heat, settings: &Settings) -> RouteDecision {
    let ends: Vec<u64> = candidates.iter().map(|candidate| end(job, candidate, settings)).collect();
    let with_room = |&row: &usize| candidates[row].free_slots > 0;
    let cool = |&row: &usize| !heat.is_hot(&candidates[row]);
    let mut free: Vec<usize> = (0..candidates.len()).filter(with_room).filter(cool).collect();
    free.sort_by_key(|&row| (ends[row], jobs(&candidates[row])));
    let Some(&best) = free.first() else {
        return without_room(job, candidates, settings);
    };
    let busy = (0..candidates.len())
        .filter(|row| !with_room(row) && cool(row) && job.models > 0 && has_all(job, &candidates[*row]))
        .filter_map(|row| Some((ends[row], candidates[row].free_in_ms?)))
        .min();
    if let Some((end, free_in_ms)) = busy
        && end < ends[best]
        && u64::from(job.waited_ms) + u64::from(free_in_ms) <= settings.max_extra_wait_ms as u64
    {
        return hold(free_in_ms.max(50), format!("models are loaded where a slot is free in {free_in_ms} ms"));
    }
    ranked(free, reason(job, &candidates[best]))
}

/// Nobody cool has room: a hot card is better than no card at all, but only after a while.
fn without_room(job: &Job, candidates: &[Candidate], settings: &Settings) -> RouteDecision {
    let mut hot: Vec<usize> = (0..candidates.len()).filter(|&row| candidates[row].free_slots > 0).collect();
    if hot.is_empty() {
        return hold(LOOK_AGAIN_MS, "no instance has room".to_owned());
    }
    if u64::from(job.waited_ms) < settings.max_extra_wait_ms as u64 {
        return hold(LOOK_AGAIN_MS, "free instances are cooling down".to_owned());
    }
    let celsius = |row: usize| temperature(&candidates[row]).unwrap_or(0.0);
    hot.sort_by(|&a, &b| celsius(a).total_cmp(&celsius(b)));
    ranked(hot, "no cool instance in time".to_owned())
}

/// Predicted time until the job would be done there.
fn end(job: &Job, candidate: &Candidate, settings: &Settings) -> u64 {
    let wait = if candidate.free_slots > 0 { 0 } else { candidate.free_in_ms.unwrap_or(0) };
    let load = match has_all(job, candidate) {
        true => 0,
        false => candidate.load_ms.map_or(settings.assumed_load_ms as u64, u64::from),
    };
    let run = candidate.run_ms.or(job.run_ms).unwrap_or(0);
    u64::from(wait) + load + u64::from(run) + FAILURE_MS * u64::from(candidate.failures)
}

fn has_all(job: &Job, candidate: &Candidate) -> bool {
    candidate.models_resident >= job.models
}

fn jobs(candidate: &Candidate) -> u64 {
    u64::from(candidate.running) + u64::from(candidate.pending)
}

fn reason(job: &Job, candidate: &Candidate) -> String {
    match (job.models, has_all(job, candidate)) {
        (0, _) => "no models needed".to_owned(),
        (_, true) => "models loaded".to_owned(),
        (models, false) => format!("{} of {models} models loaded", candidate.models_resident),
    }
}

fn ranked(rows: Vec<usize>, reason: String) -> RouteDecision {
    RouteDecision { answer: RouteAnswer::Ranked(rows.into_iter().map(|row| row as u32).collect()), reason }
}

fn hold(ms: u32, reason: String) -> RouteDecision {
    RouteDecision { answer: RouteAnswer::Hold(ms), reason }
}
