//! Instances whose websocket is away while they answer to questions: what is not heard is not silence.

use super::world::World;
use crate::model::decision::*;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::input::*;

const STALL_MS: u64 = 2_000;

/// A job runs that may be silent for so long, and the socket of its instance is lost.
fn deaf() -> World {
    let mut world = World::new(1, 1, CoreConfig::default());
    world.answers.limits = Limits { stall_ms: Some(STALL_MS as u32), ..Limits::default() };
    world.answers.timeout = TimeoutDecision::Retry;
    world.submit();
    world.settle();
    world.link(0, false);
    world.settle();
    world
}

/// Is the policy asked about a passed limit within so many milliseconds?
fn asked_within(world: &mut World, ms: u64) -> bool {
    let asks = |action: &Action| {
        matches!(action, Action::Consult { consultation, .. }
            if matches!(consultation.question, Question::OnTimeout { .. }))
    };
    for _ in 0..ms / 250 {
        world.pass(250);
        if world.todo.iter().any(asks) {
            return true;
        }
        world.settle();
    }
    false
}

#[test]
fn a_job_whose_instance_says_that_it_has_it_is_not_silent_for_want_of_a_socket() {
    let mut world = deaf();
    assert!(!asked_within(&mut world, 10 * STALL_MS));
    assert!(world.interrupted.is_empty());
}

#[test]
fn the_limit_of_silence_counts_anew_when_the_socket_is_back() {
    let mut world = deaf();
    assert!(!asked_within(&mut world, 10 * STALL_MS));
    world.pass(STALL_MS / 2);
    world.todo.clear();
    world.link(0, true);
    world.settle();
    assert!(!asked_within(&mut world, STALL_MS - 250));
    assert!(asked_within(&mut world, 250), "with a socket only events are life");
}

#[test]
fn an_instance_without_a_socket_that_answers_nothing_is_silent() {
    let mut world = deaf();
    world.mute(0);
    assert!(asked_within(&mut world, STALL_MS));
}

#[test]
fn a_job_without_a_socket_has_its_limit_of_time() {
    let mut world = World::new(1, 1, CoreConfig::default());
    let (stall_ms, run_ms) = (Some(STALL_MS as u32), Some(4 * STALL_MS as u32));
    world.answers.limits = Limits { stall_ms, run_ms, ..Limits::default() };
    world.submit();
    world.settle();
    world.link(0, false);
    world.settle();
    assert!(!asked_within(&mut world, 4 * STALL_MS - 250));
    assert!(asked_within(&mut world, 250));
}
