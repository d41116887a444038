//! The engine and its clock of epochs: a call is interrupted when its deadline, counted in ticks of 1 ms, has passed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::cache::Cache;
use crate::policy::config::GuestLimits;
use crate::policy::error::StartError;

const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the ticker sleeps, so that an idle router does not wake a thousand times a second.
const IDLE_TICKS: u32 = 200;

/// Guests alive at once: newest, last good, canary and shadow of each component in service, one in the gate, and room.
const GUESTS: u32 = 24;

#[derive(Clone)]
pub(crate) struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    /// Counts instructions: `policy bench` says how many a call takes. Slower, so never in service.
    pub(super) metered: bool,
    pace: Arc<Pace>,
    ticker: Thread,
    cache: Option<Cache>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

#[derive(Debug, Default)]
struct Pace {
    /// Calls begun, ever.
    begun: AtomicU64,
    /// Calls running.
    running: AtomicUsize,
    parked: AtomicBool,
}

impl Engine {
    pub(crate) fn new(limits: &GuestLimits) -> Result<Self, StartError> {
        Self::start(limits, false)
    }

    /// One whose guests count their instructions.
    pub(crate) fn metered(limits: &GuestLimits) -> Result<Self, StartError> {
        Self::start(limits, true)
    }

    fn start(limits: &GuestLimits, metered: bool) -> Result<Self, StartError> {
        let wasmtime = build(limits, metered).map_err(|error| StartError::Engine(format!("{error:#}")))?;
        let pace = Arc::new(Pace::default());
        let (weak, shared) = (wasmtime.weak(), pace.clone());
        let ticker = std::thread::Builder::new()
            .name("policy-tick".to_owned())
            .spawn(move || tick(&weak, &shared))
            .map_err(|source| StartError::Thread { name: "policy-tick", source })?;
        Ok(Self { wasmtime, metered, pace, ticker: ticker.thread().clone(), cache: None })
    }

    /// Keeps compiled code in this folder, so that a second start is a fast one.
    pub(crate) fn cached_in(mut self, dir: Option<&Path>) -> Self {
        self.cache = dir.map(|dir| Cache::new(dir.join("compiled"), &self.wasmtime));
        self
    }

    /// Compiles, or finds what was compiled before.
    pub(super) fn component(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        let Some(cache) = &self.cache else { return Component::new(&self.wasmtime, bytes) };
        if let Some(component) = cache.get(&self.wasmtime, bytes) {
            return Ok(component);
        }
        let component = Component::new(&self.wasmtime, bytes)?;
        cache.put(bytes, &component);
        Ok(component)
    }

    /// Epochs that pass within `limit`, and one more because the first is already running.
    pub(super) fn ticks(limit: Duration) -> u64 {
        limit.as_millis() as u64 + 1
    }

    /// Keeps the ticker awake for as long as the result lives.
    pub(super) fn call(&self) -> Running<'_> {
        self.pace.running.fetch_add(1, Ordering::SeqCst);
        self.pace.begun.fetch_add(1, Ordering::SeqCst);
        if self.pace.parked.load(Ordering::SeqCst) {
            self.ticker.unpark();
        }
        Running(&self.pace)
    }
}

pub(super) struct Running<'a>(&'a Pace);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// With the pool, or without it where the address space for it cannot be had (a container with a limit on virtual
/// memory): then a new guest is slower, and nothing else.
fn build(limits: &GuestLimits, metered: bool) -> wasmtime::Result<wasmtime::Engine> {
    let pooled = wasmtime::Engine::new(&config(limits, metered, Some(pool(limits))));
    pooled.or_else(|error| {
        tracing::warn!(error = %error, "no pool for policy memories, allocating on demand");
        wasmtime::Engine::new(&config(limits, metered, None))
    })
}

fn config(limits: &GuestLimits, metered: bool, pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(metered)
        // Host calls and bare calls are two to four times faster without; the world has no async functions.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_kib as usize * 1024)
        // Compiling must not take the cores that decisions need.
        .parallel_compilation(false);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool(limits: &GuestLimits) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // A guest of several core modules (Python, JavaScript) has one memory and many instances and tables.
    pool.total_component_instances(GUESTS)
        .total_core_instances(GUESTS * 64)
        .total_tables(GUESTS * 16)
        .total_memories(GUESTS * 2)
        .max_memory_size(limits.memory_bytes());
    pool
}

fn tick(engine: &wasmtime::EngineWeak, pace: &Pace) {
    let (mut seen, mut idle) = (0, 0);
    loop {
        std::thread::sleep(TICK);
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return,
        }
        let begun = pace.begun.load(Ordering::SeqCst);
        let quiet = begun == seen && pace.running.load(Ordering::SeqCst) == 0;
        idle = if quiet { idle + 1 } else { 0 };
        seen = begun;
        if idle > IDLE_TICKS {
            pace.parked.store(true, Ordering::SeqCst);
            // A call that began before it could see `parked` is seen here.
            if pace.begun.load(Ordering::SeqCst) == seen {
                std::thread::park_timeout(Duration::from_secs(1));
            }
            pace.parked.store(false, Ordering::SeqCst);
        }
    }
}
