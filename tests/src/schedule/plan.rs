//! What a seed says.

use comfyui_emulator::{Fault, Moment};

use crate::Chance;

/// Points of the router at which it may end; see `failpoint` there.
const POINTS: [&str; 9] = [
    "before_append.accepted",
    "after_append.accepted",
    "before_append.started",
    "after_append.started",
    "before_post",
    "after_post",
    "before_append.attempt_ended",
    "before_append.ended",
    "after_append.ended",
];

#[derive(Debug)]
pub struct Plan {
    pub instances: usize,
    pub clients: usize,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub enum Step {
    Post {
        client: usize,
    },
    Fault {
        instance: usize,
        fault: Fault,
    },
    /// A new process on the same port, with nothing in it.
    Restart {
        instance: usize,
    },
    /// SIGKILL, and a new process.
    KillRouter,
    /// It ends by itself at this point, if it comes there.
    EndRouterAt {
        point: &'static str,
    },
    /// The websocket of the client ends and is opened again.
    Reconnect {
        client: usize,
    },
    /// One of the jobs accepted so far.
    Interrupt {
        which: u64,
    },
    Delete {
        which: u64,
    },
    Pause {
        ms: u64,
    },
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let chance = &mut Chance::seeded(seed);
        let (instances, clients) = (2 + chance.below(2) as usize, 2);
        let steps = 14 + chance.below(14);
        let steps = (0..steps).map(|_| step(chance, instances, clients)).collect();
        Self { instances, clients, steps }
    }

    /// Executions that are made to fail.
    pub(super) fn failures(&self) -> usize {
        let fails = |step: &&Step| {
            matches!(step, Step::Fault { fault: Fault::OutOfMemory { .. } | Fault::NodeError { .. }, .. })
        };
        self.steps.iter().filter(fails).count()
    }
}

fn step(chance: &mut Chance, instances: usize, clients: usize) -> Step {
    let instance = chance.below(instances as u64) as usize;
    let client = chance.below(clients as u64) as usize;
    let which = chance.below(u64::MAX);
    match chance.below(20) {
        0..=8 => Step::Post { client },
        9..=12 => Step::Fault { instance, fault: fault(chance) },
        13 => Step::Restart { instance },
        14 => Step::KillRouter,
        15 => Step::EndRouterAt { point: POINTS[chance.below(POINTS.len() as u64) as usize] },
        16 => Step::Reconnect { client },
        17 => Step::Interrupt { which },
        18 => Step::Delete { which },
        _ => Step::Pause { ms: chance.below(60) },
    }
}

fn fault(chance: &mut Chance) -> Fault {
    let at = moment(chance);
    match chance.below(17) {
        0 | 1 => Fault::Crash { at },
        2 => Fault::RestartEmpty { at, down_ms: chance.below(100) },
        3 => Fault::Hang { at },
        4 => Fault::Freeze { at },
        5 => Fault::WorkerDeath { at },
        6 => Fault::Slow { factor: 1.0, extra_ms: chance.below(30) },
        7 => Fault::FailPosts { count: 1 + chance.below(4) as u32, status: 500 },
        8 => Fault::DelayPosts { count: 1, ms: chance.below(150) },
        9 | 10 => Fault::BreakAnswers { path: "/prompt".into(), count: 1 },
        11 => Fault::DropSockets,
        12 => Fault::MuteSockets,
        16 => Fault::EndMuteSockets,
        13 => Fault::EchoEvents { on: chance.below(2) == 0 },
        14 => Fault::OutOfMemory { count: 1 },
        _ => Fault::NodeError { message: "scripted".into(), count: 1 },
    }
}

fn moment(chance: &mut Chance) -> Moment {
    match chance.below(9) {
        0 => Moment::Now,
        1 => Moment::PostReceived,
        2 => Moment::PostAccepted,
        3 => Moment::Started,
        4 | 5 => Moment::AfterNodes(1),
        6 => Moment::Executed,
        7 => Moment::Succeeded,
        _ => Moment::Ended,
    }
}
