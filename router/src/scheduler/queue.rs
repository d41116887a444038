//! The waiting jobs and their order: first an operator's place, then the effective priority, then ComfyUI's number, then
//! the order of arrival.
//!
//! Effective priority is `score + ageing x seconds waited`. Among jobs that age equally fast the order never changes,
//! so they share a lane, which is sorted; the next job is the best of the heads of all lanes. Policies give few rates, so
//! there are few lanes. Jobs that may not be routed yet sleep apart.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::Tick;
use crate::model::decision::Priority;
use crate::model::id::JobId;
use crate::model::job::JobClass;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Waiting {
    pub(super) id: JobId,
    /// Order of acceptance.
    pub(super) seq: u64,
    /// An operator's: 0 where there is none, higher runs earlier.
    pub(super) place: i64,
    pub(super) priority: Priority,
    /// ComfyUI's; lower runs earlier.
    pub(super) number: f64,
    pub(super) class: JobClass,
    pub(super) since: Tick,
    /// Not to be routed before: a retry's delay or a policy's hold.
    pub(super) ready_at: Tick,
    /// It waits because the policy held it, so any change in the fleet is a reason to ask again.
    pub(super) held: bool,
    /// When its queue limit is passed.
    pub(super) deadline: Option<Tick>,
}

/// A float in its total order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Total(f64);

impl Eq for Total {}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The earlier runs first.
type Key = (Reverse<i64>, Reverse<Total>, Total, u64);

impl Waiting {
    /// What its priority would have been at tick 0. Never `-0.0`, which would not be equal to 0.
    fn base(&self) -> f64 {
        self.priority.score - self.priority.ageing_per_second * seconds(self.since) + 0.0
    }

    /// Score and ageing, now.
    pub(super) fn effective(&self, now: Tick) -> f64 {
        self.base() + self.priority.ageing_per_second * seconds(now)
    }

    fn key(&self, urgency: f64) -> Key {
        (Reverse(self.place), Reverse(Total(urgency)), Total(self.number + 0.0), self.seq)
    }

    /// Its place in its lane, which does not change with time.
    fn fixed(&self) -> Key {
        self.key(self.base())
    }

    /// Its place among all.
    fn at(&self, now: Tick) -> Key {
        self.key(self.effective(now))
    }

    fn lane(&self) -> u64 {
        (self.priority.ageing_per_second + 0.0).to_bits()
    }
}

