//! The ledger as its callers see it; `crash` is about what survives, `history` about what is over.

mod crash;
mod history;
mod listing;
mod refusals;

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::model::decision::{Fallback, Hook, Limits, PolicyVersion, Priority};
use crate::model::event::History;
use crate::model::id::UpstreamId;
use crate::model::job::{
    Attempt, AttemptOutcome, Body, Job, JobClass, JobOutcome, ModelRef, Needs, Number, Once, Rename,
    Requested, Secrets,
};
use crate::model::seen::Seen;

const SECRET: &str = "hunter2-hush";

fn config(folder: &Path) -> Config {
    Config { file: folder.join("ledger.db"), ..Config::default() }
}

/// A ledger in a folder that goes away with it.
struct World {
    service: Option<Service>,
    ledger: Handle,
    config: Config,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut config = config(folder.path());
        change(&mut config);
        let (service, ledger) = Service::open(&config).expect("opens");
        Self { service: Some(service), ledger, config, _folder: folder }
    }

    /// Closes and opens the file again.
    fn restart(&mut self) {
        self.service.take().expect("open").close();
        let (service, ledger) = Service::open(&self.config).expect("opens again");
        (self.service, self.ledger) = (Some(service), ledger);
    }
}

fn job(prompt_id: &str) -> Job {
    Job {
        id: JobId::mint(),
        prompt_id: prompt_id.into(),
        number: Number::Counted(3),
        client_id: Some("client-1".into()),
        tenant: "ann".into(),
        class: JobClass::Batch,
        requested: Requested { number: Some(-1.5), front: true },
        accepted_at: 1_700_000_000_123,
        body: Arc::new(Body {
            prompt: r#"{"1":{"class_type":"KSampler","inputs":{"text":"snö\u0000"}}}"#.into(),
            extra_data: r#"{"extra_pnginfo":{"workflow":{"id":"w1"}}}"#.into(),
            secrets: Secrets(vec![("api_key_comfy_org".into(), format!("\"{SECRET}\""))]),
            outputs: vec!["1".into()],
            targets: Some(vec!["1".into()]),
            renames: vec![Rename {
                node: "1".into(),
                input: "image".into(),
                value: "~gpu0/a.png [output]".into(),
            }],
            input_kib: 3,
            headers: vec![("x-team".into(), "blue".into())],
            workflow_id: Some("w1".into()),
            stored: None,
        }),
        needs: Arc::new(Needs {
            models: vec![ModelRef { folder: "checkpoints".into(), name: "sd.safetensors".into() }],
            signature: u64::MAX,
            megapixels: Some(1.0),
            ..Needs::default()
        }),
        once: None,
    }
}

async fn entries(ledger: &Handle, query: HistoryQuery) -> Vec<HistoryRow> {
    let seqs = ledger.history(query, None).await.expect("reads");
    ledger.history_rows(seqs, Part::Whole).await.expect("reads")
}

fn accepted(job: &Job) -> Event {
    let priority = Priority { score: 2.5, ageing_per_second: 0.25 };
    let limits = Limits { queue_ms: None, run_ms: Some(60_000), stall_ms: Some(9) };
    Event::JobAccepted { job: Box::new(job.clone()), priority, limits }
}

fn started(job: &Job, number: u32, instance: &str) -> Event {
    let attempt = Attempt {
        number,
        upstream_id: UpstreamId::mint(),
        instance: instance.into(),
        started_at: 1_700_000_000_200,
    };
    Event::AttemptStarted { job: job.id, attempt }
}

fn attempt_ended(job: &Job, number: u32, outcome: AttemptOutcome) -> Event {
    Event::AttemptEnded { job: job.id, number, outcome, at: 1_700_000_000_300, detail: "why".into() }
}

fn results(file: Option<&str>) -> History {
    let files = file.map(output).into_iter().collect();
    History {
        outputs: r#"{"9":{"images":[]}}"#.into(),
        status: r#"{"status_str":"success"}"#.into(),
        meta: "{}".into(),
        node_errors: String::new(),
        files,
    }
}

fn output(name: &str) -> OutputFile {
    OutputFile { kind: "output".into(), subfolder: "a".into(), filename: name.into() }
}

fn ended(job: &Job, file: Option<&str>) -> Event {
    let (outcome, at) = (JobOutcome::Success, 1_700_000_000_400);
    Event::JobEnded { job: job.id, outcome, at, history: results(file) }
}

/// A whole life on one instance.
fn life(job: &Job, instance: &str, file: Option<&str>) -> Vec<Event> {
    let success = AttemptOutcome::Success;
    vec![accepted(job), started(job, 1, instance), attempt_ended(job, 1, success), ended(job, file)]
}

fn without_secrets(mut job: Job) -> Job {
    Arc::make_mut(&mut job.body).secrets = Secrets::default();
    job
}

fn prompt_ids(rows: &[HistoryRow]) -> Vec<&str> {
    rows.iter().map(|row| &*row.job.prompt_id).collect()
}

