//! House rules: classes that age, models where they are loaded, cards that may cool down, and a quota for each tenant.
//!
//! This file is the seam to the router; the rules are in `rules` and `settings`, which know nothing of it and can be tested
//! natively.

mod rules;
mod settings;

use std::cell::RefCell;

use rules::Heat;
use settings::Settings;

wit_bindgen::generate!({
    path: "wit",
    world: "policy",
    generate_all,
});

use comfy_router::policy::types::{Candidate, Job, Load};
use comfy_router::policy::{log, queue, state};
use exports::comfy_router::policy::admission::{AdmissionDecision, Rejection};
use exports::comfy_router::policy::feedback::Outcome;
use exports::comfy_router::policy::priority::PriorityDecision;
use exports::comfy_router::policy::routing::{RouteAnswer, RouteDecision};
use exports::comfy_router::policy::{admission, feedback, lifecycle, priority, routing};

/// Lives as long as this guest does. What must survive a new version or a restart is in `state` instead.
#[derive(Default)]
struct Memory {
    settings: Settings,
    heat: Heat,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

fn with<T>(act: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with_borrow_mut(act)
}

struct HouseRules;
// Names of exports are nothing that a linker of this machine takes; `cargo test` needs none.
#[cfg(target_family = "wasm")]
export!(HouseRules);

impl lifecycle::Guest for HouseRules {
    fn configure(settings: String) -> Result<(), String> {
        let settings = Settings::parse(&settings)?;
        with(|memory| *memory = Memory { settings, heat: Heat::default() });
        Ok(())
    }
}

impl admission::Guest for HouseRules {
    fn admit(job: Job, _load: Load) -> AdmissionDecision {
        let quota = with(|memory| memory.settings.quota_s);
        if quota == 0.0 {
            return AdmissionDecision::Admit;
        }
        let tenant = tenant_name(job.tenant);
        let used: f64 = state::get(&used_key(&tenant)).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        if used < quota {
            return AdmissionDecision::Admit;
        }
        AdmissionDecision::Reject(Rejection {
            status: 429,
            retry_after_s: Some(60),
            reason: format!("{tenant} has used {} of {} GPU seconds", used as u64, quota as u64),
        })
    }
}

impl priority::Guest for HouseRules {
    fn prioritize(job: Job) -> PriorityDecision {
        let (score, reason) = rules::score(&job);
        let ageing_per_second = with(|memory| memory.settings.ageing_per_second);
        PriorityDecision { score, ageing_per_second, reason: reason.to_owned() }
    }
}

impl routing::Guest for HouseRules {
    fn route(job: Job, candidates: Vec<Candidate>) -> RouteDecision {
        with(|memory| {
            memory.heat.note(&candidates, &memory.settings);
            rules::route(&job, &candidates, &memory.heat, &memory.settings)
        })
    }
}

impl feedback::Guest for HouseRules {
    fn observe(outcomes: Vec<Outcome>) {
        let (quota, window_ms) = with(|memory| (memory.settings.quota_s, memory.settings.quota_window_ms()));
        if quota == 0.0 {
            return;
        }
        for outcome in outcomes {
            let key = used_key(&tenant_name(outcome.tenant));
            // The time to live counts from the first job of a window, so the sum is forgotten when the window ends.
            if let Err(refusal) = state::increment(&key, f64::from(outcome.run_ms) / 1000.0, Some(window_ms)) {
                log::write(log::Level::Warn, &format!("{key} is not counted: {refusal:?}"));
            }
        }
    }
}

/// By name, because an index means something else after a restart.
fn used_key(tenant: &str) -> String {
    format!("used/{tenant}")
}

fn tenant_name(tenant: u32) -> String {
    queue::tenant_name(tenant).unwrap_or_else(|| format!("tenant {tenant}"))
}
