//! What clients and operators order about jobs that wait, and what a long queue keeps.

use super::world::{World, job};
use crate::model::decision::*;
use crate::model::job::{JobOutcome, Number};
use crate::model::view::JobView;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::input::*;

fn world(instances: usize) -> World {
    World::new(instances, 1, CoreConfig::default())
}

fn numbered(number: f64) -> crate::model::job::Job {
    let mut job = job("t");
    job.requested.number = Some(number);
    job
}

/// One runs, these wait: `a`, `b`, `c`, in this order.
fn three_wait(world: &mut World) -> [String; 3] {
    world.answers.priority =
        |job: &JobView| Priority { score: -job.number.unwrap_or(0.0), ageing_per_second: 0.0 };
    world.submit();
    world.settle();
    [1.0, 2.0, 3.0].map(|number| {
        let job = numbered(number);
        let id = job.prompt_id.clone();
        world.submit_job(job);
        world.settle();
        id
    })
}

fn waiting(world: &World) -> Vec<String> {
    world.core.listing().1.iter().map(|job| job.prompt_id.clone()).collect()
}

fn change(world: &mut World, prompt_id: &str, change: Change) -> Reply {
    let request = world.request();
    world.input(Input::Change { request, prompt_id: prompt_id.into(), change });
    world.settle();
    world.replies[&request].clone()
}

fn place(place: Place) -> Change {
    Change { place: Some(place), ..Change::default() }
}

#[test]
fn an_operators_place_comes_before_every_priority_and_can_be_taken_back() {
    let mut world = world(1);
    let [a, b, c] = three_wait(&mut world);
    assert!(matches!(change(&mut world, &c, place(Place::Front)), Reply::Changed(_)));
    assert_eq!(waiting(&world), [c.clone(), a.clone(), b.clone()]);
    change(&mut world, &b, place(Place::Front));
    change(&mut world, &a, place(Place::Back));
    assert_eq!(waiting(&world), [b.clone(), c.clone(), a.clone()]);
    world.submit_job(numbered(-1e9));
    world.settle();
    assert_eq!(waiting(&world)[..2], [b.clone(), c.clone()], "a new job does not pass them");
    change(&mut world, &b, place(Place::Normal));
    change(&mut world, &c, place(Place::Normal));
    assert_eq!(waiting(&world)[1..], [b, c, a]);
    assert_eq!(world.changes, 5);
}

#[test]
fn a_new_number_or_class_is_put_to_the_policy_and_a_pinned_priority_is_not() {
    let mut world = world(1);
    let [a, b, c] = three_wait(&mut world);
    let Reply::Changed(standing) = change(&mut world, &c, Change { number: Some(0.5), ..Change::default() })
    else {
        panic!("it waits")
    };
    assert_eq!(
        (standing.number, standing.priority.score, standing.pinned),
        (Number::Given(0.5), -0.5, false)
    );
    assert_eq!(waiting(&world), [c.clone(), a.clone(), b.clone()]);
    change(&mut world, &b, Change { priority: Some(Some(7.0)), ..Change::default() });
    assert_eq!(waiting(&world), [b.clone(), c.clone(), a.clone()]);
    world.answers.priority = |_| Priority { score: 100.0, ageing_per_second: 0.0 };
    world.input(Input::PolicyChanged { places: false });
    world.settle();
    assert_eq!(
        waiting(&world),
        [c.clone(), a.clone(), b.clone()],
        "the policy has no say about the pinned one"
    );
    change(&mut world, &b, Change { priority: Some(None), ..Change::default() });
    assert_eq!(waiting(&world), [c, a, b], "equals run by their number");
}

#[test]
fn what_does_not_wait_cannot_be_moved_and_a_full_disk_moves_nothing() {
    let mut world = world(1);
    let [a, b, c] = three_wait(&mut world);
    let running = world.running[0].0.prompt_id.clone();
    assert_eq!(
        change(&mut world, &running, place(Place::Front)),
        Reply::NotChanged(ChangeRefused::NotWaiting)
    );
    assert_eq!(change(&mut world, "nobody", place(Place::Front)), Reply::NotChanged(ChangeRefused::Unknown));
    world.ledger_fails = true;
    let Reply::NotChanged(ChangeRefused::Storage { full: true, .. }) =
        change(&mut world, &c, place(Place::Front))
    else {
        panic!("the disk is full")
    };
    assert_eq!(waiting(&world), [a, b, c]);
}

