//! The fleet as the core knows it: who is up, what each can run, how many attempts each may be given, what is believed
//! to be loaded there.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Tick;
use crate::model::id::{JobId, UpstreamId};
use crate::model::job::ModelRef;
use crate::model::view::{
    Candidate, Capabilities, DeviceText, GpuView, InstanceTexts, InstanceView, Offer, Seat,
};

use super::guard::Guard;
use super::input::{InstanceChange, InstanceReport, InstanceSpec};
use super::learn::Outlook;

/// Failures older than this are forgiven.
const FAILURE_MEMORY_MS: u64 = 600_000;
/// Attempts that were given up and never asked about again: an instance that is always down has no more.
const MAX_ZOMBIES: usize = 1_000;

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) spec: InstanceSpec,
    pub(super) up: bool,
    /// It went down for giving no answer; none once something was done about it.
    pub(super) silent_since: Option<Tick>,
    /// Its websocket is up: the events of an attempt would be heard.
    pub(super) linked: bool,
    pub(super) guard: Guard,
    pub(super) can: Arc<Capabilities>,
    pub(super) devices: Arc<Vec<DeviceText>>,
    pub(super) drained_by: Drained,
    /// The policy's cap on slots.
    pub(super) cap: Option<u32>,
    /// Jobs of others there: running, pending.
    pub(super) foreign: (u32, u32),
    /// Attempts given or about to be given to it.
    pub(super) live: Vec<Live>,
    /// Attempts that were given up but may still occupy it.
    pub(super) zombies: Vec<UpstreamId>,
    pub(super) gpu: Option<(GpuView, Tick)>,
    pub(super) failures: VecDeque<Tick>,
    pub(super) idle_since: Option<Tick>,
    pub(super) last_signature: Option<u64>,
    /// Most recently used last.
    pub(super) resident: Arc<Vec<ModelRef>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Drained {
    pub(super) operator: bool,
    pub(super) policy: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) job: JobId,
    pub(super) started: Tick,
    pub(super) predicted_ms: Option<u32>,
}

impl Instance {
    pub(super) fn new(spec: InstanceSpec) -> Self {
        Self {
            spec,
            up: false,
            silent_since: None,
            linked: false,
            guard: Guard::default(),
            can: Arc::default(),
            devices: Arc::default(),
            drained_by: Drained::default(),
            cap: None,
            foreign: (0, 0),
            live: Vec::new(),
            zombies: Vec::new(),
            gpu: None,
            failures: VecDeque::new(),
            idle_since: None,
            last_signature: None,
            resident: Arc::default(),
        }
    }

    pub(super) fn draining(&self) -> bool {
        self.drained_by.operator || self.drained_by.policy
    }

    /// Would it be given attempts at all?
    pub(super) fn serves(&self) -> bool {
        self.up && self.linked && !self.draining() && self.guard.cap() != Some(0)
    }

    pub(super) fn free_slots(&self) -> u32 {
        if !self.serves() {
            return 0;
        }
        let caps = [self.cap, self.guard.cap()].into_iter().flatten();
        let slots = caps.fold(self.spec.slots, u32::min);
        let taken = self.live.len() as u32 + self.zombies.len() as u32 + self.foreign.0 + self.foreign.1;
        slots.saturating_sub(taken)
    }

    pub(super) fn release(&mut self, job: JobId, now: Tick) {
        self.live.retain(|live| live.job != job);
        if self.live.is_empty() {
            self.idle_since = Some(now);
        }
    }

    /// It may still run or queue this attempt, whose end nobody waits for any more.
    pub(super) fn gave_up(&mut self, upstream: UpstreamId) {
        if self.zombies.len() == MAX_ZOMBIES {
            self.zombies.remove(0);
        }
        self.zombies.push(upstream);
    }

    pub(super) fn failed(&mut self, now: Tick) {
        self.failures.push_back(now);
        while self.failures.len() > 1000 {
            self.failures.pop_front();
        }
    }

    pub(super) fn recent_failures(&self, now: Tick) -> u32 {
        self.failures.iter().filter(|at| now.since(**at) < FAILURE_MEMORY_MS).count() as u32
    }

