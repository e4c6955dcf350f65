//! Plans for some machines of a project only: what is wanted of the others is what they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::overlap;
use crate::name::{MachineId, Name, NetworkId};
use crate::observed::{Engine, NetworkState, Observed};
use crate::plan::{Power, UnwantedVolumes, Wanted, WantedMachine};
use crate::project::Reach;
use crate::resolve::Refusal;

impl Wanted {
    /// A project just as it is: planning for that changes nothing.
    pub fn as_it_is(project: &Name, seen: &Observed) -> Self {
        let mut wanted = Self::nothing(project, seen, UnwantedVolumes::Keep);
        wanted.directory = seen.projects.get(project).cloned();
        wanted.uplink = seen.uplink.clone();
        let is_ours = |of: &Name| of == project;
        wanted.networks.extend(seen.networks.clone().into_iter().filter(|(id, _)| is_ours(&id.project)));
        wanted.nics.extend(seen.nics.clone().into_iter().filter(|(id, _)| is_ours(&id.project)));
        let ports = seen.ports.clone().into_iter();
        wanted.ports.extend(ports.filter(|(_, target)| is_ours(&target.machine.project)));
        wanted.volumes.extend(seen.volumes.iter().filter(|id| is_ours(&id.project)).cloned());
        let machines = seen.machines.keys().filter(|id| is_ours(&id.project));
        wanted.machines.extend(machines.filter_map(|id| Some((id.clone(), machine_as_it_is(id, seen)?))));
        wanted
    }

    /// The same with these machines on or off, if we run them.
    #[must_use]
    pub fn with_power(mut self, machines: &BTreeSet<MachineId>, power: Power) -> Self {
        for (_, machine) in self.machines.iter_mut().filter(|(id, _)| machines.contains(*id)) {
            machine.power = power;
        }
        self
    }

    /// The same without these machines.
    #[must_use]
    pub fn without_machines(mut self, machines: &BTreeSet<MachineId>) -> Self {
        self.machines.retain(|id, _| !machines.contains(id));
        self.nics.retain(|id, _| !machines.contains(&id.machine()));
        self.ports.retain(|_, target| !machines.contains(&target.machine));
        self
    }

    /// What these machines are to be, and the others as they are: those that are not there stay away, those that
    /// do not run stay off, and those that the file names no more stay.
    /// A network on which others are stays as it is as well; where that is in the way, it is said.
    pub fn only(mut self, chosen: &BTreeSet<MachineId>, seen: &Observed) -> Result<Self, Vec<Refusal>> {
        let as_it_is = Self::as_it_is(&self.project, seen);
        let is_other = |id: &MachineId| !chosen.contains(id);
        // Those whose nics went with the engine have them again as soon as there is one.
        let lost_nics = seen.engine != Engine::Present;
        self.machines.retain(|id, _| chosen.contains(id));
        self.machines.extend(as_it_is.machines.into_iter().filter(|(id, _)| is_other(id)));
        let machines = &self.machines;
        self.nics.retain(|id, _| {
            let machine = id.machine();
            chosen.contains(&machine) || (lost_nics && machines.contains_key(&machine))
        });
        self.nics.extend(as_it_is.nics.into_iter().filter(|(id, _)| is_other(&id.machine())));
        self.ports.retain(|_, target| {
            let machine = &target.machine;
            chosen.contains(machine) || (lost_nics && machines.contains_key(machine))
        });
        self.ports.extend(as_it_is.ports.into_iter().filter(|(_, target)| is_other(&target.machine)));
        let (nics, machines) = (&self.nics, &self.machines);
        let is_on = |id: &NetworkId, others: bool| {
            let mut on =
                nics.keys().filter(|nic| nic.network() == *id && machines.contains_key(&nic.machine()));
            on.any(|nic| is_other(&nic.machine()) == others)
        };
        let stays: BTreeMap<_, _> = as_it_is.networks.into_iter().filter(|(id, _)| is_on(id, true)).collect();
        // Of the others only those are made that the chosen ones are on, or that are there anyway.
        self.networks.retain(|id, _| {
            is_on(id, false)
                || (lost_nics && is_on(id, true))
                || (seen.networks.contains_key(id) && !stays.contains_key(id))
        });
        let refusals: Vec<Refusal> =
            self.networks.iter().filter_map(|(id, to)| in_the_way(id, to, &stays)).collect();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        self.networks.extend(stays);
        if !self.networks.values().any(|network| network.reach == Reach::Nat) {
            self.uplink = Self::nothing(&self.project, seen, UnwantedVolumes::Keep).uplink;
        }
        Ok(self)
    }

    /// The same with these machines made as they are on record, whatever the file says by now.
    #[must_use]
    pub fn as_made(mut self, machines: &BTreeSet<MachineId>, seen: &Observed) -> Self {
        for id in machines {
            if let (Some(wanted), Some(state)) = (self.machines.get_mut(id), seen.machines.get(id)) {
                wanted.state = state.clone();
            }
        }
        self
    }
}

/// Why a network cannot be what it is to be while others keep theirs.
fn in_the_way(
    id: &NetworkId,
    to: &NetworkState,
    stays: &BTreeMap<NetworkId, NetworkState>,
) -> Option<Refusal> {
    let fixed = |n: &NetworkState| (n.link.clone(), n.gateway, n.gateway6, n.reach.clone());
    let overlaps = |other: &NetworkState| {
        other.subnets().iter().any(|theirs| to.subnets().iter().any(|ours| overlap(*theirs, *ours)))
    };
    let why = match stays.get(id) {
        Some(from) if fixed(from) == fixed(to) => return None,
        Some(_) => "it is another by now, and machines that were not named are on it".to_owned(),
        None => {
            let (other, _) = stays.iter().find(|(_, other)| overlaps(other))?;
            format!(
                "network `{}`, on which machines are that were not named, has a part of its subnet",
                other.name
            )
        }
    };
    let hint = "run `stead up` without names: then all machines follow the file".to_owned();
    Some(Refusal { key: format!("networks.{}", id.name), why, hint })
}

fn machine_as_it_is(id: &MachineId, seen: &Observed) -> Option<WantedMachine> {
    let state = seen.machines.get(id)?.clone();
    let power = if seen.running.contains_key(id) { Power::On } else { Power::Off };
    Some(WantedMachine { state, after: [].into(), power })
}
