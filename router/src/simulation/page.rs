//! The report as one HTML page that needs nothing else: no script, no font, no address.

mod plot;

use std::fmt::Write as _;

use super::figures::{Figures, POINTS};
use super::report::{Day, Report, rows};
use crate::policy::tools::{Difference, HookTally, SHOWN, shown};
use plot::{Axis, Group, Line, bars, escaped, lines};

const STYLE: &str = include_str!("page/style.css");
/// Tenants that a plot has room for.
const TENANTS: usize = 8;

pub(super) fn page(report: &Report) -> String {
    let days = &report.days;
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Policy replay</title><style>{STYLE}</style></head><body>\n<h1>Policy replay</h1>\n"
    );
    let hours = (report.to_ms.saturating_sub(report.from_ms)) as f64 / 3_600_000.0;
    let _ = writeln!(
        html,
        "<p>{} jobs in {hours:.1} hours on {} instances. <b>In service</b> is what the recording says; the others are \
         simulations of the same arrivals.</p>",
        days.iter().map(|day| day.figures.jobs).max().unwrap_or(0),
        report.instances
    );
    legend(&mut html, days);
    html.push_str("<div class=\"grid2\">\n");
    section(&mut html, "Waits", &waits(days));
    section(&mut html, "Waiting jobs over the day", &queue(report));
    section(&mut html, "Wait by class", &by_class(days));
    section(&mut html, "Model loads", &loads(days));
    section(&mut html, "Wait by tenant", &by_tenant(days));
    section(&mut html, "Share of run time by tenant", &shares(days));
    html.push_str("</div>\n");
    section(&mut html, "Figures", &figures(days));
    section(&mut html, "Decisions", &decisions(report));
    html.push_str("</body></html>\n");
    html
}

fn section(html: &mut String, title: &str, body: &str) {
    let _ = writeln!(html, "<section><h2>{title}</h2>{body}</section>");
}

fn legend(html: &mut String, days: &[Day]) {
    html.push_str("<p class=\"legend\">");
    for (colour, day) in days.iter().enumerate() {
        let _ = write!(html, "<span><i class=\"c{colour}\"></i>{}</span>", escaped(&day.name()));
    }
    html.push_str("</p>\n");
}

fn each<T>(days: &[Day], of: impl Fn(&Figures) -> T) -> Vec<T> {
    days.iter().map(|day| of(&day.figures)).collect()
}

fn highest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, f64::max)
}

/// The share of jobs that waited no longer.
fn waits(days: &[Day]) -> String {
    let longest = highest(each(days, |figures| figures.wait_s.max));
    let across = Axis::powers("wait in seconds", 0.1, longest.max(1.0));
    let percent = (0..=4).map(|n| (f64::from(n) * 25.0, format!("{}", n * 25))).collect();
    let up = Axis {
        label: "% of jobs that waited no longer".into(),
        low: 0.0,
        high: 100.0,
        log: false,
        marks: percent,
    };
    let line = |(colour, day): (usize, &Day)| {
        let steps = day.figures.waits_s.len().saturating_sub(1).max(1) as f64;
        let points = day.figures.waits_s.iter().enumerate();
        Line { colour, points: points.map(|(n, wait)| (*wait, n as f64 * 100.0 / steps)).collect() }
    };
    let all: Vec<Line> = days.iter().enumerate().map(line).collect();
    lines("share of jobs by how long they waited", &across, &up, &all)
}

fn queue(report: &Report) -> String {
    let up = Axis::from_zero(
        "waiting jobs",
        highest(report.days.iter().flat_map(|day| day.figures.queue.iter().copied())),
    );
    let line = |(colour, day): (usize, &Day)| {
        let points = day.figures.queue.iter().enumerate();
        Line { colour, points: points.map(|(n, waiting)| (n as f64 + 0.5, *waiting)).collect() }
    };
    let all: Vec<Line> = report.days.iter().enumerate().map(line).collect();
    lines("waiting jobs over time", &clock(report.from_ms, report.to_ms), &up, &all)
}

/// Hours of the day, of which there are not too many.
fn clock(from_ms: u64, to_ms: u64) -> Axis {
    const STEPS_MIN: [u64; 9] = [1, 5, 15, 30, 60, 120, 240, 480, 1_440];
    let span = to_ms.saturating_sub(from_ms).max(1);
    let step =
        STEPS_MIN.into_iter().map(|min| min * 60_000).find(|step| span / step <= 8).unwrap_or(span / 8);
    let part = span as f64 / POINTS as f64;
    let first = from_ms.div_ceil(step) * step;
    let marks = (0..=span / step).map(|n| first + n * step).filter(|at| *at <= to_ms);
    let mark = |at: u64| {
        let minutes = at / 60_000;
        ((at - from_ms) as f64 / part, format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60))
    };
    let label = "time of day, UTC".to_owned();
    Axis { label, low: 0.0, high: POINTS as f64, log: false, marks: marks.map(mark).collect() }
}

