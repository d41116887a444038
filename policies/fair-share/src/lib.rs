//! Shares the fleet between tenants by weight, and each tenant's share between its clients.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM '96): a job's start tag is the virtual time at which it would
//! begin if its tenant alone had its weight's share of the fleet, and the lowest tag runs first. However many jobs a
//! tenant sends, they only push back its own later ones. An idle tenant saves nothing up: tags start at the present
//! virtual time at the earliest. The score is the negated tag, in weighted seconds of work.

mod shares;

use std::collections::HashMap;

use comfy_router_policy::{
    Candidate, Job, Lifecycle, Priority, PriorityDecision, RouteDecision, Routing, queue, settings,
};
use serde::Deserialize;

use shares::{Order, Shares};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// By tenant name. A tenant of weight 2 gets twice the work done of one of weight 1 while both have jobs waiting.
    pub tenants: HashMap<String, f64>,
    /// By `client_id`, within the client's tenant.
    pub clients: HashMap<String, f64>,
    /// Of whoever is not named.
    pub default_weight: f64,
    /// Taken for a job that never ran before.
    pub assumed_run_ms: u32,
    /// Weighted seconds a waiting job gains in a second. Above 0 nothing starves even where predictions are wrong;
    /// well below 1, or old jobs of a flood would outrank a newcomer.
    pub ageing_per_second: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            clients: HashMap::new(),
            default_weight: 1.0,
            assumed_run_ms: 15_000,
            ageing_per_second: 0.01,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        let named =
            |of: &'static str| move |(name, weight): (&String, &f64)| (format!("{of}.{name}"), *weight);
        let weights =
            self.tenants.iter().map(named("tenants")).chain(self.clients.iter().map(named("clients")));
        for (key, weight) in weights.chain([("default_weight".to_owned(), self.default_weight)]) {
            // Beyond these a tag would lose its small digits, or its owner would in effect never run.
            if !(0.001..=1_000.0).contains(&weight) {
                return Err(format!("{key} must be a number from 0.001 to 1000, not {weight}"));
            }
        }
        if !(0.0..1.0).contains(&self.ageing_per_second) {
            return Err("ageing_per_second must be at least 0 and below 1".to_owned());
        }
        Ok(())
    }

    fn weight(&self, of: &HashMap<String, f64>, name: Option<String>) -> f64 {
        name.and_then(|name| of.get(&name).copied()).unwrap_or(self.default_weight)
    }
}

#[derive(Debug, Default)]
pub struct FairShare {
    settings: Settings,
    shares: Shares,
}

comfy_router_policy::export!(FairShare: lifecycle, priority, routing);

impl Lifecycle for FairShare {
    fn configure(json: &str) -> Result<Self, String> {
        let settings: Settings = settings(json)?;
        settings.check()?;
        Ok(Self { settings, shares: Shares::default() })
    }
}

impl Priority for FairShare {
    fn prioritize(&mut self, job: &Job) -> PriorityDecision {
        let tenant = self.settings.weight(&self.settings.tenants, queue::tenant_name(job.tenant));
        let client = self.settings.weight(&self.settings.clients, queue::client_name(job.client));
        // What no longer waits has had its service: virtual time goes on.
        self.shares.settle(|tenant| queue::tenant(tenant).queued as usize);
        let seconds = f64::from(job.run_ms.unwrap_or(self.settings.assumed_run_ms)).max(1.0) / 1_000.0;
        let tag = self.shares.tag(job.tenant, tenant, seconds, Order::of(job, client));
        let reason = format!("tag {tag:.1} at {:.1}, weight {tenant}", self.shares.now());
        PriorityDecision::new(-tag, self.settings.ageing_per_second, reason)
    }
}

impl Routing for FairShare {
    /// Fairness is a matter of order; the place is simply the one that is done first.
    fn route(&mut self, job: &Job, candidates: &[Candidate]) -> RouteDecision {
        let mut rows: Vec<usize> =
            (0..candidates.len()).filter(|&row| candidates[row].free_slots > 0).collect();
        rows.sort_by_key(|&row| {
            let candidate = &candidates[row];
            let missing = job.models.saturating_sub(candidate.models_resident);
            let run = candidate.run_ms.or(job.run_ms).unwrap_or(0);
            (missing, candidate.failures, run, candidate.running.saturating_add(candidate.pending))
        });
        RouteDecision::ranked(rows, "fewest models to load")
    }
}

#[cfg(test)]
mod cases;
