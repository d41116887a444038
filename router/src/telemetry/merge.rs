//! The thread that puts the sources' samples together and publishes what is known. It never waits for a source.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Target;
use super::reading::{Device, DeviceReading, Found, InstanceReading, Readings, SourceKind, Use};
use super::source::{Sample, Sampled, SourceError};
use crate::clock::{Clock, Tick};
use crate::metrics::{self, GpuFigures};
use crate::model::id::InstanceId;
use crate::model::view::GpuView;

pub(super) enum Message {
    Sampled(Sampled),
    /// One instance's `/system_stats`; none when it says nothing of a GPU.
    Stats {
        instance: InstanceId,
        at: Tick,
        device: Option<Box<Device>>,
    },
    TargetsChanged,
    Stop,
}

/// The latest of everything, by source.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) samples: BTreeMap<SourceKind, (Tick, Sample)>,
    pub(super) stats: HashMap<InstanceId, (Tick, Device)>,
}

/// How a source has been doing.
#[derive(Debug)]
struct Health {
    heard: Tick,
    failing: bool,
    overdue: bool,
    absent_said: bool,
}

pub(super) struct Merger {
    pub(super) inbox: Receiver<Message>,
    pub(super) targets: Arc<ArcSwap<Vec<Target>>>,
    pub(super) readings: Arc<ArcSwap<Readings>>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) every: Duration,
    pub(super) stale_ms: u64,
    pub(super) known: Known,
    pub(super) watched: Watched,
}

/// The sources that ought to be heard of.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<SourceKind, Health>);

impl Watched {
    pub(super) fn new(sources: impl Iterator<Item = SourceKind>, now: Tick) -> Self {
        let health = || Health { heard: now, failing: false, overdue: false, absent_said: false };
        Self(sources.map(|source| (source, health())).collect())
    }

    fn heard(&mut self, sampled: &Sampled, now: Tick) {
        let source = sampled.source.as_str();
        let Some(health) = self.0.get_mut(&sampled.source) else { return };
        health.heard = now;
        if std::mem::take(&mut health.overdue) {
            tracing::info!(source, "telemetry source answers again");
        }
        match &sampled.outcome {
            Ok(_) => (health.failing, health.absent_said) = (false, false),
            Err(SourceError::Absent(reason)) => {
                if !std::mem::replace(&mut health.absent_said, true) {
                    tracing::warn!(source, reason, "telemetry source is absent; going on without it");
                }
            }
            Err(SourceError::Failed(reason)) => {
                metrics::telemetry_error(source);
                if !std::mem::replace(&mut health.failing, true) {
                    tracing::warn!(source, reason, "telemetry sample failed");
                }
            }
        }
    }

    /// Says once of each source that it hangs. One that is absent is asked rarely and never overdue.
    fn check(&mut self, now: Tick, patience_ms: u64) {
        for (source, health) in &mut self.0 {
            let late = now.since(health.heard) > patience_ms && !health.absent_said;
            if late && !health.overdue {
                health.overdue = true;
                metrics::telemetry_error(source.as_str());
                tracing::warn!(source = source.as_str(), "telemetry source does not answer");
            }
        }
    }
}

