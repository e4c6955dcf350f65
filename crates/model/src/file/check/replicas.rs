//! Machines of which there are several: `web` with three replicas is `web-1`, `web-2` and `web-3`, found together as `web`.

use std::collections::BTreeMap;

use super::super::problem::Problem;
use super::super::spec::{At, Given, MachineSpec, Spec};
use super::{Asked, is_asked, unknown};
use crate::name::Name;
use crate::project::{Condition, Machine};

/// A thousand machines of the usual kind have a tenth of this; a few lines must not fill the memory.
const VALUES_MAX: usize = 100_000;

/// How many values a machine has, about.
fn size(machine: &Machine) -> usize {
    let container = machine.runs.container();
    let more = container.map_or(0, |container| {
        let words =
            [&container.entrypoint, &container.command].map(|words| words.as_ref().map_or(0, Vec::len));
        words.iter().sum::<usize>()
            + container.environment.len()
            + container.labels.len()
            + container.mounts.len()
            + container.hosts.values().map(Vec::len).sum::<usize>()
    });
    let scripts =
        machine.provision.iter().map(|script| 1 + script.environment.len() + script.text.len() / 64);
    let dev = machine.dev.as_ref().map_or(0, |dev| dev.groups.len() + dev.keys.as_ref().map_or(0, Vec::len));
    1 + scripts.sum::<usize>()
        + dev
        + machine.depends_on.len()
        + machine.ports.len()
        + machine.nics.iter().map(|nic| 1 + nic.aliases.len()).sum::<usize>()
        + more
}

/// Puts how many there are to be in place of what the file says of that.
pub(super) fn scale(spec: &mut Spec, asked: &Asked<'_>, problems: &mut Vec<Problem>) {
    for (name, count) in asked.source.scale {
        let Some(machine) = spec.machines.iter_mut().find(|machine| machine.name.value == *name) else {
            let at = At { value: name.clone(), place: spec.start.clone() };
            problems.push(unknown(&at, "machine", spec.machines.iter().map(|machine| &machine.name.value)));
            continue;
        };
        if !is_asked(machine, asked.profiles) {
            let message = format!("there is to be `{name}`, and none of its profiles was asked for");
            problems.push(machine.name.place.problem(message).hint("ask for one by `--profile`"));
        }
        let place = machine.replicas.is().map_or(&machine.name.place, |at| &at.place).clone();
        machine.replicas = Given::Is(At { value: *count, place });
    }
}

/// The machines with each of several in its place, and those that wait for it waiting for all.
pub(super) fn multiply(
    spec: &Spec,
    mut machines: BTreeMap<Name, Machine>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Name, Machine> {
    let mut several: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
    let mut values = 0;
    for machine in &spec.machines {
        let Some(at) = machine.replicas.is().filter(|at| at.value > 1) else { continue };
        only_one(machine, problems);
        values += usize::from(at.value) * machines.get(&machine.name.value).map_or(0, size);
        if values > VALUES_MAX {
            let message =
                format!("the machines of which there are several have more than {VALUES_MAX} values");
            problems.push(at.place.problem(message).hint("ask for fewer"));
            return machines;
        }
        let base = &machine.name.value;
        let names = machine.names();
        let taken = names.iter().find(|name| machines.contains_key(*name));
        if let Some(name) = taken {
            problems.push(
                at.place.problem(format!("there is a machine `{name}` already")).hint("rename one of them"),
            );
        } else if names.len() < usize::from(at.value) {
            let message = format!("`{base}` with a number behind is too long for a name");
            problems.push(at.place.problem(message).hint("shorten the machine's name"));
        }
        several.insert(base.clone(), names);
    }
    for (base, names) in &several {
        let Some(machine) = machines.remove(base) else { continue };
        for name in names {
            let mut machine = machine.clone();
            for nic in &mut machine.nics {
                nic.aliases.insert(base.clone().into());
            }
            machines.insert(name.clone(), machine);
        }
    }
    for machine in machines.values_mut() {
        let all = |name: &Name| several.get(name).cloned().unwrap_or_else(|| vec![name.clone()]);
        let each = |(name, condition): (&Name, &Condition)| {
            let condition = *condition;
            all(name).into_iter().map(move |name| (name, condition))
        };
        machine.depends_on = machine.depends_on.iter().flat_map(each).collect();
        machine.restarts_with = machine.restarts_with.iter().flat_map(all).collect();
    }
    machines
}

/// What only one machine can have, several cannot.
fn only_one(machine: &MachineSpec, problems: &mut Vec<Problem>) {
    let hint = "leave it out, or write one machine";
    for nic in &machine.nics {
        let address = nic.address.is().map(|at| (&at.place, "address"));
        let address6 = nic.address6.is().map(|at| (&at.place, "address"));
        let mac = nic.mac.is().map(|at| (&at.place, "MAC"));
        for (place, what) in [address, address6, mac].into_iter().flatten() {
            problems.push(place.problem(format!("several machines cannot have one {what}")).hint(hint));
        }
    }
    if let Some(at) = machine.ports.iter().find(|at| at.value.port.first > 0) {
        problems.push(
            at.place
                .problem("several machines cannot be published on one port")
                .hint("write `0:80`: then each has a port that this computer chooses; or publish one machine that passes on to them, all found by their common name"),
        );
    }
}
