//! WebAssembly: the only part of the router that knows of wasmtime. Owns the engine, the components made with it and
//! their guests; knows nothing of threads, channels, fallbacks or files.

mod bindings;
mod cache;
mod component;
mod convert;
mod engine;
mod guest;
mod host;
mod meter;
mod toolchain;

pub(crate) use component::{Description, Version, describe};
pub(crate) use engine::Engine;
pub(crate) use guest::{CallError, Guest};
