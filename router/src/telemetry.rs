//! Live readings of the GPUs the instances compute on.
//!
//! Owns the sources, each on a thread of its own, and the readings put together from them. A source that hangs, fails
//! or is missing makes readings older or poorer, never anything slower: [`Handle::snapshot`] is one atomic load.
//! It never decides what a reading means; it knows the fleet only as the [`Target`]s it is given.
//!
//! The app sets targets when the fleet changes and passes on each `/system_stats` answer; the scheduler's driver waits
//! for [`Handle::changed`] and takes [`Readings::views`]; admin shows the snapshot.
//!
//! A new source is one file that implements [`Source`], one line in [`sources`] and a word in [`SourceKind`].

mod emulated;
mod json;
mod merge;
mod nvml;
mod placement;
mod reading;
mod source;
mod system_stats;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{self, Gpu, Url};
use crate::model::id::InstanceId;
pub use emulated::Emulated;
use merge::{Known, Merger, Message, Watched};
pub use nvml::Nvml;
pub use reading::{Device, DeviceReading, Found, GpuProcess, InstanceReading, Readings, SourceKind, Use};
use source::Runner;
pub use source::{Sample, Source, SourceError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub nvml: bool,
    pub emulated: bool,
    pub sample_ms: u64,
    /// A reading older than this yields to a younger one of a less trusted source.
    pub stale_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { nvml: true, emulated: false, sample_ms: 1000, stale_ms: 10_000 }
    }
}

impl From<&config::Telemetry> for Config {
    fn from(written: &config::Telemetry) -> Self {
        let config::Telemetry { nvml, emulated, sample_ms } = *written;
        Self { nvml, emulated, sample_ms, ..Self::default() }
    }
}

/// One instance, as far as telemetry needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub instance: InstanceId,
    /// Position in the fleet.
    pub index: u32,
    pub url: Url,
    /// As the operator says; none: found from the process that listens there.
    pub gpu: Option<Gpu>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot start the telemetry source {source_name}: {reason}")]
pub struct StartError {
    source_name: &'static str,
    reason: std::io::Error,
}

/// The threads. Dropping it ends them, each after the call it is in.
#[derive(Debug)]
pub struct Service {
    messages: Sender<Message>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
    }
}

/// Cheap to clone; no call of it waits for a source.
#[derive(Clone)]
pub struct Handle {
    readings: Arc<ArcSwap<Readings>>,
    targets: Arc<ArcSwap<Vec<Target>>>,
    messages: Sender<Message>,
    wakers: Arc<Vec<Sender<()>>>,
    changed: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("readings", &self.readings).finish_non_exhaustive()
    }
}

/// The sources that `config` asks for.
fn sources(config: &Config) -> Result<Vec<Box<dyn Source>>, StartError> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if config.nvml {
        sources.push(Box::new(Nvml::default()));
    }
    if config.emulated {
        let emulated = Emulated::new().map_err(|reason| StartError { source_name: "emulated", reason })?;
        sources.push(Box::new(emulated));
    }
    Ok(sources)
}

/// The GPUs that the driver lists, without a service.
pub fn gpus() -> Result<Vec<Device>, SourceError> {
    Nvml::default().sample(&[]).map(|sample| sample.devices)
}

impl Service {
    pub fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<(Self, Handle), StartError> {
        Self::start_with(config, clock, sources(config)?)
    }

