//! What a policy may ask of the router while it is called; each call costs about 0.2 us.

#[cfg(target_arch = "wasm32")]
use crate::bindings::host_world::comfy_router::policy as answered_by;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host as answered_by;

pub use answered_by::{clock, fleet, log, metrics, queue, random, state, workflow};
