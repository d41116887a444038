//! `policy check` and `policy bench`.

use super::*;
use crate::model::decision::{Hook, Question};
use crate::policy::tools::{self, bench, check, conform};

fn short(names: &[String]) -> Vec<&str> {
    names
        .iter()
        .map(|name| name.trim_start_matches("comfy-router:policy/").trim_end_matches("@0.1.1"))
        .collect()
}

#[test]
fn a_component_exports_what_it_names_imports_what_it_calls_and_no_wasi() {
    let least = check(&built("least-loaded"), &Map::new()).unwrap();
    assert!(least.passed(), "{least}");
    assert_eq!(short(&least.exports), ["routing"]);
    assert_eq!(short(&least.imports), ["types"]);

    let affinity = check(&built("model-affinity"), &object(json!({"max_extra_wait_ms": 1}))).unwrap();
    assert!(affinity.passed(), "{affinity}");
    let mut exports = short(&affinity.exports);
    exports.sort_unstable();
    assert_eq!(exports, ["lifecycle", "priority", "routing"]);
    assert_eq!(short(&affinity.imports), ["types", "clock"]);
}

#[test]
fn a_report_says_what_each_hook_said_and_why_a_policy_would_not_serve() {
    let report = check(&built("model-affinity"), &Map::new()).unwrap();
    let hooks: Vec<Hook> = report.said.iter().map(|(hook, _)| *hook).collect();
    assert_eq!(hooks, [Hook::Prioritize, Hook::Route]);
    assert!(report.to_string().ends_with("it may serve"), "{report}");
    assert!(serde_json::to_string(&report).unwrap().contains("\"refused\":null"));

    let refused = check(&built("model-affinity"), &object(json!({"typo": 1}))).unwrap();
    assert!(!refused.passed());
    assert!(refused.to_string().contains("unknown field `typo`"), "{refused}");

    let ignored = check(&built("least-loaded"), &object(json!({"any": 1}))).unwrap();
    assert!(ignored.warnings.iter().any(|w| w.contains("settings")), "{:?}", ignored.warnings);
}

#[test]
fn a_bench_times_every_exported_hook_at_every_size() {
    let bench = bench(&built("model-affinity"), &Map::new(), &[1, 16], true).unwrap();
    let rows: Vec<(Hook, usize)> = bench.rows.iter().map(|row| (row.hook, row.candidates)).collect();
    let expected = [(Hook::Prioritize, 1), (Hook::Route, 1), (Hook::Prioritize, 16), (Hook::Route, 16)];
    assert_eq!(rows, expected);
    assert!(
        bench.rows.iter().all(|row| row.p50_us > 0.0 && row.p50_us <= row.p99_us && row.p99_us <= row.max_us)
    );
    let fuel = |n: usize| bench.rows[n].fuel.expect("it was counted")[0];
    assert!(
        fuel(3) > fuel(1) && fuel(1) > 100,
        "sixteen candidates take more than one: {} {}",
        fuel(3),
        fuel(1)
    );
    assert!(bench.rows.iter().all(|row| row.memory_bytes > 0));
}

/// Decides a mixed stretch in service, and gives the recording.
async fn recorded(policy: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let record = crate::policy::RecordConfig { dir: Some(folder.path().join("log")), ..Default::default() };
    let config = Config { file: Some(built(policy)), limits: PATIENT, record, ..Config::default() };
    let (handle, _) = started(config);
    let file = folder.path().join("log/decisions-000001.jsonl");
    let mut asked = 0;
    for n in 0..40 {
        for question in sample::questions(n, 1 + n as usize % 9) {
            let mut consultation = sample::ask(n.into(), 9, question);
            consultation.context.now_ms += u64::from(n) * 700;
            // Ticks are recorded for a policy that keeps house only.
            asked += usize::from(!matches!(consultation.question, Question::Tick { .. }));
            handle.decide(consultation).await;
        }
        // Written by a thread of its own, which forgets what comes too fast.
        while std::fs::read_to_string(&file).map_or(0, |text| text.lines().count()) < asked {
            tokio::task::yield_now().await;
        }
    }
    (folder, file)
}

#[tokio::test]
async fn the_same_policy_decides_a_recording_as_it_did_and_another_one_differs() {
    let (_folder, log) = recorded("model-affinity").await;
    let settings = Map::new();
    let (affinity, least) = (built("model-affinity"), built("least-loaded"));
    let player = |component| tools::Player { component, settings: &settings };
    let again = tools::replay(std::slice::from_ref(&log), &player(&affinity), None, |_| {}).unwrap();
    assert_eq!(again.different, 0, "{again}");
    assert!(again.hooks.values().all(|tally| tally.reworded == 0), "{again}");
    assert!(again.decisions >= 120 && again.hooks["route"].decisions == 40, "{again}");

    let twice =
        tools::replay(std::slice::from_ref(&log), &player(&affinity), Some(&player(&affinity)), |_| {})
            .unwrap();
    assert_eq!(twice.different, 0, "{twice}");

    let other = tools::replay(&[log], &player(&least), Some(&player(&affinity)), |_| {}).unwrap();
    let differs = other.differences.iter().find(|d| d.hook == Hook::Route).expect("they route differently");
    assert_ne!(Some(&differs.one), differs.other.as_ref());
    assert!(
        other.to_string().contains("least-loaded") && other.to_string().contains("decisions differ"),
        "{other}"
    );
}

#[tokio::test]
async fn the_last_decisions_are_in_memory_too() {
    let (handle, _) =
        started(Config { file: Some(built("least-loaded")), limits: PATIENT, ..Config::default() });
    route(&handle).await;
    while handle.recording().is_empty() {
        tokio::task::yield_now().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("ring.jsonl");
    std::fs::write(&log, handle.recording()).unwrap();
    let settings = Map::new();
    let component = built("least-loaded");
    let player = tools::Player { component: &component, settings: &settings };
    let again = tools::replay(std::slice::from_ref(&log), &player, None, |_| {}).unwrap();
    assert_eq!((again.decisions, again.different), (1, 0), "{again}");

    std::fs::write(&log, "{\"at\": 1}").unwrap();
    let error = tools::replay(&[log], &player, None, |_| {}).unwrap_err().to_string();
    assert!(error.contains("ring.jsonl, line 1: missing field"), "{error}");
}

#[test]
fn the_shipped_policies_conform_and_the_hostile_one_does_not() {
    for policy in ["model-affinity", "least-loaded", "fair-share", "guard"] {
        let report = conform(&built(policy), &Map::new()).unwrap();
        assert!(report.conforms() && report.asked > 50, "{report}");
    }
    for (hook, deed, rule) in
        [("route", "unknown", "bounds"), ("prioritize", "infinite", "bounds"), ("tick", "trap", "totality")]
    {
        let report = conform(&built("hostile"), &object(json!({"on": hook, "do": deed}))).unwrap();
        let broken: Vec<_> = report.broken.iter().map(|broken| (broken.hook.as_str(), broken.rule)).collect();
        assert_eq!(broken, [(hook, rule)], "{report}");
        assert!(report.to_string().contains("does not conform"), "{report}");
    }
}
