//! Plans for some machines of a project only: what is wanted of the others is what they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::overlap;
use crate::name::{MachineId, Name, NetworkId, NicId};
use crate::observed::{Body, Engine, NetworkState, NicState, Observed};
use crate::plan::{Power, UnwantedVolumes, Wanted, WantedMachine};
use crate::project::{Bind, Reach};
use crate::resolve::Refusal;
use crate::sharing::owner;
use crate::step::OwnVolumes;

impl Wanted {
    /// A project just as it is: planning for that changes nothing.
    pub fn as_it_is(project: &Name, seen: &Observed) -> Self {
        let mut wanted = Self::nothing(project, seen, UnwantedVolumes::Keep);
        wanted.files = seen.projects.get(project).cloned();
        wanted.uplink = seen.uplink.clone();
        let is_ours = |of: &Name| of == project;
        wanted.networks.extend(seen.networks.clone().into_iter().filter(|(id, _)| is_ours(&id.project)));
        wanted.nics.extend(seen.nics.clone().into_iter().filter(|(id, _)| is_ours(&id.project)));
        let ports = seen.ports.clone().into_iter();
        wanted.ports.extend(ports.filter(|(_, target)| is_ours(&target.machine.project)));
        let chosen = seen.port_leases.clone().into_iter();
        wanted.port_leases.extend(chosen.filter(|(_, lease)| is_ours(&lease.machine.project)));
        wanted.volumes.extend(seen.volumes.clone().into_iter().filter(|(id, _)| is_ours(&id.project)));
        let machines = seen.machines.keys().filter(|id| is_ours(&id.project));
        wanted.machines.extend(machines.filter_map(|id| Some((id.clone(), machine_as_it_is(id, seen)?))));
        wanted
    }

    /// The ports that were chosen just now: nothing of them is there yet.
    pub fn new_ports(&self, seen: &Observed) -> impl Iterator<Item = Bind> {
        let chosen = self.port_leases.keys();
        chosen.filter(|bind| !seen.port_leases.contains_key(bind) && !seen.ports.contains_key(bind)).copied()
    }

    /// The same with these machines on or off, if we run them.
    #[must_use]
    pub fn with_power(mut self, machines: &BTreeSet<MachineId>, power: Power) -> Self {
        for (_, machine) in self.machines.iter_mut().filter(|(id, _)| machines.contains(*id)) {
            machine.power = power;
        }
        self
    }

    /// The same where volumes without a name are new ones in machines that become others.
    #[must_use]
    pub fn with_own_volumes_anew(mut self) -> Self {
        self.own_volumes = OwnVolumes::Go;
        self
    }

    /// The same with these machines made anew, whether anything of them changed or not.
    #[must_use]
    pub fn with_anew(mut self, machines: &BTreeSet<MachineId>) -> Self {
        self.anew.extend(machines.iter().cloned());
        self
    }

    /// The same where these machines wait for each other only, and not for others that they depend on.
    #[must_use]
    pub fn waiting_among(mut self, machines: &BTreeSet<MachineId>) -> Self {
        for (_, machine) in self.machines.iter_mut().filter(|(id, _)| machines.contains(*id)) {
            machine.after.retain(|other, _| machines.contains(other));
        }
        self
    }

    /// The same without these machines.
    #[must_use]
    pub fn without_machines(mut self, machines: &BTreeSet<MachineId>) -> Self {
        self.machines.retain(|id, _| !machines.contains(id));
        self.nics.retain(|id, _| !machines.contains(&id.machine()));
        self.ports.retain(|_, target| !machines.contains(&target.machine));
        self.port_leases.retain(|_, lease| !machines.contains(&lease.machine));
        self
    }

    /// The networks, and who has nics on them, as wanted; machines that we run as they are: those that are not there
    /// stay away, those that do not run stay off.
    #[must_use]
    pub fn with_ours_as_they_are(mut self, seen: &Observed) -> Self {
        let as_it_is = Self::as_it_is(&self.project, seen);
        let is_ours = |machine: &WantedMachine| machine.state.body != Body::External;
        self.machines.retain(|_, machine| !is_ours(machine));
        self.machines.extend(as_it_is.machines.into_iter().filter(|(_, machine)| is_ours(machine)));
        let machines = &self.machines;
        self.nics.retain(|id, _| machines.contains_key(&id.machine()));
        self.ports.retain(|_, target| machines.contains_key(&target.machine));
        self.port_leases.retain(|_, lease| machines.contains_key(&lease.machine));
        self
    }

