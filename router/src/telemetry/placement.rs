//! Which GPU an instance computes on: as configured, else from the process that listens on its port. What is not
//! certain is unknown: a policy that sees no figures does better than one that sees another card's.

#[cfg(target_os = "linux")]
mod process;

use std::sync::Arc;

use super::reading::{Device, Found};
use crate::config::Gpu;

#[cfg(target_os = "linux")]
pub(super) use process::Finder;

/// Elsewhere the process cannot be found, and the GPU must be configured.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
pub(super) struct Finder;

#[cfg(not(target_os = "linux"))]
impl Finder {
    pub(super) fn find(
        &mut self,
        _: &[super::Target],
    ) -> std::collections::HashMap<crate::model::id::InstanceId, Process> {
        Default::default()
    }
}

/// What can be learned of the process that listens on an instance's port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Process {
    /// It and its descendants, as NVML may list any of them.
    pub(super) family: Vec<u32>,
    pub(super) args: Vec<String>,
    /// None: it may not be read.
    pub(super) environment: Option<Environment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Environment {
    /// `CUDA_VISIBLE_DEVICES`; none: not set, which is all of them.
    pub(super) visible: Option<String>,
    /// `CUDA_DEVICE_ORDER=PCI_BUS_ID`: CUDA's indices are the driver's. Otherwise the fastest card is 0.
    pub(super) bus_order: bool,
}

/// What CUDA's device 0 is, according to arguments and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum First {
    /// The program sees no GPU.
    Hidden,
    /// Named by UUID, or by an index that can only mean this one.
    Gpu {
        uuid: Arc<str>,
        by_uuid: bool,
        found: Found,
    },
    Unclear,
}

pub(super) fn resolve(
    configured: Option<&Gpu>,
    process: Option<&Process>,
    devices: &[Device],
) -> Option<(Arc<str>, Found)> {
    if let Some(gpu) = configured {
        let device = match gpu {
            Gpu::Index(index) => by_index(devices, *index),
            Gpu::Uuid(uuid) => by_uuid(devices, uuid),
        };
        return device.map(|device| (device.uuid.clone(), Found::Configured));
    }
    let process = process?;
    let holders = holders(process, devices);
    match (first(process, devices), holders.as_slice()) {
        (First::Hidden, _) => None,
        // It holds memory of one card alone, so an index was counted in another order than assumed.
        (First::Gpu { uuid, by_uuid: false, .. }, [only]) if *uuid != *only.uuid => {
            Some((only.uuid.clone(), Found::Process))
        }
        (First::Gpu { uuid, found, .. }, _) => Some((uuid, found)),
        (First::Unclear, []) => match devices {
            [only] => Some((only.uuid.clone(), Found::OnlyGpu)),
            _ => None,
        },
        (First::Unclear, [most, ..]) => Some((most.uuid.clone(), Found::Process)),
    }
}

/// Devices of which the process or a child holds memory; the one that it holds most of comes first.
fn holders<'a>(process: &Process, devices: &'a [Device]) -> Vec<&'a Device> {
    let held = |device: &Device| {
        let own = device.processes.iter().filter(|p| process.family.contains(&p.pid));
        own.map(|p| p.used_bytes.unwrap_or(0)).reduce(u64::saturating_add)
    };
    let mut holders: Vec<(u64, &Device)> = devices.iter().filter_map(|d| Some((held(d)?, d))).collect();
    holders.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    holders.into_iter().map(|(_, device)| device).collect()
}

/// ComfyUI turns its own arguments into `CUDA_VISIBLE_DEVICES`, so they win over the environment it was started with.
fn first(process: &Process, devices: &[Device]) -> First {
    if process.args.iter().any(|arg| arg == "--cpu") {
        return First::Hidden;
    }
    let bus_order = process.environment.as_ref().is_some_and(|e| e.bus_order);
    for option in ["--cuda-device", "--default-device"] {
        if let Some(index) = argument(&process.args, option) {
            return visible(&index, bus_order, devices, Found::CommandLine);
        }
    }
    match &process.environment {
        None => First::Unclear,
        Some(Environment { visible: Some(list), .. }) => {
            visible(list, bus_order, devices, Found::Environment)
        }
        Some(Environment { visible: None, .. }) if devices.len() == 1 => First::Unclear,
        Some(Environment { visible: None, .. }) => visible("0", bus_order, devices, Found::Environment),
    }
}

