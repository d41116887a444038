//! What wasmtime makes of `wit/policy.wit`. Host functions may trap, so that a budget ends a call.

#![allow(unreachable_pub, missing_debug_implementations, clippy::all)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "comfy-router:policy/policy",
    imports: { default: trappable },
});
