//! The environment of machines: `environment` and what `env_file` names, as one mapping. Later files win over earlier
//! ones, `environment` over all, as in Compose. So do `labels` and what `label_file` names.

use std::collections::{BTreeMap, BTreeSet};

use super::dotenv::{self, Bare};
use super::leaf::container::pair;
use super::problem::{Problem, Span, quote};
use super::yaml::{Entry, NODES_MAX, Node, Value};
use super::{FileText, Reading, join, merge};

/// Puts one mapping for both keys of each machine under `tree`'s key `machines`.
///
/// The files of machines that no profile brings are not read: they need not be there.
pub(crate) fn gather(tree: &mut Node, machines: &str, reading: &mut Reading<'_>) {
    let active = reading.profiles();
    let mut values = 0;
    for entry in under(tree, machines) {
        let path = join(machines, &entry.key);
        if values > NODES_MAX {
            let message = format!(
                "the machines have more than {NODES_MAX} variables and labels with those of their files"
            );
            let problem = Problem::found(entry.key_span, &path, &entry.key, message);
            reading.problems.push(problem.hint("leave some out, or mount a file with them"));
            return;
        }
        let Value::Mapping(keys) = &mut entry.node.value else { continue };
        let is_wanted = is_wanted(keys, &active);
        let mut of_files = |key: &str, bare: Bare| {
            let files = take(keys, key).filter(|_| is_wanted);
            let files = files.map(|files| wanted(&files.node, &join(&path, key))).unwrap_or_default();
            let found: Found = files.iter().flat_map(|wanted| file(wanted, bare, reading)).collect();
            values += found.len();
            found
        };
        let variables = of_files("env_file", Bare::Passed);
        let labels = of_files("label_file", Bare::PassedToLabel);
        add_variables(keys, variables, &path, reading);
        add_labels(keys, labels);
    }
}

fn take(keys: &mut Vec<Entry>, key: &str) -> Option<Entry> {
    keys.iter().position(|entry| entry.key == key).map(|at| keys.remove(at))
}

fn add_variables(keys: &mut Vec<Entry>, mut found: Found, path: &str, reading: &mut Reading<'_>) {
    let Some(own) = take(keys, "environment") else {
        insert(keys, "environment", found);
        return;
    };
    let (span, unknown) = (own.key_span, own.node.value == Value::Unknown);
    found.extend(listed(own.node, &join(path, "environment"), reading));
    if !unknown {
        insert(keys, "environment", found);
        keys.iter_mut().filter(|key| key.key == "environment").for_each(|key| key.key_span = span);
    }
}

fn add_labels(keys: &mut Vec<Entry>, found: Found) {
    let own = if found.is_empty() { None } else { take(keys, "labels") };
    insert(keys, "labels", found);
    let labels = keys.iter_mut().find(|key| key.key == "labels");
    if let (Some(labels), Some(own)) = (labels, own) {
        let of_files = std::mem::replace(&mut labels.node.value, Value::Null);
        let of_files = Node { span: labels.node.span, value: of_files };
        *labels = Entry { node: merge::labels(of_files, own.node), ..own };
    }
}

fn is_wanted(machine: &[Entry], active: &BTreeSet<String>) -> bool {
    match machine.iter().find(|key| key.key == "profiles").map(|key| &key.node.value) {
        Some(Value::Sequence(profiles)) if !profiles.is_empty() && !active.contains("*") => profiles
            .iter()
            .any(|profile| matches!(&profile.value, Value::Scalar(name) if active.contains(name))),
        _ => true,
    }
}

/// The entries under a key of the outermost level.
pub(crate) fn under<'t>(tree: &'t mut Node, key: &str) -> &'t mut [Entry] {
    let Value::Mapping(entries) = &mut tree.value else { return &mut [] };
    match entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node.value) {
        Some(Value::Mapping(entries)) => entries,
        _ => &mut [],
    }
}

/// Variables with the places that they come from.
pub(crate) type Found = Vec<(String, Node)>;

fn insert(keys: &mut Vec<Entry>, key: &str, found: Found) {
    let Some(span) = found.first().map(|(_, node)| node.span) else { return };
    let entries = found.into_iter().map(|(key, node)| Entry { key, key_span: node.span, node });
    let node = Node { span, value: Value::Mapping(last_of_each(entries)) };
    keys.push(Entry { key: key.to_owned(), key_span: span, node });
}

/// The entries with the last one of each key, where its first one stands.
pub(crate) fn last_of_each(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries {
        match places.get(&entry.key).and_then(|place| kept.get_mut(*place)) {
            Some(known) => *known = entry,
            None => {
                places.insert(entry.key.clone(), kept.len());
                kept.push(entry);
            }
        }
    }
    kept
}

