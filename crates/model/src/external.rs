//! External volumes and networks: machines of one project mount them, or are on them, and another project has them, mostly that
//! of what commands make. No plan makes, changes or deletes one but those of the project that has it; and none of those
//! takes a network from under machines of others.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::Mount;
use crate::difference::changed_network_key;
use crate::name::{LOOSE_PROJECT, MachineId, Name, NetworkId, NicId, VolumeId, as_ours};
use crate::observed::{Engine, GuardState, NetworkState, NicState, Observed};
use crate::plan::{Plan, Wanted, must_replace};
use crate::project::{Guard, Project};
use crate::resolve::{Refusal, is_host6, is_usable};
use crate::step::Step;

impl Observed {
    /// A network as machines of other projects can be put on it: it stands, and all that it has to have is there.
    pub fn lent(&self, id: &NetworkId) -> Option<&NetworkState> {
        let state = self.networks.get(id).filter(|_| self.engine == Engine::Present)?;
        let is_whole = state.service.is_some() || (state.gateway.is_none() && state.gateway6.is_none());
        is_whole.then_some(state)
    }

    /// The nics on a network that are of machines of other projects.
    pub fn nics_of_others<'a>(
        &'a self,
        id: &'a NetworkId,
    ) -> impl Iterator<Item = (&'a NicId, &'a NicState)> {
        self.nics.iter().filter(move |(nic, _)| nic.is_external() && nic.network() == *id)
    }

    /// The machines that have a volume mounted, or would when they ran, of whatever project.
    pub fn users_of(&self, volume: &VolumeId) -> BTreeSet<MachineId> {
        let uses =
            |id: &MachineId, mount: &Mount| mount.volume(&id.project).is_some_and(|used| used == *volume);
        let users = self.machines.iter().filter(|(id, state)| state.mounts().any(|mount| uses(id, mount)));
        users.map(|(id, _)| id.clone()).collect()
    }
}

/// Why machines that have these mounts cannot be had: external volumes that are not there.
pub fn missing_volumes<'a>(mounts: impl Iterator<Item = &'a Mount>, seen: &Observed) -> Vec<Refusal> {
    let external = mounts.filter_map(|mount| match mount {
        Mount::Volume { name, external: Some(id), .. } => Some((name, id)),
        Mount::Volume { external: None, .. } | Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
    });
    let missing: BTreeMap<&Name, &VolumeId> =
        external.filter(|(_, id)| !seen.volumes.contains_key(id)).collect();
    let refusal = |(name, id): (&Name, &VolumeId)| {
        let (which, hint) = if id.project.as_str() == LOOSE_PROJECT {
            (id.name.to_string(), format!("`stead volume create {}` makes it", id.name))
        } else {
            (
                id.to_string(),
                format!("project `{}` makes it, if its file names it: `stead up` there first", id.project),
            )
        };
        Refusal { key: format!("volumes.{name}"), why: format!("there is no volume `{which}`"), hint }
    };
    missing.into_iter().map(refusal).collect()
}

impl Observed {
    /// These projects, each behind those on whose networks its machines have addresses; where they are so in a circle, as they come.
    pub fn lenders_first(&self, mut projects: Vec<Name>) -> Vec<Name> {
        let borrows = |from: &Name, of: &Name| {
            from != of && self.leases.keys().any(|nic| nic.project == *from && nic.lender == *of)
        };
        let mut order = Vec::new();
        while !projects.is_empty() {
            let is_free = |project: &Name| !projects.iter().any(|other| borrows(project, other));
            let next = projects.iter().position(is_free).unwrap_or_default();
            order.push(projects.remove(next));
        }
        order
    }
}

impl Wanted {
    /// Whether a lease is to be kept though its nic cannot be had now: that of a machine on a network of another project,
    /// which went with the engine and may come again.
    pub(crate) fn awaits(&self, id: &NicId, seen: &Observed) -> bool {
        id.is_external()
            && self.machines.contains_key(&id.machine())
            && !seen.networks.contains_key(&id.network())
    }

