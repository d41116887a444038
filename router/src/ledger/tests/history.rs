//! What is over: history, the files of jobs, who made them, and what goes first.

use super::*;

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
async fn the_temporary_files_that_the_history_names_are_known_as_long_as_one_job_names_them() {
    let world = World::new();
    let mut changes = world.ledger.history_changes();
    let preview = |name: &str| OutputFile { kind: "temp".into(), ..output(name) };
    let shown = |names: &[(&str, &str)]| -> Vec<(InstanceId, OutputFile)> {
        names.iter().map(|(instance, name)| (InstanceId::from(*instance), preview(name))).collect()
    };
    for (id, instance, name) in [("p1", "gpu0", "x"), ("p2", "gpu0", "x"), ("p3", "gpu1", "x")] {
        let job = job(id);
        let mut events = life(&job, instance, Some("result.png"));
        if let Some(Event::JobEnded { history, .. }) = events.last_mut() {
            history.files.push(preview(name));
        }
        world.ledger.commit(events).await.expect("commits");
        assert!(changes.has_changed().expect("open"), "one more in the history");
        changes.mark_unchanged();
    }
    let mut expected = vec![shown(&[("gpu0", "x"), ("gpu0", "x"), ("gpu1", "x")])];
    expected.push(shown(&[("gpu0", "x"), ("gpu1", "x")]));
    expected.push(shown(&[("gpu1", "x")]));
    expected.push(Vec::new());
    for (expected, gone) in expected.into_iter().zip([Some("p1"), Some("p2"), Some("p3"), None]) {
        assert_eq!(world.ledger.shown_files().await.expect("reads"), expected);
        if let Some(gone) = gone {
            world.ledger.delete_history(vec![gone.to_owned()], None).await.expect("deletes");
            assert!(changes.has_changed().expect("open"));
            changes.mark_unchanged();
        }
    }
    world.ledger.commit(vec![accepted(&job("p4"))]).await.expect("commits");
    assert!(!changes.has_changed().expect("open"), "a job that waits is no history");
}
