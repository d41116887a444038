//! Where the memory of a displaced guest is given back.

use std::sync::mpsc::{Receiver, sync_channel};

use tokio::sync::{oneshot, watch};

use super::*;
use crate::model::decision::{Hook, PolicyVersion};
use crate::policy::Shipped;
use crate::policy::breaker::Breaker;
use crate::policy::evidence::Evidence;
use crate::policy::lane::{Gone, Lane, Slot};
use crate::policy::loader::digest;
use crate::policy::record::builtin_version;
use crate::policy::service::{Command, Order, Service};
use crate::policy::state::Spaces;
use crate::policy::status::PolicyStatus;
use crate::policy::wasm::{Engine, Version};

fn slot(engine: &Engine, shipped: Shipped) -> Slot {
    let (config, bytes) = (Config::default(), shipped.bytes());
    let id = PolicyVersion { name: shipped.name().into(), digest: digest(bytes).into() };
    let space = Spaces::new(config.state).of(shipped.name());
    let version = Version::compile(engine, &PATIENT, id, &Map::new(), space, bytes).unwrap();
    let guest = Some(version.guest(0).unwrap());
    let (breaker, evidence) = (Breaker::new(config.breaker), Evidence::default());
    Slot { version: Arc::new(version), guest, breaker, origin: "shipped".into(), at: 0, evidence }
}

/// The policy thread's part with two versions, and what it gives away.
fn service(room: usize) -> (Service, Receiver<Vec<Gone>>) {
    let engine = Engine::new(&PATIENT).unwrap();
    let mut lane = Lane::new("policy".into());
    lane.install(slot(&engine, Shipped::LeastLoaded));
    lane.install(slot(&engine, Shipped::ModelAffinity));
    assert!(lane.take_gone().is_empty(), "both are there to be asked");
    let (gone, displaced) = sync_channel(room);
    let service = Service {
        config: Arc::new(Config { limits: PATIENT, ..Config::default() }),
        clock: Arc::new(ManualClock::default()),
        lanes: vec![lane],
        asked: [0; Hook::ALL.len()],
        places: Arc::default(),
        serving: watch::channel(builtin_version()).0,
        status: watch::channel(PolicyStatus::builtin(0)).0,
        gone,
    };
    (service, displaced)
}

/// Gives these orders, then ends the service.
fn ordered(service: Service, orders: Vec<Order>) {
    let (commands, taken) = sync_channel(orders.len());
    for order in orders {
        let (reply, _) = oneshot::channel();
        commands.send(Command::Operate { lane: 0, order, reply }).unwrap();
    }
    drop(commands);
    service.run(&taken);
}

#[test]
fn a_guest_displaced_by_an_order_is_given_to_the_loading_thread() {
    let back = Order::Promote(Some(digest(Shipped::ModelAffinity.bytes())));
    for (orders, batches) in [(vec![Order::RollBack], 1), (vec![Order::RollBack, back.clone()], 1)] {
        let (service, displaced) = service(4);
        ordered(service, orders);
        let gone: Vec<Vec<Gone>> = displaced.try_iter().collect();
        assert_eq!(gone.len(), batches, "{gone:?}");
        assert!(matches!(gone[0][..], [Gone::Guest { .. }]), "{gone:?}");
    }
}

#[test]
fn a_loading_thread_that_is_long_busy_is_not_given_ever_more() {
    let (service, displaced) = service(1);
    let by = |shipped: Shipped| Order::Promote(Some(digest(shipped.bytes())));
    let rounds =
        (0..20).flat_map(|_| [Order::RollBack, by(Shipped::ModelAffinity), by(Shipped::LeastLoaded)]);
    ordered(service, rounds.collect());
    assert_eq!(displaced.try_iter().count(), 1);
}
