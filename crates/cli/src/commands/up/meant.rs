//! Which machines `up` is about, and how many there are to be of them.

use std::collections::{BTreeMap, BTreeSet};

use stead_model::name::{MachineId, Name};
use stead_model::observed::{MachineState, Observed};
use stead_model::project::Machine;

use super::super::ps::{base, is_meant};
use super::{Anew, Whose, named, with_dependencies};
use crate::args::{Global, UpArgs};
use crate::failure::Failure;
use crate::project::{self, Loaded};
use crate::session::look;

/// The machines that are meant.
pub(super) struct Meant {
    /// Those of the file.
    pub(super) chosen: BTreeSet<MachineId>,
    /// Those that become what the file says, or go.
    pub(super) whose: Whose,
    /// What of them is made anew in any case.
    pub(super) anew: Anew,
}

/// Reads the project here, with so many of its machines as there are to be.
pub(super) fn load(global: &Global, args: &UpArgs) -> Result<Loaded, Failure> {
    project::load_scaled(global, &args.machines, &args.scale.iter().cloned().collect(), args.relock)
}

impl Meant {
    pub(super) fn of(loaded: &Loaded, args: &UpArgs) -> Result<Self, Failure> {
        let project = &loaded.project;
        let scale: BTreeMap<&Name, u16> = args.scale.iter().map(|(name, count)| (name, *count)).collect();
        // One that is to be gone is meant all the same.
        let goes = |pattern: &str| {
            let is_it = |name: &Name| is_meant(pattern, &MachineId::new(&project.name, name));
            let is_gone = scale.iter().any(|(name, count)| *count == 0 && is_it(name));
            is_gone && !project.machines.keys().any(is_it)
        };
        let stay: Vec<String> = args.machines.iter().filter(|name| !goes(name)).cloned().collect();
        let all_go = stay.is_empty() && !args.machines.is_empty();
        let by_name = if all_go { BTreeSet::new() } else { named(project, &stay)? };
        let is_ours = |id: &&MachineId| project.machines.get(&id.name).is_some_and(|one| one.runs.is_ours());
        let machines = by_name.iter().filter(|_| args.force_recreate).filter(is_ours).cloned().collect();
        let anew = Anew { machines, own_volumes: args.renew_anon_volumes };
        let chosen = if args.no_deps || all_go { by_name } else { with_dependencies(project, &stay)? };
        if args.machines.is_empty() {
            return Ok(Self { chosen, whose: Whose::All, anew });
        }
        if let Some((name, _)) = scale
            .iter()
            .find(|(name, count)| **count > 0 && !chosen.iter().any(|id| is_one_of(&id.name, name)))
        {
            let what = format!("`--scale {name}`: the machine is not among those that are named");
            return Err(Failure::request(&what, "name it too, or name none"));
        }
        let mut meant = chosen.clone();
        if args.remove_orphans || !scale.is_empty() {
            let seen = look()?.observe()?;
            meant.extend(args.remove_orphans.then(|| orphans(loaded, &seen)).into_iter().flatten());
            meant.extend(surplus(loaded, &scale, &seen));
        }
        let whose = if args.no_deps { Whose::Alone(meant) } else { Whose::Only(meant) };
        Ok(Self { chosen, whose, anew })
    }
}

/// Whether a machine has a name, or is one of several that have it in common.
fn is_one_of(machine: &Name, name: &Name) -> bool {
    machine == name || base(machine) == Some(name.as_str())
}

/// Those of machines of which there are to be so many that are too many.
fn surplus(loaded: &Loaded, scale: &BTreeMap<&Name, u16>, seen: &Observed) -> BTreeSet<MachineId> {
    let project = &loaded.project;
    let resting = loaded.resting();
    let is_one = |(id, state): &(&MachineId, &MachineState)| {
        let is_known = project.machines.contains_key(&id.name) || resting.contains(&id.name);
        let is_scaled = scale.keys().any(|name| is_one_of(&id.name, name));
        id.project == project.name && is_scaled && !is_known && state.one_off().is_none()
    };
    seen.machines.iter().filter(is_one).map(|(id, _)| id.clone()).collect()
}

/// The machines that a project's file has no more; what `run` made more of them are none.
fn orphans(loaded: &Loaded, seen: &Observed) -> BTreeSet<MachineId> {
    let project = &loaded.project;
    let resting = loaded.resting();
    let is_one = |(id, state): &(&MachineId, &MachineState)| {
        // One replica more than there are to be is of those that it was made with: they have a name in common.
        let is_called = |machine: &Machine, name: &str| {
            machine.nics.iter().any(|nic| nic.aliases.iter().any(|alias| alias.as_str() == name))
        };
        let is_known = |(name, machine): (&Name, &Machine)| {
            let common = base(&id.name).filter(|common| base(name) == Some(*common));
            *name == id.name || common.is_some_and(|common| is_called(machine, common))
        };
        let is_known = project.machines.iter().any(is_known) || resting.contains(&id.name);
        id.project == project.name && !is_known && state.one_off().is_none()
    };
    seen.machines.iter().filter(is_one).map(|(id, _)| id.clone()).collect()
}
