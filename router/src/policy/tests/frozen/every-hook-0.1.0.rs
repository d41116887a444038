//! Every hook and every host function of `comfy-router:policy@0.1.0`. Its component is kept as it was built then, so that
//! a router which has grown the interface is held to its promise: what was built for 0.1.0 loads and answers.

use comfy_router_policy::{
    Admission, AdmissionDecision, Candidate, Failure, Feedback, Housekeeping, InstanceState, Job, Lifecycle, Limit,
    Limits, Load, Order, Outcome, Priority, PriorityDecision, Progress, Recovery, RecoveryDecision, RouteDecision,
    Routing, TimeoutDecision, Timeouts, clock, fleet, log, queue, random, workflow,
};

#[derive(Default)]
pub struct Veteran {
    observed: u32,
}

comfy_router_policy::export!(
    Veteran: lifecycle, admission, priority, timeouts, routing, recovery, housekeeping, feedback
);

impl Lifecycle for Veteran {
    fn configure(settings: &str) -> Result<Self, String> {
        if settings.contains("refuse") { Err("0.1.0 says no".to_owned()) } else { Ok(Self::default()) }
    }
}

impl Admission for Veteran {
    fn admit(&mut self, job: &Job, load: &Load) -> AdmissionDecision {
        let header = workflow::header(job.handle, "x-team").is_some();
        if load.queued > 1_000_000 && !header { AdmissionDecision::busy(1, "full") } else { AdmissionDecision::Admit }
    }
}

impl Priority for Veteran {
    fn prioritize(&mut self, job: &Job) -> PriorityDecision {
        let tenant = queue::tenant_name(job.tenant).unwrap_or_default();
        let client = queue::client_name(job.client).unwrap_or_default();
        let waiting = queue::tenant(job.tenant).queued + queue::all().running;
        let data = workflow::extra_data(job.handle, "comfy_router").unwrap_or_default();
        PriorityDecision::new(f64::from(waiting), 1.0, format!("{tenant} {client} {data}"))
    }
}

impl Timeouts for Veteran {
    fn limits_for(&mut self, _job: &Job) -> Limits {
        Limits { queue_ms: None, run_ms: Some(3_600_000), stall_ms: None }
    }

    fn on_timeout(&mut self, _job: &Job, which: Limit, progress: &Progress) -> TimeoutDecision {
        match which {
            Limit::Stall => TimeoutDecision::Retry,
            _ => TimeoutDecision::Fail(format!("after {} ms", progress.elapsed_ms)),
        }
    }
}

impl Routing for Veteran {
    fn route(&mut self, job: &Job, candidates: &[Candidate]) -> RouteDecision {
        let steps = workflow::input(job.handle, "3", "steps").unwrap_or_default();
        let models = workflow::models(job.handle);
        let offered = models.iter().filter(|m| fleet::has_model(candidates[0].instance, &m.folder, &m.name)).count();
        let zone = fleet::label(candidates[0].instance, "zone").unwrap_or_default();
        let name = fleet::name(candidates[0].instance).unwrap_or_default();
        let resident = fleet::resident_models(candidates[0].instance).len();
        let classes = workflow::node_classes(job.handle).len();
        let free = (0..candidates.len()).filter(|&row| candidates[row].free_slots > 0);
        let reason = format!(
            "{name} {zone} steps {steps} classes {classes} models {offered}/{resident} random {} at {} seen {}",
            random::next(),
            clock::now_ms(),
            self.observed
        );
        RouteDecision::ranked(free, reason)
    }
}

impl Recovery for Veteran {
    fn on_failure(&mut self, _job: &Job, _failure: &Failure) -> RecoveryDecision {
        RecoveryDecision::Fail
    }
}

impl Housekeeping for Veteran {
    fn tick(&mut self, instances: &[InstanceState]) -> Vec<Order> {
        if log::enabled(log::Level::Debug) {
            log::write(log::Level::Debug, &format!("{} instances", instances.len()));
        }
        Vec::new()
    }
}

impl Feedback for Veteran {
    fn observe(&mut self, outcomes: &[Outcome]) {
        self.observed += outcomes.len() as u32;
    }
}
