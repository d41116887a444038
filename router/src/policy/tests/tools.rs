//! `policy check` and `policy bench`.

use super::*;
use crate::model::decision::Hook;
use crate::policy::tools::{bench, check, conform};

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
    let bench = bench(&built("model-affinity"), &Map::new(), &[1, 16]).unwrap();
    let rows: Vec<(Hook, usize)> = bench.rows.iter().map(|row| (row.hook, row.candidates)).collect();
    let expected = [(Hook::Prioritize, 1), (Hook::Route, 1), (Hook::Prioritize, 16), (Hook::Route, 16)];
    assert_eq!(rows, expected);
    assert!(
        bench.rows.iter().all(|row| row.p50_us > 0.0 && row.p50_us <= row.p99_us && row.p99_us <= row.max_us)
    );
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
