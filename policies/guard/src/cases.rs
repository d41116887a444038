//! Views in, orders out.

use comfy_router_policy::testing::{instance, with_host};

use super::*;

/// A guard over instances `a` and `b`, with settings as an operator writes them.
fn guard(json: &str) -> Guard {
    with_host(|host| {
        *host = comfy_router_policy::testing::Host {
            instances: vec!["a".into(), "b".into()],
            now_ms: 1e12,
            ..Default::default()
        };
    });
    Guard::configure(json).expect("the settings are right")
}

fn pass(ms: f64) {
    with_host(|host| host.now_ms += ms);
}

fn at(temperature_c: f32) -> InstanceState {
    InstanceState { temperature_c: Some(temperature_c), reading_age_ms: Some(100), ..instance(0) }
}

fn acts(guard: &mut Guard, instances: &[InstanceState]) -> Vec<Act> {
    guard.tick(instances).into_iter().map(|order| order.act).collect()
}

const NONE: [Act; 0] = [];
const WARM: &str = r#"{"drain_at_c": 80, "resume_at_c": 70, "free_idle_ms": null}"#;

#[test]
fn a_hot_one_is_drained_once_and_resumed_when_it_is_cool_and_not_before() {
    let mut guard = guard(WARM);
    assert_eq!(acts(&mut guard, &[at(79.9)]), NONE);
    assert_eq!(acts(&mut guard, &[at(80.0)]), [Act::Drain]);
    let drained = |temperature| InstanceState { draining: true, ..at(temperature) };
    for still in [85.0, 79.0, 70.1] {
        assert_eq!(acts(&mut guard, &[drained(still)]), NONE, "{still}");
    }
    assert_eq!(acts(&mut guard, &[drained(70.0)]), [Act::Resume]);
    assert_eq!(acts(&mut guard, &[at(75.0)]), NONE, "between the two nothing happens");
}

#[test]
fn what_an_operator_drained_is_not_resumed() {
    let mut guard = guard(WARM);
    let drained = InstanceState { draining: true, ..at(20.0) };
    assert_eq!(acts(&mut guard, std::slice::from_ref(&drained)), NONE);
    // And what an operator resumed is forgotten: a later drain of his is his.
    assert_eq!(acts(&mut guard, &[at(90.0)]), [Act::Drain]);
    assert_eq!(acts(&mut guard, &[at(60.0)]), NONE);
    assert_eq!(acts(&mut guard, &[drained]), NONE);
}

#[test]
fn a_new_version_knows_what_the_old_one_drained() {
    let mut old = guard(WARM);
    assert_eq!(acts(&mut old, &[at(90.0)]), [Act::Drain]);
    let mut new = Guard::configure(WARM).unwrap();
    assert_eq!(acts(&mut new, &[InstanceState { draining: true, ..at(60.0) }]), [Act::Resume]);
}

#[test]
fn an_old_reading_is_no_reading() {
    let mut guard = guard(WARM);
    let old = |temperature| InstanceState { reading_age_ms: Some(5_001), ..at(temperature) };
    let unaged = |temperature| InstanceState { reading_age_ms: None, ..at(temperature) };
    assert_eq!(acts(&mut guard, &[old(99.0)]), NONE);
    assert_eq!(acts(&mut guard, &[unaged(99.0)]), NONE);
    assert_eq!(acts(&mut guard, &[at(99.0)]), [Act::Drain]);
    let drained = InstanceState { draining: true, ..old(20.0) };
    assert_eq!(acts(&mut guard, std::slice::from_ref(&drained)), NONE, "cool long ago is not cool");
    pass(59_999.0);
    assert_eq!(acts(&mut guard, std::slice::from_ref(&drained)), NONE);
    pass(1.0);
    assert_eq!(acts(&mut guard, &[drained]), [Act::Resume], "but not for ever");
}

#[test]
fn a_reading_in_between_starts_the_blind_time_anew() {
    let mut guard = guard(WARM);
    assert_eq!(acts(&mut guard, &[at(99.0)]), [Act::Drain]);
    let drained = |age| InstanceState { draining: true, reading_age_ms: Some(age), ..at(75.0) };
    for _ in 0..10 {
        assert_eq!(acts(&mut guard, &[drained(9_000)]), NONE);
        pass(50_000.0);
        assert_eq!(acts(&mut guard, &[drained(10)]), NONE);
        pass(50_000.0);
    }
}

#[test]
fn closeness_to_slowdown_counts_where_it_is_asked_for() {
    let close = InstanceState { slowdown_margin_c: Some(3.0), ..at(60.0) };
    assert_eq!(acts(&mut guard(WARM), std::slice::from_ref(&close)), NONE);
    let mut guard =
        guard(r#"{"drain_at_c": 80, "resume_at_c": 70, "drain_margin_c": 5, "free_idle_ms": null}"#);
    assert_eq!(acts(&mut guard, &[close]), [Act::Drain]);
    let drained = |margin| InstanceState { draining: true, slowdown_margin_c: Some(margin), ..at(60.0) };
    assert_eq!(acts(&mut guard, &[drained(14.0)]), NONE);
    assert_eq!(acts(&mut guard, &[drained(15.0)]), [Act::Resume]);
}

#[test]
fn unused_models_are_freed_and_used_ones_are_not() {
    let mut guard = guard(r#"{"free_idle_ms": 1000}"#);
    let idle = InstanceState { idle_ms: Some(1_000), models_resident: 2, ..instance(0) };
    let cases = [
        InstanceState { idle_ms: Some(999), ..idle },
        InstanceState { idle_ms: None, ..idle },
        InstanceState { models_resident: 0, ..idle },
        InstanceState { running: 1, ..idle },
        InstanceState { up: false, ..idle },
    ];
    for case in cases {
        assert_eq!(acts(&mut guard, &[case]), NONE, "{case:?}");
    }
    assert_eq!(acts(&mut guard, &[idle]), [Act::FreeModels]);
}

#[test]
fn memory_that_runs_out_is_freed_again_only_after_a_while() {
    let mut guard = guard(r#"{"free_below_mib": 2000, "free_again_ms": 10000}"#);
    let low = InstanceState { vram_free_mib: Some(1_999), running: 1, ..at(50.0) };
    assert_eq!(acts(&mut guard, &[InstanceState { vram_free_mib: Some(2_000), ..low }]), NONE);
    assert_eq!(acts(&mut guard, &[InstanceState { reading_age_ms: Some(60_000), ..low }]), NONE, "unknown");
    assert_eq!(acts(&mut guard, &[low]), [Act::FreeMemory]);
    pass(9_999.0);
    assert_eq!(acts(&mut guard, &[low]), NONE);
    pass(1.0);
    assert_eq!(acts(&mut guard, &[low]), [Act::FreeMemory]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for json in [
        r#"{"drain_at_c": 70, "resume_at_c": 70}"#,
        r#"{"drain_at_c": 60}"#,
        r#"{"drain_above": 1}"#,
        r#"{"max_age_ms": -1}"#,
    ] {
        assert!(Guard::configure(json).is_err(), "{json}");
    }
    assert!(Guard::configure("{}").is_ok());
}

#[test]
fn figures_are_kept() {
    let mut guard = guard(WARM);
    guard.tick(&[at(99.0), InstanceState { instance: 1, ..at(99.0) }]);
    let metrics = with_host(|host| host.metrics.clone());
    assert_eq!(metrics, [("drained".into(), 2.0), ("drains".into(), 2.0), ("frees".into(), 0.0)]);
}
