//! One component's place in service: the hooks it is asked, the version that answers, those it may be exchanged for.
//!
//! The newest version answers, or a canary for its share of the jobs; the last good one while the newest is switched
//! off; the built-in for whatever neither answers. What was retired stays on a short shelf, to be taken back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::breaker::{Breaker, Change};
use super::canary::Canary;
use super::evidence::Evidence;
use super::orders::{Held, Standing};
use super::record::builtin_version;
use super::shadow::Shadow;
use super::status::{Ejected, LaneStatus, State, VersionRow, VersionStatus};
use super::wasm::{CallError, Guest, Version};
use crate::clock::Tick;
use crate::metrics;
use crate::model::decision::{Hook, PolicyVersion};
use crate::model::id::JobId;
use crate::model::job::WallMs;

/// Retired versions that could serve again at once.
const SHELF: usize = 4;
/// Of a digest, to name a version by: fewer could be any.
const LEAST_DIGEST: usize = 4;
/// Rows about versions that are gone.
const PAST: usize = 32;

/// A version in service, or kept to return to.
#[derive(Debug)]
pub(crate) struct Slot {
    pub version: Arc<Version>,
    /// None after a failure, until the next question.
    pub guest: Option<Guest>,
    pub breaker: Breaker,
    /// Where it came from, for the operator.
    pub origin: Arc<str>,
    pub at: WallMs,
    /// The last calls, for the dump when it is switched off.
    pub evidence: Evidence,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub name: Arc<str>,
    pub newest: Option<Slot>,
    pub last_good: Option<Slot>,
    pub canary: Option<Canary>,
    pub shadow: Option<Shadow>,
    shelf: VecDeque<Slot>,
    past: VecDeque<VersionRow>,
    gone: Vec<Gone>,
}

/// What nobody needs any more. Its memory is given back by whoever drops it, which should be the loading thread.
#[derive(Debug)]
pub(crate) enum Gone {
    Guest { _guest: Box<Guest> },
    Slot { _slot: Box<Slot> },
}

/// Which of a lane's slots is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    Newest,
    LastGood,
    Canary,
}

