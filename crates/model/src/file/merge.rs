//! How what a machine says goes together with what it extends, and a file with one that goes over it, as Compose has it: mappings key by key, lists one after
//! the other, what stands at one place of the machine replaced, commands replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::environment::last_of_each;
use super::leaf::container::device;
use super::leaf::mount::{tmpfs, volume};
use super::yaml::{Entry, Node, Value};

/// What a file has by name.
const GROUPS: [&str; 6] = ["machines", "services", "networks", "volumes", "secrets", "configs"];

/// A file over another: what has one name in both goes together as a machine does with the one that it extends.
pub(crate) fn files(base: Node, own: Node) -> Node {
    // Of a file with nothing in it there is nothing to say.
    if own.value == Value::Null {
        return base;
    }
    let named = |_: &str, base, own: Node| if own.value == Value::Null { base } else { merge(base, own) };
    merge_by(base, own, |key, base, own| {
        if own.value != Value::Null && GROUPS.contains(&key) {
            merge_by(names(base), names(own), named)
        } else {
            both(key, base, own)
        }
    })
}

/// A machine over the one that it extends.
pub(crate) fn merge(base: Node, own: Node) -> Node {
    merge_by(base, own, both)
}

/// Mappings over each other, where `both` says what becomes of a key that is in both. What is below comes first: networks
/// are in their order.
fn merge_by(base: Node, own: Node, both: impl Fn(&str, Node, Node) -> Node) -> Node {
    let (span, own) = (own.span, own.value);
    let (Value::Mapping(above), Value::Mapping(mut entries)) = (own.clone(), base.value) else {
        return Node { span, value: own };
    };
    let places: BTreeMap<String, usize> =
        entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
    for own in above {
        match places.get(&own.key).and_then(|place| entries.get_mut(*place)) {
            None => entries.push(own),
            Some(entry) => {
                let value = std::mem::replace(&mut entry.node.value, Value::Null);
                let below = Node { span: entry.node.span, value };
                *entry = Entry { node: both(&own.key, below, own.node), ..own };
            }
        }
    }
    Node { span, value: Value::Mapping(entries) }
}

fn both(key: &str, base: Node, own: Node) -> Node {
    if own.value == Value::Null {
        return base;
    }
    match key {
        "command" | "entrypoint" | "test" => own,
        "environment" | "labels" | "sysctls" | "args" => joined(pairs(base, &['=']), pairs(own, &['='])),
        "build" => joined(context(base), context(own)),
        "extra_hosts" => joined(pairs(base, &['=', ':']), pairs(own, &['=', ':'])),
        "networks" | "depends_on" => joined(names(base), names(own)),
        "tmpfs" => placed(list(base), list(own), tmpfs_target),
        "dns" | "dns_search" | "env_file" => joined(list(base), list(own)),
        "volumes" => placed(base, own, volume_target),
        "devices" => placed(base, own, device_target),
        _ => joined(base, own),
    }
}

/// Mappings key by key, lists one after the other without what comes twice; otherwise what is on top.
fn joined(base: Node, own: Node) -> Node {
    match (base.value, own.value) {
        (Value::Mapping(base_entries), value @ Value::Mapping(_)) => {
            let base = Node { span: base.span, value: Value::Mapping(base_entries) };
            merge(base, Node { span: own.span, value })
        }
        (Value::Sequence(mut items), Value::Sequence(more)) => {
            let scalar = |item: &Node| match &item.value {
                Value::Scalar(text) => Some(text.clone()),
                Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => None,
            };
            let known: BTreeSet<String> = items.iter().filter_map(scalar).collect();
            items.extend(
                more.into_iter().filter(|item| scalar(item).is_none_or(|text| !known.contains(&text))),
            );
            Node { span: own.span, value: Value::Sequence(items) }
        }
        (_, value) => Node { span: own.span, value },
    }
}

/// Lists in which only one thing can be at each place.
fn placed(base: Node, own: Node, place: impl Fn(&Node) -> Option<String>) -> Node {
    let taken: BTreeSet<String> = match &own.value {
        Value::Sequence(items) => items.iter().filter_map(&place).collect(),
        Value::Null | Value::Unknown | Value::Scalar(_) | Value::Mapping(_) => BTreeSet::new(),
    };
    let mut base = base;
    if let Value::Sequence(items) = &mut base.value {
        items.retain(|item| place(item).is_none_or(|place| !taken.contains(&place)));
    }
    joined(base, own)
}

fn under(item: &Node, keys: &[&str]) -> Option<String> {
    let Value::Mapping(entries) = &item.value else { return None };
    let found = keys.iter().find_map(|key| entries.iter().find(|entry| entry.key == *key))?;
    if let Value::Scalar(text) = &found.node.value { Some(text.clone()) } else { None }
}

fn volume_target(item: &Node) -> Option<String> {
    match &item.value {
        Value::Scalar(text) => volume(text).ok().map(|volume| volume.target),
        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => under(item, &["target"]),
    }
}

fn tmpfs_target(item: &Node) -> Option<String> {
    if let Value::Scalar(text) = &item.value { tmpfs(text).ok().map(|tmpfs| tmpfs.target) } else { None }
}

fn device_target(item: &Node) -> Option<String> {
    match &item.value {
        Value::Scalar(text) => device(text).ok().map(|device| device.target),
        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => {
            under(item, &["target", "source"])
        }
    }
}

/// A list of `NAME=value` as a mapping.
fn pairs(node: Node, separators: &[char]) -> Node {
    let Value::Sequence(items) = node.value else { return node };
    let read = |item: Node| {
        let Value::Scalar(text) = &item.value else { return None };
        let (key, value) = match text.split_once(separators) {
            Some((key, value)) => (key.to_owned(), Value::Scalar(value.to_owned())),
            None => (text.clone(), Value::Null),
        };
        Some(Entry { key, key_span: item.span, node: Node { span: item.span, value } })
    };
    let entries = last_of_each(items.into_iter().filter_map(read));
    Node { span: node.span, value: Value::Mapping(entries) }
}

/// A list of names as a mapping with nothing under them.
pub(crate) fn names(node: Node) -> Node {
    pairs(node, &[])
}

/// A build that is no more than its directory, with a key for that.
fn context(node: Node) -> Node {
    match &node.value {
        Value::Scalar(_) => {
            let (span, key) = (node.span, "context".to_owned());
            Node { span, value: Value::Mapping(vec![Entry { key, key_span: span, node }]) }
        }
        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => node,
    }
}

/// A single value as a list of it.
fn list(node: Node) -> Node {
    match &node.value {
        Value::Scalar(_) => Node { span: node.span, value: Value::Sequence(vec![node]) },
        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => node,
    }
}