impl Merger {
    pub(super) fn run(mut self) {
        let patience_ms = (self.every.as_millis() as u64 * 5).max(5_000);
        loop {
            let news = match self.inbox.recv_timeout(self.every) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => false,
            };
            let now = self.clock.now().tick;
            self.watched.check(now, patience_ms);
            self.publish(now);
            if news {
                self.changed.send_modify(|samples| *samples += 1);
            }
        }
    }

    /// Whether there may be something new to see.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Sampled(sampled) => {
                self.watched.heard(&sampled, self.clock.now().tick);
                match sampled.outcome {
                    Ok(sample) => drop(self.known.samples.insert(sampled.source, (sampled.at, sample))),
                    // What a failing source said last is kept, and grows old.
                    Err(SourceError::Failed(_)) => return false,
                    Err(SourceError::Absent(_)) => drop(self.known.samples.remove(&sampled.source)),
                }
            }
            Message::Stats { instance, at, device: Some(device) } => {
                self.known.stats.insert(instance, (at, *device));
            }
            Message::Stats { instance, device: None, .. } => drop(self.known.stats.remove(&instance)),
            Message::TargetsChanged => {
                let targets = self.targets.load();
                self.known.stats.retain(|known, _| targets.iter().any(|target| target.instance == *known));
            }
            Message::Stop => return false,
        }
        true
    }

    fn publish(&self, now: Tick) {
        let before = self.readings.load_full();
        let readings = self.known.merge(&self.targets.load(), now, self.stale_ms);
        tell_of_moves(&before, &readings);
        export(&before, &readings, now);
        self.readings.store(Arc::new(readings));
    }
}

impl Known {
    pub(super) fn merge(&self, targets: &[Target], now: Tick, stale_ms: u64) -> Readings {
        let mut instances: Vec<_> =
            targets.iter().map(|target| self.instance(target, now, stale_ms)).collect();
        instances.sort_by_key(|reading| reading.index);
        Readings { instances, devices: self.devices() }
    }

    fn devices(&self) -> Vec<DeviceReading> {
        let mut seen = HashSet::new();
        let all = self.samples.iter().flat_map(|(source, (sampled, sample))| {
            sample.devices.iter().map(|device| DeviceReading {
                device: device.clone(),
                source: *source,
                sampled: *sampled,
            })
        });
        all.filter(|reading| seen.insert(reading.device.uuid.clone())).collect()
    }

    /// The card of an instance, as far as a source that reads cards knows it; a fresh answer before a stale one.
    fn card(&self, instance: &InstanceId, now: Tick, stale_ms: u64) -> Option<Card<'_>> {
        let cards = || {
            self.samples.iter().filter_map(|(source, (sampled, sample))| {
                let used = sample.uses.iter().find(|used| used.instance == *instance)?;
                let device = sample.devices.iter().find(|device| device.uuid == used.uuid)?;
                Some(Card { used, device, source: *source, sampled: *sampled })
            })
        };
        cards().find(|card| now.since(card.sampled) <= stale_ms).or_else(|| cards().max_by_key(|c| c.sampled))
    }

    fn instance(&self, target: &Target, now: Tick, stale_ms: u64) -> InstanceReading {
        let card = self.card(&target.instance, now, stale_ms);
        let stats = self.stats.get(&target.instance);
        let figures = card.as_ref().filter(|card| card.device.problem.is_none());
        let old = figures.is_some_and(|card| now.since(card.sampled) > stale_ms);
        let (figures, source, sampled) = match (figures, stats) {
            (Some(card), Some((at, _))) if old && *at > card.sampled => with_stats(None, stats),
            (Some(card), stats) => with_stats(Some(card), stats),
            (None, stats) => with_stats(None, stats),
        };
        InstanceReading {
            instance: target.instance.clone(),
            index: target.index,
            gpu: card.as_ref().map(|card| card.device.uuid.clone()),
            found: card.as_ref().map(|card| card.used.found),
            source,
            figures,
            sampled,
            problem: card.and_then(|card| card.device.problem.clone()),
        }
    }
}

struct Card<'a> {
    used: &'a Use,
    device: &'a Device,
    source: SourceKind,
    sampled: Tick,
}

/// The card's figures; memory, where the card does not tell, from `/system_stats`. The age is that of the older part.
fn with_stats(
    card: Option<&Card<'_>>,
    stats: Option<&(Tick, Device)>,
) -> (GpuView, Option<SourceKind>, Tick) {
    match (card, stats) {
        (None, None) => (GpuView::default(), None, Tick::default()),
        (None, Some((at, device))) => (device.view(), Some(SourceKind::SystemStats), *at),
        (Some(card), Some((at, device))) if card.device.memory_total_bytes.is_none() => {
            let (figures, memory) = (card.device.view(), device.view());
            let (vram_free_mib, vram_total_mib) = (memory.vram_free_mib, memory.vram_total_mib);
            (GpuView { vram_free_mib, vram_total_mib, ..figures }, Some(card.source), card.sampled.min(*at))
        }
        (Some(card), _) => (card.device.view(), Some(card.source), card.sampled),
    }
}

