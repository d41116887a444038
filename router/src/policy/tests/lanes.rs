//! Components side by side, and versions by an operator's word.

use super::*;
use crate::model::decision::{Act, Hook};
use crate::policy::{Component, Extra, Interface, Order, Place, Shipped, Source, State};

fn guard(settings: Value) -> Extra {
    Extra {
        interfaces: vec![Interface::Housekeeping],
        component: Component::Shipped(Shipped::Guard),
        settings: object(settings),
    }
}

fn tick(temperature: f32) -> Consultation {
    let mut instances = sample::instances(4);
    for instance in &mut instances {
        instance.gpu.temperature_c = Some(temperature);
        instance.gpu.reading_age_ms = Some(10);
        instance.draining = false;
    }
    later(Question::Tick { instances })
}

#[tokio::test]
async fn a_component_of_its_own_serves_its_hooks_and_the_policy_the_others() {
    let extra = vec![guard(json!({"drain_at_c": 80, "resume_at_c": 70, "free_idle_ms": null}))];
    let (handle, _) = started(Config { extra, limits: PATIENT, ..Config::default() });
    let decided = handle.decide(tick(90.0)).await;
    assert_eq!((&*decided.records[0].version.name, decided.records[0].fallback), ("guard", None));
    let Answer::Tick(orders) = decided.answer else { panic!("no orders") };
    assert_eq!(orders.iter().filter(|order| order.act == Act::Drain).count(), 4);
    let (_, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &*decided.records[0].version.name), (None, "model-affinity"));
    let lanes = handle.status().lanes;
    let names: Vec<_> = lanes.iter().map(|lane| (&*lane.lane, lane.serving.name.to_string())).collect();
    assert_eq!(names, [("policy", "model-affinity".to_owned()), ("housekeeping", "guard".to_owned())]);
}

#[tokio::test]
async fn a_component_of_its_own_works_beside_the_builtin() {
    let extra = vec![guard(json!({}))];
    let (handle, _) = started(Config { builtin_only: true, extra, limits: PATIENT, ..Config::default() });
    let (decision, fallback, decided) = route(&handle).await;
    assert_eq!((fallback, &*decided.records[0].version.name), (None, "builtin"));
    is_usable(&decision);
    assert_eq!(&*handle.decide(tick(20.0)).await.records[0].version.name, "guard");
}

fn bytes(name: &str, shipped: Shipped) -> Source {
    Source::Bytes { name: name.into(), bytes: shipped.bytes().to_vec() }
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_and_changes_nothing() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    let before = handle.status();
    for order in [Order::RollBack, Order::Promote(None), Order::Promote(Some("ffff".into())), Order::Withdraw]
    {
        assert!(handle.order(None, order).await.is_err());
    }
    let error = handle.order(Some("colour"), Order::RollBack).await.unwrap_err().to_string();
    assert!(error.contains("no component of its own serves colour: there are policy"), "{error}");
    assert_eq!(handle.status(), before);
}

#[tokio::test]
async fn a_canary_that_fails_is_gone_before_the_live_version_notices() {
    let config = hostile("route", "trap");
    let file = config.file.clone().unwrap();
    let (handle, _) = started(Config { file: None, shipped: Shipped::LeastLoaded, ..config });
    let live = handle.version();
    let canary = handle.place(None, Source::File(file), Place::Canary(0.999_999), None).await.unwrap();
    let job = Some(crate::model::id::JobId::mint());
    for _ in 0..3 {
        let decided = handle.decide(Consultation { job, ..later(route_question()) }).await;
        assert_eq!(
            (decided.records[0].fallback, &decided.records[0].version),
            (Some(Fallback::Trap), &canary)
        );
    }
    let decided = handle.decide(Consultation { job, ..later(route_question()) }).await;
    assert_eq!((decided.records[0].fallback, &decided.records[0].version), (None, &live));
    let row = handle.status().versions.into_iter().find(|row| row.version == canary).unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (State::Failed, Some("route failed too often")));
}

