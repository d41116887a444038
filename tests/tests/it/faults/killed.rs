//! The router itself ends at an exact point between two acts, and starts again.

use comfy_router_tests::{Answer, Books, component};
use hyper::Method;
use serde_json::Value;

use super::*;

const KEY: &str = "the-same-request";

/// One instance that holds what it runs, a router whose process ends at `point`, and a client of both its lives.
struct Mortal {
    fleet: Fleet,
    router: Router,
    client: Client,
}

impl Mortal {
    async fn new() -> Self {
        let fleet = Fleet::of(1).await;
        let router = Serve::over(fleet.instances()).start().await;
        let client = Client::silent(&router, "c");
        Self { fleet, router, client }
    }

    fn body(colour: u32) -> String {
        json!({ "prompt": plain(colour), "client_id": "c" }).to_string()
    }

    async fn post(&self, colour: u32) -> anyhow::Result<Answer> {
        let headers = [("idempotency-key", KEY)];
        self.client.http.try_send(Method::POST, "/prompt", &headers, Self::body(colour)).await
    }

    /// Posts, dies at the point, and is started again. Gives the answer, if there was one.
    async fn dies_at(&mut self, point: &str) -> Option<Value> {
        self.router.arm(point);
        let answer = self.post(0xdd).await.ok().map(|answer| answer.ok().json());
        assert_eq!(within(&format!("the end at {point}"), self.router.ended()).await, None, "by a signal");
        answer
    }

    async fn lives_again(&mut self) {
        self.router.start_again().await;
        self.router.instances_up(1).await;
    }

    /// The client repeats its request and follows it to its end.
    async fn ends_well(mut self) -> (Books, String, usize) {
        let id = self.post(0xdd).await.expect("an answer").ok().json()["prompt_id"].clone();
        let id = id.as_str().expect("an id").to_owned();
        self.fleet.open();
        let history = self.client.history_when_ended(&id).await;
        assert_eq!(history["status"]["status_str"], "success", "{history}");
        assert_eq!(self.client.colour_made_by(&id).await, 0xdd);
        self.router.stop().await;
        let books = Books::read(&self.router.state_dir());
        books.nothing_is_lost(std::slice::from_ref(&id));
        books.nothing_ran_unrecorded(&Run::of(&self.fleet));
        let started = self.fleet.started();
        (books, id, started)
    }
}

#[tokio::test]
async fn before_a_prompt_is_stored_it_was_not_accepted() {
    let mut mortal = Mortal::new().await;
    assert!(mortal.dies_at("before_append.accepted").await.is_none(), "nobody was told 200");
    mortal.lives_again().await;
    let queue = mortal.client.queue().await;
    assert_eq!(queue, (vec![], vec![]), "it is not there");
    let (books, _, started) = mortal.ends_well().await;
    assert_eq!((books.jobs(), started), (1, 1));
}

#[tokio::test]
async fn between_storing_a_prompt_and_its_200_the_repeated_request_finds_it() {
    let mut mortal = Mortal::new().await;
    mortal.fleet.hold();
    assert!(mortal.dies_at("after_append.accepted").await.is_none());
    mortal.lives_again().await;
    mortal.fleet.held(0).await;
    let (books, _, started) = mortal.ends_well().await;
    assert_eq!((books.jobs(), started), (1, 1), "one job, though it was posted twice");
}

#[tokio::test]
async fn between_recording_an_attempt_and_sending_it_nothing_was_run() {
    for point in ["after_append.started", "before_post"] {
        let mut mortal = Mortal::new().await;
        mortal.dies_at(point).await;
        assert_eq!(mortal.fleet.started(), 0, "{point}");
        mortal.lives_again().await;
        let (books, id, started) = mortal.ends_well().await;
        assert_eq!((books.attempts_ended(&id), started), (vec!["lost", "success"], 1), "{point}");
    }
}

#[tokio::test]
async fn between_sending_an_attempt_and_hearing_of_it_it_is_found_at_its_instance() {
    let mut mortal = Mortal::new().await;
    mortal.fleet.hold();
    mortal.dies_at("after_post").await;
    mortal.fleet.held(0).await;
    mortal.lives_again().await;
    let (books, id, started) = mortal.ends_well().await;
    assert_eq!((books.attempts_ended(&id), started), (vec!["success"], 1), "no second run");
}

