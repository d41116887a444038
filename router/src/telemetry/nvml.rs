//! First source: NVIDIA's driver library. Absent, it costs one warning. Any single question may go unanswered.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use super::Target;
use super::placement::{self, Finder};
use super::reading::{Device, GpuProcess, SourceKind, Use};
use super::source::{Sample, Source, SourceError};

/// Many systems have only the first; the last is where Windows keeps it for its Linux guests.
const NAMES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];
/// Processes listed of one GPU.
const MAX_PROCESSES: usize = 1024;

#[derive(Debug, Default)]
pub struct Nvml {
    driver: Option<Library>,
    finder: Finder,
    /// By index, so that a card that is lost can still be named.
    known: HashMap<u32, (Arc<str>, Arc<str>)>,
}

impl Source for Nvml {
    fn kind(&self) -> SourceKind {
        SourceKind::Nvml
    }

    fn sample(&mut self, targets: &[Target]) -> Result<Sample, SourceError> {
        let library = match self.driver.take() {
            Some(library) => library,
            None => load(&NAMES)?,
        };
        let count = library.device_count().map_err(|e| SourceError::Failed(e.to_string()))?;
        if count == 0 {
            return Err(SourceError::Absent("the NVIDIA driver lists no GPU".into()));
        }
        let devices: Vec<Device> = (0..count).filter_map(|index| self.device(&library, index)).collect();
        // Kept only while it answers: after an error it is loaded anew.
        self.driver = Some(library);
        let uses = self.uses(targets, &devices);
        Ok(Sample { devices, uses })
    }
}

impl Nvml {
    fn device(&mut self, library: &Library, index: u32) -> Option<Device> {
        let read = library.device_by_index(index).and_then(|card| read(&card, index));
        match read {
            Ok(device) => {
                self.known.insert(index, (device.uuid.clone(), device.name.clone()));
                Some(device)
            }
            Err(error) => {
                let (uuid, name) = self.known.get(&index)?.clone();
                let problem = Some(error.to_string());
                Some(Device { index: Some(index), problem, ..Device::new(uuid, name) })
            }
        }
    }

    fn uses(&mut self, targets: &[Target], devices: &[Device]) -> Vec<Use> {
        let processes = self.finder.find(targets);
        let found = targets.iter().filter_map(|target| {
            let process = processes.get(&target.instance);
            let (uuid, found) = placement::resolve(target.gpu.as_ref(), process, devices)?;
            Some(Use { instance: target.instance.clone(), uuid, found })
        });
        found.collect()
    }
}

fn load(names: &[&str]) -> Result<Library, SourceError> {
    let mut reason = String::new();
    for name in names {
        match Library::builder().lib_path(OsStr::new(name)).init() {
            Ok(library) => return Ok(library),
            // A library that is there and does not start says more than the next one that is missing.
            Err(error) if reason.is_empty() || !matches!(error, NvmlError::LibloadingError(_)) => {
                reason = error.to_string();
            }
            Err(_) => {}
        }
    }
    Err(SourceError::Absent(format!("no NVIDIA GPU can be read: {reason}")))
}

type Card<'a> = nvml_wrapper::Device<'a>;

fn read(card: &Card<'_>, index: u32) -> Result<Device, NvmlError> {
    let uuid = card.uuid()?;
    let memory = match card.memory_info() {
        Err(error @ NvmlError::GpuLost) => return Err(error),
        answer => answer.ok(),
    };
    let utilization = card.utilization_rates().ok();
    Ok(Device {
        index: Some(index),
        memory_total_bytes: memory.as_ref().map(|m| m.total),
        memory_used_bytes: memory.as_ref().map(|m| m.used),
        memory_free_bytes: memory.as_ref().map(|m| m.free),
        utilization_percent: utilization.map(|u| u.gpu.min(100) as f32),
        temperature_c: card.temperature(TemperatureSensor::Gpu).ok().map(|c| c as f32),
        slowdown_c: card.temperature_threshold(TemperatureThreshold::Slowdown).ok().map(|c| c as f32),
        power_mw: card.power_usage().ok(),
        power_limit_mw: card.enforced_power_limit().ok(),
        sm_clock_mhz: card.clock_info(Clock::SM).ok(),
        throttle_reasons: card.current_throttle_reasons().ok().map(|reasons| reasons.bits()),
        ecc_uncorrected: card.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        mig: card.mig_mode().ok().map(|mode| mode.current == 1),
        processes: processes(card),
        ..Device::new(uuid, card.name().unwrap_or_default())
    })
}

/// ComfyUI computes; some cards list processes that also draw in the other list only.
fn processes(card: &Card<'_>) -> Vec<GpuProcess> {
    let computing = card.running_compute_processes().unwrap_or_default();
    let drawing = card.running_graphics_processes().unwrap_or_default();
    let mut processes: Vec<GpuProcess> = Vec::new();
    for process in computing.into_iter().chain(drawing).take(MAX_PROCESSES) {
        let used_bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        if processes.iter().all(|known| known.pid != process.pid) {
            processes.push(GpuProcess { pid: process.pid, used_bytes });
        }
    }
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_absent_and_named() {
        let error =
            load(&["libnvidia-ml-of-nobody.so.1", "libnvidia-ml-of-nobody.so"]).expect_err("is absent");
        let SourceError::Absent(reason) = error else { panic!("{error:?}") };
        assert!(reason.contains("libnvidia-ml-of-nobody.so.1"), "{reason}");
    }

    #[test]
    fn a_library_that_is_something_else_is_absent_too() {
        // Every program on Linux has the C library; it knows nothing of GPUs.
        let error = load(&["libc.so.6"]).expect_err("is no driver library");
        assert!(matches!(error, SourceError::Absent(_)), "{error:?}");
    }
}