#[tokio::test]
async fn what_was_retired_is_taken_back_by_its_digest() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    let first = handle.version();
    let second = handle.load(bytes("b", Shipped::LeastLoaded)).await.unwrap();
    let third = handle.load(bytes("c", Shipped::FairShare)).await.unwrap();
    let states = |version: &crate::model::decision::PolicyVersion| {
        let rows = handle.status().versions.into_iter().filter(|row| row.version == *version);
        rows.map(|row| row.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&first), [State::Retired]);
    assert_eq!((states(&second), states(&third)), (vec![State::LastGood], vec![State::Live]));
    assert_eq!(
        handle.order(None, Order::Promote(Some(first.digest[..5].to_owned()))).await,
        Ok(first.clone())
    );
    assert_eq!((handle.version(), states(&first)), (first.clone(), vec![State::Live]));
    assert_eq!(route(&handle).await.1, None);
    assert_eq!(handle.order(None, Order::RollBack).await, Ok(third.clone()));
    assert_eq!(handle.version(), third);
}

#[tokio::test]
async fn other_settings_are_another_version_of_the_same_component() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    let first = handle.version();
    let wrong = handle.resettle(None, object(json!({"max_wait": 1}))).await.unwrap_err().to_string();
    assert!(wrong.contains("unknown field `max_wait`"), "{wrong}");
    assert_eq!(handle.version(), first);
    let second = handle.resettle(None, object(json!({"max_extra_wait_ms": 1}))).await.unwrap();
    assert!(second.digest.starts_with(&*first.digest) && second != first);
    assert_eq!(handle.version(), second);
    assert_eq!(handle.order(None, Order::RollBack).await, Ok(first));
}

#[tokio::test]
async fn every_lane_that_wants_outcomes_hears_of_them() {
    let observer = Extra {
        interfaces: vec![Interface::Housekeeping],
        component: Component::File(built("hostile")),
        settings: serde_json::Map::new(),
    };
    let (handle, _) = started(Config { extra: vec![observer], limits: PATIENT, ..Config::default() });
    let decided = handle.decide(later(Question::Observe { outcomes: sample::outcomes(3) })).await;
    let heard: Vec<_> = decided.records.iter().map(|r| (&*r.version.name, r.fallback)).collect();
    assert_eq!(heard, [("model-affinity", Some(Fallback::NotExported)), ("hostile", None)]);
    assert!(decided.records.iter().all(|record| record.hook == Hook::Observe));
}

#[tokio::test]
async fn versions_are_taken_back_more_often_than_there_is_room_for_guests() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    let first = handle.version();
    let second = handle.load(bytes("b", Shipped::LeastLoaded)).await.unwrap();
    for _ in 0..40 {
        for version in [&first, &second] {
            let wanted = Some(version.digest.to_string());
            assert_eq!(handle.order(None, Order::Promote(wanted)).await.as_ref(), Ok(version));
            let (_, fallback, decided) = route(&handle).await;
            assert_eq!((fallback, &decided.records[0].version), (None, version));
        }
    }
}

#[tokio::test]
async fn settings_that_kept_a_component_out_of_service_are_made_good_without_a_restart() {
    let settings = object(json!({"max_wait": 1}));
    let config = Config { settings, limits: PATIENT, ..Config::default() };
    let handle = start(config, Arc::new(ManualClock::default())).unwrap();
    assert_eq!(&*handle.version().name, "builtin");
    let again = handle.reconfigured(None, object(json!({"max_wait": 1}))).await.unwrap_err().to_string();
    assert!(again.contains("unknown field `max_wait`"), "{again}");
    let right = handle.reconfigured(None, object(json!({"max_extra_wait_ms": 1}))).await.unwrap();
    assert_eq!((&*right.name, handle.version()), ("model-affinity", right.clone()));
    assert_eq!(handle.status().ordered, [], "it is what is configured");
}
