//! Images that a project builds itself: under which names, and with which arguments. Who builds one is not ours to say.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::environment::under;
use super::leaf::container::pair;
use super::leaf::lawful_name;
use super::yaml::{Entry, Node, Value};
use super::{Dialect, Reading};
use crate::image::Reference;
use crate::name::Name;

/// How the image of a machine is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The directory that its instructions copy from.
    pub context: PathBuf,
    /// The instructions.
    pub dockerfile: Dockerfile,
    /// Values for what the instructions name as arguments.
    pub args: BTreeMap<String, String>,
    /// The stage to build; the last one where absent.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// More names for it.
    pub tags: Vec<Reference>,
    /// Files that instructions may read while they run, by their names.
    pub secrets: BTreeMap<String, PathBuf>,
    /// Whether all is done anew, whatever is known of earlier builds.
    pub no_cache: bool,
    /// Whether the images that it starts from are pulled anew.
    pub pull: bool,
}

/// Where instructions stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dockerfile {
    /// In this file.
    File(PathBuf),
    /// In the project file itself: this is their text.
    Inline(String),
}

/// Gives machines that are built and name no image the name that their image gets, as Compose does, and fills in
/// arguments without a value from the environment; those that are not there are left out.
pub(crate) fn gather(tree: &mut Node, machines: &str, reading: &Reading<'_>) {
    let project = project_name(tree, reading);
    for entry in under(tree, machines) {
        let machine = entry.key.clone();
        let Value::Mapping(keys) = &mut entry.node.value else { continue };
        let Some(build) = keys.iter_mut().find(|key| key.key == "build") else { continue };
        let span = build.key_span;
        if let Value::Mapping(build) = &mut build.node.value
            && let Some(args) = build.iter_mut().find(|key| key.key == "args")
        {
            args.node.value = Value::Mapping(filled(&args.node, reading));
        }
        let has_image = keys.iter().any(|key| key.key == "image");
        if let Some(project) = project.as_ref().filter(|_| !has_image) {
            let node = Node { span, value: Value::Scalar(format!("{project}-{machine}")) };
            keys.push(Entry { key: "image".to_owned(), key_span: span, node });
        }
    }
}

/// The arguments as a mapping in which each has a value.
fn filled(args: &Node, reading: &Reading<'_>) -> Vec<Entry> {
    let pairs: Vec<(String, Option<String>, &Node)> = match &args.value {
        Value::Sequence(items) => items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Scalar(text) => pair(text).ok().map(|(name, value)| (name, value, item)),
                Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => None,
            })
            .collect(),
        Value::Mapping(entries) => entries
            .iter()
            .map(|entry| match &entry.node.value {
                Value::Scalar(value) => (entry.key.clone(), Some(value.clone()), &entry.node),
                Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => {
                    (entry.key.clone(), None, &entry.node)
                }
            })
            .collect(),
        Value::Null | Value::Unknown | Value::Scalar(_) => Vec::new(),
    };
    let filled = pairs.into_iter().filter_map(|(key, value, node)| {
        let value = value.or_else(|| reading.source.env.get(&key).cloned())?;
        let key_span = node.span;
        Some(Entry { key, key_span, node: Node { span: node.span, value: Value::Scalar(value) } })
    });
    super::environment::last_of_each(filled)
}

/// The project's name, as the check finds it later.
fn project_name(tree: &Node, reading: &Reading<'_>) -> Option<Name> {
    if let Some(name) = reading.source.called {
        return Some(name.clone());
    }
    let Value::Mapping(entries) = &tree.value else { return None };
    let variable = reading.source.env.get(super::compose::PROJECT_NAME).filter(|name| !name.is_empty());
    let variable = variable.filter(|_| reading.dialect == Dialect::Compose).cloned();
    let written =
        entries.iter().find(|entry| entry.key == "name").and_then(|entry| match &entry.node.value {
            Value::Scalar(name) => Some(name.clone()),
            Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => None,
        });
    let directory = || Some(reading.source.dir.file_name()?.to_string_lossy().into_owned());
    lawful_name(&variable.or(written).or_else(directory)?)
}
