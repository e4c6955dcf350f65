//! The public keys of the users that people work as in machines, where the file names another one that has them.

use super::environment::under;
use super::extend::get_mut;
use super::leaf::Wrong;
use super::leaf::dev::is_key_file;
use super::problem::quote;
use super::yaml::{Node, Value};
use super::{FileText, Reading, join};
use crate::dev::public_keys;

/// Puts in place of each path of a file the keys that stand in that.
pub(crate) fn gather(tree: &mut Node, machines: &str, reading: &mut Reading<'_>) {
    for entry in under(tree, machines) {
        let path = join(&join(&join(machines, &entry.key), "dev"), "keys");
        let keys = get_mut(&mut entry.node, "dev").and_then(|dev| get_mut(dev, "keys"));
        let Some(keys) = keys else { continue };
        let span = keys.span;
        let said = match std::mem::replace(&mut keys.value, Value::Null) {
            Value::Sequence(items) => items,
            value @ Value::Scalar(_) => vec![Node { span, value }],
            // What cannot stand here was told.
            value @ (Value::Null | Value::Unknown | Value::Mapping(_)) => {
                keys.value = value;
                continue;
            }
        };
        let mut found = Vec::new();
        for item in said {
            let Value::Scalar(name) = &item.value else {
                found.push(item);
                continue;
            };
            if !is_key_file(name) {
                found.push(item);
                continue;
            }
            match in_file(name, reading) {
                Ok(keys) => {
                    let keys = keys.into_iter();
                    found.extend(keys.map(|key| Node { span: item.span, value: Value::Scalar(key) }));
                }
                Err(wrong) => reading.problems.push(wrong.at(item.span, &path, name)),
            }
        }
        keys.value = Value::Sequence(found);
    }
}

fn in_file(name: &str, reading: &mut Reading<'_>) -> Result<Vec<String>, Wrong> {
    let why = match reading.file(name)? {
        FileText::Text(text) => match public_keys(&text) {
            Ok(keys) if !keys.is_empty() => return Ok(keys),
            Ok(_) => format!("there is no key in {}", quote(name)),
            // Not what stands there: it may be a private key.
            Err(line) => format!("line {line} of {} is not a public key", quote(name)),
        },
        FileText::Missing => format!("there is no file {}", quote(name)),
        FileText::Unreadable(why) => format!("cannot read {}: {why}", quote(name)),
    };
    Err(Wrong::found(why).hint("name a file like `~/.ssh/id_ed25519.pub`; a path is relative to this file"))
}
