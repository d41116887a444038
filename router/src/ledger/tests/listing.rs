//! What long lists and long queues are read by.

use super::*;
use crate::model::event::{Standing, StopReason};
use crate::model::job::Stored;

fn with_prompt(prompt_id: &str, prompt: &str) -> Job {
    let mut job = job(prompt_id);
    Arc::make_mut(&mut job.body).prompt = prompt.to_owned();
    job
}

#[tokio::test]
async fn texts_beyond_what_may_be_in_memory_stay_in_the_ledger_until_they_are_asked_for() {
    let mut world = World::new();
    let jobs: Vec<Job> =
        (0..5).map(|n| with_prompt(&n.to_string(), &format!("{{\"{}\":1}}", "x".repeat(1_000)))).collect();
    for job in &jobs {
        world.ledger.commit(vec![accepted(job)]).await.expect("commits");
    }
    world.restart();
    let size = jobs[0].body.text_bytes();
    let open = world.ledger.open_jobs(2 * size + 1).await.expect("reads");
    let stored: Vec<bool> = open.iter().map(|open| open.job.body.stored.is_some()).collect();
    assert_eq!(stored, [false, false, true, true, true]);
    assert_eq!(open[0].job, without_secrets(jobs[0].clone()));
    let left = &open[3].job;
    let bare = without_secrets(Job { body: Arc::new(jobs[3].body.without_texts()), ..jobs[3].clone() });
    assert_eq!(*left, bare, "everything but the texts");
    assert_eq!(left.body.stored, Some(Stored { digest: jobs[3].body.digest(), bytes: size }));

    let texts = world.ledger.texts(vec![jobs[3].id, JobId::mint()]).await.expect("reads");
    assert_eq!(texts.len(), 1, "an unknown job has none");
    let whole = left.body.with_texts(texts[&jobs[3].id].clone());
    assert_eq!(whole, *without_secrets(jobs[3].clone()).body);
    world.ledger.commit(vec![ended(&jobs[3], None)]).await.expect("commits");
    assert_eq!(world.ledger.open_jobs(0).await.expect("reads").len(), 4);
}

#[tokio::test]
async fn a_new_standing_is_there_after_a_restart_and_none_follows_the_end() {
    let mut world = World::new();
    let (moved, other) = (job("moved"), job("other"));
    world.ledger.commit(vec![accepted(&moved), accepted(&other)]).await.expect("commits");
    let standing = Standing {
        number: Number::Given(-2.0),
        requested: Requested { number: Some(-2.0), front: false },
        class: JobClass::Interactive,
        place: -3,
        priority: Priority { score: 99.0, ageing_per_second: 0.0 },
        pinned: true,
        limits: Limits { queue_ms: Some(7), run_ms: None, stall_ms: None },
    };
    let change = Event::JobChanged { job: moved.id, standing: Box::new(standing.clone()) };
    world.ledger.commit(vec![change.clone()]).await.expect("commits");
    world.restart();
    let open = world.ledger.open_jobs(0).await.expect("reads");
    let seen = Standing {
        number: open[0].job.number,
        requested: open[0].job.requested,
        class: open[0].job.class,
        place: open[0].place,
        priority: open[0].priority,
        pinned: open[0].pinned,
        limits: open[0].limits,
    };
    assert_eq!(seen, standing);
    assert_eq!((open[1].place, open[1].pinned, open[1].job.number), (0, false, other.number));
    world.ledger.commit(vec![ended(&moved, None)]).await.expect("commits");
    assert!(matches!(world.ledger.commit(vec![change]).await, Err(LedgerError::Refused { .. })));
}

#[tokio::test]
async fn finished_jobs_are_filtered_by_a_few_columns_and_confined_to_a_tenant() {
    let world = World::new();
    for (name, tenant) in [("p1", "ann"), ("p2", "bob"), ("p3", "ann")] {
        let job = Job { tenant: tenant.into(), ..job(name) };
        let mut history = results(None);
        history.status =
            r#"{"messages":[["execution_start",{"timestamp":5}],["execution_success",{"timestamp":9}]]}"#
                .into();
        let end = Event::JobEnded { job: job.id, outcome: JobOutcome::Success, at: 1, history };
        world.ledger.commit(vec![accepted(&job), end]).await.expect("commits");
    }
    let keys = world.ledger.history_keys(Some("ann".into())).await.expect("reads");
    assert_eq!(keys.len(), 2);
    assert_eq!(
        (keys[0].began_at, keys[0].done_at, keys[0].accepted_at),
        (Some(5), Some(9), 1_700_000_000_123)
    );
    assert_eq!(keys[0].workflow_id.as_deref(), Some("w1"));
    let seqs = keys.iter().rev().map(|key| key.seq).collect();
    let rows = world.ledger.history_rows(seqs, Part::Results).await.expect("reads");
    assert_eq!(prompt_ids(&rows), ["p3", "p1"], "in the order asked for");
    assert!(rows[0].job.body.prompt.is_empty() && !rows[0].history.status.is_empty());
    assert_eq!(rows[0].job.body.workflow_id.as_deref(), Some("w1"));

    let ann = || Some("ann".to_owned());
    let last = HistoryQuery { max_items: Some(1), offset: -1 };
    assert_eq!(world.ledger.history(last, ann()).await.expect("reads"), [keys[1].seq]);
    world.ledger.delete_history(vec!["p1".into(), "p2".into()], ann()).await.expect("deletes");
    assert_eq!(prompt_ids(&entries(&world.ledger, HistoryQuery::default()).await), ["p2", "p3"]);
    world.ledger.clear_history(Some("bob".into())).await.expect("clears");
    assert_eq!(prompt_ids(&entries(&world.ledger, HistoryQuery::default()).await), ["p3"]);
    let gone = world.ledger.history_rows(keys.iter().map(|key| key.seq).collect(), Part::Whole).await;
    assert_eq!(prompt_ids(&gone.expect("reads")), ["p3"], "what was deleted meanwhile is left out");
}

