//! Looks at the router as any operator would: through the admin listener's JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::board::Board;
use super::http::Http;
use super::scrape::Scrape;
use crate::model::decision::{DecisionRecord, Hook, PolicyVersion};
use crate::model::id::{InstanceId, JobId};
use crate::model::job::{ModelRef, WallMs};
use crate::policy::Shipped;

/// How often [`Watch::look`] is called.
pub(super) const EVERY: Duration = Duration::from_millis(250);
/// Jobs whose last decision is kept to be shown.
const SHOWN: usize = 20;

#[derive(Debug, Default, Deserialize)]
struct Fleet {
    instances: Vec<Instance>,
    gpus: Vec<Device>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Instance {
    pub(super) name: InstanceId,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) running: Vec<JobId>,
    #[serde(default)]
    pub(super) free_slots: u32,
    #[serde(default)]
    pub(super) resident_models: Vec<ModelRef>,
    gpu: Option<Age>,
}

#[derive(Debug, Clone, Deserialize)]
struct Age {
    reading_age_ms: Option<u64>,
}

/// One GPU's reading.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Device {
    pub(super) index: Option<u32>,
    pub(super) utilization_percent: Option<f32>,
    pub(super) memory_used_bytes: Option<u64>,
    pub(super) memory_total_bytes: Option<u64>,
    pub(super) temperature_c: Option<f32>,
    pub(super) power_mw: Option<u32>,
    pub(super) power_limit_mw: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Policy {
    pub(super) serving: PolicyVersion,
    pub(super) refused: Option<Refused>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Refused {
    pub(super) at: WallMs,
    pub(super) message: String,
}

/// What one card did over the run so far: the mean and the highest of its readings at every look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Card {
    looks: u32,
    utilization: f64,
    pub(super) peak_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) peak_c: f32,
}

impl Card {
    pub(super) fn mean_utilization(&self) -> f64 {
        self.utilization / f64::from(self.looks.max(1))
    }

    fn add(&mut self, device: &Device) {
        self.looks += 1;
        self.utilization += f64::from(device.utilization_percent.unwrap_or_default());
        self.peak_bytes = self.peak_bytes.max(device.memory_used_bytes.unwrap_or_default());
        self.total_bytes = device.memory_total_bytes.unwrap_or_default();
        self.peak_c = self.peak_c.max(device.temperature_c.unwrap_or_default());
    }
}

/// The latest of everything.
#[derive(Debug)]
pub(super) struct Watch {
    http: Http,
    pub(super) instances: Vec<Instance>,
    pub(super) devices: Vec<Device>,
    pub(super) policy: Policy,
    /// The last one of each job, newest first.
    pub(super) decisions: Vec<DecisionRecord>,
    /// By driver index.
    pub(super) cards: BTreeMap<u32, Card>,
}

impl Watch {
    /// # Errors
    /// When the admin listener does not answer, or not as expected.
    pub(super) async fn new(admin: SocketAddr) -> anyhow::Result<Self> {
        let http = Http::new(admin, "");
        let policy = read(&http, "/api/policy").await?;
        let (instances, devices, decisions, cards) = Default::default();
        Ok(Self { http, instances, devices, policy, decisions, cards })
    }

    /// # Errors
    /// As [`Watch::new`].
    pub(super) async fn look(&mut self, board: &mut Board) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Decisions {
            decisions: Vec<DecisionRecord>,
        }
        #[derive(Deserialize)]
        struct Jobs {
            jobs: Vec<Job>,
        }
        #[derive(Deserialize)]
        struct Job {
            id: JobId,
            prompt_id: String,
        }
        let fleet: Fleet = read(&self.http, "/api/fleet").await?;
        (self.instances, self.devices) = (fleet.instances, fleet.gpus);
        for device in &self.devices {
            self.cards.entry(device.index.unwrap_or_default()).or_default().add(device);
        }
        self.policy = read(&self.http, "/api/policy").await?;
        let jobs: Jobs = read(&self.http, "/api/jobs?limit=200").await?;
        for job in jobs.jobs {
            board.name(&job.prompt_id, job.id);
        }
        let decisions: Decisions = read(&self.http, "/api/decisions?limit=200").await?;
        self.decisions = newest_by_job(decisions.decisions);
        Ok(())
    }

    /// The metrics as they are now.
    pub(super) async fn scrape(&self) -> anyhow::Result<Scrape> {
        Ok(Scrape::parse(&String::from_utf8_lossy(&self.http.get("/metrics").await?)))
    }

    /// One job with its attempts.
    pub(super) async fn job<T: DeserializeOwned>(&self, prompt_id: &str) -> anyhow::Result<T> {
        read(&self.http, &format!("/api/jobs/{prompt_id}")).await
    }
}

