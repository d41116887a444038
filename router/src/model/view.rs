//! What a policy may see, as plain numbers. Field for field the records of `wit/policy.wit`, where each is explained;
//! `policy::convert` is the only place that knows both.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{InstanceId, JobId};
use super::job::{Body, JobClass, ModelRef, Needs};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub tenant: u32,
    pub client: u32,
    pub class: JobClass,
    pub number: Option<f64>,
    pub front: bool,
    pub nodes: u32,
    pub outputs: u32,
    pub images: u32,
    pub steps: Option<u32>,
    pub megapixels: Option<f32>,
    pub work: Option<f32>,
    pub signature: u32,
    pub models: u32,
    pub input_kib: u32,
    pub attempt: u32,
    pub waited_ms: u32,
    pub run_ms: Option<u32>,
    /// Behind the `workflow` host functions; not part of the record.
    #[serde(skip)]
    pub texts: JobTexts,
}

/// The job's texts, shared and not copied.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobTexts {
    /// Whose they are; none for an imagined job.
    pub job: Option<JobId>,
    pub body: Arc<Body>,
    pub needs: Arc<Needs>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Candidate {
    pub instance: u32,
    pub free_slots: u32,
    pub running: u32,
    pub pending: u32,
    pub models_resident: u32,
    pub load_ms: Option<u32>,
    pub free_in_ms: Option<u32>,
    pub run_ms: Option<u32>,
    pub gpu: GpuView,
    pub failures: u32,
    pub same_signature: bool,
}

/// The GPU figures of an instance when they were used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GpuView {
    pub vram_free_mib: Option<u32>,
    pub vram_total_mib: Option<u32>,
    pub utilization_percent: Option<f32>,
    pub temperature_c: Option<f32>,
    pub slowdown_margin_c: Option<f32>,
    pub power_mw: Option<u32>,
    pub power_limit_mw: Option<u32>,
    pub throttled: Option<bool>,
    pub reading_age_ms: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    pub queued: u32,
    pub running: u32,
    pub instances: u32,
    pub free_slots: u32,
    pub tenant_queued: u32,
    pub tenant_running: u32,
    pub client_queued: u32,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct InstanceView {
    pub instance: u32,
    pub up: bool,
    pub draining: bool,
    pub running: u32,
    pub pending: u32,
    pub idle_ms: Option<u32>,
    pub models_resident: u32,
    pub gpu: GpuView,
    pub failures: u32,
}

/// An instance as `placement` sees it: what is the same for every job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Seat {
    pub instance: u32,
    pub free_slots: u32,
    pub free_in_ms: Option<u32>,
    pub running: u32,
    pub pending: u32,
    pub gpu: GpuView,
    pub failures: u32,
}

/// One job of a window could run on one of its seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offer {
    /// Row of the jobs.
    pub job: u32,
    /// Row of the seats.
    pub seat: u32,
    pub models_resident: u32,
    pub load_ms: Option<u32>,
    pub run_ms: Option<u32>,
    pub same_signature: bool,
}

/// A waiting job, as `queue.waiting` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    pub tenant: u32,
    pub client: u32,
    pub class: JobClass,
    pub signature: u32,
    pub models: u32,
    pub waited_ms: u32,
    pub run_ms: Option<u32>,
}

/// What the `fleet`, `queue` and `clock` host functions answer from during one consultation. Shared and immutable:
/// building it is a few `Arc` clones.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// By instance index.
    pub fleet: Arc<Vec<InstanceTexts>>,
    pub all: Totals,
    /// By tenant index.
    pub tenants: Arc<Vec<(Arc<str>, Totals)>>,
    /// By client index.
    pub clients: Arc<Vec<(Arc<str>, Totals)>>,
    /// By class.
    pub classes: [Totals; 3],
    /// The head of the queue, as of at most a second ago.
    pub waiting: Arc<Vec<WaitingView>>,
}

#[derive(Debug, Clone)]
pub struct InstanceTexts {
    pub name: InstanceId,
    pub labels: Arc<HashMap<String, String>>,
    /// Believed to be loaded.
    pub resident: Arc<Vec<ModelRef>>,
    pub can: Arc<Capabilities>,
    pub devices: Arc<Vec<DeviceText>>,
}

/// A device as an instance names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceText {
    pub name: String,
    pub kind: String,
    pub vram_total_mib: Option<u32>,
}

/// What an instance has, as its catalogue lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub classes: HashSet<String>,
    /// Model folder to the files in it.
    pub models: HashMap<String, HashSet<String>>,
}

impl Capabilities {
    /// A folder the catalogue does not list says nothing about what is in it.
    pub fn has_model(&self, model: &ModelRef) -> bool {
        self.models.get(&model.folder).is_none_or(|files| files.contains(&model.name))
    }

    /// Can it run a graph with these needs?
    pub fn meets(&self, needs: &Needs) -> bool {
        needs.classes.iter().all(|class| self.classes.contains(class))
            && needs.models.iter().all(|model| self.has_model(model))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    pub queued: u32,
    pub running: u32,
}
