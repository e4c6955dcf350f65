//! `!reset` and `!override`, as Compose has them: a value that such a tag stands before takes nothing from what is below it,
//! and that of `!reset` is none itself.

use super::yaml::{Node, Value};

/// A place where what is below does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Its keys, from the outermost.
    pub(crate) path: Vec<String>,
    /// Whether nothing is to be there.
    pub(crate) is_reset: bool,
}

impl Cut {
    /// What a tag says of the value at a path, if it is one of ours.
    pub(crate) fn of(tag: &str, path: Vec<String>) -> Option<Self> {
        let is_reset = match tag {
            "!reset" => true,
            "!override" => false,
            _ => return None,
        };
        Some(Self { path, is_reset })
    }
}

/// Takes out of what is below all that does not count under a tree with these tags. Of that only what stands under the keys
/// of `within` is here.
pub(crate) fn below(base: &mut Node, cuts: &[Cut], within: &[&str]) {
    for cut in cuts {
        let Some((before, path)) = cut.path.split_at_checked(within.len()) else { continue };
        if before == within {
            take(base, path, within.last().copied().unwrap_or_default());
        }
    }
}

/// Takes away what stands at a path under a key, also in a list of names or of `NAME=value`.
pub(crate) fn take(node: &mut Node, path: &[String], under: &str) {
    let Some((key, deeper)) = path.split_first() else { return };
    match &mut node.value {
        Value::Mapping(entries) if deeper.is_empty() => entries.retain(|entry| entry.key != *key),
        Value::Mapping(entries) => {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                take(&mut entry.node, deeper, key);
            }
        }
        Value::Sequence(items) if deeper.is_empty() => items.retain(|item| {
            let separators: &[char] = if under == "extra_hosts" { &['=', ':'] } else { &['='] };
            let Value::Scalar(text) = &item.value else { return true };
            text.split(separators).next() != Some(key)
        }),
        Value::Null | Value::Unknown | Value::Scalar(_) | Value::Sequence(_) => {}
    }
}
