//! Variables in values, as Compose has them, with one difference: in our own files a variable that is not set and has
//! no default is a problem, where Compose takes it for empty and goes on with a file nobody wrote.
//!
//! ```text
//! $VAR ${VAR}          its value
//! ${VAR:-default}      the default if unset or empty; ${VAR-default}: if unset
//! ${VAR:?message}      a problem if unset or empty;   ${VAR?message}: if unset
//! ${VAR:+other}        other if set and not empty;    ${VAR+other}: if set
//! $$                   a dollar sign
//! ```
//! Defaults may hold variables again. It works on single values after the YAML is read, so that a
//! variable's value cannot change what the file means, and places stay those of the file.

use std::collections::{BTreeMap, BTreeSet};

use super::leaf::Wrong;
use super::problem::{Problem, Span, quote};
use super::yaml::{Node, Value};

/// Variables and their values.
pub type Variables = BTreeMap<String, String>;

/// Defaults within defaults. Bounds our recursion.
const DEPTH_MAX: usize = 16;

/// What one value may grow to: variables come from outside and may be long.
const VALUE_MAX_BYTES: usize = 64 << 10;

/// The variables that texts may use.
#[derive(Debug)]
pub(crate) struct Scope<'v> {
    pub(crate) variables: &'v Variables,
    /// What a variable that is not set means.
    pub(crate) unset: Unset,
    /// Those whose lines of a file could not be read, which was reported: nothing is known of what they stand for.
    pub(crate) unread: &'v Unread,
    /// Whether what could not be filled in was for one of those alone.
    pub(crate) is_told: bool,
}

/// The names of variables.
pub(crate) type Unread = BTreeSet<String>;

/// For those who have none.
pub(crate) static ALL_READ: Unread = Unread::new();

/// What a variable that is not set, and has no default, means.
#[derive(Debug)]
pub(crate) enum Unset {
    /// That the file cannot be read.
    Problem,
    /// An empty text, as in Compose. Here are their names.
    Empty(Vec<String>),
}

impl<'v> Scope<'v> {
    /// One in which every variable has to be set.
    pub(crate) fn strict(variables: &'v Variables) -> Self {
        Self { variables, unset: Unset::Problem, unread: &ALL_READ, is_told: false }
    }

    fn value_of(&mut self, name: &str) -> Result<&'v str, Wrong> {
        match (self.variables.get(name), &mut self.unset) {
            (Some(value), _) => Ok(value),
            (None, _) if self.unread.contains(name) => {
                self.is_told = true;
                Err(unset(name))
            }
            (None, Unset::Problem) => Err(unset(name)),
            (None, Unset::Empty(names)) => {
                names.push(name.to_owned());
                Ok("")
            }
        }
    }
}

/// Fills in the variables of all values under `node`. Unset ones that are allowed go to `warnings`.
pub(crate) fn tree(
    node: &mut Node,
    path: &str,
    scope: &mut Scope<'_>,
    (problems, warnings): (&mut Vec<Problem>, &mut Vec<Problem>),
) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(text) => match fill(text, scope) {
            Ok(filled) => {
                if let Unset::Empty(names) = &mut scope.unset {
                    warnings.extend(names.drain(..).map(|name| empty(&name, node.span, path)));
                }
                *text = filled;
            }
            Err(wrong) => {
                if !std::mem::take(&mut scope.is_told) {
                    problems.push(wrong.at(node.span, path, text));
                }
                // Reported once; nothing else can be said of it.
                node.value = Value::Unknown;
            }
        },
        Value::Unknown => {}
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                tree(item, &format!("{path}[{index}]"), scope, (problems, warnings));
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                let path = super::join(path, &entry.key);
                tree(&mut entry.node, &path, scope, (problems, warnings));
            }
        }
    }
}

