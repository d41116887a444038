//! What a policy remembers, and when it counts.

use super::*;
use crate::policy::{Shipped, Source, StateLimits};

async fn count(handle: &Handle) -> String {
    route(handle).await.0.reason
}

#[tokio::test]
async fn a_new_version_of_the_same_name_goes_on_with_the_memory_of_the_old() {
    let config = hostile("route", "count");
    let file = config.file.clone().unwrap();
    let (handle, _) = started(config);
    assert_eq!(
        (count(&handle).await, count(&handle).await),
        ("1".into(), "2".into()),
        "the load gate left nothing"
    );
    let good = Source::Bytes { name: "other".into(), bytes: Shipped::LeastLoaded.bytes().to_vec() };
    handle.load(good).await.unwrap();
    handle.load(Source::File(file.clone())).await.unwrap();
    assert_eq!(count(&handle).await, "3");
    let namesake = Source::Bytes { name: "stranger".into(), bytes: std::fs::read(file).unwrap() };
    handle.load(namesake).await.unwrap();
    assert_eq!(count(&handle).await, "1", "another policy has a memory of its own");
}

#[tokio::test]
async fn a_call_that_fails_changes_nothing() {
    let mut config = hostile("route", "count_and_trap");
    config.settings.insert("times".into(), 2.into());
    let (handle, _) = started(config);
    for _ in 0..2 {
        assert_eq!(route(&handle).await.1, Some(Fallback::Trap));
    }
    let (handle, _) = started(hostile("route", "count"));
    assert_eq!(count(&handle).await, "1");
}

#[tokio::test]
async fn filling_the_memory_ends_at_its_limit_and_the_call_goes_on() {
    let state = StateLimits { keys: 50, kib: 64 };
    let (handle, _) = started(Config { state, ..hostile("route", "fill_state") });
    let (decision, fallback, _) = route(&handle).await;
    assert_eq!(fallback, None);
    is_usable(&decision);
}
