//! What an operator can set about the policy, with the reasons for the defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recording::RecordConfig;
use super::shipped::Shipped;
use super::state::StateLimits;
use crate::model::decision::Limits;
pub use crate::model::policy::Interface;

/// The `[policy]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The component. Watched: a new file replaces the policy while jobs run. None is the shipped one.
    pub file: Option<PathBuf>,
    /// Which of the policies that come with the router serves when no file is given.
    pub shipped: Shipped,
    /// Ask no component at all: the built-in answers everything.
    pub builtin_only: bool,
    /// Components of their own for some hooks.
    #[serde(skip)]
    pub extra: Vec<Extra>,
    /// Handed to the policy's `configure` as JSON.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Put a changed file into service without a restart.
    pub watch: bool,
    /// How often the file is looked at when no change was announced (some file systems announce none).
    pub poll_ms: u64,
    pub limits: GuestLimits,
    pub bounds: Bounds,
    pub breaker: Breaker,
    pub canary: CanaryLimits,
    pub builtin: Builtin,
    pub state: StateLimits,
    pub record: RecordConfig,
    /// Where the host keeps what survives a restart; none keeps nothing.
    #[serde(skip)]
    pub dir: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            shipped: Shipped::default(),
            builtin_only: false,
            extra: Vec::new(),
            settings: serde_json::Map::new(),
            watch: true,
            poll_ms: 2_000,
            limits: GuestLimits::default(),
            bounds: Bounds::default(),
            breaker: Breaker::default(),
            canary: CanaryLimits::default(),
            builtin: Builtin::default(),
            state: StateLimits::default(),
            record: RecordConfig::default(),
            dir: None,
        }
    }
}

/// A component that serves some hooks in the policy's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Extra {
    pub interfaces: Vec<Interface>,
    pub component: Component,
    pub settings: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    File(PathBuf),
    Shipped(Shipped),
}

impl Extra {
    /// As operators call it: its interfaces.
    pub(crate) fn name(&self) -> String {
        let names: Vec<&str> = self.interfaces.iter().map(|interface| interface.as_str()).collect();
        names.join("+")
    }
}

impl Config {
    /// Mistakes a type cannot catch, each as a sentence naming its key.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut positive = |key: &str, value: u64| {
            if value == 0 {
                found.push(format!("policy.{key} must be at least 1"));
            }
        };
        positive("poll_ms", self.poll_ms);
        positive("limits.call_ms", self.limits.call_ms);
        positive("limits.configure_ms", self.limits.configure_ms);
        positive("limits.compile_s", self.limits.compile_s);
        positive("limits.memory_mib", self.limits.memory_mib.into());
        positive("limits.transfer_kib", self.limits.transfer_kib.into());
        positive("limits.rows", self.limits.rows.into());
        positive("limits.component_mib", self.limits.component_mib.into());
        positive("breaker.failures", self.breaker.failures.into());
        positive("canary.attempts", self.canary.attempts.into());
        positive("state.keys", self.state.keys.into());
        positive("state.kib", self.state.kib.into());
        positive("record.file_mib", self.record.file_mib.into());
        positive("record.files", self.record.files.into());
        positive("bounds.max_hold_ms", self.bounds.max_hold_ms.into());
        positive("bounds.max_extend_ms", self.bounds.max_extend_ms.into());
        if self.limits.stack_kib < 64 {
            found.push("policy.limits.stack_kib must be at least 64".to_owned());
        }
        if !self.builtin.ageing_per_second.is_finite() || self.builtin.ageing_per_second < 0.0 {
            found.push("policy.builtin.ageing_per_second must be a number of at least 0".to_owned());
        }
        found
    }
}