/// Fills in the variables of one text.
pub(crate) fn fill(text: &str, scope: &mut Scope<'_>) -> Result<String, Wrong> {
    if !text.contains('$') {
        return Ok(text.to_owned());
    }
    let mut rest = text;
    let filled = scan(&mut rest, scope, 0)?;
    // Outside a `${…}` nothing but the end of the text stops the scan.
    Ok(filled)
}

/// Reads `rest` to its end, or within `${…}` (depth > 0) to the closing brace, which it leaves.
fn scan(rest: &mut &str, scope: &mut Scope<'_>, depth: usize) -> Result<String, Wrong> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    let mut filled = String::new();
    loop {
        let stop = rest.find(|c| c == '$' || (c == '}' && depth > 0)).unwrap_or(rest.len());
        let (plain, tail) = rest.split_at(stop);
        filled.push_str(plain);
        if filled.len() > VALUE_MAX_BYTES {
            return Err(Wrong::found(format!("the value grows past {VALUE_MAX_BYTES} bytes"))
                .hint("put long texts into files, which `configs` and `volumes` bring into machines"));
        }
        *rest = tail;
        let Some(tail) = tail.strip_prefix('$') else { return Ok(filled) };
        if let Some(tail) = tail.strip_prefix('$') {
            filled.push('$');
            *rest = tail;
        } else if let Some(tail) = tail.strip_prefix('{') {
            *rest = tail;
            filled.push_str(&braced(rest, scope, depth)?);
        } else {
            let (name, tail) = variable(tail);
            if name.is_empty() {
                return Err(Wrong::found("a lone `$`").hint("write `$$` for a dollar sign"));
            }
            *rest = tail;
            filled.push_str(scope.value_of(name)?);
        }
    }
}

/// Reads what follows `${`, and the closing brace.
fn braced(rest: &mut &str, scope: &mut Scope<'_>, depth: usize) -> Result<String, Wrong> {
    let (name, tail) = variable(rest);
    if name.is_empty() {
        return Err(Wrong::found("`${` is not followed by a name").hint("write `$$` for a dollar sign"));
    }
    let value = scope.variables.get(name).map(String::as_str);
    let (value, tail) = match tail.strip_prefix(':') {
        Some(tail) => (value.filter(|value| !value.is_empty()), tail),
        None => (value, tail),
    };
    let colon = rest.get(name.len()..).is_some_and(|tail| tail.starts_with(':'));
    let operator = tail.chars().next();
    let unclosed = || {
        Wrong::found(format!("`${{{name}` has no closing `}}`"))
            .hint(format!("write `${{{name}}}`, or `$$` for a dollar sign"))
    };
    if operator == Some('}') && !colon {
        *rest = tail.get(1..).unwrap_or_default();
        return scope.value_of(name).map(str::to_owned);
    }
    if !matches!(operator, Some('-' | '?' | '+')) {
        return Err(match operator {
            None => unclosed(),
            Some(c) => Wrong::found(format!("{} cannot follow `${{{name}`", quote(&c.to_string())))
                .hint(format!("write `${{{name}}}` or `${{{name}:-default}}`")),
        });
    }
    *rest = tail.get(1..).unwrap_or_default();
    // A branch that is not taken may name variables that are not set.
    let taken = matches!((operator, value), (Some('-' | '?'), None) | (Some('+'), Some(_)));
    let word = if taken { scan(rest, scope, depth + 1)? } else { skip(rest, depth + 1)? };
    *rest = rest.strip_prefix('}').ok_or_else(unclosed)?;
    if operator == Some('?') && value.is_none() && scope.unread.contains(name) {
        scope.is_told = true;
    }
    match (operator, value) {
        (Some('?'), None) if word.is_empty() => Err(unset(name)),
        (Some('?'), None) => {
            let wrong = Wrong::found(format!("the variable `{name}` is not set: {}", quote(&word)));
            Err(wrong.hint(format!("set `{name}` in the environment, or in `.env` beside the file")))
        }
        (Some('+'), None) => Ok(String::new()),
        (Some('-'), None) | (Some('+'), Some(_)) => Ok(word),
        (_, value) => Ok(value.unwrap_or_default().to_owned()),
    }
}

