//! Each way to misbehave: the decision falls back with its reason, and the host goes on as if nothing had been.

use std::time::{Duration, Instant};

use super::*;
use crate::model::decision::{Admission, Hook, Limits, Priority, RecoveryDecision, TimeoutDecision};
use crate::model::job::JobClass;
use crate::model::view::JobView;
use crate::policy::{Shipped, Source};

/// The fixture misbehaves on `route`: the built-in answers with this reason, and a good policy put in its place works.
async fn falls_back(config: Config, expected: Fallback) {
    let (handle, _) = started(config);
    let (decision, fallback, decided) = route(&handle).await;
    assert_eq!(fallback, Some(expected));
    assert_eq!(&*decided.records[0].version.name, "hostile");
    is_usable(&decision);

    let good = Source::Bytes { name: "good".into(), bytes: Shipped::LeastLoaded.bytes().to_vec() };
    let version = handle.load(good).await.expect("a good policy is still accepted");
    let (decision, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &decided.records[0].version), (None, &version));
    is_usable(&decision);
}

#[tokio::test]
async fn endless_loops_end_at_their_deadline_and_switch_the_policy_off() {
    let limits = GuestLimits { call_ms: 20, ..PATIENT };
    let (handle, _) = started(Config { limits, ..hostile("route", "loop") });
    // On a busy machine a decision may be answered by the handle before the thread begins, and counts for nothing.
    while &*handle.version().name == "hostile" {
        is_usable(&route(&handle).await.0);
    }
    let ejected = handle.status().newest.unwrap().ejected.expect("it is switched off");
    assert_eq!((ejected.hook, ejected.reason), (Hook::Route, Fallback::Deadline));
    assert_eq!(route(&handle).await.1, Some(Fallback::Ejected));
}

