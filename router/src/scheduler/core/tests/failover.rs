//! What becomes of attempts whose instance fails, and of the instance.

use super::world::World;
use crate::model::decision::*;
use crate::model::event::History;
use crate::model::job::*;
use crate::model::view::GpuView;
use crate::scheduler::config::{CoreConfig, QuarantineConfig};
use crate::scheduler::input::*;

fn retry(avoid_instance: bool) -> Box<dyn FnMut() -> RecoveryDecision> {
    Box::new(move || RecoveryDecision::Retry { delay_ms: 0, avoid_instance })
}

fn world(instances: usize) -> World {
    let mut world = World::new(instances, 1, CoreConfig::default());
    world.answers.recovery = retry(true);
    world
}

fn success() -> Ending {
    Ending { kind: EndKind::Success, detail: String::new(), history: History::default(), load_ms: 0 }
}

/// The state of an instance, for an operator.
fn quarantine(world: &World, index: usize) -> Option<(String, bool)> {
    world.core.report()[index].quarantine.as_ref().map(|q| (q.reason.clone(), q.probing))
}

fn attempt(world: &mut World, at: usize, sighting: Sighting) {
    let (job, attempt) = world.running[at].clone();
    world.input(Input::Attempt { job: job.id, number: attempt.number, sighting });
    world.settle();
}

#[test]
fn an_attempt_that_is_over_is_not_lost_with_its_instance() {
    let mut world = world(2);
    world.submit();
    world.settle();
    let (job, first) = world.running[0].clone();
    attempt(&mut world, 0, Sighting::Over);
    world.down(0);
    world.settle();
    assert!(world.running.is_empty(), "it does not run again");
    world.input(Input::Attempt { job: job.id, number: first.number, sighting: Sighting::Ended(success()) });
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Success);
}

#[test]
fn an_end_that_is_never_read_is_asked_for() {
    let mut world = world(1);
    world.submit();
    world.settle();
    attempt(&mut world, 0, Sighting::Over);
    world.running.clear();
    world.pass(59_999);
    world.settle();
    assert!(world.running.is_empty(), "it is waited for");
    world.pass(1);
    world.settle();
    assert_eq!(world.running[0].1.number, 2);
}

#[test]
fn a_prompt_that_may_have_arrived_at_a_dead_instance_is_unknown() {
    let mut world = world(1);
    world.answers.recovery = Box::new(|| RecoveryDecision::Fail);
    world.unsure = Some(true);
    world.submit();
    while world.running.is_empty() {
        world.execute(0);
    }
    world.todo.retain(|action| !matches!(action, Action::Inspect { .. }));
    world.down(0);
    world.settle();
    let told = &world.announced[0];
    assert_eq!(told.outcome, JobOutcome::Unknown);
    assert!(told.detail.contains("perhaps before it had the prompt"), "{}", told.detail);
}

#[test]
fn a_job_stopped_while_the_policy_thinks_about_its_failure_is_interrupted() {
    let mut world = world(2);
    world.submit();
    world.settle();
    let (job, _) = world.running[0].clone();
    world.down(0);
    assert!(world.todo.iter().any(|action| matches!(action, Action::Consult { .. })), "the policy is asked");
    let request = world.request();
    let target = Target::Prompt(job.prompt_id.clone(), Scope::Everybody);
    world.input(Input::Interrupt { request, target });
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Interrupted);
    assert!(world.open_jobs().is_empty());
}

#[test]
fn what_a_policy_says_of_a_silence_comes_too_late_for_an_attempt_that_crashed_meanwhile() {
    let mut world = world(2);
    world.answers.limits = Limits { stall_ms: Some(2_000), ..Limits::default() };
    world.answers.timeout = TimeoutDecision::Retry;
    world.submit();
    world.settle();
    world.pass(2_000);
    world.down(0);
    let asked = world.todo.iter().filter_map(|action| match action {
        Action::Consult { consultation, .. } => Some(&consultation.question),
        _ => None,
    });
    let of_the_attempt =
        asked.filter(|asked| matches!(asked, Question::OnTimeout { .. } | Question::OnFailure { .. }));
    assert_eq!(of_the_attempt.count(), 2, "the silence and the crash");
    world.settle();
    assert!(world.announced.is_empty(), "{:?}", world.announced);
    assert_eq!(world.running[0].1.number, 2);
}

