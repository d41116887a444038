//! The functions a guest may call. Each answers from the frozen context of the present consultation; none waits, takes
//! a lock or leaves the process, and none shows a credential.

mod figures;
mod memory;
mod workflow;

use std::time::Instant;

use wasmtime::component::{HasSelf, Linker};

use super::bindings::Policy;
use super::bindings::comfy_router::policy as wit;
use super::convert;
use super::meter::{Line, LogBudget, Memory, Meter, Stop};
use crate::model::decision::{Hook, PolicyVersion};
use crate::model::job::ModelRef;
use crate::model::view::{Context, DeviceText, JobTexts, Totals, WaitingView};
use crate::policy::config::GuestLimits;
use crate::policy::state::{Changes, Space};
use figures::Figures;
use workflow::Graph;

/// What belongs to one guest.
pub(super) struct State {
    version: PolicyVersion,
    pub(super) memory: Memory,
    pub(super) meter: Meter,
    log: LogBudget,
    context: Context,
    jobs: Vec<JobTexts>,
    /// Of the first of the present jobs; the others count on from it, and any other is refused.
    handle: u32,
    /// Of the job that was asked about last.
    graph: Option<(u32, Graph)>,
    extra_data: Option<(u32, Graph)>,
    random: u64,
    /// What the policy remembers, and what the present call changes of it.
    space: Space,
    changes: Changes,
    figures: Figures,
}

impl State {
    /// A guest that is not `live` (in the load gate, in a shadow, in a tool) leaves no figures.
    pub(super) fn new(version: PolicyVersion, limits: &GuestLimits, space: Space, live: bool) -> Self {
        Self {
            figures: Figures::new(version.name.clone(), live),
            version,
            memory: Memory::new(limits),
            meter: Meter::new(0, std::time::Duration::ZERO),
            log: LogBudget::new(limits.log_bytes_per_second),
            context: Context::default(),
            jobs: Vec::new(),
            handle: 0,
            graph: None,
            extra_data: None,
            random: 0,
            space,
            changes: Changes::default(),
        }
    }

    /// Before each call. The handles are new each time, so that one kept from an earlier call names nothing.
    pub(super) fn enter(
        &mut self,
        hook: Hook,
        seed: u64,
        context: &Context,
        jobs: Vec<JobTexts>,
        meter: Meter,
    ) -> u32 {
        self.context.clone_from(context);
        self.handle = self.handle.wrapping_add(self.jobs.len().max(1) as u32);
        self.jobs = jobs;
        (self.graph, self.extra_data) = (None, None);
        self.changes.clear();
        self.figures.open(hook == Hook::Configure);
        // The hooks of one consultation share its seed and not their numbers.
        self.random = seed ^ (hook as u64).wrapping_mul(0xa076_1d64_78bd_642f);
        self.meter = meter;
        self.memory.refused = false;
        self.handle
    }

    /// The answer of the present call was good: what it changed counts.
    pub(super) fn keep(&mut self) {
        self.space.apply(&mut self.changes);
    }

    fn texts(&self, job: u32) -> Option<&JobTexts> {
        self.jobs.get(job.wrapping_sub(self.handle) as usize)
    }

    fn instance(&self, index: u32) -> Option<&crate::model::view::InstanceTexts> {
        self.context.fleet.get(index as usize)
    }
}

/// Everything a guest may import.
pub(super) fn link(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    Policy::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

type Answer<T> = wasmtime::Result<T>;

impl State {
    fn spend(&mut self) -> Answer<()> {
        self.meter.spend().map_err(|stop: Stop| wasmtime::Error::from(stop))
    }

    /// For a call whose work grows with what is there.
    fn spend_much(&mut self) -> Answer<()> {
        self.meter.spend_much().map_err(|stop: Stop| wasmtime::Error::from(stop))
    }
}

impl wit::types::Host for State {}

impl wit::fleet::Host for State {
    fn name(&mut self, instance: u32) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.instance(instance).map(|texts| texts.name.to_string()))
    }

    fn label(&mut self, instance: u32, key: String) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.instance(instance).and_then(|texts| texts.labels.get(&key).cloned()))
    }

    fn resident_models(&mut self, instance: u32) -> Answer<Vec<String>> {
        self.spend_much()?;
        let models = self.instance(instance).map(|texts| texts.resident.clone()).unwrap_or_default();
        Ok(models.iter().map(|model| format!("{}/{}", model.folder, model.name)).collect())
    }

    fn has_model(&mut self, instance: u32, folder: String, name: String) -> Answer<bool> {
        self.spend()?;
        Ok(self.instance(instance).is_some_and(|texts| texts.can.has_model(&ModelRef { folder, name })))
    }

    fn count(&mut self) -> Answer<u32> {
        self.spend()?;
        Ok(self.context.fleet.len() as u32)
    }

    fn devices(&mut self, instance: u32) -> Answer<Vec<wit::fleet::Device>> {
        self.spend()?;
        let device = |device: &DeviceText| wit::fleet::Device {
            name: device.name.clone(),
            kind: device.kind.clone(),
            vram_total_mib: device.vram_total_mib,
        };
        Ok(self
            .instance(instance)
            .map(|texts| texts.devices.iter().map(device).collect())
            .unwrap_or_default())
    }

    fn available_models(&mut self, instance: u32, folder: String) -> Answer<Vec<String>> {
        self.spend_much()?;
        let files = self.instance(instance).and_then(|texts| texts.can.models.get(&folder));
        let mut names: Vec<String> = files.into_iter().flatten().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    fn has_class(&mut self, instance: u32, name: String) -> Answer<bool> {
        self.spend()?;
        Ok(self.instance(instance).is_some_and(|texts| texts.can.classes.contains(&name)))
    }
}

