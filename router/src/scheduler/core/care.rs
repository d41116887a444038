//! Instances that fail: which sighting speaks for or against one, quarantine, and what is done to one that does not let
//! go of an attempt. In this order: interrupt, free its memory, give it nothing more, restart it.

use crate::clock::Tick;
use crate::model::id::{JobId, UpstreamId};

use super::super::capacity::Instance;
use super::super::config::QuarantineConfig;
use super::super::guard::Overdue;
use super::super::input::{Action, News};
use super::Core;

const KEEPS: &str = "it keeps an attempt that was given up";
const SILENT: &str = "it has stopped answering";

impl Core {
    /// An attempt failed through its instance's fault.
    pub(super) fn blame(&mut self, index: usize, what: &str) {
        let (now, config) = (self.now.tick, self.config.quarantine);
        if let Some(instance) = self.instances.get_mut(index)
            && instance.guard.failed(now, what, &config)
        {
            self.quarantined(index);
        }
    }

    /// An attempt came to an end of its own there.
    pub(super) fn worked(&mut self, id: JobId) {
        let Some(index) = self.run(id).map(|run| run.instance) else { return };
        if let Some(instance) = self.instances.get_mut(index)
            && instance.guard.worked()
        {
            let told = Action::Told { instance: instance.spec.id.clone(), news: News::Released };
            self.out.push(told);
            self.queue.unhold();
        }
    }

    pub(super) fn quarantine(&mut self, index: usize, reason: String) {
        let (now, config) = (self.now.tick, self.config.quarantine);
        if let Some(instance) = self.instances.get_mut(index) {
            instance.guard.open(now, reason, &config);
            self.quarantined(index);
        }
    }

    fn quarantined(&mut self, index: usize) {
        let instance = &self.instances[index];
        let reason = instance.guard.report(self.now.tick).map_or_else(String::new, |told| told.reason);
        let told = Action::Told { instance: instance.spec.id.clone(), news: News::Quarantined { reason } };
        self.out.push(told);
    }

    /// By the clock: quarantines end, and an instance that keeps what was given up, or answers nothing, is restarted.
    pub(super) fn care(&mut self) {
        let (now, config) = (self.now.tick, self.config.quarantine);
        for instance in &mut self.instances {
            let before = instance.guard.cap();
            instance.guard.pass(now, !instance.zombies.is_empty());
            if instance.guard.cap() != before {
                self.queue.unhold();
            }
            // Nobody restarts what an operator has set aside.
            if instance.drained_by.operator {
                continue;
            }
            let (due, why) = match instance.up {
                true => (overdue(instance, now, &config), KEEPS),
                false => (silent(instance, now, &config), SILENT),
            };
            if let Some(due) = due {
                let (instance, reason) = (instance.spec.id.clone(), why.to_owned());
                self.out.push(match due {
                    Overdue::Restart => Action::Restart { instance, reason },
                    Overdue::Tell => Action::Told { instance, news: News::NeedsRestart { reason } },
                });
            }
        }
    }

    /// A policy's order, bounded in rate; says what was done.
    pub(super) fn restart_for_policy(&mut self, index: usize, reason: &str) -> &'static str {
        let (now, config) = (self.now.tick, self.config.quarantine);
        let instance = &mut self.instances[index];
        if !instance.spec.supervised {
            return "not supervised, cannot be restarted";
        }
        if !instance.guard.may_restart(now, &config) {
            return "was restarted a short while ago";
        }
        let (instance, reason) = (instance.spec.id.clone(), format!("the policy wants it: {reason}"));
        self.out.push(Action::Restart { instance, reason });
        "restarted"
    }

    pub(super) fn restart_for_operator(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        if instance.spec.supervised {
            let (instance, reason) = (instance.spec.id.clone(), "the operator wants it".to_owned());
            self.out.push(Action::Restart { instance, reason });
        }
    }

    /// It answers again, perhaps as another process: is what was given up still there?
    pub(super) fn returned(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        if instance.zombies.is_empty() {
            return instance.guard.renewed();
        }
        let ask = |upstream: &UpstreamId| Action::InspectZombie { index, upstream: *upstream };
        self.out.extend(instance.zombies.iter().map(ask));
    }

    /// The instance no longer has this attempt that was given up.
    pub(super) fn zombie_gone(&mut self, index: usize, upstream: UpstreamId) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        let before = instance.zombies.len();
        instance.zombies.retain(|zombie| *zombie != upstream);
        if before > 0 && instance.zombies.is_empty() {
            instance.guard.renewed();
        }
        self.queue.unhold();
    }
}

/// Of one that answers.
fn overdue(instance: &mut Instance, now: Tick, config: &QuarantineConfig) -> Option<Overdue> {
    let holds = !instance.zombies.is_empty();
    holds.then(|| instance.guard.overdue(now, instance.spec.supervised, config)).flatten()
}

/// Of one that does not. Once for each time that it fell silent: another process needs a while to come up.
fn silent(instance: &mut Instance, now: Tick, config: &QuarantineConfig) -> Option<Overdue> {
    let since = instance.silent_since?;
    if now.since(since) < config.restart_after_ms {
        return None;
    }
    let due = match instance.spec.supervised {
        true => instance.guard.may_restart(now, config).then_some(Overdue::Restart),
        false => Some(Overdue::Tell),
    };
    if due.is_some() {
        instance.silent_since = None;
    }
    due
}
