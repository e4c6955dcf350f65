//! What is wrong with a file, and how it is shown. Files come from anywhere, so whatever is shown of them
//! has no control characters (they could drive the terminal) and a limited length.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;

/// A stretch of one line of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// How many characters it covers; 0 for a mere place.
    pub chars: usize,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub span: Span,
    /// The key it concerns, `networks.lan.mtu`; empty where it concerns the file as such.
    pub path: String,
    /// The offending text, after variables were filled in; what is very long is cut.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// The line, fit to be shown.
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// What is wrong, before it is said what to do about it. It becomes a [`Problem`] in no other way, so there is none
/// without a hint.
#[derive(Debug)]
#[must_use]
pub(crate) struct Finding(Problem);

/// A line fit to be shown, or the middle of it, and what to underline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Excerpt {
    text: String,
    before: usize,
    under: usize,
}

/// All that is wrong with a file, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The file's name as it was given.
    pub file: String,
    /// The problems.
    pub problems: Vec<Problem>,
    /// How many more there are, which nobody would read at once.
    pub more: usize,
}

/// Longer lines are shown in part: a terminal is about this wide.
const EXCERPT_MAX_CHARS: usize = 100;

/// How much is shown to the left of the problem where a line is shown in part.
const EXCERPT_BEFORE_CHARS: usize = 40;

/// Enough to recognise a text by; a file of one huge scalar must not make a huge message.
const TEXT_MAX_CHARS: usize = 80;

/// More than anyone reads at once; a hostile file must not make an endless report.
pub(crate) const PROBLEMS_MAX: usize = 200;

impl Problem {
    /// A problem at a place. The file's line is added by [`Problems::new`].
    pub(crate) fn found(span: Span, path: &str, text: &str, message: impl Into<String>) -> Finding {
        let cut = |text: &str| text.chars().take(TEXT_MAX_CHARS).collect();
        Finding(Self {
            span,
            path: path.to_owned(),
            text: cut(text),
            message: message.into(),
            hint: String::new(),
            excerpt: None,
        })
    }

    /// The same in other words.
    pub(crate) fn say(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// The same with something else to do about it.
    pub(crate) fn hinting(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}

impl Finding {
    /// The problem, with what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Problem {
        Problem { hint: hint.into(), ..self.0 }
    }
}

impl Problems {
    /// Sorts problems by place, leaves out what would be said twice, and takes their lines from `text`.
    pub(crate) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        let mut lines = lines(text).enumerate().peekable();
        for problem in &mut problems {
            while lines.next_if(|(index, _)| index + 1 < problem.span.line).is_some() {}
            let here = |(index, line): &&(usize, &str)| index + 1 == problem.span.line && !line.is_empty();
            let line = lines.peek().filter(here);
            problem.excerpt = line.map(|(_, line)| excerpt(line, problem.span));
        }
        Self { file: file.to_owned(), problems, more }
    }

    /// These, and those of `others` that are on other lines: what is wrong with a line may come of what is wrong with it
    /// already.
    #[must_use]
    pub fn beside(mut self, others: Self) -> Self {
        let lines: BTreeSet<usize> = self.problems.iter().map(|problem| problem.span.line).collect();
        self.problems.extend(others.problems.into_iter().filter(|other| !lines.contains(&other.span.line)));
        self.problems.sort();
        self.more += others.more + self.problems.len().saturating_sub(PROBLEMS_MAX);
        self.problems.truncate(PROBLEMS_MAX);
        self
    }
}

