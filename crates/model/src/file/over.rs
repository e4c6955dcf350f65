//! The file that goes over a project's own, as `compose.override.yaml` does. Its text counts as if it stood behind the
//! other one's, so that a line says which of both it is of; what is told of it is parted at last.

use super::Source;
use super::problem::{Problem, Problems, lines};
use super::yaml::{Node, Value};

/// A text without a byte order mark, which is no part of the first line.
pub(super) fn bare(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

impl Source<'_> {
    /// What stands in the file, and behind it what stands in the one that goes over it.
    pub fn whole(&self) -> String {
        let own = bare(self.text);
        self.over.map_or_else(|| own.to_owned(), |over| format!("{own}\n{}", bare(over)))
    }

    /// How many lines the file itself has.
    pub fn own_lines(&self) -> usize {
        lines(bare(self.text)).count()
    }
}

impl Problems {
    /// What is told of the first `own_lines` lines, and what of those behind, which are those of the file `over`.
    pub fn parted(self, own_lines: usize, over: &str) -> (Option<Self>, Option<Self>) {
        let (mut theirs, own): (Vec<Problem>, Vec<Problem>) =
            self.problems.into_iter().partition(|problem| problem.span.line > own_lines);
        theirs.iter_mut().for_each(|problem| problem.span.line -= own_lines);
        let (more, less) = if theirs.is_empty() { (self.more, 0) } else { (0, self.more) };
        let some = |file: String, problems: Vec<Problem>, more| {
            (!problems.is_empty()).then_some(Self { file, problems, more })
        };
        (some(self.file, own, more), some(over.to_owned(), theirs, less))
    }
}

/// Moves problems down by some lines.
pub(super) fn lower(problems: &mut [Problem], lines: usize) {
    problems.iter_mut().for_each(|problem| problem.span.line += lines);
}

/// The same of a tree.
pub(super) fn lower_tree(node: &mut Node, lines: usize) {
    node.span.line += lines;
    match &mut node.value {
        Value::Sequence(items) => items.iter_mut().for_each(|item| lower_tree(item, lines)),
        Value::Mapping(entries) => {
            for entry in entries {
                entry.key_span.line += lines;
                lower_tree(&mut entry.node, lines);
            }
        }
        Value::Null | Value::Unknown | Value::Scalar(_) => {}
    }
}
