//! The end: what was measured, in a page. Every number comes from the clients' clocks, the router's own metrics or the
//! instances' own counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::audit::Audit;
use super::board::{Board, Entry};
use super::line::{Line, Style};
use super::scrape::Scrape;
use super::watch::{self, Card};

#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) board: &'a Board,
    pub(super) audit: &'a Audit,
    pub(super) metrics: &'a Scrape,
    pub(super) cards: &'a BTreeMap<u32, Card>,
    /// Models brought into the memory of each card, as the emulated cards count.
    pub(super) loads: &'a [(u32, u64)],
    /// From the first prompt to the last end.
    pub(super) took: Duration,
}

const PROBLEMS: usize = 10;

impl Summary<'_> {
    pub(super) fn lines(&self, width: usize) -> Vec<Line> {
        let mut lines = vec![Line::new(), Line::new().add(Style::Dim, "─".repeat(width))];
        lines.extend(self.jobs());
        lines.extend(self.times());
        lines.extend(self.machines());
        lines.push(Line::new());
        lines.extend(self.clients());
        lines.push(Line::new());
        lines.extend(self.decisions());
        lines.push(Line::new());
        lines.extend(self.verdict());
        lines.into_iter().map(|line| line.fit(width)).collect()
    }

    fn jobs(&self) -> Vec<Line> {
        let counts = self.board.counts();
        let per_minute = counts.done as f64 * 60.0 / self.took.as_secs_f64().max(0.001);
        vec![
            row("prompts").plain(format!(
                "{} accepted, {} finished, {} failed, {} lost; {} right images",
                counts.accepted, counts.done, counts.failed, self.audit.lost, self.audit.images
            )),
            row("throughput")
                .plain(format!("{per_minute:.0} jobs/min over {:.1} s", self.took.as_secs_f64())),
        ]
    }

    fn times(&self) -> Vec<Line> {
        let entries = self.board.entries();
        let response: Vec<_> = entries.iter().filter_map(Entry::response).collect();
        let wait: Vec<_> = entries.iter().filter_map(Entry::wait).collect();
        vec![
            row("response time").plain(format!("{}  (200 to last event, at the clients)", both(&response))),
            row("queue wait").plain(format!("{}  (200 to execution_start)", both(&wait))),
        ]
    }

    fn machines(&self) -> Vec<Line> {
        let loads: u64 = self.loads.iter().map(|(_, loads)| loads).sum();
        let per_job = loads as f64 / self.board.counts().done.max(1) as f64;
        let noticed = self.metrics.sum("comfy_router_model_loads_total");
        let mut lines = vec![row("model loads").plain(format!(
            "{loads} onto the cards, {per_job:.2} per job; the router saw {noticed:.0} jobs load"
        ))];
        for (index, card) in self.cards {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            let loads = self.loads.iter().find(|(card, _)| card == index).map_or(0, |(_, loads)| *loads);
            lines.push(row(&format!("GPU {index}")).plain(format!(
                "{:.0}% busy, VRAM peak {:.1} of {:.1} GiB, {:.0} C at most, {loads} loads",
                card.mean_utilization(),
                gib(card.peak_bytes),
                gib(card.total_bytes),
                card.peak_c
            )));
        }
        let each: Vec<String> =
            self.audit.executions.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let total: usize = self.audit.executions.values().sum();
        let attempts = self.audit.attempts;
        lines.push(
            row("executions")
                .plain(format!("{total} counted by the instances, {attempts} attempts in the ledger")),
        );
        lines.push(row("").plain(each.join(", ")));
        lines
    }

    fn clients(&self) -> Vec<Line> {
        let mut clients: Vec<&'static str> = Vec::new();
        for entry in self.board.entries() {
            if !clients.contains(&entry.client) {
                clients.push(entry.client);
            }
        }
        let mut lines =
            vec![header("client").add(Style::Dim, "prompts   response p50    p95     wait p50    p95")];
        for client in clients {
            let of = |measure: fn(&Entry) -> Option<Duration>| -> Vec<Duration> {
                self.board
                    .entries()
                    .iter()
                    .filter(|entry| entry.client == client)
                    .filter_map(measure)
                    .collect()
            };
            let (response, wait) = (of(Entry::response), of(Entry::wait));
            lines.push(row(client).plain(format!(
                "{:>7} {:>14} {:>6} {:>12} {:>6}",
                response.len(),
                seconds(percentile(&response, 50)),
                seconds(percentile(&response, 95)),
                seconds(percentile(&wait, 50)),
                seconds(percentile(&wait, 95)),
            )));
        }
        lines
    }

    /// One row for each hook, one column for each policy version that answered it.
    fn decisions(&self) -> Vec<Line> {
        let counted = self.metrics.by("comfy_router_decisions_total", ["hook", "policy", "outcome"]);
        let mut hooks: BTreeMap<&str, Answers> = BTreeMap::new();
        for ([hook, version, outcome], count) in &counted {
            let answers = hooks.entry(hook).or_default();
            match outcome.as_str() {
                "answered" => *answers.by_version.entry(version).or_default() += count,
                "not_exported" => answers.built_in += count,
                _ => answers.fallbacks += count,
            }
        }
        let versions: BTreeSet<&str> =
            hooks.values().flat_map(|answers| answers.by_version.keys().copied()).collect();
        let mut head = header("decisions");
        for version in &versions {
            head = head.add(Style::Dim, format!("{:>22}", watch::short(version)));
        }
        let mut lines = vec![head.add(Style::Dim, format!("{:>10}{:>11}", "built-in", "fallbacks"))];
        lines.extend(hooks.iter().map(|(hook, answers)| answers.line(hook, &versions)));
        lines.push(self.decision_time());
        lines.extend(self.fallbacks());
        lines
    }

    fn decision_time(&self) -> Line {
        let sum = |name: &str| self.metrics.sum(&format!("comfy_router_decision_seconds_{name}"));
        let mean_us = sum("sum") / sum("count").max(1.0) * 1e6;
        row("").add(
            Style::Dim,
            format!("{mean_us:.0} us each on average; built-in: hooks the policy leaves to it"),
        )
    }

    /// Why the built-in stood in for a policy that should have answered.
    fn fallbacks(&self) -> Option<Line> {
        let reasons = self.metrics.by("comfy_router_policy_fallbacks_total", ["reason"]);
        let told: Vec<String> = reasons.iter().map(|([reason], count)| format!("{reason} {count}")).collect();
        (!told.is_empty())
            .then(|| row("").add(Style::Warn, format!("fallbacks by reason: {}", told.join(", "))))
    }

    fn verdict(&self) -> Vec<Line> {
        let problems = &self.audit.problems;
        if problems.is_empty() {
            let text = "nothing lost: every prompt ran exactly once, and its own image came back";
            return vec![Line::new().add(Style::Good, text)];
        }
        let mut lines = vec![Line::new().add(Style::Bad, format!("{} things went wrong:", problems.len()))];
        lines.extend(problems.iter().take(PROBLEMS).map(|problem| Line::new().plain(format!("  {problem}"))));
        if problems.len() > PROBLEMS {
            lines.push(Line::new().plain(format!("  and {} more", problems.len() - PROBLEMS)));
        }
        lines
    }
}

