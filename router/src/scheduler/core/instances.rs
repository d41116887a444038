//! What happens to an instance, and what that means for the attempts that it was given.

use std::sync::Arc;

use super::super::capacity::sharing;
use super::super::input::InstanceChange;
use super::{Core, Delivery, Run};
use crate::model::id::JobId;
use crate::model::job::AttemptOutcome;

impl Core {
    pub(super) fn instance_changed(&mut self, index: usize, change: InstanceChange) {
        let now = self.now.tick;
        let change = sharing(&self.instances, change);
        let Some(instance) = self.instances.get_mut(index) else { return };
        match change {
            InstanceChange::Up(can) => {
                (instance.up, instance.silent_since) = (true, None);
                instance.can = can;
                instance.idle_since = instance.live.is_empty().then_some(now);
                self.returned(index);
                self.inspect_all(index);
            }
            InstanceChange::Capabilities(can) => instance.can = can,
            InstanceChange::Devices(devices) => instance.devices = Arc::new(devices),
            InstanceChange::Foreign { running, pending } => instance.foreign = (running, pending),
            InstanceChange::Linked(linked) => {
                let before = std::mem::replace(&mut instance.linked, linked);
                if linked && !before {
                    self.hears_again(index);
                }
                self.inspect_all(index);
            }
            InstanceChange::ZombieGone(upstream) => self.zombie_gone(index, upstream),
            InstanceChange::Down { reason, silent } => {
                instance.silent_since = silent.then_some(now);
                self.instance_down(index, &reason);
            }
        }
        self.texts_changed();
        self.queue.unhold();
        self.fruitless = None;
    }

    /// What was not heard while there was no socket is not silence of the attempts.
    fn hears_again(&mut self, index: usize) {
        let now = self.now.tick;
        let jobs: Vec<JobId> = self.instances[index].live.iter().map(|live| live.job).collect();
        for id in jobs {
            if let Some(run) = self.run(id) {
                run.shows_life(now);
            }
        }
    }

    fn inspect_all(&mut self, index: usize) {
        let jobs: Vec<JobId> = self.instances[index].live.iter().map(|live| live.job).collect();
        jobs.into_iter().for_each(|id| self.inspect(id));
    }

    fn instance_down(&mut self, index: usize, reason: &str) {
        let instance = &mut self.instances[index];
        (instance.up, instance.linked) = (false, false);
        instance.foreign = (0, 0);
        instance.unloaded();
        let jobs: Vec<JobId> = instance.live.iter().map(|live| live.job).collect();
        for id in jobs {
            // One that is not sent yet is settled when its start is durable, one that is being sent when that is done,
            // and one that is over by what its events said.
            let there = |run: &mut Run| matches!(run.delivery, Delivery::Unsure | Delivery::Taken);
            if self.run(id).is_some_and(|run| there(run) && run.settling.is_none()) {
                self.crashed(id, reason);
            }
        }
    }

    /// Its instance went down under it, or under the answer to it. The process may be gone, or only be silent: then the
    /// attempt may still be there when it comes back.
    pub(super) fn crashed(&mut self, id: JobId, reason: &str) {
        let Some(run) = self.run(id) else { return };
        if run.failing {
            return;
        }
        let (index, upstream, taken) =
            (run.instance, run.attempt.upstream_id, run.delivery == Delivery::Taken);
        if let Some(instance) = self.instances.get_mut(index) {
            instance.gave_up(upstream);
        }
        self.blame(index, reason);
        if taken {
            let detail = format!("its instance went down: {reason}");
            return self.failed(id, AttemptOutcome::Crash, detail, None);
        }
        let detail = format!("its instance went down, perhaps before it had the prompt: {reason}");
        self.failed(id, AttemptOutcome::Unknown, detail, None);
    }
}
