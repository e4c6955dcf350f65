//! Containers in a network that is not their own: this computer's, or another machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;

use anyhow::{Context, Result};

use stead_model::container::{Container, NetworkMode};
use stead_model::name::MachineId;
use stead_model::observed::{MachineState, Running};
use stead_net::anchor::Label;

use super::engine::namespace_label;
use super::inside::Inside;
use crate::home::Home;
use crate::machine::{Files, NetworkMark};
use crate::state::Records;

/// The machine by whose name the anchor keeps the namespace that one needs. One in this computer's network has one that
/// nobody is in: by that it is seen whether its engine is still the same.
pub(super) fn keeper_of(id: &MachineId, mode: &NetworkMode) -> MachineId {
    match mode {
        NetworkMode::Own | NetworkMode::Host => id.clone(),
        NetworkMode::Machine(other) => MachineId::new(&id.project, other),
    }
}

/// A machine's own mode; that of one that is no container of ours is the usual one.
fn mode(machines: &BTreeMap<MachineId, MachineState>, id: &MachineId) -> NetworkMode {
    let made = machines.get(id).and_then(MachineState::container);
    made.map_or(NetworkMode::Own, |made| made.wish.network.clone())
}

/// What is wished for of a machine that may be somebody else's.
pub(super) fn wish<'r>(records: &'r Records, id: &MachineId) -> Option<&'r Container> {
    records.machines.get(id).and_then(MachineState::container).map(|made| &made.wish)
}

/// What a container calls itself: where its network is another's, as whoever has it.
pub(super) fn hostname(records: &Records, id: &MachineId, wish: &Container) -> Option<String> {
    match &wish.network {
        NetworkMode::Own => wish.hostname.clone(),
        NetworkMode::Host => {
            let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
            Some(wish.hostname.clone().unwrap_or_else(own))
        }
        NetworkMode::Machine(other) => {
            let said =
                self::wish(records, &keeper_of(id, &wish.network)).and_then(|wish| wish.hostname.clone());
            Some(said.unwrap_or_else(|| other.to_string()))
        }
    }
}

/// A machine, and those in its network.
pub(super) fn with_sharers(records: &Records, id: &MachineId) -> BTreeSet<MachineId> {
    let is_in_it = |(other, state): &(&MachineId, &MachineState)| {
        state.shares().is_some_and(|name| MachineId::new(&other.project, name) == *id)
    };
    let sharers = records.machines.iter().filter(is_in_it).map(|(other, _)| other.clone());
    sharers.chain([id.clone()]).collect()
}

/// Finds out which of those that run are in a network that there still is.
pub(super) fn connect(
    home: &Home,
    inside: &mut Inside,
    (namespaces, machines): (&[Label], &BTreeMap<MachineId, MachineState>),
    running: &mut BTreeMap<MachineId, Running>,
) -> Result<()> {
    for (id, running) in running {
        let mode = mode(machines, id);
        let label = namespace_label(&keeper_of(id, &mode))?;
        if !namespaces.contains(&label) {
            continue;
        }
        let is_in_it = match mode {
            NetworkMode::Own | NetworkMode::Host => true,
            NetworkMode::Machine(_) => {
                // The other may have another one by now, or none since they were listed.
                let there = inside.anchor.namespace(&label);
                let there = there.and_then(|namespace| NetworkMark::of(namespace.as_fd())).ok();
                there.is_some() && NetworkMark::load(&Files::new(home, id)) == there
            }
        };
        if is_in_it {
            *running = Running::Connected;
        }
    }
    Ok(())
}

/// A file of this computer's own that says who is where, or whom to ask; nothing if there is none.
pub(super) fn of_this_computer(path: &str) -> Result<String> {
    match fs::read(path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}
