//! `.env`: variables beside the project file. One a line, `NAME=value`, `export` before it or not. Single
//! quotes take everything as it is; within double quotes `\n`, `\t`, `\"`, `\\` and `\$` are escapes and lines
//! may be broken; without quotes ` #` starts a comment. Values without single quotes may use variables.

use std::collections::BTreeSet;

use super::interpolate::{self, Scope, Unread, Unset, Variables, fill};
use super::problem::{BOTH_SIDES, Problem, Problems, Span, is_merge_mark, quote};

/// What a project file may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The variables, with their values.
    pub variables: Variables,
    /// Those whose lines could not be read: what uses them cannot be checked, and is not told of once more.
    pub unread: BTreeSet<String>,
    /// What is wrong with the file of variables.
    pub problems: Option<Problems>,
}

/// The variables of `.env` and of the environment; the environment wins.
pub fn variables(file_name: &str, text: &str, environment: &Variables) -> Known {
    let mut problems = Vec::new();
    let mut variables = environment.clone();
    let mut scope = Scope::strict(environment);
    let Lines { found, mut unread } = read(text, &mut scope, Bare::Refused, (&mut problems, &mut Vec::new()));
    for (name, value) in found {
        if !environment.contains_key(&name) {
            variables.insert(name, value);
        }
    }
    unread.retain(|name| !variables.contains_key(name));
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let problems = (!problems.is_empty()).then(|| Problems::new(file_name, text, problems));
    Known { variables, unread, problems }
}

/// What the lines of a file say.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The variables, in the file's order.
    pub(crate) found: Vec<(String, String)>,
    /// Those whose values could not be read, which was reported.
    pub(crate) unread: Unread,
}

/// What a name alone on a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// A mistake.
    Refused,
    /// The variable of that name as it is outside, if it is set there.
    Passed,
    /// The same; the file is one of labels, whose names have also `.`, `-` and `/`.
    PassedToLabel,
}

impl Bare {
    fn is_name(self, text: &str) -> bool {
        match self {
            Self::Refused | Self::Passed => is_variable(text),
            Self::PassedToLabel => is_label(text),
        }
    }

    /// What is wrong with a name.
    fn misnamed(self, name: &str) -> Bad {
        let (what, hint) = match self {
            Self::Refused | Self::Passed => {
                ("a variable", "a name has letters, digits, `_`, `.` and `-` and starts with a letter or `_`")
            }
            Self::PassedToLabel => ("a label", "a name has letters, digits, `.`, `-`, `_` and `/`"),
        };
        (format!("{} cannot name {what}", quote(name)), hint.to_owned())
    }
}

/// The variables of a file in which values stand as they are: without quotes, comments behind them and variables, as
/// `docker run --env-file` reads one. A name alone has the value that is outside, if there is one.
pub(crate) fn raw(text: &str, outside: &Variables, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let said = line.trim_start();
        if said.is_empty() || said.starts_with('#') {
            continue;
        }
        let (name, value) = match said.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (said, outside.get(said).cloned()),
        };
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
            let span = Span {
                line: index + 1,
                column: line.chars().count() - said.chars().count() + 1,
                chars: name.chars().count(),
            };
            let message = format!("{} cannot name a variable", quote(name));
            problems.push(Problem::found(span, "", name, message).hint("write `NAME=value`"));
            continue;
        }
        found.extend(value.map(|value| (name.to_owned(), value)));
    }
    found
}

/// The variables of a file. Values see the environment, and where that has nothing the lines before.
/// Unset ones that are allowed go to `warnings`.
pub(crate) fn read(
    text: &str,
    outside: &mut Scope<'_>,
    bare: Bare,
    (problems, warnings): (&mut Vec<Problem>, &mut Vec<Problem>),
) -> Lines {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut known = outside.variables.clone();
    let Lines { mut found, mut unread } = Lines::default();
    unread.extend(outside.unread.iter().cloned());
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if bare != Bare::Refused && bare.is_name(trimmed) {
            found.extend(outside.variables.get(trimmed).map(|value| (trimmed.to_owned(), value.clone())));
            continue;
        }
        let mut value_lines = std::iter::once(line).chain(std::iter::from_fn(|| lines.next().map(|l| l.1)));
        let mut scope = Scope {
            unset: std::mem::replace(&mut outside.unset, Unset::Problem),
            unread: &unread,
            ..Scope::strict(&known)
        };
        let read = assignment(&mut value_lines, &mut scope, bare);
        let Scope { unset, is_told, .. } = scope;
        outside.unset = unset;
        let column = line.chars().count() - line.trim_start().chars().count() + 1;
        let span = Span { line: index + 1, column, chars: trimmed.chars().count() };
        if let Unset::Empty(names) = &mut outside.unset {
            warnings.extend(names.drain(..).map(|name| interpolate::empty(&name, span, "")));
        }
        match read {
            Ok((name, value)) => {
                if !outside.variables.contains_key(&name) {
                    known.insert(name.clone(), value.clone());
                }
                unread.remove(&name);
                found.push((name, value));
            }
            Err((message, hint)) => {
                // A quote that is not closed takes in all lines after it.
                let next = lines.clone().next().map_or(usize::MAX, |(next, _)| next);
                let lost = text.lines().take(next).skip(index);
                unread.extend(lost.filter_map(|line| name_of(line.trim())).map(str::to_owned));
                if is_told {
                    continue;
                }
                problems.push(Problem::found(span, "", trimmed, message).hint(hint));
            }
        }
    }
    Lines { found, unread }
}

