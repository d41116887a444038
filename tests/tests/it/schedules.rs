//! Random faults in any order. `COMFY_ROUTER_SCHEDULES` plays so many, `COMFY_ROUTER_TEST_SEED` begins at another seed;
//! a schedule that fails is played again alone by its seed.

#![expect(clippy::print_stdout, reason = "a failure is repeated by its seed, which the test prints")]

use std::panic::AssertUnwindSafe;

use comfy_router_tests::Chance;
use comfy_router_tests::schedule::{Plan, Played, play};
use futures_util::{FutureExt, StreamExt, stream};

/// Played at a time: they wait much more than they work.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_schedules_of_random_faults_lose_nothing() {
    let first = Chance::of_environment().seed();
    let schedules = Chance::schedules(100);
    println!("seeds {first} to {}", first + schedules - 1);
    let played: Vec<Option<Played>> =
        stream::iter(first..first + schedules).map(watched).buffer_unordered(AT_ONCE).collect().await;
    let failed = played.iter().filter(|played| played.is_none()).count();
    let all = played.iter().flatten().fold(Played::default(), |sum, one| Played {
        jobs: sum.jobs + one.jobs,
        attempts: sum.attempts + one.attempts,
        repeated: sum.repeated + one.repeated,
        router_deaths: sum.router_deaths + one.router_deaths,
    });
    println!(
        "{schedules} schedules: {} jobs accepted, {} attempts, {} executions again, the router died {} times",
        all.jobs, all.attempts, all.repeated, all.router_deaths
    );
    assert_eq!(failed, 0, "schedules failed; their seeds are above");
    assert!(all.jobs as u64 > schedules, "the schedules have tested something");
}

/// None when it failed; what its seed says is printed then.
async fn watched(seed: u64) -> Option<Played> {
    let played = AssertUnwindSafe(play(seed)).catch_unwind().await;
    if played.is_err() {
        println!("seed {seed} failed: {:#?}", Plan::of(seed));
    }
    played.ok()
}
