//! Checks a tree against the table of [`super::shape`], whatever it means: keys that exist, the kinds of
//! value, each value's own form, nothing twice in a list of different things.

use std::collections::BTreeSet;

use super::join;
use super::leaf::{Leaf, Wrong};
use super::problem::{PROBLEMS_MAX, Problem, nearest, quote};
use super::shape::{Form, Key, Keys, Shape};
use super::yaml::{Entry, Node, Value};

/// Reports all that is wrong with `node`, which stands at `path`.
pub(crate) fn check(node: &Node, shape: Shape, path: &str, problems: &mut Vec<Problem>) {
    under(node, shape, (path, ""), problems);
}

/// Reports what stands twice where nothing may, whether or not it will be used, and leaves it open after that.
pub(crate) fn once(node: &mut Node, shape: Shape, path: &str, problems: &mut Vec<Problem>) {
    for form in shape {
        match (form, &mut node.value) {
            (Form::Set(items), Value::Sequence(nodes)) => {
                let mut known = BTreeSet::new();
                for (index, node) in nodes.iter_mut().enumerate() {
                    let path = format!("{path}[{index}]");
                    once(node, items, &path, problems);
                    if written(node).is_some_and(|text| !known.insert(text)) {
                        problems.push(twice(node, &path));
                        node.value = Value::Unknown;
                    }
                }
            }
            (Form::List(items), Value::Sequence(nodes)) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    once(node, items, &format!("{path}[{index}]"), problems);
                }
            }
            (Form::Keys(keys), Value::Mapping(entries)) => {
                for Entry { key, node, .. } in entries {
                    if let Some(known) = all(keys).find(|known| known.name == key.as_str()) {
                        once(node, known.shape, &join(path, key), problems);
                    }
                }
            }
            (Form::Map(_, shape), Value::Mapping(entries)) => {
                for Entry { key, node, .. } in entries {
                    once(node, shape, &join(path, key), problems);
                }
            }
            (
                Form::Leaf(_)
                | Form::List(_)
                | Form::Set(_)
                | Form::Keys(_)
                | Form::Map(..)
                | Form::Nothing
                | Form::Ignored
                | Form::Inert(_)
                | Form::Refused(..),
                Value::Null | Value::Unknown | Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_),
            ) => {}
        }
    }
}

fn twice(node: &Node, path: &str) -> Problem {
    let (what, text) = match &node.value {
        Value::Scalar(text) => (quote(text), text.as_str()),
        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => ("this".to_owned(), ""),
    };
    Problem::found(node.span, path, text, format!("{what} stands here twice")).hint("leave one of them out")
}

/// What stands there, in one form whatever the order of keys; nothing if not all of it is known.
fn written(node: &Node) -> Option<String> {
    match &node.value {
        Value::Unknown => None,
        Value::Null => Some("~".to_owned()),
        Value::Scalar(text) => Some(format!("{text:?}")),
        Value::Sequence(nodes) => {
            let parts: Option<Vec<String>> = nodes.iter().map(written).collect();
            Some(format!("[{}]", parts?.join(",")))
        }
        Value::Mapping(entries) => {
            let part = |entry: &Entry| Some(format!("{:?}:{}", entry.key, written(&entry.node)?));
            let parts: Option<BTreeSet<String>> = entries.iter().map(part).collect();
            Some(format!("{{{}}}", parts?.into_iter().collect::<Vec<_>>().join(",")))
        }
    }
}

/// The same, where `example` is what may stand there, if that is known.
fn under(node: &Node, shape: Shape, (path, example): (&str, &str), problems: &mut Vec<Problem>) {
    // What nobody will read is not worth the search for what was meant.
    if problems.len() >= PROBLEMS_MAX {
        return;
    }
    for form in shape {
        match (form, &node.value) {
            (_, Value::Unknown) | (Form::Ignored | Form::Inert(_) | Form::Refused(..), _) => return,
            (Form::Leaf(leaf), Value::Scalar(text)) => {
                if let Err(wrong) = leaf.check(text) {
                    let wrong = with_key(*leaf, wrong, path, text);
                    problems.push(wrong.at(node.span, path, text));
                }
                return;
            }
            (Form::List(items) | Form::Set(items), Value::Sequence(nodes)) => {
                for (index, node) in nodes.iter().enumerate() {
                    check(node, items, &format!("{path}[{index}]"), problems);
                }
                return;
            }
            (Form::Keys(keys), Value::Mapping(entries)) => {
                return mapping(node, entries, keys, path, problems);
            }
            // Nothing there stands for an empty list or mapping, if that is enough.
            (Form::Keys(keys), Value::Null) => return mapping(node, &[], keys, path, problems),
            (Form::List(_) | Form::Set(_) | Form::Map(..) | Form::Nothing, Value::Null) => return,
            (Form::Map(names, shape), Value::Mapping(entries)) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    if let Err(wrong) = names.check(&entry.key) {
                        problems.push(wrong.at(entry.key_span, &path, &entry.key));
                    }
                    check(&entry.node, shape, &path, problems);
                }
                return;
            }
            (
                Form::Leaf(_) | Form::List(_) | Form::Set(_) | Form::Keys(_) | Form::Map(..) | Form::Nothing,
                Value::Null | Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_),
            ) => {}
        }
    }
    problems.push(unfit(node, shape, path, example));
}

