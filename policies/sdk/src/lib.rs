//! Write a comfy-router policy: implement the traits of the hooks you want, and name them in one line.
//!
//! ```
//! use comfy_router_policy::{Candidate, Job, Ranking, RouteDecision, Routing};
//!
//! /// Sends every job to the first instance that has room.
//! #[derive(Default)]
//! struct FirstFree;
//!
//! impl Routing for FirstFree {
//!     fn route(&mut self, _job: &Job, candidates: &[Candidate]) -> RouteDecision {
//!         let free = (0..candidates.len()).filter(|&row| candidates[row].free_slots > 0);
//!         RouteDecision::ranked(free, "first free")
//!     }
//! }
//!
//! comfy_router_policy::export!(FirstFree: routing);
//! # fn main() {
//! # let _ = FirstFree.route(&comfy_router_policy::testing::job(), &[]);
//! # }
//! ```
//!
//! The component exports exactly the hooks named, imports exactly the host functions used, and needs no WASI. One value
//! of the policy lives as long as the guest does, so fields are memory between calls; the router throws the guest away
//! after a trap or a missed deadline and starts again from `Default` and `configure`.
//!
//! On any other target than wasm32 the host functions answer from [`testing`], so policies have ordinary unit tests.

mod bindings;
mod decision;
mod export;
mod hooks;
mod host;
mod settings;
pub mod testing;

pub use bindings::admission::{AdmissionDecision, Rejection};
pub use bindings::feedback::{Outcome, ResultKind};
pub use bindings::housekeeping::{Act, Order};
pub use bindings::placement::{Offer, Pair, PlacementDecision, Seat};
pub use bindings::priority::PriorityDecision;
pub use bindings::recovery::{Cause, Failure, RecoveryDecision, Retry};
pub use bindings::routing::{RouteAnswer, RouteDecision};
pub use bindings::timeouts::{Limit, Limits, Progress, TimeoutDecision};
pub use bindings::types::{Candidate, InstanceState, Job, JobClass, Load};
pub use decision::Ranking;
pub use hooks::{
    Admission, Feedback, Housekeeping, Lifecycle, Placement, Priority, Recovery, Routing, Timeouts,
};
pub use host::{clock, fleet, log, metrics, queue, random, state, workflow};
pub use settings::settings;

#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::worlds;
    pub use crate::export::Exported;
}
