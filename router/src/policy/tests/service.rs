//! Versions come, go, fail and return.

use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::model::decision::{Hook, PolicyVersion};
use crate::policy::record::builtin_version;
use crate::policy::status::PolicyStatus;
use crate::policy::{Breaker, Shipped, Source};

const SOON: Duration = Duration::from_secs(60);

/// As an author's tool should do it: whole, then renamed.
fn put(bytes: &[u8], path: &Path) {
    let part = path.with_extension("part");
    fs::write(&part, bytes).unwrap();
    fs::rename(part, path).unwrap();
}

async fn serves(handle: &Handle, is: impl Fn(&PolicyVersion) -> bool) -> PolicyVersion {
    let mut changed = handle.changed();
    timeout(SOON, changed.wait_for(is)).await.expect("the version changes soon").unwrap().clone()
}

#[tokio::test]
async fn the_default_is_model_affinity_with_its_digest() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    let version = handle.version();
    assert_eq!((&*version.name, version.digest.len()), ("model-affinity", 12));
    let (decision, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &decided.records[0].version), (None, &version));
    assert_eq!(
        decision.route,
        Route::Ranked(vec![1, 0, 3]),
        "the instance with the model first: {decision:?}"
    );
    assert_eq!(decided.records[0].said, "gpu1 > gpu0 > gpu3");
    assert_eq!(handle.status().newest.unwrap().hooks, [Hook::Configure, Hook::Prioritize, Hook::Route]);
}

#[tokio::test]
async fn every_shipped_policy_answers_every_kind_of_question() {
    for shipped in Shipped::ALL {
        let (handle, _) = started(Config { shipped, limits: PATIENT, ..Config::default() });
        assert_eq!(&*handle.version().name, shipped.name());
        for question in sample::questions(3, 16) {
            let decided = handle.decide(sample::ask(3, 16, question)).await;
            for record in decided.records {
                assert!(matches!(record.fallback, None | Some(Fallback::NotExported)), "{record:?}");
            }
        }
    }
}

#[tokio::test]
async fn hooks_that_are_not_exported_are_the_builtins_and_no_failure() {
    let (handle, _) = started(Config { shipped: Shipped::LeastLoaded, limits: PATIENT, ..Config::default() });
    for _ in 0..5 {
        let intake = Question::Intake { job: sample::job(), load: sample::load() };
        let decided = handle.decide(later(intake)).await;
        assert!(decided.records.iter().all(|r| r.fallback == Some(Fallback::NotExported)));
    }
    assert_eq!(route(&handle).await.1, None);
}

#[tokio::test]
async fn without_a_component_the_builtin_answers_and_that_is_no_fallback() {
    let (handle, _) = started(Config { builtin_only: true, ..Config::default() });
    let (decision, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &*decided.records[0].version.name), (None, "builtin"));
    is_usable(&decision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_takes_over_between_two_decisions_and_none_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.wasm");
    put(Shipped::LeastLoaded.bytes(), &path);
    let (handle, _) =
        started(Config { file: Some(path.clone()), poll_ms: 100, limits: PATIENT, ..Config::default() });
    let old = handle.version();

    let asker = handle.clone();
    let (stop, mut stopped) = watch::channel(false);
    let stream = async move {
        let mut seen = Vec::new();
        while !*stopped.borrow_and_update() {
            let (_, fallback, decided) = route(&asker).await;
            seen.push((decided.records[0].version.clone(), fallback));
        }
        seen
    };
    let swap = async {
        put(Shipped::ModelAffinity.bytes(), &path);
        let new = serves(&handle, |version| *version != old).await;
        for _ in 0..50 {
            route(&handle).await;
        }
        stop.send_replace(true);
        new
    };
    let (seen, new) = tokio::join!(stream, swap);

    assert!(seen.iter().all(|(_, fallback)| fallback.is_none()), "no decision fell back");
    let first_new = seen.iter().position(|(version, _)| *version == new).expect("the new version answered");
    assert!(first_new > 0, "the old version answered");
    assert!(seen[..first_new].iter().all(|(version, _)| *version == old));
    assert!(seen[first_new..].iter().all(|(version, _)| *version == new), "the old version never came back");
    assert_eq!(handle.status().last_good.unwrap().version, old);
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_version_in_charge_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.wasm");
    put(Shipped::LeastLoaded.bytes(), &path);
    let (handle, _) =
        started(Config { file: Some(path.clone()), poll_ms: 20, limits: PATIENT, ..Config::default() });
    let old = handle.version();

    put(b"half a fi", &path);
    let mut status = handle.status.clone();
    let status = timeout(SOON, status.wait_for(|s| s.refused.is_some())).await.unwrap().unwrap().clone();
    let refused = status.refused.unwrap();
    assert_eq!((refused.name.as_str(), refused.reason), ("live", "not_wasm"));
    assert_eq!(handle.version(), old);
    assert_eq!(route(&handle).await.1, None);

    fs::remove_file(&path).unwrap();
    assert_eq!(route(&handle).await.1, None, "a missing file changes nothing either");
    put(Shipped::FairShare.bytes(), &path);
    serves(&handle, |version| *version != old).await;
}

