//! The terminal: how large it is, what it can show, and a picture that is redrawn in place.

use std::env;
use std::io::{self, IsTerminal, Write};

use super::line::{Line, Look};

/// Shows one picture after the other at the same place. Dropping it gives the cursor back.
#[derive(Debug)]
pub(super) struct Terminal {
    look: Look,
    /// Lines of the picture that stands there.
    drawn: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Terminal {
    /// None where standard output is no terminal that can move its cursor.
    pub(super) fn open() -> Option<Self> {
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if dumb || !io::stdout().is_terminal() {
            return None;
        }
        Some(Self { look: look(), drawn: 0 })
    }

    pub(super) fn size(&self) -> Size {
        size()
    }

    /// Replaces the picture. Lines must fit the width; what does not fit the height is left out.
    pub(super) fn draw(&mut self, lines: &[Line]) {
        // The last row is left free: a line end there would scroll the picture away.
        let lines = &lines[..lines.len().min(size().height.saturating_sub(1))];
        let mut text = String::from("\x1b[?25l\r");
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in lines {
            text.push_str(&line.paint(self.look));
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        write(&text);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        write("\x1b[?25h");
    }
}

/// Prints lines below whatever stands there.
pub(super) fn print(lines: &[Line]) {
    let look = match io::stdout().is_terminal() {
        true => look(),
        false => Look { colour: false, unicode: utf8() },
    };
    let text: String = lines.iter().map(|line| line.paint(look) + "\n").collect();
    write(&text);
}

/// A reader that has gone, such as `head`, is no failure.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn size() -> Size {
    let known = terminal_size::terminal_size();
    known.map_or(Size { width: 80, height: 24 }, |(width, height)| Size {
        width: usize::from(width.0),
        height: usize::from(height.0),
    })
}

/// Columns for text that is printed once: the terminal's, within what reads well.
pub(super) fn reading_width() -> usize {
    match io::stdout().is_terminal() {
        true => size().width.clamp(60, 100),
        false => 100,
    }
}

fn look() -> Look {
    // https://no-color.org: present and not empty.
    let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Look { colour, unicode: utf8() }
}

/// The first of the three that is set decides, as in the C library; none set is the C locale.
fn utf8() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env::var(name).ok().filter(|v| !v.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}
