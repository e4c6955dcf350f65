//! In which order machines end: none before those that depend on it, which may need it on their way down.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reasoned, Wanted, WantedMachine, changed, is_rewired, machine_stays};
use crate::name::{MachineId, Name};
use crate::observed::{MachineState, Observed, Running};
use crate::sharing;
use crate::step::Step;

/// The machines that are ended: those that go or become others, those that are not to run, and those that an
/// engine which is gone has left without a network.
pub(super) fn stops(wanted: &Wanted, seen: &Observed) -> (Vec<Reasoned>, BTreeSet<MachineId>) {
    let running = seen.running.iter().filter(|(id, _)| id.project == wanted.project);
    let mut whys: BTreeMap<MachineId, String> = running
        .filter_map(|(id, running)| {
            let is_to_run = wanted.machines.get(id).is_some_and(WantedMachine::is_to_run);
            let why = match running {
                _ if !machine_stays(wanted, seen, id) => {
                    format!("machines.{}{}", id.name, changed(wanted, seen, id))
                }
                _ if loses_network(wanted, seen, id) => {
                    format!("machines.{}.network_mode (that network is made anew, or goes)", id.name)
                }
                _ if !is_to_run => "it is not to run".to_owned(),
                Running::CutOff => "its network is gone".to_owned(),
                Running::Connected if is_rewired(wanted, seen, id) => "its nics change".to_owned(),
                Running::Connected => return None,
            };
            Some((id.clone(), why))
        })
        .collect();
    while let Some((id, why)) = restarted(wanted, seen, &whys) {
        whys.insert(id, why);
    }
    let ids: BTreeSet<MachineId> = whys.keys().cloned().collect();
    let ends = seen.ends(&ids).into_iter().flatten().map(|(id, after)| {
        let why = whys.get(&id).cloned().unwrap_or_default();
        (Step::MachineStop(id, after), why)
    });
    (ends.collect(), ids)
}

/// Whether it is in the network of a machine that does not stay.
fn loses_network(wanted: &Wanted, seen: &Observed, id: &MachineId) -> bool {
    let other = seen.machines.get(id).and_then(|state| sharing::owner(id, state));
    other.is_some_and(|other| !machine_stays(wanted, seen, &other))
}

/// One more that is to be started again because one that it depends on is, or is made anew.
fn restarted(
    wanted: &Wanted,
    seen: &Observed,
    ends: &BTreeMap<MachineId, String>,
) -> Option<(MachineId, String)> {
    let is_again = |other: &&MachineId| {
        let is_made_anew = seen.machines.contains_key(*other) && !machine_stays(wanted, seen, other);
        (ends.contains_key(*other) || is_made_anew)
            && wanted.machines.get(*other).is_some_and(WantedMachine::is_to_run)
    };
    let goes_on = |id: &&MachineId| seen.running.contains_key(*id) && !ends.contains_key(*id);
    wanted.machines.keys().filter(goes_on).find_map(|id| {
        let with = wanted.machines.get(id)?.restarts_with.iter().find(is_again)?;
        Some((id.clone(), format!("machines.{}.depends_on.{}.restart", id.name, with.name)))
    })
}

impl Observed {
    /// These machines as they end: in each row those that may end at the same time, each with those of earlier rows that
    /// depend on it, be it by others. Who depends on itself, which no checked file says, waits for nobody.
    pub fn ends(&self, ids: &BTreeSet<MachineId>) -> Vec<Vec<(MachineId, BTreeSet<MachineId>)>> {
        let needs: BTreeMap<&MachineId, BTreeSet<MachineId>> =
            ids.iter().map(|id| (id, self.needs(id))).collect();
        let mut rows = Vec::new();
        let mut ended: BTreeSet<&MachineId> = BTreeSet::new();
        while ended.len() < ids.len() {
            let left: Vec<&MachineId> = ids.iter().filter(|id| !ended.contains(id)).rev().collect();
            let needed_by = |id: &MachineId, other: &MachineId| {
                other != id && needs.get(other).is_some_and(|needs| needs.contains(id))
            };
            let is_free = |id: &&MachineId| !left.iter().any(|other| needed_by(id, other));
            let free: Vec<&MachineId> = left.iter().copied().filter(is_free).collect();
            let free = if free.is_empty() { left.clone() } else { free };
            let after = |id: &MachineId| {
                ended.iter().filter(|other| needed_by(id, other)).copied().cloned().collect()
            };
            rows.push(free.iter().map(|id| ((*id).clone(), after(id))).collect());
            ended.extend(free);
        }
        rows
    }

    /// All that a machine depends on, be it by others. A one-off does so as the machine that it is made after.
    fn needs(&self, id: &MachineId) -> BTreeSet<MachineId> {
        let Some(files) = self.projects.get(&id.project) else { return BTreeSet::new() };
        let own =
            self.machines.get(id).and_then(|state| state.one_off()).map_or(&id.name, |one_off| &one_off.of);
        let mut found: BTreeSet<&Name> = BTreeSet::new();
        let shared = self.machines.get(id).and_then(MachineState::shares);
        found.extend(shared);
        let mut open: Vec<&Name> = [own].into_iter().chain(shared).collect();
        while let Some(name) = open.pop() {
            open.extend(files.order.get(name).into_iter().flatten().filter(|other| found.insert(*other)));
        }
        found.into_iter().map(|name| MachineId::new(&id.project, name)).collect()
    }
}
