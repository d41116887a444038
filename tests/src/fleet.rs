//! Emulated instances inside the test's own process, of both releases by turns.

use comfyui_emulator::{Config, Control, Each, Emulator, Execution, Flavour};

use crate::within;

/// Emulators named `i0`, `i1`, ...
#[derive(Debug)]
pub struct Fleet(Vec<Emulator>);

impl Fleet {
    /// `count` instances: even ones are 0.8.0, odd ones 0.3.64.
    pub async fn of(count: usize) -> Self {
        Self::with((0..count).map(|_| Config::default())).await
    }

    /// Instances as configured, but for the release, which alternates.
    pub async fn with(configs: impl IntoIterator<Item = Config>) -> Self {
        let mut emulators = Vec::new();
        for (at, config) in configs.into_iter().enumerate() {
            let flavour = if at % 2 == 0 { Flavour::V0_8_0 } else { Flavour::V0_3_64 };
            let emulator = Emulator::start(Config { flavour, ..config }).await;
            emulators.push(emulator.expect("an emulator starts"));
        }
        Self(emulators)
    }

    /// `name=url` of each, as `--instance` takes it.
    pub fn instances(&self) -> Vec<String> {
        self.0.iter().enumerate().map(|(at, emulator)| format!("i{at}={}", emulator.url())).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn control(&self, at: usize) -> Control {
        self.0[at].control()
    }

    pub fn controls(&self) -> impl Iterator<Item = Control> {
        self.0.iter().map(Emulator::control)
    }

    pub fn url(&self, at: usize) -> String {
        self.0[at].url()
    }

    pub async fn crash(&mut self, at: usize) {
        self.0[at].crash().await;
    }

    /// A new life on the same port with nothing in its queue.
    pub async fn restart(&mut self, at: usize) {
        self.0[at].restart().await;
    }

    /// From now on every execution stops at its first node.
    pub fn hold(&self) {
        self.controls().for_each(|control| control.hold(Each::Execution));
    }

    pub fn open(&self) {
        self.controls().for_each(|control| control.open());
    }

    /// Waits until an execution is held on this instance.
    pub async fn held(&self, at: usize) {
        within(&format!("an execution on i{at}"), self.control(at).wait_held(1)).await;
    }

    /// Waits until an execution is held on any instance; says on which.
    pub async fn held_anywhere(&self) -> usize {
        let waits = self.controls().map(|control| Box::pin(async move { control.wait_held(1).await }));
        let (_, at, _) =
            within("an execution on any instance", futures_util::future::select_all(waits)).await;
        at
    }

    /// Every execution ever started, instance by instance.
    pub fn executions(&self) -> Vec<Vec<Execution>> {
        self.controls().map(|control| control.executions()).collect()
    }

    /// How many executions were started, everywhere.
    pub fn started(&self) -> usize {
        self.executions().iter().map(Vec::len).sum()
    }
}
