//! What became of every prompt, as its client saw it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Doing, News, What};
use super::workload::Client;
use crate::model::id::JobId;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// Its time has not come.
    Planned,
    Queued,
    Running(Doing),
    Done,
    Failed(String),
}

/// One prompt.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) client: &'static str,
    pub(super) workflow: &'static str,
    pub(super) models: String,
    pub(super) prompt_id: Option<String>,
    pub(super) state: State,
    pub(super) accepted: Option<Instant>,
    pub(super) started: Option<Instant>,
    pub(super) ended: Option<Instant>,
    /// Its images: so many are right, or this is wrong.
    pub(super) checked: Option<Result<usize, String>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) planned: usize,
    pub(super) accepted: usize,
    pub(super) queued: usize,
    pub(super) running: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
}

#[derive(Debug)]
pub(super) struct Board {
    entries: Vec<Entry>,
    by_prompt: HashMap<String, usize>,
    by_job: HashMap<JobId, usize>,
    pub(super) previews: usize,
}

impl Board {
    pub(super) fn new(clients: &[Client]) -> Self {
        let mut entries: Vec<(usize, Entry)> = Vec::new();
        for client in clients {
            let entry = |prompt: &super::workload::Prompt| Entry {
                client: client.name,
                workflow: prompt.workflow.name(),
                models: prompt.workflow.models(),
                prompt_id: None,
                state: State::Planned,
                accepted: None,
                started: None,
                ended: None,
                checked: None,
            };
            entries.extend(client.prompts.iter().map(|prompt| (prompt.index, entry(prompt))));
        }
        entries.sort_by_key(|(index, _)| *index);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Self { entries, by_prompt: HashMap::new(), by_job: HashMap::new(), previews: 0 }
    }

    pub(super) fn take(&mut self, news: News) {
        let at = news.at;
        let entry = &mut self.entries[news.index];
        match news.what {
            What::Accepted { prompt_id } => {
                entry.accepted = Some(at);
                entry.state = State::Queued;
                entry.prompt_id = Some(prompt_id.clone());
                self.by_prompt.insert(prompt_id, news.index);
            }
            What::Refused(why) => entry.state = State::Failed(format!("refused: {why}")),
            What::Started => {
                entry.started.get_or_insert(at);
                entry.state = State::Running(Doing::Starting);
            }
            What::Doing(doing) => entry.state = State::Running(doing),
            What::Preview => self.previews += 1,
            What::Finished => {
                entry.ended = Some(at);
                entry.state = State::Done;
            }
            What::Failed(why) => {
                entry.ended = Some(at);
                entry.state = State::Failed(why);
            }
            What::Checked(checked) => entry.checked = Some(checked),
        }
    }

    /// The router's own name of a prompt's job.
    pub(super) fn name(&mut self, prompt_id: &str, job: JobId) {
        if let Some(index) = self.by_prompt.get(prompt_id) {
            self.by_job.insert(job, *index);
        }
    }

    pub(super) fn by_job(&self, job: JobId) -> Option<&Entry> {
        self.by_job.get(&job).map(|index| &self.entries[*index])
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { planned: self.entries.len(), ..Counts::default() };
        for entry in &self.entries {
            counts.accepted += usize::from(entry.accepted.is_some());
            match entry.state {
                State::Planned => {}
                State::Queued => counts.queued += 1,
                State::Running(_) => counts.running += 1,
                State::Done => counts.done += 1,
                State::Failed(_) => counts.failed += 1,
            }
        }
        counts
    }
}

impl Entry {
    /// From the 200 to the last event.
    pub(super) fn response(&self) -> Option<Duration> {
        Some(self.ended?.saturating_duration_since(self.accepted?))
    }

    /// From the 200 to `execution_start`.
    pub(super) fn wait(&self) -> Option<Duration> {
        Some(self.started?.saturating_duration_since(self.accepted?))
    }

    /// `ann txt2img sdxl`.
    pub(super) fn label(&self) -> String {
        match self.models.as_str() {
            "-" => format!("{} {}", self.client, self.workflow),
            models => format!("{} {models}", self.client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload;
    use super::*;

    #[test]
    fn a_prompt_is_followed_from_its_200_to_its_end() {
        let mut board = Board::new(&workload::plan(10, 1));
        let start = Instant::now();
        let mut tell = |ms, what| board.take(News { index: 3, at: start + Duration::from_millis(ms), what });
        tell(0, What::Accepted { prompt_id: "p".into() });
        tell(40, What::Started);
        tell(50, What::Doing(Doing::Sampling { percent: 10 }));
        tell(100, What::Finished);
        tell(120, What::Checked(Ok(1)));
        let job = JobId::mint();
        board.name("p", job);
        board.name("unknown", JobId::mint());
        let entry = board.by_job(job).expect("is named");
        assert_eq!(entry.wait(), Some(Duration::from_millis(40)));
        assert_eq!(entry.response(), Some(Duration::from_millis(100)));
        assert_eq!(board.counts(), Counts { planned: 10, accepted: 1, done: 1, ..Counts::default() });
    }
}
