//! Files of the Compose specification, as they are: a tree that fits [`table`] becomes one of our own, in which services
//! are machines of kind container. Every part keeps its place. What cannot be honoured was refused by name before that,
//! or is here; nothing is left out in silence but `version`, `expose` and what else is documentation by specification.

mod ahead;
mod bound;
mod link;
mod mode;
mod network;
mod published;
mod service;
mod table;
mod value;

pub use value::ports_of_docker;

use std::collections::BTreeMap;

use super::leaf::{Leaf, Wrong, lawful_name};
use super::problem::{Problem, Span, quote};
use super::shape::{Form, Keys, Shape};
use super::yaml::{Entry, Node, Value};
use super::{Reading, join};
use crate::name::Name;

pub(super) use ahead::{PROJECT_NAME, Resting, owners, warn_of_shells, with_project_name};
pub(super) use published::reference;
pub(super) use table::ROOT;

/// Takes out the keys that start with `x-`, where Compose lets them stand.
pub(super) fn strip(tree: &mut Node) {
    super::without_extensions(tree);
    let Value::Mapping(entries) = &mut tree.value else { return };
    let groups = ["services", "networks", "volumes", "secrets", "configs"];
    for group in entries.iter_mut().filter(|entry| groups.contains(&entry.key.as_str())) {
        let Value::Mapping(named) = &mut group.node.value else { continue };
        for entry in named {
            super::without_extensions(&mut entry.node);
            let Value::Mapping(keys) = &mut entry.node.value else { continue };
            let inner = ["deploy", "healthcheck", "ipam", "build", "logging"];
            let inner = keys.iter_mut().filter(|key| inner.contains(&key.key.as_str()));
            inner.for_each(|key| super::without_extensions(&mut key.node));
            let parted = ["networks", "depends_on", "ports", "volumes", "secrets", "configs"];
            for key in keys.iter_mut().filter(|key| parted.contains(&key.key.as_str())) {
                match &mut key.node.value {
                    Value::Mapping(parts) => {
                        parts.iter_mut().for_each(|part| super::without_extensions(&mut part.node));
                    }
                    Value::Sequence(parts) => parts.iter_mut().for_each(super::without_extensions),
                    Value::Null | Value::Unknown | Value::Scalar(_) => {}
                }
            }
        }
    }
}

/// Keys of services for which Compose takes an empty text as if it were not there; variables make such ones.
const EMPTY_IS_NOTHING: [&str; 8] =
    ["user", "hostname", "working_dir", "platform", "stop_signal", "restart", "cpuset", "container_name"];

/// Takes out keys of services that say nothing by an empty text.
pub(super) fn strip_empty(tree: &mut Node) {
    // Of a user and a group that are both variables, and not set, a colon is left.
    let empty = |entry: &Entry| matches!(&entry.node.value, Value::Scalar(text) if text.is_empty() || (entry.key == "user" && text == ":"));
    for service in super::environment::under(tree, "services") {
        if let Value::Mapping(keys) = &mut service.node.value {
            keys.retain(|entry| !(empty(entry) && EMPTY_IS_NOTHING.contains(&entry.key.as_str())));
        }
    }
}

/// Writes flags in the one way that there is here, as Compose takes those of YAML 1.1 as well, and takes out what changes
/// nothing; both with a warning.
pub(super) fn loosen(node: &mut Node, shape: Shape, path: &str, warnings: &mut Vec<Problem>) {
    for form in shape {
        match (form, &mut node.value) {
            (Form::Leaf(Leaf::Flag | Leaf::Only { word: "true" | "false", .. }), Value::Scalar(text)) => {
                let lower = text.to_ascii_lowercase();
                let flag = match lower.as_str() {
                    "true" | "y" | "yes" | "on" => "true",
                    "false" | "n" | "no" | "off" => "false",
                    _ => return,
                };
                if lower != flag {
                    let message = format!("{} is taken for `{flag}`, as YAML 1.1 had it", quote(text));
                    let warning = Problem::found(node.span, path, text, message);
                    warnings.push(warning.hint(format!("write `{flag}`")));
                }
                flag.clone_into(text);
            }
            (Form::List(items) | Form::Set(items), Value::Sequence(nodes)) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    loosen(node, items, &format!("{path}[{index}]"), warnings);
                }
            }
            (Form::Keys(keys), Value::Mapping(entries)) => {
                inert(entries, keys, path, warnings);
                for Entry { key, node, .. } in entries {
                    let known = keys.iter().flat_map(|group| group.iter()).find(|known| known.name == key);
                    if let Some(known) = known {
                        loosen(node, known.shape, &join(path, key), warnings);
                    }
                }
            }
            (Form::Map(_, shape), Value::Mapping(entries)) => {
                for Entry { key, node, .. } in entries {
                    loosen(node, shape, &join(path, key), warnings);
                }
            }
            _ => {}
        }
    }
}

