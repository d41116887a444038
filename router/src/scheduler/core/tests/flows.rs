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
    for _ in 0..2 * CoreConfig::default().max_hold_ms / 1_000 {
        world.settle();
        world.pass(1_000);
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
    world.input(Input::PolicyChanged);
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
