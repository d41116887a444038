//! Question: what does durability cost? Commits per second and their latency with 1 and with 32 concurrent callers,
//! next to one bare 300-byte append with fdatasync on the same disk in the same run; and whether reading the last 200
//! of 10 000 history entries is fast. Asserts that everything acknowledged is really there.
//!
//! `cargo bench -p comfy-router --bench ledger`; the file lies in `LEDGER_BENCH_DIR`, or the system's temporary folder.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_router::ledger::{Config, Handle, HistoryQuery, Part, Service};
use comfy_router::model::decision::{Limits, Priority};
use comfy_router::model::event::{Event, History};
use comfy_router::model::id::{JobId, UpstreamId};
use comfy_router::model::job::{
    Attempt, AttemptOutcome, Body, Job, JobClass, JobOutcome, Needs, Number, Requested,
};
use futures_util::future::join_all;

/// A workflow of usual size, with its editor's copy in `extra_data`.
const PROMPT_BYTES: usize = 20_000;
const EXTRA_BYTES: usize = 40_000;
const FOR: Duration = Duration::from_secs(5);

fn job(n: usize) -> Job {
    let text = |bytes: usize| format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
    let body = Body { prompt: text(PROMPT_BYTES), extra_data: text(EXTRA_BYTES), ..Body::default() };
    Job {
        id: JobId::mint(),
        prompt_id: format!("prompt-{n}"),
        number: Number::Counted(n as i64),
        client_id: Some("client".into()),
        tenant: "tenant".into(),
        class: JobClass::Standard,
        requested: Requested::default(),
        accepted_at: 1,
        body: Arc::new(body),
        needs: Arc::new(Needs::default()),
        once: None,
    }
}

fn accepted(job: &Job) -> Vec<Event> {
    let (priority, limits) = (Priority::default(), Limits::default());
    vec![Event::JobAccepted { job: Box::new(job.clone()), priority, limits }]
}

fn rest_of_life(job: &Job) -> Vec<Event> {
    let attempt =
        Attempt { number: 1, upstream_id: UpstreamId::mint(), instance: "gpu0".into(), started_at: 2 };
    let (number, outcome, detail) = (1, AttemptOutcome::Success, String::new());
    vec![
        Event::AttemptStarted { job: job.id, attempt },
        Event::AttemptEnded { job: job.id, number, outcome, at: 3, detail },
        Event::JobEnded { job: job.id, outcome: JobOutcome::Success, at: 3, history: History::default() },
    ]
}

fn report(what: &str, mut took: Vec<Duration>, wall: Duration) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let rate = took.len() as f64 / wall.as_secs_f64();
    println!("{what:<44} {rate:>8.0} /s   p50 {:>8.2} ms   p99 {:>8.2} ms", at(0.5), at(0.99));
}

fn bare_append(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("bare")).expect("a file");
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < FOR {
        let one = Instant::now();
        file.write_all(&[b'x'; 300]).expect("writes");
        file.sync_data().expect("syncs");
        took.push(one.elapsed());
    }
    report("append of 300 bytes and fdatasync", took, started.elapsed());
}

/// `callers` at a time, each commits one accepted job after the other.
async fn commits(ledger: &Handle, callers: usize, first: usize) -> usize {
    let started = Instant::now();
    let caller = async |caller: usize| {
        let mut took = Vec::new();
        while started.elapsed() < FOR {
            let job = job(first + caller + took.len() * callers);
            let one = Instant::now();
            ledger.commit(accepted(&job)).await.expect("commits");
            took.push(one.elapsed());
        }
        took
    };
    let took = join_all((0..callers).map(caller)).await.concat();
    let count = took.len();
    report(&format!("accepted jobs of 60 kB, {callers} callers"), took, started.elapsed());
    count
}

async fn history(ledger: &Handle) {
    for chunk in 0..100 {
        let jobs: Vec<Job> = (0..100).map(|n| job(1_000_000 + chunk * 100 + n)).collect();
        let life = |job: &Job| ledger.commit([accepted(job), rest_of_life(job)].concat());
        for done in join_all(jobs.iter().map(life)).await {
            done.expect("commits");
        }
    }
    let (started, mut took) = (Instant::now(), Vec::new());
    for _ in 0..20 {
        let one = Instant::now();
        let query = HistoryQuery { max_items: Some(200), offset: -1 };
        let seqs = ledger.history(query, None).await.expect("reads");
        let rows = ledger.history_rows(seqs, Part::Whole).await.expect("reads");
        assert_eq!(rows.len(), 200);
        assert_eq!(rows[199].job.prompt_id, "prompt-1009999");
        took.push(one.elapsed());
    }
    report("last 200 of 10 000 finished jobs of 60 kB", took, started.elapsed());
    let one = Instant::now();
    assert!(ledger.history_of("prompt-1000000").await.expect("reads").is_some());
    println!("{:<44} {:>28.2} ms", "one of 10 000 by its id", one.elapsed().as_secs_f64() * 1e3);
}

fn main() {
    let place = std::env::var_os("LEDGER_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::TempDir::new_in(place).expect("a folder");
    let (service, ledger) =
        Service::open(&Config { file: folder.path().join("ledger.db"), ..Config::default() }).expect("opens");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    runtime.block_on(async {
        bare_append(folder.path());
        let one = commits(&ledger, 1, 0).await;
        let many = commits(&ledger, 32, 100_000).await;
        let counts = ledger.counts().await.expect("reads");
        assert_eq!(counts.open, (one + many) as u64, "every acknowledged job is there");
        bare_append(folder.path());
        history(&ledger).await;
    });
    service.close();
}
