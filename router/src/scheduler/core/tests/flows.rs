//! One flow a test.

use super::world::{World, job};
use crate::model::decision::*;
use crate::model::job::{JobOutcome, Number};
use crate::model::view::JobView;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::input::*;

fn world(instances: usize) -> World {
    World::new(instances, 1, CoreConfig::default())
}

#[test]
fn a_prompt_is_answered_when_durable_and_runs_to_its_end() {
    let mut world = world(1);
    let request = world.submit();
    assert!(world.replies.is_empty());
    world.settle();
    assert!(matches!(world.replies[&request], Reply::Accepted { number: Number::Counted(0), .. }));
    world.finish(0, EndKind::Success);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Success);
    assert_eq!(world.core.remaining(), 0);
}

#[test]
fn no_job_waits_behind_another_while_an_instance_idles() {
    let mut world = world(2);
    for _ in 0..3 {
        world.submit();
    }
    world.settle();
    assert_eq!(world.running.len(), 2);
    world.finish(1, EndKind::Success);
    world.settle();
    assert_eq!(world.running.len(), 2);
    assert_ne!(world.running[0].1.instance, world.running[1].1.instance);
}

#[test]
fn the_urgent_run_first() {
    let mut world = world(1);
    world.answers.priority =
        |job: &JobView| Priority { score: -job.number.unwrap_or(0.0), ageing_per_second: 0.0 };
    world.submit();
    world.settle();
    for number in [5.0, -1.0, 2.0] {
        let mut job = job("t");
        job.requested.number = Some(number);
        world.submit_job(job);
    }
    world.settle();
    let mut order = Vec::new();
    for _ in 0..3 {
        world.finish(0, EndKind::Success);
        world.settle();
        order.push(world.running[0].0.requested.number);
    }
    assert_eq!(order, [Some(-1.0), Some(2.0), Some(5.0)]);
}

#[test]
fn a_crash_moves_the_job_when_the_policy_says_so_and_both_attempts_are_recorded() {
    let mut world = world(2);
    world.answers.recovery = Box::new(|| RecoveryDecision::Retry { delay_ms: 0, avoid_instance: true });
    world.submit();
    world.settle();
    world.down(0);
    world.settle();
    assert_eq!(world.running[0].1.instance.as_str(), "i1");
    assert_eq!(world.running[0].1.number, 2);
    world.finish(0, EndKind::Success);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Success);
}

#[test]
fn the_hosts_limit_on_attempts_holds_against_the_policy() {
    let mut world = world(1);
    world.answers.recovery = Box::new(|| RecoveryDecision::Retry { delay_ms: 0, avoid_instance: false });
    world.submit();
    for _ in 0..CoreConfig::default().max_attempts {
        world.settle();
        world.finish(0, EndKind::OutOfMemory);
    }
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Error);
}

#[test]
fn a_late_answer_of_an_old_attempt_changes_nothing() {
    let mut world = world(2);
    world.answers.recovery = Box::new(|| RecoveryDecision::Retry { delay_ms: 0, avoid_instance: true });
    world.submit();
    world.settle();
    let (job, first) = world.running[0].clone();
    world.down(0);
    world.settle();
    let ending =
        Ending { kind: EndKind::Success, detail: String::new(), history: Default::default(), load_ms: 0 };
    world.input(Input::Attempt { job: job.id, number: first.number, sighting: Sighting::Ended(ending) });
    world.settle();
    assert!(world.ended.is_empty());
    assert_eq!(world.running.len(), 1);
}

