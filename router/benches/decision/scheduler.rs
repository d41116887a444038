//! The whole decision: a fleet that is always busy and a queue that is always full, driven as the scheduler's driver does
//! it, with a ledger that takes no time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_router::clock::{Clock, SystemClock};
use comfy_router::model::decision::{Consultation, Decided, Hook, Question};
use comfy_router::model::event::History;
use comfy_router::model::id::{InstanceId, JobId};
use comfy_router::model::job::{Attempt, Body, Job, JobClass, ModelRef, Needs, Number, Requested};
use comfy_router::model::view::Capabilities;
use comfy_router::policy::{Handle, Shipped};
use comfy_router::scheduler::config::CoreConfig;
use comfy_router::scheduler::core::Core;
use comfy_router::scheduler::input::{
    Action, EndKind, Ending, Input, InstanceChange, InstanceSpec, Restored, Sighting, Ticket,
};

use super::{INSTANCES, QUEUE};

const WARM_UP: usize = 500;
const DECISIONS: usize = 5_000;
const MODELS: u64 = 8;
/// What a common workflow is made of.
const CLASSES: [&str; 10] = [
    "CheckpointLoaderSimple",
    "LoraLoader",
    "CLIPTextEncode",
    "EmptyLatentImage",
    "KSampler",
    "VAEDecode",
    "ControlNetLoader",
    "ControlNetApply",
    "LoadImage",
    "SaveImage",
];

#[derive(Default)]
pub(crate) struct Measured {
    /// From the input that freed a slot to the attempt's record on its way to the ledger.
    pub(crate) total: Vec<Duration>,
    /// The two steps of the core in it.
    pub(crate) core: Vec<Duration>,
}

struct World {
    core: Core,
    clock: SystemClock,
    policy: Handle,
    name: &'static str,
    running: VecDeque<(JobId, Attempt)>,
    submitted: u64,
    measured: Measured,
}

/// A decision that the policy is asked for.
struct Open {
    ticket: Ticket,
    consultation: Box<Consultation>,
    started: Instant,
    in_core: Duration,
}

pub(crate) async fn measure(policy: Handle, shipped: Shipped) -> Measured {
    let mut world = World::new(policy, shipped);
    for _ in 0..INSTANCES + QUEUE {
        world.submit().await;
    }
    assert_eq!(world.running.len(), INSTANCES as usize, "every instance is busy");
    while world.measured.total.len() < WARM_UP + DECISIONS {
        assert_eq!(world.core.waiting().count(), QUEUE as usize);
        world.end_one().await;
        world.submit().await;
    }
    let Measured { total, core } = world.measured;
    Measured { total: total[WARM_UP..].to_vec(), core: core[WARM_UP..].to_vec() }
}

impl World {
    fn new(policy: Handle, shipped: Shipped) -> Self {
        let clock = SystemClock::default();
        let spec = |n: u32| InstanceSpec {
            id: InstanceId::from(format!("gpu{n}").as_str()),
            slots: 1,
            labels: Arc::default(),
            supervised: false,
        };
        let fleet = (0..INSTANCES).map(spec).collect();
        // A policy that holds jobs would leave instances idle; what is measured is the cost of a start.
        let config = CoreConfig { max_hold_ms: 0, ..CoreConfig::default() };
        let mut core = Core::new(config, fleet, Restored::default(), clock.now());
        let can = Arc::new(capabilities());
        for index in 0..INSTANCES as usize {
            for change in [InstanceChange::Up(can.clone()), InstanceChange::Linked(true)] {
                core.step(Input::Instance { index, change }, clock.now());
            }
        }
        let (running, measured) = (VecDeque::new(), Measured::default());
        Self { core, clock, policy, name: shipped.name(), running, submitted: 0, measured }
    }

    async fn submit(&mut self) {
        self.submitted += 1;
        let job = Box::new(job(self.submitted));
        self.drive(Input::Submit { request: self.submitted, job }).await;
    }

