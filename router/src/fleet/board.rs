//! What is known of all instances, for readers that must never wait.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Foreign, InstanceInfo, State};
use crate::config;

#[derive(Debug)]
pub(super) struct Board {
    instances: ArcSwap<Vec<InstanceInfo>>,
    changes: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new(instances: &[config::Instance]) -> Self {
        let infos = (0..).zip(instances).map(|(index, instance)| unknown(index, instance)).collect();
        Self { instances: ArcSwap::from_pointee(infos), changes: watch::Sender::new(0) }
    }

    pub(super) fn instances(&self) -> Arc<Vec<InstanceInfo>> {
        self.instances.load_full()
    }

    /// The first that is up.
    pub(super) fn home(&self) -> Option<u32> {
        self.instances.load().iter().find(|info| info.is_up()).map(|info| info.index)
    }

    pub(super) fn get(&self, index: u32) -> Option<InstanceInfo> {
        self.instances.load().get(index as usize).cloned()
    }

    /// Changes one instance's entry. `change` may be called again, when another supervisor was faster.
    pub(super) fn update(&self, index: u32, change: impl Fn(&mut InstanceInfo)) -> Option<InstanceInfo> {
        self.instances.rcu(|old| {
            let mut new = Vec::clone(old);
            if let Some(info) = new.get_mut(index as usize) {
                change(info);
            }
            new
        });
        self.changes.send_modify(|count| *count += 1);
        self.get(index)
    }

    /// Ends when the catalogue has been read that this wish asked for.
    pub(super) async fn fulfilled(&self, index: u32, wish: u64) {
        let mut changes = self.changes.subscribe();
        let read = |_: &u64| self.instances.load().get(index as usize).is_some_and(|info| info.wish >= wish);
        // The sender lives in `self`.
        let _ = changes.wait_for(read).await;
    }

    pub(super) async fn looked(&self) {
        let mut changes = self.changes.subscribe();
        let all = |_: &u64| self.instances.load().iter().all(|info| info.state != State::Starting);
        // The sender lives in `self`.
        let _ = changes.wait_for(all).await;
    }
}

fn unknown(index: u32, instance: &config::Instance) -> InstanceInfo {
    InstanceInfo {
        id: instance.name.clone(),
        index,
        url: instance.url.clone(),
        labels: Arc::new(instance.labels.clone()),
        gpu: instance.gpu.clone(),
        slots: instance.slots,
        ahead: instance.ahead,
        supervised: instance.is_supervised(),
        state: State::Starting,
        epoch: 0,
        version: None,
        devices: Arc::default(),
        foreign: Foreign::default(),
        catalogue: Arc::default(),
        wish: 0,
        system_stats: bytes::Bytes::new(),
    }
}
