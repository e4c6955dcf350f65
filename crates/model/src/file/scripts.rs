//! The scripts that are run in machines: where the file names another one that has the text, and variables that have their
//! values from outside.

use super::environment::{listed, under};
use super::leaf::Wrong;
use super::problem::quote;
use super::yaml::{Entry, Node, Value};
use super::{FileText, Reading, join};

/// Puts in place of each path of a file what stands in that, and in place of names of variables those with their values.
pub(crate) fn gather(tree: &mut Node, machines: &str, reading: &mut Reading<'_>) {
    for entry in under(tree, machines) {
        let path = join(&join(machines, &entry.key), "provision");
        let Value::Mapping(keys) = &mut entry.node.value else { continue };
        let Some(scripts) = keys.iter_mut().find(|key| key.key == "provision") else { continue };
        let Value::Sequence(items) = &mut scripts.node.value else { continue };
        for (place, item) in items.iter_mut().enumerate() {
            let span = item.span;
            if let Value::Mapping(keys) = &mut item.value {
                let path = format!("{path}[{place}]");
                if let Err(wrong) = settle(keys, &path, reading) {
                    reading.problems.push(wrong.at(span, &path, ""));
                }
            }
        }
    }
}

fn settle(keys: &mut [Entry], path: &str, reading: &mut Reading<'_>) -> Result<(), Wrong> {
    if let Some(environment) = keys.iter_mut().find(|key| key.key == "environment") {
        let span = environment.node.span;
        let said = std::mem::replace(&mut environment.node, Node { span, value: Value::Null });
        let entries = listed(said, &join(path, "environment"), reading);
        let entry = |(key, node): (String, Node)| Entry { key, key_span: span, node };
        environment.node.value = Value::Mapping(entries.into_iter().map(entry).collect());
    }
    let has = |key: &str| keys.iter().any(|entry| entry.key == key);
    match (has("run"), has("path")) {
        (true, false) => return Ok(()),
        (false, true) => {}
        (true, true) => {
            let wrong = Wrong::found("`run` and `path` both say what is run");
            return Err(wrong.hint("leave one of them out"));
        }
        (false, false) => {
            return Err(Wrong::found("nothing says what is run").hint("write `run:` or `path:`"));
        }
    }
    let Some(named) = keys.iter_mut().find(|key| key.key == "path") else { return Ok(()) };
    // What is no text was told.
    let Value::Scalar(name) = &named.node.value else { return Ok(()) };
    let why = match reading.file(name)? {
        FileText::Text(text) if text.contains('\0') => format!("{} is no text", quote(name)),
        FileText::Text(text) => {
            named.node.value = Value::Scalar(text);
            "run".clone_into(&mut named.key);
            return Ok(());
        }
        FileText::Missing => format!("there is no file {}", quote(name)),
        FileText::Unreadable(why) => format!("cannot read {}: {why}", quote(name)),
    };
    Err(Wrong::found(why).hint("it is relative to this file; or write the script itself, as `run: |`"))
}
