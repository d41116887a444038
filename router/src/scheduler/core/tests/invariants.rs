//! Whatever happens in whatever order: no job is lost, none has two live attempts, no instance is over its slots. The
//! assertions are in [`World`]; here the orders are made up.

use proptest::prelude::*;

use super::world::{World, job};
use crate::model::decision::*;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::input::*;

/// How a ledger fails; what is in doubt may be there.
#[derive(Debug, Clone, Copy)]
struct Failing {
    why: NotStored,
    there: bool,
}

#[derive(Debug, Clone)]
enum Happening {
    Submit { tenant: u8 },
    Execute { which: usize },
    Finish { which: usize, kind: u8 },
    Down { index: usize },
    Up { index: usize },
    Pass { ms: u64 },
    Interrupt { which: usize },
    Delete { which: usize },
    Cancel { which: usize },
    Change { which: usize, place: Option<Place>, priority: Option<Option<f64>>, number: Option<f64> },
    Clear,
    LedgerFails(Option<Failing>),
    PolicyChanged { places: bool },
    Link { index: usize, up: bool },
    Unsure(Option<bool>),
    Operate { index: usize, act: Act },
    Order { index: u32, act: Act },
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let act = prop_oneof![
        Just(Act::Drain),
        Just(Act::Resume),
        Just(Act::FreeMemory),
        Just(Act::Restart),
        any::<bool>().prop_map(|requeue| Act::Interrupt { requeue }),
        (0..3u32).prop_map(Act::CapSlots),
    ];
    prop_oneof![
        5 => (0..3u8).prop_map(|tenant| Submit { tenant }),
        20 => any::<usize>().prop_map(|which| Execute { which }),
        5 => (any::<usize>(), 0..5u8).prop_map(|(which, kind)| Finish { which, kind }),
        1 => (0..3usize).prop_map(|index| Down { index }),
        2 => (0..3usize).prop_map(|index| Up { index }),
        3 => (1..40_000u64).prop_map(|ms| Pass { ms }),
        1 => any::<usize>().prop_map(|which| Interrupt { which }),
        1 => any::<usize>().prop_map(|which| Delete { which }),
        1 => any::<usize>().prop_map(|which| Cancel { which }),
        2 => (any::<usize>(), place(), prop::option::of(prop::option::of(-9.0..9.0)), prop::option::of(-9.0..9.0))
            .prop_map(|(which, place, priority, number)| Change { which, place, priority, number }),
        1 => Just(Clear),
        1 => prop::option::of(failing()).prop_map(LedgerFails),
        1 => any::<bool>().prop_map(|places| PolicyChanged { places }),
        2 => (0..3usize, any::<bool>()).prop_map(|(index, up)| Link { index, up }),
        1 => any::<Option<bool>>().prop_map(Unsure),
        1 => (0..3usize, act.clone()).prop_map(|(index, act)| Operate { index, act }),
        1 => (0..4u32, act).prop_map(|(index, act)| Order { index, act }),
    ]
}

fn failing() -> impl Strategy<Value = Failing> {
    let why = prop_oneof![Just(NotStored::Full), Just(NotStored::Busy), Just(NotStored::Doubtful)];
    (why, any::<bool>()).prop_map(|(why, there)| Failing { why, there })
}

fn place() -> impl Strategy<Value = Option<Place>> {
    prop_oneof![Just(None), Just(Some(Place::Front)), Just(Some(Place::Back)), Just(Some(Place::Normal))]
}

fn kind(n: u8) -> EndKind {
    [EndKind::Success, EndKind::NodeError, EndKind::OutOfMemory, EndKind::Interrupted, EndKind::Rejected]
        [n as usize]
}