    /// With sources of the caller's own choice.
    pub fn start_with(
        config: &Config,
        clock: Arc<dyn Clock>,
        sources: Vec<Box<dyn Source>>,
    ) -> Result<(Self, Handle), StartError> {
        let (messages, inbox) = mpsc::channel();
        let (changed_sender, changed) = watch::channel(0);
        let targets = Arc::new(ArcSwap::default());
        let readings = Arc::new(ArcSwap::default());
        let every = Duration::from_millis(config.sample_ms.max(20));
        let merger = Merger {
            inbox,
            targets: targets.clone(),
            readings: readings.clone(),
            changed: changed_sender,
            clock: clock.clone(),
            every,
            stale_ms: config.stale_ms,
            known: Known::default(),
            watched: Watched::new(sources.iter().map(|s| s.kind()), clock.now().tick),
        };
        let merging = thread::Builder::new().name("telemetry".into()).spawn(move || merger.run());
        merging.map_err(|reason| StartError { source_name: "merge", reason })?;
        let mut wakers = Vec::new();
        for source in sources {
            let (waker, wake) = mpsc::channel();
            let source_name = source.kind().as_str();
            let (targets, clock, out) = (targets.clone(), clock.clone(), messages.clone());
            let runner = Runner { source, targets, every, clock, out, wake };
            runner.start().map_err(|reason| StartError { source_name, reason })?;
            wakers.push(waker);
        }
        let wakers = Arc::new(wakers);
        let handle = Handle { readings, targets, messages: messages.clone(), wakers, changed, clock };
        Ok((Self { messages }, handle))
    }
}

impl Handle {
    /// What is known now.
    pub fn snapshot(&self) -> Arc<Readings> {
        self.readings.load_full()
    }

    /// Ticks whenever something was sampled.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// The fleet, from now on. Sources look at once.
    pub fn set_targets(&self, targets: Vec<Target>) {
        if **self.targets.load() == targets {
            return;
        }
        self.targets.store(Arc::new(targets));
        let _ = self.messages.send(Message::TargetsChanged);
        for waker in self.wakers.iter() {
            let _ = waker.send(());
        }
    }

    /// An instance's raw `/system_stats` answer, read just now.
    pub fn system_stats(&self, instance: &InstanceId, text: &str) {
        let device = system_stats::parse(text).map(Box::new);
        let stats = Message::Stats { instance: instance.clone(), at: self.clock.now().tick, device };
        let _ = self.messages.send(stats);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender};

    use super::*;
    use crate::clock::SystemClock;

    /// Answers with what the test hands it, and hangs until it does.
    struct Scripted(SourceKind, Receiver<Result<Sample, SourceError>>);

    impl Source for Scripted {
        fn kind(&self) -> SourceKind {
            self.0
        }

        fn sample(&mut self, _: &[Target]) -> Result<Sample, SourceError> {
            self.1.recv().expect("the test panics for this source")
        }
    }

    fn scripted(kind: SourceKind) -> (SyncSender<Result<Sample, SourceError>>, Box<dyn Source>) {
        let (script, answers) = mpsc::sync_channel(0);
        (script, Box::new(Scripted(kind, answers)))
    }

    fn start(sources: Vec<Box<dyn Source>>) -> (Service, Handle) {
        let config = Config { sample_ms: 20, ..Config::default() };
        let (service, handle) =
            Service::start_with(&config, Arc::new(SystemClock::default()), sources).expect("starts");
        let url = Url::new("127.0.0.1", 8188);
        handle.set_targets(vec![Target { instance: "gpu0".into(), index: 0, url, gpu: None }]);
        (service, handle)
    }

    fn sample(percent: f32) -> Sample {
        let device = Device { utilization_percent: Some(percent), ..Device::new("GPU-1", "x") };
        let uses = vec![Use { instance: "gpu0".into(), uuid: "GPU-1".into(), found: Found::Asked }];
        Sample { devices: vec![device], uses }
    }

    /// Waits until the reading of the only instance is as wanted.
    async fn until(handle: &Handle, wanted: impl Fn(&InstanceReading) -> bool) -> InstanceReading {
        let mut changed = handle.changed();
        loop {
            if let Some(reading) = handle.snapshot().instances.first().filter(|r| wanted(r)) {
                return reading.clone();
            }
            changed.changed().await.expect("is alive");
        }
    }