    pub(super) fn is_resident(&self, model: &ModelRef) -> bool {
        self.resident.contains(model)
    }

    /// Nothing is loaded there any more: it restarted, or was told to unload.
    pub(super) fn unloaded(&mut self) {
        self.resident = Arc::default();
    }

    /// A job with these models ran there. At most `keep` distinct *main* models (checkpoints, diffusion models) are
    /// believed to stay, with whatever was used along with them.
    pub(super) fn used(&mut self, models: &[ModelRef], keep: usize) {
        if models.is_empty() {
            return;
        }
        let mut resident: Vec<ModelRef> =
            self.resident.iter().filter(|model| !models.contains(model)).cloned().collect();
        resident.extend(models.iter().cloned());
        let mut mains = 0;
        let first_kept = resident.iter().rposition(|model| {
            mains += usize::from(is_main(model));
            mains > keep
        });
        resident.drain(..first_kept.map_or(0, |gone| gone + 1));
        self.resident = Arc::new(resident);
    }

    /// Has its GPU more memory than so much? What is not known is worth trying.
    pub(super) fn is_larger_than(&self, mib: u32) -> bool {
        self.vram_mib().is_none_or(|own| own > mib)
    }

    pub(super) fn vram_mib(&self) -> Option<u32> {
        self.gpu.and_then(|(gpu, _)| gpu.vram_total_mib)
    }

    fn gpu_view(&self, now: Tick) -> GpuView {
        self.gpu.map_or(GpuView::default(), |(gpu, sampled)| GpuView {
            reading_age_ms: Some(now.since(sampled).min(u32::MAX as u64) as u32),
            ..gpu
        })
    }

    fn running(&self) -> u32 {
        self.live.len() as u32 + self.zombies.len() as u32 + self.foreign.0
    }

    fn free_in_ms(&self, now: Tick) -> Option<u32> {
        if self.free_slots() > 0 {
            return Some(0);
        }
        if self.foreign.0 + self.foreign.1 > 0 || !self.zombies.is_empty() {
            return None;
        }
        let left = |live: &Live| Some(live.predicted_ms?.saturating_sub(now.since(live.started) as u32));
        self.live.iter().map(left).try_fold(u32::MAX, |least, one| one.map(|ms| least.min(ms)))
    }

    /// What this instance (`index`) is for a job.
    pub(super) fn candidate(&self, index: usize, outlook: &Outlook<'_>, now: Tick) -> Candidate {
        let (models_resident, load_ms) = outlook.loading(|model| self.is_resident(model));
        Candidate {
            instance: index as u32,
            free_slots: self.free_slots(),
            running: self.running(),
            pending: self.foreign.1,
            models_resident,
            load_ms,
            free_in_ms: self.free_in_ms(now),
            run_ms: outlook.run_ms(index as u32),
            gpu: self.gpu_view(now),
            failures: self.recent_failures(now),
            same_signature: self.last_signature == Some(outlook.signature()),
        }
    }

    pub(super) fn seat(&self, index: usize, now: Tick) -> Seat {
        Seat {
            instance: index as u32,
            free_slots: self.free_slots(),
            free_in_ms: self.free_in_ms(now),
            running: self.running(),
            pending: self.foreign.1,
            gpu: self.gpu_view(now),
            failures: self.recent_failures(now),
        }
    }

    /// What this instance (`index`, in row `seat`) offers the job in row `job`.
    pub(super) fn offer(&self, index: usize, (job, seat): (u32, u32), outlook: &Outlook<'_>) -> Offer {
        let (models_resident, load_ms) = outlook.loading(|model| self.is_resident(model));
        Offer {
            job,
            seat,
            models_resident,
            load_ms,
            run_ms: outlook.run_ms(index as u32),
            same_signature: self.last_signature == Some(outlook.signature()),
        }
    }