#[test]
fn a_prompt_that_did_not_arrive_is_sent_again_and_one_that_did_is_not() {
    for arrives in [true, false] {
        let mut world = world(2);
        world.unsure = Some(arrives);
        world.submit();
        while !world.todo.iter().any(|action| matches!(action, Action::Inspect { .. })) {
            world.execute(0);
        }
        world.unsure = None;
        world.settle();
        let expected = if arrives { ("i0", 1) } else { ("i1", 2) };
        let (_, attempt) = &world.running[0];
        assert_eq!((attempt.instance.as_str(), attempt.number), expected);
        assert_eq!(world.running.len(), 1);
    }
}

#[test]
fn a_reconnection_while_a_prompt_is_being_sent_does_not_lose_it() {
    let mut world = world(2);
    world.submit();
    while !world.todo.iter().any(|action| matches!(action, Action::Dispatch { .. })) {
        world.execute(0);
    }
    world.link(0, false);
    world.link(0, true);
    let asked = world.todo.iter().any(|action| matches!(action, Action::Inspect { .. }));
    assert!(!asked, "the instance cannot know it yet");
    world.settle();
    assert_eq!(world.running[0].1.number, 1);
}

#[test]
fn an_instance_without_a_socket_is_given_nothing() {
    let mut world = world(1);
    world.link(0, false);
    world.submit();
    world.settle();
    assert!(world.running.is_empty());
    world.link(0, true);
    world.settle();
    assert_eq!(world.running.len(), 1);
}

#[test]
fn failures_in_a_row_end_in_quarantine_and_a_good_attempt_ends_it() {
    let config = CoreConfig { max_attempts: 50, ..CoreConfig::default() };
    let mut world = World::new(1, 1, config);
    world.answers.recovery = retry(false);
    world.submit();
    for _ in 0..5 {
        assert_eq!(quarantine(&world, 0), None);
        world.settle();
        let detail = "500: broken".to_owned();
        attempt(&mut world, 0, Sighting::NotDispatched { detail, blame: true });
        world.running.remove(0);
    }
    let (reason, probing) = quarantine(&world, 0).expect("is in quarantine");
    assert!(reason.contains("5 attempts failed") && reason.contains("500: broken"), "{reason}");
    assert!(!probing);
    assert!(matches!(&world.told[..], [(_, News::Quarantined { .. })]), "{:?}", world.told);
    world.pass(QuarantineConfig::default().pause_ms - 1);
    world.settle();
    assert!(world.running.is_empty(), "it is given nothing");
    world.pass(1_000);
    world.settle();
    assert_eq!(world.running.len(), 1, "one tries");
    assert!(quarantine(&world, 0).is_some_and(|(_, probing)| probing));
    world.finish(0, EndKind::NodeError);
    world.settle();
    assert_eq!(quarantine(&world, 0), None);
    assert!(matches!(world.told.last(), Some((_, News::Released))));
}

#[test]
fn an_instance_that_keeps_an_attempt_is_freed_set_aside_and_restarted() {
    let mut world = world(2);
    world.submit();
    world.settle();
    let request = world.request();
    let prompt = world.running[0].0.prompt_id.clone();
    world.input(Input::Interrupt { request, target: Target::Prompt(prompt, Scope::Everybody) });
    world.settle();
    assert_eq!(world.interrupted.len(), 1);
    world.pass(CoreConfig::default().interrupt_grace_ms);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Interrupted, "its owner does not wait longer");
    assert_eq!(world.freed.len(), 1);
    let (reason, _) = quarantine(&world, 0).expect("is in quarantine");
    assert_eq!(reason, "it did not confirm an interrupt within 30 s");
    for _ in 0..200 {
        world.pass(1_000);
        world.settle();
    }
    assert_eq!(world.restarts.len(), 1, "once");
    assert_eq!(quarantine(&world, 0).map(|(_, probing)| probing), Some(false), "it still has it");
    world.down(0);
    world.up(0);
    world.settle();
    assert_eq!(quarantine(&world, 0).map(|(_, probing)| probing), Some(true), "another process is tried");
}

fn an_hour(world: &mut World) {
    for _ in 0..3_600 {
        world.pass(1_000);
        world.settle();
    }
}

