//! Looks at the router from outside its loops: who runs where, readings, decisions, the policy in charge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::board::Board;
use crate::app;
use crate::model::decision::{DecisionRecord, Hook, PolicyVersion};
use crate::model::id::{InstanceId, JobId};
use crate::policy::PolicyStatus;
use crate::telemetry::Readings;

/// Records read at each look; between two looks there are far fewer.
const DECISIONS: u32 = 200;
/// Jobs whose last decision is kept to be shown.
const SHOWN: usize = 20;

#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) version: Option<Arc<str>>,
    /// None: it is up.
    pub(super) down: Option<String>,
    pub(super) live: Vec<JobId>,
    pub(super) free_slots: u32,
    pub(super) resident: Vec<String>,
}

/// What one card did over the run so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Card {
    samples: u32,
    utilization: f64,
    pub(super) peak_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) peak_c: f32,
    last_seen: Option<crate::clock::Tick>,
}

impl Card {
    pub(super) fn mean_utilization(&self) -> f64 {
        self.utilization / f64::from(self.samples.max(1))
    }
}

/// The latest of everything.
#[derive(Debug)]
pub(super) struct Watch {
    handles: app::Handles,
    pub(super) instances: Vec<Instance>,
    pub(super) readings: Arc<Readings>,
    pub(super) policy: PolicyStatus,
    /// The last one of each job, newest first.
    pub(super) decisions: Vec<DecisionRecord>,
    /// By driver index.
    pub(super) cards: BTreeMap<u32, Card>,
}

impl Watch {
    pub(super) fn new(handles: app::Handles) -> Self {
        let policy = handles.policy.status();
        Self {
            readings: handles.telemetry.snapshot(),
            handles,
            instances: Vec::new(),
            policy,
            decisions: Vec::new(),
            cards: BTreeMap::new(),
        }
    }

    /// # Errors
    /// When a part of the router has stopped.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        let reports = self.handles.scheduler.fleet().await?;
        let infos = self.handles.fleet.instances();
        self.instances = infos.iter().zip(reports).map(|(info, report)| instance(info, report)).collect();
        self.policy = self.handles.policy.status();
        self.readings = self.handles.telemetry.snapshot();
        self.account();
        let recent = self.handles.ledger.decisions(DECISIONS).await?;
        self.decisions = newest_by_job(recent);
        Ok(())
    }

    /// Each sample counts once.
    fn account(&mut self) {
        for reading in &self.readings.devices {
            let card = self.cards.entry(reading.device.index.unwrap_or_default()).or_default();
            if card.last_seen.replace(reading.sampled) == Some(reading.sampled) {
                continue;
            }
            card.samples += 1;
            card.utilization += f64::from(reading.device.utilization_percent.unwrap_or_default());
            card.peak_bytes = card.peak_bytes.max(reading.device.memory_used_bytes.unwrap_or_default());
            card.total_bytes = reading.device.memory_total_bytes.unwrap_or_default();
            card.peak_c = card.peak_c.max(reading.device.temperature_c.unwrap_or_default());
        }
    }

    /// Finds the job of a prompt that was accepted just now.
    pub(super) async fn name(&self, prompt_id: &str, board: &mut Board) -> anyhow::Result<()> {
        if let Some(row) = self.handles.ledger.job(prompt_id).await? {
            board.name(prompt_id, row.job.id);
        }
        Ok(())
    }

    pub(super) fn ledger(&self) -> &crate::ledger::Handle {
        &self.handles.ledger
    }

    /// Age of a reading.
    pub(super) fn age(&self, sampled: crate::clock::Tick) -> Duration {
        Duration::from_millis(self.handles.clock.now().tick.since(sampled))
    }
}

fn instance(info: &crate::fleet::InstanceInfo, report: crate::scheduler::InstanceReport) -> Instance {
    let down = match &info.state {
        crate::fleet::State::Up => None,
        crate::fleet::State::Starting => Some("starting".to_owned()),
        crate::fleet::State::Down { reason } => Some(reason.to_string()),
    };
    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    Instance {
        id: info.id.clone(),
        version: info.version.clone(),
        down,
        live: report.live,
        free_slots: report.free_slots,
        resident: report.resident.iter().map(|model| stem(&model.name)).collect(),
    }
}

/// Where jobs were sent, held or tried again: the last word on each. The questions asked of every job alike are counted
/// in the summary.
fn newest_by_job(newest_first: Vec<DecisionRecord>) -> Vec<DecisionRecord> {
    let mut shown: Vec<DecisionRecord> = Vec::new();
    let telling = |record: &DecisionRecord| matches!(record.hook, Hook::Route | Hook::OnFailure | Hook::OnTimeout);
    for record in newest_first.into_iter().filter(telling) {
        if shown.len() < SHOWN && shown.iter().all(|seen| seen.job != record.job) {
            shown.push(record);
        }
    }
    shown
}

/// `name@digest`, the digest short; the built-in has none.
pub(super) fn named(version: &PolicyVersion) -> String {
    match version.digest.get(..6) {
        Some(digest) => format!("{}@{digest}", version.name),
        None => version.name.to_string(),
    }
}

/// Since a wall-clock time.
pub(super) fn since(at: crate::model::job::WallMs) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(at))
}
