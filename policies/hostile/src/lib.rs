//! Misbehaves on purpose, as its settings say: `{"on": "route", "do": "loop"}`. For tests of the host's limits.
//!
//! `times` limits how many calls of that hook go wrong; `from_ms` spares the load gate, whose sample views are older
//! than any test's.

use std::hint::black_box;

use comfy_router_policy::{
    Act, Admission, AdmissionDecision, Candidate, Failure, Feedback, Housekeeping, InstanceState, Job,
    Lifecycle, Limit, Limits, Load, Order, Outcome, Priority, PriorityDecision, Progress, Recovery,
    RecoveryDecision, Rejection, Retry, RouteAnswer, RouteDecision, Routing, TimeoutDecision, Timeouts,
    clock, log, random, settings, state, workflow,
};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Hook {
    Configure,
    Admit,
    Prioritize,
    LimitsFor,
    OnTimeout,
    Route,
    OnFailure,
    Tick,
    Observe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    Nothing,
    /// Never returns.
    Loop,
    /// An illegal instruction.
    Trap,
    Panic,
    /// Allocates until it may not.
    Memory,
    StackOverflow,
    /// Calls host functions without end.
    HostCalls,
    /// Logs a megabyte in lines of a kilobyte.
    LogFlood,
    /// Logs one line of a megabyte.
    LongLine,
    /// Answers with what is not there: an unknown row or instance, NaN.
    Unknown,
    /// Names a row twice.
    Duplicate,
    /// Infinite ageing.
    Infinite,
    Negative,
    /// An answer with no rows.
    Empty,
    /// A text of one megabyte.
    LongText,
    /// Control characters in a text.
    DirtyText,
    /// A list of a hundred thousand rows.
    LongList,
    /// A hold, delay, extension or status far beyond the bounds.
    Huge,
    /// `configure` says no.
    Refuse,
    /// Asks the `workflow` interface about a job that is not the present one.
    OldHandle,
    /// Says what `random` gave.
    Random,
    /// Reaches for files, environment, network and time, and says what it got.
    Reach,
    /// Counts in `state`, and says how far it is.
    Count,
    /// Counts in `state`, then traps.
    CountAndTrap,
    /// Sets keys without end.
    FillState,
    /// Takes an instance away from what runs there, which is to run again.
    Preempt,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hostile {
    on: Hook,
    r#do: Deed,
    /// The clock at which it begins to misbehave.
    from_ms: f64,
    /// Calls of that hook that go well first, as with a leak that takes a while to fill its room.
    after: u32,
    /// Calls that go wrong; all of them if none is given.
    times: Option<u32>,
    #[serde(skip)]
    calls: u32,
}

impl Default for Hostile {
    fn default() -> Self {
        Self { on: Hook::Route, r#do: Deed::Nothing, from_ms: 0.0, after: 0, times: None, calls: 0 }
    }
}

comfy_router_policy::export!(
    Hostile: lifecycle, admission, priority, timeouts, routing, recovery, housekeeping, feedback
);

impl Hostile {
    /// What to do in this call: the crude deeds are done here, the answers come back to the hook.
    fn deed(&mut self, hook: Hook) -> Deed {
        if hook != self.on || clock::now_ms() < self.from_ms {
            return Deed::Nothing;
        }
        self.calls += 1;
        if self.calls <= self.after || self.times.is_some_and(|times| self.calls > times) {
            return Deed::Nothing;
        }
        crude(self.r#do);
        self.r#do
    }
}

fn crude(deed: Deed) {
    match deed {
        Deed::Loop => spin(),
        #[cfg(target_arch = "wasm32")]
        Deed::Trap => core::arch::wasm32::unreachable(),
        Deed::Panic => panic!("on purpose"),
        Deed::Memory => eat(),
        Deed::StackOverflow => {
            black_box(deep(1));
        }
        Deed::HostCalls => loop {
            black_box(random::next());
        },
        Deed::LogFlood => {
            let line = "x".repeat(1_000);
            (0..1_000).for_each(|_| log::write(log::Level::Info, &line));
        }
        Deed::CountAndTrap => {
            let _ = state::increment("count", 1.0, None);
            panic!("on purpose");
        }
        Deed::FillState => {
            let mut n = 0;
            while state::set(&format!("k{n}"), "v", None).is_ok() {
                n += 1;
            }
        }
        Deed::LongLine => log::write(log::Level::Info, &"y".repeat(1_000_000)),
        _ => {}
    }
}

fn spin() {
    let mut n = 0_u32;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn eat() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(black_box(vec![1; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
fn deep(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    deep(frame[7] + 1) + frame[3]
}

fn text(deed: Deed) -> String {
    match deed {
        Deed::LongText => "z".repeat(1_000_000),
        Deed::DirtyText => "a\nb\u{1b}[31mc\0d".to_owned(),
        Deed::Random => random::next().to_string(),
        Deed::Reach => reach(),
        Deed::Count => {
            state::increment("count", 1.0, None).map_or_else(|e| format!("{e:?}"), |n| n.to_string())
        }
        _ => "fine".to_owned(),
    }
}

/// Everything that Rust's library would give a program.
fn reach() -> String {
    let got = |what: &str, got: bool| format!("{what} {}", if got { "REACHED" } else { "refused" });
    let before = clock::now_ms();
    let busy: u64 = (0..2_000_000_u64).fold(0, |sum, n| black_box(sum ^ n));
    [
        got("files", std::fs::read_dir("/").is_ok() || std::fs::read("/proc/self/environ").is_ok()),
        got("writing", std::fs::write("/tmp/reached", "x").is_ok()),
        got("environment", ["PATH", "HOME"].map(std::env::var_os).iter().any(Option::is_some)),
        got("network", std::net::TcpStream::connect("127.0.0.1:80").is_ok()),
        got("listening", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        got("threads", std::thread::Builder::new().spawn(|| ()).is_ok()),
        got("processes", std::process::Command::new("true").spawn().is_ok()),
        got("time", clock::now_ms() != before && busy < u64::MAX),
    ]
    .join(", ")
}

impl Lifecycle for Hostile {
    fn configure(json: &str) -> Result<Self, String> {
        let mut policy: Self = settings(json)?;
        match policy.deed(Hook::Configure) {
            Deed::Refuse => Err("these settings are not for me".to_owned()),
            deed @ (Deed::LongText | Deed::DirtyText) => Err(text(deed)),
            _ => Ok(policy),
        }
    }
}

impl Admission for Hostile {
    fn admit(&mut self, _job: &Job, _load: &Load) -> AdmissionDecision {
        match self.deed(Hook::Admit) {
            Deed::Huge => AdmissionDecision::Reject(Rejection {
                status: 200,
                retry_after_s: Some(u32::MAX),
                reason: "go away".to_owned(),
            }),
            deed @ (Deed::LongText | Deed::DirtyText) => AdmissionDecision::busy(1, text(deed)),
            _ => AdmissionDecision::Admit,
        }
    }
}

impl Priority for Hostile {
    fn prioritize(&mut self, job: &Job) -> PriorityDecision {
        let deed = self.deed(Hook::Prioritize);
        let (score, ageing) = match deed {
            Deed::Unknown => (f64::NAN, 1.0),
            Deed::Infinite => (1.0, f64::INFINITY),
            Deed::Negative => (1.0, -1.0),
            Deed::Huge => (f64::MAX, f64::MAX),
            Deed::OldHandle => (workflow::node_classes(job.handle.wrapping_sub(1)).len() as f64, 1.0),
            _ => (1.0, 1.0),
        };
        PriorityDecision::new(score, ageing, text(deed))
    }
}

impl Timeouts for Hostile {
    fn limits_for(&mut self, _job: &Job) -> Limits {
        match self.deed(Hook::LimitsFor) {
            Deed::Huge => Limits { queue_ms: Some(u32::MAX), run_ms: Some(u32::MAX), stall_ms: Some(0) },
            _ => Limits::NONE,
        }
    }

    fn on_timeout(&mut self, _job: &Job, _which: Limit, _progress: &Progress) -> TimeoutDecision {
        match self.deed(Hook::OnTimeout) {
            Deed::Huge => TimeoutDecision::Extend(u32::MAX),
            deed => TimeoutDecision::Fail(text(deed)),
        }
    }
}

impl Routing for Hostile {
    fn route(&mut self, _job: &Job, candidates: &[Candidate]) -> RouteDecision {
        let deed = self.deed(Hook::Route);
        let answer = match deed {
            Deed::Unknown => RouteAnswer::Ranked(vec![candidates.len() as u32]),
            Deed::Duplicate => RouteAnswer::Ranked(vec![0, 0]),
            Deed::Empty => RouteAnswer::Ranked(Vec::new()),
            Deed::LongList => RouteAnswer::Ranked(vec![0; 100_000]),
            Deed::Huge => RouteAnswer::Hold(u32::MAX),
            _ => RouteAnswer::Ranked(vec![0]),
        };
        RouteDecision { answer, reason: text(deed) }
    }
}

impl Recovery for Hostile {
    fn on_failure(&mut self, _job: &Job, _failure: &Failure) -> RecoveryDecision {
        match self.deed(Hook::OnFailure) {
            Deed::Huge => RecoveryDecision::Retry(Retry { delay_ms: u32::MAX, avoid_instance: true }),
            _ => RecoveryDecision::Fail,
        }
    }
}

impl Housekeeping for Hostile {
    fn tick(&mut self, instances: &[InstanceState]) -> Vec<Order> {
        let deed = self.deed(Hook::Tick);
        let order = |instance| Order { instance, act: Act::FreeModels, reason: text(deed) };
        match deed {
            Deed::Unknown => vec![order(instances.len() as u32)],
            Deed::LongList => (0..100_000).map(|_| order(0)).collect(),
            Deed::LongText | Deed::DirtyText => vec![order(0)],
            Deed::Preempt => {
                let busy = instances.iter().filter(|instance| instance.running > 0);
                let order = |instance: &InstanceState| Order {
                    instance: instance.instance,
                    act: Act::Interrupt(true),
                    reason: String::new(),
                };
                busy.map(order).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Feedback for Hostile {
    fn observe(&mut self, _outcomes: &[Outcome]) {
        self.deed(Hook::Observe);
    }
}
