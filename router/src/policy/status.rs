//! What an operator is shown of the policy.

use serde::Serialize;

use super::error::LoadError;
use super::record;
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
    /// The last component that was refused.
    pub refused: Option<Refused>,
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
    /// File name or name of the upload.
    pub name: String,
    pub reason: &'static str,
    pub message: String,
}

impl PolicyStatus {
    pub(crate) fn builtin(now: WallMs) -> Self {
        Self { serving: record::builtin_version(), since: now, newest: None, last_good: None, refused: None }
    }

    pub(crate) fn refuse(&mut self, at: WallMs, name: String, error: &LoadError) {
        self.refused = Some(Refused { at, name, reason: error.reason(), message: error.to_string() });
    }
}
