//! One trait for each hook. Implement what your policy has an opinion on; the router's built-in answers the rest.

use crate::{
    AdmissionDecision, Candidate, Failure, InstanceState, Job, Limit, Limits, Load, Offer, Order, Outcome,
    PlacementDecision, PriorityDecision, Progress, RecoveryDecision, RouteDecision, Seat, TimeoutDecision,
};

/// Take and judge the operator's settings. The value returned is the policy from then on.
pub trait Lifecycle: Sized {
    /// `settings` is a JSON object; see [`settings`](crate::settings()). An error is shown to the operator, and the
    /// policy does not serve.
    fn configure(settings: &str) -> Result<Self, String>;
}

/// Is the job taken at all?
pub trait Admission {
    fn admit(&mut self, job: &Job, load: &Load) -> AdmissionDecision;
}

/// How urgent is it?
pub trait Priority {
    fn prioritize(&mut self, job: &Job) -> PriorityDecision;
}

/// How long may it take, and what when it took too long?
pub trait Timeouts {
    fn limits_for(&mut self, job: &Job) -> Limits;
    fn on_timeout(&mut self, job: &Job, which: Limit, progress: &Progress) -> TimeoutDecision;
}

/// Where should it run?
pub trait Routing {
    fn route(&mut self, job: &Job, candidates: &[Candidate]) -> RouteDecision;
}

/// Where should the head of the queue run, all at once? Asked in the place of [`Routing`] when it is exported.
pub trait Placement {
    fn place(&mut self, jobs: &[Job], seats: &[Seat], offers: &[Offer]) -> PlacementDecision;
}

/// Its attempt failed: what now?
pub trait Recovery {
    fn on_failure(&mut self, job: &Job, failure: &Failure) -> RecoveryDecision;
}

/// What should be done to the instances? Asked about once a second.
pub trait Housekeeping {
    fn tick(&mut self, instances: &[InstanceState]) -> Vec<Order>;
}

/// What became of earlier decisions.
pub trait Feedback {
    fn observe(&mut self, outcomes: &[Outcome]);
}
