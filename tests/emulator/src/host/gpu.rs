//! One emulated card: who works on it, which models lie in its memory, how warm it is. Readings are computed when
//! asked for, from exponential approaches to what the load would settle at; tests may override any of them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::config::GpuSpec;

const IDLE_C: f64 = 36.0;
const BUSY_C: f64 = 80.0;
const IDLE_MW: f64 = 60_000.0;
/// Time constants in seconds: NVML's own smoothing of utilisation, and a heat sink.
const UTILIZATION_TAU: f64 = 0.8;
const HEAT_TAU: f64 = 45.0;
/// Driver and CUDA context of one process.
const CONTEXT_MIB: u64 = 480;

/// What NVML would say, with the names that the router's telemetry uses. Memory in MiB, power in milliwatt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuReadings {
    pub uuid: String,
    pub name: String,
    pub index: u32,
    pub memory_total_mib: u64,
    pub memory_used_mib: u64,
    pub utilization_percent: u32,
    pub temperature_c: u32,
    pub slowdown_temperature_c: u32,
    pub power_mw: u64,
    pub power_limit_mw: u64,
    pub sm_clock_mhz: u32,
    /// NVML's clocks event reasons; 0 unless overridden.
    pub throttle_reasons: u64,
    pub resident_models: Vec<String>,
    /// Models brought into the memory of this card since it exists.
    pub model_loads: u64,
}

/// Readings to pretend; `None` leaves the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuOverrides {
    pub memory_used_mib: Option<u64>,
    pub utilization_percent: Option<u32>,
    pub temperature_c: Option<u32>,
    pub power_mw: Option<u64>,
    pub sm_clock_mhz: Option<u32>,
    pub throttle_reasons: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Gpu {
    spec: GpuSpec,
    speed: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    at: Instant,
    busy: u32,
    utilization: f64,
    temperature: f64,
    contexts: Vec<u64>,
    /// Least recently used first.
    residents: Vec<Resident>,
    loads: u64,
    overrides: GpuOverrides,
}

#[derive(Debug)]
struct Resident {
    owner: u64,
    name: String,
    mib: u64,
}

/// How a model came to the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Resident,
    Loaded,
    OutOfMemory,
}

impl Gpu {
    pub(crate) fn new(spec: GpuSpec, speed: f64) -> Self {
        let state = State {
            at: Instant::now(),
            busy: 0,
            utilization: 0.0,
            temperature: IDLE_C,
            contexts: Vec::new(),
            residents: Vec::new(),
            loads: 0,
            overrides: GpuOverrides::default(),
        };
        Self { spec, speed, state: Mutex::new(state) }
    }

    pub(crate) fn spec(&self) -> &GpuSpec {
        &self.spec
    }

    /// A process opens a context on the card, and gives everything back when it dies.
    pub(crate) fn attach(&self, owner: u64) {
        self.lock().contexts.push(owner);
    }

    pub(crate) fn detach(&self, owner: u64) {
        let mut state = self.lock();
        state.contexts.retain(|other| *other != owner);
        state.residents.retain(|resident| resident.owner != owner);
    }

    /// Work runs until the guard goes.
    pub(crate) fn work(self: &std::sync::Arc<Self>) -> Working {
        self.advanced().busy += 1;
        Working(std::sync::Arc::clone(self))
    }

    pub(crate) fn is_resident(&self, owner: u64, name: &str) -> bool {
        self.lock().residents.iter().any(|resident| resident.owner == owner && resident.name == name)
    }

    /// Makes `name` resident for `owner`, dropping the owner's least recently used models first. What still does
    /// not fit is kept in part, as ComfyUI's low memory mode would, down to a quarter of the model.
    pub(crate) fn place(&self, owner: u64, name: &str, mib: u64) -> Placed {
        let mut state = self.lock();
        if let Some(at) = state.residents.iter().position(|r| r.owner == owner && r.name == name) {
            let resident = state.residents.remove(at);
            state.residents.push(resident);
            return Placed::Resident;
        }
        while state.free(&self.spec) < mib {
            let Some(at) = state.residents.iter().position(|r| r.owner == owner) else { break };
            state.residents.remove(at);
        }
        let kept = mib.min(state.free(&self.spec));
        if kept * 4 < mib {
            return Placed::OutOfMemory;
        }
        state.residents.push(Resident { owner, name: name.into(), mib: kept });
        state.loads += 1;
        Placed::Loaded
    }

    pub(crate) fn unload(&self, owner: u64, gone: impl Fn(&str) -> bool) {
        self.lock().residents.retain(|resident| resident.owner != owner || !gone(&resident.name));
    }