/// Takes out the keys that change nothing.
fn inert(entries: &mut Vec<Entry>, keys: Keys, path: &str, warnings: &mut Vec<Problem>) {
    entries.retain(|Entry { key, key_span, node }| {
        let known = keys.iter().flat_map(|group| group.iter()).find(|known| known.name == key);
        let Some([Form::Inert(why)]) = known.map(|known| known.shape) else { return true };
        if matches!(&node.value, Value::Scalar(text) if text == "false") {
            return false;
        }
        let message = format!("{} changes nothing: {why}", quote(key));
        let warning = Problem::found(*key_span, &join(path, key), key, message);
        warnings.push(warning.hint("leave it out"));
        false
    });
}

/// The same project in our own words.
pub(super) fn translate(tree: Node, reading: &mut Reading<'_>) -> Node {
    let Value::Mapping(entries) = tree.value else { return tree };
    // Where an address is not said, Compose publishes on all of this computer.
    let publish = mapping(tree.span, vec![text("publish", tree.span, "0.0.0.0")]);
    let mut ours = vec![entry("defaults", tree.span, publish)];
    ours.extend(project_name(&entries, tree.span, reading));
    let bound = bound::read(&entries, reading);
    for Entry { key, key_span, node } in entries {
        match key.as_str() {
            "services" => {
                let mut machines = service::all(node, reading);
                bound::put(&mut machines, &bound);
                ours.push(entry("machines", key_span, machines));
            }
            "networks" => ours.push(entry("networks", key_span, network::all(node, reading))),
            "volumes" => ours.push(entry("volumes", key_span, volumes(node, &bound, reading))),
            "secrets" | "configs" => ours.push(Entry { key, key_span, node }),
            // `version` says nothing, and `name` has been read.
            _ => {}
        }
    }
    Node { span: tree.span, value: Value::Mapping(ours) }
}

/// The variable that names the project wins over the file, as in Compose.
fn project_name(entries: &[Entry], span: Span, reading: &mut Reading<'_>) -> Option<Entry> {
    if let Some(name) = reading.source.called {
        return Some(text("name", span, name.as_str()));
    }
    let variable = reading.source.env.get(PROJECT_NAME).filter(|name| !name.is_empty());
    let written = entries.iter().find(|entry| entry.key == "name");
    let (name, span) = match (variable, written.map(|entry| (&entry.node.value, entry.node.span))) {
        (Some(name), Some((Value::Scalar(written), span))) if name == written => (name, span),
        (Some(name), _) => (name, span),
        (None, Some((Value::Scalar(name), span))) => (name, span),
        (None, _) => return None,
    };
    match lawful_name(name) {
        Some(name) => Some(text("name", span, name.as_str())),
        None => {
            let wrong = Wrong::found(format!("{} cannot name the project", quote(name)));
            reading.problems.push(wrong.hint("a name has `a-z`, `0-9` and `-`").at(span, "name", name));
            None
        }
    }
}

fn volumes(node: Node, bound: &bound::Bound, reading: &mut Reading<'_>) -> Node {
    let named = renamed(node, "volumes", value::resource, reading);
    // But for its size only what says the usual was let through.
    let made = named.into_iter().filter(|(name, _)| !bound.contains_key(name));
    let ours = made.map(|(name, volume)| {
        let path = join("volumes", &volume.key);
        entry(name.as_str(), volume.key_span, one_volume(volume.node, volume.key_span, &path, reading))
    });
    mapping(Span::default(), ours.collect())
}

