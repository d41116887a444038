//! The policy host: asks a WebAssembly component for each decision, and answers natively when it cannot.
//!
//! Owns the components, their guests, the thread named `policy` that calls them and the one named `policy-load` that
//! compiles, checks and watches. Never decides what becomes of an answer (the scheduler re-checks it
//! against present state) and never waits: whatever a guest does, [`Handle::decide`] returns within its deadline.
//! Called by the scheduler's driver, by admin (status, load) and by the CLI ([`tools`]).

mod breaker;
mod canary;
mod check;
mod config;
mod error;
mod evidence;
mod gate;
mod handle;
mod lane;
mod loader;
mod native;
mod orders;
mod record;
mod recording;
mod sample;
mod service;
mod shadow;
mod shipped;
mod start;
mod state;
mod status;
pub mod tools;
mod turn;
mod wasm;
mod watch;
mod yielding;

pub use canary::{CanaryReport, Tally};
pub use config::{Bounds, Breaker, Builtin, CanaryLimits, Component, Config, Extra, GuestLimits, Interface};
pub use error::{LoadError, StartError};
pub use handle::{Handle, OrderError, Settings, Source};
pub use orders::Ordered;
pub use recording::{RecordConfig, RecordStatus};
pub use service::{Order, Place};
pub use shadow::{Difference, ShadowReport};
pub use shipped::Shipped;
pub use start::start;
pub use state::{Entry, Held, StateLimits};
pub use status::{Ejected, LaneStatus, PolicyStatus, Refused, State, VersionRow, VersionStatus};

#[cfg(test)]
mod tests;