    pub(super) fn view(&self, index: usize, now: Tick) -> InstanceView {
        InstanceView {
            instance: index as u32,
            up: self.up,
            // To a policy it is all the same why an instance is given nothing.
            draining: self.draining() || self.guard.cap() == Some(0),
            running: self.running(),
            pending: self.foreign.1,
            idle_ms: self
                .idle_since
                .filter(|_| self.running() == 0)
                .map(|since| now.since(since).min(u32::MAX as u64) as u32),
            models_resident: self.resident.len() as u32,
            gpu: self.gpu_view(now),
            failures: self.recent_failures(now),
        }
    }

    pub(super) fn texts(&self) -> InstanceTexts {
        InstanceTexts {
            name: self.spec.id.clone(),
            labels: self.spec.labels.clone(),
            resident: self.resident.clone(),
            can: self.can.clone(),
            devices: self.devices.clone(),
        }
    }

    pub(super) fn report(&self, now: Tick) -> InstanceReport {
        InstanceReport {
            live: self.live.iter().map(|live| live.job).collect(),
            draining: self.draining(),
            linked: self.linked,
            quarantine: self.guard.report(now),
            given_up: self.zombies.len() as u32,
            free_slots: self.free_slots(),
            resident: self.resident.clone(),
        }
    }
}

/// The model whose weights dominate a job's memory.
fn is_main(model: &ModelRef) -> bool {
    matches!(model.folder.as_str(), "checkpoints" | "diffusion_models" | "unet")
}

/// Instances that can do the same share the list of it, so that a question looks a job's needs up in one.
pub(super) fn sharing(instances: &[Instance], change: InstanceChange) -> InstanceChange {
    let shared = |can: Arc<Capabilities>| {
        let same = instances.iter().map(|instance| &instance.can).find(|known| ***known == *can);
        same.cloned().unwrap_or(can)
    };
    match change {
        InstanceChange::Up(can) => InstanceChange::Up(shared(can)),
        InstanceChange::Capabilities(can) => InstanceChange::Capabilities(shared(can)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::InstanceId;

    fn instance() -> Instance {
        let spec =
            InstanceSpec { id: InstanceId::from("a"), slots: 2, labels: Arc::default(), supervised: false };
        Instance { up: true, linked: true, ..Instance::new(spec) }
    }

    fn model(folder: &str, name: &str) -> ModelRef {
        ModelRef { folder: folder.into(), name: name.into() }
    }

    #[test]
    fn jobs_of_others_and_attempts_given_up_take_slots() {
        let mut a = instance();
        assert_eq!(a.free_slots(), 2);
        a.foreign = (1, 0);
        assert_eq!(a.free_slots(), 1);
        a.zombies.push(UpstreamId::mint());
        assert_eq!(a.free_slots(), 0);
        a.foreign = (5, 5);
        assert_eq!(a.free_slots(), 0);
    }

    #[test]
    fn a_cap_never_gives_more_than_configured() {
        let mut a = instance();
        a.cap = Some(9);
        assert_eq!(a.free_slots(), 2);
        a.cap = Some(0);
        assert_eq!(a.free_slots(), 0);
    }

    #[test]
    fn the_least_recently_used_main_model_is_forgotten_with_its_company() {
        let mut a = instance();
        a.used(&[model("checkpoints", "one"), model("loras", "x")], 1);
        a.used(&[model("checkpoints", "two")], 1);
        assert_eq!(*a.resident, [model("loras", "x"), model("checkpoints", "two")]);
        a.used(&[model("loras", "y"), model("checkpoints", "three")], 1);
        assert!(
            a.is_resident(&model("checkpoints", "three")) && !a.is_resident(&model("checkpoints", "two"))
        );
    }

    #[test]
    fn a_busy_instance_is_free_when_the_first_attempt_is_predicted_to_end() {
        let mut a = instance();
        let live = |predicted_ms| Live { job: JobId::mint(), started: Tick(1000), predicted_ms };
        a.live = vec![live(Some(5000)), live(Some(2000))];
        assert_eq!(a.free_in_ms(Tick(2000)), Some(1000));
        assert_eq!(a.free_in_ms(Tick(9000)), Some(0));
        a.live.push(live(None));
        assert_eq!(a.free_in_ms(Tick(2000)), None, "unknown is not zero");
    }
}