#[test]
fn cancelling_takes_the_waiting_out_and_stops_the_running_of_the_scope_alone() {
    let mut world = world(1);
    let [a, b, _] = three_wait(&mut world);
    let running = world.running[0].0.prompt_id.clone();
    let cancel = |world: &mut World, ids: &[&String], scope| {
        let request = world.request();
        let prompt_ids = ids.iter().map(|id| (*id).clone()).collect();
        world.input(Input::Cancel { request, prompt_ids, scope });
        world.settle();
        world.replies[&request].clone()
    };
    let others = Scope::Tenant("another".into());
    assert_eq!(cancel(&mut world, &[&a, &running], others), Reply::Done { affected: 0 });
    assert_eq!(cancel(&mut world, &[&a, &b, &running], Scope::Everybody), Reply::Done { affected: 3 });
    assert_eq!((waiting(&world).len(), world.interrupted.len()), (1, 1));
    assert_eq!(cancel(&mut world, &[&a, &b], Scope::Everybody), Reply::Done { affected: 0 }, "they are over");
}

#[test]
fn a_job_that_is_stopped_between_two_attempts_does_not_run_again() {
    let mut world = world(2);
    world.answers.recovery = Box::new(|| RecoveryDecision::Retry { delay_ms: 0, avoid_instance: false });
    world.submit();
    world.settle();
    let id = world.running[0].0.prompt_id.clone();
    world.down(0);
    // The question about the failure; what it leads to is not durable yet.
    world.execute(world.todo.iter().position(|action| matches!(action, Action::Consult { .. })).unwrap());
    let request = world.request();
    world.input(Input::Cancel { request, prompt_ids: vec![id], scope: Scope::Everybody });
    world.settle();
    assert_eq!(world.replies[&request], Reply::Done { affected: 1 });
    assert!(world.running.is_empty());
    assert_eq!(world.announced[0].outcome, JobOutcome::Interrupted);
    assert_eq!(world.core.remaining(), 0);
}

#[test]
fn a_long_queue_keeps_only_some_of_its_texts_in_memory() {
    let config = CoreConfig { text_bytes: 10, ..CoreConfig::default() };
    let mut world = World::new(1, 1, config);
    let with_prompt = |prompt: &str| {
        let mut job = job("t");
        std::sync::Arc::make_mut(&mut job.body).prompt = prompt.to_owned();
        job
    };
    let jobs = ["{\"1\": 1}", "{\"2\": 2}", "{\"3\": 3}"].map(with_prompt);
    let ids = jobs.clone().map(|job| job.prompt_id);
    for job in jobs.clone() {
        world.submit_job(job);
        world.settle();
    }
    let stored = |world: &World, id: &str| world.core.find(id).unwrap().0.body.stored.is_some();
    assert_eq!([0, 1, 2].map(|at| stored(&world, &ids[at])), [false, true, true]);
    // It is known by its digest.
    let again = |prompt: &str| {
        let mut job = with_prompt(prompt);
        job.prompt_id = ids[2].clone();
        job
    };
    let (same, other) = (world.submit_job(again("{\"3\": 3}")), world.submit_job(again("{\"3\": 4}")));
    world.settle();
    assert!(matches!(world.replies[&same], Reply::Accepted { .. }));
    assert_eq!(world.replies[&other], Reply::Refused(Refusal::IdTaken));
    for _ in 0..3 {
        world.finish(0, EndKind::Success);
        world.settle();
    }
    world.submit_job(with_prompt("{\"4\": 4}"));
    world.settle();
    assert!(world.running[0].0.body.stored.is_none(), "there is room again");
}

#[test]
fn the_order_survives_a_restart() {
    use crate::clock::{Now, Tick};
    let mut world = world(0);
    world.answers.priority = |job: &JobView| Priority {
        score: job.number.unwrap_or(0.0),
        ageing_per_second: if job.front { 1.0 } else { 0.0 },
    };
    world.now.tick = Tick(5_000_000);
    for (score, ages) in [(0.0, true), (50.0, false), (0.0, true), (20.0, false), (20.0, false)] {
        let mut job = numbered(score);
        job.requested.front = ages;
        job.accepted_at = world.now.wall;
        world.submit_job(job);
        world.settle();
        world.pass(30_000);
    }
    let before = waiting(&world);
    let open = world.open_jobs();
    // Another process: its monotonic clock began elsewhere.
    let now = Now { tick: Tick(9_000_000), wall: world.now.wall };
    let restored = Restored { open, counter: 5 };
    let core = crate::scheduler::core::Core::new(CoreConfig::default(), Vec::new(), restored, now);
    let after: Vec<String> = core.listing().1.iter().map(|job| job.prompt_id.clone()).collect();
    assert_eq!(after, before);
}
