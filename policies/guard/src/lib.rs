//! Looks after the instances: drains one whose GPU is hot and resumes it when it has cooled, frees models that nobody
//! uses, and frees memory before it runs out.
//!
//! Two temperatures, so that an instance at the limit is not drained and resumed every second. A reading that is old is
//! no reading: nothing is drained for it, and what was drained stays so until a fresh one says otherwise or
//! `blind_ms` have passed. What it drained itself it remembers in `state`, by name, so that a new version or a restart
//! does not leave an instance drained, and so that it never resumes what an operator drained.

use std::collections::HashMap;

use comfy_router_policy::{
    Act, Housekeeping, InstanceState, Lifecycle, Order, clock, fleet, log, metrics, settings, state,
};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Drain at this temperature or above.
    pub drain_at_c: f32,
    /// Resume at this temperature or below.
    pub resume_at_c: f32,
    /// Drain also when the GPU is so close to slowing itself down; resume needs as much more as the two temperatures
    /// differ. Not all GPUs tell.
    pub drain_margin_c: Option<f32>,
    /// Older readings are unknown.
    pub max_age_ms: u32,
    /// Resume an instance that was drained for heat when nothing has been known of it for so long.
    pub blind_ms: u32,
    /// Unload models that nothing has used for so long. None: never.
    pub free_idle_ms: Option<u32>,
    /// Unload models when less memory than this is free. None: never.
    pub free_below_mib: Option<u32>,
    /// Not again on the same instance within this time, where freeing did not help.
    pub free_again_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Below the 83 C at which consumer cards begin to lower their clocks there is nothing to gain; at 90 C and
            // more the driver steps in by itself.
            drain_at_c: 87.0,
            resume_at_c: 75.0,
            drain_margin_c: None,
            max_age_ms: 5_000,
            blind_ms: 60_000,
            free_idle_ms: Some(1_800_000),
            free_below_mib: None,
            free_again_ms: 60_000,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        if !(self.drain_at_c.is_finite() && self.resume_at_c.is_finite())
            || self.resume_at_c >= self.drain_at_c
        {
            return Err("resume_at_c must be below drain_at_c".to_owned());
        }
        if self.drain_margin_c.is_some_and(|margin| !margin.is_finite()) {
            return Err("drain_margin_c must be a number".to_owned());
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub struct Guard {
    settings: Settings,
    /// When an instance was last told to free, by index.
    freed: HashMap<u32, f64>,
    /// Since when nothing is known of a drained instance.
    blind: HashMap<u32, f64>,
    figures: Option<Figures>,
}

#[derive(Debug, Clone, Copy)]
struct Figures {
    drained: u32,
    drains: u32,
    frees: u32,
}

comfy_router_policy::export!(Guard: lifecycle, housekeeping);

impl Lifecycle for Guard {
    fn configure(json: &str) -> Result<Self, String> {
        let settings: Settings = settings(json)?;
        settings.check()?;
        let figures = Figures {
            drained: metrics::declare(metrics::Kind::Gauge, "drained")?,
            drains: metrics::declare(metrics::Kind::Counter, "drains")?,
            frees: metrics::declare(metrics::Kind::Counter, "frees")?,
        };
        Ok(Self { settings, figures: Some(figures), ..Self::default() })
    }
}

impl Housekeeping for Guard {
    fn tick(&mut self, instances: &[InstanceState]) -> Vec<Order> {
        let mut orders: Vec<Order> = instances.iter().filter_map(|instance| self.heat(instance)).collect();
        let frees: Vec<Order> = instances.iter().filter_map(|instance| self.memory(instance)).collect();
        if let Some(figures) = self.figures {
            metrics::add(
                figures.drains,
                orders.iter().filter(|order| order.act == Act::Drain).count() as f64,
            );
            metrics::add(figures.frees, frees.len() as f64);
            metrics::set(figures.drained, state::keys(DRAINED, u32::MAX).len() as f64);
        }
        orders.extend(frees);
        orders
    }
}

/// Keys of the instances that were drained here, by name: an index may mean another one after a restart.
const DRAINED: &str = "drained/";

/// How hot it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Heat {
    Hot(f32),
    Between,
    Cool(f32),
    Unknown,
}

