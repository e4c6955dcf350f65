//! Secrets and configs whose text stands in the file itself, or in a variable: each becomes a file like the others, which
//! whoever carries the project out writes before anything is mounted. Its name comes of the text, so a machine whose
//! secret changes is a changed machine.

use super::environment::under;
use super::leaf::Wrong;
use super::problem::quote;
use super::yaml::{Entry, Node, Value};
use super::{Reading, join};
use crate::address::digest;

/// The ways to say what is in one.
const WAYS: [&str; 3] = ["file", "content", "environment"];

/// Names a file in place of each text, and gathers the texts.
pub(crate) fn gather(tree: &mut Node, reading: &mut Reading<'_>) {
    for group in ["secrets", "configs"] {
        for entry in under(tree, group) {
            let path = join(group, &entry.key);
            let told = |wrong: Wrong| wrong.at(entry.key_span, &path, &entry.key);
            // What is no mapping was told, or says nothing.
            let keys: &mut [Entry] = match &mut entry.node.value {
                Value::Mapping(keys) => keys,
                Value::Null => &mut [],
                Value::Unknown | Value::Scalar(_) | Value::Sequence(_) => continue,
            };
            let elsewhere = Value::Scalar("false".to_owned());
            let is_external = keys.iter().any(|key| key.key == "external" && key.node.value != elsewhere);
            let mut said = keys.iter_mut().filter(|key| WAYS.contains(&key.key.as_str()));
            let way = match (said.next(), said.next()) {
                (Some(way), None) => way,
                // That it is elsewhere was told, if it cannot be.
                (None, _) if is_external => continue,
                (None, _) => {
                    let wrong = Wrong::found("nothing says what is in it");
                    let hint = "write `file:`, `content:` or `environment:`";
                    reading.problems.push(told(wrong.hint(hint)));
                    continue;
                }
                (Some(one), Some(other)) => {
                    let wrong =
                        Wrong::found(format!("`{}` and `{}` both say what is in it", one.key, other.key));
                    reading.problems.push(told(wrong.hint("leave one of them out")));
                    continue;
                }
            };
            if let Err(wrong) = settle(way, &path, reading) {
                let text = if let Value::Scalar(text) = &way.node.value { text } else { "" };
                reading.problems.push(wrong.at(way.node.span, &join(&path, &way.key), text));
            }
        }
    }
}

/// Puts a file in place of a text, or of a variable with one.
fn settle(way: &mut Entry, path: &str, reading: &mut Reading<'_>) -> Result<(), Wrong> {
    let Value::Scalar(said) = &way.node.value else { return Ok(()) };
    let text = match way.key.as_str() {
        "content" => said.clone(),
        "environment" if reading.unread.contains(said) => return Ok(()),
        "environment" => reading.source.env.get(said).cloned().ok_or_else(|| {
            let wrong = Wrong::found(format!("the variable {} is not set", quote(said)));
            wrong.hint("set it, also in `.env` beside the file")
        })?,
        _ => return Ok(()),
    };
    let name: String = digest(&[path, &text]).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = reading.source.texts.join(name);
    way.node.value = Value::Scalar(file.to_string_lossy().into_owned());
    "file".clone_into(&mut way.key);
    reading.texts.insert(file, text);
    Ok(())
}
