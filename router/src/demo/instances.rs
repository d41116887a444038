//! The emulated fleet: four ComfyUI servers of two releases, two on each of two cards, with different models.

use std::io;
use std::sync::Arc;

use comfyui_emulator::{
    Config, Control, Emulator, Execution, Flavour, GpuReadings, GpuSpec, Host, Models, Timing,
};

use super::workload::{CHECKPOINTS, LORAS};
use crate::config::{Instance, Url};
use crate::model::id::InstanceId;

/// Modelled seconds that pass in one real second: the load of some five minutes fits into one.
const SPEED: f64 = 5.5;
const PAGE_CACHE_MIB: u64 = 64 << 10;

/// Name, card, release, and the checkpoint it lacks.
const INSTANCES: [(&str, u32, Flavour, &str); 4] = [
    ("gpu0-a", 0, Flavour::V0_8_0, ""),
    ("gpu0-b", 0, Flavour::V0_3_64, "pony"),
    ("gpu1-a", 1, Flavour::V0_8_0, "dreamlike"),
    ("gpu1-b", 1, Flavour::V0_3_64, "juggernaut"),
];

/// Index of the card that an instance of this name computes on.
pub(super) fn card_of(instance: &InstanceId) -> Option<u32> {
    INSTANCES.iter().find(|(name, ..)| *name == instance.as_str()).map(|(_, card, ..)| *card)
}

/// Running emulators, by instance index. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Instances(Vec<(&'static str, Emulator)>);

impl Instances {
    /// Each on a free port.
    pub(super) async fn start() -> io::Result<Self> {
        let host = Host::new(PAGE_CACHE_MIB);
        let mut running = Vec::new();
        for (seed, (name, card, flavour, lacks)) in (0..).zip(INSTANCES) {
            let config = Config {
                flavour,
                timing: Timing::Realistic { speed: SPEED },
                gpu: Some(GpuSpec { name: format!("emulated GPU {card}"), ..GpuSpec::new(card) }),
                models: models(lacks),
                host: Some(Arc::clone(&host)),
                seed,
                ..Config::default()
            };
            running.push((name, Emulator::start(config).await?));
        }
        Ok(Self(running))
    }

    /// As the router's configuration names them.
    pub(super) fn configured(&self) -> Vec<Instance> {
        let instance = |(name, emulator): &(&'static str, Emulator)| Instance {
            name: InstanceId::from(*name),
            ..Instance::at(Url::new("127.0.0.1", emulator.addr().port()))
        };
        self.0.iter().map(instance).collect()
    }

    /// What each instance says it executed.
    pub(super) fn executions(&self) -> Vec<(&'static str, Vec<Execution>)> {
        self.0.iter().map(|(name, emulator)| (*name, emulator.control().executions())).collect()
    }

    /// Each card once, in the order of their indices.
    pub(super) fn cards(&self) -> Vec<GpuReadings> {
        let controls = self.0.iter().map(|(_, emulator)| emulator.control());
        let mut cards: Vec<GpuReadings> = controls.filter_map(|control: Control| control.gpu()).collect();
        cards.sort_by_key(|card| card.index);
        cards.dedup_by_key(|card| card.index);
        cards
    }

    pub(super) async fn stop(self) {
        for (_, emulator) in self.0 {
            emulator.stop().await;
        }
    }
}

/// All checkpoints but one, and the LoRAs. A card holds three of the larger ones, for both its instances.
fn models(lacks: &str) -> Models {
    let file = |name: &str| format!("{name}.safetensors");
    let size = |name: &str| if name == "sd15" { 4_200 } else { 6_600 };
    let checkpoints = CHECKPOINTS.iter().filter(|name| **name != lacks);
    let models =
        checkpoints.fold(Models::none(), |all, name| all.with("checkpoints", &file(name), size(name)));
    LORAS.iter().fold(models, |all, name| all.with("loras", &file(name), 200))
}
