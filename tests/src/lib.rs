//! The harness of the end-to-end tests: a fleet of emulated instances, the real `comfy-router` binary in front of it,
//! and clients that speak ComfyUI's API. A test is a dozen lines that say what is true of the router.
//!
//! Nothing here waits for a length of time to pass: tests wait for an event of a client, for the gate of an emulator,
//! or for a condition with a deadline ([`eventually`]). What the router wrote is kept when a test fails.

mod binaries;
mod books;
mod chance;
mod client;
mod fleet;
mod foreign;
mod graphs;
mod http;
mod launched;
mod policies;
mod process;
pub mod replay;
mod router;
pub mod schedule;
mod sequence;
pub mod soak;
mod socket;

use std::time::Duration;

pub use books::{Books, Run};
pub use chance::Chance;
pub use client::Client;
pub use fleet::Fleet;
pub use foreign::{Foreign, page, screenshots};
pub use graphs::{colour_of, diffusion, loading, measured, noise, plain, png_of, streamed};
pub use http::{Answer, Http};
pub use launched::{Launched, LaunchedProcess};
pub use policies::{PolicyFile, component};
pub use process::{InstanceProcess, InstanceProcesses};
pub use router::{Exit, Router, Serve, failed_start, may_make_disks, placed, run, run_into};
pub use sequence::{complete, kinds};
pub use socket::{Message, Socket};

/// How long anything may take before a test gives up: many times what it takes on a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The same where a component of many megabytes is compiled, which gives way to everything else on the machine.
pub const COMPILING: Duration = Duration::from_secs(1_200);

/// Polls until `look` finds what it looks for.
///
/// # Panics
/// When the deadline passes; `what` says what was waited for.
pub async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_by(DEADLINE, what, look).await
}

/// The same, by another deadline.
///
/// # Panics
/// When it passes.
pub async fn eventually_by<T, F>(deadline: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let polling = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within_time(deadline, what, polling).await
}

/// Waits for `future`, at most until the deadline.
///
/// # Panics
/// When the deadline passes; `what` says what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(DEADLINE, what, future).await
}

/// The same, by another deadline.
///
/// # Panics
/// When it passes.
pub async fn within_time<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(deadline, future).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within {} s", deadline.as_secs()))
}
