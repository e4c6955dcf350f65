//! Machines in the network of another: that is a container with a network of its own, and there is one of it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::problem::Problem;
use super::super::spec::{At, MachineSpec, Spec};
use crate::container::NetworkMode;
use crate::name::Name;
use crate::project::{Condition, Kind, Machine};

/// Has each of them name the machine whose own network it is, be it by others that are in that as well.
pub(super) fn settle(spec: &Spec, machines: &mut BTreeMap<Name, Machine>, problems: &mut Vec<Problem>) {
    let known: BTreeMap<&Name, &MachineSpec> =
        spec.machines.iter().map(|machine| (&machine.name.value, machine)).collect();
    for machine in &spec.machines {
        let Some(At { value: NetworkMode::Machine(other), place }) = machine.mode.is() else { continue };
        match owner(other, &known) {
            Ok(Some(owner)) => {
                let Some(made) = machines.get_mut(&machine.name.value) else { continue };
                made.depends_on.entry(owner.clone()).or_insert(Condition::Started);
                if let Some(container) = made.container_mut() {
                    container.network = NetworkMode::Machine(owner.clone());
                }
            }
            // There is none, or they are in each other's, which is told where their order is looked at.
            Ok(None) => {}
            Err((why, hint)) => problems.push(place.problem(why).hint(hint)),
        }
    }
}

/// The machine whose own network it is; nothing where that cannot be told; or why it cannot be in that.
fn owner<'s>(
    first: &'s Name,
    known: &BTreeMap<&'s Name, &'s MachineSpec>,
) -> Result<Option<&'s Name>, (String, &'static str)> {
    let (mut name, mut passed) = (first, BTreeSet::new());
    while passed.insert(name) {
        let Some(other) = known.get(name) else { return Ok(None) };
        if other.replicas.value().is_some_and(|count| count > 1) {
            let why = format!("there are several machines `{name}`, each with a network of its own");
            return Err((why, "name one that has no `replicas`"));
        }
        if let Some(kind @ (Kind::Microvm | Kind::Vm)) = other.kind.value() {
            let why = format!("machine `{name}` is a `{kind}`, whose network is in a kernel of its own");
            return Err((why, "name a container; or name under `networks` one that both are on"));
        }
        match other.mode.value() {
            None | Some(NetworkMode::Own) => return Ok(Some(name)),
            Some(NetworkMode::Host) => {
                let why = format!("machine `{name}` has no network of its own: it is in this computer's");
                return Err((why, "write `network_mode: host` here, too"));
            }
            Some(NetworkMode::Machine(_)) => {
                let Some(At { value: NetworkMode::Machine(next), .. }) = other.mode.is() else {
                    return Ok(None);
                };
                name = next;
            }
        }
    }
    Ok(None)
}
