//! What was decided and from what, kept so that it can be decided again: the last ones in memory, and all of them in files if
//! the operator names a folder. Owns the thread `policy-record`; never makes a decision wait.
//!
//! Recorded is what a policy could have seen, but not the graph of a job: `workflow.input`, `nodes` and `graph` find nothing
//! in a replay. Of the clients only those of the jobs in question are recorded, and the catalogues of instances are not.

mod entry;
mod files;

pub(crate) use entry::{Reader, Saying, Writer};

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::metrics;
use crate::model::decision::{Consultation, Decided, DecisionRecord, Fallback, Question};
use files::Files;

/// Decisions on their way to the thread. With more, some are not recorded, and counted.
const WAITING: usize = 256;

/// The `[policy.record]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordConfig {
    /// KiB of the last decisions kept in memory; 0 keeps none.
    pub ring_kib: u32,
    /// Where all of them are written to; none writes none.
    pub dir: Option<PathBuf>,
    /// A file is ended when it is this large, and the oldest of more than `files` is deleted.
    pub file_mib: u32,
    pub files: u32,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self { ring_kib: 4 * 1024, dir: None, file_mib: 64, files: 16 }
    }
}

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    sender: Option<SyncSender<(Arc<Consultation>, Vec<DecisionRecord>)>>,
    ring: Arc<Mutex<Ring>>,
}

/// What an operator is shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RecordStatus {
    /// Questions recorded since the start.
    pub recorded: u64,
    /// Questions that came faster than they could be written down: a replay lacks them.
    pub dropped: u64,
    /// Of the recorded ones, those that are still in memory.
    pub in_memory: usize,
    /// Why nothing is written to `policy.record.dir` any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_ended: Option<String>,
}

#[derive(Debug, Default)]
struct Ring {
    /// No larger than they are long, so that `bytes` is what they take.
    lines: VecDeque<Box<str>>,
    bytes: usize,
    most: usize,
    status: RecordStatus,
}

impl Recorder {
    /// None of it runs when nothing is to be kept.
    pub(crate) fn start(config: &RecordConfig) -> std::io::Result<Self> {
        if config.ring_kib == 0 && config.dir.is_none() {
            return Ok(Self::default());
        }
        let (sender, decisions) = sync_channel(WAITING);
        let ring = Arc::new(Mutex::new(Ring { most: config.ring_kib as usize * 1024, ..Ring::default() }));
        let files = config.dir.clone().map(|dir| Files::new(dir, config.file_mib, config.files));
        let shared = ring.clone();
        std::thread::Builder::new()
            .name("policy-record".to_owned())
            .spawn(move || record(&decisions, &shared, files))?;
        Ok(Self { sender: Some(sender), ring })
    }

    pub(crate) fn note(&self, consultation: &Arc<Consultation>, decided: &Decided) {
        let Some(sender) = &self.sender else { return };
        if asked_nobody(consultation, decided) {
            return;
        }
        if let Err(TrySendError::Full(_)) = sender.try_send((consultation.clone(), decided.records.clone())) {
            self.ring().status.dropped += 1;
            metrics::policy_recording_dropped();
        }
    }

    pub(crate) fn status(&self) -> RecordStatus {
        let ring = self.ring();
        RecordStatus { in_memory: ring.lines.len(), ..ring.status.clone() }
    }

    /// The last decisions, oldest first, as `policy replay` reads them.
    pub(crate) fn lines(&self) -> String {
        let ring = self.ring();
        let mut text = String::with_capacity(ring.bytes + ring.lines.len());
        for line in &ring.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every second one; a day of them would be most of a recording and tell nothing.
fn asked_nobody(consultation: &Consultation, decided: &Decided) -> bool {
    matches!(consultation.question, Question::Tick { .. })
        && decided
            .records
            .iter()
            .all(|record| record.fallback == Some(Fallback::NotExported) || record.version.digest.is_empty())
}

impl Ring {
    fn push(&mut self, line: String) {
        self.status.recorded += 1;
        // One that never fits would push out all others before it went itself.
        if line.len() > self.most {
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line.into_boxed_str());
        while self.bytes > self.most {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

/// Until every recorder is gone.
fn record(
    decisions: &Receiver<(Arc<Consultation>, Vec<DecisionRecord>)>,
    ring: &Mutex<Ring>,
    mut files: Option<Files>,
) {
    let mut writer = Writer::default();
    for (consultation, records) in decisions {
        // What stands on its own, because the entries before may be gone when the ring is read.
        let line = Writer::default().line(&consultation, &records);
        ring.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        if let Some(open) = &mut files {
            if open.begins_new() {
                writer = Writer::default();
            }
            if let Err(error) = open.write(&writer.line(&consultation, &records)) {
                tracing::error!(dir = %open.dir().display(), %error, "decisions are no longer recorded in files");
                ring.lock().unwrap_or_else(PoisonError::into_inner).status.files_ended =
                    Some(error.to_string());
                files = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::PolicyVersion;
    use crate::policy::config::Config;
    use crate::policy::record::{builtin_version, natively};
    use crate::policy::sample;

    #[test]
    fn the_ring_forgets_the_oldest() {
        let mut ring = Ring { most: 10, ..Ring::default() };
        for text in ["aaaa", "bbbb", "cccc"] {
            ring.push(text.to_owned());
        }
        assert_eq!(ring.lines, ["bbbb".into(), "cccc".into()]);
        ring.push("x".repeat(11));
        assert_eq!((ring.lines.len(), ring.bytes), (2, 8), "more than fits is not kept, and costs no other");
        assert_eq!(ring.status.recorded, 4);
    }

    #[test]
    fn what_comes_too_fast_is_counted_and_ticks_that_nobody_is_asked_are_not_recorded() {
        let config = Config::default();
        let (asked, version) = (sample::ask(1, 2, sample::question(0, 1, 2)), builtin_version());
        let asked = Arc::new(asked);
        let decided = natively(&asked, &config, &version, None, 1);
        // Nobody takes from the channel: the first fits, the second does not.
        let (sender, _taken) = sync_channel(1);
        let recorder = Recorder { sender: Some(sender), ring: Arc::default() };
        recorder.note(&asked, &decided);
        assert_eq!(recorder.status().dropped, 0);
        recorder.note(&asked, &decided);
        assert_eq!(recorder.status().dropped, 1);
        let tick = Arc::new(sample::ask(1, 2, Question::Tick { instances: Vec::new() }));
        let answered = natively(&tick, &config, &version, None, 1);
        recorder.note(&tick, &answered);
        assert_eq!(recorder.status().dropped, 1, "no one was asked");
        let policy = PolicyVersion { name: "p".into(), digest: "0".into() };
        recorder.note(&tick, &natively(&tick, &config, &policy, None, 1));
        assert_eq!(recorder.status().dropped, 2);
    }
}
