//! What a test steers: gate, faults, GPU readings, and the oracle it compares with. The same over HTTP under
//! `/emulator/...` for tests of a separate process.

pub(crate) mod fault;
pub(crate) mod gate;
pub(crate) mod oracle;

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    host::gpu::{GpuOverrides, GpuReadings},
    life::Machine,
};
use fault::Fault;
use gate::{Each, GateReport};
use oracle::Execution;

/// Whom a custom node addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Everybody,
    Owner,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// A handle on one emulated instance; stays good across its crashes and restarts.
#[derive(Debug, Clone)]
pub struct Control {
    machine: Arc<Machine>,
}

impl Control {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    /// From now on executions stop at every such point.
    pub fn hold(&self, each: Each) {
        self.machine.gate.hold(each);
    }

    /// Lets `count` points pass, now or when they come.
    pub fn release(&self, count: u64) {
        self.machine.gate.release(count);
    }

    /// Ends the hold.
    pub fn open(&self) {
        self.machine.gate.open();
    }

    pub fn gate(&self) -> GateReport {
        self.machine.gate.report()
    }

    /// Resolves when `count` executions are held; one instance holds one at a time.
    ///
    /// # Panics
    /// Like every wait here, after a minute: a test that waits in vain should say so.
    pub async fn wait_held(&self, count: u64) {
        let waited = timeout(PATIENCE, self.machine.gate.wait_held(count)).await;
        assert!(waited.is_ok(), "{count} held executions did not come: {:?}", self.gate());
    }

    pub fn inject(&self, fault: Fault) {
        self.machine.inject(fault);
    }

    /// Forgets the faults that wait for their moment.
    pub fn disarm(&self) {
        self.machine.faults.disarm();
    }

    /// Every execution ever started, in order.
    pub fn executions(&self) -> Vec<Execution> {
        self.machine.oracle.executions()
    }

    /// Resolves with the executions once `until` accepts them.
    ///
    /// # Panics
    /// After a minute.
    pub async fn wait_executions(&self, until: impl FnMut(&[Execution]) -> bool) -> Vec<Execution> {
        let waited = timeout(PATIENCE, self.machine.oracle.wait(until)).await;
        waited.unwrap_or_else(|_| panic!("executions did not come, there are {:?}", self.executions()))
    }

    pub async fn wait_started(&self, count: usize) -> Vec<Execution> {
        self.wait_executions(|all| all.len() >= count).await
    }

    pub async fn wait_ended(&self, count: usize) -> Vec<Execution> {
        self.wait_executions(|all| {
            all.iter().filter(|execution| execution.outcome.is_some()).count() >= count
        })
        .await
    }

    /// `None` for a CPU instance.
    pub fn gpu(&self) -> Option<GpuReadings> {
        self.machine.gpu.as_ref().map(|gpu| gpu.readings())
    }

    pub fn override_gpu(&self, overrides: GpuOverrides) {
        if let Some(gpu) = &self.machine.gpu {
            gpu.set_overrides(overrides);
        }
    }

    /// Opens the gate, forgets faults, overrides and the executions in memory.
    pub fn reset(&self) {
        self.machine.reset();
    }

    /// Every request to `/free`, to `/custom/note/...` and to ComfyUI-Manager's paths, as `METHOD path length-of-body`.
    pub fn visits(&self) -> Vec<String> {
        self.machine.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where its `input`, `output`, `temp` and `user` lie.
    pub fn dir(&self) -> &Path {
        self.machine.dirs.root()
    }

    /// Frames that were sent to the open websocket of this sid: a test which has read so many has read all.
    pub fn frames_sent(&self, sid: &str) -> u64 {
        self.machine.life().map_or(0, |life| life.hub.frames(sid))
    }

    /// What a custom node says: to everybody, or to the client of the job that runs.
    pub fn say(&self, to: Audience, event: &str, data: &Value) {
        if let Some(life) = self.machine.life() {
            life.hub.send(self.sid(to).as_deref(), event, data);
        }
    }

    /// The same as a binary message; `bytes` begin with its type.
    pub fn say_bytes(&self, to: Audience, bytes: Vec<u8>) {
        if let Some(life) = self.machine.life() {
            life.hub.send_binary(self.sid(to).as_deref(), bytes);
        }
    }

    /// A line of the log, to the sockets that subscribed.
    pub fn log(&self, line: &str) {
        let data = json!({ "entries": [{ "t": "2026-01-01T00:00:00", "m": line }], "size": null });
        if let Some(life) = self.machine.life() {
            life.hub.log(&data);
        }
    }

    fn sid(&self, to: Audience) -> Option<String> {
        let owner = || self.machine.life().and_then(|life| life.hub.owner());
        match to {
            Audience::Everybody => None,
            Audience::Owner => Some(owner().expect("a job with a client runs")),
        }
    }

    /// Websockets that this process ever had.
    pub fn connections(&self) -> u64 {
        self.machine.life().map_or(0, |life| life.hub.joined())
    }

    /// Sids of the open websockets.
    pub fn sockets(&self) -> Vec<String> {
        self.machine.life().map(|life| life.hub.sids()).unwrap_or_default()
    }
}