impl Instance {
    /// Of its card's reading.
    pub(super) fn reading_age(&self) -> Option<Duration> {
        self.gpu.as_ref()?.reading_age_ms.map(Duration::from_millis)
    }
}

async fn read<T: DeserializeOwned>(http: &Http, path: &str) -> anyhow::Result<T> {
    let body = http.get(path).await?;
    serde_json::from_slice(&body).map_err(|error| anyhow::anyhow!("the router's answer to {path}: {error}"))
}

/// Where jobs were sent, held or tried again: the last word on each. The questions asked of every job alike are counted
/// in the summary.
fn newest_by_job(newest_first: Vec<DecisionRecord>) -> Vec<DecisionRecord> {
    let mut shown: Vec<DecisionRecord> = Vec::new();
    let telling =
        |record: &DecisionRecord| matches!(record.hook, Hook::Route | Hook::OnFailure | Hook::OnTimeout);
    for record in newest_first.into_iter().filter(telling) {
        if shown.len() < SHOWN && shown.iter().all(|seen| seen.job != record.job) {
            shown.push(record);
        }
    }
    shown
}

/// `name@digest`, the digest short; the built-in has none.
pub(super) fn named(version: &PolicyVersion) -> String {
    short(&match version.digest.is_empty() {
        true => version.name.to_string(),
        false => format!("{}@{}", version.name, version.digest),
    })
}

/// A version as metrics name it, the digest short. The router calls a policy by its file, which is `policy` whatever lies
/// there; the digest tells which of the shipped ones it is.
pub(super) fn short(version: &str) -> String {
    let Some((name, digest)) = version.split_once('@') else { return version.to_owned() };
    let name =
        shipped_digests().iter().find(|(_, known)| known.starts_with(digest)).map_or(name, |(name, _)| *name);
    format!("{name}@{}", digest.chars().take(6).collect::<String>())
}

fn shipped_digests() -> &'static [(&'static str, String)] {
    static DIGESTS: LazyLock<Vec<(&'static str, String)>> = LazyLock::new(|| {
        let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Shipped::ALL.iter().map(|policy| (policy.name(), hex(policy.bytes()))).collect()
    });
    &DIGESTS
}

/// Since a wall-clock time.
pub(super) fn since(at: WallMs) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hook: Hook, job: JobId, said: &str) -> DecisionRecord {
        DecisionRecord {
            at: 0,
            hook,
            version: PolicyVersion { name: "p".into(), digest: "0123456789ab".into() },
            fallback: None,
            seen: None,
            took_us: 1,
            said: said.into(),
            reason: String::new(),
            job: Some(job),
            did: None,
            instance: None,
        }
    }

    #[test]
    fn a_job_shows_its_last_decision_only() {
        let (one, other) = (JobId::mint(), JobId::mint());
        let records = vec![
            record(Hook::Route, one, "gpu0"),
            record(Hook::Admit, one, "admit"),
            record(Hook::Route, other, "gpu1"),
            record(Hook::Route, one, "hold 500 ms"),
        ];
        let shown: Vec<String> = newest_by_job(records).into_iter().map(|record| record.said).collect();
        assert_eq!(shown, ["gpu0", "gpu1"]);
    }

    #[test]
    fn digests_are_shortened() {
        assert_eq!(named(&record(Hook::Tick, JobId::mint(), "").version), "p@012345");
        assert_eq!([short("builtin"), short("a@x12")], ["builtin", "a@x12"]);
        let (name, digest) = &shipped_digests()[0];
        assert_eq!(short(&format!("policy@{}", &digest[..12])), format!("{name}@{}", &digest[..6]));
    }

    #[test]
    fn a_card_remembers_its_mean_and_its_peak() {
        let mut card = Card::default();
        for (percent, used) in [(100.0, 5), (50.0, 9), (0.0, 7)] {
            let reading = Device {
                utilization_percent: Some(percent),
                memory_used_bytes: Some(used),
                memory_total_bytes: Some(10),
                ..Device::default()
            };
            card.add(&reading);
        }
        assert_eq!((card.mean_utilization(), card.peak_bytes, card.total_bytes), (50.0, 9, 10));
    }
}