/// `--option value` or `--option=value`; the last one counts.
fn argument(args: &[String], option: &str) -> Option<String> {
    args.iter().enumerate().rev().find_map(|(at, arg)| {
        let rest = arg.strip_prefix(option)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => args.get(at + 1).cloned(),
            None => None,
        }
    })
}

/// The first entry of a `CUDA_VISIBLE_DEVICES` list. CUDA ends the list at the first entry that names no device.
fn visible(list: &str, bus_order: bool, devices: &[Device], found: Found) -> First {
    let entry = list.split(',').next().unwrap_or_default().trim();
    if entry.starts_with("MIG-") {
        return First::Unclear;
    }
    if entry.starts_with("GPU-") {
        return by_uuid(devices, entry).map_or(First::Unclear, |device| First::Gpu {
            uuid: device.uuid.clone(),
            by_uuid: true,
            found,
        });
    }
    let Ok(index) = entry.parse::<u32>() else {
        return First::Hidden;
    };
    let alike = devices.windows(2).all(|pair| pair[0].name == pair[1].name);
    match by_index(devices, index) {
        None => First::Hidden,
        Some(device) if bus_order || alike => First::Gpu { uuid: device.uuid.clone(), by_uuid: false, found },
        Some(_) => First::Unclear,
    }
}

fn by_index(devices: &[Device], index: u32) -> Option<&Device> {
    devices.iter().find(|device| device.index == Some(index))
}

