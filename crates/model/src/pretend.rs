//! What each step promises: `Observed` after it. This is the pretended computer that the planner's laws are
//! tested on, and how the planner knows what its own removals leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::address::overlap;
use crate::name::{LinkName, MachineId, Name, NetworkId, NicId, VolumeId};
use crate::observed::{
    Engine, Lease, MachineState, NetworkState, NicState, Observed, PortLease, Running, Switchboard,
};
use crate::plan::Plan;
use crate::project::{Bind, Condition, Reach, Volume};
use crate::provision::ScriptId;
use crate::resolve::binds_clash;
use crate::served::Target;
use crate::step::{Change, Lost, Step};

/// A step relied on something that is not there, or made something that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misstep {
    /// The step.
    pub step: String,
    /// What was wrong.
    pub why: &'static str,
}

impl fmt::Display for Misstep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step `{}`: {}", self.step, self.why)
    }
}

fn needs(there: bool, why: &'static str) -> Option<&'static str> {
    (!there).then_some(why)
}

impl Plan {
    /// What it makes of a computer.
    pub fn promised(&self, seen: &Observed) -> Observed {
        self.steps.iter().fold(seen.clone(), |seen, planned| seen.without(&planned.step))
    }
}

impl Observed {
    /// The computer after a step, or what the step lacked.
    pub fn after(&self, step: &Step) -> Result<Self, Misstep> {
        match self.lacks(step) {
            Some(why) => Err(Misstep { step: step.to_string(), why }),
            None => Ok(self.with(step)),
        }
    }

    /// Which of these steps, the rest of a plan in its order, others have done since it was made. Refused with the
    /// first that can be done no more.
    pub fn done_of<'a>(
        &self,
        steps: impl IntoIterator<Item = &'a Step>,
    ) -> Result<BTreeSet<usize>, (usize, Misstep)> {
        let mut seen = self.clone();
        let mut done = BTreeSet::new();
        for (place, step) in steps.into_iter().enumerate() {
            let next = seen.with(step);
            match seen.lacks(step) {
                None => seen = next,
                Some(_) if next == seen && !matches!(step, Step::MachineAwait(..)) => {
                    done.insert(place);
                }
                Some(why) => return Err((place, Misstep { step: step.to_string(), why })),
            }
        }
        Ok(done)
    }

    /// The computer after a removal.
    pub(crate) fn without(self, step: &Step) -> Self {
        self.with(step)
    }

    /// What `step` relies on and is not there, or would make and is.
    fn lacks(&self, step: &Step) -> Option<&'static str> {
        match step {
            Step::ProjectAdd(..) => None,
            Step::ProjectRemove(name) => needs(!self.has_of(name), "the project still has something"),
            Step::EngineStart => needs(self.engine == Engine::Absent, "the engine is there, or a part of it"),
            Step::EngineStop => {
                needs(self.engine != Engine::Present || self.is_engine_empty(), "the engine is in use")
            }
            Step::SwitchboardStart => needs(
                self.engine == Engine::Present && self.switchboard == Switchboard::Absent,
                "no engine, or a switchboard already",
            ),
            Step::UplinkAdd(_) => needs(
                self.engine == Engine::Present && self.uplink.is_none(),
                "no engine, or an uplink already",
            ),
            Step::UplinkRemove(uplink) => needs(self.uplink.as_ref() == Some(uplink), "it is not the uplink"),
            Step::NetworkAdd(id, to) => self.lacks_for_new_network(id, to),
            Step::NetworkChange(id, Change { from, to }) => {
                needs(self.networks.get(id) == Some(from), "the network is not as the step takes it to be")
                    .or_else(|| self.lacks_for_network(to))
            }
            Step::NetworkRemove(id, _) => needs(
                self.networks.contains_key(id) && !self.nics.keys().any(|nic| nic.network() == *id),
                "there is no such network, or it has nics",
            ),
            Step::LeaseAdd(id, lease) => self
                .lacks_project(&id.project)
                .or_else(|| needs(self.is_free_for(id, lease), "another nic has the address or MAC")),
            Step::LeaseRemove(id, lease) => {
                let free = self.leases.get(id) == Some(lease) && !self.nics.contains_key(id);
                needs(free, "there is no such lease, or a nic uses it")
            }
            Step::MachineAdd(id, state, after) => self.lacks_for_new_machine(id, state, after),
            Step::MachineChange(id, _) => needs(
                self.machines.contains_key(id) && !self.running.contains_key(id),
                "there is no such machine, or it runs",
            ),
            Step::MachineStart(id, after) => self.lacks_for_start(id, after),
            Step::MachineAwait(id, _) => needs(self.machines.contains_key(id), "there is no such machine"),
            Step::MachineProvision(id, one) => {
                needs(self.running.contains_key(id), "the machine does not run")
                    .or_else(|| needs(!self.is_provisioned(id, &one.id), "its script was run already"))
            }
            Step::MachineStop(id, after) => {
                let has_ended = |other: &MachineId| !self.running.contains_key(other);
                needs(self.running.contains_key(id), "the machine does not run")
                    .or_else(|| needs(after.iter().all(has_ended), "a machine that depends on it runs"))
            }
            Step::MachineRemove(id, lost, _) => self.lacks_to_remove(id, lost),
            Step::NicAdd(id, to) => self.lacks_for_new_nic(id, to),
            Step::NicChange(id, Change { from, to }) => needs(
                self.nics.get(id) == Some(from) && self.leases.get(id) == Some(&to.lease),
                "the nic is not as the step takes it to be, or has no lease",
            ),
            Step::NicRemove(id, ..) => needs(self.nics.contains_key(id), "there is no such nic"),
            Step::PortAdd(bind, target, _) => self.lacks_for_new_port(*bind, target),
            Step::PortRemove(bind, target) => {
                needs(self.ports.get(bind) == Some(target), "there is no such port")
            }
            Step::PortLeaseAdd(bind, lease) => self.lacks_for_new_port_lease(*bind, lease),
            Step::PortLeaseRemove(bind, lease) => {
                needs(self.port_leases.get(bind) == Some(lease), "the port is not on record so")
            }
            Step::VolumeAdd(id, _) => self.lacks_for_new_volume(id),
            Step::VolumeChange(id, change) => self.lacks_for_other_volume(id, change.from),
            Step::VolumeRemove(id) => needs(self.volumes.contains_key(id), "there is no such volume"),
        }
    }

    fn lacks_for_new_network(&self, id: &NetworkId, to: &NetworkState) -> Option<&'static str> {
        self.lacks_project(&id.project)
            .or_else(|| needs(!self.networks.contains_key(id), "the network is there"))
            .or_else(|| needs(self.is_subnet_free(to), "another network has a part of its subnet"))
            .or_else(|| needs(self.is_link_free(&to.link), "another network or nic has its link"))
            .or_else(|| self.lacks_for_network(to))
    }

    fn lacks_for_start(
        &self,
        id: &MachineId,
        after: &BTreeMap<MachineId, Condition>,
    ) -> Option<&'static str> {
        let is_ours = self.machines.get(id).is_some_and(MachineState::is_ours);
        let are_there = after.keys().all(|other| self.machines.contains_key(other));
        let mut volumes = self.machines.get(id).into_iter().flat_map(MachineState::mounts);
        let have_volumes =
            volumes.all(|mount| mount.volume(&id.project).is_none_or(|id| self.volumes.contains_key(&id)));
        needs(self.engine == Engine::Present && is_ours, "no engine, or no such machine of ours")
            .or_else(|| needs(!self.running.contains_key(id), "the machine runs"))
            .or_else(|| needs(are_there, "a machine that it depends on is not there"))
            .or_else(|| needs(have_volumes, "a volume that it mounts is not there"))
    }

    fn lacks_for_new_machine(
        &self,
        id: &MachineId,
        state: &MachineState,
        after: &BTreeSet<MachineId>,
    ) -> Option<&'static str> {
        let is_ready = (self.engine == Engine::Present || !state.goes_with_engine())
            && !self.machines.contains_key(id)
            && after.iter().all(|other| self.machines.contains_key(other));
        self.lacks_project(&id.project)
            .or_else(|| needs(is_ready, "no engine, or the machine is there, or one it depends on is not"))
    }

    fn lacks_to_remove(&self, id: &MachineId, lost: &Lost) -> Option<&'static str> {
        needs(
            self.machines.contains_key(id)
                && self.snapshots.get(id).map_or(lost.snapshots.is_empty(), |there| *there == lost.snapshots)
                && self.damaged.contains(id) == lost.unknown
                && !self.running.contains_key(id)
                && !self.nics.keys().any(|nic| nic.machine() == *id),
            "there is no such machine, or it runs, or has nics or other snapshots",
        )
    }

    fn lacks_for_new_nic(&self, id: &NicId, to: &NicState) -> Option<&'static str> {
        let is_ready = self.machines.contains_key(&id.machine())
            && self.networks.contains_key(&id.network())
            && self.leases.get(id) == Some(&to.lease)
            && !self.nics.contains_key(id);
        let mut siblings = self.nics.iter().filter(|(other, _)| other.machine() == id.machine());
        let is_named_so = |nic: &NicState| nic.end.inner().is_some() && nic.end.inner() == to.end.inner();
        needs(is_ready, "no machine, network or lease for it, or the nic is there")
            .or_else(|| {
                needs(!siblings.any(|(_, nic)| is_named_so(nic)), "another nic of the machine has its name")
            })
            .or_else(|| needs(self.is_link_free(&to.link), "another network or nic has its link"))
    }

    fn lacks_for_new_port(&self, bind: Bind, target: &Target) -> Option<&'static str> {
        let mut nics = self.nics.iter().filter(|(id, _)| id.machine() == target.machine);
        let is_free = !self.ports.keys().any(|other| binds_clash(*other, bind));
        needs(self.switchboard == Switchboard::Running, "there is no switchboard")
            .or_else(|| needs(is_free, "the port is taken"))
            .or_else(|| {
                let there = nics.any(|(_, nic)| nic.lease.addresses().contains(&target.address));
                needs(there, "no nic of the machine has the address")
            })
    }

    fn lacks_for_new_port_lease(&self, bind: Bind, lease: &PortLease) -> Option<&'static str> {
        let is_free = !self.port_leases.keys().any(|other| binds_clash(*other, bind));
        let is_there = self.ports.get(&bind).is_some_and(|target| target.is_of(lease));
        let is_closed =
            self.machines.contains_key(&lease.machine) && !self.running.contains_key(&lease.machine);
        self.lacks_project(&lease.machine.project)
            .or_else(|| needs(is_free, "the port is on record already"))
            .or_else(|| needs(is_there || is_closed, "the port does not lead there"))
    }

    fn lacks_for_new_volume(&self, id: &VolumeId) -> Option<&'static str> {
        self.lacks_project(&id.project)
            .or_else(|| needs(!self.volumes.contains_key(id), "the volume is there"))
    }

    fn lacks_for_other_volume(&self, id: &VolumeId, from: Volume) -> Option<&'static str> {
        needs(self.volumes.get(id) == Some(&from), "the volume is not as the step takes it to be")
    }

    fn lacks_project(&self, name: &Name) -> Option<&'static str> {
        needs(self.projects.contains_key(name), "the project is not on record")
    }

    fn is_provisioned(&self, id: &MachineId, script: &ScriptId) -> bool {
        self.provisioned.get(id).is_some_and(|done| done.contains(script))
    }

    /// Whether anything of a project exists besides its record.
    fn has_of(&self, project: &Name) -> bool {
        self.networks.keys().any(|id| id.project == *project)
            || self.machines.keys().any(|id| id.project == *project)
            || self.running.keys().any(|id| id.project == *project)
            || self.nics.keys().any(|id| id.project == *project)
            || self.leases.keys().any(|id| id.project == *project)
            || self.ports.values().any(|target| target.machine.project == *project)
            || self.port_leases.values().any(|lease| lease.machine.project == *project)
            || self.volumes.keys().any(|id| id.project == *project)
    }

    fn is_engine_empty(&self) -> bool {
        let is_used = self.machines.values().any(MachineState::goes_with_engine)
            || self.running.values().any(|running| *running == Running::Connected);
        let is_bare = self.networks.is_empty() && self.nics.is_empty() && !is_used;
        is_bare && self.ports.is_empty() && self.uplink.is_none()
    }

    /// Whether no other nic of the network has one of these addresses, or the MAC.
    fn is_free_for(&self, id: &NicId, lease: &Lease) -> bool {
        let mut others =
            self.leases.iter().filter(|(other, _)| other.network() == id.network() && *other != id);
        let clashes = |theirs: &Lease| {
            theirs.mac == lease.mac || theirs.addresses().iter().any(|a| lease.addresses().contains(a))
        };
        !others.any(|(_, theirs)| clashes(theirs))
    }

    fn is_subnet_free(&self, network: &NetworkState) -> bool {
        let nets = network.subnets();
        !self.networks.values().flat_map(NetworkState::subnets).any(|a| nets.iter().any(|b| overlap(a, *b)))
    }

    fn is_link_free(&self, link: &LinkName) -> bool {
        !self.networks.values().any(|network| network.link == *link)
            && !self.nics.values().any(|nic| nic.link == *link)
    }

    fn lacks_for_network(&self, to: &NetworkState) -> Option<&'static str> {
        let nat = to.reach == Reach::Nat;
        let served = self.engine == Engine::Present && self.switchboard == Switchboard::Running;
        // Offline there is no way out to be had; the network stands all the same.
        let lacks_uplink = nat && self.host.online && self.uplink.is_none();
        (!served || lacks_uplink).then_some("no engine, switchboard or uplink for it")
    }

    /// The computer after a step that lacked nothing.
    fn with(&self, step: &Step) -> Self {
        let mut seen = self.clone();
        match step.clone() {
            Step::ProjectAdd(name, files) => drop(seen.projects.insert(name, files)),
            Step::ProjectRemove(name) => drop(seen.projects.remove(&name)),
            Step::EngineStart => seen.engine = Engine::Present,
            Step::EngineStop => seen.lose_engine(),
            Step::SwitchboardStart => seen.switchboard = Switchboard::Running,
            Step::UplinkAdd(uplink) => (seen.uplink, seen.uplink_is_broken) = (Some(uplink), false),
            Step::UplinkRemove(_) => (seen.uplink, seen.uplink_is_broken) = (None, false),
            Step::NetworkAdd(id, to) | Step::NetworkChange(id, Change { to, .. }) => {
                drop(seen.networks.insert(id, to));
            }
            Step::NetworkRemove(id, _) => drop(seen.networks.remove(&id)),
            Step::LeaseAdd(id, lease) => drop(seen.leases.insert(id, lease)),
            Step::LeaseRemove(id, _) => drop(seen.leases.remove(&id)),
            Step::MachineAdd(id, state, _) | Step::MachineChange(id, Change { to: state, .. }) => {
                drop(seen.machines.insert(id, state));
            }
            Step::MachineStart(id, _) => drop(seen.running.insert(id, Running::Connected)),
            Step::MachineAwait(..) => {}
            Step::MachineProvision(id, one) => {
                one.take_place(seen.provisioned.entry(id).or_default());
            }
            Step::MachineStop(id, _) => drop(seen.running.remove(&id)),
            Step::MachineRemove(id, ..) => {
                seen.cut_off_sharers(&id);
                seen.machines.remove(&id);
                seen.snapshots.remove(&id);
                seen.damaged.remove(&id);
                seen.provisioned.remove(&id);
            }
            Step::NicAdd(id, to) | Step::NicChange(id, Change { to, .. }) => drop(seen.nics.insert(id, to)),
            Step::NicRemove(id, ..) => drop(seen.nics.remove(&id)),
            Step::PortAdd(bind, target, _) => drop(seen.ports.insert(bind, target)),
            Step::PortRemove(bind, _) => drop(seen.ports.remove(&bind)),
            Step::PortLeaseAdd(bind, lease) => drop(seen.port_leases.insert(bind, lease)),
            Step::PortLeaseRemove(bind, _) => drop(seen.port_leases.remove(&bind)),
            Step::VolumeAdd(id, to) | Step::VolumeChange(id, Change { to, .. }) => {
                seen.volumes.insert(id, to);
            }
            Step::VolumeRemove(id) => drop(seen.volumes.remove(&id)),
        }
        seen
    }

    /// All that goes with the engine: what is in its namespaces, and what is served there.
    fn lose_engine(&mut self) {
        self.engine = Engine::Absent;
        self.switchboard = Switchboard::Absent;
        (self.uplink, self.uplink_is_broken) = (None, false);
        self.networks.clear();
        self.nics.clear();
        self.ports.clear();
        self.machines.retain(|_, machine| !machine.goes_with_engine());
        self.running.values_mut().for_each(|running| *running = Running::CutOff);
    }
}
