//! comfy-router: one ComfyUI in front of many.
//!
//! The floors, bottom up; a module imports only from floors below its own (`tests/floors.rs` reads the imports):
//! - 0, words: [`model`], [`clock`]
//! - 1, grammar and plumbing: [`comfy`]

pub mod clock;
pub mod comfy;
pub mod model;
