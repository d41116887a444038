//! For unit tests of a policy: views to start from, and a host that answers what a test tells it to.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use crate::{Candidate, InstanceState, Job, JobClass, Seat};

/// A standard job with everything known: 7 nodes, 20 steps, 1 megapixel, one model, 15 s.
pub fn job() -> Job {
    Job {
        handle: 1,
        tenant: 0,
        client: 0,
        class: JobClass::Standard,
        number: None,
        front: false,
        nodes: 7,
        outputs: 1,
        images: 1,
        steps: Some(20),
        megapixels: Some(1.0),
        work: Some(20.0),
        signature: 1,
        models: 1,
        input_kib: 0,
        attempt: 1,
        waited_ms: 0,
        run_ms: Some(15_000),
    }
}

/// An idle instance with one free slot, no models loaded and nothing else known.
pub fn candidate(instance: u32) -> Candidate {
    Candidate {
        instance,
        free_slots: 1,
        running: 0,
        pending: 0,
        models_resident: 0,
        load_ms: None,
        free_in_ms: Some(0),
        run_ms: None,
        vram_free_mib: None,
        vram_total_mib: None,
        gpu_utilization_percent: None,
        temperature_c: None,
        slowdown_margin_c: None,
        power_mw: None,
        power_limit_mw: None,
        throttled: None,
        failures: 0,
        reading_age_ms: None,
        same_signature: false,
    }
}

/// An instance that is up and idle, with nothing else known.
pub fn instance(instance: u32) -> InstanceState {
    InstanceState {
        instance,
        up: true,
        draining: false,
        running: 0,
        pending: 0,
        idle_ms: None,
        models_resident: 0,
        vram_free_mib: None,
        vram_total_mib: None,
        gpu_utilization_percent: None,
        temperature_c: None,
        slowdown_margin_c: None,
        throttled: None,
        failures: 0,
        reading_age_ms: None,
    }
}

/// An idle instance with one free slot and nothing else known, as `placement` sees it.
pub fn seat(instance: u32) -> Seat {
    Seat {
        instance,
        free_slots: 1,
        free_in_ms: Some(0),
        running: 0,
        pending: 0,
        vram_free_mib: None,
        vram_total_mib: None,
        gpu_utilization_percent: None,
        temperature_c: None,
        slowdown_margin_c: None,
        power_mw: None,
        power_limit_mw: None,
        throttled: None,
        failures: 0,
        reading_age_ms: None,
    }
}

/// What the host functions answer natively.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub now_ms: f64,
    /// By instance index.
    pub instances: Vec<String>,
    /// By instance index and key.
    pub labels: HashMap<(u32, String), String>,
    /// By tenant index.
    pub tenants: Vec<String>,
    /// By client index.
    pub clients: Vec<String>,
    /// Jobs that wait, by tenant index.
    pub queued: HashMap<u32, u32>,
    /// By key of `extra_data`, as JSON text.
    pub extra_data: HashMap<String, String>,
    /// What `random::next` gives, counting up.
    pub random: u32,
    /// What the policy wrote to the log.
    pub log: Vec<String>,
    /// What `state` holds, and until when by `now_ms`. Without limits.
    pub state: BTreeMap<String, (String, Option<f64>)>,
    /// The policy's own figures, by name.
    pub metrics: Vec<(String, f64)>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Changes what the host functions answer in this thread.
