//! What an operator may set about scheduling.

use serde::{Deserialize, Serialize};

use crate::model::decision::Limits;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoreConfig {
    /// Attempts a job may have in all, whatever the policy says.
    pub max_attempts: u32,
    /// How long the policy may hold one job in all, in milliseconds.
    pub max_hold_ms: u64,
    /// Prompts that may wait in the router; one more is answered 429.
    pub max_queued: usize,
    /// Prompts of one tenant that may wait.
    pub max_queued_per_tenant: usize,
    /// How long an instance may take to confirm an interrupt before the attempt is given up, in milliseconds.
    pub interrupt_grace_ms: u64,
    /// Silence of a running attempt after which its instance is asked about it, in milliseconds.
    pub silence_ms: u64,
    /// Time between two calls of the `housekeeping` hook, in milliseconds.
    pub housekeeping_ms: u64,
    /// Upper bounds on the limits a policy may give; none leaves that limit unbounded.
    pub max_limits: Limits,
    /// Large texts of waiting jobs that are kept in memory; those of the others are read from the ledger when needed.
    pub text_bytes: usize,
    pub quarantine: QuarantineConfig,
    /// How many main models (checkpoints, diffusion models) an instance is believed to keep loaded.
    pub resident_models: usize,
    /// Waiting jobs that a policy which exports `placement` is asked about at once.
    pub window: usize,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_hold_ms: 60_000,
            max_queued: 10_000,
            max_queued_per_tenant: 1_000,
            interrupt_grace_ms: 30_000,
            silence_ms: 10_000,
            housekeeping_ms: 1_000,
            max_limits: Limits::default(),
            text_bytes: 16 << 20,
            quarantine: QuarantineConfig::default(),
            resident_models: 1,
            window: 32,
        }
    }
}

/// When an instance is given nothing more, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineConfig {
    /// Attempts that fail through the instance's fault, within `window_ms`.
    pub failures: u32,
    pub window_ms: u64,
    /// Until the first attempt is risked again; doubles each time.
    pub pause_ms: u64,
    /// How long it may hold on to an attempt that was given up before it is restarted.
    pub restart_after_ms: u64,
    /// Least time between two restarts of one instance.
    pub restart_pause_ms: u64,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            window_ms: 30_000,
            pause_ms: 30_000,
            restart_after_ms: 120_000,
            restart_pause_ms: 300_000,
        }
    }
}
