//! Interactive jobs first, on cool cards that have the models.

use std::cell::Cell;

wit_bindgen::generate!({
    path: "wit",
    world: "policy",
    generate_all,
});

use comfy_router::policy::types::{Candidate, Job, JobClass};
use exports::comfy_router::policy::priority::PriorityDecision;
use exports::comfy_router::policy::routing::{RouteAnswer, RouteDecision};
use exports::comfy_router::policy::{lifecycle, priority, routing};

const DEFAULT_HOT_C: f32 = 83.0;

thread_local! {
    /// A card this hot comes last. Lives as long as this guest does, as every static does.
    static HOT_C: Cell<f32> = const { Cell::new(DEFAULT_HOT_C) };
}

struct Policy;
// Names of exports are nothing that a linker of this machine takes; `cargo test` needs none.
#[cfg(target_family = "wasm")]
export!(Policy);

impl lifecycle::Guest for Policy {
    /// `settings` is the `[policy.settings]` table of the router's configuration, as JSON. An error is shown to the
    /// operator, and this version does not serve.
    fn configure(settings: String) -> Result<(), String> {
        HOT_C.set(hot_c(&settings)?);
        Ok(())
    }
}

impl priority::Guest for Policy {
    /// Effective priority = score + ageing x seconds waited: with ageing, nothing waits for ever.
    fn prioritize(job: Job) -> PriorityDecision {
        let (score, reason) = match job.class {
            JobClass::Interactive => (200.0, "interactive"),
            JobClass::Standard => (100.0, "standard"),
            JobClass::Batch => (0.0, "batch"),
        };
        PriorityDecision { score, ageing_per_second: 1.0, reason: reason.to_owned() }
    }
}

impl routing::Guest for Policy {
    /// Rows of `candidates`, best first. Instances that cannot run the job are not among them.
    fn route(job: Job, candidates: Vec<Candidate>) -> RouteDecision {
        let mut rows: Vec<u32> = (0..).zip(&candidates).filter(|(_, c)| c.free_slots > 0).map(|(row, _)| row).collect();
        rows.sort_by_key(|&row| rank(&job, &candidates[row as usize], HOT_C.get()));
        let Some(&best) = rows.first() else {
            // The router asks again earlier when an instance changes.
            return RouteDecision { answer: RouteAnswer::Hold(1_000), reason: "no instance has room".to_owned() };
        };
        let reason = if has_models(&job, &candidates[best as usize]) { "models loaded" } else { "cool" };
        RouteDecision { answer: RouteAnswer::Ranked(rows), reason: reason.to_owned() }
    }
}

fn hot_c(settings: &str) -> Result<f32, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[serde(default = "default_hot_c")]
        hot_c: f32,
    }
    fn default_hot_c() -> f32 {
        DEFAULT_HOT_C
    }
    let settings: Settings = serde_json::from_str(settings).map_err(|error| format!("hot_c: {error}"))?;
    Ok(settings.hot_c)
}

/// Lower is better. A temperature that is not known counts as cool.
fn rank(job: &Job, candidate: &Candidate, hot_c: f32) -> (bool, bool, u64) {
    let hot = candidate.temperature_c.is_some_and(|celsius| celsius >= hot_c);
    let jobs = u64::from(candidate.running) + u64::from(candidate.pending);
    (hot, !has_models(job, candidate), jobs)
}

fn has_models(job: &Job, candidate: &Candidate) -> bool {
    job.models > 0 && candidate.models_resident >= job.models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_mistakes_are_named() {
        assert_eq!(hot_c("{}"), Ok(DEFAULT_HOT_C));
        assert_eq!(hot_c(r#"{"hot_c": 70}"#), Ok(70.0));
        assert!(hot_c(r#"{"hott_c": 70}"#).unwrap_err().contains("hott_c"));
    }
}