fn by_class(days: &[Day]) -> String {
    let classes = each(days, |figures| figures.classes.iter().map(|row| row.class).collect::<Vec<_>>());
    let longest = classes.into_iter().max_by_key(Vec::len).unwrap_or_default();
    let group = |class| {
        let wait = |figures: &Figures| {
            figures.classes.iter().find(|row| row.class == class).map_or(0.0, |row| row.wait_s.p95)
        };
        Group { name: format!("{class:?}").to_lowercase(), values: each(days, wait) }
    };
    grouped("95 % wait at most so many seconds", "class", longest.into_iter().map(group).collect())
}

fn loads(days: &[Day]) -> String {
    let values = each(days, |figures| figures.model_loads as f64);
    grouped("attempts that loaded a model", "", vec![Group { name: "model loads".into(), values }])
}

/// The tenants with the most jobs on any of the days.
fn tenants(days: &[Day]) -> Vec<std::sync::Arc<str>> {
    let mut names = Vec::new();
    for tenant in days.iter().flat_map(|day| day.figures.tenants.iter().take(TENANTS)) {
        if !names.contains(&tenant.tenant) {
            names.push(tenant.tenant.clone());
        }
    }
    names.truncate(TENANTS);
    names
}

fn of_tenants(days: &[Day], of: impl Fn(&super::TenantFigures) -> f64) -> Vec<Group> {
    let group = |name: std::sync::Arc<str>| {
        let value =
            |figures: &Figures| figures.tenants.iter().find(|row| row.tenant == name).map_or(0.0, &of);
        let values = each(days, value);
        Group { name: name.to_string(), values }
    };
    tenants(days).into_iter().map(group).collect()
}

fn by_tenant(days: &[Day]) -> String {
    grouped("mean wait in seconds", "tenant", of_tenants(days, |row| row.wait_s.mean))
}

fn shares(days: &[Day]) -> String {
    grouped("% of all run time", "tenant", of_tenants(days, |row| row.share * 100.0))
}

fn grouped(up: &str, label: &str, groups: Vec<Group>) -> String {
    let axis = Axis::from_zero(up, highest(groups.iter().flat_map(|group| group.values.iter().copied())));
    bars(up, &axis, label, &groups)
}

fn figures(days: &[Day]) -> String {
    let mut table = "<div class=\"wide\"><table><tr><th></th>".to_owned();
    for (colour, day) in days.iter().enumerate() {
        let _ = write!(table, "<th><i class=\"c{colour}\"></i>{}</th>", escaped(&day.name()));
    }
    let columns: Vec<_> = days.iter().map(|day| rows(&day.figures)).collect();
    for row in 0..columns.first().map_or(0, Vec::len) {
        let _ = write!(table, "</tr><tr><td>{}</td>", columns[0][row].0);
        for column in &columns {
            let _ = write!(table, "<td class=\"n\">{}</td>", escaped(&column[row].1));
        }
    }
    table.push_str("</tr></table></div>");
    table.push_str(
        "<p class=\"note\">A deadline is missed when a limit on waiting, running or silence ends a job. Fairness is Jain's index \
         over what part of its time each tenant was served: 1 is all alike.</p>",
    );
    table
}

fn decisions(report: &Report) -> String {
    let replayed = &report.replayed;
    let against = replayed.against.as_ref().map_or("the recording", |version| &version.name);
    let mut html = format!(
        "<p>Each recorded question put again to <b>{}</b>, its answers against those of <b>{}</b>: {} of {} differ.</p>\
         <div class=\"wide\"><table><tr><th>hook</th><th>decisions</th><th>same</th><th>for another reason</th><th>failed</th><th>µs each</th></tr>",
        escaped(&replayed.policy.name),
        escaped(against),
        replayed.different,
        replayed.decisions
    );
    for (hook, HookTally { decisions, same, reworded, failed, took_us }) in &replayed.hooks {
        let each = *took_us as f64 / (*decisions).max(1) as f64;
        let _ = write!(
            html,
            "<tr><td>{hook}</td><td class=\"n\">{decisions}</td><td class=\"n\">{same}</td><td class=\"n\">{reworded}</td><td class=\"n\">{failed}</td>\
             <td class=\"n\">{each:.1}</td></tr>"
        );
    }
    html.push_str("</table></div>");
    if !replayed.differences.is_empty() {
        differences(&mut html, &replayed.differences);
    }
    html
}

fn differences(html: &mut String, all: &[Difference]) {
    html.push_str(
        "<h3>The first differences</h3><div class=\"wide\"><table><tr><th>line</th><th>hook</th><th>one</th><th>other</th></tr>",
    );
    for Difference { line, hook, one, other, .. } in all.iter().take(SHOWN) {
        let other = other.as_ref().map_or_else(|| "not asked".to_owned(), shown);
        let _ = write!(
            html,
            "<tr><td class=\"n\">{line}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            hook.as_str(),
            escaped(&shown(one)),
            escaped(&other)
        );
    }
    html.push_str("</table></div>");
}