/// The fixture in service, with `least-loaded` as the last good version.
async fn failing_after_good(deed: &str, times: u32) -> (Handle, ManualClock, PolicyVersion, PolicyVersion) {
    let mut config = hostile("route", deed);
    config.settings.insert("times".into(), times.into());
    let (file, breaker) = (config.file.take().unwrap(), Breaker { probe_ms: 1_000, ..Breaker::default() });
    let (handle, clock) = started(Config { shipped: Shipped::LeastLoaded, breaker, ..config });
    let good = handle.version();
    let bad = handle.load(Source::File(file)).await.expect("it misbehaves only later");
    serves(&handle, |version| *version == bad).await;
    (handle, clock, good, bad)
}

#[tokio::test]
async fn three_failures_return_to_the_last_good_version() {
    let (handle, clock, good, bad) = failing_after_good("trap", u32::MAX).await;
    for _ in 0..3 {
        let (decision, fallback, decided) = route(&handle).await;
        assert_eq!((fallback, &decided.records[0].version), (Some(Fallback::Trap), &bad));
        is_usable(&decision);
    }
    serves(&handle, |version| *version == good).await;
    let (_, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &decided.records[0].version), (None, &good));
    let ejected = handle.status().newest.unwrap().ejected.expect("it is shown as switched off");
    assert_eq!((ejected.hook, ejected.reason), (Hook::Route, Fallback::Trap));

    // The trial fails too: this decision falls back, and the good version goes on.
    clock.advance(Duration::from_secs(2));
    assert_eq!(route(&handle).await.1, Some(Fallback::Trap));
    let (_, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &decided.records[0].version), (None, &good));
}

#[tokio::test]
async fn a_trial_that_goes_well_brings_the_version_back() {
    let (handle, clock, good, bad) = failing_after_good("duplicate", 3).await;
    for _ in 0..3 {
        assert_eq!(route(&handle).await.1, Some(Fallback::BadAnswer));
    }
    serves(&handle, |version| *version == good).await;
    clock.advance(Duration::from_secs(2));
    let (_, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &decided.records[0].version), (None, &bad));
    serves(&handle, |version| *version == bad).await;
}

#[tokio::test]
async fn with_nothing_to_return_to_the_builtin_answers_for_the_switched_off_version() {
    let (handle, _) = started(hostile("route", "trap"));
    let bad = handle.version();
    for _ in 0..3 {
        assert_eq!(route(&handle).await.1, Some(Fallback::Trap));
    }
    serves(&handle, |version| &*version.name == "builtin").await;
    let (decision, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &decided.records[0].version), (Some(Fallback::Ejected), &bad));
    is_usable(&decision);
}

#[tokio::test]
async fn randomness_follows_from_the_seed_alone() {
    let (handle, _) = started(hostile("route", "random"));
    let mut said = Vec::new();
    for seed in [1, 2, 1] {
        let decided = handle.decide(Consultation { seed, ..later(route_question()) }).await;
        said.push(decided.records[0].reason.clone());
    }
    assert_eq!(said[0], said[2]);
    assert_ne!(said[0], said[1]);
}

#[tokio::test]
async fn a_policy_thread_that_does_not_answer_is_answered_for() {
    let (asks, _kept) = sync_channel(1);
    let (loads, _) = sync_channel(1);
    let (_serving, serving) = watch::channel(builtin_version());
    let (_status, status) = watch::channel(PolicyStatus::builtin(0));
    let handle = Handle {
        lanes: Arc::new([]),
        asks,
        loads,
        config: Arc::default(),
        serving,
        status,
        places: Arc::default(),
        spaces: Default::default(),
        recorder: Default::default(),
        _alive: Arc::default(),
    };
    // The first fills the queue and waits in vain, the second finds it full.
    for _ in 0..2 {
        let asked = Instant::now();
        let (decision, fallback, _) = route(&handle).await;
        assert_eq!(fallback, Some(Fallback::Unavailable));
        is_usable(&decision);
        assert!(asked.elapsed() < Duration::from_secs(2), "took {:?}", asked.elapsed());
    }
}

#[test]
fn a_wrong_configuration_is_an_error_with_every_mistake() {
    let limits = GuestLimits { call_ms: 0, rows: 0, ..PATIENT };
    let error = start(Config { limits, ..Config::default() }, Arc::new(ManualClock::default())).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("call_ms") && text.contains("rows"), "{text}");
}