fn refusal(result: Result<(), LedgerError>) -> String {
    match result {
        Err(error @ LedgerError::Refused { .. }) => error.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn an_open_job_comes_back_as_it_was_accepted() {
    let mut world = World::new();
    let job = job("p1");
    world.ledger.commit(vec![accepted(&job), started(&job, 1, "gpu0")]).await.expect("commits");
    let lost = attempt_ended(&job, 1, AttemptOutcome::Crash);
    world.ledger.commit(vec![lost, started(&job, 2, "gpu1")]).await.expect("commits");
    world.restart();
    let open = world.ledger.open_jobs(usize::MAX).await.expect("reads");
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].job, without_secrets(job));
    assert_eq!(open[0].priority, Priority { score: 2.5, ageing_per_second: 0.25 });
    assert_eq!(open[0].limits, Limits { queue_ms: None, run_ms: Some(60_000), stall_ms: Some(9) });
    let attempts: Vec<_> =
        open[0].attempts.iter().map(|(a, end)| (a.number, a.instance.to_string(), end.clone())).collect();
    assert_eq!(attempts, [(1, "gpu0".into(), Some(AttemptOutcome::Crash)), (2, "gpu1".into(), None)]);
}

#[tokio::test]
async fn the_counter_survives_and_goes_on_after_the_highest() {
    let mut world = World::new();
    assert_eq!(world.ledger.counter().await.expect("reads"), 0);
    for number in [Number::Counted(7), Number::Counted(-9), Number::Given(1e12), Number::Counted(2)] {
        world.ledger.commit(vec![accepted(&Job { number, ..job("p") })]).await.expect("commits");
    }
    world.restart();
    assert_eq!(world.ledger.counter().await.expect("reads"), 10);
    let numbers: Vec<_> =
        world.ledger.open_jobs(usize::MAX).await.expect("reads").iter().map(|o| o.job.number).collect();
    assert_eq!(numbers[2], Number::Given(1e12));
}

#[tokio::test]
async fn an_idempotency_key_is_stored_with_its_job_and_belongs_to_one_until_it_ends() {
    let mut world = World::new();
    let keyed = |prompt_id: &str, accepted_at: u64| {
        let node_errors = r#"{"9":{}}"#.to_owned();
        let once = Once { key: "k".into(), digest: [7; 32], until: accepted_at + 100, node_errors };
        Job { once: Some(once.into()), accepted_at, ..job(prompt_id) }
    };
    world.ledger.commit(vec![accepted(&keyed("p1", 1_000))]).await.expect("commits");
    refusal(world.ledger.commit(vec![accepted(&keyed("p2", 1_050))]).await);
    assert_eq!(world.ledger.open_jobs(usize::MAX).await.expect("reads").len(), 1, "refused whole");
    world.restart();
    let row = world.ledger.once("ann", "k").await.expect("reads").expect("it is known");
    assert_eq!((row.digest, row.until, row.prompt_id.as_str()), ([7; 32], 1_100, "p1"));
    assert_eq!((row.number, row.node_errors.as_str()), (Number::Counted(3), r#"{"9":{}}"#));
    assert_eq!(world.ledger.once("bob", "k").await.expect("reads"), None);
    world.ledger.commit(vec![accepted(&keyed("p3", 1_100))]).await.expect("the key is free again");
    let row = world.ledger.once("ann", "k").await.expect("reads").expect("it is known");
    assert_eq!(row.prompt_id, "p3");
}

fn decision(job: Option<JobId>, reason: &str) -> DecisionRecord {
    DecisionRecord {
        at: 5,
        hook: Hook::LimitsFor,
        version: PolicyVersion { name: "mine".into(), digest: "0123456789ab".into() },
        fallback: Some(Fallback::BadAnswer),
        took_us: 40,
        seen: Seen::stored(r#"{"queued":1}"#.into()),
        said: "gpu1 > gpu0".into(),
        reason: reason.into(),
        job,
        did: Some("gpu1".into()),
        instance: Some("gpu1".into()),
    }
}

#[tokio::test]
async fn decisions_are_found_by_job_and_notes_arrive_in_time() {
    let world = World::new();
    let job = job("p1");
    let committed = decision(Some(job.id), "committed");
    world.ledger.note(vec![decision(None, "noted")]);
    let events = vec![accepted(&job), Event::Decision(Box::new(committed.clone()))];
    world.ledger.commit(events).await.expect("commits");
    assert_eq!(world.ledger.decisions_of(job.id).await.expect("reads"), [committed]);
    // A note that travels alone is stored a moment later; the ledger is asked until it is.
    world.ledger.note(vec![decision(None, "alone")]);
    while world.ledger.decisions(1).await.expect("reads")[0].reason != "alone" {
        tokio::task::yield_now().await;
    }
    let reasons: Vec<_> =
        world.ledger.decisions(9).await.expect("reads").into_iter().map(|d| d.reason).collect();
    assert_eq!(reasons, ["alone", "committed", "noted"]);
}

#[tokio::test]
async fn no_secret_reaches_the_disk() {
    let mut world = World::new();
    let job = job("p1");
    world.ledger.commit(vec![accepted(&job)]).await.expect("commits");
    let holds = |config: &Config| {
        let folder = config.file.parent().expect("a folder");
        let files = std::fs::read_dir(folder).expect("a folder").map(|f| f.expect("a file").path());
        files.map(|f| std::fs::read(f).expect("reads")).collect::<Vec<_>>().concat()
    };
    let bytes = holds(&world.config);
    assert!(memchr::memmem::find(&bytes, b"client-1").is_some(), "the job itself is there");
    assert!(memchr::memmem::find(&bytes, SECRET.as_bytes()).is_none());
    world.restart();
    assert!(memchr::memmem::find(&holds(&world.config), SECRET.as_bytes()).is_none());
}
