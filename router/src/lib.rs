//! comfy-router: one ComfyUI in front of many.
//!
//! The floors, bottom up; a module imports only from floors below its own (`tests/floors.rs` reads the imports):
//! - 0, words: [`model`], [`clock`]

pub mod clock;
pub mod metrics;
pub mod model;
pub mod policy;
