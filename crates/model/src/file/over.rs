//! The files that go over a project's own, as `compose.override.yaml` does. Their texts count as if they stood one behind
//! the other, so that a line says which of them it is of; what is told of them is parted at last.

use super::problem::{Problem, Problems, lines};
use super::yaml::{Entry, Node, Value};
use super::{Dialect, Source, yaml};

/// A text without a byte order mark, which is no part of the first line.
pub(super) fn bare(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

impl Source<'_> {
    /// What stands in the file, and in those that go over it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        [self.text].into_iter().chain(self.over.iter().map(String::as_str)).map(bare)
    }

    /// All of that, one behind the other.
    pub fn whole(&self) -> String {
        self.texts().collect::<Vec<_>>().join("\n")
    }

    /// How many lines each of the files has.
    pub fn lines(&self) -> Vec<usize> {
        self.texts().map(|text| lines(text).count()).collect()
    }
}

/// The file among several that a line of all of them is in, and its line there. What is behind the last is of the last.
pub fn file_of(line: usize, lines: &[usize]) -> (usize, usize) {
    let mut left = line;
    for (index, count) in lines.iter().enumerate() {
        if left <= *count || index + 1 == lines.len() {
            return (index, left);
        }
        left -= count;
    }
    (0, line)
}

impl Problems {
    /// What is told of each of several files, that have these names and so many lines.
    pub fn parted(self, files: &[(String, usize)]) -> Vec<Option<Self>> {
        let counts: Vec<usize> = files.iter().map(|(_, count)| *count).collect();
        let mut parts: Vec<Vec<Problem>> = vec![Vec::new(); files.len()];
        for mut problem in self.problems {
            let (index, line) = file_of(problem.span.line, &counts);
            problem.span.line = line;
            if let Some(part) = parts.get_mut(index) {
                part.push(problem);
            }
        }
        // What was too much to be told stood last.
        let last = parts.iter().rposition(|problems| !problems.is_empty());
        let named = parts.into_iter().zip(files).enumerate();
        let some = named.map(|(index, (problems, (file, _)))| {
            let more = if Some(index) == last { self.more } else { 0 };
            (!problems.is_empty()).then(|| Self { file: file.clone(), problems, more })
        });
        some.collect()
    }
}

/// What tells whose words a file is written in.
const WORDS: [(&str, Dialect); 3] =
    [("machines", Dialect::Stead), ("defaults", Dialect::Stead), ("services", Dialect::Compose)];

/// Whose words a text is written in, where what it has tells it; and the key that does.
fn told(text: &str) -> Option<(Entry, Dialect)> {
    let Value::Mapping(entries) = yaml::parse(text, &mut Vec::new()).ok()?.value else { return None };
    WORDS.iter().find_map(|(word, dialect)| {
        let found = entries.iter().find(|entry| entry.key == *word)?;
        Some((found.clone(), *dialect))
    })
}

/// Whose words a text is written in, where what it has tells it.
pub(super) fn told_by(text: &str) -> Option<Dialect> {
    told(text).map(|(_, dialect)| dialect)
}

/// What is wrong with a text that is in other words than the files it goes over: neither would mean what it says.
pub(super) fn in_other_words(text: &str, own: Dialect) -> Option<Problem> {
    let (Entry { key, key_span, .. }, _) = told(text).filter(|(_, dialect)| *dialect != own)?;
    let (theirs, word) = match own {
        Dialect::Stead => ("stead's", "machines"),
        Dialect::Compose => ("Compose's", "services"),
    };
    let message = format!("`{key}` stands here, and the files that this one goes with are in {theirs} words");
    let problem = Problem::found(key_span, &key, &key, message);
    Some(problem.hint(format!("write all of them with `{word}`")))
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
