//! Words out: the only place that prints. Data goes to standard output, everything else to standard error;
//! colour only on a terminal that wants it, and never as the only sign.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use stead_host::apply::Outcome;
use stead_model::plan::Planned;
use stead_model::step::Step;

use crate::args::Format;

/// Whether a stream is a terminal whose user has not said that they want no colour.
pub(crate) fn takes_colour(stream: &impl IsTerminal) -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !no_colour && !dumb
}

/// How this command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// For people or for programs.
    pub(crate) format: Format,
    colour: bool,
    /// Whether what is being done is told, beside data.
    pub(crate) tells: bool,
}

impl Output {
    /// Looks at the streams and the environment.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, colour: takes_colour(&std::io::stdout()), tells: true }
    }

    /// The same without telling what is being done: the output is somebody else's.
    pub(crate) fn quiet(self) -> Self {
        Self { tells: false, ..self }
    }

    /// Data: as JSON, or as the text that `text` makes.
    pub(crate) fn data<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        let text = match self.format {
            Format::Text => text(),
            Format::Json => serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n",
        };
        raw(&text)
    }

    /// A line of a plan, coloured by its sign.
    pub(crate) fn step(self, step: &Step) -> String {
        let text = printable(&step.to_string());
        let code = match text.chars().next() {
            Some('+') => "32",
            Some('-') => "31",
            _ => "33",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    }

    /// How a step of a plan ended.
    pub(crate) fn progress(self, planned: &Planned, outcome: &Outcome) -> Result<()> {
        if self.format == Format::Json || !self.tells {
            return Ok(());
        }
        match outcome {
            Outcome::Done => raw(&format!("{}\n", self.step(&planned.step))),
            Outcome::Failed(_) => raw(&format!("{}  failed\n", self.step(&planned.step))),
            Outcome::Skipped => raw(&format!("{}  not tried\n", self.step(&planned.step))),
        }
    }
}

/// Text to standard output. A reader that went away is no failure.
pub(crate) fn raw(text: &str) -> Result<()> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A note to the person, on standard error.
pub(crate) fn note(text: &str) {
    // If standard error is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
}

/// A line on the terminal that the next one replaces; none for an empty text. Longer than the terminal is wide it is cut.
pub(crate) fn rewrite(text: &str) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    // Some terminals do not say how wide they are.
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    let columns = if columns == 0 { 80 } else { columns };
    let text: String = printable(text).replace('\n', " ").chars().take(columns.saturating_sub(1)).collect();
    let mut stderr = std::io::stderr().lock();
    // If standard error is gone there is nobody left to tell.
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

/// Text that others wrote (files, directories, machines), unable to command the terminal.
pub(crate) fn printable(text: &str) -> String {
    let unseen = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().map(|c| if unseen(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// A table with aligned columns; nothing but its heading if it has no rows.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heading.iter().copied());
    for row in &rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_others_wrote_cannot_command_the_terminal() {
        assert_eq!(printable("a\x1b[2J\r\u{9b}b\tc\n"), "a\\u{1b}[2J\\u{d}\\u{9b}b\tc\n");
        assert_eq!(table(&["X"], &[vec!["\x07".to_owned()]]), "X\n\\u{7}\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["web".to_owned(), "10.64.0.2".to_owned()], vec!["database".to_owned(), String::new()]];
        expect![[r"
            NAME      ADDRESS
            web       10.64.0.2
            database
        "]]
        .assert_eq(&table(&["NAME", "ADDRESS"], &rows));
    }
}
