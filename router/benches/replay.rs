//! Question: how long does `policy replay` take for a day of 100 000 decisions, decided again and simulated? The aim is under
//! 10 s in a release build.
//!
//! `cargo bench -p comfy-router --bench replay`. With `-- --write FILE` the made-up day's recording is kept, for
//! `comfy-router policy replay --log FILE --policy target/policies/model-affinity.wasm`. Asserts that there were so many
//! decisions and that the policy which made them makes the same again.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Instant;

use comfy_router::policy::Shipped;
use comfy_router::policy::tools::{Desk, Player, Settings};
use comfy_router::simulation::{Imagined, Report, imagined, simulate};

const DECISIONS: u64 = 100_000;
const DAY: Imagined = Imagined { jobs: 34_000, instances: 16, hours: 24, load: 0.75, seed: 1 };

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings::new();
    let component = |shipped: Shipped| {
        let path = folder.path().join(format!("{}.wasm", shipped.name()));
        std::fs::write(&path, shipped.bytes()).expect("written");
        path
    };
    let (affinity, fair) = (component(Shipped::ModelAffinity), component(Shipped::FairShare));
    let affinity = Player { component: &affinity, settings: &settings };
    let fair = Player { component: &fair, settings: &settings };
    let log = wanted().unwrap_or_else(|| folder.path().join("day.jsonl"));

    let started = Instant::now();
    let mut desk = Desk::open(&affinity).expect("a policy");
    desk.record(Box::new(BufWriter::new(File::create(&log).expect("a file"))));
    let lived = simulate(&imagined(DAY), &mut desk).expect("recorded");
    drop(desk);
    let mib = std::fs::metadata(&log).expect("it is there").len() as f64 / f64::from(1 << 20);
    println!(
        "a day of {} jobs was made up and recorded: {:.1} s, {mib:.0} MiB",
        lived.jobs,
        started.elapsed().as_secs_f64()
    );

    for (against, second) in [("the recording", None), ("fair-share", Some(&fair))] {
        let started = Instant::now();
        let report = Report::of(std::slice::from_ref(&log), &affinity, second).expect("replayed");
        let took = started.elapsed().as_secs_f64();
        let decisions = report.replayed.decisions;
        assert!(decisions >= DECISIONS, "{decisions} decisions");
        if second.is_none() {
            assert_eq!(report.replayed.different, 0, "the same policy decides the same");
        }
        println!(
            "model-affinity against {against}: {decisions} decisions again and {} simulated days in {took:.2} s",
            report.days.len() - 1
        );
    }
}

/// `--write FILE`
fn wanted() -> Option<PathBuf> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--write");
    arguments.next()?;
    arguments.next().map(PathBuf::from)
}