    /// Why a project cannot be this: machines of others are on its networks, which would go from under them, or be no more
    /// what those machines were put on.
    pub fn in_others_way(&self, seen: &Observed) -> Vec<Refusal> {
        let own = seen.networks.iter().filter(|(id, _)| id.project == self.project);
        // With the engine all of it went already, theirs as well.
        let own = own.filter(|_| seen.engine == Engine::Present);
        let refusal = |(id, from): (&NetworkId, &NetworkState)| {
            let others: BTreeMap<&NicId, &NicState> = seen.nics_of_others(id).collect();
            let machines: BTreeSet<String> =
                others.keys().map(|nic| format!("`{}`", nic.machine())).collect();
            let to = self.networks.get(id);
            let stays = |to: &NetworkState| {
                !must_replace(from, to) && others.values().all(|nic| fits_still(nic, from, to))
            };
            if others.is_empty() || to.is_some_and(stays) {
                return None;
            }
            let key = to.and_then(|to| changed_network_key(from, to));
            let key = key.map(|key| format!(".{key}")).unwrap_or_default();
            Some(Refusal {
                key: format!("networks.{}{key}", id.name),
                why: format!(
                    "machines of other projects are on network `{id}`, as it is: {}",
                    machines.into_iter().collect::<Vec<_>>().join(", ")
                ),
                hint: "`stead rm` these machines first, or `stead down` their project".to_owned(),
            })
        };
        own.filter_map(refusal).collect()
    }
}

/// Whether a nic of another project's machine, which nobody changes, is right on a network that becomes another, or was wrong
/// before and is no more so than it was.
fn fits_still(nic: &NicState, from: &NetworkState, to: &NetworkState) -> bool {
    let guard = if nic.guard == GuardState::Off { Guard::Off } else { Guard::On };
    let may_speak = |network: &NetworkState| GuardState::new(guard, &nic.lease, network);
    let has_it = |network: &NetworkState| nic.lease.address.is_none_or(|address| is_usable(network, address));
    let has_it6 =
        |network: &NetworkState| nic.lease.address6.is_none_or(|address| is_host6(network, address));
    (nic.mtu == to.mtu || from.mtu == to.mtu)
        && (nic.guard == may_speak(to) || may_speak(from) == may_speak(to))
        && (has_it(to) || !has_it(from))
        && (has_it6(to) || !has_it6(from))
}

/// Why machines cannot be what they are to be: external networks that are not there. Those count on which machines are that
/// `is_meant`, or that the plan makes or starts.
pub fn missing_networks(
    project: &Project,
    is_meant: impl Fn(&MachineId) -> bool,
    plan: &Plan,
    seen: &Observed,
) -> Vec<Refusal> {
    let begun = |step: &Step| {
        if let Step::MachineAdd(id, ..) | Step::MachineStart(id, _) = step { Some(id.clone()) } else { None }
    };
    let begun: BTreeSet<MachineId> = plan.steps.iter().filter_map(|planned| begun(&planned.step)).collect();
    let machines = project.machines.iter().filter(|(name, _)| {
        let id = MachineId::new(&project.name, name);
        begun.contains(&id) || is_meant(&id)
    });
    let used: BTreeSet<&Name> =
        machines.flat_map(|(_, machine)| machine.nics.iter().map(|nic| &nic.network)).collect();
    let external = project.external_networks.iter().filter(|(name, _)| used.contains(name));
    let missing = external.filter(|(_, id)| seen.lent(id).is_none());
    missing.map(|(name, id)| missing_network(name, id, seen)).collect()
}

fn missing_network(name: &Name, id: &NetworkId, seen: &Observed) -> Refusal {
    let key = format!("networks.{name}");
    let is_loose = id.project.as_str() == LOOSE_PROJECT;
    let which = if is_loose { id.name.to_string() } else { id.to_string() };
    if seen.networks.contains_key(id) {
        let why = format!("network `{which}` is not as it should be");
        let hint = if is_loose {
            "any `stead network create` mends it".to_owned()
        } else {
            format!("`stead up` of project `{}` mends it", id.project)
        };
        return Refusal { key, why, hint };
    }
    // What Compose makes of a project's network, outside of the project, is `<project>_<network>`, or its `name`.
    let is_meant = |other: &&NetworkId| {
        other.name == id.name || as_ours(&format!("{}_{}", other.project, other.name)) == id.name.as_str()
    };
    let other = seen.networks.keys().filter(|_| is_loose).find(is_meant);
    let hint = match other {
        Some(other) => format!("write `name: {other}` for the one of project `{}`", other.project),
        None if is_loose => format!("`stead network create {}` makes it", id.name),
        None => format!("project `{}` makes it, if its file names it: `stead up` there first", id.project),
    };
    Refusal { key, why: format!("there is no network `{which}`"), hint }
}
