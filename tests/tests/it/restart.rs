//! A restart of the router is an interruption, not a loss.

use comfy_router_tests::{Books, Client, Fleet, Run, Serve, kinds, plain};

#[tokio::test]
async fn queued_jobs_go_on_and_the_running_one_is_taken_up_again() {
    let fleet = Fleet::of(1).await;
    fleet.hold();
    let mut router = Serve::over(fleet.instances()).start().await;
    let mut client = Client::connect(&router, "patient").await;
    let mut jobs = Vec::new();
    for colour in 1..=4 {
        jobs.push((client.post(&plain(colour)).await, colour));
    }
    fleet.held(0).await;
    let before = client.queue().await;
    assert_eq!((before.0.len(), before.1.len()), (1, 3));

    router.kill();
    router.start_again().await;
    client.reconnect().await;
    assert_eq!(client.queue().await, before, "the queue is as it was");
    router.instances_up(1).await;
    fleet.open();

    for (id, colour) in &jobs {
        let said = client.end_of(id).await;
        assert!(kinds(&said).contains(&"execution_success".to_owned()), "{id}: {:?}", kinds(&said));
        assert_eq!(client.colour_made_by(id).await, *colour);
    }
    assert_eq!(fleet.started(), jobs.len(), "nothing ran twice");
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.nothing_is_lost(&jobs.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
    books.nothing_ran_unrecorded(&Run::of(&fleet));
    assert_eq!(books.attempts(), jobs.len());
}

#[tokio::test]
async fn a_job_that_ended_while_the_router_was_away_is_not_run_again() {
    let fleet = Fleet::of(2).await;
    fleet.hold();
    let mut router = Serve::over(fleet.instances()).start().await;
    let mut client = Client::connect(&router, "patient").await;
    let id = client.post(&plain(0xabc)).await;
    let at = fleet.held_anywhere().await;
    router.kill();
    fleet.open();
    fleet.control(at).wait_ended(1).await;

    router.start_again().await;
    client.reconnect().await;
    let history = client.history_when_ended(&id).await;
    assert_eq!(history["status"]["status_str"], "success");
    assert_eq!(client.colour_made_by(&id).await, 0xabc);
    assert_eq!(fleet.started(), 1);
}

#[tokio::test]
async fn history_and_pictures_outlive_the_router() {
    let fleet = Fleet::of(2).await;
    let mut router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "archivist").await;
    let id = client.post_as("kept", &plain(0x4242)).await;
    client.end_of(&id).await;
    let before = client.http.get_json("/history").await;
    router.stop().await;
    router.start_again().await;
    router.instances_up(2).await;
    assert_eq!(client.http.get_json("/history").await, before);
    assert_eq!(client.colour_made_by(&id).await, 0x4242);
}
