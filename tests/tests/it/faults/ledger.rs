//! The disk is full, does not sync, or gives back other bytes than were written.

use std::fs;

use comfy_router_tests::{Answer, Books, eventually, failed_start, may_make_disks};
use hyper::StatusCode;

use super::*;

/// Fills a disk to its last byte.
fn fill(file: &std::path::Path) {
    let mut hog = fs::File::create(file).expect("is created");
    let block = [1; 4096];
    while std::io::Write::write_all(&mut hog, &block).is_ok() {}
}

async fn refused(client: &Client, status: u16) -> Answer {
    eventually(&format!("new prompts are answered {status}"), || async {
        let answer = client.try_post(json!({ "prompt": plain(0xf1) })).await;
        (answer.status != StatusCode::OK).then_some(answer)
    })
    .await
}

async fn accepted_again(client: &Client) -> String {
    let answer = eventually("prompts are taken again", || async {
        let answer = client.try_post(json!({ "prompt": plain(0xa9) })).await;
        (answer.status == StatusCode::OK).then_some(answer)
    });
    answer.await.json()["prompt_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a test that does nothing says so")]
async fn a_full_disk_stops_new_prompts_and_lets_what_runs_end() {
    if !may_make_disks() {
        return println!("skipped: this user may not mount a disk of its own");
    }
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).on_a_disk_of(24).start().await;
    let client = Client::connect(&router, "c").await;
    let (running, _) = held_job(&fleet, &client, 0xd15c).await;
    let waiting = client.post(&plain(0xd15d)).await;
    fill(&router.disk().join("hog"));

    let answer = refused(&client, 507).await;
    assert_eq!(answer.status, 507, "{}", answer.text());
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|text| text.contains("no room")), "{error}");
    fleet.control(0).release(1);
    succeeds(&client, &running, 0xd15c).await;
    let (runs, waits) = client.queue().await;
    assert_eq!([runs, waits].concat(), std::slice::from_ref(&waiting));
    assert_eq!(fleet.started(), 1, "nothing new begins");

    fs::remove_file(router.disk().join("hog")).expect("is removed");
    let after = accepted_again(&client).await;
    fleet.open();
    succeeds(&client, &waiting, 0xd15d).await;
    client.end_of(&after).await;
    client.all_done().await;
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["ledger.db", "ledger.db-wal"] {
        fs::copy(router.disk().join(file), copy.path().join(file)).expect("is copied");
    }
    router.stop().await;
    let books = Books::read(copy.path());
    books.nothing_is_lost(&[running, waiting, after]);
    books.nothing_ran_unrecorded(&Run::of(&fleet));
}

#[tokio::test]
async fn a_ledger_of_limited_size_keeps_room_for_the_ends() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).set("ledger.max_file_mib=2").start().await;
    let client = Client::connect(&router, "c").await;
    let (running, _) = held_job(&fleet, &client, 0x11).await;
    let mut accepted = vec![running];
    let refusal = loop {
        let workflow = json!({ "extra_pnginfo": { "workflow": "x".repeat(100_000) } });
        let answer = client.try_post(json!({ "prompt": plain(0x12), "extra_data": workflow })).await;
        match answer.status {
            StatusCode::OK => accepted.push(answer.json()["prompt_id"].as_str().expect("an id").to_owned()),
            _ => break answer,
        }
        assert!(accepted.len() < 50, "2 MiB hold no 5 MB");
    };
    assert_eq!(refusal.status, 507, "{}", refusal.text());
    fleet.open();
    client.end_of(&accepted[0]).await;
    client.http.post("/queue", &json!({ "clear": true })).await.ok();
    client.http.post("/history", &json!({ "clear": true })).await.ok();
    let after = accepted_again(&client).await;
    client.end_of(&after).await;
    router.stop().await;
    Books::read(&router.state_dir()).nothing_ran_unrecorded(&Run::of(&fleet));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_promised_until_the_file_was_read_again() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let (running, _) = held_job(&fleet, &client, 0x51c).await;
    router.arm("sync");
    let answer = refused(&client, 503).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let ready = router.admin().get("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()["ready"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!(false))
    );
    fleet.open();
    fleet.control(0).wait_ended(1).await;
    assert!(client.history(&running).await.is_null(), "an end that is not on disk is not told");

    router.disarm("sync");
    succeeds(&client, &running, 0x51c).await;
    let after = accepted_again(&client).await;
    client.end_of(&after).await;
    client.all_done().await;
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.nothing_is_lost(&[running, after]);
    books.nothing_ran_unrecorded(&Run::of(&fleet));
    assert_eq!(fleet.started(), 2, "what was refused did not run");
    router.start_again().await;
    router.instances_up(1).await;
    assert_eq!(client.remaining().await, 0, "nor does it after a restart");
}

#[tokio::test]
async fn a_flipped_bit_in_a_waiting_prompt_is_named_at_the_start() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).set("timeouts.drain_s=0").start().await;
    let client = Client::silent(&router, "c");
    fleet.hold();
    client.post(&plain(1)).await;
    fleet.held(0).await;
    client.post(&plain(2)).await;
    router.stop().await;
    flip(&router.state_dir().join("ledger.db"), b"class_type");
    let state = router.state_dir();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state-dir"];
    let arguments = [arguments.as_slice(), &[state.to_str().expect("UTF-8")]].concat();
    let instance = format!("i0={}", fleet.url(0));
    let exit = failed_start(&[arguments.as_slice(), &["--instance", &instance]].concat(), &[]).await;
    assert_ne!(exit.code, Some(0));
    assert!(exit.err.contains("ledger.db") && exit.err.contains("damaged"), "{}", exit.err);
}

#[tokio::test]
async fn a_flipped_bit_in_a_result_is_never_served() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let id = client.post(&plain(3)).await;
    client.end_of(&id).await;
    router.stop().await;
    flip(&router.state_dir().join("ledger.db"), b"execution_success");
    router.start_again().await;
    router.instances_up(1).await;
    let answer = client.http.get(&format!("/history/{id}")).await;
    assert!(answer.status.is_server_error(), "{} {}", answer.status, answer.text());
    assert!(answer.text().contains("ledger"), "{}", answer.text());
    let next = client.post(&plain(4)).await;
    assert_eq!(
        client.history_when_ended(&next).await["status"]["status_str"],
        "success",
        "others are unharmed"
    );
}

/// Changes one bit of the first place where the file holds these bytes.
fn flip(file: &std::path::Path, bytes: &[u8]) {
    let mut content = fs::read(file).expect("is read");
    let at = content.windows(bytes.len()).position(|window| window == bytes).expect("is there");
    content[at] ^= 0x20;
    fs::write(file, content).expect("is written");
}
