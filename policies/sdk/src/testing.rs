//! For unit tests of a policy: views to start from, and a host that answers what a test tells it to.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::{Candidate, Job, JobClass};

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
    }

    pub mod queue {
        pub use super::wit::queue::Totals;

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