/// The name that a line gives a value, if it does.
fn name_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let name = line.split_once('=').map_or(line, |(name, _)| name).trim_end();
    is_name(name).then_some(name)
}

fn is_name(text: &str) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(lawful)
}

/// What programs read, shells have no names for.
fn is_variable(text: &str) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(lawful)
}

fn is_label(text: &str) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    !text.is_empty() && text.chars().all(lawful)
}

/// What is wrong with a line, and what to do about it.
type Bad = (String, String);

fn bad(message: &str, hint: &str) -> Bad {
    (message.to_owned(), hint.to_owned())
}

/// Reads an assignment from its first line, and further lines where a quoted value goes on there.
fn assignment<'t>(
    lines: &mut impl Iterator<Item = &'t str>,
    known: &mut Scope<'_>,
    bare: Bare,
) -> Result<(String, String), Bad> {
    let line = lines.next().unwrap_or_default().trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let form = || bad("not `NAME=value`", "start the line with `#` if it is a comment");
    if is_merge_mark(line) {
        return Err(bad(BOTH_SIDES, "keep one of them"));
    }
    let (name, value) = line.split_once('=').ok_or_else(form)?;
    let name = name.trim_end();
    if !bare.is_name(name) {
        return Err(bare.misnamed(name));
    }
    let is_apart = value.starts_with([' ', '\t']);
    let value = value.trim_start();
    let value = if let Some(value) = value.strip_prefix('\'') {
        quoted(value, '\'', lines)?
    } else if let Some(value) = value.strip_prefix('"') {
        let raw = quoted(value, '"', lines)?;
        filled(&unescaped(&raw), known)?
    } else {
        // What follows a blank is a comment: `A=#fff` has none.
        let end = (is_apart && value.starts_with('#')).then_some(0);
        let end = end.or_else(|| value.find(" #")).or_else(|| value.find("\t#"));
        let value = end.and_then(|end| value.get(..end)).unwrap_or(value);
        filled(value.trim_end(), known)?
    };
    Ok((name.to_owned(), value))
}

fn filled(value: &str, known: &mut Scope<'_>) -> Result<String, Bad> {
    fill(value, known).map_err(|wrong| (wrong.message, wrong.hint))
}

/// What stands before the closing quote, over as many lines as it takes.
fn quoted<'t>(first: &str, quote: char, lines: &mut impl Iterator<Item = &'t str>) -> Result<String, Bad> {
    let mut value = String::new();
    let mut line = first;
    loop {
        let mut escaped = false;
        for (index, c) in line.char_indices() {
            if c == quote && !escaped {
                let after = line.get(index + 1..).unwrap_or_default().trim();
                value.push_str(line.get(..index).unwrap_or_default());
                if after.is_empty() || after.starts_with('#') {
                    return Ok(value);
                }
                return Err(bad("something follows the closing quote", "put the whole value in quotes"));
            }
            escaped = quote == '"' && c == '\\' && !escaped;
        }
        value.push_str(line);
        value.push('\n');
        line = lines.next().ok_or_else(|| bad("the quote is not closed", "close it, or leave it out"))?;
    }
}

/// Resolves the escapes of double quotes. `\$` becomes `$$`, which the variables take for a dollar sign.
fn unescaped(text: &str) -> String {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some('$') => value.push_str("$$"),
                Some(c @ ('"' | '\\')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
                None => value.push('\\'),
            },
            (c, false) => value.push(c),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
    fn check(text: &str, expected: Expect) {
        let environment = Variables::from([("HOME".to_owned(), "/root".to_owned())]);
        let known = variables(".env", text, &environment);
        let shown = match known.problems {
            None => known.variables.iter().map(|(name, value)| format!("{name}={value:?}\n")).collect(),
            Some(problems) => problems.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn values_are_read_with_quotes_comments_and_variables() {
        check(
            "# a comment\n\nA=1\nexport B = two words # said\nC='$A \\n #'\nD=\"x\\n\\$A $A\"\nE=\nF=\"one\ntwo\"\nG=a#b\nH=$$\nHOME=/else\nI=#fff\nJ= # nothing\n",
            expect![[r##"
                A="1"
                B="two words"
                C="$A \\n #"
                D="x\n$A 1"
                E=""
                F="one\ntwo"
                G="a#b"
                H="$"
                HOME="/root"
                I="#fff"
                J=""
            "##]],
        );
    }

    #[test]
    fn every_bad_line_is_told() {
        check(
            "A\n  1B=2\nC='x' y\nD=$NOPE\nD2=$D\nE=\"open\n",
            expect![[r#"
                .env:1:1: not `NAME=value`
                  1 | A
                    | ^
                  hint: start the line with `#` if it is a comment

                .env:2:3: `1B` cannot name a variable
                  2 |   1B=2
                    |   ^^^^
                  hint: a name has letters, digits, `_`, `.` and `-` and starts with a letter or `_`

                .env:3:1: something follows the closing quote
                  3 | C='x' y
                    | ^^^^^^^
                  hint: put the whole value in quotes

                .env:4:1: the variable `NOPE` is not set
                  4 | D=$NOPE
                    | ^^^^^^^
                  hint: set it, or write `${NOPE:-default}`, or `${NOPE:-}` for an empty text

                .env:6:1: the quote is not closed
                  6 | E="open
                    | ^^^^^^^
                  hint: close it, or leave it out
            "#]],
        );
    }
}