impl Guard {
    fn heat(&mut self, instance: &InstanceState) -> Option<Order> {
        let key = format!("{DRAINED}{}", fleet::name(instance.instance)?);
        let ours = state::get(&key).is_some();
        let order = |act, reason| Some(Order { instance: instance.instance, act, reason });
        if ours && !instance.draining {
            // Resumed by an operator, or forgotten by a router that was restarted.
            state::delete(&key);
            self.blind.remove(&instance.instance);
        }
        match self.judge(instance) {
            Heat::Hot(at) if !instance.draining => {
                if let Err(refused) = state::set(&key, &clock::now_ms().to_string(), None) {
                    // Drained and forgotten it would stay drained.
                    log::write(
                        log::Level::Error,
                        &format!("cannot remember {key}: {refused:?}, not drained"),
                    );
                    return None;
                }
                order(Act::Drain, format!("{at} C, drained at {}", self.settings.drain_at_c))
            }
            Heat::Cool(at) if ours && instance.draining => {
                state::delete(&key);
                order(Act::Resume, format!("{at} C, resumed at {}", self.settings.resume_at_c))
            }
            Heat::Unknown if ours && instance.draining => {
                let now = clock::now_ms();
                let since = *self.blind.entry(instance.instance).or_insert(now);
                if now - since < f64::from(self.settings.blind_ms) {
                    return None;
                }
                state::delete(&key);
                self.blind.remove(&instance.instance);
                order(Act::Resume, format!("no reading for {} ms", now - since))
            }
            Heat::Unknown => None,
            _ => {
                self.blind.remove(&instance.instance);
                None
            }
        }
    }

    fn judge(&self, instance: &InstanceState) -> Heat {
        let Settings { drain_at_c, resume_at_c, drain_margin_c, .. } = self.settings;
        let Some(at) = instance.temperature_c.filter(|_| self.is_fresh(instance)) else {
            return Heat::Unknown;
        };
        let margin = instance.slowdown_margin_c.zip(drain_margin_c);
        if at >= drain_at_c || margin.is_some_and(|(margin, least)| margin <= least) {
            return Heat::Hot(at);
        }
        let apart = drain_at_c - resume_at_c;
        let far_enough = margin.is_none_or(|(margin, least)| margin >= least + apart);
        if at <= resume_at_c && far_enough { Heat::Cool(at) } else { Heat::Between }
    }

    /// Unknown is not fresh either.
    fn is_fresh(&self, instance: &InstanceState) -> bool {
        instance.reading_age_ms.is_some_and(|age| age <= self.settings.max_age_ms)
    }

    fn memory(&mut self, instance: &InstanceState) -> Option<Order> {
        if !instance.up {
            return None;
        }
        let (act, reason) = self.unused(instance).or_else(|| self.scarce(instance))?;
        let now = clock::now_ms();
        let last = self.freed.get(&instance.instance);
        if last.is_some_and(|last| now - last < f64::from(self.settings.free_again_ms)) {
            return None;
        }
        self.freed.insert(instance.instance, now);
        Some(Order { instance: instance.instance, act, reason })
    }

    fn unused(&self, instance: &InstanceState) -> Option<(Act, String)> {
        let (idle, limit) = (instance.idle_ms?, self.settings.free_idle_ms?);
        let idle_enough = idle >= limit && instance.running == 0 && instance.pending == 0;
        (idle_enough && instance.models_resident > 0)
            .then(|| (Act::FreeModels, format!("idle for {idle} ms")))
    }

    fn scarce(&self, instance: &InstanceState) -> Option<(Act, String)> {
        let free = instance.vram_free_mib.filter(|_| self.is_fresh(instance))?;
        (free < self.settings.free_below_mib?).then(|| (Act::FreeMemory, format!("{free} MiB free")))
    }
}

#[cfg(test)]
mod cases;