#[tokio::test]
async fn the_answer_to_a_loop_comes_within_the_deadline_of_the_call() {
    let limits = GuestLimits { call_ms: 50, ..PATIENT };
    let (handle, _) = started(Config { limits, ..hostile("route", "loop") });
    let asked = Instant::now();
    let (_, fallback, _) = route(&handle).await;
    // A busy machine may wake the policy thread late: then the handle itself has answered, in the same time.
    assert!(matches!(fallback, Some(Fallback::Deadline | Fallback::Unavailable)), "{fallback:?}");
    assert!(asked.elapsed() < Duration::from_millis(500), "took {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_trap_is_a_trap() {
    falls_back(hostile("route", "trap"), Fallback::Trap).await;
}

#[tokio::test]
async fn a_panic_is_a_trap() {
    falls_back(hostile("route", "panic"), Fallback::Trap).await;
}

#[tokio::test]
async fn a_stack_overflow_is_a_trap() {
    falls_back(hostile("route", "stack_overflow"), Fallback::Trap).await;
}

#[tokio::test]
async fn a_memory_bomb_meets_its_limit() {
    let limits = GuestLimits { memory_mib: 4, ..PATIENT };
    falls_back(Config { limits, ..hostile("route", "memory") }, Fallback::Limit).await;
}

#[tokio::test]
async fn host_calls_run_out() {
    falls_back(hostile("route", "host_calls"), Fallback::Limit).await;
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused() {
    for deed in ["unknown", "duplicate", "empty", "long_list"] {
        falls_back(hostile("route", deed), Fallback::BadAnswer).await;
    }
}

#[tokio::test]
async fn a_flood_of_log_lines_costs_only_the_log() {
    for deed in ["log_flood", "long_line"] {
        let (handle, _) = started(hostile("route", deed));
        let (decision, fallback, _) = route(&handle).await;
        assert_eq!(fallback, None, "{deed}");
        is_usable(&decision);
    }
}

#[tokio::test]
async fn texts_are_cut_and_cleaned_and_a_hold_is_bounded() {
    let (handle, _) = started(hostile("route", "long_text"));
    assert_eq!(route(&handle).await.0.reason.len(), 4_096);
    let (handle, _) = started(hostile("route", "dirty_text"));
    assert_eq!(route(&handle).await.0.reason, "a b [31mc d");
    let (handle, _) = started(hostile("route", "huge"));
    assert_eq!(route(&handle).await.0.route, Route::Hold { ms: 60_000 });
}

fn intake() -> Question {
    Question::Intake { job: sample::job(), load: sample::load() }
}

async fn intake_of(hook: &str, deed: &str) -> (Admission, Priority, Limits, Vec<(Hook, Option<Fallback>)>) {
    let (handle, _) = started(hostile(hook, deed));
    let decided = handle.decide(later(intake())).await;
    let Answer::Intake { admission, priority, limits } = decided.answer else { panic!("no intake") };
    (admission, priority, limits, decided.records.iter().map(|r| (r.hook, r.fallback)).collect())
}

#[tokio::test]
async fn a_score_that_is_no_number_is_replaced_and_the_other_hooks_still_count() {
    for deed in ["unknown", "infinite", "negative"] {
        let (admission, priority, _, records) = intake_of("prioritize", deed).await;
        assert_eq!(admission, Admission::Admit);
        let standard = JobView { class: JobClass::Standard, ..sample::job() };
        assert_eq!(priority, super::super::native::prioritize(&standard, &Config::default()), "{deed}");
        let expected =
            [(Hook::Admit, None), (Hook::Prioritize, Some(Fallback::BadAnswer)), (Hook::LimitsFor, None)];
        assert_eq!(records, expected, "{deed}");
    }
    assert_eq!(intake_of("prioritize", "huge").await.1.score, 1e12);
}

#[tokio::test]
async fn a_refusal_gets_a_status_that_refuses_and_ends_the_intake() {
    let (admission, _, _, records) = intake_of("admit", "huge").await;
    let expected =
        Admission::Reject { status: 503, retry_after_s: Some(86_400), reason: "go away".to_owned() };
    assert_eq!(admission, expected);
    assert_eq!(records, [(Hook::Admit, None)]);
}

#[tokio::test]
async fn a_limit_of_nothing_becomes_one_of_something() {
    let limits = intake_of("limits_for", "huge").await.2;
    assert_eq!(limits.stall_ms, Some(1));
}

#[tokio::test]
async fn a_job_of_another_call_is_not_shown() {
    assert_eq!(intake_of("prioritize", "old_handle").await.1.score, 0.0);
}

#[tokio::test]
async fn the_remaining_hooks_are_bounded_too() {
    let ask = async |hook: &str, deed: &str, kind: usize| {
        let (handle, _) = started(hostile(hook, deed));
        let decided = handle.decide(later(sample::questions(0, 4).swap_remove(kind))).await;
        (decided.answer, decided.records[0].fallback)
    };
    let (answer, _) = ask("on_timeout", "huge", 3).await;
    assert_eq!(answer, Answer::OnTimeout(TimeoutDecision::Extend { ms: 3_600_000 }));
    let (answer, _) = ask("on_failure", "huge", 4).await;
    let retry = RecoveryDecision::Retry { delay_ms: 600_000, avoid_instance: true };
    assert_eq!(answer, Answer::OnFailure(retry));
    for deed in ["unknown", "long_list"] {
        assert_eq!(
            ask("tick", deed, 5).await,
            (Answer::Tick(Vec::new()), Some(Fallback::BadAnswer)),
            "{deed}"
        );
    }
    assert_eq!(ask("observe", "trap", 6).await, (Answer::Observe, Some(Fallback::Trap)));
}

/// The other fixture, told to do `deed` once it is in service.
async fn placed(deed: &str) -> (crate::model::decision::Placement, Option<Fallback>) {
    let settings = object(json!({"do": deed, "from_ms": LATER_MS as f64}));
    let config = Config { file: Some(built("matcher")), settings, limits: PATIENT, ..Config::default() };
    let (handle, _) = started(config);
    assert!(handle.places());
    let decided = handle.decide(later(sample::questions(0, 4).swap_remove(7))).await;
    let Answer::Place(placement) = decided.answer else { panic!("no placement") };
    (placement, decided.records[0].fallback)
}

#[tokio::test]
async fn a_window_is_placed_within_its_offers_or_by_the_builtin() {
    let (good, fallback) = placed("match").await;
    assert_eq!((fallback, good.hold_ms), (None, 60_000), "a hold is bounded");
    assert!(!good.pairs.is_empty());
    for deed in ["unknown", "duplicate", "long_list", "crowd"] {
        let (builtin, fallback) = placed(deed).await;
        assert_eq!(fallback, Some(Fallback::BadAnswer), "{deed}");
        assert!(!builtin.pairs.is_empty(), "the built-in places");
    }
    assert_eq!(placed("trap").await.1, Some(Fallback::Trap));
    let (nobody, fallback) = placed("nobody").await;
    assert_eq!((nobody.pairs.len(), fallback), (0, None), "all may be left out");
}

#[tokio::test]
async fn each_job_of_a_window_shows_its_own_texts() {
    let (classes, _) = placed("classes").await;
    let counts: Vec<&str> = classes.reason.split(',').collect();
    assert_eq!(counts.len(), sample::WINDOW as usize);
    // Every seventh sample is a job of which nothing is known.
    let unknown = |n: usize| n % 7 == 6;
    assert!(
        counts.iter().enumerate().all(|(n, count)| *count == if unknown(n) { "0" } else { "3" }),
        "{counts:?}"
    );
}
