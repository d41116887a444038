//! Telling attempts to stop: as their owner wishes, or a policy.

use super::super::input::{Action, Reply, RequestId, Target};
use super::{Core, Delivery, StopReason, Stopping, Then};
use crate::model::id::JobId;

impl Core {
    pub(super) fn interrupt(&mut self, request: RequestId, target: &Target) {
        let jobs: Vec<JobId> = match target {
            Target::Prompt(prompt_id, scope) => self.named(prompt_id, scope).into_iter().collect(),
            Target::Running(scope) => {
                self.jobs.iter().filter(|(_, e)| e.is_of(scope)).map(|(id, _)| *id).collect()
            }
        };
        let affected = jobs.into_iter().filter(|id| self.stop_for_good(*id)).count();
        self.out.push(Action::Reply { request, reply: Reply::Done { affected } });
    }

    /// As its owner wishes. A job whose attempt has just ended and that is about to wait again will not.
    pub(super) fn stop_for_good(&mut self, id: JobId) -> bool {
        if self.stop(id, StopReason::Owner) {
            return true;
        }
        let requeued = |then: &Then| matches!(then, Then::Requeue { job, .. } if *job == id);
        let between = self.committing.values().any(requeued);
        if between && let Some(entry) = self.jobs.get_mut(&id) {
            entry.unwanted = Some("interrupted between two attempts");
        }
        between
    }

    /// Tell a running attempt to stop; false when it does not run. An owner's wish overrides a policy's, and a policy's
    /// comes too late for an attempt that has failed: what follows is judged already.
    pub(super) fn stop(&mut self, id: JobId, why: StopReason) -> bool {
        let until = self.now.tick.after(self.config.interrupt_grace_ms);
        let Some(run) = self.run(id) else { return false };
        if why != StopReason::Owner && (run.stopping.is_some() || run.failing) {
            return true;
        }
        // Whoever asks again and again does not put off the moment at which it is given up.
        let until = run.stopping.as_ref().map_or(until, |stopping| stopping.until);
        run.stopping = Some(Stopping { why, until });
        if run.delivery != Delivery::Starting {
            self.send_interrupt(id);
        }
        true
    }

    pub(super) fn send_interrupt(&mut self, id: JobId) {
        let Some(run) = self.run(id) else { return };
        let (instance, upstream) = (run.attempt.instance.clone(), run.attempt.upstream_id);
        self.out.push(Action::Interrupt { instance, upstream });
    }

    pub(super) fn confirm_stop(&mut self, id: JobId) {
        if let Some(stopping) = self.run(id).and_then(|run| run.stopping.clone()) {
            self.stopped(id, &stopping.why, None);
        }
    }
}