/// Who answered one hook, and how often.
#[derive(Debug, Default)]
struct Answers<'a> {
    by_version: BTreeMap<&'a str, f64>,
    /// The policy does not export the hook.
    built_in: f64,
    /// It does, and failed to answer.
    fallbacks: f64,
}

impl Answers<'_> {
    fn line(&self, hook: &str, versions: &BTreeSet<&str>) -> Line {
        let counts = versions.iter().map(|version| self.by_version.get(version).copied().unwrap_or_default());
        let line = counts.fold(row(hook), |line, count| line.plain(format!("{count:>22}")));
        let style = if self.fallbacks > 0.0 { Style::Warn } else { Style::Plain };
        line.plain(format!("{:>10}", self.built_in)).add(style, format!("{:>11}", self.fallbacks))
    }
}

fn row(name: &str) -> Line {
    Line::new().cell(Style::Bold, name, 14)
}

fn header(name: &str) -> Line {
    Line::new().cell(Style::Dim, name, 14)
}

fn both(times: &[Duration]) -> String {
    format!("p50 {:>5}  p95 {:>5}", seconds(percentile(times, 50)), seconds(percentile(times, 95)))
}

fn seconds(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs_f64()) {
        Some(seconds) if seconds < 0.095 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
        None => "-".to_owned(),
    }
}