/// The lines of a file as YAML counts them: `\n`, `\r\n` and `\r` end one.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn excerpt(line: &str, span: Span) -> Excerpt {
    let start = span.column.saturating_sub(1);
    let long = line.chars().nth(EXCERPT_MAX_CHARS).is_some();
    let skip = if long { start.saturating_sub(EXCERPT_BEFORE_CHARS) } else { 0 };
    let mut text: String = line.chars().skip(skip).take(EXCERPT_MAX_CHARS).map(visible).collect();
    let mut before = start - skip;
    if skip > 0 {
        text.insert(0, '…');
        before += 1;
    }
    let length = text.chars().count();
    if line.chars().skip(skip).nth(EXCERPT_MAX_CHARS).is_some() {
        text.push('…');
    }
    let text = text.trim_end().to_owned();
    Excerpt { text, before, under: span.chars.min(length.saturating_sub(before)).max(1) }
}

/// One character for one, so that what is underlined stays where it is.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_unsafe(c) => '\u{fffd}',
        c => c,
    }
}

/// Drives a terminal, or turns the reading direction, or cannot be seen.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What a file is with a line of those with which git tells apart the sides of a merge.
pub(crate) const BOTH_SIDES: &str = "a merge left both sides here";

/// Whether a line is one of those.
pub(crate) fn is_merge_mark(line: &str) -> bool {
    let marks = ["<<<<<<<", "=======", ">>>>>>>", "|||||||"];
    let rest = marks.into_iter().find_map(|mark| line.strip_prefix(mark));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// A text of the file in backticks, escaped and cut.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for c in text.chars().take(TEXT_MAX_CHARS) {
        if is_unsafe(c) { quoted.extend(c.escape_default()) } else { quoted.push(c) }
    }
    if text.chars().nth(TEXT_MAX_CHARS).is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// A message, whose words may come from the file, unable to command the terminal.
fn harmless(text: &str) -> String {
    let escaped = |c: char| if is_unsafe(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            let Span { line, column, .. } = problem.span;
            let file: String = self.file.chars().map(visible).collect();
            writeln!(f, "{file}:{line}:{column}: {}", harmless(&problem.message))?;
            if let Some(excerpt) = &problem.excerpt {
                let width = line.to_string().len().max(3);
                writeln!(f, "{line:>width$} | {}", excerpt.text)?;
                let under = "^".repeat(excerpt.under);
                writeln!(f, "{:width$} | {:before$}{under}", "", "", before = excerpt.before)?;
            }
            writeln!(f, "  hint: {}", harmless(&problem.hint))?;
        }
        if self.more > 0 {
            writeln!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A hostile file may hold thousands of names and as many that are nearly right.
const CANDIDATES_MAX: usize = 200;

/// The candidate that was most likely meant by `word`.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(TEXT_MAX_CHARS).collect::<String>().to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    let near = |candidate: &&str| distance(&word, candidate) <= allowed;
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(near)
        .min_by_key(|candidate| distance(&word, candidate))
}

/// How many characters to insert, delete, replace or swap with their neighbour to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let mut previous = None;
    for (row, a) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().copied().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, column + 1) + 1).min(at(&current, column) + 1);
            best = best.min(at(&above, column) + usize::from(a != b));
            let swapped = column > 0 && previous == Some(b) && to.get(column - 1) == Some(&a);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
        previous = Some(a);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_are_near() {
        assert_eq!(distance("subnet", "subnet"), 0);
        assert_eq!(distance("subnte", "subnet"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("subent", ["mtu", "subnet", "subnet6"]), Some("subnet"));
        assert_eq!(nearest("Lan", ["wan", "lan"]), Some("lan"));
        assert_eq!(nearest("ports", ["networks", "kind"]), None);
    }

    #[test]
    fn what_is_shown_cannot_drive_a_terminal() {
        assert_eq!(quote("a\u{1b}[31m\u{202e}b"), "`a\\u{1b}[31m\\u{202e}b`");
        let long = "x".repeat(5000);
        let text = format!("a: {long}\u{1b}{long}");
        let span = Span { line: 1, column: 5004, chars: 1 };
        let shown =
            Problems::new("f\u{7}", &text, vec![Problem::found(span, "", "", "bad \u{2}").hint("\u{1d}")])
                .to_string();
        assert!(shown.lines().all(|line| line.chars().count() < 120), "{shown}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown}");
    }
}
