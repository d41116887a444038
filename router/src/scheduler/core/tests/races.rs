//! Two things at about the same time: which of them counts.

use super::world::{World, job};
use crate::model::decision::*;
use crate::model::event::History;
use crate::model::job::JobOutcome;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::input::*;

fn world(instances: usize) -> World {
    let mut world = World::new(instances, 1, CoreConfig::default());
    world.answers.recovery = Box::new(|| RecoveryDecision::Retry { delay_ms: 0, avoid_instance: false });
    world
}

/// A job that runs, and its prompt id.
fn one_runs(world: &mut World) -> String {
    world.submit();
    world.settle();
    world.running[0].0.prompt_id.clone()
}

/// A job whose start is being made durable.
fn one_starts(world: &mut World) -> String {
    let job = job("t");
    let prompt_id = job.prompt_id.clone();
    world.submit_job(job);
    // Its acceptance, then its start.
    world.until(is_commit);
    world.execute(0);
    world.until(is_commit);
    prompt_id
}

fn is_commit(action: &Action) -> bool {
    matches!(action, Action::Commit { .. })
}

fn asks(action: &Action, of: fn(&Question) -> bool) -> bool {
    matches!(action, Action::Consult { consultation, .. } if of(&consultation.question))
}

fn asks_of_time(action: &Action) -> bool {
    asks(action, |question| matches!(question, Question::OnTimeout { .. }))
}

fn asks_of_failure(action: &Action) -> bool {
    asks(action, |question| matches!(question, Question::OnFailure { .. }))
}

fn ending(kind: EndKind) -> Ending {
    Ending { kind, detail: "as it was".into(), history: History::default(), load_ms: 0 }
}

fn preempt(world: &mut World, requeue: bool) {
    world.input(Input::Operate { index: 0, act: Act::Interrupt { requeue } });
}

fn outcomes(world: &World) -> Vec<JobOutcome> {
    world.announced.iter().map(|told| told.outcome).collect()
}

#[test]
fn whoever_interrupts_again_and_again_does_not_put_off_its_end() {
    let mut world = world(1);
    let id = one_runs(&mut world);
    for _ in 0..7 {
        world.interrupt(&id);
        world.settle();
        world.pass(5_000);
    }
    world.settle();
    assert_eq!(outcomes(&world), [JobOutcome::Interrupted]);
}

#[test]
fn an_owners_stop_counts_although_the_start_is_not_stored() {
    for why in [NotStored::Full, NotStored::Busy, NotStored::Doubtful] {
        let mut world = world(1);
        (world.not_stored, world.doubtful_is_there) = (why, true);
        let id = one_starts(&mut world);
        let request = world.interrupt(&id);
        world.ledger_fails = true;
        world.settle();
        assert_eq!(world.replies[&request], Reply::Done { affected: 1 });
        world.ledger_fails = false;
        world.pass(5_000);
        world.settle();
        assert_eq!(outcomes(&world), [JobOutcome::Interrupted], "{why:?}");
        assert_eq!((world.running.len(), world.core.remaining()), (0, 0), "{why:?}");
    }
}

