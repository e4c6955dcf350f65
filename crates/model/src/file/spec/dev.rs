//! The users that people work as in machines, as written.

use super::view::{Given, View};
use crate::dev::Dev;
use crate::file::leaf::{self, dev as value};

/// Whom the file asks for, if anybody; keys that stood in files are here by now.
pub(super) fn read(view: &View<'_>) -> Option<Box<Dev>> {
    let flag = view.read(leaf::flag);
    match flag {
        Given::Absent => return None,
        Given::Is(at) => return at.value.then(Box::default),
        // A mapping, or what was told.
        Given::Wrong => {}
    }
    let keys = view.get("keys");
    Some(Box::new(Dev {
        user: view.get("user").read(value::login).value(),
        uid: view.get("uid").read(value::uid).value(),
        shell: view.get("shell").read(value::shell).value(),
        groups: view.get("groups").each(value::login_group).into_iter().map(|at| at.value).collect(),
        sudo: view.get("sudo").read(leaf::flag).value().unwrap_or(true),
        keys: keys
            .node
            .is_some()
            .then(|| keys.each(leaf::vm::ssh_key).into_iter().map(|at| at.value).collect()),
        password_hash: view.get("password_hash").read(value::password_hash).value(),
    }))
}