/// A ledger as an earlier version wrote it: no column or table of the third script and those after it.
#[tokio::test]
async fn a_ledger_of_the_version_before_is_taken_over() {
    let folder = TempDir::new().expect("a folder");
    let config = config(folder.path());
    let (open, over) = (job("open"), job("over"));
    {
        let (service, ledger) = Service::open(&config).expect("opens");
        let mut history = results(None);
        history.status =
            r#"{"messages":[["execution_start",{"timestamp":5}],["execution_error",{"timestamp":9}]]}"#
                .into();
        let end = Event::JobEnded { job: over.id, outcome: JobOutcome::Error, at: 1, history };
        ledger.commit(vec![accepted(&open), accepted(&over), end]).await.expect("commits");
        service.close();
    }
    let conn = rusqlite::Connection::open(&config.file).expect("opens");
    conn.execute_batch(
        "DROP TABLE router; DROP TABLE about; ALTER TABLE job DROP COLUMN place; ALTER TABLE job DROP COLUMN pinned;
         ALTER TABLE job DROP COLUMN workflow_id; ALTER TABLE job DROP COLUMN began_at;
         ALTER TABLE job DROP COLUMN done_at; ALTER TABLE decision DROP COLUMN seen;
         ALTER TABLE attempt DROP COLUMN stop;
         PRAGMA user_version = 2;",
    )
    .expect("goes back");
    drop(conn);
    let (service, ledger) = Service::open(&config).expect("migrates");
    let keys = ledger.history_keys(None).await.expect("reads");
    assert_eq!((keys[0].began_at, keys[0].done_at), (Some(5), Some(9)));
    assert_eq!(keys[0].workflow_id.as_deref(), Some("w1"));
    let found = ledger.open_jobs(0).await.expect("reads");
    assert_eq!(found[0].job.body.prompt, open.body.prompt, "its texts were not kept apart");
    assert_eq!(found[0].job, without_secrets(open));
    service.close();
}

#[tokio::test]
async fn why_an_attempt_was_told_to_stop_is_found_again_while_it_lives() {
    let folder = TempDir::new().expect("a folder");
    let config = config(folder.path());
    let job = job("j");
    let asked = |number, why| Event::StopAsked { job: job.id, number, why };
    let timed_out = StopReason::TimedOut { retry: true, reason: "a \"limit\"".into() };
    let stop_after = async |events: Vec<Event>| {
        let (service, ledger) = Service::open(&config).expect("opens");
        ledger.commit(events).await.expect("commits");
        let found = ledger.open_jobs(0).await.expect("reads").remove(0).stop;
        service.close();
        found
    };
    let first = vec![accepted(&job), started(&job, 1, "gpu0")];
    assert_eq!(stop_after(first).await, None);
    assert_eq!(stop_after(vec![asked(1, timed_out.clone())]).await, Some(timed_out));
    assert!(stop_after(vec![asked(2, StopReason::Owner)]).await.is_some(), "there is no such attempt");
    assert_eq!(stop_after(vec![asked(1, StopReason::Owner)]).await, Some(StopReason::Owner));
    let ended = attempt_ended(&job, 1, AttemptOutcome::Preempted);
    assert_eq!(stop_after(vec![ended, started(&job, 2, "gpu0")]).await, None, "it is over");
    assert_eq!(stop_after(vec![asked(1, StopReason::Owner)]).await, None, "it was over already");
}

#[tokio::test]
async fn a_ledger_says_whose_it_is_for_ever() {
    let identity = async |folder: &TempDir| {
        let (service, ledger) = Service::open(&config(folder.path())).expect("opens");
        let identity = ledger.identity().await.expect("reads");
        service.close();
        identity
    };
    let (one, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let first = identity(&one).await;
    assert_eq!(first.len(), 32);
    assert_eq!(first, identity(&one).await);
    assert_ne!(first, identity(&other).await);
}