#[test]
fn the_same_prompt_id_is_the_same_job_and_another_prompt_is_refused() {
    let mut world = world(1);
    let (first, mut other) = (job("t"), job("t"));
    other.prompt_id = first.prompt_id.clone();
    let again = crate::model::job::Job { id: other.id, ..first.clone() };
    let mut different = other;
    different.body =
        std::sync::Arc::new(crate::model::job::Body { prompt: "{1}".into(), ..Default::default() });
    let a = world.submit_job(first);
    let b = world.submit_job(again);
    world.settle();
    let c = world.submit_job(different);
    world.settle();
    assert_eq!(world.replies[&a], world.replies[&b]);
    assert_eq!(world.replies[&c], Reply::Refused(Refusal::IdTaken));
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn one_idempotency_key_is_one_job_and_one_answer() {
    let once = |digest: u8| {
        let once = crate::model::job::Once {
            key: "k".into(),
            digest: [digest; 32],
            until: 1,
            node_errors: r#"{"9":{}}"#.into(),
        };
        crate::model::job::Job { once: Some(once.into()), ..job("t") }
    };
    let mut world = world(1);
    world.ledger_fails = true;
    let lost = [world.submit_job(once(1)), world.submit_job(once(1))];
    world.settle();
    for request in lost {
        assert!(matches!(world.replies[&request], Reply::Refused(Refusal::Storage { .. })));
    }
    world.ledger_fails = false;
    let same = [world.submit_job(once(1)), world.submit_job(once(1))];
    assert!(same.iter().all(|request| !world.replies.contains_key(request)), "nothing is durable yet");
    world.settle();
    let late = world.submit_job(once(1));
    let other = world.submit_job(once(2));
    let other_tenant = world.submit_job(crate::model::job::Job { tenant: "u".into(), ..once(2) });
    world.settle();
    assert!(
        matches!(&world.replies[&late], Reply::Accepted { known: Some(known), .. } if known.contains('9'))
    );
    assert!(same.iter().all(|request| world.replies[request] == world.replies[&late]));
    assert_eq!(world.replies[&other], Reply::Refused(Refusal::KeyReused));
    assert!(matches!(world.replies[&other_tenant], Reply::Accepted { .. }));
    assert_eq!(world.accepted.len(), 2);
}

#[test]
fn what_cannot_be_stored_is_not_accepted() {
    let mut world = world(1);
    world.ledger_fails = true;
    let request = world.submit();
    world.settle();
    assert!(matches!(world.replies[&request], Reply::Refused(Refusal::Storage { full: true, .. })));
    assert_eq!(world.core.remaining(), 0);
    world.ledger_fails = false;
    world.submit();
    world.settle();
    assert_eq!(world.running.len(), 1);
}

#[test]
fn an_attempt_that_cannot_be_recorded_is_not_sent() {
    let mut world = world(1);
    world.submit();
    while world.replies.is_empty() {
        world.execute(0);
    }
    world.ledger_fails = true;
    world.settle();
    assert!(world.running.is_empty());
    world.ledger_fails = false;
    world.pass(1100);
    world.settle();
    assert_eq!((world.running.len(), world.running[0].1.number), (1, 1));
}

#[test]
fn a_hold_is_bounded_and_a_change_in_the_fleet_asks_again() {
    let mut world = World::new(2, 1, CoreConfig { max_hold_ms: 5_000, ..CoreConfig::default() });
    world.answers.route = Box::new(|_| Route::Hold { ms: 3_000 });
    world.submit();
    world.settle();
    assert!(world.running.is_empty());
    world.pass(1_000);
    world.down(1);
    world.settle();
    assert!(world.running.is_empty(), "asked again and held again");
    world.pass(3_001);
    world.settle();
    assert!(world.running.is_empty(), "a second left to hold");
    world.pass(1_001);
    world.settle();
    assert_eq!(world.running.len(), 1, "the host does not let it hold longer");
}

#[test]
fn a_policy_that_never_names_a_free_instance_cannot_keep_a_job_waiting_for_ever() {
    let mut world = world(1);
    world.answers.route = Box::new(|_| Route::Ranked(Vec::new()));
    world.submit();
    for _ in 0..2 * CoreConfig::default().max_hold_ms / 250 {
        world.settle();
        world.pass(250);
    }
    world.settle();
    assert_eq!(world.running.len(), 1);
}

#[test]
fn a_deleted_job_never_runs_and_a_running_one_is_not_deleted() {
    let mut world = world(1);
    world.submit();
    let waiting = job("t");
    let id = waiting.prompt_id.clone();
    world.submit_job(waiting);
    world.settle();
    let running = world.running[0].0.prompt_id.clone();
    let request = world.request();
    let prompt_ids = vec![id, running, "unknown".into()];
    world.input(Input::Delete { request, prompt_ids, scope: Scope::Everybody });
    world.settle();
    assert_eq!(world.replies[&request], Reply::Done { affected: 1 });
    world.finish(0, EndKind::Success);
    world.settle();
    assert!(world.running.is_empty());
    assert_eq!(world.ended.len(), 2);
}

#[test]
fn an_interrupt_without_an_id_stops_the_tenants_own_jobs_only() {
    let mut world = world(2);
    world.submit_job(job("ann"));
    world.submit_job(job("bob"));
    world.settle();
    let request = world.request();
    world.input(Input::Interrupt { request, target: Target::Running(Scope::Tenant("bob".into())) });
    world.settle();
    assert_eq!(world.replies[&request], Reply::Done { affected: 1 });
    let bobs = world.running.iter().position(|(job, _)| job.tenant == "bob").unwrap();
    assert_eq!(world.interrupted, [world.running[bobs].1.upstream_id]);
    world.finish(bobs, EndKind::Interrupted);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Interrupted);
}

