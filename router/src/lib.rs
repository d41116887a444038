//! comfy-router: one ComfyUI in front of many.
//!
//! The floors, bottom up; a module imports only from floors below its own (`tests/floors.rs` reads the imports):
//! - 0, words: [`model`], [`clock`]
//! - 1, plumbing: [`config`], [`drain`], [`tasks`]

pub mod clock;
pub mod config;
pub mod drain;
pub mod model;
pub mod scheduler;
pub mod tasks;