/// Passes over a branch that is not taken.
fn skip(rest: &mut &str, depth: usize) -> Result<String, Wrong> {
    let mut open = 0_usize;
    let mut previous = ' ';
    for (index, c) in rest.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' if open == 0 => {
                *rest = rest.get(index..).unwrap_or_default();
                return Ok(String::new());
            }
            '}' => open -= 1,
            _ => {}
        }
        if depth + open > DEPTH_MAX {
            return Err(too_deep());
        }
        previous = if c == '$' && previous == '$' { ' ' } else { c };
    }
    *rest = "";
    Ok(String::new())
}

/// The variable's name at the start of `text`, and what follows.
fn variable(text: &str) -> (&str, &str) {
    let lawful = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !lawful(c)).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return ("", text);
    }
    text.split_at(end)
}

/// What is said of a variable that is not set where that is allowed.
pub(crate) fn empty(name: &str, span: Span, path: &str) -> Problem {
    let message = format!("the variable `{name}` is not set, so it stands for nothing");
    unset(name).at(span, path, name).say(message)
}

fn too_deep() -> Wrong {
    Wrong::found(format!("more than {DEPTH_MAX} defaults within each other")).hint("set one of the variables")
}

fn unset(name: &str) -> Wrong {
    Wrong::found(format!("the variable `{name}` is not set"))
        .hint(format!("set it, or write `${{{name}:-default}}`, or `${{{name}:-}}` for an empty text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let set = [("A", "1"), ("EMPTY", ""), ("DOLLAR", "${A}")];
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let filled =
            fill(text, &mut Scope::strict(&variables)).unwrap_or_else(|wrong| format!("! {}", wrong.message));
        assert_eq!(filled, expected);
    }

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        check("a$A-${A}b", "a1-1b");
        check("${B:-x} ${B-x} ${EMPTY:-x} ${EMPTY-x} ${A:-x}", "x x x  1");
        check("${A:+y} ${B:+y} ${EMPTY+y} ${EMPTY:+y}", "y  y ");
        check("${A:?no} ${A?no}", "1 1");
        check("${B:-${C:-${A}}}", "1");
        check("${B:-a$${A}b}", "a${Ab}");
        check("$$A $${A}", "$A ${A}");
        check("${DOLLAR}", "${A}");
        check("${A:-${NOT_SET}}", "1");
        check("}{", "}{");
    }

    #[test]
    fn what_is_not_set_is_a_problem() {
        check("$B", "! the variable `B` is not set");
        check("${B}", "! the variable `B` is not set");
        check("${B:?give it a port}", "! the variable `B` is not set: `give it a port`");
        check("${EMPTY:?}", "! the variable `EMPTY` is not set");
        check("${B:-${C}}", "! the variable `C` is not set");
    }

    #[test]
    fn where_it_may_be_what_is_not_set_is_empty_and_told() {
        let variables = Variables::new();
        let mut scope = Scope { unset: Unset::Empty(Vec::new()), ..Scope::strict(&variables) };
        assert_eq!(fill("a$B${C}${D:-d}${E:-$F}", &mut scope).unwrap(), "ad");
        assert!(matches!(&scope.unset, Unset::Empty(names) if names == &["B", "C", "F"]));
        assert!(fill("${B:?no}", &mut scope).is_err());
    }

    #[test]
    fn bad_syntax_is_a_problem() {
        check("$", "! a lone `$`");
        check("$5", "! a lone `$`");
        check("${", "! `${` is not followed by a name");
        check("${A", "! `${A` has no closing `}`");
        check("${A:-x", "! `${A` has no closing `}`");
        check("${A!}", "! `!` cannot follow `${A`");
        check("${A:}", "! `}` cannot follow `${A`");
        check(&"${B:-".repeat(100), "! more than 16 defaults within each other");
    }
}
