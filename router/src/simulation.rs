//! A day again: recorded arrivals are given to the scheduler's own core, a policy decides, imagined instances run what they
//! are sent for as long as it took in service. What comes out is how long jobs waited, which limits were passed, how often
//! models were loaded and how tenants fared, the same figures each time.
//!
//! Owns the virtual time and the instances; knows nothing of wasm, which [`Desk`](crate::policy::tools::Desk) hides, nor of
//! disks and sockets. Called by `policy replay`, by its benchmark and by tests.

mod figures;
mod imagined;
mod learnt;
mod page;
mod report;
mod scene;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use figures::{ClassFigures, Figures, Spread, TenantFigures};
pub use imagined::{Imagined, imagined};
pub use report::{Day, Report};
pub use scene::{Scene, Weights};
pub use trace::{Arrival, Gather, Reading, Station, Trace};
pub use world::simulate;
