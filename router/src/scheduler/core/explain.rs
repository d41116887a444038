//! For operators: what a question showed, and why a job waits.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use super::super::capacity::Instance;
use super::{Core, Entry, Phase};
use crate::model::decision::DecisionRecord;
use crate::model::id::{InstanceId, JobId};
use crate::model::job::Needs;
use crate::model::seen::{CandidateSeen, Excluded, InstancesSeen, Seen};
use crate::model::view::Candidate;

/// Instances named in a record; a fleet of hundreds must not make each record a book.
const NAMED: usize = 8;

/// An open job, now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// None while it does not wait.
    pub waiting: Option<WaitingNow>,
    /// Where it could run, and why not elsewhere.
    pub instances: Vec<InstanceNow>,
    /// The router starts nothing any more.
    pub draining: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WaitingNow {
    /// Jobs that would run before it.
    pub ahead: usize,
    /// An operator's: above 0 before all others, below 0 after them.
    pub place: i64,
    /// Score plus ageing, now.
    pub priority: f64,
    pub score: f64,
    pub ageing_per_second: f64,
    pub waited_ms: u64,
    /// Until it may be asked about: a policy's hold or a retry's delay.
    pub not_before_ms: u64,
    /// The wait is a policy's hold.
    pub held: bool,
    /// Held by policies in all.
    pub held_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceNow {
    pub instance: InstanceId,
    /// Why it cannot run there; none when it can, now or when a slot is free.
    pub excluded: Option<String>,
    pub free_slots: u32,
    pub free_in_ms: Option<u32>,
    pub models_resident: u32,
    pub load_ms: Option<u32>,
}

impl Core {
    /// None when the job is over or never was.
    pub fn explain(&self, id: JobId) -> Option<Explanation> {
        let entry = self.jobs.get(&id)?;
        let now = self.now.tick;
        let outlook = self.learned.outlook(&entry.job.needs);
        let instance = |(index, instance): (usize, &Instance)| {
            let candidate = instance.candidate(index, &outlook, now);
            InstanceNow {
                instance: instance.spec.id.clone(),
                excluded: self.why_not(entry, index).map(Cow::into_owned),
                free_slots: candidate.free_slots,
                free_in_ms: candidate.free_in_ms,
                models_resident: candidate.models_resident,
                load_ms: candidate.load_ms,
            }
        };
        Some(Explanation {
            waiting: matches!(entry.phase, Phase::Waiting).then(|| self.waiting_now(id, entry)).flatten(),
            instances: self.instances.iter().enumerate().map(instance).collect(),
            draining: self.draining,
        })
    }

    fn waiting_now(&self, id: JobId, entry: &Entry) -> Option<WaitingNow> {
        let now = self.now.tick;
        let row = self.queue.get(id)?;
        Some(WaitingNow {
            ahead: self.queue.ahead_of(row, now),
            place: row.place,
            priority: row.effective(now),
            score: row.priority.score,
            ageing_per_second: row.priority.ageing_per_second,
            waited_ms: now.since(entry.accepted),
            not_before_ms: row.ready_at.since(now),
            held: row.held,
            held_ms: entry.held_in_all_ms(now),
        })
    }

    /// Why the job cannot run there.
    fn why_not(&self, entry: &Entry, index: usize) -> Option<Cow<'static, str>> {
        let instance = &self.instances[index];
        if !instance.up {
            return Some("down".into());
        }
        if instance.drained_by.operator {
            return Some("drained by an operator".into());
        }
        if instance.drained_by.policy {
            return Some("drained by a policy".into());
        }
        if !instance.linked {
            return Some("its websocket is down".into());
        }
        if instance.guard.cap() == Some(0) {
            return Some("kept apart after failures".into());
        }
        if let Some(lack) = lacks(instance, &entry.job.needs) {
            return Some(lack.into());
        }
        if !entry.may_run_on(instance) {
            return Some("its GPU has no more memory than the one that was too small".into());
        }
        let avoided = entry.avoid == Some(index);
        avoided.then(|| "to be avoided after an attempt that failed there".into())
    }

    /// What a question about this job shows, for its record: of the candidates, which are those of `rows`, the first.
    pub(super) fn shown(
        &self,
        id: JobId,
        rows: &[usize],
        candidates: impl Iterator<Item = Candidate>,
    ) -> Option<Seen> {
        let entry = self.jobs.get(&id)?;
        let name = |index: usize| self.instances[index].spec.id.clone();
        // They are in the order of instances.
        let mut excluded = (0..self.instances.len()).filter(|index| rows.binary_search(index).is_err());
        let why = |index: usize| self.why_not(entry, index).unwrap_or_default();
        let shown = InstancesSeen {
            candidates: rows
                .iter()
                .zip(candidates)
                .take(NAMED)
                .map(|(index, candidate)| CandidateSeen { name: name(*index), candidate })
                .collect(),
            more_candidates: rows.len().saturating_sub(NAMED),
            excluded: excluded
                .by_ref()
                .take(NAMED)
                .map(|index| Excluded { name: name(index), why: why(index) })
                .collect(),
            more_excluded: excluded.count(),
        };
        Some(Seen::Instances(Arc::new(shown)))
    }

    /// The same for a job of a window, which has no question of its own.
    pub(super) fn shown_now(&self, id: JobId) -> Option<Seen> {
        let rows = self.eligible(id);
        let outlook = self.learned.outlook(&self.jobs.get(&id)?.job.needs);
        let candidate = |index: &usize| self.instances[*index].candidate(*index, &outlook, self.now.tick);
        self.shown(id, &rows, rows.iter().map(candidate))
    }
}

/// The first thing it lacks, and how many more.
fn lacks(instance: &Instance, needs: &Needs) -> Option<String> {
    let classes = needs.classes.iter().filter(|class| !instance.can.classes.contains(*class));
    let models = needs.models.iter().filter(|model| !instance.can.has_model(model));
    let mut lacks = classes
        .map(|class| format!("no node class {class}"))
        .chain(models.map(|model| format!("no model {}/{}", model.folder, model.name)));
    let first = crate::comfy::errors::clip(&lacks.next()?, 200).to_owned();
    Some(match lacks.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    })
}

/// The records of one question, the first of them with what it showed.
pub(super) fn seeing(mut records: Vec<DecisionRecord>, seen: Option<Seen>) -> Vec<DecisionRecord> {
    if let Some(first) = records.first_mut() {
        first.seen = seen;
    }
    records
}
