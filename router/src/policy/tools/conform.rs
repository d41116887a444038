//! `policy conform`: does a component keep to the interface on views that no fleet would show? Everything is answered,
//! within bounds, and the same to the same questions.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Settings, ToolError, open};
use crate::model::decision::{Consultation, Fallback, Hook, PolicyVersion, Question};
use crate::model::view::{Candidate, GpuView, InstanceView, JobView, Load, Offer, Seat};
use crate::policy::check::Check;
use crate::policy::error::LoadError;
use crate::policy::wasm::{Guest, Version};
use crate::policy::{gate, handle, sample};

/// A list as long as the host ever passes.
const LONGEST: usize = 1_024;
/// A deadline missed so often in a row is not the machine's fault.
const PATIENCE: u32 = 5;
/// The clock of all views.
const NOW_MS: u64 = 1_700_000_000_000;

#[derive(Debug, Clone, Serialize)]
pub struct Conformance {
    pub version: PolicyVersion,
    pub hooks: Vec<Hook>,
    /// Answers looked at.
    pub asked: u32,
    /// The first of each kind for each hook.
    pub broken: Vec<Broken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// `totality`: no answer; `bounds`: one that is out of bounds; `determinism`: another one to the same question.
    pub rule: &'static str,
    pub hook: Hook,
    /// Which view it was.
    pub view: String,
    pub what: String,
}

