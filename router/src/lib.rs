//! comfy-router: one ComfyUI in front of many.
//!
//! The floors, bottom up; a module imports only from floors below its own (`tests/floors.rs` reads the imports):
//! - 0, words: [`model`], [`clock`], [`failpoint`]
//! - 1, grammar and plumbing: [`comfy`], [`config`], [`metrics`], [`tasks`], [`drain`], [`listen`]
//! - 2, organs: [`ledger`], [`fleet`], [`policy`], [`telemetry`], [`sessions`], [`assets`]
//! - 3, brain: [`scheduler`], [`relay`]
//! - 4, faces: [`front`], [`admin`], and what runs the brain on past days: [`simulation`]
//! - 5, assembly: [`app`], [`cli`], [`demo`]

pub mod admin;
pub mod app;
pub mod assets;
pub mod cli;
pub mod clock;
pub mod comfy;
pub mod config;
pub mod demo;
pub mod drain;
pub mod failpoint;
pub mod fleet;
pub mod front;
pub mod ledger;
pub mod listen;
pub mod metrics;
pub mod model;
pub mod policy;
pub mod processes;
pub mod relay;
pub mod scheduler;
pub mod sessions;
pub mod simulation;
pub mod tasks;
pub mod telemetry;