/// Nearest rank: a value that was measured.
fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::super::line::Look;
    use super::super::workload;
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let times: Vec<Duration> = (1..=20).rev().map(Duration::from_secs).collect();
        let at = |percent| percentile(&times, percent).expect("there are some").as_secs();
        assert_eq!([at(0), at(50), at(95), at(100)], [1, 10, 19, 20]);
        assert_eq!(percentile(&[], 50), None);
    }

    fn text(problems: Vec<String>, width: usize) -> Vec<String> {
        let board = Board::new(&workload::plan(20, 1));
        let audit = Audit { executions: [("gpu0-a", 20)].into(), attempts: 20, problems, ..Audit::default() };
        let metrics = Scrape::parse(
            "comfy_router_decisions_total{hook=\"route\",policy=\"mine@x123456789ab\",outcome=\"answered\"} 12\n\
             comfy_router_decisions_total{hook=\"route\",policy=\"other@y123456789ab\",outcome=\"answered\"} 8\n\
             comfy_router_decisions_total{hook=\"route\",policy=\"other@y123456789ab\",outcome=\"deadline\"} 2\n\
             comfy_router_decisions_total{hook=\"tick\",policy=\"mine@x123456789ab\",outcome=\"not_exported\"} 4\n\
             comfy_router_policy_fallbacks_total{hook=\"route\",reason=\"deadline\"} 2\n\
             comfy_router_decision_seconds_sum{hook=\"route\"} 0.001\n\
             comfy_router_decision_seconds_count{hook=\"route\"} 20\n\
             comfy_router_model_loads_total{instance=\"gpu0-a\"} 3\n",
        );
        let summary = Summary {
            board: &board,
            audit: &audit,
            metrics: &metrics,
            cards: &[(0, Card::default())].into(),
            loads: &[(0, 5)],
            took: Duration::from_secs(30),
        };
        let lines = summary.lines(width);
        assert!(lines.iter().all(|line| line.width() <= width));
        lines.iter().map(|line| line.paint(Look { colour: false, unicode: true })).collect()
    }

    #[test]
    fn decisions_are_counted_by_version_and_hook() {
        let lines = text(vec![], 80);
        let row = |hook: &str| {
            let line = lines.iter().find(|line| line.starts_with(hook)).expect("a row");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("decisions"), ["decisions", "mine@x12345", "other@y12345", "built-in", "fallbacks"]);
        assert_eq!(row("route"), ["route", "12", "8", "0", "2"]);
        assert_eq!(row("tick"), ["tick", "0", "0", "4", "0"]);
        let text = lines.join("\n");
        assert!(text.contains("50 us each on average"), "{text}");
        assert!(text.contains("fallbacks by reason: deadline 2"), "{text}");
        assert!(text.contains("5 onto the cards") && text.contains("saw 3 jobs load"), "{text}");
        assert!(text.contains("nothing lost"), "{text}");
    }

    #[test]
    fn problems_are_named() {
        let text = text((0..12).map(|i| format!("problem {i}")).collect(), 60).join("\n");
        assert!(text.contains("12 things went wrong") && text.contains("and 2 more"), "{text}");
        assert!(!text.contains("nothing lost"));
    }
}