/// What a guest may use. Each has a hostile fixture that breaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuestLimits {
    /// Wall time of one call. A warm call of a small policy takes about 5 us, an interpreted one some hundred.
    pub call_ms: u64,
    /// Wall time of `configure`, which may parse and build tables.
    pub configure_ms: u64,
    /// All linear memories of one guest together.
    pub memory_mib: u32,
    pub stack_kib: u32,
    /// Host functions called within one call.
    pub host_calls: u32,
    /// What one call may hand over to the host, before it is looked at. Bounds the host's own memory.
    pub transfer_kib: u32,
    /// What `log.write` may write.
    pub log_bytes_per_second: u32,
    /// Longer texts in an answer are cut.
    pub text_bytes: u32,
    /// Rows of a list in an answer; a longer list is a bad answer.
    pub rows: u32,
    /// Size of the component file. A Python guest has about 18 MiB.
    pub component_mib: u32,
    /// Compiling, which yields to everything else the machine does. A Python guest takes about 15 s of an idle core.
    pub compile_s: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            call_ms: 5,
            configure_ms: 100,
            memory_mib: 64,
            stack_kib: 512,
            host_calls: 10_000,
            transfer_kib: 2 * 1024,
            log_bytes_per_second: 64 * 1024,
            text_bytes: 4 * 1024,
            rows: 1_024,
            component_mib: 64,
            compile_s: 120,
        }
    }
}

impl GuestLimits {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_mib as usize * 1024 * 1024
    }

    pub(crate) fn call(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }
}

/// The most any answer may ask for; more is cut down to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// One `hold`.
    pub max_hold_ms: u32,
    /// One `extend`.
    pub max_extend_ms: u32,
    /// Delay before a retry.
    pub max_retry_delay_ms: u32,
    /// `queue_ms` of a job; none is no bound.
    pub max_queue_ms: Option<u32>,
    /// `run_ms` of an attempt.
    pub max_run_ms: Option<u32>,
    /// `stall_ms` of an attempt.
    pub max_stall_ms: Option<u32>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_hold_ms: 60_000,
            max_extend_ms: 3_600_000,
            max_retry_delay_ms: 600_000,
            max_queue_ms: None,
            max_run_ms: None,
            max_stall_ms: None,
        }
    }
}

/// When a failing version is taken out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Failures of one hook in a row.
    pub failures: u32,
    /// Until the first trial call afterwards; doubles with every trial that fails, up to `max_probe_ms`.
    pub probe_ms: u64,
    pub max_probe_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 3, probe_ms: 10_000, max_probe_ms: 300_000 }
    }
}

/// When a canary is returned: compared with the other jobs, once enough is known of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryLimits {
    /// Ended attempts on both sides before they are compared.
    pub attempts: u32,
    /// Failing attempts more than the others, as a share of all.
    pub failures_percent: u32,
    /// Mean wait beyond that of the others, as a part of it ...
    pub wait_percent: u32,
    /// ... and what is too little to mind.
    pub wait_ms: u32,
}

impl Default for CanaryLimits {
    fn default() -> Self {
        Self { attempts: 20, failures_percent: 10, wait_percent: 50, wait_ms: 500 }
    }
}

/// How the built-in answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Builtin {
    /// Limits of every job, unless a policy sets others.
    pub limits: Limits,
    /// One class is 100 points; at the default a batch job overtakes a fresh interactive one after 200 s.
    pub ageing_per_second: f64,
    /// Attempts a failed job gets in all.
    pub attempts: u32,
}

impl Default for Builtin {
    fn default() -> Self {
        Self { limits: Limits::default(), ageing_per_second: 1.0, attempts: 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_the_default_and_a_typo_is_named() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
        let error = toml::from_str::<Config>("flie = 'a.wasm'").unwrap_err().to_string();
        assert!(error.contains("flie"), "{error}");
        assert!(Config::default().problems().is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_key() {
        let config: Config =
            toml::from_str("[limits]\ncall_ms = 0\nstack_kib = 1\n[builtin]\nageing_per_second = -1.0")
                .unwrap();
        let problems = config.problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        for key in ["limits.call_ms", "limits.stack_kib", "builtin.ageing_per_second"] {
            assert!(problems.iter().any(|p| p.contains(key)), "{key} in {problems:?}");
        }
    }
}