/// Says where each instance computes, once and whenever it changes.
fn tell_of_moves(before: &Readings, now: &Readings) {
    for reading in &now.instances {
        let earlier = before.of(&reading.instance).and_then(|earlier| earlier.gpu.as_ref());
        if earlier == reading.gpu.as_ref() {
            continue;
        }
        if let Some(gpu) = earlier {
            metrics::instance_gpu(&reading.instance, gpu, false);
        }
        match (&reading.gpu, reading.found) {
            (Some(gpu), Some(found)) => {
                metrics::instance_gpu(&reading.instance, gpu, true);
                tracing::info!(instance = %reading.instance, gpu = %gpu, found = word(found), "gpu of instance is known");
            }
            _ => tracing::info!(instance = %reading.instance, "gpu of instance is no longer known"),
        }
    }
}

fn word(found: Found) -> &'static str {
    match found {
        Found::Configured => "configured",
        Found::Process => "process",
        Found::CommandLine => "command_line",
        Found::Environment => "environment",
        Found::OnlyGpu => "only_gpu",
        Found::Asked => "asked",
    }
}

fn export(before: &Readings, readings: &Readings, now: Tick) {
    for gone in &before.devices {
        if readings.devices.iter().all(|reading| reading.device.uuid != gone.device.uuid) {
            metrics::gpu(&gone.device.uuid, GpuFigures::default());
        }
    }
    for DeviceReading { device, source, sampled } in &readings.devices {
        metrics::gpu_info(&device.uuid, &device.name, device.index, source.as_str());
        metrics::gpu(&device.uuid, figures(device, now.since(*sampled)));
    }
}

