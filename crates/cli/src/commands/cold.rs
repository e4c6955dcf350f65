//! `--cold`: microVMs boot, though they could go on from where another one was saved when it had booted.

use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::project::{Kind, Project};

use crate::failure::Failure;

/// Refuses it where none of these, which are there, is a microVM.
pub(super) fn refuse_without_microvm(ids: &[MachineId], seen: &Observed) -> Result<(), Failure> {
    if has_microvm(ids, seen) { Ok(()) } else { Err(without_microvm()) }
}

/// Whether one of these is a microVM.
pub(super) fn has_microvm(ids: &[MachineId], seen: &Observed) -> bool {
    ids.iter().filter_map(|id| seen.machines.get(id)).any(|state| state.kind == Kind::Microvm)
}

/// Refuses it where none of these is a microVM in the file.
pub(super) fn refuse_without_microvm_of<'a>(
    ids: impl IntoIterator<Item = &'a MachineId>,
    project: &Project,
) -> Result<(), Failure> {
    let mut machines = ids.into_iter().filter_map(|id| project.machines.get(&id.name));
    if machines.any(|machine| machine.kind == Kind::Microvm) { Ok(()) } else { Err(without_microvm()) }
}

fn without_microvm() -> Failure {
    let what =
        "`--cold` is about microVMs, which may go on from where another one had booted, and none is meant";
    Failure::request(what, "leave it out, or name one")
}

/// A container begins in no time, and in no other way.
pub(super) fn container() -> Failure {
    let what = "`--cold` is about how a kernel of the machine's own begins, and a container has none";
    Failure::request(what, "leave it out, or say `--kind microvm`")
}