/// A file of variables that a machine names.
struct Wanted {
    name: String,
    required: bool,
    is_raw: bool,
    span: Span,
    path: String,
}

fn wanted(node: &Node, path: &str) -> Vec<Wanted> {
    let one = |node: &Node, path: String| match &node.value {
        Value::Scalar(name) => {
            Some(Wanted { name: name.clone(), required: true, is_raw: false, span: node.span, path })
        }
        Value::Mapping(keys) => {
            let text = |wanted: &str| keys.iter().find(|key| key.key == wanted).map(|key| &key.node.value);
            let Some(Value::Scalar(name)) = text("path") else { return None };
            let required = text("required") != Some(&Value::Scalar("false".to_owned()));
            let is_raw = text("format") == Some(&Value::Scalar("raw".to_owned()));
            Some(Wanted { name: name.clone(), required, is_raw, span: node.span, path })
        }
        Value::Null | Value::Unknown | Value::Sequence(_) => None,
    };
    match &node.value {
        Value::Sequence(items) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| one(item, format!("{path}[{index}]")))
            .collect(),
        Value::Null | Value::Unknown | Value::Scalar(_) | Value::Mapping(_) => {
            one(node, path.to_owned()).into_iter().collect()
        }
    }
}

fn file(wanted: &Wanted, bare: Bare, reading: &mut Reading<'_>) -> Found {
    let Wanted { name, span, path, .. } = wanted;
    let problem = |message: String| Problem::found(*span, path, name, message);
    let text = match reading.file(name) {
        Ok(FileText::Text(text)) => text,
        Ok(FileText::Missing) if !wanted.required => return Vec::new(),
        Ok(FileText::Missing) => {
            let told = problem(format!("there is no file {}", quote(name)));
            reading.problems.push(told.hint(match bare {
                Bare::Passed => "write it, or `{ path: …, required: false }`",
                Bare::PassedToLabel | Bare::Refused => super::WRITE_IT,
            }));
            return Vec::new();
        }
        Ok(FileText::Unreadable(why)) => {
            let told = problem(format!("{} cannot be read: {why}", quote(name)));
            reading.problems.push(told.hint(super::READABLE));
            return Vec::new();
        }
        Err(wrong) => {
            reading.problems.push(wrong.at(*span, path, name));
            return Vec::new();
        }
    };
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let found = if wanted.is_raw {
        dotenv::raw(&text, reading.source.env, &mut problems)
    } else {
        let mut scope = reading.scope(reading.source.env);
        dotenv::read(&text, &mut scope, bare, (&mut problems, &mut warnings)).found
    };
    reading.elsewhere(name, (*span, path), problems, warnings);
    let node = |value| Node { span: *span, value: Value::Scalar(value) };
    found.into_iter().map(|(name, value)| (name, node(value))).collect()
}

/// What `environment` says: a mapping, or a list of `NAME=value`. Names alone are passed on from outside.
pub(crate) fn listed(node: Node, path: &str, reading: &mut Reading<'_>) -> Found {
    let pairs: Vec<(String, Option<String>, Span)> = match node.value {
        Value::Mapping(entries) => {
            let known = |entry: &Entry| {
                !matches!(entry.node.value, Value::Unknown | Value::Sequence(_) | Value::Mapping(_))
            };
            let entries = entries.into_iter().filter(known);
            entries
                .map(|Entry { key, key_span, node }| match node.value {
                    Value::Scalar(value) => (key, Some(value), key_span),
                    Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => {
                        (key, None, key_span)
                    }
                })
                .collect()
        }
        Value::Sequence(items) => {
            let read = |item: Node| match &item.value {
                Value::Scalar(text) => pair(text).ok().map(|(name, value)| (name, value, item.span)),
                Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => None,
            };
            items.into_iter().filter_map(read).collect()
        }
        Value::Null | Value::Unknown | Value::Scalar(_) => Vec::new(),
    };
    let mut found = Vec::new();
    for (name, value, span) in pairs {
        match value.or_else(|| reading.source.env.get(&name).cloned()) {
            Some(value) => found.push((name, Node { span, value: Value::Scalar(value) })),
            // Compose leaves it out without a word.
            None if reading.unread.contains(&name) => {}
            None if reading.dialect == super::Dialect::Compose => {}
            None => {
                let message = format!("the variable {} is not set", quote(&name));
                let problem = Problem::found(span, &join(path, &name), &name, message);
                reading
                    .problems
                    .push(problem.hint("set it, or give it a value here; `\"\"` is an empty one"));
            }
        }
    }
    found
}
