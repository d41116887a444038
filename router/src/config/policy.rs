//! The `[policy]` section.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// A component; watched, so that a new file takes over while jobs run. Absent: the shipped policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Waiting jobs that a policy which exports `placement` is asked about at once.
    pub window: u32,
    /// Handed to the policy as JSON; it says itself what it understands.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Components of their own for some interfaces: `housekeeping = "guard"`, a file or the name of a shipped policy, or
    /// a table with `file` and `settings`. Interfaces with the same file share one component.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<String, HookFile>,
    pub limits: PolicyLimits,
    pub state: PolicyState,
    pub canary: PolicyCanary,
    pub record: PolicyRecord,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            file: None,
            window: 32,
            settings: serde_json::Map::new(),
            hooks: BTreeMap::new(),
            limits: PolicyLimits::default(),
            state: PolicyState::default(),
            canary: PolicyCanary::default(),
            record: PolicyRecord::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HookFile {
    File(PathBuf),
    Table(HookTable),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookTable {
    pub file: PathBuf,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl HookFile {
    pub fn file(&self) -> &PathBuf {
        match self {
            Self::File(file) | Self::Table(HookTable { file, .. }) => file,
        }
    }

    pub fn file_mut(&mut self) -> &mut PathBuf {
        match self {
            Self::File(file) | Self::Table(HookTable { file, .. }) => file,
        }
    }

    pub fn settings(&self) -> serde_json::Map<String, serde_json::Value> {
        match self {
            Self::File(_) => serde_json::Map::new(),
            Self::Table(table) => table.settings.clone(),
        }
    }
}

/// What one policy may remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyState {
    pub keys: u32,
    pub kib: u32,
}

impl Default for PolicyState {
    fn default() -> Self {
        Self { keys: 10_000, kib: 4_096 }
    }
}

/// When a canary fares so badly that it is returned. Integers, so that what is shown is what was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyCanary {
    /// Ended attempts of its jobs, and of the others, before they are compared.
    pub attempts: u32,
    /// More of its attempts fail than of the others, by this share of all.
    pub failures_percent: u32,
    /// Its jobs wait longer than the others, by this part of their mean wait and `wait_ms` besides.
    pub wait_percent: u32,
    pub wait_ms: u32,
}

impl Default for PolicyCanary {
    fn default() -> Self {
        Self { attempts: 20, failures_percent: 10, wait_percent: 50, wait_ms: 500 }
    }
}

/// What is kept of decisions for `policy replay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyRecord {
    /// Of the last ones in memory; 0 keeps none.
    pub ring_kib: u32,
    /// Where all of them are written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// A file is ended at this size; of more than `files` the oldest is deleted.
    pub file_mib: u32,
    pub files: u32,
}

impl Default for PolicyRecord {
    fn default() -> Self {
        Self { ring_kib: 4_096, dir: None, file_mib: 64, files: 16 }
    }
}

/// What one call of a policy may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyLimits {
    pub deadline_ms: u64,
    pub memory_mib: u32,
    pub host_calls: u32,
    /// Failures in a row after which the policy is replaced by the last good one.
    pub failures: u32,
    /// Compiling a component, which nothing waits for but its start or its swap.
    pub compile_s: u64,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self { deadline_ms: 5, memory_mib: 64, host_calls: 10_000, failures: 3, compile_s: 120 }
    }
}
