//! One function for each door through which bytes come that nobody vouches for. Each takes any bytes and returns; a panic, an
//! abort or no return is a bug of the router.
//!
//! `tests/bounded.rs` feeds them a bounded number of mutated seeds in `make test`; `cargo-fuzz` beside it feeds them what
//! coverage suggests, for as long as one likes (CONTRIBUTING.md).

mod guest;
mod instance;
mod mutate;
mod policy;
mod seeds;
mod upload;
mod wire;

pub use instance::{head, socket};
pub use mutate::{Random, mutated};
pub use policy::{answers, cases, component, log};
pub use seeds::seeds;
pub use upload::upload;
pub use wire::{config, frame, names, object_info, prompt};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// By name; how many inputs a bounded run gives each, which is about a second's worth.
pub const TARGETS: [(&str, Target, u32); 12] = [
    ("prompt", prompt, 3_000),
    ("frame", frame, 10_000),
    ("head", head, 5_000),
    ("socket", socket, 5_000),
    ("object_info", object_info, 300),
    ("names", names, 10_000),
    ("upload", upload, 600),
    ("config", config, 500),
    ("cases", cases, 20),
    ("log", log, 300),
    ("component", component, 25),
    ("answers", answers, 12),
];