#[tokio::test]
async fn between_an_end_and_its_record_the_instances_history_has_it() {
    for point in ["before_append.ended", "after_append.ended"] {
        let mut mortal = Mortal::new().await;
        mortal.dies_at(point).await;
        mortal.fleet.control(0).wait_ended(1).await;
        mortal.lives_again().await;
        let (books, id, started) = mortal.ends_well().await;
        assert_eq!((books.attempts_ended(&id), started), (vec!["success"], 1), "{point}");
    }
}

#[tokio::test]
async fn while_the_log_is_merged_into_the_ledger_nothing_is_lost() {
    let mut mortal = Mortal::new().await;
    let mut accepted = Vec::new();
    for point in ["checkpoint.begin", "checkpoint.end"] {
        mortal.router.arm(point);
        for colour in 1.. {
            let mut body = json!({ "prompt": plain(colour), "client_id": "c" });
            body["extra_data"] = json!({ "extra_pnginfo": { "workflow": "x".repeat(200_000) } });
            match mortal.client.http.try_send(Method::POST, "/prompt", &[], body.to_string()).await {
                Ok(answer) => {
                    accepted.push(answer.ok().json()["prompt_id"].as_str().expect("an id").to_owned())
                }
                Err(_) => break,
            }
        }
        assert_eq!(within("its end", mortal.router.ended()).await, None);
        mortal.lives_again().await;
    }
    mortal.client.all_done().await;
    mortal.router.stop().await;
    assert!(accepted.len() > 10, "{} were accepted", accepted.len());
    let books = Books::read(&mortal.router.state_dir());
    books.nothing_is_lost(&accepted);
    books.nothing_ran_unrecorded(&Run::of(&mortal.fleet));
}

/// The policy takes the instance away from whatever runs there, as often as it may.
const PREEMPTS: &str = r#"settings={on="tick", do="preempt", from_ms=1_750_000_000_000.0}"#;

#[tokio::test]
async fn a_job_that_was_to_give_up_its_instance_waits_again_whenever_the_router_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hostile.wasm");
    std::fs::write(&file, component("hostile")).expect("written");
    let hook = format!("policy.hooks.housekeeping={{file={:?}, {PREEMPTS}}}", file.display().to_string());
    for point in ["after_append.stop_asked", "before_append.attempt_ended"] {
        let fleet = Fleet::of(1).await;
        fleet.hold();
        let mut router = Serve::over(fleet.instances()).patient().set(&hook).start().await;
        let client = Client::silent(&router, "c");
        router.arm(point);
        let id = client.post(&plain(0x9e)).await;
        assert_eq!(within(&format!("the end at {point}"), router.ended()).await, None, "by a signal");
        router.start_again().await;
        fleet.control(0).wait_ended(1).await;
        fleet.open();
        let history = client.history_when_ended(&id).await;
        assert_eq!(history["status"]["status_str"], "success", "{point}: {history}");
        router.stop().await;
        let books = Books::read(&router.state_dir());
        books.nothing_is_lost(std::slice::from_ref(&id));
        books.nothing_ran_unrecorded(&Run::of(&fleet));
        let ended = books.attempts_ended(&id);
        assert_eq!(
            (ended.first(), ended.last()),
            (Some(&"preempted"), Some(&"success")),
            "{point}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_job_past_its_limit_that_was_to_run_again_does_so_whenever_the_router_dies() {
    for point in ["after_append.stop_asked", "before_append.attempt_ended"] {
        let fleet = Fleet::of(1).await;
        fleet.hold();
        let serve = Serve::over(fleet.instances()).set("timeouts.stall_s=1");
        let mut router = serve.start().await;
        let client = Client::silent(&router, "c");
        router.arm(point);
        let id = client.post(&plain(0x71)).await;
        assert_eq!(within(&format!("the end at {point}"), router.ended()).await, None, "by a signal");
        fleet.open();
        router.start_again().await;
        let history = client.history_when_ended(&id).await;
        assert_eq!(history["status"]["status_str"], "success", "{point}: {history}");
        router.stop().await;
        Books::read(&router.state_dir()).nothing_is_lost(std::slice::from_ref(&id));
    }
}