fn totals(totals: Totals) -> wit::queue::Totals {
    wit::queue::Totals { queued: totals.queued, running: totals.running }
}

impl wit::queue::Host for State {
    fn all(&mut self) -> Answer<wit::queue::Totals> {
        self.spend()?;
        Ok(totals(self.context.all))
    }

    fn tenant(&mut self, tenant: u32) -> Answer<wit::queue::Totals> {
        self.spend()?;
        Ok(totals(self.context.tenants.get(tenant as usize).map(|(_, totals)| *totals).unwrap_or_default()))
    }

    fn tenant_name(&mut self, tenant: u32) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.context.tenants.get(tenant as usize).map(|(name, _)| name.to_string()))
    }

    fn client_name(&mut self, client: u32) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.context.clients.get(client as usize).map(|(name, _)| name.to_string()))
    }

    fn client(&mut self, client: u32) -> Answer<wit::queue::Totals> {
        self.spend()?;
        Ok(totals(self.context.clients.get(client as usize).map(|(_, totals)| *totals).unwrap_or_default()))
    }

    fn class(&mut self, class: wit::types::JobClass) -> Answer<wit::queue::Totals> {
        self.spend()?;
        Ok(totals(self.context.classes[convert::class_from(class) as usize]))
    }

    fn waiting(&mut self, most: u32) -> Answer<Vec<wit::queue::WaitingJob>> {
        self.spend_much()?;
        let job = |job: &WaitingView| wit::queue::WaitingJob {
            tenant: job.tenant,
            client: job.client,
            class: convert::class(job.class),
            signature: job.signature,
            models: job.models,
            waited_ms: job.waited_ms,
            run_ms: job.run_ms,
        };
        Ok(self.context.waiting.iter().take(most as usize).map(job).collect())
    }
}

impl wit::clock::Host for State {
    fn now_ms(&mut self) -> Answer<f64> {
        self.spend()?;
        Ok(self.context.now_ms as f64)
    }
}

impl wit::random::Host for State {
    /// SplitMix64 (Steele, Lea and Flood, OOPSLA '14): any seed is as good as any other.
    fn next(&mut self) -> Answer<u32> {
        self.spend()?;
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(((z ^ (z >> 31)) >> 32) as u32)
    }
}

impl wit::log::Host for State {
    fn enabled(&mut self, level: wit::log::Level) -> Answer<bool> {
        self.spend()?;
        Ok(match level {
            wit::log::Level::Error => tracing::enabled!(tracing::Level::ERROR),
            wit::log::Level::Warn => tracing::enabled!(tracing::Level::WARN),
            wit::log::Level::Info => tracing::enabled!(tracing::Level::INFO),
            wit::log::Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        })
    }

    fn write(&mut self, level: wit::log::Level, message: String) -> Answer<()> {
        self.spend()?;
        let Line::Kept { text, dropped_before } = self.log.take(&message, Instant::now()) else {
            return Ok(());
        };
        let policy = &self.version.name;
        if dropped_before > 0 {
            tracing::warn!(%policy, dropped = dropped_before, "the policy logs too much, lines were dropped");
        }
        match level {
            wit::log::Level::Error => tracing::error!(%policy, text, "policy says"),
            wit::log::Level::Warn => tracing::warn!(%policy, text, "policy says"),
            wit::log::Level::Info => tracing::info!(%policy, text, "policy says"),
            wit::log::Level::Debug => tracing::debug!(%policy, text, "policy says"),
        }
        Ok(())
    }
}