    pub(crate) fn owned_mib(&self, owner: u64) -> u64 {
        self.lock().residents.iter().filter(|resident| resident.owner == owner).map(|r| r.mib).sum()
    }

    pub(crate) fn set_overrides(&self, overrides: GpuOverrides) {
        self.lock().overrides = overrides;
    }

    pub(crate) fn readings(&self) -> GpuReadings {
        let state = self.advanced();
        let (spec, over) = (&self.spec, &state.overrides);
        let load = state.utilization / 100.0;
        let power = IDLE_MW + load * 0.9 * (spec.power_limit_mw as f64 - IDLE_MW);
        GpuReadings {
            uuid: spec.uuid.clone(),
            name: spec.name.clone(),
            index: spec.index,
            memory_total_mib: spec.memory_total_mib,
            memory_used_mib: over.memory_used_mib.unwrap_or_else(|| state.used()).min(spec.memory_total_mib),
            utilization_percent: over.utilization_percent.unwrap_or(state.utilization.round() as u32),
            temperature_c: over.temperature_c.unwrap_or(state.temperature.round() as u32),
            slowdown_temperature_c: spec.slowdown_temperature_c,
            power_mw: over.power_mw.unwrap_or(power as u64),
            power_limit_mw: spec.power_limit_mw,
            sm_clock_mhz: over.sm_clock_mhz.unwrap_or(if state.busy > 0 { 2_520 } else { 210 }),
            throttle_reasons: over.throttle_reasons.unwrap_or(0),
            resident_models: state.residents.iter().map(|resident| resident.name.clone()).collect(),
            model_loads: state.loads,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advanced(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let now = Instant::now();
        let passed = now.duration_since(state.at).as_secs_f64() * self.speed;
        state.settle(passed);
        state.at = now;
        state
    }
}

impl State {
    fn settle(&mut self, seconds: f64) {
        let (utilization, heat) = if self.busy > 0 { (98.0, BUSY_C) } else { (0.0, IDLE_C) };
        self.utilization += (utilization - self.utilization) * (1.0 - (-seconds / UTILIZATION_TAU).exp());
        self.temperature += (heat - self.temperature) * (1.0 - (-seconds / HEAT_TAU).exp());
    }

    fn used(&self) -> u64 {
        CONTEXT_MIB * self.contexts.len() as u64
            + self.residents.iter().map(|resident| resident.mib).sum::<u64>()
    }

    fn free(&self, spec: &GpuSpec) -> u64 {
        spec.memory_total_mib.saturating_sub(self.overrides.memory_used_mib.unwrap_or_else(|| self.used()))
    }
}

/// Keeps a card busy while it lives.
#[derive(Debug)]
pub(crate) struct Working(std::sync::Arc<Gpu>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.advanced().busy -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn card() -> Arc<Gpu> {
        Arc::new(Gpu::new(GpuSpec { memory_total_mib: 10_000, ..GpuSpec::new(0) }, 1.0))
    }

    #[test]
    fn the_least_recently_used_model_leaves() {
        let gpu = card();
        assert_eq!(gpu.place(1, "a", 6_000), Placed::Loaded);
        assert_eq!(gpu.place(1, "b", 3_000), Placed::Loaded);
        assert_eq!(gpu.place(1, "a", 6_000), Placed::Resident);
        assert_eq!(gpu.place(1, "c", 3_000), Placed::Loaded);
        assert_eq!(gpu.readings().resident_models, ["a", "c"]);
        assert_eq!(gpu.readings().model_loads, 3);
    }

    #[test]
    fn another_process_keeps_its_models() {
        let gpu = card();
        assert_eq!(gpu.place(1, "a", 9_000), Placed::Loaded);
        assert_eq!(gpu.place(2, "b", 6_000), Placed::OutOfMemory);
        gpu.detach(1);
        assert_eq!(gpu.place(2, "b", 6_000), Placed::Loaded);
        assert_eq!(gpu.owned_mib(2), 6_000);
    }

    #[test]
    fn load_heats_and_rest_cools() {
        let gpu = card();
        let working = gpu.work();
        gpu.lock().settle(60.0);
        let hot = gpu.readings();
        assert!(hot.temperature_c > 60 && hot.utilization_percent > 90 && hot.power_mw > 200_000, "{hot:?}");
        drop(working);
        gpu.lock().settle(600.0);
        assert_eq!(gpu.readings().temperature_c, 36);
    }

    #[test]
    fn overrides_win() {
        let gpu = card();
        gpu.set_overrides(GpuOverrides { temperature_c: Some(93), ..GpuOverrides::default() });
        assert_eq!(gpu.readings().temperature_c, 93);
    }
}
