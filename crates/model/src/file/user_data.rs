//! The texts that vms are told at their start, where the file names another one that has them.

use super::environment::under;
use super::problem::{Problem, quote};
use super::yaml::Value;
use super::{FileText, Reading, join};

/// Puts in place of each path of a file what stands in that.
pub(crate) fn gather(tree: &mut super::yaml::Node, machines: &str, reading: &mut Reading<'_>) {
    for entry in under(tree, machines) {
        let path = join(machines, &entry.key);
        let Value::Mapping(keys) = &mut entry.node.value else { continue };
        let Some(told) = keys.iter_mut().find(|key| key.key == "cloud_init") else { continue };
        let Value::Mapping(told) = &mut told.node.value else { continue };
        let Some(text) = told.iter_mut().find(|key| key.key == "user_data") else { continue };
        let Value::Scalar(name) = &text.node.value else { continue };
        if !is_file(name) {
            continue;
        }
        let path = join(&join(&path, "cloud_init"), "user_data");
        let (span, name) = (text.node.span, name.clone());
        let why = match reading.file(&name) {
            Ok(FileText::Text(found)) => {
                text.node.value = Value::Scalar(found);
                continue;
            }
            Ok(FileText::Missing) => format!("there is no file {}", quote(&name)),
            Ok(FileText::Unreadable(why)) => format!("cannot read {}: {why}", quote(&name)),
            Err(wrong) => wrong.message,
        };
        text.node.value = Value::Unknown;
        let problem = Problem::found(span, &path, &name, why);
        reading
            .problems
            .push(problem.hint("it is relative to this file; or write the text itself, with `|`"));
    }
}

/// Whether this is the path of a file, and not the text itself: that says in its first line what it is.
pub(crate) fn is_file(text: &str) -> bool {
    !text.starts_with('#') && !text.contains('\n')
}
