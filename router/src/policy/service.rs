//! The policy thread: asks the newest version, falls back to the last good one while that is switched off, and to the
//! built-in for whatever neither answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use tokio::sync::watch;

use super::breaker::{Breaker, Change};
use super::config::Config;
use super::handle::Ask;
use super::record::{self, builtin_version};
use super::status::{Ejected, PolicyStatus, VersionStatus};
use super::turn::Turn;
use super::wasm::{CallError, Guest, Version};
use crate::clock::{Clock, Tick};
use crate::metrics;
use crate::model::decision::{Consultation, Decided, Hook, PolicyVersion};

#[derive(Debug)]
pub(crate) enum Command {
    Ask(Ask),
    /// A version that passed every check, with a fresh guest of it; the sender is told when it serves.
    Install(Box<Slot>, SyncSender<()>),
}

/// A version in service, or kept to return to.
#[derive(Debug)]
pub(crate) struct Slot {
    pub version: Arc<Version>,
    /// None after a failure, until the next question.
    pub guest: Option<Guest>,
    pub breaker: Breaker,
}

/// Everything the policy thread owns.
pub(crate) struct Service {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub newest: Option<Slot>,
    pub last_good: Option<Slot>,
    /// Whether the serving version exports `placement`, for the scheduler to ask that instead of `route`.
    pub places: Arc<AtomicBool>,
    pub serving: watch::Sender<PolicyVersion>,
    pub status: watch::Sender<PolicyStatus>,
}

impl Service {
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        metrics::policy_serves(&self.serving.borrow());
        while let Ok(command) = commands.recv() {
            match command {
                // Who asked has waited too long and been answered natively: the queue is behind, this catches up.
                Command::Ask(ask) if ask.reply.is_closed() => {}
                Command::Ask(Ask { consultation, reply }) => {
                    let decided = self.decide(&consultation);
                    let _ = reply.send(decided);
                    self.revive();
                }
                Command::Install(slot, serves) => {
                    self.install(*slot);
                    let _ = serves.send(());
                }
            }
        }
    }

    fn decide(&mut self, consultation: &Consultation) -> Decided {
        if self.newest.is_none() {
            let decided = record::natively(consultation, &self.config, &builtin_version(), None, 0);
            for record in &decided.records {
                metrics::decision(record.hook, &record.version, None, std::time::Duration::ZERO);
            }
            return decided;
        }
        Turn::new(self, consultation).take()
    }

    /// The version to ask, of those there are: the newest that is not switched off.
    pub(crate) fn slot(&mut self, hook: Hook, now: Tick) -> Option<&mut Slot> {
        self.newest.iter_mut().chain(self.last_good.iter_mut()).find(|slot| slot.breaker.admits(hook, now))
    }

    pub(crate) fn newest_version(&self) -> PolicyVersion {
        self.newest.as_ref().map_or_else(builtin_version, |slot| slot.version.id.clone())
    }

    /// A guest that trapped was thrown away; the next question should not have to wait for a new one.
    fn revive(&mut self) {
        let wall = self.clock.now().wall;
        for slot in self.newest.iter_mut().chain(self.last_good.iter_mut()) {
            if slot.guest.is_none() && slot.breaker.open().is_none() {
                slot.revive(wall);
            }
        }
    }

    fn install(&mut self, slot: Slot) {
        let version = slot.version.id.clone();
        if let Some(before) = self.newest.replace(slot) {
            // A version that fails now is nothing to return to, and neither is the same one once more.
            if before.breaker.open().is_none() && before.version.id != version {
                self.last_good = Some(before);
            }
        }
        tracing::info!(policy = %version.name, digest = %version.digest, "policy serves");
        self.publish();
    }

    /// After anything that changes who answers or what is shown.
    pub(crate) fn publish(&mut self) {
        let now = self.clock.now();
        let answers = self.newest.iter().chain(&self.last_good).find(|slot| slot.breaker.open().is_none());
        self.places.store(answers.is_some_and(|slot| slot.version.exports(Hook::Place)), Ordering::Release);
        let serving = answers.map_or_else(builtin_version, |slot| slot.version.id.clone());
        let changed = *self.serving.borrow() != serving;
        self.status.send_modify(|status| {
            status.newest = self.newest.as_ref().map(|slot| slot.status(now.tick));
            status.last_good = self.last_good.as_ref().map(|slot| slot.status(now.tick));
            if changed {
                status.serving = serving.clone();
                status.since = now.wall;
            }
        });
        if changed {
            metrics::policy_serves(&serving);
            self.serving.send_replace(serving);
        }
    }
}

impl Slot {
    /// A fresh guest, if one can be made; `configure` went well before, so that is the rule.
    pub(crate) fn revive(&mut self, now_ms: u64) {
        match self.version.guest(now_ms) {
            Ok(guest) => self.guest = Some(guest),
            Err(error) => {
                tracing::warn!(policy = %self.version.id.name, %error, "policy cannot be started again")
            }
        }
    }

    /// What a failed call means for this version.
    pub(crate) fn failed(&mut self, hook: Hook, error: &CallError, now: Tick) -> Change {
        let reason = error.reason;
        if error.dead {
            self.guest = None;
        }
        let change = self.breaker.failed(hook, reason, now);
        let (policy, digest) = (&self.version.id.name, &self.version.id.digest);
        let (hook, reason) = (hook.as_str(), reason.as_str());
        tracing::warn!(%policy, %digest, hook, reason, error = error.message, "policy failed, the built-in answers");
        if change == Change::SwitchedOff {
            tracing::error!(%policy, %digest, hook, reason, "policy fails too often and is switched off");
        }
        change
    }

    fn status(&self, now: Tick) -> VersionStatus {
        VersionStatus {
            version: self.version.id.clone(),
            hooks: self.version.hooks.clone(),
            bytes: self.version.bytes,
            ejected: self.breaker.open().map(|open| Ejected {
                hook: open.hook,
                reason: open.reason,
                probe_in_ms: open.until.since(now),
            }),
        }
    }
}
