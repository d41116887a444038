//! A ComfyUI server without the models: the same wire, scripted time and faults.
//!
//! Owns everything a test or the demo needs to see a ComfyUI instance: routes, validation, queue, node cache,
//! websocket events, files, an emulated GPU. It is held to recordings of ComfyUI 0.3.64 and 0.8.0 and never
//! depends on the router, so that a misread wire cannot agree with itself.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use comfyui_emulator::{Config, Each, Emulator};
//! let emulator = Emulator::start(Config::default()).await?;
//! let control = emulator.control();
//! control.hold(Each::Execution);
//! // ... POST {emulator.url()}/prompt ...
//! control.wait_held(1).await;
//! control.release(1);
//! # Ok(()) }
//! ```

mod config;
mod control;
mod emulator;
mod files;
mod host;
mod hub;
mod life;
mod nodes;
mod picture;
mod port;
mod pyjson;
mod queue;
mod server;
mod tasks;
mod validate;
mod worker;

pub use config::{Config, Costs, CrashMode, Flavour, GpuSpec, ModelFile, Models, Timing};
pub use control::{
    Audience, Control,
    fault::{Fault, Moment},
    gate::{Each, GateReport},
    oracle::{Execution, Outcome, inputs_hash},
};
pub use emulator::Emulator;
pub use host::{
    Host,
    gpu::{GpuOverrides, GpuReadings},
};
pub use port::HeldPort;
