//! The ledger as its callers see it; `crash` is about what survives.

mod crash;
mod listing;

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
async fn a_finished_job_is_history_and_open_no_more() {
    let world = World::new();
    let job = job("p1");
    world.ledger.commit(life(&job, "gpu0", Some("x.png"))).await.expect("commits");
    assert!(world.ledger.open_jobs(usize::MAX).await.expect("reads").is_empty());
    let row = world.ledger.history_of("p1").await.expect("reads").expect("is there");
    assert_eq!((row.outcome, row.ended_at), (JobOutcome::Success, 1_700_000_000_400));
    assert_eq!(row.job, without_secrets(job));
    assert_eq!(row.history, results(Some("x.png")));
    assert_eq!(row.attempts[0].detail, "why");
    assert_eq!(row.attempts[0].outcome, Some(AttemptOutcome::Success));
    assert_eq!(world.ledger.history_of("p2").await.expect("reads"), None);
}

#[tokio::test]
async fn history_is_in_order_of_ending_and_windowed_like_comfyui() {
    let world = World::new();
    let jobs: Vec<Job> = (0..5).map(|n| job(&format!("p{n}"))).collect();
    for job in &jobs {
        world.ledger.commit(vec![accepted(job)]).await.expect("commits");
    }
    for n in [2, 0, 1, 4, 3] {
        world.ledger.commit(vec![ended(&jobs[n], None)]).await.expect("commits");
    }
    let ask = async |max_items, offset| {
        let rows = entries(&world.ledger, HistoryQuery { max_items, offset }).await;
        prompt_ids(&rows).join(" ")
    };
    assert_eq!(ask(None, -1).await, "p2 p0 p1 p4 p3");
    assert_eq!(ask(Some(2), -1).await, "p4 p3");
    assert_eq!(ask(Some(99), -1).await, "p2 p0 p1 p4 p3");
    assert_eq!(ask(Some(2), 1).await, "p0 p1");
    assert_eq!(ask(None, 3).await, "p4 p3");
    assert_eq!(ask(Some(0), 0).await, "p2");
    assert_eq!(ask(Some(0), -1).await, "");
    assert_eq!(ask(Some(1), i64::MAX).await, "");
}

#[tokio::test]
async fn a_prompt_id_used_again_shows_its_newest_job() {
    let world = World::new();
    let (first, second) = (job("same"), job("same"));
    world.ledger.commit(life(&first, "gpu0", None)).await.expect("commits");
    world.ledger.commit(vec![accepted(&second)]).await.expect("commits");
    assert_eq!(world.ledger.job("same").await.expect("reads").expect("is there").job.id, second.id);
    assert_eq!(world.ledger.history_of("same").await.expect("reads").expect("is there").job.id, first.id);
    world.ledger.commit(vec![ended(&second, None)]).await.expect("commits");
    let rows = entries(&world.ledger, HistoryQuery::default()).await;
    assert_eq!(rows.iter().map(|row| row.job.id).collect::<Vec<_>>(), [second.id]);
}

#[tokio::test]
async fn deleted_history_is_gone_with_its_texts() {
    let mut world = World::new();
    for name in ["p1", "p2", "p3"] {
        let mut job = job(name);
        Arc::make_mut(&mut job.body).prompt = format!("{{\"marker\":\"{name}-text\"}}");
        world.ledger.commit(life(&job, "gpu0", Some(&format!("{name}.png")))).await.expect("commits");
    }
    let open = job("open");
    world.ledger.commit(vec![accepted(&open)]).await.expect("commits");
    world
        .ledger
        .delete_history(vec!["p2".into(), "never".into(), "open".into()], None)
        .await
        .expect("deletes");
    let rows = entries(&world.ledger, HistoryQuery::default()).await;
    assert_eq!(prompt_ids(&rows), ["p1", "p3"]);
    world.ledger.clear_history(None).await.expect("clears");
    assert!(entries(&world.ledger, HistoryQuery::default()).await.is_empty());
    // The record of the job, its files and the job that waits stay.
    let kept = world.ledger.job("p2").await.expect("reads").expect("is there");
    assert_eq!((kept.outcome, kept.job.body.prompt.as_str()), (Some(JobOutcome::Success), ""));
    assert_eq!(world.ledger.locate(&output("p1.png"), None, None).await.expect("reads"), Some("gpu0".into()));
    assert_eq!(world.ledger.open_jobs(usize::MAX).await.expect("reads")[0].job, without_secrets(open));
    world.restart();
    assert!(world.ledger.history_of("p1").await.expect("reads").is_none());
}

