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
pub(crate) struct Gate(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    report: GateReport,
    /// Released, but not awake yet; no longer counted as held.
    granted: u64,
}

impl State {
    fn stops(&self, point: Each) -> bool {
        self.report.holding && self.report.each == point
    }

    fn grant(&mut self, count: u64) {
        self.report.held -= count;
        self.granted += count;
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    pub(crate) fn hold(&self, each: Each) {
        self.0.send_modify(|state| {
            state.report.holding = true;
            state.report.each = each;
        });
    }

    /// Those who wait go first; what is left becomes tickets.
    pub(crate) fn release(&self, count: u64) {
        self.0.send_modify(|state| {
            let now = count.min(state.report.held);
            state.grant(now);
            state.report.tickets += count - now;
        });
    }

    /// Ends the hold and forgets unused tickets.
    pub(crate) fn open(&self) {
        self.0.send_modify(|state| {
            state.grant(state.report.held);
            state.report.holding = false;
            state.report.tickets = 0;
        });
    }

    pub(crate) fn report(&self) -> GateReport {
        self.0.borrow().report
    }

    pub(crate) async fn wait_held(&self, count: u64) {
        let _ = self.0.subscribe().wait_for(|state| state.report.held >= count).await;
    }

    /// Returns when the gate lets this point pass, or when `interrupted` resolves. The one worker of the instance
    /// is the only caller, so there is one waiter at most.
    pub(crate) async fn pass(&self, point: Each, interrupted: impl Future<Output = ()>) {
        let Some(_waiting) = self.arrive(point) else { return };
        let mut changes = self.0.subscribe();
        // The borrow that `wait_for` gives must end before the waiter uncounts itself.
        let granted = async {
            let _ = changes.wait_for(|state| state.granted > 0 || !state.stops(point)).await;
        };
        tokio::select! {
            () = interrupted => {}
            () = granted => {}
        }
    }

    /// `None` when nothing stops here.
    fn arrive(&self, point: Each) -> Option<Waiting<'_>> {
        let mut waits = false;
        self.0.send_if_modified(|state| {
            let stops = state.stops(point);
            let ticket = stops && state.report.tickets > 0;
            waits = stops && !ticket;
            state.report.tickets -= u64::from(ticket);
            state.report.held += u64::from(waits);
            stops
        });
        waits.then(|| Waiting(self))
    }
}

/// The waiter; uncounts itself also when its task is aborted.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| match state.granted {
            0 => state.report.held -= 1,
            _ => state.granted -= 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc, time::Duration};

    use tokio::time::timeout;

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
        let deadline = Duration::from_secs(20);
        timeout(deadline, gate.wait_held(1)).await.expect("one is held");
        gate.release(2);
        assert_eq!((gate.report().held, gate.report().tickets), (0, 1));
        timeout(deadline, task).await.expect("in time").expect("passes");
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