fn happen(world: &mut World, ids: &mut Vec<String>, happening: Happening) {
    match happening {
        Happening::Submit { tenant } => {
            let job = job(&tenant.to_string());
            ids.push(job.prompt_id.clone());
            world.submit_job(job);
        }
        Happening::Execute { which } if !world.todo.is_empty() => world.execute(which % world.todo.len()),
        Happening::Finish { which, kind: k } if !world.running.is_empty() => {
            world.finish(which % world.running.len(), kind(k));
        }
        Happening::Down { index } => world.down(index),
        Happening::Up { index } => world.up(index),
        Happening::Pass { ms } => world.pass(ms),
        Happening::Interrupt { which } if !ids.is_empty() => {
            world.interrupt(&ids[which % ids.len()]);
        }
        Happening::Delete { which } if !ids.is_empty() => {
            let request = world.request();
            let prompt_ids = vec![ids[which % ids.len()].clone()];
            world.input(Input::Delete { request, prompt_ids, scope: Scope::Everybody });
        }
        Happening::Cancel { which } if !ids.is_empty() => {
            let request = world.request();
            let prompt_ids = vec![ids[which % ids.len()].clone()];
            world.stops.insert(request, prompt_ids[0].clone());
            world.input(Input::Cancel { request, prompt_ids, scope: Scope::Everybody });
        }
        Happening::Change { which, place, priority, number } if !ids.is_empty() => {
            let request = world.request();
            let change = Change { place, priority, number, class: None };
            world.input(Input::Change { request, prompt_id: ids[which % ids.len()].clone(), change });
        }
        Happening::Clear => {
            let request = world.request();
            world.input(Input::Clear { request, scope: Scope::Everybody });
        }
        Happening::LedgerFails(failing) => {
            world.ledger_fails = failing.is_some();
            if let Some(Failing { why, there }) = failing {
                // Once in doubt, it may contradict for ever after.
                world.doubtful_is_there = there;
                if world.not_stored != NotStored::Doubtful {
                    world.not_stored = why;
                }
            }
        }
        Happening::PolicyChanged { places } => world.input(Input::PolicyChanged { places }),
        Happening::Link { index, up } => world.link(index, up),
        Happening::Unsure(unsure) => world.unsure = unsure,
        Happening::Operate { index, act } => world.input(Input::Operate { index, act }),
        Happening::Order { index, act } => {
            world.answers.orders.push(Order { instance: index, act, reason: String::new() });
        }
        _ => {}
    }
}

/// A policy that ranks in any order, holds, and retries as a small generator says.
fn fickle(world: &mut World, seed: u64) {
    let mut state = seed | 1;
    let mut next = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let mut flip = next;
    world.answers.route = Box::new(move |rows| match next(4) {
        0 => Route::Hold { ms: next(100_000) as u32 },
        1 => Route::Ranked(Vec::new()),
        _ => Route::Ranked((0..rows as u32).rev().collect()),
    });
    world.answers.recovery = Box::new(move || match flip(3) {
        0 => RecoveryDecision::Fail,
        n => RecoveryDecision::Retry { delay_ms: flip(5_000) as u32, avoid_instance: n == 1 },
    });
    world.answers.limits = Limits { queue_ms: Some(600_000), run_ms: Some(90_000), stall_ms: Some(60_000) };
    if seed.is_multiple_of(2) {
        world.answers.timeout = TimeoutDecision::Retry;
    }
}

/// With everything working again, every job must come to its end.
fn calm_down(world: &mut World) {
    world.ledger_fails = false;
    world.unsure = None;
    world.answers.orders.clear();
    for index in 0..3 {
        world.up(index);
        world.input(Input::Operate { index, act: Act::Resume });
        world.input(Input::Operate { index, act: Act::CapSlots(2) });
    }
    for _ in 0..400 {
        world.settle();
        while !world.running.is_empty() {
            world.finish(0, EndKind::Success);
        }
        world.pass(60_000);
    }
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_job_is_lost_or_runs_twice_at_once(
        seed in any::<u64>(),
        happenings in prop::collection::vec(happening(), 1..200),
    ) {
        let mut world = World::new(3, 2, CoreConfig::default());
        fickle(&mut world, seed);
        let mut ids = Vec::new();
        for one in happenings {
            happen(&mut world, &mut ids, one);
        }
        calm_down(&mut world);
        prop_assert_eq!(world.core.remaining(), 0, "some job never ends");
        prop_assert_eq!(world.accepted.len(), world.ended.len());
        prop_assert!(world.open_attempts.is_empty());
        prop_assert_eq!(world.replies.len() as u64, world.request() - 1, "some request is never answered");
    }

    /// Under a policy that ages, a job is not overtaken for ever by a stream of better ones.
    #[test]
    fn an_ageing_job_is_not_starved(better in 1.0..50.0f64) {
        let mut world = World::new(1, 1, CoreConfig::default());
        world.answers.priority = |job| match job.number {
            Some(score) => Priority { score, ageing_per_second: 0.0 },
            None => Priority { score: 0.0, ageing_per_second: 1.0 },
        };
        world.submit_job(numbered(better));
        world.settle();
        let patient = job("t");
        let id = patient.prompt_id.clone();
        world.submit_job(patient);
        let mut turns = 0;
        loop {
            world.submit_job(numbered(better));
            world.settle();
            if world.running[0].0.prompt_id == id {
                break;
            }
            world.pass(1_000);
            world.settle();
            world.finish(0, EndKind::Success);
            world.settle();
            turns += 1;
            prop_assert!(turns <= better as u32 + 2, "overtaken {} times", turns);
        }
    }
}

fn numbered(score: f64) -> crate::model::job::Job {
    let mut job = job("t");
    job.requested.number = Some(score);
    job
}
