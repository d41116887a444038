//! Plots as inline SVG. Colours come from the page's style sheet, so that they follow its light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Room for labels.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 48.0;

/// A quantity along one side of a plot.
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
    /// Where it is marked, and with what.
    pub(super) marks: Vec<(f64, String)>,
}

/// Points of one way the day went; its colour is that of its place among them.
pub(super) struct Line {
    pub(super) colour: usize,
    pub(super) points: Vec<(f64, f64)>,
}

/// Values of one group of bars, by colour.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
}

impl Axis {
    /// From nothing to round figures above the highest.
    pub(super) fn from_zero(label: &str, highest: f64) -> Self {
        let step = round_step(highest / 4.0);
        let high = (highest / step).ceil().max(1.0) * step;
        let marks = (0..=(high / step).round() as u32).map(|n| f64::from(n) * step);
        let marks = marks.map(|value| (value, figure(value, step))).collect();
        Self { label: label.to_owned(), low: 0.0, high, log: false, marks }
    }

    /// By powers of ten.
    pub(super) fn powers(label: &str, low: f64, high: f64) -> Self {
        let (from, to) = (low.log10().floor() as i32, high.max(low * 10.0).log10().ceil() as i32);
        let mark = |n: i32| {
            let value = 10_f64.powi(n);
            (
                value,
                if n < 0 { format!("{value:.*}", n.unsigned_abs() as usize) } else { format!("{value:.0}") },
            )
        };
        let (low, high) = (10_f64.powi(from), 10_f64.powi(to));
        Self { label: label.to_owned(), low, high, log: true, marks: (from..=to).map(mark).collect() }
    }

    /// Where a value lies, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let (value, low, high) = match self.log {
            true => (value.max(self.low).log10(), self.low.log10(), self.high.log10()),
            false => (value, self.low, self.high),
        };
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 || !least.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(power * 10.0)
}

fn figure(value: f64, step: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1_000.0),
        v if step < 1.0 => format!("{v:.*}", (-step.log10().floor()) as usize),
        v => format!("{v:.0}"),
    }
}

fn x(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)
}

fn y(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)
}

pub(super) fn lines(title: &str, across: &Axis, up: &Axis, lines: &[Line]) -> String {
    let mut svg = open(title, up);
    for (value, text) in &across.marks {
        let at = x(across, *value);
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{at:.1} {top}V{bottom}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 16.0,
            escaped(text)
        );
    }
    below(&mut svg, &across.label);
    for line in lines {
        let mut d = String::new();
        for (n, (px, py)) in line.points.iter().enumerate() {
            let letter = if n == 0 { 'M' } else { 'L' };
            let _ = write!(d, "{letter}{:.1} {:.1}", x(across, *px), y(up, *py));
        }
        let _ = write!(svg, r#"<path class="line c{}" d="{d}"/>"#, line.colour);
    }
    svg + "</svg>"
}

pub(super) fn bars(title: &str, up: &Axis, label: &str, groups: &[Group]) -> String {
    let mut svg = open(title, up);
    let room = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let floor = y(up, 0.0);
    for (n, group) in groups.iter().enumerate() {
        let from = LEFT + room * n as f64;
        let each = (room * 0.7 / group.values.len().max(1) as f64).min(56.0);
        let first = from + (room - each * group.values.len() as f64) / 2.0;
        for (colour, value) in group.values.iter().enumerate() {
            let (left, top) = (first + each * colour as f64, y(up, *value));
            let _ = write!(
                svg,
                r#"<rect class="bar c{colour}" x="{:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"><title>{}: {value:.2}</title></rect>"#,
                left + 1.0,
                each - 2.0,
                (floor - top).max(0.5),
                escaped(&group.name)
            );
        }
        let (middle, under) = (from + room / 2.0, floor + 16.0);
        let _ = write!(
            svg,
            r#"<text x="{middle:.1}" y="{under:.1}" text-anchor="middle">{}</text>"#,
            escaped(&shortened(&group.name, room))
        );
    }
    below(&mut svg, label);
    svg + "</svg>"
}

/// The frame, with what goes up.
fn open(title: &str, up: &Axis) -> String {
    let mut svg =
        format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escaped(title));
    for (value, text) in &up.marks {
        let (at, right) = (y(up, *value), WIDTH - RIGHT);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 6.0,
            at + 4.0,
            escaped(text)
        );
    }
    let middle = TOP + (HEIGHT - TOP - BOTTOM) / 2.0;
    let _ = write!(
        svg,
        r#"<text class="label" transform="translate(14 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        escaped(&up.label)
    );
    svg
}

fn below(svg: &mut String, label: &str) {
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let _ = write!(
        svg,
        r#"<text class="label" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        HEIGHT - 8.0,
        escaped(label)
    );
}

/// As much of a name as has room.
fn shortened(name: &str, room: f64) -> String {
    let most = (room / 7.0).max(3.0) as usize;
    match name.chars().count() > most {
        true => name.chars().take(most - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// Safe between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_figures_above_what_they_show() {
        let axis = Axis::from_zero("jobs", 37.0);
        assert_eq!((axis.high, axis.marks.len()), (40.0, 5));
        assert_eq!(axis.marks[1].1, "10");
        let none = Axis::from_zero("jobs", 0.0);
        assert_eq!((none.high, none.share(0.0)), (1.0, 0.0));
        let small = Axis::from_zero("s", 0.37);
        assert_eq!(small.marks[1].1, "0.1");
        let powers = Axis::powers("s", 0.1, 640.0);
        let texts: Vec<&str> = powers.marks.iter().map(|mark| mark.1.as_str()).collect();
        assert_eq!(texts, ["0.1", "1", "10", "100", "1000"]);
        assert_eq!((powers.share(0.0), powers.share(1_000.0)), (0.0, 1.0));
    }

    #[test]
    fn long_names_are_cut_by_characters() {
        assert_eq!(shortened("ünïcödé-tenant", 35.0), "ünïc…");
        assert_eq!(escaped("a<b>&\"'\u{7}"), "a&lt;b&gt;&amp;&quot;&#39; ");
    }
}
