//! comfy-router: one ComfyUI in front of many.
//!
//! The floors, bottom up; a module imports only from floors below its own (`tests/floors.rs` reads the imports):
//! - 0, words: [`model`], [`clock`]
//! - 1, grammar and plumbing: [`config`], [`drain`], [`metrics`], [`tasks`]
//! - 2, organs: [`policy`]
//! - 3, brain: [`scheduler`]

pub mod clock;
pub mod config;
pub mod drain;
pub mod metrics;
pub mod model;
pub mod policy;
pub mod scheduler;
pub mod tasks;