    /// What these machines are to be, and the others as they are: those that are not there stay away, those that
    /// do not run stay off, and those that the file names no more stay.
    /// A network on which others are stays as it is as well; where that is in the way, it is said.
    pub fn only(self, chosen: &BTreeSet<MachineId>, seen: &Observed) -> Result<Self, Vec<Refusal>> {
        let standing = seen.machines.keys().filter(|id| id.project == self.project);
        let others = standing.chain(self.machines.keys()).filter(|id| !chosen.contains(*id));
        let others = others.cloned().collect();
        self.leaving(&others, seen, |on, id| on.chosen(id) || (on.lost_nics && on.others(id)))
    }

    /// The same, where these machines are left as they are.
    pub fn beside(self, resting: &BTreeSet<MachineId>, seen: &Observed) -> Result<Self, Vec<Refusal>> {
        self.leaving(resting, seen, |_, _| true)
    }

    /// Leaves others as they are. Of the networks that they are not on, those are made that `is_needed`, or that are there
    /// anyway.
    fn leaving(
        mut self,
        others: &BTreeSet<MachineId>,
        seen: &Observed,
        is_needed: impl Fn(&Ons<'_>, &NetworkId) -> bool,
    ) -> Result<Self, Vec<Refusal>> {
        let as_it_is = Self::as_it_is(&self.project, seen);
        let is_other = |id: &MachineId| others.contains(id);
        self.keep_order(|name| others.contains(&MachineId::new(&as_it_is.project, name)), seen);
        // Those whose nics went with the engine have them again as soon as there is one.
        let lost_nics = seen.engine != Engine::Present;
        let named: BTreeSet<MachineId> = self.machines.keys().cloned().collect();
        let said = std::mem::take(&mut self.machines);
        let (mut theirs, ours): (BTreeMap<_, _>, BTreeMap<_, _>) =
            said.into_iter().partition(|(id, _)| is_other(id));
        self.machines = ours;
        self.machines.extend(as_it_is.machines.into_iter().filter(|(id, _)| is_other(id)));
        for (id, machine) in self.machines.iter_mut().filter(|(id, _)| is_other(id)) {
            // Started anew with whoever has its network, it waits for that as its file says.
            let network = owner(id, &machine.state).filter(|network| !is_other(network));
            let said = theirs.get_mut(id).zip(network);
            machine.after.extend(said.and_then(|(said, network)| said.after.remove_entry(&network)));
        }
        if lost_nics {
            // Of the rest nothing says what nics they had.
            let nicless = seen.leases.keys().map(NicId::machine).filter(|id| !named.contains(id));
            let nicless: BTreeSet<MachineId> = nicless.filter(is_other).collect();
            self = self.with_power(&nicless, Power::Off);
        }
        let machines = &self.machines;
        self.nics.retain(|id, _| {
            let machine = id.machine();
            !is_other(&machine) || (lost_nics && machines.contains_key(&machine))
        });
        self.nics.extend(as_it_is.nics.into_iter().filter(|(id, _)| is_other(&id.machine())));
        self.ports.retain(|_, target| {
            let machine = &target.machine;
            !is_other(machine) || (lost_nics && machines.contains_key(machine))
        });
        self.ports.extend(as_it_is.ports.into_iter().filter(|(_, target)| is_other(&target.machine)));
        let ports = &self.ports;
        self.port_leases.retain(|bind, _| ports.contains_key(bind));
        let chosen = as_it_is.port_leases.into_iter();
        self.port_leases.extend(chosen.filter(|(_, lease)| is_other(&lease.machine)));
        let on = Ons { wanted: &self, others, lost_nics };
        let stays: BTreeMap<_, _> = as_it_is.networks.into_iter().filter(|(id, _)| on.others(id)).collect();
        let is_there = |id: &NetworkId| seen.networks.contains_key(id) && !stays.contains_key(id);
        let needed = self.networks.keys().filter(|id| is_needed(&on, id) || is_there(id));
        let needed: BTreeSet<NetworkId> = needed.cloned().collect();
        self.networks.retain(|id, _| needed.contains(id));
        let is_once = |(id, machine): &(&MachineId, &WantedMachine)| is_other(id) && machine.is_one_off();
        let one_offs: Vec<String> =
            self.machines.iter().filter(is_once).map(|(id, _)| id.to_string()).collect();
        let refusals: Vec<Refusal> =
            self.networks.iter().filter_map(|(id, to)| in_the_way(id, to, &stays, &one_offs)).collect();
        let refusals = refusals.into_iter().chain(self.taken_addresses(others));
        let refusals: Vec<Refusal> = refusals.chain(self.without_network(others, seen)).collect();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        self.networks.extend(stays);
        if !self.networks.values().any(|network| network.reach == Reach::Nat) {
            self.uplink = Self::nothing(&self.project, seen, UnwantedVolumes::Keep).uplink;
        }
        Ok(self)
    }

    /// The fixed addresses that machines have which are left as they are.
    fn taken_addresses(&self, others: &BTreeSet<MachineId>) -> Vec<Refusal> {
        let (theirs, ours): (Vec<_>, Vec<_>) =
            self.nics.iter().partition(|(id, _)| others.contains(&id.machine()));
        let clash = |(id, nic): &(&NicId, &NicState)| {
            let addresses = nic.lease.addresses();
            let has_one = |other: &&(&NicId, &NicState)| {
                other.0.network() == id.network()
                    && other.1.lease.addresses().iter().any(|address| addresses.contains(address))
            };
            let (holder, _) = theirs.iter().find(has_one)?;
            Some(Refusal {
                key: format!("machines.{}.networks.{}", id.machine, id.network),
                why: format!("machine `{}`, which stays as it is, has its address", holder.machine),
                hint: format!("`stead rm {}` first, or give one of them another address", holder.machine()),
            })
        };
        ours.iter().filter_map(clash).collect()
    }

    /// The same with these machines made as they are on record, whatever the file says by now.
    #[must_use]
    pub fn as_made(mut self, machines: &BTreeSet<MachineId>, seen: &Observed) -> Self {
        for id in machines {
            if let (Some(wanted), Some(state)) = (self.machines.get_mut(id), seen.machines.get(id)) {
                wanted.state = state.clone();
            }
        }
        let project = self.project.clone();
        self.keep_order(|name| machines.contains(&MachineId::new(&project, name)), seen);
        self
    }

    /// What these depend on is what it was.
    fn keep_order(&mut self, is_one: impl Fn(&Name) -> bool, seen: &Observed) {
        let (Some(files), Some(there)) = (&mut self.files, seen.projects.get(&self.project)) else { return };
        files.order.retain(|name, _| !is_one(name));
        let own = there.order.iter().filter(|(name, _)| is_one(name));
        files.order.extend(own.map(|(name, others)| (name.clone(), others.clone())));
    }
}

/// Who is on which network.
struct Ons<'a> {
    wanted: &'a Wanted,
    others: &'a BTreeSet<MachineId>,
    lost_nics: bool,
}

