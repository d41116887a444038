//! What a ledger does not take, and that nobody else suffers from it.

use super::*;

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
async fn a_number_that_sqlite_cannot_hold_is_refused_and_harms_nobody() {
    let world = World::new();
    let nan = Job { number: Number::Given(f64::NAN), ..job("p1") };
    refusal(world.ledger.commit(vec![accepted(&nan)]).await);
    let far = Job { accepted_at: u64::MAX, number: Number::Counted(i64::MIN), ..job("p2") };
    world.ledger.commit(vec![accepted(&far)]).await.expect("commits");
    assert_eq!(world.ledger.counter().await.expect("reads"), i64::MAX);
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
