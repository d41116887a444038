//! `policy bench`: how long does each hook take, by number of candidates?

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Settings, ToolError, open};
use crate::model::decision::{Hook, PolicyVersion};
use crate::policy::check::Check;
use crate::policy::wasm::{Guest, Version};
use crate::policy::{gate, handle, sample};

/// Calls of each hook at each size that are measured, after as many that only warm up as there are sizes of caches.
const CALLS: u32 = 1_000;
const WARM_UP: u32 = 100;

#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    pub version: PolicyVersion,
    /// Deadline of a call in service.
    pub deadline_us: f64,
    /// Linear memory after all calls.
    pub memory_bytes: usize,
    pub rows: Vec<BenchRow>,
}

/// Wall time of one hook, conversion and checks included.
#[derive(Debug, Clone, Serialize)]
pub struct BenchRow {
    pub hook: Hook,
    /// Candidates of `route`, instances of `tick`, outcomes of `observe`; other hooks do not depend on it.
    pub candidates: usize,
    pub calls: u32,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Times every hook the component exports, under the limits of service. A call that fails ends it.
pub fn bench(path: &Path, settings: &Settings, candidates: &[usize]) -> Result<Bench, ToolError> {
    let opened = open(path, settings)?;
    let version = opened.compile()?;
    let (limits, bounds) = (&opened.config.limits, &opened.config.bounds);
    gate::pass(&version, limits, bounds, sample::context(0).now_ms)?;
    let mut guest = version.trial(sample::context(0).now_ms)?;
    let check = Check { limits, bounds };
    let mut rows = Vec::new();
    for &size in candidates {
        for (hook, kind) in timed(&version) {
            rows.push(time(&mut guest, &check, hook, kind, size)?);
        }
    }
    let deadline_us = limits.call().as_secs_f64() * 1e6;
    Ok(Bench { version: opened.id, deadline_us, memory_bytes: guest.memory(), rows })
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

fn time(
    guest: &mut Guest,
    check: &Check<'_>,
    hook: Hook,
    kind: usize,
    size: usize,
) -> Result<BenchRow, ToolError> {
    let mut took: Vec<Duration> = Vec::with_capacity(CALLS as usize);
    for n in 0..WARM_UP + CALLS {
        let asked = sample::ask(n.into(), size, sample::questions(n, size).swap_remove(kind));
        let started = Instant::now();
        let answer = gate::put_hook(guest, check, hook, &asked);
        let elapsed = started.elapsed();
        answer.map_err(|error| ToolError::Call {
            hook: hook.as_str(),
            reason: error.reason.as_str(),
            candidates: size,
            message: error.message,
        })?;
        if n >= WARM_UP {
            took.push(elapsed);
        }
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e6;
    Ok(BenchRow { hook, candidates: size, calls: CALLS, p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) })
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}, microseconds, {CALLS} calls each", self.version.name, self.version.digest)?;
        writeln!(f, "{:<12} {:>10} {:>9} {:>9} {:>9}", "hook", "candidates", "p50", "p99", "max")?;
        for row in &self.rows {
            let BenchRow { hook, candidates, p50_us, p99_us, max_us, .. } = row;
            writeln!(f, "{:<12} {candidates:>10} {p50_us:>9.1} {p99_us:>9.1} {max_us:>9.1}", hook.as_str())?;
        }
        write!(f, "deadline {} us, memory {} KiB", self.deadline_us, self.memory_bytes.div_ceil(1024))
    }
}
