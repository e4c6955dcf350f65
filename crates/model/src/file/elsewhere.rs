//! The other files that a project file names. We read none ourselves: what is not handed in is asked for.

use std::path::Path;

use super::interpolate::Variables;
use super::problem::{Problem, Span, quote};
use super::{FileText, READABLE, Reading, Tree, WRITE_IT, extend, leaf, spec};

/// More files than a project has any use for; a hostile one must not make us read for ever.
const FILES_MAX: usize = 1000;

impl Reading<'_> {
    /// The tree of another file, all of which stands where this one names it: places of that file mean nothing here.
    pub(super) fn tree_of(
        &mut self,
        file: &Path,
        name: &str,
        variables: &Variables,
        (span, path): (Span, &str),
    ) -> Option<Tree> {
        let text = self.text_of(file, name, (span, path))?;
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let tree = self.tree(&text, variables, (&mut problems, &mut warnings));
        self.elsewhere(name, (span, path), problems, warnings);
        let (mut tree, cuts) = tree?;
        extend::put(&mut tree, span);
        Some((tree, cuts))
    }

    /// The text of another file; that there is none is told where this one names it.
    pub(super) fn text_of(&mut self, file: &Path, name: &str, (span, path): (Span, &str)) -> Option<String> {
        match self.file_at(file) {
            FileText::Text(text) => Some(text),
            FileText::Missing if is_remote(name) => {
                let message = format!("{} is not of this computer, and is not fetched", quote(name));
                let hint = "fetch it yourself, and name the file";
                self.problems.push(Problem::found(span, path, name, message).hint(hint));
                None
            }
            FileText::Missing => {
                let message = format!("there is no file {}", quote(name));
                self.problems.push(Problem::found(span, path, name, message).hint(WRITE_IT));
                None
            }
            FileText::Unreadable(why) => {
                let message = format!("{} cannot be read: {why}", quote(name));
                self.problems.push(Problem::found(span, path, name, message).hint(READABLE));
                None
            }
        }
    }

    /// What stands in another file, named as the project file does.
    pub(super) fn file(&mut self, name: &str) -> Result<FileText, leaf::Wrong> {
        Ok(self.file_at(&spec::absolute(self.ground(), name)?))
    }

    pub(super) fn file_at(&mut self, path: &Path) -> FileText {
        let known = &self.source.files;
        if let Some(text) = known.get(path) {
            return text.clone();
        }
        if known.len() + self.missing.len() >= FILES_MAX {
            return FileText::Unreadable(format!("the project names more than {FILES_MAX} files"));
        }
        self.missing.insert(path.to_owned());
        FileText::Missing
    }

    /// Tells what is wrong with another file where this one names it.
    pub(super) fn elsewhere(
        &mut self,
        file: &str,
        (span, path): (Span, &str),
        problems: Vec<Problem>,
        warnings: Vec<Problem>,
    ) {
        let file = quote(file);
        let moved = |problem: Problem| {
            let Span { line, column, .. } = problem.span;
            let message = format!("in {file}, line {line}, column {column}: {}", problem.message);
            let mut told = problem.say(message);
            told.span = span;
            path.clone_into(&mut told.path);
            told
        };
        self.problems.extend(problems.into_iter().map(moved));
        self.warnings.extend(warnings.into_iter().map(moved));
    }
}

/// Whether a file is named that is on another computer: by an address, as Git writes one, or in a registry.
fn is_remote(name: &str) -> bool {
    name.contains("://") || name.starts_with("git@") || name.starts_with("oci:")
}
