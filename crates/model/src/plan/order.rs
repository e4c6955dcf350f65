//! In which order steps stand, and which of them each has to wait for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Planned, Reasoned, Wanted};
use crate::name::MachineId;
use crate::step::Step;

/// The machines, each behind those it depends on. A checked project has no cycle; were there one, its
/// machines would come last, in the order of their names.
pub(super) fn in_dependency_order(wanted: &Wanted) -> Vec<MachineId> {
    let mut order: Vec<MachineId> = Vec::new();
    let mut waiting: Vec<&MachineId> = wanted.machines.keys().collect();
    while !waiting.is_empty() {
        let is_ready = |id: &&MachineId| {
            let machine = wanted.machines.get(*id);
            machine.is_none_or(|machine| machine.after.keys().all(|other| !waiting.contains(&other)))
        };
        let ready: Vec<&MachineId> = waiting.iter().copied().filter(|id| is_ready(id)).collect();
        let ready = if ready.is_empty() { waiting.clone() } else { ready };
        waiting.retain(|id| !ready.contains(id));
        order.extend(ready.into_iter().cloned());
    }
    order
}

/// Adds to each step the earlier ones it has to wait for: for each thing the last step that wrote it, and
/// for what it writes itself also the steps that have read it since. A network also waits for all that go:
/// it may have the subnet of one of them, or its link of this computer.
pub(super) fn ordered(steps: Vec<Reasoned>) -> Vec<Planned> {
    let mut writer = BTreeMap::new();
    let mut readers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let mut gone: Vec<usize> = Vec::new();
    let mut planned = Vec::new();
    for (place, (step, why)) in steps.into_iter().enumerate() {
        let (reads, writes) = (step.reads(), step.writes());
        let mut after: BTreeSet<usize> = BTreeSet::new();
        after.extend(reads.iter().chain(&writes).filter_map(|thing| writer.get(thing)));
        after.extend(writes.iter().filter_map(|thing| readers.get(thing)).flatten());
        if matches!(step, Step::NetworkRemove(..)) {
            gone.push(place);
        }
        if matches!(step, Step::NetworkAdd(..)) {
            after.extend(&gone);
        }
        for thing in reads {
            readers.entry(thing).or_default().push(place);
        }
        for thing in writes {
            readers.remove(&thing);
            writer.insert(thing, place);
        }
        planned.push(Planned { step, why, after });
    }
    planned
}