pub fn with_host<T>(act: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(act)
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host {
    use super::with_host;
    use crate::bindings::host_world::comfy_router::policy as wit;

    pub mod clock {
        pub fn now_ms() -> f64 {
            super::with_host(|host| host.now_ms)
        }
    }

    pub mod fleet {
        pub fn name(instance: u32) -> Option<String> {
            super::with_host(|host| host.instances.get(instance as usize).cloned())
        }

        pub fn label(instance: u32, key: &str) -> Option<String> {
            super::with_host(|host| host.labels.get(&(instance, key.to_owned())).cloned())
        }

        pub fn resident_models(_instance: u32) -> Vec<String> {
            Vec::new()
        }

        pub fn has_model(_instance: u32, _folder: &str, _name: &str) -> bool {
            true
        }

        pub use super::wit::fleet::Device;

        pub fn count() -> u32 {
            super::with_host(|host| host.instances.len() as u32)
        }

        pub fn devices(_instance: u32) -> Vec<Device> {
            Vec::new()
        }

        pub fn available_models(_instance: u32, _folder: &str) -> Vec<String> {
            Vec::new()
        }

        pub fn has_class(_instance: u32, _name: &str) -> bool {
            true
        }
    }

    pub mod queue {
        pub use super::wit::queue::{Totals, WaitingJob};
        use crate::JobClass;

        pub fn all() -> Totals {
            super::with_host(|host| Totals { queued: host.queued.values().sum(), running: 0 })
        }

        pub fn tenant(tenant: u32) -> Totals {
            super::with_host(|host| Totals {
                queued: host.queued.get(&tenant).copied().unwrap_or(0),
                running: 0,
            })
        }

        pub fn tenant_name(tenant: u32) -> Option<String> {
            super::with_host(|host| host.tenants.get(tenant as usize).cloned())
        }

        pub fn client_name(client: u32) -> Option<String> {
            super::with_host(|host| host.clients.get(client as usize).cloned())
        }

        pub fn client(_client: u32) -> Totals {
            Totals { queued: 0, running: 0 }
        }

        pub fn class(_class: JobClass) -> Totals {
            Totals { queued: 0, running: 0 }
        }

        pub fn waiting(_most: u32) -> Vec<WaitingJob> {
            Vec::new()
        }
    }

    pub mod workflow {
        pub use super::wit::workflow::Model;

        pub fn node_classes(_job: u32) -> Vec<String> {
            Vec::new()
        }

        pub fn models(_job: u32) -> Vec<Model> {
            Vec::new()
        }

        pub fn input(_job: u32, _node: &str, _name: &str) -> Option<String> {
            None
        }

        pub fn extra_data(_job: u32, key: &str) -> Option<String> {
            super::with_host(|host| host.extra_data.get(key).cloned())
        }

        pub fn header(_job: u32, _name: &str) -> Option<String> {
            None
        }

        pub fn nodes(_job: u32, _class: &str) -> Vec<String> {
            Vec::new()
        }

        pub fn graph(_job: u32) -> String {
            "{}".to_owned()
        }
    }

    pub mod state {
        use super::super::Host;
        pub use super::wit::state::Refusal;

        fn live<'a>(host: &'a Host, key: &str) -> Option<&'a (String, Option<f64>)> {
            host.state.get(key).filter(|(_, until)| until.is_none_or(|until| host.now_ms < until))
        }

        pub fn get(key: &str) -> Option<String> {
            super::with_host(|host| live(host, key).map(|(value, _)| value.clone()))
        }

        pub fn set(key: &str, value: &str, ttl_ms: Option<u32>) -> Result<(), Refusal> {
            super::with_host(|host| {
                let until = ttl_ms.map(|ms| host.now_ms + f64::from(ms));
                host.state.insert(key.to_owned(), (value.to_owned(), until));
            });
            Ok(())
        }

        pub fn increment(key: &str, by: f64, ttl_ms: Option<u32>) -> Result<f64, Refusal> {
            super::with_host(|host| {
                let (before, until) = match live(host, key) {
                    Some((value, until)) => (value.parse().map_err(|_| Refusal::NotANumber)?, *until),
                    None => (0.0, ttl_ms.map(|ms| host.now_ms + f64::from(ms))),
                };
                let sum = before + by;
                host.state.insert(key.to_owned(), (sum.to_string(), until));
                Ok(sum)
            })
        }

        pub fn delete(key: &str) -> bool {
            super::with_host(|host| {
                let there = live(host, key).is_some();
                host.state.remove(key);
                there
            })
        }

        pub fn keys(prefix: &str, most: u32) -> Vec<String> {
            super::with_host(|host| {
                let keys =
                    host.state.keys().filter(|key| key.starts_with(prefix) && live(host, key).is_some());
                keys.take(most as usize).cloned().collect()
            })
        }
    }

    pub mod metrics {
        pub use super::wit::metrics::Kind;

        pub fn declare(_kind: Kind, name: &str) -> Result<u32, String> {
            super::with_host(|host| {
                host.metrics.push((name.to_owned(), 0.0));
                Ok(host.metrics.len() as u32 - 1)
            })
        }

        pub fn add(metric: u32, by: f64) {
            super::with_host(|host| host.metrics[metric as usize].1 += by);
        }

        pub fn set(metric: u32, value: f64) {
            super::with_host(|host| host.metrics[metric as usize].1 = value);
        }
    }

    pub mod random {
        pub fn next() -> u32 {
            super::with_host(|host| {
                host.random = host.random.wrapping_add(1);
                host.random
            })
        }
    }

    pub mod log {
        pub use super::wit::log::Level;

        pub fn enabled(_level: Level) -> bool {
            true
        }

        pub fn write(_level: Level, message: &str) {
            super::with_host(|host| host.log.push(message.to_owned()));
        }
    }
}