    #[tokio::test]
    async fn readings_follow_their_source() {
        let (script, source) = scripted(SourceKind::Nvml);
        let (_service, handle) = start(vec![source]);
        for percent in [10.0, 90.0] {
            script.send(Ok(sample(percent))).expect("is asked");
            let reading = until(&handle, |r| r.figures.utilization_percent == Some(percent)).await;
            assert_eq!((reading.gpu.as_deref(), reading.source), (Some("GPU-1"), Some(SourceKind::Nvml)));
        }
        assert_eq!(handle.snapshot().devices[0].device.utilization_percent, Some(90.0));
    }

    #[tokio::test]
    async fn a_source_that_hangs_delays_no_other() {
        let (_never, hangs) = scripted(SourceKind::Nvml);
        let (script, works) = scripted(SourceKind::Emulated);
        let (_service, handle) = start(vec![hangs, works]);
        for percent in [1.0, 2.0, 3.0] {
            script.send(Ok(sample(percent))).expect("is asked");
            until(&handle, |r| r.figures.utilization_percent == Some(percent)).await;
        }
        let stats = r#"{"devices":[{"type":"cuda","vram_total":2097152,"vram_free":1048576}]}"#;
        handle.system_stats(&"gpu0".into(), stats);
        let reading = until(&handle, |r| r.figures.vram_free_mib == Some(1)).await;
        assert_eq!(reading.figures.utilization_percent, Some(3.0));
    }

    #[tokio::test]
    async fn a_failed_sample_leaves_the_last_one_to_grow_old() {
        let (script, source) = scripted(SourceKind::Nvml);
        let (_service, handle) = start(vec![source]);
        script.send(Ok(sample(50.0))).expect("is asked");
        let before = until(&handle, |r| r.source.is_some()).await;
        script.send(Err(SourceError::Failed("driver is busy".into()))).expect("is asked");
        script.send(Err(SourceError::Failed("still".into()))).expect("is asked again");
        let after = handle.snapshot().instances[0].clone();
        assert_eq!((after.sampled, after.figures.utilization_percent), (before.sampled, Some(50.0)));
    }

    #[tokio::test]
    async fn a_source_that_turns_out_absent_takes_its_readings_along() {
        let (script, source) = scripted(SourceKind::Nvml);
        let (_service, handle) = start(vec![source]);
        script.send(Ok(sample(50.0))).expect("is asked");
        until(&handle, |r| r.source.is_some()).await;
        script.send(Err(SourceError::Absent("unloaded".into()))).expect("is asked");
        let reading = until(&handle, |r| r.source.is_none()).await;
        assert_eq!((reading.gpu, reading.figures), (None, Default::default()));
    }

    #[tokio::test]
    async fn a_source_that_panics_is_asked_again() {
        struct Shaky(bool);
        impl Source for Shaky {
            fn kind(&self) -> SourceKind {
                SourceKind::Nvml
            }
            fn sample(&mut self, _: &[Target]) -> Result<Sample, SourceError> {
                assert!(std::mem::replace(&mut self.0, true), "the first call panics");
                Ok(sample(5.0))
            }
        }
        let (_service, handle) = start(vec![Box::new(Shaky(false))]);
        until(&handle, |r| r.figures.utilization_percent == Some(5.0)).await;
    }

    #[tokio::test]
    async fn an_instance_that_leaves_the_fleet_leaves_the_readings() {
        let (_service, handle) = start(vec![]);
        handle.system_stats(&"gpu0".into(), r#"{"devices":[{"type":"cuda","vram_total":2097152}]}"#);
        until(&handle, |r| r.source.is_some()).await;
        let url = Url::new("127.0.0.1", 8189);
        handle.set_targets(vec![Target { instance: "gpu1".into(), index: 1, url, gpu: None }]);
        let reading = until(&handle, |r| &*r.instance.0 == "gpu1").await;
        assert_eq!(reading.source, None);
    }
}
