//! The promise that matters most: whatever is killed, whenever, no accepted job is lost and none runs behind the
//! ledger's back. The instances count executions themselves, on disk, before they start them; afterwards the
//! router's ledger has to agree.
//!
//! `COMFY_ROUTER_TEST_SEED` and `COMFY_ROUTER_TEST_ROUNDS` choose other moments and more of them.

#![expect(clippy::print_stdout, reason = "a failure is repeated by its seed, which the test prints")]

use std::time::Duration;

use comfy_router_tests::{Books, Chance, Client, Http, InstanceProcesses, Router, Serve, plain};
use hyper::StatusCode;
use serde_json::json;

/// Of one client in one round.
const PROMPTS: u64 = 12;

/// A prompt that a client posted: its id, and the colour of its picture.
type Posted = (String, u32);

#[tokio::test]
async fn an_instance_killed_while_it_runs_loses_nothing() {
    let mut instances = InstanceProcesses::of(2).await;
    for at in 0..2 {
        instances.get(at).hold().await;
    }
    let mut router = Serve::over(instances.instances()).start().await;
    let client = Client::connect(&router, "unlucky").await;
    let mut posted: Vec<Posted> = Vec::new();
    for colour in 1..=8 {
        posted.push((client.post(&plain(colour)).await, colour));
    }
    for at in 0..2 {
        instances.get(at).held().await;
    }
    instances.get(0).kill();
    instances.get(1).open().await;
    for (id, colour) in &posted {
        client.end_of(id).await;
        assert_eq!(client.colour_made_by(id).await, *colour);
    }
    router.stop().await;
    let (books, runs) = (Books::read(&router.state_dir()), instances.runs());
    books.nothing_is_lost(&ids(&posted));
    books.nothing_ran_unrecorded(&runs);
    assert_eq!((books.attempts(), runs.len()), (posted.len() + 1, posted.len() + 1), "one job ran again");
}

#[tokio::test]
async fn the_router_killed_at_any_moment_loses_nothing() {
    let mut chance = Chance::of_environment();
    println!("seed {}", chance.seed());
    let instances = InstanceProcesses::of(3).await;
    instances.slow(10).await;
    let mut router = Serve::over(instances.instances()).start().await;
    let mut posted = Vec::new();
    for round in 0..Chance::rounds(8) {
        posted.extend(post_until_killed(&mut router, round, chance.below(400)).await);
        router.start_again().await;
    }
    check(&mut router, &posted, &instances).await;
}

#[tokio::test]
async fn instances_and_the_router_killed_at_any_moment_lose_nothing() {
    let mut chance = Chance::of_environment();
    println!("seed {}", chance.seed());
    let mut instances = InstanceProcesses::of(3).await;
    instances.slow(10).await;
    let serve = Serve::over(instances.instances()).set("limits.attempts=50");
    let mut router = serve.start().await;
    let mut posted = Vec::new();
    for round in 0..Chance::rounds(5) {
        let victim = chance.below(3) as usize;
        let (moment, later) = (chance.below(300), chance.below(100));
        let url = Http::new(router.url());
        let posting = post(&url, round);
        let killing = async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            instances.get(victim).kill();
            tokio::time::sleep(Duration::from_millis(later)).await;
            router.kill();
        };
        posted.extend(tokio::join!(posting, killing).0);
        if round % 2 == 0 {
            instances.get(victim).start_again().await;
            router.start_again().await;
        } else {
            router.start_again().await;
            instances.get(victim).start_again().await;
        }
        instances.get(victim).slow(10).await;
    }
    check(&mut router, &posted, &instances).await;
}

/// Clients post as fast as they are answered until the router is killed; gives what was accepted.
async fn post_until_killed(router: &mut Router, round: u64, after_ms: u64) -> Vec<Posted> {
    let http = Http::new(router.url());
    let killing = async {
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        router.kill();
    };
    tokio::join!(post(&http, round), killing).0
}

/// Three clients, until the router is gone.
async fn post(http: &Http, round: u64) -> Vec<Posted> {
    let clients = (0..3).map(|client| post_as(http, round, client));
    futures_util::future::join_all(clients).await.concat()
}

async fn post_as(http: &Http, round: u64, client: u64) -> Vec<Posted> {
    let mut accepted = Vec::new();
    for at in 0..PROMPTS {
        let id = format!("round-{round}-client-{client}-{at}");
        let colour = ((round * 3 + client) * 1_000 + at + 1) as u32;
        let body =
            json!({ "prompt": plain(colour), "prompt_id": id, "client_id": format!("client-{client}") });
        let answer = http.try_send(hyper::Method::POST, "/prompt", &[], body.to_string()).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => accepted.push((id, colour)),
            // It starts, and has seen no instance yet.
            Ok(answer) => assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text()),
            Err(_) => break,
        }
    }
    accepted
}

async fn check(router: &mut Router, posted: &[Posted], instances: &InstanceProcesses) {
    let client = Client::silent(router, "auditor");
    router.instances_up(instances.len()).await;
    client.all_done().await;
    for (id, colour) in posted {
        let history = client.history(id).await;
        assert_eq!(history["status"]["status_str"], "success", "{id}: {history}");
        assert_eq!(client.colour_made_by(id).await, *colour, "{id} has its own picture");
    }
    router.stop().await;
    let (books, runs) = (Books::read(&router.state_dir()), instances.runs());
    books.nothing_is_lost(&ids(posted));
    books.nothing_ran_unrecorded(&runs);
    let (jobs, repeated) = (posted.len(), books.repeated(&runs));
    println!(
        "{jobs} jobs accepted, {} attempts, {} executions, {repeated} of them again",
        books.attempts(),
        runs.len()
    );
    assert!(jobs > 10, "the test has tested something");
}

fn ids(posted: &[Posted]) -> Vec<String> {
    posted.iter().map(|(id, _)| id.clone()).collect()
}