fn seconds(tick: Tick) -> f64 {
    tick.0 as f64 / 1000.0
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    rows: HashMap<JobId, Waiting>,
    /// By ageing rate: those that may be routed.
    lanes: BTreeMap<u64, BTreeMap<Key, JobId>>,
    /// Those that may not be routed yet.
    asleep: BTreeSet<(Tick, JobId)>,
    deadlines: BTreeSet<(Tick, JobId)>,
    places: BTreeSet<(i64, JobId)>,
    classes: [usize; 3],
    /// Counts changes.
    version: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Rises with every change of what waits or in what order.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn waiting_of(&self, class: JobClass) -> usize {
        self.classes[class as usize]
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Waiting> {
        self.rows.get(&id)
    }

    /// How many would run before it.
    pub(super) fn ahead_of(&self, row: &Waiting, now: Tick) -> usize {
        let at = row.at(now);
        self.rows.values().filter(|other| other.at(now) < at).count()
    }

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.rows.contains_key(&id)
    }

    pub(super) fn push(&mut self, row: Waiting) {
        self.remove(row.id);
        self.version += 1;
        self.classes[row.class as usize] += 1;
        if row.ready_at > Tick::default() {
            self.asleep.insert((row.ready_at, row.id));
        } else {
            self.lanes.entry(row.lane()).or_default().insert(row.fixed(), row.id);
        }
        self.deadlines.extend(row.deadline.map(|at| (at, row.id)));
        if row.place != 0 {
            self.places.insert((row.place, row.id));
        }
        self.rows.insert(row.id, row);
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Waiting> {
        let row = self.rows.remove(&id)?;
        self.version += 1;
        self.classes[row.class as usize] -= 1;
        if !self.asleep.remove(&(row.ready_at, id))
            && let Some(lane) = self.lanes.get_mut(&row.lane())
        {
            lane.remove(&row.fixed());
            if lane.is_empty() {
                self.lanes.remove(&row.lane());
            }
        }
        if let Some(at) = row.deadline {
            self.deadlines.remove(&(at, id));
        }
        self.places.remove(&(row.place, id));
        Some(row)
    }

    /// Changes a row, if it waits; says whether it does.
    pub(super) fn change(&mut self, id: JobId, change: impl FnOnce(&mut Waiting)) -> bool {
        let Some(mut row) = self.remove(id) else { return false };
        change(&mut row);
        self.push(row);
        true
    }

    /// Before all that wait, and behind all of them.
    pub(super) fn front_and_back(&self) -> (i64, i64) {
        let most = self.places.last().map_or(0, |last| last.0.max(0));
        let least = self.places.first().map_or(0, |first| first.0.min(0));
        (most.saturating_add(1), least.saturating_sub(1))
    }

    /// Lets those be routed whose time has come.
    pub(super) fn wake(&mut self, now: Tick) {
        while let Some((at, id)) = self.asleep.first().copied().filter(|(at, _)| *at <= now) {
            self.rouse(at, id);
        }
    }

    fn rouse(&mut self, at: Tick, id: JobId) {
        self.asleep.remove(&(at, id));
        let Some(row) = self.rows.get_mut(&id) else { return };
        (row.held, row.ready_at) = (false, Tick::default());
        self.version += 1;
        self.lanes.entry(row.lane()).or_default().insert(row.fixed(), id);
    }

    /// The fleet changed: held jobs may be asked about again.
    pub(super) fn unhold(&mut self) {
        let held: Vec<(Tick, JobId)> = self
            .asleep
            .iter()
            .filter(|(_, id)| self.rows.get(id).is_some_and(|row| row.held))
            .copied()
            .collect();
        for (at, id) in held {
            self.rouse(at, id);
        }
    }

    /// The most urgent job that may be routed and that `fits` says could start now.
    pub(super) fn best(&self, now: Tick, mut fits: impl FnMut(JobId) -> bool) -> Option<Waiting> {
        let mut best: Option<(Key, Waiting)> = None;
        for lane in self.lanes.values() {
            for id in lane.values() {
                let row = &self.rows[id];
                let key = row.at(now);
                if best.as_ref().is_some_and(|(best, _)| *best < key) {
                    break;
                }
                if fits(*id) {
                    best = Some((key, *row));
                    break;
                }
            }
        }
        best.map(|best| best.1)
    }

    /// The most urgent `most` jobs that may be routed and that `fits` says could start now, in order.
    pub(super) fn first(&self, now: Tick, most: usize, mut fits: impl FnMut(JobId) -> bool) -> Vec<JobId> {
        let mut found: Vec<(Key, JobId)> = Vec::new();
        for lane in self.lanes.values() {
            let fitting = lane.values().filter(|id| fits(**id)).take(most);
            found.extend(fitting.map(|id| (self.rows[id].at(now), *id)));
        }
        found.sort_unstable();
        found.into_iter().take(most).map(|row| row.1).collect()
    }

    /// All, in the order in which they would run now.
    pub(super) fn ordered(&self, now: Tick) -> Vec<JobId> {
        if self.asleep.is_empty() && self.lanes.len() == 1 {
            return self.lanes.values().flat_map(BTreeMap::values).copied().collect();
        }
        let mut rows: Vec<(Key, JobId)> = self.rows.values().map(|row| (row.at(now), row.id)).collect();
        rows.sort_unstable();
        rows.into_iter().map(|row| row.1).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = JobId> {
        self.rows.keys().copied()
    }

    /// Those whose queue limit is passed.
    pub(super) fn late(&self, now: Tick) -> Vec<JobId> {
        self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests;
