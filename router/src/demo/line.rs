//! Lines for a terminal: styled, cut to a width, painted at the very end. Every character used is one column wide.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
    Accent,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Accent => "\x1b[36m",
        }
    }
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub(super) fn add(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    #[must_use]
    pub(super) fn plain(self, text: impl Into<String>) -> Self {
        self.add(Style::Plain, text)
    }

    /// A column: `text` cut or filled to `width`, and a space.
    #[must_use]
    pub(super) fn cell(self, style: Style, text: &str, width: usize) -> Self {
        self.add(style, format!("{:width$} ", cut(text, width)))
    }

    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Spaces until `right` ends at `width`; `right` is left out where there is no room for it.
    #[must_use]
    pub(super) fn right(self, right: Line, width: usize) -> Self {
        match width.checked_sub(self.width() + right.width()) {
            Some(gap) if gap > 0 => {
                let mut line = self.plain(" ".repeat(gap));
                line.0.extend(right.0);
                line
            }
            _ => self,
        }
    }

    /// At most `width` columns.
    #[must_use]
    pub(super) fn fit(self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut left = width;
        let mut fitted = Self::new();
        for (style, text) in self.0 {
            let here = text.chars().count();
            if here > left {
                return fitted.add(style, cut(&text, left));
            }
            left -= here;
            fitted = fitted.add(style, text);
        }
        fitted
    }

    pub(super) fn paint(&self, look: Look) -> String {
        let mut painted = String::new();
        for (style, text) in &self.0 {
            let code = if look.colour { style.code() } else { "" };
            painted.push_str(code);
            painted.extend(text.chars().map(|c| if look.unicode { c } else { ascii(c) }));
            painted.push_str(if code.is_empty() { "" } else { "\x1b[0m" });
        }
        painted.truncate(painted.trim_end_matches(' ').len());
        painted
    }
}

fn ascii(c: char) -> char {
    match c {
        '█' => '#',
        '░' => '.',
        '…' => '~',
        '·' => '-',
        '─' => '-',
        c if c.is_ascii() => c,
        _ => '?',
    }
}

/// `text`, or as much of it as fits before an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// `ratio` of `width` filled.
pub(super) fn bar(ratio: f64, width: usize) -> String {
    let full = ((ratio.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Look = Look { colour: false, unicode: true };

    #[test]
    fn a_long_line_is_cut_where_its_style_ends_or_not() {
        let line = Line::new().add(Style::Bold, "abc").plain("defgh");
        assert_eq!(line.clone().fit(8).paint(BARE), "abcdefgh");
        assert_eq!(line.clone().fit(5).paint(BARE), "abcd…");
        assert_eq!(line.clone().fit(2).paint(BARE), "a…");
        assert_eq!(line.fit(0).paint(BARE), "");
    }

    #[test]
    fn paint_follows_the_terminal() {
        let line = Line::new().add(Style::Bad, "█░…").plain(" x ");
        assert_eq!(line.paint(Look { colour: true, unicode: true }), "\x1b[31m█░…\x1b[0m x");
        assert_eq!(line.paint(Look { colour: false, unicode: false }), "#.~ x");
    }

    #[test]
    fn bars_are_as_wide_as_asked() {
        assert_eq!(bar(0.5, 4), "██░░");
        assert_eq!([bar(-1.0, 2), bar(9.0, 2), bar(f64::NAN, 2)], ["░░", "██", "░░"]);
    }

    #[test]
    fn right_hand_text_gives_way() {
        let right = || Line::new().plain("end");
        assert_eq!(Line::new().plain("ab").right(right(), 8).paint(BARE), "ab   end");
        assert_eq!(Line::new().plain("abcdef").right(right(), 8).paint(BARE), "abcdef");
    }
}