#[test]
fn one_that_has_stopped_answering_is_restarted_once_unless_its_process_is_gone() {
    let after_ms = CoreConfig::default().quarantine.restart_after_ms;
    let mut world = world(2);
    world.silence(0);
    world.pass(after_ms - 1);
    world.settle();
    assert!(world.restarts.is_empty());
    an_hour(&mut world);
    assert_eq!(world.restarts.len(), 1, "another process needs a while to come up");
    world.up(0);
    world.silence(0);
    world.down(0);
    an_hour(&mut world);
    assert_eq!(world.restarts.len(), 1, "somebody has seen to it");
    world.input(Input::Operate { index: 1, act: Act::Drain });
    world.silence(1);
    an_hour(&mut world);
    assert_eq!((world.restarts.len(), world.told.len()), (1, 0), "an operator has set it aside");
    world.input(Input::Operate { index: 1, act: Act::Resume });
    an_hour(&mut world);
    assert!(
        matches!(&world.told[..], [(_, News::NeedsRestart { reason })] if reason == "it has stopped answering")
    );
}

#[test]
fn without_a_command_the_operator_is_told_once() {
    let mut world = world(2);
    world.input(Input::Operate { index: 0, act: Act::Drain });
    world.submit();
    world.settle();
    assert_eq!(world.running[0].1.instance.as_str(), "i1");
    let request = world.request();
    world.input(Input::Interrupt { request, target: Target::Running(Scope::Everybody) });
    for _ in 0..400 {
        world.pass(1_000);
        world.settle();
    }
    let told = world.told.iter().filter(|(_, news)| matches!(news, News::NeedsRestart { .. })).count();
    assert_eq!((told, world.restarts.len()), (1, 0));
}

#[test]
fn what_a_silent_instance_still_has_when_it_returns_keeps_its_slot() {
    let mut world = world(1);
    world.answers.recovery = Box::new(|| RecoveryDecision::Fail);
    world.submit();
    world.settle();
    let thawed = world.running.clone();
    world.down(0);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Lost);
    world.running = thawed;
    world.up(0);
    world.submit();
    world.settle();
    assert_eq!((world.running.len(), world.core.report()[0].given_up), (1, 1), "nothing is put behind it");
    attempt(&mut world, 0, Sighting::Ended(success()));
    assert_eq!(world.announced.len(), 1, "its late answer is nobody's");
    world.running.clear();
    world.pass(CoreConfig::default().silence_ms);
    world.settle();
    assert_eq!((world.running.len(), world.core.report()[0].given_up), (1, 0));
}

#[test]
fn a_prompt_that_waits_where_nothing_runs_moves_on() {
    let mut world = world(2);
    world.submit();
    world.settle();
    attempt(&mut world, 0, Sighting::Present { stuck: true });
    world.pass(CoreConfig::default().silence_ms / 2);
    attempt(&mut world, 0, Sighting::Present { stuck: false });
    attempt(&mut world, 0, Sighting::Present { stuck: true });
    assert_eq!(quarantine(&world, 0), None, "between two prompts there is a moment");
    world.pass(CoreConfig::default().silence_ms);
    attempt(&mut world, 0, Sighting::Present { stuck: true });
    assert_eq!(quarantine(&world, 0).map(|(reason, _)| reason), Some("its worker takes no prompts".into()));
    assert_eq!(world.interrupted.len(), 1, "it is taken out of that queue");
    assert!(world.running.iter().any(|(_, attempt)| attempt.instance.as_str() == "i1"));
}

fn memory(world: &mut World, sizes: &[u32]) {
    let gpu = |mib: u32| GpuView { vram_total_mib: Some(mib), ..GpuView::default() };
    let now = world.now.tick;
    let readings = sizes.iter().enumerate().map(|(index, mib)| (index, gpu(*mib), now)).collect();
    world.input(Input::Readings(readings));
}

#[test]
fn a_job_out_of_memory_is_tried_once_where_there_is_more() {
    let mut world = world(3);
    memory(&mut world, &[8_000, 8_000, 24_000]);
    world.submit();
    world.settle();
    world.finish(0, EndKind::OutOfMemory);
    world.settle();
    assert_eq!(world.running[0].1.instance.as_str(), "i2");
    world.finish(0, EndKind::OutOfMemory);
    world.settle();
    assert_eq!(world.announced[0].outcome, JobOutcome::Error, "once");
}

#[test]
fn a_job_out_of_memory_ends_where_there_is_no_more() {
    let mut world = world(2);
    memory(&mut world, &[8_000, 8_000]);
    world.submit();
    world.settle();
    world.finish(0, EndKind::OutOfMemory);
    world.settle();
    assert_eq!((world.announced[0].outcome, world.running.len()), (JobOutcome::Error, 0));
}
