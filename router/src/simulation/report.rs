//! A replay with its simulations: as a table, as JSON, and (in `page`) as a page.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::figures::{Curve, Figures, Spread};
use super::scene::Scene;
use super::trace::{Gather, Trace};
use super::{page, simulate};
use crate::model::decision::PolicyVersion;
use crate::policy::tools::{Desk, Player, Replayed, ToolError, replay};

/// One way the day went.
#[derive(Debug, Clone, Serialize)]
pub struct Day {
    /// None: in service, as far as the recording has it.
    pub policy: Option<PolicyVersion>,
    pub figures: Figures,
    /// Decisions of the simulation that failed and were the built-in's.
    pub failures: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub replayed: Replayed,
    pub from_ms: u64,
    pub to_ms: u64,
    pub instances: usize,
    /// As it was, then once for each policy.
    pub days: Vec<Day>,
}

impl Report {
    /// Decides the logs again, and simulates their day under each policy.
    pub fn of(logs: &[PathBuf], first: &Player<'_>, second: Option<&Player<'_>>) -> Result<Self, ToolError> {
        Self::within(Scene::default(), logs, first, second)
    }

    /// The same, told of the router that made the recording.
    pub fn within(
        scene: Scene,
        logs: &[PathBuf],
        first: &Player<'_>,
        second: Option<&Player<'_>>,
    ) -> Result<Self, ToolError> {
        let mut gather = Gather::default();
        let replayed = replay(logs, first, second, |recorded| gather.note(recorded))?;
        let trace = Trace { scene, ..gather.trace() };
        let mut days = vec![in_service(&trace)];
        let simulated = std::thread::scope(|scope| {
            let second = second.map(|player| scope.spawn(|| simulated(&trace, player)));
            let first = simulated(&trace, first);
            let joined =
                second.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            [Some(first), joined]
        });
        for day in simulated.into_iter().flatten() {
            days.push(day?);
        }
        let (from_ms, to_ms, instances) = (trace.from_ms, trace.to_ms, trace.stations.len());
        Ok(Self { replayed, from_ms, to_ms, instances, days })
    }

    /// A page that needs nothing else.
    pub fn page(&self) -> String {
        page::page(self)
    }
}

fn in_service(trace: &Trace) -> Day {
    let mut queue = Curve::new(trace.from_ms, trace.to_ms);
    for (at, waiting) in &trace.queue {
        queue.set(*at, f64::from(*waiting));
    }
    Day {
        policy: None,
        figures: Figures::of(&trace.served, queue.means(), &trace.scene.weights),
        failures: 0,
    }
}

fn simulated(trace: &Trace, player: &Player<'_>) -> Result<Day, ToolError> {
    let mut desk = Desk::open(player)?;
    // Nothing is recorded, and nothing else can fail.
    let figures = simulate(trace, &mut desk)
        .map_err(|error| ToolError::File { path: player.component.to_owned(), message: error.to_string() })?;
    Ok(Day { policy: Some(desk.version().clone()), figures, failures: desk.failures })
}

impl Day {
    pub(super) fn name(&self) -> String {
        let named = |version: &PolicyVersion| {
            // Two versions of one policy are told apart by this much.
            format!("{} {}", version.name, version.digest.get(..6).unwrap_or_default())
        };
        self.policy.as_ref().map_or_else(|| "in service".to_owned(), named)
    }
}

/// The rows of figures that the table and the page have in common: what it is, and its value.
pub(super) fn rows(figures: &Figures) -> Vec<(&'static str, String)> {
    let Spread { mean, p50, p95, p99, max } = figures.wait_s;
    let share = |n: u64| format!("{n}");
    vec![
        ("jobs", share(figures.jobs)),
        ("done", share(figures.done)),
        ("failed", share(figures.failed)),
        ("missed deadlines", share(figures.missed_deadlines)),
        ("refused, stopped, open", format!("{}, {}, {}", figures.refused, figures.stopped, figures.open)),
        ("wait, mean", duration(mean)),
        ("wait, p50", duration(p50)),
        ("wait, p95", duration(p95)),
        ("wait, p99", duration(p99)),
        ("wait, longest", duration(max)),
        ("response, mean", duration(figures.response_s.mean)),
        ("response, p95", duration(figures.response_s.p95)),
        ("model loads", share(figures.model_loads)),
        ("time spent loading", duration(figures.model_load_s)),
        ("fairness (Jain)", format!("{:.3}", figures.fairness)),
        (
            "fairness by weight",
            figures.fairness_by_weight.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}")),
        ),
    ]
}

fn duration(s: f64) -> String {
    match s {
        s if s < 0.0005 => "0 s".to_owned(),
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 600.0 => format!("{s:.1} s"),
        s if s < 36_000.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.replayed.to_string().trim_end())?;
        let hours = (self.to_ms - self.from_ms) as f64 / 3_600_000.0;
        writeln!(f, "\nthe same arrivals on {} instances, {hours:.1} h", self.instances)?;
        let names: Vec<String> = self.days.iter().map(Day::name).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(12);
        write!(f, "{:<24}", "")?;
        names.iter().try_for_each(|name| write!(f, " {name:>width$}"))?;
        writeln!(f)?;
        let columns: Vec<_> = self.days.iter().map(|day| rows(&day.figures)).collect();
        for row in 0..columns.first().map_or(0, Vec::len) {
            write!(f, "{:<24}", columns[0][row].0)?;
            columns.iter().try_for_each(|column| write!(f, " {:>width$}", column[row].1))?;
            writeln!(f)?;
        }
        let failures: u64 = self.days.iter().map(|day| day.failures).sum();
        if failures > 0 {
            writeln!(f, "{failures} decisions of the simulation failed and were the built-in's")?;
        }
        Ok(())
    }
}
