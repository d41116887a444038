//! The live picture: what it holds, and its lines for a given width and height. Pure.

use std::time::Duration;

use super::board::Counts;
use super::client::Doing;
use super::line::{Line, Style, bar};
use super::terminal::Size;

#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    pub(super) address: String,
    pub(super) elapsed: Duration,
    pub(super) policy: String,
    pub(super) counts: Counts,
    pub(super) instances: Vec<InstanceRow>,
    pub(super) cards: Vec<CardRow>,
    /// Newest first.
    pub(super) decisions: Vec<DecisionRow>,
    /// Oldest first.
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct InstanceRow {
    pub(super) name: String,
    pub(super) version: String,
    /// Index of its card.
    pub(super) card: Option<u32>,
    pub(super) down: Option<String>,
    pub(super) free_slots: u32,
    pub(super) runs: Option<Runs>,
    /// What the router believes to be loaded.
    pub(super) resident: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Runs {
    /// Client and models.
    pub(super) label: String,
    /// None: its client has not heard of it yet.
    pub(super) doing: Option<Doing>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct CardRow {
    pub(super) index: u32,
    pub(super) utilization: Option<f32>,
    pub(super) used_bytes: Option<u64>,
    pub(super) total_bytes: Option<u64>,
    pub(super) temperature_c: Option<f32>,
    pub(super) power_mw: Option<u32>,
    pub(super) power_limit_mw: Option<u32>,
    /// Of the reading.
    pub(super) age: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct DecisionRow {
    pub(super) age: Duration,
    pub(super) hook: &'static str,
    pub(super) job: String,
    pub(super) said: String,
    pub(super) reason: String,
    pub(super) policy: String,
    pub(super) took_us: u32,
    /// Why the built-in answered.
    pub(super) fallback: Option<&'static str>,
}

/// Something worth a line of its own.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) style: Style,
    pub(super) text: String,
}

const EVENTS: usize = 3;
/// Rows of every section but the decisions: they take what is left.
const FIXED: usize = 16;

impl Picture {
    pub(super) fn lines(&self, size: Size) -> Vec<Line> {
        let width = size.width;
        let mut lines = vec![self.title(width), self.progress(width), Line::new()];
        lines.extend(self.instance_lines(width));
        lines.push(Line::new());
        lines.push(heading("GPUS"));
        lines.extend(self.cards.iter().map(CardRow::line));
        lines.push(Line::new());
        lines.push(heading("LAST DECISIONS"));
        let room = size.height.saturating_sub(FIXED + self.instances.len()).clamp(1, 10);
        // Always as many rows, so that what stands below does not jump.
        lines.extend(
            (0..room).map(|row| self.decisions.get(row).map_or_else(Line::new, |row| row.line(width))),
        );
        lines.push(Line::new());
        let latest = self.events.iter().rev().take(EVENTS).rev();
        lines.extend(latest.map(|event| {
            Line::new().add(Style::Dim, format!("{} ", clock(event.at))).add(event.style, event.text.as_str())
        }));
        lines.into_iter().map(|line| line.fit(width)).collect()
    }

    fn title(&self, width: usize) -> Line {
        Line::new()
            .add(Style::Bold, "comfy-router demo")
            .add(Style::Dim, format!("  {}", self.address))
            .right(Line::new().plain("policy ").add(Style::Accent, self.policy.as_str()), width)
    }

    fn progress(&self, width: usize) -> Line {
        let counts = &self.counts;
        let over = counts.done + counts.failed;
        let ratio = over as f64 / counts.planned.max(1) as f64;
        let failed = if counts.failed > 0 { Style::Bad } else { Style::Dim };
        let line = Line::new()
            .plain(format!("{}  jobs: ", clock(self.elapsed)))
            .add(Style::Warn, format!("{} queued", counts.queued))
            .plain(", ")
            .add(Style::Accent, format!("{} running", counts.running))
            .plain(", ")
            .add(Style::Good, format!("{} done", counts.done))
            .plain(", ")
            .add(failed, format!("{} failed", counts.failed));
        let room = width.saturating_sub(line.width() + 16).min(30);
        line.right(Line::new().plain(format!("{} {over:>3} of {}", bar(ratio, room), counts.planned)), width)
    }

    fn instance_lines(&self, width: usize) -> Vec<Line> {
        // Below this the bar and the list of models have to share the line with less.
        let wide = width >= 96;
        let (label, doing) = if wide { (22, 27) } else { (19, 16) };
        let mut lines = vec![
            Line::new()
                .cell(Style::Dim, "INSTANCE", 15)
                .cell(Style::Dim, "GPU", 3)
                .cell(Style::Dim, "RUNS", label)
                .cell(Style::Dim, "", doing)
                .add(Style::Dim, "BELIEVED LOADED"),
        ];
        for row in &self.instances {
            let line = Line::new().cell(Style::Bold, &row.name, 8).cell(Style::Dim, &row.version, 6).cell(
                Style::Plain,
                &row.card.map_or("?".to_owned(), |card| card.to_string()),
                3,
            );
            let line = match (&row.down, &row.runs) {
                (Some(reason), _) => line.add(Style::Bad, format!("down: {reason}")),
                (None, Some(runs)) => runs.cells(line, label, doing),
                (None, None) => {
                    let slots = format!("{} slot free", row.free_slots);
                    line.cell(Style::Dim, "idle", label).cell(Style::Dim, &slots, doing)
                }
            };
            lines.push(line.add(Style::Dim, row.resident.join(" ")));
        }
        lines
    }
}

impl Runs {
    fn cells(&self, line: Line, label: usize, width: usize) -> Line {
        let line = line.cell(Style::Accent, &self.label, label);
        match self.doing {
            Some(Doing::Sampling { percent }) => {
                let room = width - 5;
                line.cell(Style::Good, &bar(f64::from(percent) / 100.0, room), room).cell(
                    Style::Plain,
                    &format!("{percent:>3}%"),
                    4,
                )
            }
            Some(doing @ Doing::Loading) => line.cell(Style::Warn, doing.word(), width),
            Some(doing) => line.cell(Style::Plain, doing.word(), width),
            None => line.cell(Style::Dim, "sent", width),
        }
    }
}

impl CardRow {
    fn line(&self) -> Line {
        let percent = self.utilization.unwrap_or_default();
        let gib = |bytes: Option<u64>| {
            bytes.map_or("?".to_owned(), |b| format!("{:.1}", b as f64 / (1_u64 << 30) as f64))
        };
        let whole = |value: Option<f32>| value.map_or("?".to_owned(), |value| format!("{value:.0}"));
        let watts = |milli: Option<u32>| milli.map_or("?".to_owned(), |mw| (mw / 1000).to_string());
        let hot = if self.temperature_c.is_some_and(|c| c > 84.0) { Style::Bad } else { Style::Plain };
        Line::new()
            .cell(Style::Bold, &format!("GPU {}", self.index), 5)
            .add(Style::Good, bar(f64::from(percent) / 100.0, 16))
            .plain(format!(" {:>3}%", whole(self.utilization)))
            .plain(format!("  {:>4} of {} GiB", gib(self.used_bytes), gib(self.total_bytes)))
            .add(hot, format!("  {:>2} C", whole(self.temperature_c)))
            .plain(format!("  {:>3}/{} W", watts(self.power_mw), watts(self.power_limit_mw)))
            .add(
                Style::Dim,
                self.age.map_or_else(String::new, |age| format!("  {:.1} s old", age.as_secs_f64())),
            )
    }
}

impl DecisionRow {
    fn line(&self, width: usize) -> Line {
        let wide = width >= 96;
        let (job, said) = if wide { (20, 15) } else { (18, 15) };
        let line = Line::new()
            .cell(Style::Dim, &format!("{:>4.1}s", self.age.as_secs_f64()), 5)
            .cell(Style::Plain, self.hook, 5)
            .cell(Style::Accent, &self.job, job)
            .cell(Style::Bold, &self.said, said);
        let line = match self.fallback {
            Some(why) => line.add(Style::Bad, format!("built-in ({why}) ")),
            None => line,
        };
        let policy = format!("{} {:>4} us", self.policy, self.took_us);
        let room = width.saturating_sub(line.width() + policy.chars().count() + 1);
        let (reason, policy) = match wide {
            true => (super::line::cut(&self.reason, room), policy),
            false => (self.reason.clone(), String::new()),
        };
        line.plain(reason).right(Line::new().add(Style::Dim, policy), width)
    }
}

fn heading(text: &str) -> Line {
    Line::new().add(Style::Dim, text)
}

/// `0:07`.
pub(super) fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::super::line::Look;
    use super::*;

    fn picture() -> Picture {
        let runs = |label: &str, doing| Some(Runs { label: label.into(), doing });
        let row = |name: &str, runs| InstanceRow {
            name: name.into(),
            version: "0.3.64".into(),
            card: Some(0),
            free_slots: 1,
            runs,
            resident: vec!["sdxl".into(), "dreamlike".into(), "detail".into()],
            ..InstanceRow::default()
        };
        let card = CardRow {
            utilization: Some(98.0),
            used_bytes: Some(20 << 30),
            total_bytes: Some(24 << 30),
            temperature_c: Some(79.0),
            power_mw: Some(401_000),
            power_limit_mw: Some(450_000),
            age: Some(Duration::from_millis(240)),
            ..CardRow::default()
        };
        let decision = DecisionRow {
            age: Duration::from_millis(1_340),
            hook: "route",
            job: "catalog juggernaut+detail".into(),
            said: "gpu0-a > gpu1-a > gpu1-b".into(),
            reason: "done 12 s earlier there than by loading the models again".into(),
            policy: "model-affinity@0123ab".into(),
            took_us: 41,
            fallback: Some("deadline"),
        };
        let event = Event { at: Duration::from_secs(61), style: Style::Warn, text: "x".repeat(200) };
        Picture {
            address: "http://127.0.0.1:7188".into(),
            elapsed: Duration::from_secs(75),
            policy: "model-affinity@0123ab".into(),
            counts: Counts { planned: 120, accepted: 80, queued: 12, running: 4, done: 64, failed: 0 },
            instances: vec![
                row("gpu0-a", runs("catalog juggernaut+detail", Some(Doing::Sampling { percent: 62 }))),
                row("gpu0-b", runs("ann sdxl", Some(Doing::Loading))),
                row("gpu1-a", None),
                InstanceRow { down: Some("connection refused ".repeat(9)), ..row("gpu1-b", None) },
            ],
            cards: vec![card.clone(), CardRow { index: 1, utilization: None, used_bytes: None, ..card }],
            decisions: vec![decision; 20],
            events: vec![event; 5],
        }
    }

    #[test]
    fn every_line_fits_and_the_picture_fits_the_height() {
        for (width, height) in [(100, 35), (80, 24), (160, 50), (40, 24), (10, 5), (1, 1)] {
            let lines = picture().lines(Size { width, height });
            let widest = lines.iter().map(Line::width).max().expect("lines");
            assert!(widest <= width, "{widest} of {width}");
            if height >= 24 {
                assert!(lines.len() < height, "{} lines of {height}", lines.len());
            }
        }
    }

    #[test]
    fn the_picture_tells_who_runs_where_and_why() {
        let look = Look { colour: false, unicode: true };
        let lines: Vec<String> =
            picture().lines(Size { width: 100, height: 35 }).iter().map(|line| line.paint(look)).collect();
        let text = lines.join("\n");
        for wanted in [
            "model-affinity@0123ab",
            "12 queued, 4 running, 64 done, 0 failed",
            " 64 of 120",
            " 62%",
            "load model",
            "1 slot free",
            "down: connection refused",
            " 98%  20.0 of 24.0 GiB  79 C  401/450 W  0.2 s old",
            "gpu0-a > gpu1-…",
            "built-in (deadline)",
            "1:01 xxx",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }

    #[test]
    fn an_empty_picture_has_lines_too() {
        assert!(Picture::default().lines(Size { width: 80, height: 24 }).len() > 5);
    }
}
