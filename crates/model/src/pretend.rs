//! What each step promises: `Observed` after it. This is the pretended computer that the planner's laws are
//! tested on, and how the planner knows what its own removals leave.

use std::fmt;

use crate::name::NicId;
use crate::observed::{Engine, Lease, Observed, Switchboard};
use crate::project::Reach;
use crate::step::{Change, Step};

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

impl Observed {
    /// The computer after a step, or what the step lacked.
    pub fn after(&self, step: &Step) -> Result<Self, Misstep> {
        match self.lacks(step) {
            Some(why) => Err(Misstep { step: step.to_string(), why }),
            None => Ok(self.with(step)),
        }
    }

    /// The computer after a removal.
    pub(crate) fn without(self, step: &Step) -> Self {
        self.with(step)
    }

    /// What `step` relies on and is not there, or would make and is.
    fn lacks(&self, step: &Step) -> Option<&'static str> {
        let needs = |there: bool, why: &'static str| (!there).then_some(why);
        match step {
            Step::ProjectAdd(..) | Step::MachineRemove(_) => None,
            Step::ProjectRemove(name) => needs(
                !self.networks.keys().any(|id| id.project == *name)
                    && !self.machines.keys().any(|id| id.project == *name)
                    && !self.leases.keys().any(|id| id.project == *name)
                    && !self.volumes.iter().any(|id| id.project == *name),
                "the project still has something",
            ),
            Step::EngineStart => needs(self.engine != Engine::Present, "the engine is there"),
            Step::EngineStop => {
                let empty = self.networks.is_empty() && self.nics.is_empty() && self.uplink.is_none();
                needs(self.engine == Engine::Partial || empty, "the engine is in use")
            }
            Step::SwitchboardStart => needs(self.engine == Engine::Present, "there is no engine"),
            Step::UplinkAdd(_) => needs(
                self.engine == Engine::Present && self.uplink.is_none(),
                "no engine, or an uplink already",
            ),
            Step::UplinkRemove(uplink) => {
                let is_alone = self.uplink.as_ref() == Some(uplink);
                needs(is_alone, "it is not the uplink")
            }
            Step::NetworkAdd(id, to) => needs(!self.networks.contains_key(id), "the network is there")
                .or_else(|| self.lacks_for_network(to.reach == Reach::Nat)),
            Step::NetworkChange(id, Change { from, to }) => {
                needs(self.networks.get(id) == Some(from), "the network is not as the step takes it to be")
                    .or_else(|| self.lacks_for_network(to.reach == Reach::Nat))
            }
            Step::NetworkRemove(id) => needs(
                self.networks.contains_key(id) && !self.nics.keys().any(|nic| nic.network() == *id),
                "there is no such network, or it has nics",
            ),
            Step::LeaseAdd(id, lease) => needs(self.is_free_for(id, lease), "another nic has the address"),
            Step::LeaseRemove(id, lease) => {
                let free = self.leases.get(id) == Some(lease) && !self.nics.contains_key(id);
                needs(free, "there is no such lease, or a nic uses it")
            }
            Step::MachineAdd(id, _, after) => needs(
                self.engine == Engine::Present
                    && !self.machines.contains_key(id)
                    && after.iter().all(|other| self.machines.contains_key(other)),
                "no engine, or the machine is there, or one it depends on is not",
            ),
            Step::NicAdd(id, to) => needs(
                self.machines.contains_key(&id.machine())
                    && self.networks.contains_key(&id.network())
                    && self.leases.get(id) == Some(&to.lease)
                    && !self.nics.contains_key(id),
                "no machine, network or lease for it, or the nic is there",
            ),
            Step::NicChange(id, Change { from, .. }) => {
                needs(self.nics.get(id) == Some(from), "the nic is not as the step takes it to be")
            }
            Step::NicRemove(id) => needs(self.nics.contains_key(id), "there is no such nic"),
            Step::PortAdd(bind, target) => needs(
                self.switchboard == Switchboard::Running
                    && !self.ports.contains_key(bind)
                    && self.nics.keys().any(|nic| nic.machine() == target.machine),
                "no switchboard or nic for it, or the port is taken",
            ),
            Step::PortRemove(bind, target) => {
                needs(self.ports.get(bind) == Some(target), "there is no such port")
            }
            Step::VolumeAdd(id) => needs(!self.volumes.contains(id), "the volume is there"),
            Step::VolumeRemove(id) => needs(self.volumes.contains(id), "there is no such volume"),
        }
    }

    /// Whether no other nic of the network has one of these addresses.
    fn is_free_for(&self, id: &NicId, lease: &Lease) -> bool {
        let others = self.leases.iter().filter(|(other, _)| other.network() == id.network() && *other != id);
        let mut taken = others.flat_map(|(_, theirs)| theirs.addresses());
        !taken.any(|address| lease.addresses().contains(&address))
    }

    fn lacks_for_network(&self, nat: bool) -> Option<&'static str> {
        let served = self.engine == Engine::Present && self.switchboard == Switchboard::Running;
        (!served || (nat && self.uplink.is_none())).then_some("no engine, switchboard or uplink for it")
    }

    /// The computer after a step that lacked nothing.
    fn with(&self, step: &Step) -> Self {
        let mut seen = self.clone();
        match step.clone() {
            Step::ProjectAdd(name, directory) => drop(seen.projects.insert(name, directory)),
            Step::ProjectRemove(name) => drop(seen.projects.remove(&name)),
            Step::EngineStart => seen.engine = Engine::Present,
            Step::EngineStop => seen.lose_engine(),
            Step::SwitchboardStart => seen.switchboard = Switchboard::Running,
            Step::UplinkAdd(uplink) => seen.uplink = Some(uplink),
            Step::UplinkRemove(_) => seen.uplink = None,
            Step::NetworkAdd(id, to) | Step::NetworkChange(id, Change { to, .. }) => {
                drop(seen.networks.insert(id, to));
            }
            Step::NetworkRemove(id) => drop(seen.networks.remove(&id)),
            Step::LeaseAdd(id, lease) => drop(seen.leases.insert(id, lease)),
            Step::LeaseRemove(id, _) => drop(seen.leases.remove(&id)),
            Step::MachineAdd(id, state, _) => drop(seen.machines.insert(id, state)),
            Step::MachineRemove(id) => drop(seen.machines.remove(&id)),
            Step::NicAdd(id, to) | Step::NicChange(id, Change { to, .. }) => drop(seen.nics.insert(id, to)),
            Step::NicRemove(id) => drop(seen.nics.remove(&id)),
            Step::PortAdd(bind, target) => drop(seen.ports.insert(bind, target)),
            Step::PortRemove(bind, _) => drop(seen.ports.remove(&bind)),
            Step::VolumeAdd(id) => drop(seen.volumes.insert(id)),
            Step::VolumeRemove(id) => drop(seen.volumes.remove(&id)),
        }
        seen
    }

    /// All that goes with the engine: what is in its namespaces, and what is served there.
    fn lose_engine(&mut self) {
        self.engine = Engine::Absent;
        self.switchboard = Switchboard::Absent;
        self.uplink = None;
        self.networks.clear();
        self.nics.clear();
        self.ports.clear();
        self.machines.clear();
    }
}