impl Conformance {
    pub fn conforms(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Asks everything twice, each time of a fresh guest. Fails only when the component could not be loaded at all.
pub fn conform(path: &Path, settings: &Settings) -> Result<Conformance, ToolError> {
    let opened = open(path, settings)?;
    let version = opened.version()?;
    let check = Check { limits: &opened.config.limits, bounds: &opened.config.bounds };
    let mut report = Conformance {
        version: version.id.clone(),
        hooks: version.hooks().to_vec(),
        asked: 0,
        broken: Vec::new(),
    };
    let first = all(&version, &check, &mut report)?;
    let second = all(&version, &check, &mut report)?;
    for ((hook, view, one), (_, _, other)) in first.into_iter().zip(second) {
        if let (Some(one), Some(other)) = (one, other)
            && one != other
        {
            report.note("determinism", hook, view, format!("first {one}, then {other}"));
        }
    }
    Ok(report)
}

/// Every view to every hook that is exported: the answers, in order.
fn all(
    version: &Version,
    check: &Check<'_>,
    report: &mut Conformance,
) -> Result<Vec<(Hook, String, Option<String>)>, LoadError> {
    let mut guest = version.trial(NOW_MS)?;
    let mut answers = Vec::new();
    for (view, asked) in views() {
        for &hook in handle::hooks(&asked.question).iter().filter(|hook| version.exports(**hook)) {
            report.asked += 1;
            let answer = put(version, &mut guest, check, hook, &asked)?;
            if let Err((rule, what)) = &answer {
                report.note(rule, hook, view.clone(), what.clone());
            }
            answers.push((hook, view.clone(), answer.ok()));
        }
    }
    Ok(answers)
}

type Put = Result<String, (&'static str, String)>;

fn put(
    version: &Version,
    guest: &mut Guest,
    check: &Check<'_>,
    hook: Hook,
    asked: &Consultation,
) -> Result<Put, LoadError> {
    for again in 0.. {
        match gate::put_hook(guest, check, hook, asked) {
            Ok(said) => {
                guest.keep();
                return Ok(Ok(format!("{} ({})", gate::say(&said, asked), gate::reason(&said))));
            }
            Err(error) => {
                if error.dead {
                    *guest = version.trial(NOW_MS)?;
                }
                let rule = if error.reason == Fallback::BadAnswer { "bounds" } else { "totality" };
                if error.reason != Fallback::Deadline || again == PATIENCE {
                    return Ok(Err((rule, format!("{}: {}", error.reason.as_str(), error.message))));
                }
            }
        }
    }
    unreachable!("the loop ends by an answer or by patience")
}

impl Conformance {
    fn note(&mut self, rule: &'static str, hook: Hook, view: String, what: String) {
        if !self.broken.iter().any(|known| known.rule == rule && known.hook == hook) {
            self.broken.push(Broken { rule, hook, view, what });
        }
    }
}

/// Ordinary views, then every figure at its extremes, then lists that are empty or as long as can be.
fn views() -> Vec<(String, Consultation)> {
    let ask = |seed: u32, question| Consultation { seed: seed.into(), ..sample::ask(0, 4, question) };
    let mut views: Vec<(String, Consultation)> = Vec::new();
    for n in 0..24 {
        let questions = sample::questions(n, 1 + n as usize % 8);
        views.extend(questions.into_iter().map(|question| (format!("ordinary {n}"), ask(n, question))));
    }
    for extreme in EXTREMES {
        let questions = hostile(&extreme, 3);
        views.extend(questions.into_iter().map(|question| (extreme.name.to_owned(), ask(7, question))));
    }
    for (name, size) in [("lists of one", 1), ("the longest lists", LONGEST)] {
        let questions = hostile(&EXTREMES[0], size);
        views.extend(questions.into_iter().map(|question| (name.to_owned(), ask(9, question))));
    }
    for question in [
        Question::Tick { instances: Vec::new() },
        Question::Observe { outcomes: Vec::new() },
        Question::Place { jobs: vec![sample::job()], seats: Vec::new(), offers: Vec::new() },
    ] {
        views.push(("empty lists".to_owned(), ask(11, question)));
    }
    views
}

/// One value for every figure of a view.
struct Extreme {
    name: &'static str,
    count: u32,
    real: f32,
    known: bool,
    flag: bool,
}

const EXTREMES: [Extreme; 6] = [
    Extreme { name: "all zero", count: 0, real: 0.0, known: true, flag: false },
    Extreme { name: "nothing known", count: 0, real: 0.0, known: false, flag: true },
    Extreme { name: "all at their largest", count: u32::MAX, real: f32::MAX, known: true, flag: true },
    Extreme { name: "not a number", count: 1, real: f32::NAN, known: true, flag: true },
    Extreme { name: "infinite", count: u32::MAX, real: f32::INFINITY, known: true, flag: false },
    Extreme { name: "negative", count: 1, real: f32::MIN, known: true, flag: true },
];

impl Extreme {
    fn maybe<T>(&self, value: T) -> Option<T> {
        self.known.then_some(value)
    }

    fn gpu(&self) -> GpuView {
        GpuView {
            vram_free_mib: self.maybe(self.count),
            vram_total_mib: self.maybe(self.count),
            utilization_percent: self.maybe(self.real),
            temperature_c: self.maybe(self.real),
            slowdown_margin_c: self.maybe(self.real),
            power_mw: self.maybe(self.count),
            power_limit_mw: self.maybe(self.count),
            throttled: self.maybe(self.flag),
            reading_age_ms: self.maybe(self.count),
        }
    }

    fn job(&self) -> JobView {
        JobView {
            tenant: self.count,
            client: self.count,
            number: self.maybe(self.real.into()),
            front: self.flag,
            nodes: self.count,
            outputs: self.count,
            images: self.count,
            steps: self.maybe(self.count),
            megapixels: self.maybe(self.real),
            work: self.maybe(self.real),
            signature: self.count,
            models: self.count,
            input_kib: self.count,
            attempt: self.count.max(1),
            waited_ms: self.count,
            run_ms: self.maybe(self.count),
            ..sample::job()
        }
    }

    fn candidate(&self, instance: u32) -> Candidate {
        Candidate {
            instance,
            free_slots: self.count,
            running: self.count,
            pending: self.count,
            models_resident: self.count,
            load_ms: self.maybe(self.count),
            free_in_ms: self.maybe(self.count),
            run_ms: self.maybe(self.count),
            gpu: self.gpu(),
            failures: self.count,
            same_signature: self.flag,
        }
    }

    fn seat(&self, instance: u32) -> Seat {
        let Candidate { free_slots, free_in_ms, running, pending, gpu, failures, .. } =
            self.candidate(instance);
        Seat { instance, free_slots, free_in_ms, running, pending, gpu, failures }
    }

    fn instance(&self, instance: u32) -> InstanceView {
        InstanceView {
            instance,
            up: self.flag,
            draining: self.flag,
            running: self.count,
            pending: self.count,
            idle_ms: self.maybe(self.count),
            models_resident: self.count,
            gpu: self.gpu(),
            failures: self.count,
        }
    }

    fn load(&self) -> Load {
        let n = self.count;
        Load {
            queued: n,
            running: n,
            instances: n,
            free_slots: n,
            tenant_queued: n,
            tenant_running: n,
            client_queued: n,
        }
    }
}

/// Every kind of question with these figures, lists of this length.
fn hostile(extreme: &Extreme, size: usize) -> Vec<Question> {
    let rows = || 0..size as u32;
    let mut questions = sample::questions(0, 1);
    for question in &mut questions {
        match question {
            Question::Intake { job, load } => (*job, *load) = (extreme.job(), extreme.load()),
            Question::Reassess { job } => *job = extreme.job(),
            Question::Route { job, candidates } => {
                (*job, *candidates) = (extreme.job(), rows().map(|n| extreme.candidate(n)).collect());
            }
            Question::Place { jobs, seats, offers } => {
                *jobs = rows().take(sample::WINDOW as usize).map(|_| extreme.job()).collect();
                *seats = rows().map(|n| extreme.seat(n)).collect();
                let pairs = (0..jobs.len() as u32).flat_map(|job| rows().map(move |seat| (job, seat)));
                *offers =
                    pairs.take(LONGEST).map(|(job, seat)| Offer { job, seat, ..Offer::default() }).collect();
            }
            Question::OnTimeout { job, progress, .. } => {
                *job = extreme.job();
                progress.elapsed_ms = extreme.count;
                progress.silent_ms = extreme.count;
                progress.nodes_done = extreme.count;
                progress.node_percent = extreme.maybe(extreme.real);
            }
            Question::OnFailure { job, failure } => {
                *job = extreme.job();
                (failure.instance, failure.attempt, failure.ran_ms) =
                    (extreme.count, extreme.count, extreme.count);
            }
            Question::Tick { instances } => *instances = rows().map(|n| extreme.instance(n)).collect(),
            Question::Observe { outcomes } => {
                *outcomes = sample::outcomes(size);
                for outcome in outcomes {
                    (outcome.instance, outcome.run_ms, outcome.wait_ms) =
                        (extreme.count, extreme.count, extreme.count);
                    outcome.predicted_ms = extreme.maybe(extreme.count);
                }
            }
        }
    }
    questions
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks: Vec<&str> = self.hooks.iter().map(|hook| hook.as_str()).collect();
        writeln!(f, "{} {}: {}", self.version.name, self.version.digest, hooks.join(", "))?;
        for Broken { rule, hook, view, what } in &self.broken {
            writeln!(f, "{rule}: {} with {view}: {what}", hook.as_str())?;
        }
        match self.broken.len() {
            0 => writeln!(
                f,
                "it conforms: {} answers, all in bounds, the same to the same questions",
                self.asked
            ),
            broken => writeln!(f, "it does not conform: {broken} kinds of trouble in {} answers", self.asked),
        }
    }
}
