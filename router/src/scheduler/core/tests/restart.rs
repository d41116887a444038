//! What another life of the router makes of what the one before had begun.

use super::world::World;
use crate::model::decision::*;
use crate::model::job::JobOutcome;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::input::*;

/// A job runs.
fn world() -> World {
    let mut world = World::new(1, 1, CoreConfig::default());
    world.answers.limits = Limits { run_ms: Some(5_000), ..Limits::default() };
    world.submit();
    world.settle();
    world
}

fn interrupts(world: &World) -> usize {
    world.todo.iter().filter(|action| matches!(action, Action::Interrupt { .. })).count()
}

fn preempt(world: &mut World, requeue: bool) {
    world.input(Input::Operate { index: 0, act: Act::Interrupt { requeue } });
}

fn owner(world: &mut World) {
    let id = world.running[0].0.prompt_id.clone();
    world.interrupt(&id);
}

fn verdict(world: &mut World, decision: TimeoutDecision) {
    world.answers.timeout = decision;
    world.pass(5_000);
    world.until(|action| matches!(action, Action::Commit { .. }));
}

type Stop = fn(&mut World);

/// Who stops it, and how its job ends; none: it runs again.
const STOPS: [(Stop, Option<JobOutcome>); 5] = [
    (owner, Some(JobOutcome::Interrupted)),
    (|world| preempt(world, true), None),
    (|world| preempt(world, false), Some(JobOutcome::Interrupted)),
    (|world| verdict(world, TimeoutDecision::Retry), None),
    (|world| verdict(world, TimeoutDecision::Fail { reason: "slow".into() }), Some(JobOutcome::TimedOut)),
];

fn check(world: &World, at: usize, expected: Option<JobOutcome>) {
    let ends: Vec<JobOutcome> = world.announced.iter().map(|told| told.outcome).collect();
    assert_eq!(ends, expected.into_iter().collect::<Vec<_>>(), "stop {at}");
    let attempts: Vec<u32> = world.running.iter().map(|(_, attempt)| attempt.number).collect();
    assert_eq!(attempts, if expected.is_none() { vec![2] } else { vec![] }, "stop {at}");
}

#[test]
fn an_attempt_is_told_to_stop_when_the_reason_is_durable() {
    for (at, (stop, expected)) in STOPS.into_iter().enumerate() {
        let mut world = world();
        stop(&mut world);
        world.until(|action| matches!(action, Action::Commit { .. }));
        assert_eq!(interrupts(&world), 0, "stop {at}");
        world.settle();
        assert_eq!(world.interrupted, [world.running[0].1.upstream_id], "stop {at}");
        world.finish(0, EndKind::Interrupted);
        world.settle();
        check(&world, at, expected);
    }
}

#[test]
fn an_attempt_that_was_told_to_stop_before_the_router_died_ends_as_it_would_have() {
    for (at, (stop, expected)) in STOPS.into_iter().enumerate() {
        let mut world = world();
        stop(&mut world);
        world.settle();
        world.restart();
        world.finish(0, EndKind::Interrupted);
        world.settle();
        check(&world, at, expected);
    }
}

#[test]
fn an_attempt_that_was_to_be_told_when_the_router_died_is_told_by_the_next() {
    for (at, (stop, expected)) in STOPS.into_iter().enumerate() {
        let mut world = world();
        stop(&mut world);
        world.until(|action| matches!(action, Action::Interrupt { .. }));
        world.restart();
        world.settle();
        assert!(!world.interrupted.is_empty(), "stop {at}");
        world.finish(0, EndKind::Interrupted);
        world.settle();
        check(&world, at, expected);
    }
}

#[test]
fn an_attempt_that_was_told_to_stop_and_is_gone_is_not_asked_about() {
    for (at, (stop, expected)) in STOPS.into_iter().enumerate() {
        let mut world = world();
        stop(&mut world);
        world.settle();
        world.running.clear();
        world.restart();
        world.settle();
        check(&world, at, expected);
    }
}

#[test]
fn an_attempt_stops_although_the_reason_cannot_be_stored() {
    for (at, (stop, expected)) in STOPS.into_iter().enumerate() {
        let mut world = world();
        stop(&mut world);
        world.ledger_fails = true;
        world.settle();
        world.ledger_fails = false;
        assert!(!world.interrupted.is_empty(), "stop {at}");
        world.finish(0, EndKind::Interrupted);
        world.settle();
        check(&world, at, expected);
    }
}
