//! The order in which machines start: what each waits for is there, and some order exists.

use std::collections::{BTreeMap, BTreeSet};

use super::super::problem::Problem;
use super::super::spec::{At, Dependency, MachineSpec, Spec};
use super::{Dormant, once, unknown};
use crate::container::Health;
use crate::name::Name;
use crate::project::{Condition, Driver};

/// The machines that come before this one, and those of them with which it is started again.
pub(super) fn depends_on(
    machine: &MachineSpec,
    names: &BTreeSet<&Name>,
    dormant: &Dormant,
    problems: &mut Vec<Problem>,
) -> (BTreeMap<Name, Condition>, BTreeSet<Name>) {
    let on: Vec<At<Name>> = machine.depends_on.iter().map(|dependency| dependency.on.clone()).collect();
    once(&on, &mut BTreeSet::new(), "machine", problems);
    let (mut before, mut restarts_with) = (BTreeMap::new(), BTreeSet::new());
    for Dependency { on, condition, required, restart } in &machine.depends_on {
        if names.contains(&on.value) {
            before.insert(on.value.clone(), *condition);
            restarts_with.extend(restart.then(|| on.value.clone()));
            continue;
        }
        match dormant.get(&on.value) {
            Some(_) if !required => {}
            Some(profiles) => problems.push(left_out(on, profiles)),
            None => problems.push(unknown(on, "machine", names.iter().copied())),
        }
    }
    (before, restarts_with)
}

fn left_out(on: &At<Name>, profiles: &BTreeSet<String>) -> Problem {
    let listed: Vec<String> = profiles.iter().map(|profile| format!("`{profile}`")).collect();
    let (when, hint) = match listed.as_slice() {
        [] => ("has no replicas".to_owned(), "leave it out, or write `required: false` under it"),
        listed => (
            format!("is only there with profile {}", listed.join(" or ")),
            "ask for the profile, give this machine the same, or write `required: false`",
        ),
    };
    on.place.problem(format!("machine `{}` {when}", on.value)).hint(hint)
}

/// Reports what is waited for and never seen.
pub(super) fn never_seen(spec: &Spec, problems: &mut Vec<Problem>) {
    for Dependency { on, condition, .. } in spec.machines.iter().flat_map(|machine| &machine.depends_on) {
        let other = spec.machines.iter().find(|machine| machine.name.value == on.value);
        let Some(other) = other.filter(|_| *condition != Condition::Started) else { continue };
        let off = other.container.is().is_some_and(|at| at.value.health == Health::Off)
            // The image of a disk has no test of its own.
            || other.vm.is().is_some_and(|at| !matches!(at.value.health, Health::Test(_)));
        let why = match other.driver.value() {
            Some(Driver::External) => "somebody else runs it",
            Some(Driver::Native | Driver::Qemu) if off && *condition == Condition::Healthy => {
                "its health check is off"
            }
            Some(Driver::Native | Driver::Qemu) | None => continue,
        };
        let message = format!("machine `{}` is never known to be {condition}: {why}", on.value);
        problems.push(on.place.problem(message).hint("write `condition: service_started`"));
    }
}

/// Reports each circle of machines that wait for each other, at the line that closes it.
pub(super) fn cycles(spec: &Spec, problems: &mut Vec<Problem>) {
    let after: BTreeMap<&Name, &[Dependency]> =
        spec.machines.iter().map(|machine| (&machine.name.value, machine.depends_on.as_slice())).collect();
    let mut done: BTreeSet<&Name> = BTreeSet::new();
    for start in spec.machines.iter().map(|machine| &machine.name.value) {
        // Depth first with a stack of our own: a chain may be as long as the file.
        let mut trail: Vec<(&Name, usize)> = vec![(start, 0)];
        let mut on_trail: BTreeSet<&Name> = BTreeSet::from([start]);
        if done.contains(start) {
            continue;
        }
        while let Some((name, next)) = trail.last_mut() {
            let (name, index) = (*name, *next);
            *next += 1;
            let Some(Dependency { on: at, .. }) = after.get(name).and_then(|all| all.get(index)) else {
                on_trail.remove(name);
                done.insert(name);
                trail.pop();
                continue;
            };
            if on_trail.contains(&at.value) {
                let circle = trail.iter().map(|(name, _)| *name).skip_while(|name| **name != at.value);
                let mut shown: Vec<&str> = circle.map(Name::as_str).collect();
                shown.push(at.value.as_str());
                let message = format!("machines wait for each other: `{}`", shown.join(" → "));
                problems.push(at.place.problem(message).hint("leave one of them out"));
            } else if !done.contains(&at.value) && after.contains_key(&at.value) {
                on_trail.insert(&at.value);
                trail.push((&at.value, 0));
            }
        }
    }
}