/// But for its size, and whose it is, only what says the usual was let through.
fn one_volume(node: Node, span: Span, path: &str, reading: &mut Reading<'_>) -> Node {
    let Value::Mapping(keys) = node.value else { return mapping(span, Vec::new()) };
    let mut ours = Vec::new();
    for Entry { key, key_span, node } in keys {
        match (key.as_str(), node.value) {
            ("driver_opts", Value::Mapping(options)) => {
                ours.extend(options.into_iter().filter(|option| option.key == "size"));
            }
            (word, value) => ours.extend(external(word, key_span, Node { value, ..node })),
        }
    }
    whose(&mut ours, path, ("volume", SHARED_VOLUME), reading);
    mapping(span, ours)
}

const SHARED_VOLUME: &str =
    "leave it out; one that projects share is made by `stead volume create`, and `external: true` in each";

/// Whose a volume or a network is, in our words; nothing of what else is said of it.
fn external(key: &str, span: Span, node: Node) -> Vec<Entry> {
    match (key, node.value) {
        // As it was written before there was `name`.
        ("external", Value::Mapping(keys)) => {
            let name = keys.into_iter().filter(|key| key.key == "name");
            [text("external", span, "true")].into_iter().chain(name).collect()
        }
        ("external" | "name", value) => {
            vec![Entry { key: key.to_owned(), key_span: span, node: Node { value, ..node } }]
        }
        _ => Vec::new(),
    }
}

/// Whether it is another project's, by what is said of that. The `name` of one that is not is not heeded, and told.
fn whose(ours: &mut Vec<Entry>, path: &str, (what, hint): (&str, &str), reading: &mut Reading<'_>) -> bool {
    let is_external = ours.iter().any(|key| key.key == "external" && is_true(&key.node));
    if !is_external {
        for name in ours.extract_if(.., |key| key.key == "name") {
            let message = format!(
                "`name` is not heeded: the {what} is the project's own, by the name that it has in this file, and shared with no other"
            );
            let warning = Problem::found(name.key_span, path, "name", message);
            reading.warnings.push(warning.hint(hint));
        }
    }
    if let [_, again, ..] = ours.iter().filter(|key| key.key == "name").collect::<Vec<_>>().as_slice() {
        let problem = Problem::found(again.key_span, path, "name", format!("the {what} is named twice"));
        reading.problems.push(problem.hint("leave `external.name` out, and write `external: true`"));
    }
    is_external
}

/// The entries of a mapping under our names for them. Two that come to one name are told.
fn renamed(
    node: Node,
    path: &str,
    ours: impl Fn(&str) -> Result<Name, Wrong>,
    reading: &mut Reading<'_>,
) -> Vec<(Name, Entry)> {
    let Value::Mapping(entries) = node.value else { return Vec::new() };
    let mut known: BTreeMap<Name, String> = BTreeMap::new();
    let mut named = Vec::new();
    for entry in entries {
        let Ok(name) = ours(&entry.key) else { continue };
        if let Some(other) = known.insert(name.clone(), entry.key.clone()) {
            let message = format!("{} and {} are both `{name}` here", quote(&other), quote(&entry.key));
            let problem = Problem::found(entry.key_span, &join(path, &entry.key), &entry.key, message);
            reading.problems.push(problem.hint("rename one of them"));
        }
        named.push((name, entry));
    }
    named
}

fn entry(key: &str, span: Span, node: Node) -> Entry {
    Entry { key: key.to_owned(), key_span: span, node }
}

fn text(key: &str, span: Span, value: &str) -> Entry {
    entry(key, span, Node { span, value: Value::Scalar(value.to_owned()) })
}

fn mapping(span: Span, entries: Vec<Entry>) -> Node {
    Node { span, value: Value::Mapping(entries) }
}

/// Whether a value is `true`.
fn is_true(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(text) if text == "true")
}
