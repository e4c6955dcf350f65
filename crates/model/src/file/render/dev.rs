//! The users that people work as in machines, as text.

use std::fmt::Write as _;

use super::quoted;
use crate::dev::Dev;

/// What the person who calls stands for is left open, as it is in the file.
pub(super) fn render(text: &mut String, dev: &Dev) {
    let quoted_list = |items: &mut dyn Iterator<Item = &String>| {
        format!("[{}]", items.map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
    };
    let mut keys = Vec::new();
    keys.extend(dev.user.as_ref().map(|user| format!("user: {}", quoted(user))));
    keys.extend(dev.uid.map(|uid| format!("uid: {uid}")));
    keys.extend(dev.shell.as_ref().map(|shell| format!("shell: {}", quoted(shell))));
    if !dev.groups.is_empty() {
        keys.push(format!("groups: {}", quoted_list(&mut dev.groups.iter())));
    }
    keys.push(format!("sudo: {}", dev.sudo));
    keys.extend(dev.keys.as_ref().map(|list| format!("keys: {}", quoted_list(&mut list.iter()))));
    keys.extend(dev.password_hash.as_ref().map(|hash| format!("password_hash: {}", quoted(hash))));
    let _ = writeln!(text, "    dev: {{ {} }}", keys.join(", "));
}
