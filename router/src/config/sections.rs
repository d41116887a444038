//! The sections of the file, each with its defaults. A key's doc comment is its reference.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Looked for when no instance is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discover {
    pub hosts: Vec<String>,
    /// `first-last`, both tried.
    pub ports: PortRange,
    /// How long one port may take to answer.
    pub timeout_ms: u64,
}

impl Default for Discover {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1".into()],
            ports: PortRange { first: 8188, last: 8199 },
            timeout_ms: 2_000,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// How instances are watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// Pause between two looks at `/system_stats` and `/queue`.
    pub poll_ms: u64,
    pub connect_timeout_ms: u64,
    /// Patience with an instance that was up. Garbage collection and model loading stop ComfyUI's replies for seconds.
    pub health_timeout_ms: u64,
    /// Failed looks in a row after which an instance is down. A refused connection needs no second.
    pub failures: u32,
    /// Pause between two pings on an instance's websocket.
    pub ping_ms: u64,
    /// Silence after which an instance's websocket counts as dead.
    pub silence_ms: u64,
    /// How long an instance may take to answer a posted prompt; it validates before it answers.
    pub submit_timeout_ms: u64,
    /// Idle connections kept to each instance.
    pub idle_connections: usize,
    /// Silence of a running attempt after which its instance is asked about it; also how often one that was given up is
    /// asked after.
    pub inspect_ms: u64,
    /// Attempts that fail through an instance's fault within `breaker_window_s`, after which it is in quarantine.
    pub breaker_failures: u32,
    pub breaker_window_s: u64,
    /// A quarantine's first length; doubles each time a trial fails, up to ten minutes.
    pub quarantine_s: u64,
    /// How long an instance may keep an attempt that was given up, or answer nothing while it is down, before it is restarted.
    pub restart_after_s: u64,
    /// Least time between two restarts of one instance.
    pub restart_pause_s: u64,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            poll_ms: 3_000,
            connect_timeout_ms: 5_000,
            health_timeout_ms: 30_000,
            failures: 3,
            ping_ms: 10_000,
            silence_ms: 20_000,
            submit_timeout_ms: 60_000,
            idle_connections: 64,
            inspect_ms: 10_000,
            breaker_failures: 5,
            breaker_window_s: 30,
            quarantine_s: 30,
            restart_after_s: 120,
            restart_pause_s: 300,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// Directory of everything durable: jobs, history, uploads. Default: `comfy-router` in the user's state directory.
    pub dir: PathBuf,
    /// Finished jobs kept; the oldest go first. ComfyUI's own limit is 10 000.
    pub history: u32,
    /// Decision records kept.
    pub decisions: u32,
    /// How long the answer to a prompt with an `Idempotency-Key` is remembered.
    pub idempotency_s: u64,
    /// Such answers kept; the oldest go first.
    pub idempotency_keys: u32,
    /// Largest size of the database; beyond it the router takes no jobs, as if the disk were full. Absent: the disk decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_mib: Option<u32>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            history: 10_000,
            decisions: 100_000,
            idempotency_s: 86_400,
            idempotency_keys: 10_000,
            max_file_mib: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Read NVIDIA GPUs through the driver's library, where there is one.
    pub nvml: bool,
    /// Read the imagined cards of emulated instances; for demonstrations and tests.
    pub emulated: bool,
    pub sample_ms: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { nvml: true, emulated: false, sample_ms: 500 }
    }
}

/// Everything a client can make the router hold is bounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Jobs waiting, of everybody.
    pub queue_jobs: usize,
    /// Jobs waiting, of one tenant.
    pub tenant_jobs: usize,
    /// Prompts of waiting jobs that are kept in memory; the others are read from the ledger when they are needed.
    pub queue_memory_bytes: usize,
    /// Attempts of one job, whatever the policy says; without a policy's word a job gets all of them.
    pub attempts: u32,
    /// Body of `POST /prompt`.
    pub prompt_bytes: usize,
    /// Body of an upload.
    pub upload_bytes: u64,
    /// Any other body that the router reads itself.
    pub body_bytes: usize,
    pub header_bytes: usize,
    pub headers: usize,
    /// How long a client may take to send a connection's first head.
    pub header_timeout_ms: u64,
    /// How long a connection is kept for another request.
    pub idle_timeout_ms: u64,
    pub connections: usize,
    /// Websocket messages from clients.
    pub ws_message_bytes: usize,
    /// Messages waiting for one client; previews and progress give way first.
    pub ws_queue_messages: usize,
    pub ws_queue_bytes: usize,
    /// Uploads kept on disk; the longest unused go first.
    pub asset_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_jobs: 10_000,
            tenant_jobs: 1_000,
            queue_memory_bytes: 16 << 20,
            attempts: 3,
            prompt_bytes: 16 << 20,
            upload_bytes: 100 << 20,
            body_bytes: 1 << 20,
            header_bytes: 32 << 10,
            headers: 100,
            header_timeout_ms: 10_000,
            // As aiohttp: a client that asks again meanwhile expects its connection to be there.
            idle_timeout_ms: 75_000,
            connections: 4_096,
            ws_message_bytes: 1 << 20,
            ws_queue_messages: 256,
            ws_queue_bytes: 8 << 20,
            asset_bytes: 10 << 30,
        }
    }
}

/// A job's limits in seconds: what holds when the policy gives none, and what it may give at most. 0 is no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Waiting in the queue.
    pub queue_s: u64,
    pub queue_max_s: u64,
    /// Running.
    pub run_s: u64,
    pub run_max_s: u64,
    /// Running without a sign of progress.
    pub stall_s: u64,
    pub stall_max_s: u64,
    /// How long an instance may take to confirm an interrupt; then its attempt is given up. A node without a progress bar
    /// notices interrupts only when it is done.
    pub interrupt_s: u64,
    /// How long a shutdown waits for running attempts; the rest is taken up again at the next start.
    pub drain_s: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            queue_s: 0,
            queue_max_s: 7 * 86_400,
            run_s: 3_600,
            run_max_s: 86_400,
            stall_s: 600,
            stall_max_s: 7_200,
            interrupt_s: 30,
            drain_s: 30,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Front {
    /// Further host names that browsers may reach the router by; its own addresses always may.
    pub allowed_hosts: Vec<String>,
    /// Request headers that are kept with a job and shown to policies.
    pub headers: Vec<String>,
    /// Who may use the router. Empty: everybody who can reach it, which only a loopback address allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_keys: Vec<ApiKey>,
}

/// What becomes of the files that jobs write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outputs {
    /// Copy every output of a job when it has ended, the pictures of preview nodes included, so that it outlives its instance.
    pub keep: bool,
    /// All copies together; the longest unused go first.
    pub bytes: u64,
    /// How long a copy is kept; 0 is no limit.
    pub age_s: u64,
    /// The instances write to one folder: any of them has every output, and none is copied.
    pub shared: bool,
}

impl Default for Outputs {
    fn default() -> Self {
        Self { keep: false, bytes: 10 << 30, age_s: 30 * 86_400, shared: false }
    }
}

/// A key and the tenant it stands for. Exactly one of `key`, `key_file` and `key_env`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKey {
    /// The tenant's name.
    pub name: String,
    /// The key itself; once loaded it is always here, wherever it came from.
    pub key: Secret,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or a filter such as `info,comfy_router::fleet=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Text that is shown to nobody.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[hidden]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first >= 1 && first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not a port range; write it as \"8188-8199\"")),
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}
