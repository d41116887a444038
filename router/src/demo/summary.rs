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
                "{} accepted, {} finished, {} failed, {} lost; {} images fetched and right",
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
                "{:.0}% busy on average, VRAM peak {:.1} of {:.1} GiB, {:.0} C at most, {loads} loads",
                card.mean_utilization(),
                gib(card.peak_bytes),
                gib(card.total_bytes),
                card.peak_c
            )));
        }
        let each: Vec<String> =
            self.audit.executions.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let total: usize = self.audit.executions.values().sum();
        lines.push(row("executions").plain(format!(
            "{total} counted by the instances ({}), {} attempts in the ledger",
            each.join(", "),
            self.audit.attempts
        )));
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

    /// One row for each hook, one column for each policy version that answered.
    fn decisions(&self) -> Vec<Line> {
        let counted = self.metrics.by_two("comfy_router_decisions_total", "hook", "policy");
        let fallbacks = self.metrics.by("comfy_router_policy_fallbacks_total", "hook");
        let hooks: BTreeSet<&str> = counted.keys().map(|(hook, _)| hook.as_str()).collect();
        let versions: BTreeSet<&str> = counted.keys().map(|(_, version)| version.as_str()).collect();
        let mut head = header("decisions");
        for version in &versions {
            head = head.add(Style::Dim, format!("{:>22} ", watch::short(version)));
        }
        let mut lines = vec![head.add(Style::Dim, format!("{:>10}", "fallbacks"))];
        for hook in hooks {
            let mut line = row(hook);
            for version in &versions {
                let count =
                    counted.get(&(hook.to_owned(), (*version).to_owned())).copied().unwrap_or_default();
                line = line.plain(format!("{count:>22} "));
            }
            let fell = fallbacks.get(hook).copied().unwrap_or_default();
            lines.push(line.add(if fell > 0.0 { Style::Warn } else { Style::Plain }, format!("{fell:>10}")));
        }
        lines
    }

    fn verdict(&self) -> Vec<Line> {
        let problems = &self.audit.problems;
        if problems.is_empty() {
            let text = "nothing lost: every accepted prompt ran exactly once, and its own image came back";
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
            "comfy_router_decisions_total{hook=\"route\",policy=\"model-affinity@0123456789ab\"} 12\n\
             comfy_router_decisions_total{hook=\"route\",policy=\"fair-share@ba9876543210\"} 8\n\
             comfy_router_policy_fallbacks_total{hook=\"route\",reason=\"deadline\"} 2\n\
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
        let route = lines.iter().find(|line| line.starts_with("route")).expect("a row");
        assert_eq!(route.split_whitespace().collect::<Vec<_>>(), ["route", "8", "12", "2"]);
        let text = lines.join("\n");
        assert!(text.contains("fair-share@ba9876"), "{text}");
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
