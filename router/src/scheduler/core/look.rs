//! What the core tells of its present state.

use std::sync::Arc;

use super::super::input::InstanceReport;
use super::{Core, Entry, Phase};
use crate::model::id::JobId;
use crate::model::job::{Job, JobClass, JobState};

impl Core {
    /// Jobs that are not over.
    pub fn remaining(&self) -> usize {
        self.jobs.len()
    }

    pub fn report(&self) -> Vec<InstanceReport> {
        self.instances.iter().map(|instance| instance.report(self.now.tick)).collect()
    }

    /// Running jobs by start, then waiting ones in the order in which they would run.
    pub fn listing(&self) -> (Vec<Arc<Job>>, Vec<Arc<Job>>) {
        let mut running: Vec<&Entry> =
            self.jobs.values().filter(|e| matches!(e.phase, Phase::Running(_) | Phase::Ending)).collect();
        running.sort_by_key(|e| e.seq);
        let waiting = self.queue.ordered(self.now.tick);
        (
            running.into_iter().map(|e| e.job.clone()).collect(),
            waiting.iter().map(|id| self.jobs[id].job.clone()).collect(),
        )
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Job> {
        self.queue.ids().map(|id| &*self.jobs[&id].job)
    }

    pub fn waiting_of(&self, class: JobClass) -> usize {
        self.queue.waiting_of(class)
    }

    /// Differs when [`listing`](Self::listing) may differ, the passing of time aside.
    pub fn version(&self) -> (u64, u64) {
        (self.version, self.queue.version())
    }

    /// An open job that its client knows of, and whether it runs.
    pub fn find(&self, prompt_id: &str) -> Option<(Arc<Job>, bool)> {
        let entry = &self.jobs[self.prompt_ids.get(prompt_id)?];
        let known = !matches!(entry.phase, Phase::Accepting | Phase::Removed);
        known.then(|| (entry.job.clone(), !matches!(entry.phase, Phase::Waiting)))
    }

    pub fn state(&self, id: JobId) -> Option<JobState> {
        self.jobs.get(&id).map(|entry| match &entry.phase {
            Phase::Running(run) => JobState::Running(run.attempt.number),
            _ => JobState::Queued,
        })
    }
}