    async fn end_one(&mut self) {
        let (job, attempt) = self.running.pop_front().expect("one runs");
        let ending = Ending {
            kind: EndKind::Success,
            detail: String::new(),
            history: History::default(),
            load_ms: 40,
        };
        self.drive(Input::Attempt { job, number: attempt.number, sighting: Sighting::Ended(ending) }).await;
    }

    /// One input and all that follows from it.
    async fn drive(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let started = Instant::now();
            let actions = self.core.step(input, self.clock.now());
            let in_core = started.elapsed();
            for action in actions {
                match action {
                    Action::Consult { ticket, consultation } => {
                        let open = Open { ticket, consultation, started, in_core };
                        inputs.extend(self.decide(open).await);
                    }
                    Action::Commit { ticket, .. } => inputs.push_back(Input::Committed { ticket }),
                    Action::Dispatch { job, attempt } => {
                        let (job, number) = (job.id, attempt.number);
                        self.running.push_back((job, attempt));
                        inputs.push_back(Input::Attempt { job, number, sighting: Sighting::Dispatched });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks the policy; a routing decision is timed up to the actions that it leads to, whose commits are returned.
    async fn decide(&mut self, open: Open) -> Vec<Input> {
        let Open { ticket, consultation, started, mut in_core } = open;
        let routing = match &consultation.question {
            Question::Route { candidates, .. } => {
                assert_eq!(candidates.len(), INSTANCES as usize);
                true
            }
            _ => false,
        };
        let decided = self.policy.decide(*consultation).await;
        self.check(&decided, routing);
        let input = Input::Decided { ticket, decided };
        if !routing {
            return vec![input];
        }
        let step = Instant::now();
        let actions = self.core.step(input, self.clock.now());
        in_core += step.elapsed();
        let took = started.elapsed();
        let commit = |action| match action {
            Action::Commit { ticket, .. } => Input::Committed { ticket },
            other => panic!("a decision starts an attempt and nothing else: {other:?}"),
        };
        let commits: Vec<Input> = actions.into_iter().map(commit).collect();
        assert_eq!(commits.len(), 1, "the attempt's record");
        // While the fleet fills up there is no queue yet.
        if self.core.waiting().count() >= QUEUE as usize - 1 {
            self.measured.total.push(took);
            self.measured.core.push(in_core);
        }
        commits
    }

    fn check(&self, decided: &Decided, routing: bool) {
        for record in &decided.records {
            assert_eq!(&*record.version.name, self.name);
            assert_eq!(routing, record.hook == Hook::Route);
        }
        if routing {
            assert_eq!(decided.records[0].fallback, None, "the policy itself answered");
        }
    }
}

fn capabilities() -> Capabilities {
    let models = (0..MODELS).map(|n| model(n).name).collect();
    Capabilities {
        classes: CLASSES.map(str::to_owned).into(),
        models: [("checkpoints".to_owned(), models)].into(),
    }
}

fn model(n: u64) -> ModelRef {
    ModelRef { folder: "checkpoints".into(), name: format!("model{n}.safetensors") }
}

fn job(n: u64) -> Job {
    let id = JobId::mint();
    let needs = Needs {
        classes: CLASSES.map(str::to_owned).into(),
        models: vec![model(n * n % MODELS)],
        nodes: CLASSES.len() as u32,
        images: 1,
        steps: Some(20 + (n % 3) as u32 * 10),
        megapixels: Some(1.0),
        signature: n % 32,
        ..Needs::default()
    };
    let body = Body { prompt: "{}".into(), outputs: vec!["9".into()], ..Body::default() };
    Job {
        id,
        prompt_id: id.to_string(),
        number: Number::Counted(0),
        client_id: Some(format!("client{}", n % 8)),
        tenant: format!("tenant{}", n % 4),
        class: [JobClass::Interactive, JobClass::Standard, JobClass::Batch][n as usize % 3],
        requested: Requested::default(),
        accepted_at: 0,
        body: Arc::new(body),
        needs: Arc::new(needs),
        once: None,
    }
}