impl Lane {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            newest: None,
            last_good: None,
            canary: None,
            shadow: None,
            shelf: VecDeque::new(),
            past: VecDeque::new(),
            gone: Vec::new(),
        }
    }

    /// To be dropped elsewhere.
    pub(crate) fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    /// The slot to ask: the canary for its share of the jobs, else the newest that is not switched off.
    pub(crate) fn pick(&self, hook: Hook, job: Option<JobId>, now: Tick) -> Option<Pick> {
        let admits = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.breaker.admits(hook, now));
        if let (Some(canary), Some(job)) = (&self.canary, job)
            && canary.takes(job)
        {
            return Some(Pick::Canary);
        }
        match (admits(&self.newest), admits(&self.last_good)) {
            (true, _) => Some(Pick::Newest),
            (false, true) => Some(Pick::LastGood),
            (false, false) => None,
        }
    }

    pub(crate) fn slot(&mut self, pick: Pick) -> Option<&mut Slot> {
        match pick {
            Pick::Newest => self.newest.as_mut(),
            Pick::LastGood => self.last_good.as_mut(),
            Pick::Canary => self.canary.as_mut().map(|canary| &mut canary.slot),
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.newest.iter().chain(&self.last_good)
    }

    /// What answers now, were a question asked that no canary takes.
    pub(crate) fn answering(&self) -> Option<&Slot> {
        self.slots().find(|slot| slot.breaker.open().is_none())
    }

    pub(crate) fn serving(&self) -> PolicyVersion {
        self.answering().map_or_else(builtin_version, |slot| slot.version.id.clone())
    }

    pub(crate) fn newest_version(&self) -> PolicyVersion {
        self.newest.as_ref().map_or_else(builtin_version, |slot| slot.version.id.clone())
    }

    pub(crate) fn exports(&self, hook: Hook) -> bool {
        self.answering().is_some_and(|slot| slot.version.exports(hook))
    }

    /// Guests that trapped were thrown away; the next question should not have to wait for a new one.
    pub(crate) fn revive(&mut self, wall: WallMs) {
        let canary = self.canary.iter_mut().map(|canary| &mut canary.slot);
        for slot in self.newest.iter_mut().chain(self.last_good.iter_mut()).chain(canary) {
            if slot.guest.is_none() && slot.breaker.open().is_none() {
                slot.revive(wall);
            }
        }
    }

    /// `slot` answers from now on. What answered before is the last good version, if it is one.
    pub(crate) fn install(&mut self, slot: Slot) {
        let version = slot.version.id.clone();
        if let Some(before) = self.newest.replace(slot) {
            // A version that fails now is nothing to return to, and neither is the same one once more.
            if before.breaker.open().is_some() {
                self.retire(before, State::Failed, "it failed and was replaced");
            } else if before.version.id == version {
                self.gone.push(Gone::Slot { _slot: Box::new(before) });
            } else if let Some(older) = self.last_good.replace(before) {
                self.retire(older, State::Retired, "a newer version was good");
            }
        }
        tracing::info!(lane = %self.name, policy = %version.name, digest = %version.digest, "policy serves");
    }

    /// Back to the last good version, by an operator's word.
    pub(crate) fn roll_back(&mut self) -> Result<PolicyVersion, String> {
        let Some(good) = self.last_good.take() else {
            return Err("there is no version to return to".to_owned());
        };
        let version = good.version.id.clone();
        if let Some(left) = self.newest.replace(good.afresh()) {
            self.retire(left, State::Retired, "rolled back by an operator");
        }
        tracing::info!(lane = %self.name, policy = %version.name, digest = %version.digest, "policy rolled back");
        Ok(version)
    }

    /// The canary, the shadow, or a version that was retired answers everything from now on. `wanted` is the beginning
    /// of its digest; without one, the canary or the shadow is meant.
    pub(crate) fn promote(&mut self, wanted: Option<&str>) -> Result<PolicyVersion, String> {
        if wanted.is_some_and(|digest| digest.len() < LEAST_DIGEST) {
            return Err(format!("a version is named by at least {LEAST_DIGEST} characters of its digest"));
        }
        let is = |slot: &Slot| wanted.is_none_or(|digest| slot.version.id.digest.starts_with(digest));
        let slot = if self.canary.as_ref().is_some_and(|canary| is(&canary.slot)) {
            self.canary.take().map(|canary| canary.slot)
        } else if self
            .shadow
            .as_ref()
            .is_some_and(|shadow| wanted.is_none_or(|w| shadow.version().digest.starts_with(w)))
        {
            self.shadow.take().map(Shadow::into_slot)
        } else if wanted.is_some() && self.last_good.as_ref().is_some_and(is) {
            self.last_good.take()
        } else {
            let at = self.shelf.iter().rposition(|slot| wanted.is_some() && is(slot));
            at.and_then(|at| self.shelf.remove(at))
        };
        let Some(slot) = slot else {
            return Err(match wanted {
                Some(digest) => format!("no version that could serve has a digest beginning with {digest}"),
                None => "there is neither a canary nor a shadow to promote".to_owned(),
            });
        };
        let version = slot.version.id.clone();
        self.past.retain(|row| row.version != version);
        self.install(slot.afresh());
        Ok(version)
    }

    /// The canary is gone: everything is asked of the newest again.
    pub(crate) fn end_canary(&mut self, state: State, why: &str) {
        if let Some(canary) = self.canary.take() {
            let version = canary.slot.version.id.clone();
            tracing::warn!(lane = %self.name, policy = %version.name, digest = %version.digest, why, "canary ended");
            metrics::policy_canary_ended(state == State::Failed);
            self.retire(canary.slot, state, why);
        }
    }

    pub(crate) fn end_shadow(&mut self, why: &str) {
        if let Some(shadow) = self.shadow.take() {
            self.retire(shadow.into_slot(), State::Retired, why);
        }
    }

    fn retire(&mut self, mut slot: Slot, state: State, why: &str) {
        self.note(slot.row(&self.name, state, Some(why.to_owned())));
        self.gone.extend(slot.guest.take().map(|guest| Gone::Guest { _guest: Box::new(guest) }));
        // One of each version is enough, and one that failed is kept too: whoever promotes it says so by its digest.
        let same = self.shelf.iter().position(|kept| kept.version.id == slot.version.id);
        let surplus = same.or((self.shelf.len() == SHELF).then_some(0)).and_then(|at| self.shelf.remove(at));
        self.gone.extend(surplus.map(|slot| Gone::Slot { _slot: Box::new(slot) }));
        self.shelf.push_back(slot);
    }

    /// A row about a version that does not serve.
    pub(crate) fn note(&mut self, row: VersionRow) {
        self.past.push_back(row);
        if self.past.len() > PAST {
            self.past.pop_front();
        }
    }

    /// Every version known, the newest first.
    pub(crate) fn rows(&self) -> Vec<VersionRow> {
        let mut rows = Vec::new();
        let state = |slot: &Slot, well| if slot.breaker.open().is_some() { State::Failed } else { well };
        if let Some(slot) = &self.newest {
            rows.push(slot.row(&self.name, state(slot, State::Live), slot.trouble()));
        }
        if let Some(canary) = &self.canary {
            rows.push(canary.slot.row(&self.name, State::Canary, None));
        }
        if let Some(shadow) = &self.shadow {
            rows.push(shadow.row(&self.name));
        }
        if let Some(slot) = &self.last_good {
            rows.push(slot.row(&self.name, state(slot, State::LastGood), slot.trouble()));
        }
        rows.extend(self.past.iter().rev().cloned());
        rows
    }

    /// Which versions a start after this one should find.
    pub(crate) fn standing(&self) -> Standing {
        let held = |slot: &Slot| Held::of(&slot.version, &slot.origin);
        Standing {
            live: self.newest.as_ref().map(held),
            last_good: self.last_good.as_ref().map(held),
            canary: self.canary.as_ref().map(|canary| (held(&canary.slot), canary.share())),
            shadow: self.shadow.as_ref().map(|shadow| held(shadow.slot())),
            shelf: self.shelf.iter().map(|slot| slot.version.component().to_owned()).collect(),
        }
    }

    pub(crate) fn status(&self, now: Tick) -> LaneStatus {
        LaneStatus {
            lane: self.name.clone(),
            serving: self.serving(),
            newest: self.newest.as_ref().map(|slot| slot.status(now)),
            last_good: self.last_good.as_ref().map(|slot| slot.status(now)),
            canary: self.canary.as_ref().map(Canary::report),
            shadow: self.shadow.as_ref().map(Shadow::report),
        }
    }
}