#[test]
fn a_stalled_attempt_is_interrupted_and_given_up_when_nobody_confirms() {
    let mut world = world(1);
    world.answers.limits = Limits { stall_ms: Some(2_000), ..Limits::default() };
    world.submit();
    world.settle();
    world.pass(2_001);
    world.settle();
    assert_eq!(world.interrupted.len(), 1);
    world.pass(CoreConfig::default().interrupt_grace_ms);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::TimedOut);
    world.submit();
    world.settle();
    assert_eq!(world.running.len(), 1, "the old attempt may still run there: the slot stays taken");
    let upstream = world.running[0].1.upstream_id;
    world.input(Input::Instance { index: 0, change: InstanceChange::ZombieGone(upstream) });
    world.settle();
    assert_eq!(world.running.len(), 2);
}

#[test]
fn a_job_that_waits_too_long_ends_as_timed_out() {
    let mut world = world(0);
    world.answers.limits = Limits { queue_ms: Some(5_000), ..Limits::default() };
    world.submit();
    world.settle();
    world.pass(5_001);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::TimedOut);
}

#[test]
fn housekeeping_drains_and_resumes_but_not_against_the_operator() {
    let mut world = world(1);
    let order = |act| vec![Order { instance: 0, act, reason: String::new() }];
    world.answers.orders = order(Act::Drain);
    world.pass(1_000);
    world.settle();
    world.submit();
    world.settle();
    assert!(world.running.is_empty());
    world.input(Input::Operate { index: 0, act: Act::Drain });
    world.answers.orders = order(Act::Resume);
    world.pass(1_000);
    world.settle();
    assert!(world.running.is_empty());
    world.input(Input::Operate { index: 0, act: Act::Resume });
    world.settle();
    assert_eq!(world.running.len(), 1);
}

#[test]
fn an_instance_that_lacks_a_model_is_not_offered() {
    let mut world = world(2);
    let mut can = crate::model::view::Capabilities::default();
    can.classes.insert("SaveImage".into());
    can.models.insert("checkpoints".into(), ["other.safetensors".to_owned()].into());
    world.input(Input::Instance { index: 0, change: InstanceChange::Capabilities(can.into()) });
    let mut wanting = job("t");
    let model = crate::model::job::ModelRef { folder: "checkpoints".into(), name: "mine.safetensors".into() };
    wanting.needs =
        std::sync::Arc::new(crate::model::job::Needs { models: vec![model], ..Default::default() });
    world.submit_job(wanting);
    world.settle();
    assert_eq!(world.running[0].1.instance.as_str(), "i1");
}

#[test]
fn a_flood_of_one_tenant_is_stopped_at_its_limit() {
    let mut world = World::new(0, 1, CoreConfig { max_queued_per_tenant: 3, ..CoreConfig::default() });
    for _ in 0..3 {
        world.submit_job(job("greedy"));
        world.settle();
    }
    let refused = world.submit_job(job("greedy"));
    let taken = world.submit_job(job("other"));
    world.settle();
    assert!(matches!(
        world.replies[&refused],
        Reply::Refused(Refusal::TenantFull { queued: 3, limit: 3, .. })
    ));
    assert!(matches!(world.replies[&taken], Reply::Accepted { .. }));
}

#[test]
fn a_policy_that_places_fills_the_free_slots_at_once_and_the_rest_waits_for_one() {
    let mut world = World::new(3, 1, CoreConfig::default());
    world.input(Input::PolicyChanged { places: true });
    for _ in 0..5 {
        world.submit();
    }
    world.settle();
    assert_eq!((world.running.len(), world.core.waiting().count()), (3, 2));
    world.finish(0, EndKind::Success);
    world.settle();
    assert_eq!((world.running.len(), world.core.waiting().count()), (3, 1), "the slot is filled again");
}

#[test]
fn a_job_left_out_is_held_no_longer_than_the_host_allows() {
    let mut world = World::new(1, 1, CoreConfig { max_hold_ms: 2_000, ..CoreConfig::default() });
    world.answers.place = |_, _, _| Vec::new();
    world.input(Input::PolicyChanged { places: true });
    world.submit();
    world.settle();
    assert_eq!(world.running.len(), 0);
    for _ in 0..30 {
        world.pass(100);
        world.settle();
    }
    assert_eq!(world.running.len(), 1, "it starts in the end");
}

#[test]
fn a_placement_that_came_late_starts_only_what_can_still_start() {
    let mut world = World::new(2, 1, CoreConfig::default());
    world.input(Input::PolicyChanged { places: true });
    world.submit();
    world.submit();
    let place = |action: &Action| matches!(action, Action::Consult { consultation, .. } if matches!(consultation.question, Question::Place { .. }));
    while !world.todo.iter().any(place) {
        world.execute(0);
    }
    world.down(0);
    world.settle();
    assert_eq!(world.running.len(), 1);
    assert_eq!(world.running[0].1.instance.as_str(), "i1");
}