/// What cannot be honoured is the value of this key, and not anywhere.
fn with_key(leaf: Leaf, wrong: Wrong, path: &str, text: &str) -> Wrong {
    let key = path.rsplit('.').next().unwrap_or(path);
    if !matches!(leaf, Leaf::Only { .. }) {
        return wrong;
    }
    let said = quote(&format!("{key}: {text}"));
    Wrong::found(format!("{said} cannot be honoured")).hint(wrong.hint)
}

fn all(keys: Keys) -> impl Iterator<Item = &'static Key> {
    keys.iter().flat_map(|group| group.iter())
}

fn mapping(node: &Node, entries: &[Entry], keys: Keys, path: &str, problems: &mut Vec<Problem>) {
    for entry in entries {
        if problems.len() >= PROBLEMS_MAX {
            return;
        }
        let inner = join(path, &entry.key);
        match all(keys).find(|key| key.name == entry.key) {
            Some(key) => {
                if let [Form::Refused(why, hint)] = key.shape {
                    let wrong = Wrong::found(format!("{} cannot be honoured: {why}", quote(key.name)));
                    problems.push(wrong.hint(*hint).at(entry.key_span, &inner, &entry.key));
                }
                under(&entry.node, key.shape, (&inner, key.example), problems);
            }
            None if path.is_empty() && entry.key.starts_with("x-") => {}
            None => problems.push(unknown(&entry.key, keys, path).at(entry.key_span, &inner, &entry.key)),
        }
    }
    for key in all(keys).filter(|key| key.required) {
        if !entries.iter().any(|entry| entry.key == key.name) {
            let wrong = Wrong::found(format!("the key `{}` is missing", key.name));
            problems
                .push(wrong.hint(format!("write `{}: {}`", key.name, key.example)).at(node.span, path, ""));
        }
    }
}

/// Longer lists are not read.
const NAMES_MAX: usize = 20;

fn unknown(key: &str, keys: Keys, path: &str) -> Wrong {
    let wrong = Wrong::found(format!("there is no key {} here", quote(key)));
    let names = || all(keys).map(|key| key.name);
    match nearest(key, names()) {
        Some(name) => wrong.hint(format!("did you mean `{name}`?")),
        None if names().next().is_none() => wrong.hint("nothing can be said here yet"),
        None if path.is_empty() && nearest(key, ["services"]).is_some() => {
            wrong.hint("the services of Compose are `machines` here")
        }
        None if names().nth(NAMES_MAX).is_some() => {
            let published = all(keys).all(|key| !key.doc.is_empty());
            wrong.hint(if published { "leave it out; `stead schema` has all keys" } else { "leave it out" })
        }
        None => wrong.hint(format!("there are {}", names().collect::<Vec<_>>().join(", "))),
    }
}

fn unfit(node: &Node, shape: Shape, path: &str, example: &str) -> Problem {
    let wanted: Vec<&str> = shape
        .iter()
        .map(|form| match form {
            Form::Leaf(_) => "a single value",
            Form::List(_) | Form::Set(_) => "a list",
            Form::Keys(_) | Form::Map(..) => "a mapping",
            Form::Nothing | Form::Ignored | Form::Inert(_) | Form::Refused(..) => "nothing",
        })
        .collect();
    let (found, text) = match &node.value {
        Value::Null | Value::Unknown => ("nothing", ""),
        Value::Scalar(text) => ("", text.as_str()),
        Value::Sequence(_) => ("a list", ""),
        Value::Mapping(_) => ("a mapping", ""),
    };
    let found = if found.is_empty() { quote(text) } else { found.to_owned() };
    let place = if path.is_empty() { "the file".to_owned() } else { quote(path) };
    let message = format!("{place} takes {}, not {found}", wanted.join(" or "));
    let problem = Problem::found(node.span, path, text, message);
    match (shape.first(), &node.value) {
        (Some(Form::List(_) | Form::Set(_)), Value::Scalar(text)) => {
            problem.hint(format!("write `[{}]`", quote(text).trim_matches('`')))
        }
        (form, _) => problem.hint(instead(form, path, example)),
    }
}

/// What to write where something else is wanted.
fn instead(form: Option<&Form>, path: &str, example: &str) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    if !example.is_empty() {
        return format!("it is written like `{key}: {example}`");
    }
    match form {
        Some(Form::Leaf(Leaf::Choice([(word, _), ..]))) => format!("write `{word}`"),
        Some(Form::Leaf(Leaf::Flag)) => "write `true` or `false`".to_owned(),
        Some(Form::Leaf(Leaf::Only { word, .. })) => format!("write `{word}`, or leave it out"),
        Some(Form::Leaf(_)) => "write one text or number, or leave it out".to_owned(),
        Some(Form::List(_) | Form::Set(_)) => "write a list: each part in its line, after `- `".to_owned(),
        Some(Form::Keys(keys)) => match all(keys).next() {
            Some(Key { name, example: "", .. }) => format!("write keys under it, such as `{name}: …`"),
            Some(Key { name, example, .. }) => format!("write keys under it, such as `{name}: {example}`"),
            None => "leave out what stands under it".to_owned(),
        },
        Some(Form::Map(..)) => "write names under it, each with `:` and what it is".to_owned(),
        Some(Form::Nothing | Form::Ignored | Form::Inert(_) | Form::Refused(..)) | None => {
            "leave it out".to_owned()
        }
    }
}
