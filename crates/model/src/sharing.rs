//! Machines in the network of another: they start after it, end before it, and are started anew when its network is
//! another one.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::NetworkMode;
use crate::name::{MachineId, Name};
use crate::observed::{MachineState, Observed, Running};
use crate::plan::{Power, Wanted, WantedMachine};
use crate::project::{Condition, Project};
use crate::resolve::Refusal;

impl MachineState {
    /// Whether it is in this computer's network.
    pub fn is_on_host(&self) -> bool {
        self.container().is_some_and(|made| made.wish.network == NetworkMode::Host)
    }

    /// The other machine of its project in whose network it is, if it is in one's.
    pub fn shares(&self) -> Option<&Name> {
        self.container()?.wish.network.other()
    }
}

/// The other machine in whose network one is, if it is in one's.
pub(crate) fn owner(id: &MachineId, state: &MachineState) -> Option<MachineId> {
    state.shares().map(|other| MachineId::new(&id.project, other))
}

/// Whether a machine runs, in a network that there is, and stays as it is.
fn goes_on(id: &MachineId, machine: &WantedMachine, seen: &Observed) -> bool {
    seen.running.get(id) == Some(&Running::Connected) && seen.machines.get(id) == Some(&machine.state)
}

impl Observed {
    /// The machine whose network one is in: itself, or another.
    pub fn owner_of(&self, id: &MachineId) -> MachineId {
        let other = self.machines.get(id).and_then(|state| owner(id, state));
        other.unwrap_or_else(|| id.clone())
    }

    /// The machines that are in the network of this one.
    pub fn sharers<'s>(&'s self, of: &'s MachineId) -> impl Iterator<Item = &'s MachineId> {
        let all = self.machines.iter();
        all.filter(|(id, state)| owner(id, state).as_ref() == Some(of)).map(|(id, _)| id)
    }

    /// Leaves those of them that run in a network which is gone.
    pub(crate) fn cut_off_sharers(&mut self, of: &MachineId) {
        let sharers: BTreeSet<MachineId> = self.sharers(of).cloned().collect();
        let running = self.running.iter_mut().filter(|(id, _)| sharers.contains(*id));
        running.for_each(|(_, running)| *running = Running::CutOff);
    }
}

impl Wanted {
    /// The same where whoever is in the network of another is started after that, and only where that runs or is to: by itself
    /// it would reach out by another way than the other one's.
    #[must_use]
    pub(crate) fn with_sharers_after(mut self, seen: &Observed) -> Self {
        let runs = self.running_owners();
        for (id, machine) in &mut self.machines {
            let Some(other) = owner(id, &machine.state) else { continue };
            match runs.get(&other) {
                Some(is_to_run) if *is_to_run || goes_on(id, machine, seen) => {
                    machine.after.entry(other).or_insert(Condition::Started);
                }
                Some(_) | None => machine.power = Power::Off,
            }
        }
        self
    }

    /// The machines that are there, and whether somebody else runs them or they are to run.
    fn running_owners(&self) -> BTreeMap<MachineId, bool> {
        let runs = |machine: &WantedMachine| !machine.state.is_ours() || machine.is_to_run();
        self.machines.iter().map(|(id, machine)| (id.clone(), runs(machine))).collect()
    }

    /// The machines that are to run, or to be started, and whose network is that of one which is not there, or does not run;
    /// but for these.
    pub(crate) fn without_network(&self, but: &BTreeSet<MachineId>, seen: &Observed) -> Vec<Refusal> {
        let runs = self.running_owners();
        let to_run = self.machines.iter().filter(|(id, machine)| !but.contains(id) && machine.is_to_run());
        let lacking = to_run.filter_map(|(id, machine)| {
            let other = owner(id, &machine.state)?;
            let (what, hint) = match runs.get(&other) {
                None => ("is not there", "bring up `NAME` as well, or remove this one and make it anew"),
                Some(false) if !goes_on(id, machine, seen) => ("does not run", "start `NAME` as well"),
                Some(_) => return None,
            };
            Some(Refusal {
                key: format!("machines.{}.network_mode", id.name),
                why: format!("machine `{}`, in whose network it is, {what}", other.name),
                hint: hint.replace("NAME", other.name.as_str()),
            })
        });
        lacking.collect()
    }
}

impl Project {
    /// The same without these machines. What is in the network of one of them is in none: a file does not name what is gone.
    pub fn take_out(&mut self, is_one: impl Fn(&Name) -> bool) {
        self.machines.retain(|name, _| !is_one(name));
        for machine in self.machines.values_mut() {
            machine.depends_on.retain(|name, _| !is_one(name));
            machine.restarts_with.retain(|name| !is_one(name));
            if let Some(container) = machine.container_mut()
                && container.network.other().is_some_and(&is_one)
            {
                container.network = NetworkMode::Own;
            }
        }
    }

    /// Gives a machine another name, for those as well that depend on it.
    pub fn call(&mut self, from: &Name, to: &Name) {
        if let Some(machine) = self.machines.remove(from) {
            self.machines.insert(to.clone(), machine);
        }
        for machine in self.machines.values_mut() {
            let condition = machine.depends_on.remove(from);
            machine.depends_on.extend(condition.map(|condition| (to.clone(), condition)));
            if machine.restarts_with.remove(from) {
                machine.restarts_with.insert(to.clone());
            }
        }
    }
}
