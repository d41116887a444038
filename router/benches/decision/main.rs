//! Question: how long does one routing decision take, with 16 instances and 100 queued jobs? The aim is a p50 under 50 us
//! in a release build, first for the question to the policy alone, then for the whole of it: the scheduler's core picks
//! the job and describes the instances, the policy thread is asked, the core checks the answer and starts the attempt.
//!
//! Then whether compiling and exchanging versions, which other threads do, make decisions wait.
//!
//! `cargo bench -p comfy-router --bench decision`. Asserts that the shipped policies answered every question themselves; a
//! fallback would be faster and measure nothing. Writing to the ledger is not part of it: see the bench `ledger`.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

mod policy;
mod scheduler;
mod swap;

use std::sync::Arc;
use std::time::Duration;

use comfy_router::clock::SystemClock;
use comfy_router::policy::{Config, GuestLimits, Handle, Shipped, start};

const INSTANCES: u32 = 16;
const QUEUE: u32 = 100;
/// The shipped policies that say where a job runs.
const ROUTERS: [Shipped; 3] = [Shipped::ModelAffinity, Shipped::LeastLoaded, Shipped::FairShare];

fn main() {
    // As in the binary: a worker for each core.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    println!("one question, {INSTANCES} candidates, {QUEUE} different jobs, microseconds");
    println!("{:<16} {:>8} {:>8} {:>8} {:>8}", "policy", "p50", "p99", "max", "in guest");
    for shipped in ROUTERS {
        let (mut total, mut guest) = runtime.block_on(policy::measure(&asked(shipped), shipped));
        let [p50, p99, max] = shares(&mut total);
        let [in_guest, ..] = shares(&mut guest);
        println!("{:<16} {p50:>8.1} {p99:>8.1} {max:>8.1} {in_guest:>8.1}", shipped.name());
    }
    println!(
        "\none decision of the scheduler, {INSTANCES} busy instances of which one gets free, {QUEUE} jobs queued"
    );
    println!("{:<16} {:>8} {:>8} {:>8} {:>8} {:>8}", "policy", "p50", "p99", "max", "in core", "jobs");
    for shipped in ROUTERS {
        let measured = runtime.block_on(scheduler::measure(asked(shipped), shipped));
        let (mut total, mut core) = (measured.total, measured.core);
        let jobs = total.len();
        let [p50, p99, max] = shares(&mut total);
        let [in_core, ..] = shares(&mut core);
        println!("{:<16} {p50:>8.1} {p99:>8.1} {max:>8.1} {in_core:>8.1} {jobs:>8}", shipped.name());
    }
    println!("\none question to model-affinity or least-loaded, while the loading thread ...");
    println!(
        "{:<16} {:>8} {:>8} {:>8} {:>8} {:>8}   bystander late: p99, max",
        "", "p50", "p99", "max", "asked", "times"
    );
    for work in swap::Work::ALL {
        let measured = runtime.block_on(swap::measure(&asked(Shipped::ModelAffinity), work));
        let (mut total, mut late, times) = (measured.total, measured.late, measured.times);
        let count = total.len();
        let [p50, p99, max] = shares(&mut total);
        let [_, late_p99, late_max] = shares(&mut late);
        println!(
            "{:<16} {p50:>8.1} {p99:>8.1} {max:>8.1} {count:>8} {times:>8} {late_p99:>12.1} {late_max:>8.1}",
            work.name()
        );
    }
}

fn asked(shipped: Shipped) -> Handle {
    // Patient, so that a busy machine gives a long time and not a fallback.
    let limits = GuestLimits { call_ms: 100, ..GuestLimits::default() };
    let config = Config { shipped, limits, ..Config::default() };
    start(config, Arc::new(SystemClock::default())).expect("the policy host starts")
}

/// Median, 99 % and maximum, in microseconds.
fn shares(took: &mut [Duration]) -> [f64; 3] {
    took.sort_unstable();
    [0.5, 0.99, 1.0].map(|share| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e6)
}
