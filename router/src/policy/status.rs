//! What an operator is shown of the policy.

use std::sync::Arc;

use serde::Serialize;

use super::canary::CanaryReport;
use super::orders::Ordered;
use super::record;
use super::recording::RecordStatus;
use super::shadow::ShadowReport;
use crate::model::decision::{Fallback, Hook, PolicyVersion};
use crate::model::job::WallMs;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// What answers now.
    pub serving: PolicyVersion,
    pub since: WallMs,
    /// The newest version that was put into service; not the serving one while it is switched off.
    pub newest: Option<VersionStatus>,
    /// What is returned to when the newest fails.
    pub last_good: Option<VersionStatus>,
    /// The last component, or settings of the one that serves, that were refused; none once others were taken in their place.
    pub refused: Option<Refused>,
    /// Each component's place: the first is the policy's own, others serve the hooks that `policy.hooks` gives them.
    pub lanes: Vec<LaneStatus>,
    /// Every version known, the newest of each lane first.
    pub versions: Vec<VersionRow>,
    /// What operators ordered that holds after a restart, until what is configured changes.
    pub ordered: Vec<Ordered>,
    /// What is kept of its decisions for `policy replay`.
    pub record: RecordStatus,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneStatus {
    pub lane: Arc<str>,
    pub serving: PolicyVersion,
    pub newest: Option<VersionStatus>,
    pub last_good: Option<VersionStatus>,
    pub canary: Option<CanaryReport>,
    pub shadow: Option<ShadowReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionStatus {
    pub version: PolicyVersion,
    /// Hooks it exports.
    pub hooks: Vec<Hook>,
    pub bytes: u64,
    /// Why and since when it is switched off.
    pub ejected: Option<Ejected>,
}

/// A version's place in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Live,
    Shadow,
    Canary,
    LastGood,
    /// Refused, or switched off, or a canary that did worse.
    Failed,
    Retired,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionRow {
    pub lane: Arc<str>,
    pub version: PolicyVersion,
    pub state: State,
    /// The file it was read from, `upload`, or `shipped`.
    pub origin: Arc<str>,
    /// When it was loaded.
    pub at: WallMs,
    pub hooks: Vec<Hook>,
    pub bytes: u64,
    /// Why it is in this state, where that is worth a word.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ejected {
    pub hook: Hook,
    pub reason: Fallback,
    /// Until it is tried again.
    pub probe_in_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refused {
    pub at: WallMs,
    pub lane: Arc<str>,
    /// File name or name of the upload.
    pub name: String,
    /// Where the component is from; none where only other settings were refused.
    pub origin: Option<Arc<str>>,
    pub reason: &'static str,
    pub message: String,
}

impl PolicyStatus {
    pub(crate) fn builtin(now: WallMs) -> Self {
        Self {
            serving: record::builtin_version(),
            since: now,
            newest: None,
            last_good: None,
            refused: None,
            lanes: Vec::new(),
            versions: Vec::new(),
            ordered: Vec::new(),
            record: RecordStatus::default(),
        }
    }

    /// What was refused before is over when the same was taken: a component of that name from the same place, or settings.
    pub(crate) fn take(&mut self, lane: &Arc<str>, name: &str, origin: Option<&Arc<str>>) {
        let the_same = |refused: &mut Refused| {
            refused.lane == *lane
                && refused.origin.as_ref() == origin
                && (origin.is_none() || refused.name == name)
        };
        self.refused.take_if(the_same);
    }
}
