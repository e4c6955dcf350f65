//! `stead.yaml`: text to a checked [`Project`], or every problem of it at once.
//!
//! ```text
//! text ──yaml──▶ tree ──interpolate──▶ tree ──structure──▶ tree that fits ──spec──▶ Spec ──check──▶ Project
//!                                               ▲ shape: one table; also the JSON Schema and the reference
//! ```
//! Each stage goes on as far as it can after a problem, so that one run tells them all; what a later
//! stage cannot read was reported by an earlier one, and is left out of its checks.

mod check;
mod dotenv;
mod interpolate;
mod leaf;
mod problem;
mod published;
mod render;
mod shape;
mod spec;
mod structure;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;

pub use dotenv::variables;
pub use interpolate::Variables;
pub use problem::{Problem, Problems, Span};
pub use published::{reference, schema};
pub use render::render;

use crate::project::Project;
use yaml::{Node, Value};

/// A project file, and what it may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file's name, as messages show it.
    pub file_name: &'a str,
    /// What stands in it.
    pub text: &'a str,
    /// The variables it may use; [`variables`] makes them of the environment and `.env`.
    pub env: &'a Variables,
    /// The name of its directory: the project's name where the file has none.
    pub dir_name: Option<&'a str>,
}

/// A project, and where each key of it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The project.
    pub project: Project,
    /// The places.
    pub sources: Sources,
}

/// Where keys stand in a file, by their path: `networks.lan.mtu`, `machines.web.ports[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, Span>);

impl Sources {
    /// The place of a key, or of the nearest one around it that stands in the file.
    pub fn find(&self, path: &str) -> Option<Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.0.get(path) {
                return Some(*span);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// Reads and checks a project file, reporting every problem rather than only the first.
pub fn parse(source: &Source<'_>) -> Result<Parsed, Problems> {
    // A byte order mark is no part of the first line.
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(source.text);
    let mut problems = Vec::new();
    let parsed = match yaml::parse(text, &mut problems) {
        Ok(tree) => project(tree, source, &mut problems),
        Err(fatal) => {
            problems.push(*fatal);
            None
        }
    };
    match parsed {
        Some(parsed) if problems.is_empty() => Ok(parsed),
        _ => Err(Problems::new(source.file_name, text, problems)),
    }
}

fn project(mut tree: Node, source: &Source<'_>, problems: &mut Vec<Problem>) -> Option<Parsed> {
    if let Value::Mapping(entries) = &mut tree.value {
        // What is not ours may hold anything.
        entries.retain(|entry| !entry.key.starts_with("x-"));
    }
    interpolate::tree(&mut tree, "", source.env, problems);
    structure::check(&tree, shape::ROOT, "", problems);
    let spec = spec::read(&tree);
    let project = check::check(&spec, source.dir_name, problems);
    let mut sources = Sources::default();
    places(&tree, "", &mut sources);
    project.map(|project| Parsed { project, sources })
}

fn places(node: &Node, path: &str, sources: &mut Sources) {
    match &node.value {
        Value::Null | Value::Unknown | Value::Scalar(_) => {}
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                places(item, &path, sources);
                sources.0.insert(path, item.span);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                let path = join(path, &entry.key);
                places(&entry.node, &path, sources);
                sources.0.insert(path, entry.key_span);
            }
        }
    }
}

/// The path of a key under another.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
