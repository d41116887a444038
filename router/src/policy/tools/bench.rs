//! `policy bench`: how long does each hook take, by number of candidates?

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Opened, Settings, ToolError, open_with};
use crate::model::decision::{Consultation, Hook, PolicyVersion};
use crate::model::view::Context;
use crate::policy::check::Check;
use crate::policy::config::{Config, GuestLimits};
use crate::policy::wasm::{Engine, Guest, Version};
use crate::policy::{gate, handle, sample};

/// Calls of each hook at each size that are measured, after some that only warm up.
const CALLS: usize = 1_000;
const WARM_UP: usize = 100;

/// Different questions, asked in turn: every class, with and without a number, one of unknown size.
const QUESTIONS: u32 = 28;

/// Calls whose instructions are counted: they are the same every time for the same question.
const COUNTED: usize = 56;

/// Wall time of one call here, and of `configure`. A call that misses the deadline of service is counted, and not cut off,
/// because a slow call is what is looked for.
const CALL_MS: u64 = 2_000;

#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    pub version: PolicyVersion,
    /// Deadline of a call in service.
    pub deadline_us: f64,
    pub rows: Vec<BenchRow>,
}

/// Wall time of one hook: limits set anew, the view lowered into the guest, the call, the answer lifted and checked. The views
/// are made before, as the scheduler makes them.
#[derive(Debug, Clone, Serialize)]
pub struct BenchRow {
    pub hook: Hook,
    /// Candidates of `route`, seats of `place`, instances of `tick`, outcomes of `observe`; other hooks do not depend on it.
    pub candidates: usize,
    pub calls: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Calls that took longer than the deadline of service.
    pub missed: usize,
    /// Instructions of a call, the median and the most; none when they were not counted.
    pub fuel: Option<[u64; 2]>,
    /// Linear memory of a guest that was asked this size only, after all its calls so far.
    pub memory_bytes: usize,
}

/// Times every hook the component exports, under the limits of service but its deadline. A call that fails ends it. Counting
/// instructions compiles the component a second time.
pub fn bench(
    path: &Path,
    settings: &Settings,
    candidates: &[usize],
    count: bool,
) -> Result<Bench, ToolError> {
    let deadline = GuestLimits::default().call();
    let limits = GuestLimits { call_ms: CALL_MS, configure_ms: CALL_MS, ..GuestLimits::default() };
    let opened = open_with(path, Config { settings: settings.clone(), limits, ..Config::default() })?;
    let version = opened.version()?;
    gate::pass(&version, &opened.config.limits, &opened.config.bounds, sample::context(0).now_ms)?;
    let counting =
        if count { Some(opened.compile_for(&Engine::metered(&opened.config.limits)?)?) } else { None };
    let hooks = timed(&version);
    let mut rows = Vec::new();
    for &size in candidates {
        let mut timing = Sized::new(&opened, &version, size)?;
        let mut counting = counting.as_ref().map(|version| Sized::new(&opened, version, size)).transpose()?;
        for &(hook, kind) in &hooks {
            let questions = timing.questions(kind);
            let row = timing.time(hook, &questions, deadline)?;
            let fuel = counting.as_mut().map(|counting| counting.count(hook, &questions)).transpose()?;
            rows.push(BenchRow { fuel, ..row });
        }
    }
    let deadline_us = deadline.as_secs_f64() * 1e6;
    Ok(Bench { version: opened.id, deadline_us, rows })
}

/// Each exported hook with the first kind of question that asks it.
fn timed(version: &Version) -> Vec<(Hook, usize)> {
    let questions = sample::questions(0, 1);
    let mut found: Vec<(Hook, usize)> = Vec::new();
    for (kind, question) in questions.iter().enumerate() {
        for &hook in handle::hooks(question) {
            if version.exports(hook) && !found.iter().any(|(known, _)| *known == hook) {
                found.push((hook, kind));
            }
        }
    }
    found
}

/// A guest that is asked views of one size.
struct Sized<'a> {
    opened: &'a Opened,
    size: usize,
    /// Of all questions, as in service.
    context: Context,
    guest: Guest,
}

impl<'a> Sized<'a> {
    fn new(opened: &'a Opened, version: &Version, size: usize) -> Result<Self, ToolError> {
        let context = sample::context(size);
        Ok(Self { opened, size, guest: version.trial(context.now_ms)?, context })
    }

    /// All questions of one kind.
    fn questions(&self, kind: usize) -> Vec<Consultation> {
        let asked = |n: u32| Consultation {
            job: None,
            seed: n.into(),
            context: self.context.clone(),
            question: sample::question(kind, n, self.size),
        };
        (0..QUESTIONS).map(asked).collect()
    }

    /// Answers how long it took.
    fn ask(&mut self, hook: Hook, asked: &Consultation) -> Result<Duration, ToolError> {
        let check = Check { limits: &self.opened.config.limits, bounds: &self.opened.config.bounds };
        let started = Instant::now();
        let answer = gate::put_hook(&mut self.guest, &check, hook, asked);
        let elapsed = started.elapsed();
        answer.map_err(|error| ToolError::Call {
            hook: hook.as_str(),
            reason: error.reason.as_str(),
            candidates: self.size,
            message: error.message,
        })?;
        self.guest.keep();
        Ok(elapsed)
    }

    fn time(
        &mut self,
        hook: Hook,
        questions: &[Consultation],
        deadline: Duration,
    ) -> Result<BenchRow, ToolError> {
        let mut took: Vec<Duration> = Vec::with_capacity(CALLS);
        for (n, asked) in questions.iter().cycle().take(WARM_UP + CALLS).enumerate() {
            let elapsed = self.ask(hook, asked)?;
            if n >= WARM_UP {
                took.push(elapsed);
            }
        }
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e6;
        Ok(BenchRow {
            hook,
            candidates: self.size,
            calls: CALLS,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
            missed: took.iter().filter(|&&took| took > deadline).count(),
            fuel: None,
            memory_bytes: self.guest.memory(),
        })
    }

    fn count(&mut self, hook: Hook, questions: &[Consultation]) -> Result<[u64; 2], ToolError> {
        let mut fuel = Vec::with_capacity(COUNTED);
        for asked in questions.iter().cycle().take(COUNTED) {
            self.ask(hook, asked)?;
            fuel.extend(self.guest.fuel());
        }
        fuel.sort_unstable();
        Ok([fuel.get(fuel.len() / 2).copied().unwrap_or(0), fuel.last().copied().unwrap_or(0)])
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bench { version, deadline_us, rows } = self;
        writeln!(f, "{} {}, times in microseconds, {CALLS} calls each", version.name, version.digest)?;
        write!(f, "{:<11} {:>10} {:>9} {:>9} {:>9}", "hook", "candidates", "p50", "p99", "max")?;
        writeln!(f, " {:>7} {:>10} {:>10} {:>10}", "missed", "fuel p50", "fuel max", "memory KiB")?;
        for row in rows {
            let BenchRow { hook, candidates, p50_us, p99_us, max_us, missed, .. } = row;
            write!(f, "{:<11} {candidates:>10} {p50_us:>9.1} {p99_us:>9.1} {max_us:>9.1}", hook.as_str())?;
            let [p50, max] =
                row.fuel.map_or(["-".to_owned(), "-".to_owned()], |fuel| fuel.map(|fuel| fuel.to_string()));
            writeln!(f, " {missed:>7} {p50:>10} {max:>10} {:>10}", row.memory_bytes.div_ceil(1024))?;
        }
        writeln!(f, "missed: calls over the deadline of {deadline_us} us")
    }
}