#[tokio::test]
async fn namesakes_on_two_instances_have_an_owner_each() {
    let world = World::new();
    let of = |id: &str, tenant: &str| Job { tenant: tenant.into(), ..job(id) };
    world.ledger.commit(life(&of("p1", "ann"), "gpu0", Some("x.png"))).await.expect("commits");
    world.ledger.commit(life(&of("p2", "bob"), "gpu1", Some("x.png"))).await.expect("commits");
    let locate = async |instance: Option<&str>, tenant: Option<&str>| {
        let instance = instance.map(crate::model::id::InstanceId::from);
        world.ledger.locate(&output("x.png"), instance.as_ref(), tenant).await.expect("reads")
    };
    assert_eq!(locate(None, None).await, Some("gpu1".into()), "the last");
    assert_eq!(locate(None, Some("ann")).await, Some("gpu0".into()));
    assert_eq!(locate(Some("gpu0"), None).await, Some("gpu0".into()));
    assert_eq!(locate(Some("gpu0"), Some("bob")).await, None);
    assert_eq!(locate(None, Some("eve")).await, None);
    world.ledger.commit(life(&of("p3", "bob"), "gpu0", Some("x.png"))).await.expect("commits");
    assert_eq!(locate(Some("gpu0"), Some("ann")).await, None, "it was written over");
}

#[tokio::test]
async fn a_file_is_located_at_the_instance_that_wrote_it_last() {
    let world = World::new();
    let (first, second) = (job("p1"), job("p2"));
    world.ledger.commit(life(&first, "gpu0", Some("x.png"))).await.expect("commits");
    world.ledger.commit(life(&second, "gpu1", Some("x.png"))).await.expect("commits");
    assert_eq!(world.ledger.locate(&output("x.png"), None, None).await.expect("reads"), Some("gpu1".into()));
    let elsewhere = OutputFile { kind: "temp".into(), ..output("x.png") };
    assert_eq!(world.ledger.locate(&elsewhere, None, None).await.expect("reads"), None);
}

#[tokio::test]
async fn contradicting_events_are_refused_whole() {
    let world = World::new();
    let (job, other) = (job("p1"), job("p2"));
    let commit = async |events| world.ledger.commit(events).await;
    assert!(refusal(commit(vec![started(&job, 1, "gpu0")]).await).contains("never accepted"));
    commit(vec![accepted(&job), started(&job, 1, "gpu0")]).await.expect("commits");
    assert!(refusal(commit(vec![accepted(&job)]).await).contains("job_accepted"));
    assert!(refusal(commit(vec![started(&job, 2, "gpu1")]).await).contains("attempt 1 is live"));
    assert!(refusal(commit(vec![ended(&job, None)]).await).contains("attempt 1 is live"));
    let crash = attempt_ended(&job, 1, AttemptOutcome::Crash);
    commit(vec![crash.clone()]).await.expect("commits");
    assert!(refusal(commit(vec![crash]).await).contains("attempt 1 is not live"));
    assert!(refusal(commit(vec![started(&job, 1, "gpu1")]).await).contains("attempt 1 follows attempt 1"));
    // The first event of this commit is sound; it must not be there either.
    refusal(commit(vec![accepted(&other), started(&job, 1, "gpu1")]).await);
    assert!(world.ledger.job("p2").await.expect("reads").is_none());
    commit(vec![ended(&job, None)]).await.expect("commits");
    for late in [ended(&job, None), started(&job, 2, "gpu0"), attempt_ended(&job, 1, AttemptOutcome::Lost)] {
        assert!(refusal(commit(vec![late]).await).contains("over already: success"));
    }
}

#[tokio::test]
async fn a_refused_commit_takes_none_of_its_neighbours_with_it() {
    let world = World::new();
    let jobs: Vec<Job> = (0..50).map(|n| job(&format!("p{n}"))).collect();
    world.ledger.commit(vec![accepted(&jobs[25])]).await.expect("commits");
    // Queued before any is awaited, so that they share transactions.
    let waiting: Vec<_> = jobs.iter().map(|job| world.ledger.commit(vec![accepted(job)])).collect();
    for (n, result) in futures_util::future::join_all(waiting).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), n == 25, "commit {n}: {result:?}");
    }
    let open = world.ledger.open_jobs(usize::MAX).await.expect("reads");
    assert_eq!(open.len(), 50);
    // The order of the calls is the order of the record.
    let order: Vec<_> = open[1..].iter().map(|o| o.job.prompt_id.clone()).collect();
    let called: Vec<_> = (0..50).filter(|n| *n != 25).map(|n| format!("p{n}")).collect();
    assert_eq!(order, called);
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