#[test]
fn an_order_to_give_up_the_instance_counts_although_the_start_is_not_stored() {
    for requeue in [true, false] {
        let mut world = world(1);
        one_starts(&mut world);
        preempt(&mut world, requeue);
        world.ledger_fails = true;
        world.settle();
        world.ledger_fails = false;
        world.pass(5_000);
        world.settle();
        assert_eq!((world.running.len(), world.announced.len()), if requeue { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn a_stop_while_the_start_is_stored_and_the_instance_goes_away_ends_the_job_once() {
    let mut world = world(2);
    let id = one_starts(&mut world);
    world.interrupt(&id);
    world.down(0);
    world.settle();
    assert_eq!(outcomes(&world), [JobOutcome::Interrupted]);
    assert!(world.running.is_empty() && world.open_attempts.is_empty());
}

#[test]
fn an_attempt_that_fails_before_it_is_interrupted_is_judged_as_failed_and_its_retry_holds() {
    type Stop = fn(&mut World);
    // Who stopped it, and does the job go on when the policy then says retry?
    let stops: [(Stop, bool); 4] = [
        (|world| preempt(world, true), true),
        (|world| preempt(world, false), false),
        (|world| verdict(world, TimeoutDecision::Retry), true),
        (|world| verdict(world, TimeoutDecision::Fail { reason: "slow".into() }), false),
    ];
    for (at, (stop, goes_on)) in stops.into_iter().enumerate() {
        let mut world = world(1);
        world.answers.limits = Limits { run_ms: Some(2_000), ..Limits::default() };
        one_runs(&mut world);
        stop(&mut world);
        world.settle();
        world.finish(0, EndKind::NodeError);
        world.settle();
        let numbers: Vec<u32> = world.running.iter().map(|(_, attempt)| attempt.number).collect();
        assert_eq!(numbers, if goes_on { vec![2] } else { vec![] }, "{at}");
        assert_eq!(outcomes(&world), if goes_on { vec![] } else { vec![JobOutcome::Error] }, "{at}");
    }
}

/// The limit of the run passes, and this is said of it.
fn verdict(world: &mut World, said: TimeoutDecision) {
    world.answers.timeout = said;
    world.pass(2_000);
    world.settle();
    assert_eq!(world.interrupted.len(), 1);
}

#[test]
fn an_owners_stop_stands_whatever_the_policy_says_of_a_limit() {
    let said = [
        TimeoutDecision::Retry,
        TimeoutDecision::Extend { ms: 100_000 },
        TimeoutDecision::Fail { reason: "slow".into() },
    ];
    for said in said {
        let mut world = world(1);
        world.answers.limits = Limits { run_ms: Some(2_000), ..Limits::default() };
        world.answers.timeout = said.clone();
        let id = one_runs(&mut world);
        world.pass(2_000);
        assert!(world.todo.iter().any(asks_of_time));
        world.interrupt(&id);
        world.settle();
        world.finish(0, EndKind::Interrupted);
        world.settle();
        assert_eq!(outcomes(&world), [JobOutcome::Interrupted], "{said:?}");
    }
}

#[test]
fn an_owner_who_stops_what_a_policy_wants_to_run_again_has_the_last_word() {
    let mut world = world(1);
    let id = one_runs(&mut world);
    preempt(&mut world, true);
    world.interrupt(&id);
    world.settle();
    world.finish(0, EndKind::Interrupted);
    world.settle();
    assert_eq!(outcomes(&world), [JobOutcome::Interrupted]);
    assert!(world.running.is_empty());
}

#[test]
fn a_result_that_was_there_before_the_interrupt_is_not_thrown_away() {
    let stops: [fn(&mut World); 2] = [
        |world| {
            let id = world.running[0].0.prompt_id.clone();
            world.interrupt(&id);
        },
        |world| preempt(world, true),
    ];
    for stop in stops {
        let mut world = world(1);
        one_runs(&mut world);
        stop(&mut world);
        world.settle();
        world.finish(0, EndKind::Success);
        world.settle();
        assert_eq!(outcomes(&world), [JobOutcome::Success]);
    }
}

#[test]
fn a_verdict_on_a_silence_that_is_over_stops_nothing() {
    let signs = [Sighting::Progress { nodes_done: 1, node_percent: None }, Sighting::Over];
    for sign in signs {
        let mut world = world(1);
        world.answers.limits = Limits { stall_ms: Some(2_000), ..Limits::default() };
        one_runs(&mut world);
        world.pass(2_000);
        assert!(world.todo.iter().any(asks_of_time));
        world.sight(0, sign.clone());
        world.settle();
        assert!(world.interrupted.is_empty(), "{sign:?}");
        if matches!(sign, Sighting::Progress { .. }) {
            world.pass(2_000);
            world.settle();
            assert_eq!(world.interrupted.len(), 1, "the next silence is asked about again");
        }
    }
}

#[test]
fn a_verdict_on_a_long_wait_comes_too_late_for_a_job_that_has_had_its_turn() {
    let mut world = world(1);
    world.down(0);
    world.answers.limits = Limits { queue_ms: Some(2_000), ..Limits::default() };
    world.submit();
    world.settle();
    world.pass(2_000);
    let at = world.todo.iter().position(asks_of_time).expect("the policy is asked");
    let question = world.todo.remove(at);
    world.up(0);
    world.settle();
    world.finish(0, EndKind::NodeError);
    world.link(0, false);
    world.settle();
    assert_eq!(world.core.waiting().count(), 1, "it waits again");
    world.todo.push(question);
    world.settle();
    assert!(world.announced.is_empty());
}

#[test]
fn an_interrupt_that_came_before_the_prompt_is_said_again_when_the_prompt_is_found() {
    let mut world = world(1);
    world.unsure = Some(true);
    world.submit();
    world.until(|action| matches!(action, Action::Inspect { .. }));
    let id = world.running[0].0.prompt_id.clone();
    let at = world.todo.iter().position(|action| matches!(action, Action::Inspect { .. })).unwrap();
    let inspect = world.todo.remove(at);
    world.interrupt(&id);
    world.settle();
    assert_eq!(world.interrupted.len(), 1);
    world.todo.push(inspect);
    world.settle();
    assert_eq!(world.interrupted.len(), 2, "the first one may have been of no use");
}

#[test]
fn an_interrupt_confirmed_while_the_socket_was_away_is_found_out() {
    let mut world = world(1);
    let id = one_runs(&mut world);
    world.interrupt(&id);
    world.link(0, false);
    world.settle();
    world.running.clear();
    world.link(0, true);
    world.settle();
    assert_eq!(outcomes(&world), [JobOutcome::Interrupted]);
    assert_eq!(world.core.report()[0].quarantine, None, "it did as it was told");
}

#[test]
fn a_stopped_attempt_whose_instance_crashes_is_over_at_once_and_not_asked_about() {
    let mut world = world(2);
    let id = one_runs(&mut world);
    world.interrupt(&id);
    world.down(0);
    assert!(!world.todo.iter().any(asks_of_failure));
    world.settle();
    assert_eq!(outcomes(&world), [JobOutcome::Interrupted]);
    assert!(world.running.is_empty());
}

#[test]
fn an_instance_that_is_back_before_its_crash_is_judged_leaves_one_attempt() {
    let mut world = world(1);
    one_runs(&mut world);
    let thawed = world.running.clone();
    world.down(0);
    assert!(world.todo.iter().any(asks_of_failure));
    world.running = thawed;
    world.up(0);
    // It had been silent only; what it told meanwhile is the end of the first attempt.
    world.sight(0, Sighting::Ended(ending(EndKind::Success)));
    world.running.clear();
    world.settle();
    assert_eq!(outcomes(&world), [JobOutcome::Success]);
    assert!(world.running.is_empty(), "and nothing runs again");
}

#[test]
fn what_is_stopped_while_the_router_drains_waits_for_the_next_start() {
    let mut world = world(1);
    one_runs(&mut world);
    world.input(Input::Drain);
    preempt(&mut world, true);
    world.settle();
    world.finish(0, EndKind::Interrupted);
    world.settle();
    assert_eq!((world.announced.len(), world.running.len(), world.core.remaining()), (0, 0, 1));
    assert!(world.open_attempts.is_empty(), "on record");
}

#[test]
fn a_prompt_that_was_judged_when_the_drain_began_is_refused() {
    let mut world = world(1);
    let request = world.submit();
    world.input(Input::Drain);
    world.settle();
    assert_eq!(world.replies[&request], Reply::Refused(Refusal::Draining));
    assert!(world.accepted.is_empty());
}

#[test]
fn a_burst_of_prompts_does_not_pass_the_limits_of_the_queue() {
    let limits = [
        CoreConfig { max_queued: 3, ..CoreConfig::default() },
        CoreConfig { max_queued_per_tenant: 3, ..CoreConfig::default() },
    ];
    for config in limits {
        let mut world = World::new(0, 1, config);
        let requests: Vec<RequestId> = (0..10).map(|_| world.submit()).collect();
        world.settle();
        let taken = requests.iter().filter(|id| matches!(world.replies[id], Reply::Accepted { .. })).count();
        assert_eq!((taken, world.accepted.len()), (3, 3));
    }
}

#[test]
fn tenants_who_claim_a_prompt_id_at_the_same_time_leave_no_names_behind() {
    let mut world = world(0);
    let first = job("owner");
    let claims = (0..50).map(|n| {
        let mut claim = job(&format!("claimant {n}"));
        claim.prompt_id = first.prompt_id.clone();
        claim
    });
    let claims: Vec<_> = claims.collect();
    world.submit_job(first);
    let requests: Vec<RequestId> = claims.into_iter().map(|claim| world.submit_job(claim)).collect();
    world.settle();
    assert!(requests.iter().all(|id| world.replies[id] == Reply::Refused(Refusal::IdTaken)));
    let names = world.core.tenants.shared().len();
    for n in 0..50 {
        let mut claim = job(&format!("later {n}"));
        claim.body = std::sync::Arc::default();
        world.submit_job(claim);
    }
    world.settle();
    assert_eq!(world.core.tenants.shared().len(), names, "their places were free");
}

#[test]
fn changes_of_one_job_at_the_same_time_all_count() {
    let mut world = world(0);
    let job = job("t");
    let id = job.prompt_id.clone();
    world.submit_job(job);
    world.settle();
    let changes = [
        Change { place: Some(Place::Front), ..Change::default() },
        Change { number: Some(7.0), ..Change::default() },
        Change { priority: Some(Some(5.0)), ..Change::default() },
    ];
    let requests = changes.map(|change| {
        let request = world.request();
        world.input(Input::Change { request, prompt_id: id.clone(), change });
        request
    });
    world.settle();
    let Reply::Changed(last) = &world.replies[&requests[2]] else { panic!("it waits") };
    assert_eq!((last.place > 0, last.requested.number, last.priority.score), (true, Some(7.0), 5.0));
}

#[test]
fn a_change_of_a_job_that_goes_away_before_its_turn_is_refused() {
    let mut world = world(0);
    let job = job("t");
    let id = job.prompt_id.clone();
    world.submit_job(job);
    world.settle();
    let requests = [1.0, 2.0].map(|number| {
        let request = world.request();
        let change = Change { number: Some(number), ..Change::default() };
        world.input(Input::Change { request, prompt_id: id.clone(), change });
        request
    });
    let request = world.request();
    world.input(Input::Delete { request, prompt_ids: vec![id], scope: Scope::Everybody });
    world.settle();
    assert_eq!(world.replies[&request], Reply::Done { affected: 1 });
    for request in requests {
        assert!(matches!(world.replies[&request], Reply::NotChanged(_)), "{:?}", world.replies[&request]);
    }
    assert!(world.core.changing.is_empty());
}

#[test]
fn a_hold_costs_neither_the_run_that_follows_nor_the_wait_for_a_slot() {
    let mut world = World::new(1, 1, CoreConfig { max_hold_ms: 5_000, ..CoreConfig::default() });
    world.answers.recovery = Box::new(|| RecoveryDecision::Retry { delay_ms: 0, avoid_instance: false });
    let mut asked = 0;
    world.answers.route = Box::new(move |rows| {
        asked += 1;
        // Held at first, and again before the second attempt.
        if asked % 2 == 1 { Route::Hold { ms: 2_000 } } else { Route::Ranked((0..rows as u32).collect()) }
    });
    world.submit();
    world.settle();
    world.pass(1_000);
    let foreign =
        |running| Input::Instance { index: 0, change: InstanceChange::Foreign { running, pending: 0 } };
    world.input(foreign(1));
    world.pass(600_000);
    world.settle();
    assert!(world.running.is_empty(), "somebody else's job runs there");
    world.input(foreign(0));
    world.settle();
    assert_eq!(world.running.len(), 1);
    world.pass(600_000);
    world.finish(0, EndKind::NodeError);
    world.settle();
    assert!(world.running.is_empty(), "it may be held again");
    world.pass(2_000);
    world.settle();
    assert_eq!(world.running[0].1.number, 2);
}

#[test]
fn outcomes_that_come_faster_than_they_are_told_do_not_pile_up() {
    let mut world = World::new(1, 1, CoreConfig::default());
    let told = |world: &World| {
        let observed = |action: &Action| match action {
            Action::Consult { consultation, .. } => match &consultation.question {
                Question::Observe { outcomes } => outcomes.len(),
                _ => 0,
            },
            _ => 0,
        };
        world.todo.iter().map(observed).sum::<usize>()
    };
    for _ in 0..5_000 {
        world.submit();
        world.settle();
        world.finish(0, EndKind::Success);
        world.settle();
    }
    assert!(world.core.reports.len() < 5_000);
    let (waiting, mut sum) = (world.core.reports.len(), 0);
    for _ in 0..20 {
        world.pass(100);
        sum += told(&world);
        world.settle();
    }
    assert_eq!((sum, world.core.reports.len()), (waiting, 0), "all of them within seconds");
}
