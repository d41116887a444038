//! What was read, and of whom.

use std::sync::Arc;

use serde::Serialize;

use crate::clock::Tick;
use crate::model::id::InstanceId;
use crate::model::view::GpuView;

const MIB: u64 = 1024 * 1024;

/// NVML's clocks event reasons that mean heat or hardware: hardware slowdown, software thermal, hardware thermal, power
/// brake. Idle (0x1), application clocks (0x2), the power cap (0x4) and sync boost (0x10) are ordinary operation.
const HELD_BACK: u64 = 0x08 | 0x20 | 0x40 | 0x80;

/// Who said it. In the order of trust: an instance is shown the first that has something to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// The emulator's own figures; only where configured.
    Emulated,
    /// The driver's library.
    Nvml,
    /// ComfyUI's `/system_stats`: memory alone.
    SystemStats,
}

impl SourceKind {
    pub const ALL: [Self; 3] = [Self::Emulated, Self::Nvml, Self::SystemStats];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Nvml => "nvml",
            Self::SystemStats => "system_stats",
        }
    }
}

/// One GPU. Any value may be unknown: a card answers some questions and not others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    pub uuid: Arc<str>,
    pub name: Arc<str>,
    /// The driver's index, in the order of the PCI bus.
    pub index: Option<u32>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub memory_free_bytes: Option<u64>,
    pub utilization_percent: Option<f32>,
    pub temperature_c: Option<f32>,
    pub slowdown_c: Option<f32>,
    pub power_mw: Option<u32>,
    pub power_limit_mw: Option<u32>,
    pub sm_clock_mhz: Option<u32>,
    /// NVML's clocks event reasons, a bit mask.
    pub throttle_reasons: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    pub mig: Option<bool>,
    pub processes: Vec<GpuProcess>,
    /// Why nothing more is known of it: `GPU is lost`.
    pub problem: Option<String>,
}

/// A process that holds memory of the GPU; inside a container the pid may be another namespace's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    pub pid: u32,
    pub used_bytes: Option<u64>,
}

impl Device {
    pub fn new(uuid: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            uuid: uuid.into(),
            name: name.into(),
            index: None,
            memory_total_bytes: None,
            memory_used_bytes: None,
            memory_free_bytes: None,
            utilization_percent: None,
            temperature_c: None,
            slowdown_c: None,
            power_mw: None,
            power_limit_mw: None,
            sm_clock_mhz: None,
            throttle_reasons: None,
            ecc_uncorrected: None,
            mig: None,
            processes: Vec::new(),
            problem: None,
        }
    }

    pub fn throttled(&self) -> Option<bool> {
        self.throttle_reasons.map(|reasons| reasons & HELD_BACK != 0)
    }

    /// As policies see it, without its age.
    pub fn view(&self) -> GpuView {
        let mib = |bytes: u64| u32::try_from(bytes / MIB).unwrap_or(u32::MAX);
        GpuView {
            vram_free_mib: self.memory_free_bytes.map(mib),
            vram_total_mib: self.memory_total_bytes.map(mib),
            utilization_percent: self.utilization_percent,
            temperature_c: self.temperature_c,
            slowdown_margin_c: self.slowdown_c.zip(self.temperature_c).map(|(limit, now)| limit - now),
            power_mw: self.power_mw,
            power_limit_mw: self.power_limit_mw,
            throttled: self.throttled(),
            reading_age_ms: None,
        }
    }
}

/// How the GPU of an instance was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The operator said so.
    Configured,
    /// The process that listens on the instance's port, or a child of it, holds memory of this GPU alone.
    Process,
    /// ComfyUI's `--cuda-device` or `--default-device`.
    CommandLine,
    /// `CUDA_VISIBLE_DEVICES` of that process; unset, it is the first GPU.
    Environment,
    /// The process is local and the machine has no other GPU.
    OnlyGpu,
    /// The source reads one instance at a time.
    Asked,
}

/// This instance computes on that GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    pub instance: InstanceId,
    pub uuid: Arc<str>,
    pub found: Found,
}

#[derive(Debug, Clone, Serialize)]
pub struct DeviceReading {
    #[serde(flatten)]
    pub device: Device,
    pub source: SourceKind,
    /// Monotonic milliseconds of this process.
    #[serde(skip)]
    pub sampled: Tick,
}

#[derive(Debug, Clone, Serialize)]
pub struct InstanceReading {
    pub instance: InstanceId,
    /// Position in the fleet.
    pub index: u32,
    /// None: no GPU of this machine is known to be its own.
    pub gpu: Option<Arc<str>>,
    pub found: Option<Found>,
    /// Where the figures are from; none: there are none.
    pub source: Option<SourceKind>,
    /// Without age: see [`InstanceReading::view`].
    pub figures: GpuView,
    #[serde(skip)]
    pub sampled: Tick,
    /// Why its GPU says nothing.
    pub problem: Option<String>,
}

impl InstanceReading {
    /// The figures with their age at `now`.
    pub fn view(&self, now: Tick) -> GpuView {
        let age = u32::try_from(now.since(self.sampled)).unwrap_or(u32::MAX);
        GpuView { reading_age_ms: self.source.map(|_| age), ..self.figures }
    }
}

/// Everything known at one moment. Shared and immutable.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Readings {
    /// By instance index, ascending.
    pub instances: Vec<InstanceReading>,
    pub devices: Vec<DeviceReading>,
}

impl Readings {
    pub fn of(&self, instance: &InstanceId) -> Option<&InstanceReading> {
        self.instances.iter().find(|reading| reading.instance == *instance)
    }

    /// Index, figures and sample time of every instance of which something is known.
    pub fn views(&self) -> Vec<(usize, GpuView, Tick)> {
        let known = self.instances.iter().filter(|reading| reading.source.is_some());
        known.map(|reading| (reading.index as usize, reading.figures, reading.sampled)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_heat_and_hardware_count_as_throttled() {
        let throttled =
            |reasons| Device { throttle_reasons: reasons, ..Device::new("GPU-1", "x") }.throttled();
        assert_eq!(throttled(None), None);
        for ordinary in [0x0, 0x1, 0x2, 0x4, 0x10, 0x100, 0x17] {
            assert_eq!(throttled(Some(ordinary)), Some(false), "{ordinary:#x}");
        }
        for held_back in [0x8, 0x20, 0x40, 0x80, 0x44] {
            assert_eq!(throttled(Some(held_back)), Some(true), "{held_back:#x}");
        }
    }

    #[test]
    fn a_view_is_in_mib_and_degrees_from_slowdown() {
        let device = Device {
            memory_total_bytes: Some(150_754_820_096),
            memory_free_bytes: Some(u64::MAX),
            temperature_c: Some(90.0),
            slowdown_c: Some(89.0),
            ..Device::new("GPU-1", "x")
        };
        let view = device.view();
        assert_eq!((view.vram_total_mib, view.vram_free_mib), (Some(143_771), Some(u32::MAX)));
        assert_eq!(view.slowdown_margin_c, Some(-1.0));
        assert_eq!(Device { slowdown_c: None, ..device }.view().slowdown_margin_c, None);
    }
}