impl Slot {
    /// A fresh guest, if one can be made; `configure` went well before, so that is the rule.
    pub(crate) fn revive(&mut self, now_ms: WallMs) {
        match self.version.guest(now_ms) {
            Ok(guest) => self.guest = Some(guest),
            Err(error) => {
                tracing::warn!(policy = %self.version.id.name, %error, "policy cannot be started again");
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

    /// As if it had never failed.
    fn afresh(self) -> Self {
        let breaker = self.breaker.afresh();
        Self { breaker, evidence: Evidence::default(), ..self }
    }

    pub(crate) fn row(&self, lane: &Arc<str>, state: State, reason: Option<String>) -> VersionRow {
        VersionRow {
            lane: lane.clone(),
            version: self.version.id.clone(),
            state,
            origin: self.origin.clone(),
            at: self.at,
            hooks: self.version.hooks().to_vec(),
            bytes: self.version.bytes(),
            reason,
        }
    }

    fn trouble(&self) -> Option<String> {
        let open = self.breaker.open()?;
        Some(format!("switched off: {} failed with {}", open.hook.as_str(), open.reason.as_str()))
    }

    fn status(&self, now: Tick) -> VersionStatus {
        VersionStatus {
            version: self.version.id.clone(),
            hooks: self.version.hooks().to_vec(),
            bytes: self.version.bytes(),
            ejected: self.breaker.open().map(|open| Ejected {
                hook: open.hook,
                reason: open.reason,
                probe_in_ms: open.until.since(now),
            }),
        }
    }
}
