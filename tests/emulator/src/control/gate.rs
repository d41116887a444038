//! The gate: executions stop at it until a test lets them go. In place of sleeps.

use std::future::Future;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Where executions stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Each {
    /// Once an execution: at its first node, after `executing` was sent and before the node runs.
    #[default]
    Execution,
    /// At every node that is not cached, after its `executing`.
    Node,
    /// Before every sampler step.
    Step,
    /// Inside every node that is not cached: it is running, and as in a real node without a progress bar an
    /// interrupt is noticed only after it.
    Inside,
}

/// The state of the gate. `held` executions wait at it now; `tickets` will pass without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GateReport {
    pub holding: bool,
    pub each: Each,
    pub held: u64,
    pub tickets: u64,
}

#[derive(Debug)]
pub(crate) struct Gate(watch::Sender<GateReport>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(GateReport::default()))
    }

    pub(crate) fn hold(&self, each: Each) {
        self.0.send_modify(|gate| {
            gate.holding = true;
            gate.each = each;
        });
    }

    pub(crate) fn release(&self, count: u64) {
        self.0.send_modify(|gate| gate.tickets += count);
    }

    /// Ends the hold and forgets unused tickets.
    pub(crate) fn open(&self) {
        self.0.send_modify(|gate| {
            gate.holding = false;
            gate.tickets = 0;
        });
    }

    pub(crate) fn report(&self) -> GateReport {
        *self.0.borrow()
    }

    pub(crate) async fn wait_held(&self, count: u64) {
        let _ = self.0.subscribe().wait_for(|gate| gate.held >= count).await;
    }

    /// Returns when the gate lets this point pass, or when `interrupted` resolves.
    pub(crate) async fn pass(&self, point: Each, interrupted: impl Future<Output = ()>) {
        let stops = |gate: &GateReport| gate.holding && gate.each == point;
        if !stops(&self.report()) || self.take_ticket() {
            return;
        }
        let _held = Held::new(self);
        let mut changes = self.0.subscribe();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                () = &mut interrupted => return,
                _ = changes.wait_for(|gate| !stops(gate) || gate.tickets > 0) => {}
            }
            if !stops(&self.report()) || self.take_ticket() {
                return;
            }
        }
    }

    fn take_ticket(&self) -> bool {
        self.0.send_if_modified(|gate| {
            let has = gate.tickets > 0;
            gate.tickets -= u64::from(has);
            has
        })
    }
}

/// Counts an execution as held, also when its task is aborted.
struct Held<'a>(&'a Gate);

impl<'a> Held<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.0.send_modify(|gate| gate.held += 1);
        Self(gate)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|gate| gate.held -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;
    use crate::tasks;

    #[tokio::test]
    async fn a_ticket_lets_one_pass() {
        let gate = Arc::new(Gate::new());
        gate.hold(Each::Node);
        let waiter = Arc::clone(&gate);
        let task = tasks::spawn(async move {
            waiter.pass(Each::Execution, pending()).await;
            waiter.pass(Each::Node, pending()).await;
            waiter.pass(Each::Node, pending()).await;
        });
        gate.wait_held(1).await;
        gate.release(2);
        task.await.expect("passes");
        assert_eq!((gate.report().held, gate.report().tickets), (0, 0));
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_wait() {
        let gate = Gate::new();
        gate.hold(Each::Execution);
        gate.pass(Each::Execution, std::future::ready(())).await;
        assert_eq!(gate.report().held, 0);
    }
}
