//! View in, decision out.

use comfy_router_policy::testing::{candidate, job, with_host};
use comfy_router_policy::{JobClass, RouteAnswer};

use super::*;

fn policy(json: &str) -> ModelAffinity {
    ModelAffinity::configure(json).expect("the settings are right")
}

fn answer(candidates: &[Candidate]) -> RouteAnswer {
    policy("{}").route(&job(), candidates).answer
}

fn loaded(instance: u32) -> Candidate {
    Candidate { models_resident: 1, load_ms: Some(0), ..candidate(instance) }
}

fn busy(free_in_ms: Option<u32>, of: Candidate) -> Candidate {
    Candidate { free_slots: 0, running: 1, free_in_ms, ..of }
}

fn cold(instance: u32, load_ms: u32) -> Candidate {
    Candidate { load_ms: Some(load_ms), ..candidate(instance) }
}

#[test]
fn a_free_instance_with_the_models_comes_first() {
    assert!(matches!(answer(&[cold(0, 9_000), loaded(1)]), RouteAnswer::Ranked(rows) if rows == [1, 0]));
}

#[test]
fn a_busy_instance_with_the_models_is_waited_for_while_that_is_faster_than_loading() {
    let hold = answer(&[cold(0, 9_000), busy(Some(4_000), loaded(1))]);
    assert!(matches!(hold, RouteAnswer::Hold(4_000)), "{hold:?}");
    let elsewhere = answer(&[cold(0, 3_000), busy(Some(4_000), loaded(1))]);
    assert!(matches!(&elsewhere, RouteAnswer::Ranked(rows) if rows == &[0]), "{elsewhere:?}");
}

#[test]
fn a_job_is_never_held_longer_than_the_bound() {
    let far = answer(&[cold(0, 60_000), busy(Some(15_001), loaded(1))]);
    assert!(matches!(far, RouteAnswer::Ranked(_)), "{far:?}");

    // The instance says "in 4 s" for ever: the holds add up to 10 s and no more.
    let mut policy = policy(r#"{"max_extra_wait_ms": 10000}"#);
    let candidates = [cold(0, 60_000), busy(Some(4_000), loaded(1))];
    let mut held = 0;
    loop {
        with_host(|host| host.now_ms = 1_000_000.0 + f64::from(held));
        let asked = Job { waited_ms: held, ..job() };
        match policy.route(&asked, &candidates).answer {
            RouteAnswer::Hold(ms) => held += ms,
            answer => {
                assert!(matches!(answer, RouteAnswer::Ranked(_)), "{answer:?}");
                break;
            }
        }
    }
    assert!((4_000..=10_000).contains(&held), "held for {held} ms");
}

#[test]
fn a_second_job_has_patience_of_its_own() {
    let mut policy = policy(r#"{"max_extra_wait_ms": 5000}"#);
    let candidates = [cold(0, 60_000), busy(Some(4_000), loaded(1))];
    for (client, now_ms) in [(1, 0.0), (2, 4_500.0)] {
        with_host(|host| host.now_ms = now_ms);
        let held = policy.route(&Job { client, ..job() }, &candidates).answer;
        assert!(matches!(held, RouteAnswer::Hold(_)), "client {client}: {held:?}");
    }
}

#[test]
fn an_instance_that_cannot_say_when_it_is_free_is_not_waited_for() {
    let decision = answer(&[cold(0, 60_000), busy(None, loaded(1))]);
    assert!(matches!(decision, RouteAnswer::Ranked(_)), "{decision:?}");
}

#[test]
fn a_load_of_unknown_length_is_assumed_and_not_taken_for_nothing() {
    let unknown = candidate(0);
    assert!(matches!(answer(&[unknown, cold(1, 2_000)]), RouteAnswer::Ranked(rows) if rows == [1, 0]));
}

#[test]
fn an_instance_of_unknown_speed_is_not_taken_for_a_fast_one() {
    let slow_job = Job { run_ms: None, ..job() };
    let known = Candidate { run_ms: Some(9_000), ..loaded(0) };
    let unknown = cold(1, 500);
    let decision = policy("{}").route(&slow_job, &[unknown, known]);
    assert!(matches!(&decision.answer, RouteAnswer::Ranked(rows) if rows == &[1, 0]), "{decision:?}");
}

#[test]
fn an_instance_that_keeps_failing_loses_its_attraction() {
    let failing = Candidate { failures: 3, ..loaded(0) };
    assert!(matches!(answer(&[failing, cold(1, 9_000)]), RouteAnswer::Ranked(rows) if rows == [1, 0]));
}

#[test]
fn among_equals_the_node_cache_decides() {
    let cached = Candidate { same_signature: true, ..loaded(1) };
    assert!(matches!(answer(&[loaded(0), cached]), RouteAnswer::Ranked(rows) if rows == [1, 0]));
}

#[test]
fn without_models_nothing_is_waited_for() {
    let plain = Job { models: 0, ..job() };
    let decision = policy("{}").route(&plain, &[busy(Some(10), candidate(0)), candidate(1)]);
    assert!(matches!(&decision.answer, RouteAnswer::Ranked(rows) if rows == &[1]), "{decision:?}");
}

#[test]
fn with_no_room_anywhere_the_job_waits() {
    assert!(matches!(answer(&[busy(Some(10), candidate(0))]), RouteAnswer::Hold(_)));
    assert!(matches!(answer(&[]), RouteAnswer::Hold(_)));
}

#[test]
fn class_then_number_then_age() {
    let mut policy = policy(r#"{"ageing_per_second": 2.5}"#);
    let mut score = |class, number, front| policy.prioritize(&Job { class, number, front, ..job() }).score;
    let standard = score(JobClass::Standard, None, false);
    assert!(score(JobClass::Interactive, Some(1e9), false) > score(JobClass::Standard, Some(-1e9), false));
    assert!(score(JobClass::Standard, Some(-1.0), false) > standard);
    assert!(score(JobClass::Standard, Some(1.0), false) < standard);
    assert!(score(JobClass::Batch, None, true) > score(JobClass::Interactive, None, false));
    assert!(score(JobClass::Standard, Some(f64::NAN), false).is_finite());
    assert_eq!(policy.prioritize(&job()).ageing_per_second, 2.5);
}

#[test]
fn wrong_settings_are_named() {
    let typo = ModelAffinity::configure(r#"{"max_wait": 1}"#).unwrap_err();
    assert!(typo.contains("max_wait") && typo.contains("max_extra_wait_ms"), "{typo}");
    let negative = ModelAffinity::configure(r#"{"ageing_per_second": -1}"#).unwrap_err();
    assert!(negative.contains("ageing_per_second"), "{negative}");
}
