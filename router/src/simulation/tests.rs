//! Made-up days under shipped policies.

use std::path::PathBuf;

use super::*;
use crate::policy::Shipped;
use crate::policy::tools::{Desk, Player, Settings};

const DAY: Imagined = Imagined { jobs: 300, instances: 3, hours: 2, load: 0.7, seed: 5 };

struct Folder(tempfile::TempDir, Settings);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for shipped in Shipped::ALL {
            std::fs::write(folder.path().join(format!("{}.wasm", shipped.name())), shipped.bytes()).unwrap();
        }
        Self(folder, Settings::new())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn figures(&self, trace: &Trace, policy: Shipped) -> Figures {
        simulate(trace, &mut self.desk(policy)).unwrap()
    }

    fn desk(&self, policy: Shipped) -> Desk {
        let component = self.file(&format!("{}.wasm", policy.name()));
        Desk::open(&Player { component: &component, settings: &self.1 }).unwrap()
    }

    fn recorded(&self, trace: &Trace, policy: Shipped) -> (PathBuf, Figures) {
        let log = self.file("log.jsonl");
        let mut desk = self.desk(policy);
        desk.record(Box::new(std::io::BufWriter::new(std::fs::File::create(&log).unwrap())));
        let figures = simulate(trace, &mut desk).unwrap();
        // The recording is whole when its writer is gone.
        drop(desk);
        (log, figures)
    }
}

#[test]
fn a_day_has_the_same_figures_each_time_and_every_job_ends() {
    let folder = Folder::new();
    let trace = imagined(DAY);
    let once = folder.figures(&trace, Shipped::ModelAffinity);
    assert_eq!(once, folder.figures(&trace, Shipped::ModelAffinity));
    assert_eq!((once.jobs, once.open, once.done + once.failed), (300, 0, 300));
    assert!(once.failed > 0 && once.wait_s.max > 0.0 && once.queue.iter().any(|waiting| *waiting > 0.0));
}

#[test]
fn a_policy_that_looks_for_models_loads_fewer_than_one_that_does_not() {
    let folder = Folder::new();
    // More instances than are busy: there is a choice.
    let trace = imagined(Imagined { jobs: 600, instances: 8, hours: 2, load: 0.3, seed: 5 });
    let affinity = folder.figures(&trace, Shipped::ModelAffinity);
    let least = folder.figures(&trace, Shipped::LeastLoaded);
    let (few, many) = (affinity.model_loads, least.model_loads);
    assert!(few * 5 < many * 4, "{few} against {many}");
    assert!(affinity.model_load_s < least.model_load_s);
}

#[test]
fn a_recorded_day_is_decided_alike_by_the_same_policy_and_its_simulation_is_near_the_day() {
    let folder = Folder::new();
    let (log, lived) = folder.recorded(&imagined(DAY), Shipped::ModelAffinity);
    let (affinity, least) = (folder.file("model-affinity.wasm"), folder.file("least-loaded.wasm"));
    let player = |component| Player { component, settings: &folder.1 };
    let report = Report::of(std::slice::from_ref(&log), &player(&affinity), Some(&player(&least))).unwrap();
    let again = Report::of(std::slice::from_ref(&log), &player(&affinity), None).unwrap();
    assert_eq!(again.replayed.different, 0, "{again}");
    assert!(report.replayed.different > 0, "{report}");

    let [served, one, other] = &report.days[..] else { panic!("three ways") };
    let [_, alone] = &again.days[..] else { panic!("two ways") };
    assert_eq!(one.figures, alone.figures);
    // What is told of the day in service is how it went.
    let figures = &served.figures;
    assert_eq!((figures.jobs, figures.failed, figures.model_loads), (300, lived.failed, lived.model_loads));
    assert!(
        (figures.wait_s.mean - lived.wait_s.mean).abs() < 1.0,
        "{} {}",
        figures.wait_s.mean,
        lived.wait_s.mean
    );
    // And the simulation of what is known of it comes near.
    let (near, true_loads) = (one.figures.model_loads as f64, lived.model_loads as f64);
    assert!((near / true_loads - 1.0).abs() < 0.15, "{near} loads, {true_loads}");
    assert!(other.figures.model_loads > one.figures.model_loads);

    let shown = report.to_string();
    for expected in
        ["in service", "model-affinity", "least-loaded", "wait, p95", "fairness", "decisions differ"]
    {
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["days"][1]["figures"]["wait_s"]["p99"].is_number() && json["different"].is_number());
}

#[test]
fn the_page_stands_alone_and_names_are_no_markup() {
    let folder = Folder::new();
    let mut trace = imagined(Imagined { jobs: 40, ..DAY });
    for arrival in &mut trace.arrivals {
        arrival.tenant = "<script>alert(1)</script>&\"".into();
    }
    let (log, _) = folder.recorded(&trace, Shipped::FairShare);
    let component = folder.file("fair-share.wasm");
    let report = Report::of(&[log], &Player { component: &component, settings: &folder.1 }, None).unwrap();
    let page = report.page();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"), "{page}");
    for expected in
        ["prefers-color-scheme: dark", "Waiting jobs", "wait in seconds", "in service", "fair-share"]
    {
        assert!(page.contains(expected), "{expected}");
    }
}