impl Ons<'_> {
    fn machines<'b>(&'b self, id: &'b NetworkId) -> impl Iterator<Item = MachineId> + 'b {
        let on = self.wanted.nics.keys().filter(move |nic| nic.network() == *id).map(NicId::machine);
        on.filter(|machine| self.wanted.machines.contains_key(machine))
    }

    /// Whether machines that are left as they are are on it.
    fn others(&self, id: &NetworkId) -> bool {
        self.machines(id).any(|machine| self.others.contains(&machine))
    }

    /// Whether others are.
    fn chosen(&self, id: &NetworkId) -> bool {
        self.machines(id).any(|machine| !self.others.contains(&machine))
    }
}

/// Why a network cannot be what it is to be while others keep theirs.
fn in_the_way(
    id: &NetworkId,
    to: &NetworkState,
    stays: &BTreeMap<NetworkId, NetworkState>,
    one_offs: &[String],
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
    let hint = if one_offs.is_empty() {
        "run `stead up` without names, or with `--profile '*'`: then all machines follow the file".to_owned()
    } else {
        format!("what `run` made keeps its networks: `stead rm --force {}` first", one_offs.join(" "))
    };
    Some(Refusal { key: format!("networks.{}", id.name), why, hint })
}

fn machine_as_it_is(id: &MachineId, seen: &Observed) -> Option<WantedMachine> {
    let state = seen.machines.get(id)?.clone();
    let power = if seen.running.contains_key(id) { Power::On } else { Power::Off };
    Some(WantedMachine { state, after: [].into(), restarts_with: [].into(), power, provision: Vec::new() })
}
