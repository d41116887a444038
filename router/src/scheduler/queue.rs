//! The waiting jobs and their order.
//!
//! Effective priority is `score + ageing x seconds waited`. Ageing rates differ between jobs, so the order changes with
//! time and no sorted structure can hold it; one pass over 10 000 small rows costs some tens of microseconds, which is
//! less than keeping such a structure right.

use crate::clock::Tick;
use crate::model::decision::Priority;
use crate::model::id::JobId;

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) id: JobId,
    /// Order of acceptance.
    pub(super) seq: u64,
    pub(super) priority: Priority,
    pub(super) since: Tick,
    /// Not to be routed before: a retry's delay or a policy's hold.
    pub(super) ready_at: Tick,
    /// It waits because the policy held it, so any change in the fleet is a reason to ask again.
    pub(super) held: bool,
    /// When its queue limit is passed.
    pub(super) deadline: Option<Tick>,
}

impl Waiting {
    pub(super) fn effective(&self, now: Tick) -> f64 {
        self.priority.score + self.priority.ageing_per_second * (now.since(self.since) as f64 / 1000.0)
    }

    /// Before `other`?
    fn beats(&self, other: &Waiting, now: Tick) -> bool {
        let (mine, theirs) = (self.effective(now), other.effective(now));
        mine > theirs || (mine == theirs && self.seq < other.seq)
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    rows: Vec<Waiting>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn push(&mut self, row: Waiting) {
        self.rows.push(row);
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Waiting> {
        let at = self.rows.iter().position(|row| row.id == id)?;
        Some(self.rows.swap_remove(at))
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Waiting> {
        self.rows.iter_mut().find(|row| row.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.rows.iter()
    }

    /// The most urgent job that is ready and that `fits` says could start now.
    pub(super) fn best(&self, now: Tick, mut fits: impl FnMut(JobId) -> bool) -> Option<Waiting> {
        let mut best: Option<&Waiting> = None;
        for row in &self.rows {
            if row.ready_at <= now && best.is_none_or(|best| row.beats(best, now)) && fits(row.id) {
                best = Some(row);
            }
        }
        best.copied()
    }

    /// The most urgent `most` jobs that are ready and that `fits` says could start now, in order.
    pub(super) fn first(&self, now: Tick, most: usize, fits: impl Fn(JobId) -> bool) -> Vec<JobId> {
        let mut rows: Vec<(f64, u64, JobId)> = self
            .rows
            .iter()
            .filter(|row| row.ready_at <= now)
            .map(|row| (row.effective(now), row.seq, row.id))
            .collect();
        rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.into_iter().map(|row| row.2).filter(|id| fits(*id)).take(most).collect()
    }

    /// All, in the order in which they would run now.
    pub(super) fn ordered(&self, now: Tick) -> Vec<JobId> {
        let mut rows: Vec<(f64, u64, JobId)> =
            self.rows.iter().map(|row| (row.effective(now), row.seq, row.id)).collect();
        rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.into_iter().map(|row| row.2).collect()
    }

    /// The fleet changed: held jobs may be asked about again.
    pub(super) fn unhold(&mut self, now: Tick) {
        for row in self.rows.iter_mut().filter(|row| row.held) {
            row.held = false;
            row.ready_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64, score: f64, ageing: f64, since: u64) -> Waiting {
        Waiting {
            id: JobId::mint(),
            seq,
            priority: Priority { score, ageing_per_second: ageing },
            since: Tick(since),
            ready_at: Tick(0),
            held: false,
            deadline: None,
        }
    }

    #[test]
    fn ageing_overtakes_score_in_time() {
        let mut queue = Queue::default();
        let (urgent, patient) = (row(2, 10.0, 0.0, 1000), row(1, 0.0, 1.0, 0));
        queue.push(urgent);
        queue.push(patient);
        assert_eq!(queue.best(Tick(1000), |_| true).map(|r| r.id), Some(urgent.id));
        assert_eq!(queue.best(Tick(11_000), |_| true).map(|r| r.id), Some(patient.id));
        assert_eq!(queue.ordered(Tick(11_000)), [patient.id, urgent.id]);
    }

    #[test]
    fn equals_run_in_order_of_arrival_and_the_unready_wait() {
        let mut queue = Queue::default();
        let (mut first, second) = (row(1, 0.0, 0.0, 0), row(2, 0.0, 0.0, 0));
        first.ready_at = Tick(500);
        first.held = true;
        queue.push(second);
        queue.push(first);
        assert_eq!(queue.best(Tick(100), |_| true).map(|r| r.id), Some(second.id));
        queue.unhold(Tick(100));
        assert_eq!(queue.best(Tick(100), |_| true).map(|r| r.id), Some(first.id));
        assert!(queue.best(Tick(100), |_| false).is_none());
    }
}