/// CUDA takes the beginning of a UUID, as long as it fits one device only.
fn by_uuid<'a>(devices: &'a [Device], start: &str) -> Option<&'a Device> {
    let mut fitting = devices.iter().filter(|device| device.uuid.starts_with(start));
    let device = fitting.next()?;
    fitting.next().is_none().then_some(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::reading::GpuProcess;

    /// Cards 0, 1, ... of one make, UUIDs `GPU-a0`, `GPU-b1`, ...
    fn cards(count: u32) -> Vec<Device> {
        let card = |index: u32| {
            let letter = char::from(b'a' + index as u8);
            Device { index: Some(index), ..Device::new(format!("GPU-{letter}{index}"), "H200") }
        };
        (0..count).map(card).collect()
    }

    fn held_by(mut devices: Vec<Device>, card: usize, pid: u32, bytes: u64) -> Vec<Device> {
        devices[card].processes.push(GpuProcess { pid, used_bytes: Some(bytes) });
        devices
    }

    fn process(args: &[&str], visible: Option<&str>) -> Process {
        let environment = Environment { visible: visible.map(Into::into), bus_order: false };
        Process {
            family: vec![7, 8],
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            environment: Some(environment),
        }
    }

    fn found(process: &Process, devices: &[Device]) -> Option<(String, Found)> {
        resolve(None, Some(process), devices).map(|(uuid, found)| (uuid.to_string(), found))
    }

    fn by_environment(visible: &str, devices: &[Device]) -> Option<String> {
        found(&process(&[], Some(visible)), devices).map(|(uuid, found)| {
            assert_eq!(found, Found::Environment);
            uuid
        })
    }

    #[test]
    fn what_is_configured_wins() {
        let devices = held_by(cards(2), 0, 7, 1);
        let process = process(&[], Some("0"));
        let gpu = |gpu| {
            resolve(Some(&gpu), Some(&process), &devices).map(|(uuid, found)| (uuid.to_string(), found))
        };
        assert_eq!(gpu(Gpu::Index(1)), Some(("GPU-b1".into(), Found::Configured)));
        assert_eq!(gpu(Gpu::Uuid("GPU-b1".into())), Some(("GPU-b1".into(), Found::Configured)));
        assert_eq!(gpu(Gpu::Index(9)), None);
        assert_eq!(gpu(Gpu::Uuid("GPU-z".into())), None);
    }

    #[test]
    fn every_form_of_cuda_visible_devices() {
        let devices = cards(3);
        for (list, card) in [
            ("0", Some("GPU-a0")),
            ("2,0,1", Some("GPU-c2")),
            (" 1 , 0", Some("GPU-b1")),
            ("GPU-b1", Some("GPU-b1")),
            ("GPU-b,GPU-a", Some("GPU-b1")),
            // Fits all of them, or none: CUDA sees nothing, and neither is it worth a guess.
            ("GPU-", None),
            ("GPU-zz", None),
            ("", None),
            ("-1", None),
            ("-1,0", None),
            ("none", None),
            ("3", None),
            ("4294967296", None),
            ("MIG-0a1b", None),
        ] {
            assert_eq!(by_environment(list, &devices).as_deref(), card, "CUDA_VISIBLE_DEVICES={list:?}");
        }
    }

    #[test]
    fn comfyui_arguments_win_over_the_environment() {
        let devices = cards(3);
        for (args, card) in [
            (vec!["main.py", "--cuda-device", "1"], Some("GPU-b1")),
            (vec!["main.py", "--cuda-device=2"], Some("GPU-c2")),
            (vec!["--default-device", "2"], Some("GPU-c2")),
            (vec!["--default-device", "2", "--cuda-device", "1"], Some("GPU-b1")),
            (vec!["--cuda-device", "0", "--cuda-device", "1"], Some("GPU-b1")),
            (vec!["--cuda-device"], Some("GPU-a0")),
            (vec!["--cuda-device", "1", "--cpu"], None),
        ] {
            let card = card.map(str::to_owned);
            assert_eq!(found(&process(&args, Some("0")), &devices).map(|f| f.0), card, "{args:?}");
        }
    }

    #[test]
    fn unset_means_the_first_card() {
        assert_eq!(found(&process(&[], None), &cards(2)), Some(("GPU-a0".into(), Found::Environment)));
        assert_eq!(found(&process(&[], None), &cards(1)), Some(("GPU-a0".into(), Found::OnlyGpu)));
        assert_eq!(found(&process(&[], None), &[]), None);
    }

    #[test]
    fn among_unlike_cards_an_index_is_no_evidence() {
        let mut devices = cards(2);
        devices[1].name = "RTX 3060".into();
        assert_eq!(by_environment("1", &devices), None);
        assert_eq!(by_environment("GPU-b", &devices).as_deref(), Some("GPU-b1"));
        let mut by_bus = process(&[], Some("1"));
        by_bus.environment = Some(Environment { visible: Some("1".into()), bus_order: true });
        assert_eq!(found(&by_bus, &devices), Some(("GPU-b1".into(), Found::Environment)));
        let devices = held_by(devices, 0, 8, 5);
        assert_eq!(found(&process(&[], Some("1")), &devices), Some(("GPU-a0".into(), Found::Process)));
    }

    #[test]
    fn held_memory_settles_what_the_environment_leaves_open() {
        let unreadable = Process { environment: None, ..process(&[], None) };
        assert_eq!(found(&unreadable, &cards(2)), None);
        let one = held_by(cards(2), 1, 8, 5);
        assert_eq!(found(&unreadable, &one), Some(("GPU-b1".into(), Found::Process)));
        let both = held_by(one, 0, 7, 50);
        assert_eq!(found(&unreadable, &both), Some(("GPU-a0".into(), Found::Process)));
        let foreign = held_by(cards(2), 1, 99, 5);
        assert_eq!(found(&unreadable, &foreign), None);
    }

    #[test]
    fn a_uuid_is_believed_over_a_pid_of_some_other_namespace() {
        let devices = held_by(cards(2), 0, 7, 5);
        assert_eq!(
            found(&process(&[], Some("GPU-b1")), &devices),
            Some(("GPU-b1".into(), Found::Environment))
        );
        assert_eq!(found(&process(&[], Some("1")), &devices), Some(("GPU-a0".into(), Found::Process)));
        assert_eq!(found(&process(&[], Some("")), &devices), None);
    }
}