fn figures(device: &Device, age_ms: u64) -> GpuFigures {
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    GpuFigures {
        utilization_ratio: device.utilization_percent.map(|percent| f64::from(percent) / 100.0),
        memory_used_bytes: device.memory_used_bytes,
        memory_total_bytes: device.memory_total_bytes,
        temperature_celsius: device.temperature_c.map(f64::from),
        slowdown_celsius: device.slowdown_c.map(f64::from),
        power_watts: device.power_mw.map(watts),
        power_limit_watts: device.power_limit_mw.map(watts),
        sm_clock_hertz: device.sm_clock_mhz.map(|mhz| f64::from(mhz) * 1e6),
        throttled: device.throttled(),
        ecc_uncorrected: device.ecc_uncorrected,
        age_seconds: Some(age_ms as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Url;

    fn target(index: u32) -> Target {
        let instance = format!("i{index}").as_str().into();
        Target { instance, index, url: Url::new("127.0.0.1", 8188), gpu: None }
    }

    fn device(uuid: &str, free_mib: Option<u64>) -> Device {
        let bytes = free_mib.map(|mib| mib << 20);
        Device { memory_total_bytes: bytes, memory_free_bytes: bytes, ..Device::new(uuid, "x") }
    }

    fn sample(device: Device, instance: u32) -> Sample {
        let uses = vec![Use {
            instance: target(instance).instance,
            uuid: device.uuid.clone(),
            found: Found::Process,
        }];
        Sample { devices: vec![device], uses }
    }

    /// The driver at tick 1000 and `/system_stats` at `stats_at`, both of instance 0.
    fn both(card: Device, stats_at: u64) -> Known {
        let mut known = Known::default();
        known.samples.insert(SourceKind::Nvml, (Tick(1000), sample(card, 0)));
        known.stats.insert(target(0).instance, (Tick(stats_at), device("", Some(7))));
        known
    }

    fn first(known: &Known, now: u64) -> InstanceReading {
        known.merge(&[target(0)], Tick(now), 5000).instances.remove(0)
    }

    #[test]
    fn a_source_that_came_back_is_missed_again_when_it_hangs() {
        let mut watched = Watched::new([SourceKind::Nvml].into_iter(), Tick(0));
        let sampled = |outcome| Sampled { source: SourceKind::Nvml, at: Tick(1), outcome };
        watched.heard(&sampled(Err(SourceError::Absent("no driver".into()))), Tick(1));
        watched.check(Tick(100_000), 5_000);
        assert!(!watched.0[&SourceKind::Nvml].overdue, "nobody waits for what is absent");
        watched.heard(&sampled(Ok(Sample::default())), Tick(100_000));
        watched.check(Tick(200_000), 5_000);
        assert!(watched.0[&SourceKind::Nvml].overdue);
    }

    #[test]
    fn the_driver_is_believed_over_comfyui_while_it_is_fresh() {
        let known = both(device("GPU-1", Some(3)), 5500);
        let fresh = first(&known, 6000);
        assert_eq!((fresh.source, fresh.figures.vram_free_mib), (Some(SourceKind::Nvml), Some(3)));
        assert_eq!(fresh.view(Tick(6000)).reading_age_ms, Some(5000));
        let stale = first(&known, 6001);
        assert_eq!((stale.source, stale.figures.vram_free_mib), (Some(SourceKind::SystemStats), Some(7)));
        assert_eq!(stale.view(Tick(6001)).reading_age_ms, Some(501));
        // The card stays known, whoever tells the figures.
        assert_eq!(stale.gpu.as_deref(), Some("GPU-1"));
    }

    #[test]
    fn of_two_stale_readings_the_younger_is_told_with_its_age() {
        let known = both(device("GPU-1", Some(3)), 900);
        let reading = first(&known, 60_000);
        assert_eq!(reading.source, Some(SourceKind::Nvml));
        assert_eq!(reading.view(Tick(60_000)).reading_age_ms, Some(59_000));
    }

    #[test]
    fn memory_that_the_card_does_not_tell_is_comfyuis() {
        let mut card = device("GPU-1", None);
        card.temperature_c = Some(40.0);
        let reading = first(&both(card, 500), 1100);
        assert_eq!((reading.figures.vram_free_mib, reading.figures.temperature_c), (Some(7), Some(40.0)));
        assert_eq!(reading.view(Tick(1100)).reading_age_ms, Some(600), "as old as its older part");
    }

    #[test]
    fn a_lost_card_is_a_problem_and_no_figures() {
        let mut card = device("GPU-1", None);
        card.problem = Some("GPU is lost".into());
        let reading = first(&both(card, 500), 1100);
        assert_eq!(reading.problem.as_deref(), Some("GPU is lost"));
        assert_eq!((reading.source, reading.figures.vram_free_mib), (Some(SourceKind::SystemStats), Some(7)));
    }

    #[test]
    fn an_instance_nobody_knows_has_no_figures_and_no_age() {
        let known = both(device("GPU-1", Some(3)), 900);
        let readings = known.merge(&[target(1), target(0)], Tick(1100), 5000);
        assert_eq!(readings.instances[1].source, None);
        assert_eq!(readings.instances[1].view(Tick(9)), GpuView::default());
        let views = readings.views();
        assert_eq!(views.len(), 1);
        assert_eq!((views[0].0, views[0].2), (0, Tick(1000)));
    }

    #[test]
    fn a_card_that_two_sources_list_is_told_once_by_the_more_trusted() {
        let mut known = both(device("GPU-1", Some(3)), 900);
        known.samples.insert(SourceKind::Emulated, (Tick(1), sample(device("GPU-1", Some(4)), 0)));
        let devices = known.merge(&[], Tick(1100), 5000).devices;
        assert_eq!(devices.iter().map(|d| d.source).collect::<Vec<_>>(), [SourceKind::Emulated]);
    }
}