#[tokio::test]
async fn a_number_that_sqlite_cannot_hold_is_refused_and_harms_nobody() {
    let world = World::new();
    let nan = Job { number: Number::Given(f64::NAN), ..job("p1") };
    refusal(world.ledger.commit(vec![accepted(&nan)]).await);
    let far = Job { accepted_at: u64::MAX, number: Number::Counted(i64::MIN), ..job("p2") };
    world.ledger.commit(vec![accepted(&far)]).await.expect("commits");
    assert_eq!(world.ledger.counter().await.expect("reads"), i64::MAX);
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
async fn the_oldest_go_first_beyond_the_limits() {
    let world = World::with(|config| {
        (config.history, config.decisions, config.files) = (3, 2, 4);
    });
    let open = job("open");
    world.ledger.commit(vec![accepted(&open)]).await.expect("commits");
    for n in 0..6 {
        let job = job(&format!("p{n}"));
        let mut events = life(&job, "gpu0", Some(&format!("{n}.png")));
        events.push(Event::Decision(Box::new(decision(Some(job.id), &n.to_string()))));
        world.ledger.commit(events).await.expect("commits");
    }
    let rows = entries(&world.ledger, HistoryQuery::default()).await;
    assert_eq!(prompt_ids(&rows), ["p3", "p4", "p5"]);
    assert!(world.ledger.job("p2").await.expect("reads").is_none());
    assert!(world.ledger.job("open").await.expect("reads").is_some());
    assert_eq!(world.ledger.locate(&output("2.png"), None, None).await.expect("reads"), Some("gpu0".into()));
    assert_eq!(world.ledger.locate(&output("1.png"), None, None).await.expect("reads"), None);
    let counts = world.ledger.counts().await.expect("reads");
    assert_eq!((counts.open, counts.in_history, counts.attempts), (1, 3, 3));
    assert_eq!((counts.decisions, counts.files), (2, 4));
    assert_eq!(counts.ended[0], (JobOutcome::Success, 3));
}

#[tokio::test]
async fn jobs_are_listed_newest_first_by_page_state_and_tenant() {
    let world = World::new();
    for n in 0..6 {
        let job = Job { tenant: if n % 2 == 0 { "ann" } else { "bob" }.into(), ..job(&format!("p{n}")) };
        world.ledger.commit(vec![accepted(&job)]).await.expect("commits");
        if n < 4 {
            world.ledger.commit(vec![ended(&job, None)]).await.expect("commits");
        }
    }
    let ask = async |state, tenant: Option<&str>, before, limit| {
        let filter = JobFilter { state, tenant: tenant.map(Into::into) };
        world.ledger.jobs(filter, Page { before, limit }).await.expect("reads")
    };
    let names = |jobs: &[JobSummary]| jobs.iter().map(|j| j.prompt_id.clone()).collect::<Vec<_>>().join(" ");
    let first = ask(None, None, None, 4).await;
    assert_eq!(names(&first), "p5 p4 p3 p2");
    assert_eq!(names(&ask(None, None, Some(first[3].seq), 4).await), "p1 p0");
    assert_eq!(names(&ask(Some(JobStateFilter::Open), None, None, 100).await), "p5 p4");
    assert_eq!(names(&ask(Some(JobStateFilter::Ended), Some("bob"), None, u32::MAX).await), "p3 p1");
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

#[tokio::test]
async fn a_full_ledger_says_so_and_goes_on_when_there_is_room() {
    let world = World::with(|config| config.max_file_mib = Some(1));
    let big = |n: u32| {
        let mut job = job(&format!("p{n}"));
        Arc::make_mut(&mut job.body).prompt = "x".repeat(100_000);
        job
    };
    let mut stored = 0;
    let error = loop {
        match world.ledger.commit(life(&big(stored), "gpu0", None)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "1 MiB holds no 10 MB");
    };
    assert_eq!(error, LedgerError::Full { file: world.config.file.clone() });
    assert_eq!(error.kind(), "full");
    assert!(world.ledger.health().borrow().is_none(), "no reason to distrust the file");
    assert_eq!(world.ledger.probe().await, Err(error), "and it is not ready for the next one");
    let rows = entries(&world.ledger, HistoryQuery::default()).await;
    assert_eq!(rows.len(), stored as usize);
    world.ledger.clear_history(None).await.expect("room can be made");
    assert_eq!(world.ledger.probe().await, Ok(()));
    world.ledger.commit(life(&big(stored), "gpu0", None)).await.expect("there is room again");
}

#[tokio::test]
async fn too_many_waiting_commits_are_refused_at_the_door() {
    let world = World::with(|config| config.max_waiting = 4);
    let waiting: Vec<_> =
        (0..200).map(|n| world.ledger.commit(vec![accepted(&job(&format!("p{n}")))])).collect();
    let results = futures_util::future::join_all(waiting).await;
    let stored = world.ledger.open_jobs(usize::MAX).await.expect("reads").len();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), stored);
    assert!(stored >= 4);
    assert!(results.iter().any(|r| matches!(r, Err(LedgerError::Busy { .. }))));
    world.ledger.commit(vec![accepted(&job("later"))]).await.expect("the queue is empty again");
}

#[tokio::test]
async fn a_closed_ledger_says_that_it_is() {
    let mut world = World::new();
    world.service.take().expect("open").close();
    assert_eq!(world.ledger.commit(vec![accepted(&job("p1"))]).await, Err(LedgerError::Closed));
    assert_eq!(world.ledger.probe().await, Err(LedgerError::Closed));
    assert_eq!(world.ledger.commit(vec![]).await, Ok(()));
}
