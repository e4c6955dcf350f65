//! The plan: the steps that turn what exists into what is wanted. Taking a project down is planning for
//! nothing, so there is no separate tear-down code; after a failure the next command observes again and
//! plans what is missing.
//!
//! A plan is a partial order. Its steps stand in an order that works, and each knows which earlier ones it
//! has to wait for: those that touch a thing it touches, unless both only read it.

mod ends;
mod order;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::order::{in_dependency_order, ordered};
use crate::difference::{changed_network_key, differences, machine_differences};
use crate::name::{MachineId, Name, NetworkId, NicId, VolumeId};
use crate::observed::{
    Body, Engine, MachineState, NetworkState, NicState, Observed, PortLease, Running, Switchboard, Uplink,
};
use crate::project::{Bind, Condition, ProjectFiles, Reach, Volume};
use crate::provision::{self, Part, Provision};
use crate::served::Target;
use crate::step::{Change, Lost, OwnVolumes, Step};

/// What one project is to be, with every choice made ([`crate::resolve`]); or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The project this is about. Nothing of another project is touched.
    pub project: Name,
    /// Where its files are; absent when the project is to go.
    pub files: Option<ProjectFiles>,
    /// The way out, if anything on this computer needs one.
    pub uplink: Option<Uplink>,
    /// Its networks.
    pub networks: BTreeMap<NetworkId, NetworkState>,
    /// Its machines.
    pub machines: BTreeMap<MachineId, WantedMachine>,
    /// Those of them that are made anew though nothing of them changed.
    pub anew: BTreeSet<MachineId>,
    /// Its nics.
    pub nics: BTreeMap<NicId, NicState>,
    /// Its published ports; open are only those of machines that run.
    pub ports: BTreeMap<Bind, Target>,
    /// Those of them that this computer chose; of machines that are not to be changed, whether or not they are open.
    pub port_leases: BTreeMap<Bind, PortLease>,
    /// Its volumes.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Whether volumes that are not wanted are deleted.
    pub unwanted_volumes: UnwantedVolumes,
    /// What becomes of volumes without a name where machines become others.
    pub own_volumes: OwnVolumes,
}

/// A machine, as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMachine {
    /// What it is to be.
    pub state: MachineState,
    /// The machines that come before it, and how far they have to be.
    pub after: BTreeMap<MachineId, Condition>,
    /// Those of them with which it is started again.
    pub restarts_with: BTreeSet<MachineId>,
    /// Whether it is to run, if we run it.
    pub power: Power,
    /// What is run in it once it runs.
    pub provision: Vec<Provision>,
}

/// Whether a machine is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl WantedMachine {
    /// Whether we are to run it.
    pub(crate) fn is_to_run(&self) -> bool {
        self.power == Power::On && self.state.is_ours()
    }

    /// Whether there has to be an engine for it.
    fn needs_engine(&self) -> bool {
        self.state.goes_with_engine() || self.is_to_run()
    }
}

/// What becomes of volumes that a project no longer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnwantedVolumes {
    /// They stay: data outlives machines.
    Keep,
    /// They are deleted.
    Delete,
}

/// Steps in an order that works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Planned>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// The keys of the project file that ask for it, or why else it is there.
    pub why: String,
    /// The earlier steps that come before it, by their place.
    pub after: BTreeSet<usize>,
}

impl Wanted {
    /// Nothing of this project; volumes stay unless they are to be deleted.
    pub fn nothing(project: &Name, seen: &Observed, unwanted_volumes: UnwantedVolumes) -> Self {
        let others_need_it =
            seen.networks.iter().any(|(id, n)| id.project != *project && n.reach == Reach::Nat);
        Self {
            project: project.clone(),
            files: None,
            uplink: seen.uplink.clone().filter(|_| others_need_it),
            networks: BTreeMap::new(),
            machines: BTreeMap::new(),
            anew: BTreeSet::new(),
            nics: BTreeMap::new(),
            ports: BTreeMap::new(),
            port_leases: BTreeMap::new(),
            volumes: BTreeMap::new(),
            unwanted_volumes,
            own_volumes: OwnVolumes::Stay,
        }
    }

    /// Whether a port is to be open, and to lead there: those of a machine that we run are open only while that runs.
    fn opens(&self, bind: Bind, target: &Target) -> bool {
        self.ports.get(&bind) == Some(target) && self.publishes(&target.machine)
    }

    /// Whether the ports of a machine are to be open.
    pub(crate) fn publishes(&self, id: &MachineId) -> bool {
        self.machines.get(id).is_some_and(|machine| machine.is_to_run() || !machine.state.is_ours())
    }
}

/// The steps that turn what exists into what is wanted; none if it already is.
pub fn plan(wanted: &Wanted, seen: &Observed) -> Plan {
    let wanted = &wanted.clone().with_kept_places(seen).with_sharers_after(seen);
    // Take away before adding, so that names and addresses are free again.
    let mut steps = removals(wanted, seen);
    let left = steps.iter().fold(seen.clone(), |left, (step, _)| left.without(step));
    steps.extend(additions(wanted, &left));
    Plan { steps: ordered(steps) }
}

type Reasoned = (Step, String);

/// Whether a standing network has to go before the wanted one can stand.
pub(crate) fn must_replace(from: &NetworkState, to: &NetworkState) -> bool {
    let fixed = |n: &NetworkState| (n.link.clone(), n.mac, n.gateway, n.gateway6);
    fixed(from) != fixed(to) || (from.reach != to.reach && (from.is_bridged() || to.is_bridged()))
}

/// Whether a nic can become the wanted one without being taken off its network.
fn can_change(from: &NicState, to: &NicState) -> bool {
    from.link == to.link && from.end == to.end && from.mtu == to.mtu && from.lease == to.lease
}

/// Whether the engine died: something of it is left, or something on record that was in it (after a reboot).
fn is_cut_off(seen: &Observed) -> bool {
    match seen.engine {
        Engine::Present => false,
        Engine::Partial => true,
        Engine::Absent => {
            let is_empty = seen.networks.is_empty() && seen.nics.is_empty() && seen.ports.is_empty();
            let is_bare = !seen.machines.values().any(MachineState::goes_with_engine);
            !(is_empty && is_bare && seen.uplink.is_none())
        }
    }
}

fn removals(wanted: &Wanted, seen: &Observed) -> Vec<Reasoned> {
    let mut steps = Vec::new();
    let mut seen = seen.clone();
    if is_cut_off(&seen) {
        // All that a dead engine held went with it; what is left is taken away whole.
        steps.push((Step::EngineStop, "it was cut off".to_owned()));
        seen = seen.without(&Step::EngineStop);
    }
    let seen = &seen;
    let goes = networks_that_go(wanted, seen);
    let (stops, stopped) = ends::stops(wanted, seen);
    steps.extend(stops);
    // After their machines: what those still have to say to their clients on the way down, they can.
    for (bind, target) in seen.ports.iter().filter(|(_, target)| target.machine.project == wanted.project) {
        let stays = machine_stays(wanted, seen, &target.machine) && !stopped.contains(&target.machine);
        if !stays || !wanted.opens(*bind, target) {
            let why = format!("machines.{}.ports", target.machine.name);
            steps.push((Step::PortRemove(*bind, target.clone()), why));
        }
    }
    steps.extend(nic_removals(wanted, seen, &goes));
    steps.extend(record_removals(wanted, seen));
    steps.extend(goes.into_iter().rev().filter_map(|(id, why)| {
        let state = seen.networks.get(&id)?.clone();
        Some((Step::NetworkRemove(id, state), why))
    }));
    steps.extend(engine_removals(wanted, seen));
    // The project's record goes last, so that a plan cut short is found again.
    let keeps_volumes = wanted.unwanted_volumes == UnwantedVolumes::Keep
        && seen.volumes.keys().any(|id| id.project == wanted.project);
    if wanted.files.is_none() && seen.projects.contains_key(&wanted.project) && !keeps_volumes {
        steps.push((Step::ProjectRemove(wanted.project.clone()), "nothing of it is left".to_owned()));
    }
    steps
}

/// The nics that go. What a machine reaches by one it reaches by those that stay, unless the nic comes again itself.
fn nic_removals(wanted: &Wanted, seen: &Observed, goes: &BTreeMap<NetworkId, String>) -> Vec<Reasoned> {
    let own = seen.nics.iter().rev().filter(|(id, _)| id.project == wanted.project);
    let is_to_stay = |(id, from): &(&NicId, &NicState)| {
        wanted.nics.get(id).is_some_and(|to| nic_stays(wanted, seen, goes, (id, from, to)))
    };
    let (mut stay, go): (Vec<_>, Vec<_>) = own.partition(is_to_stay);
    stay.sort_by_key(|(_, nic)| nic.end.order());
    let steps = go.into_iter().map(|(id, from)| {
        let others = stay.iter().filter(|(other, _)| other.machine() == id.machine());
        let others = others.filter(|_| !wanted.nics.contains_key(id)).map(|(other, _)| (*other).clone());
        let why = id.key();
        (Step::NicRemove(id.clone(), from.clone(), others.collect()), why)
    });
    steps.collect()
}

/// Whether a machine runs whose nics were handed to its VMM, and they are to be others: it gets those when it is started.
fn is_rewired(wanted: &Wanted, seen: &Observed, id: &MachineId) -> bool {
    let is_guest = seen.machines.get(id).is_some_and(MachineState::is_guest);
    let goes = networks_that_go(wanted, seen);
    let of = |nics: &BTreeMap<NicId, NicState>| -> Vec<_> {
        let own = nics.iter().filter(|(nic, _)| nic.machine() == *id);
        own.map(|(nic, state)| (nic.clone(), state.link.clone(), state.lease.clone(), state.mtu)).collect()
    };
    let (now, then) = (of(&seen.nics), of(&wanted.nics));
    is_guest && (now != then || now.iter().any(|(nic, ..)| goes.contains_key(&nic.network())))
}

/// Whether a machine can become another and keep what it wrote: a vm with the same image under its disk.
fn can_become(from: &MachineState, to: &MachineState) -> bool {
    match (from.vm(), to.vm()) {
        (Some(from), Some(to)) => from.image.is_some() && from.image == to.image,
        (_, None) | (None, _) => false,
    }
}

/// What becomes of the volumes without a name of a machine that becomes another: in a guest they are on its disk.
fn own_volumes(wanted: &Wanted, from: &MachineState, to: &MachineState) -> OwnVolumes {
    match (&from.body, &to.body) {
        (Body::Container(_), Body::Container(_)) => wanted.own_volumes,
        _ => OwnVolumes::Go,
    }
}

/// What changed of a machine, for people.
fn changed(wanted: &Wanted, seen: &Observed, id: &MachineId) -> String {
    match (seen.machines.get(id), wanted.machines.get(id)) {
        (Some(from), Some(to)) if *from == to.state => " (made anew)".to_owned(),
        (Some(from), Some(to)) => format!(" ({})", machine_differences(from, &to.state)),
        (None, _) | (_, None) => String::new(),
    }
}

/// The project's networks that have to go, and why.
fn networks_that_go(wanted: &Wanted, seen: &Observed) -> BTreeMap<NetworkId, String> {
    let standing = seen.networks.iter().filter(|(id, _)| id.project == wanted.project);
    let goes = standing.filter_map(|(id, from)| match wanted.networks.get(id) {
        None => Some((id.clone(), format!("networks.{}", id.name))),
        Some(to) if must_replace(from, to) => {
            let key = changed_network_key(from, to).map(|key| format!(".{key}")).unwrap_or_default();
            Some((id.clone(), format!("networks.{}{key} ({})", id.name, differences(from, to))))
        }
        Some(_) => None,
    });
    goes.collect()
}

/// Whether a machine is there and stays as it is.
fn machine_stays(wanted: &Wanted, seen: &Observed, id: &MachineId) -> bool {
    let state = wanted.machines.get(id).map(|machine| &machine.state);
    state.is_some() && state == seen.machines.get(id) && !wanted.anew.contains(id)
}

/// Whether a nic becomes the wanted one where it is, as do its machine and its network.
fn nic_stays(
    wanted: &Wanted,
    seen: &Observed,
    goes: &BTreeMap<NetworkId, String>,
    (id, from, to): (&NicId, &NicState, &NicState),
) -> bool {
    can_change(from, to)
        && seen.leases.get(id).is_none_or(|lease| *lease == to.lease)
        && machine_stays(wanted, seen, &id.machine())
        && seen.networks.contains_key(&id.network())
        && !goes.contains_key(&id.network())
}

/// What goes of leases, machines and volumes.
fn record_removals(wanted: &Wanted, seen: &Observed) -> Vec<Reasoned> {
    let ours = |project: &Name| *project == wanted.project;
    let mut steps = Vec::new();
    for (id, lease) in seen.leases.iter().rev().filter(|(id, _)| ours(&id.project)) {
        if wanted.nics.get(id).is_none_or(|nic| nic.lease != *lease) && !wanted.awaits(id, seen) {
            let why = id.key();
            steps.push((Step::LeaseRemove(id.clone(), lease.clone()), why));
        }
    }
    for (bind, lease) in seen.port_leases.iter().filter(|(_, lease)| ours(&lease.machine.project)) {
        if wanted.port_leases.get(bind) != Some(lease) {
            let why = format!("machines.{}.ports", lease.machine.name);
            steps.push((Step::PortLeaseRemove(*bind, lease.clone()), why));
        }
    }
    for (id, state) in seen.machines.iter().rev().filter(|(id, _)| ours(&id.project)) {
        let becomes = |to: &WantedMachine| can_become(state, &to.state) && !wanted.anew.contains(id);
        if !machine_stays(wanted, seen, id) && !wanted.machines.get(id).is_some_and(becomes) {
            let why = format!("machines.{}{}", id.name, changed(wanted, seen, id));
            let snapshots = seen.snapshots.get(id).cloned().unwrap_or_default();
            let lost = Lost { snapshots, unknown: seen.damaged.contains(id), disk: state.vm().is_some() };
            let own =
                wanted.machines.get(id).map_or(OwnVolumes::Go, |to| own_volumes(wanted, state, &to.state));
            steps.push((Step::MachineRemove(id.clone(), lost, own), why));
        }
    }
    if wanted.unwanted_volumes == UnwantedVolumes::Delete {
        let unwanted = seen.volumes.keys().filter(|id| ours(&id.project) && !wanted.volumes.contains_key(id));
        steps.extend(unwanted.map(|id| (Step::VolumeRemove(id.clone()), format!("volumes.{}", id.name))));
    }
    steps
}

/// What goes of the engine: all of it with the last network, else the way out if it is to be another.
fn engine_removals(wanted: &Wanted, seen: &Observed) -> Vec<Reasoned> {
    if seen.engine == Engine::Absent {
        return Vec::new();
    }
    let others = seen.networks.keys().any(|id| id.project != wanted.project)
        || seen.machines.iter().any(|(id, m)| id.project != wanted.project && m.goes_with_engine())
        || seen.running.iter().any(|(id, r)| id.project != wanted.project && *r == Running::Connected);
    let mut steps = Vec::new();
    let needed = others || needs_engine(wanted);
    let is_wanted = |uplink: &Uplink| needed && wanted.uplink.as_ref() == Some(uplink);
    // Offline there is nothing to make another by.
    let is_to_mend = seen.uplink_is_broken && seen.host.online;
    if let Some(uplink) = seen.uplink.clone().filter(|uplink| is_to_mend || !is_wanted(uplink)) {
        let why =
            if is_wanted(&uplink) { "it does not work any more" } else { "no network needs it as it is" };
        steps.push((Step::UplinkRemove(uplink), why.to_owned()));
    }
    if !needed {
        steps.push((Step::EngineStop, "no network is left".to_owned()));
    }
    steps
}

fn needs_engine(wanted: &Wanted) -> bool {
    !wanted.networks.is_empty() || wanted.machines.values().any(WantedMachine::needs_engine)
}

fn additions(wanted: &Wanted, left: &Observed) -> Vec<Reasoned> {
    let mut steps = Vec::new();
    if let Some(files) = &wanted.files
        && left.projects.get(&wanted.project) != Some(files)
    {
        let is_order = left.projects.get(&wanted.project).is_some_and(|there| there.is_where(files));
        let why = if is_order { "machines.*.depends_on" } else { "name" };
        steps.push((Step::ProjectAdd(wanted.project.clone(), files.clone()), why.to_owned()));
    }
    if needs_engine(wanted) && left.engine != Engine::Present {
        steps.push((Step::EngineStart, "the first network or machine needs it".to_owned()));
    }
    if !(wanted.networks.is_empty() && wanted.nics.is_empty()) && left.switchboard == Switchboard::Absent {
        steps.push((Step::SwitchboardStart, "a network is served".to_owned()));
    }
    if let Some(uplink) = wanted.uplink.clone().filter(|uplink| left.uplink.as_ref() != Some(uplink)) {
        steps.push((Step::UplinkAdd(uplink), "a network reaches out by `nat`".to_owned()));
    }
    for (id, to) in &wanted.networks {
        let why = format!("networks.{}", id.name);
        match left.networks.get(id) {
            None => steps.push((Step::NetworkAdd(id.clone(), to.clone()), why)),
            Some(from) if from != to => {
                let why =
                    changed_network_key(from, to).map_or(why, |key| format!("networks.{}.{key}", id.name));
                let change = Change { from: from.clone(), to: to.clone() };
                steps.push((Step::NetworkChange(id.clone(), change), why));
            }
            Some(_) => {}
        }
    }
    for (id, to) in &wanted.volumes {
        match left.volumes.get(id) {
            None => steps.push((Step::VolumeAdd(id.clone(), *to), format!("volumes.{}", id.name))),
            Some(from) if from != to => {
                let change = Change { from: *from, to: *to };
                steps.push((Step::VolumeChange(id.clone(), change), format!("volumes.{}.size", id.name)));
            }
            Some(_) => {}
        }
    }
    steps.extend(machine_additions(wanted, left));
    let chosen = wanted.port_leases.iter();
    for (bind, lease) in chosen.filter(|(bind, lease)| left.port_leases.get(bind) != Some(lease)) {
        let why = format!("machines.{}.ports", lease.machine.name);
        steps.push((Step::PortLeaseAdd(*bind, lease.clone()), why));
    }
    steps
}

fn machine_additions(wanted: &Wanted, left: &Observed) -> Vec<Reasoned> {
    let mut steps = Vec::new();
    for (id, nic) in wanted.nics.iter().filter(|(id, nic)| left.leases.get(id) != Some(&nic.lease)) {
        let why = id.key();
        steps.push((Step::LeaseAdd(id.clone(), nic.lease.clone()), why));
    }
    for id in in_dependency_order(wanted) {
        let Some(machine) = wanted.machines.get(&id) else { continue };
        if let Some(from) = left.machines.get(&id).filter(|from| can_become(from, &machine.state)) {
            if *from != machine.state {
                let change = Change { from: from.clone(), to: machine.state.clone() };
                steps.push((Step::MachineChange(id.clone(), change), format!("machines.{}", id.name)));
            }
        } else if left.machines.get(&id) != Some(&machine.state) {
            // One of ours may be made at any time: what it depends on counts when it starts.
            let others = machine.after.keys().filter(|_| machine.state.goes_with_engine());
            let step = Step::MachineAdd(id.clone(), machine.state.clone(), others.cloned().collect());
            steps.push((step, format!("machines.{}", id.name)));
        }
        let mut nics: Vec<_> = wanted.nics.iter().filter(|(nic, _)| nic.machine() == id).collect();
        // In their order: the first one that leads out has the default route.
        nics.sort_by_key(|(_, nic)| nic.end.order());
        for (nic, to) in nics {
            let why = nic.key();
            match left.nics.get(nic) {
                None => steps.push((Step::NicAdd(nic.clone(), to.clone()), why)),
                Some(from) if from != to => {
                    let change = Change { from: from.clone(), to: to.clone() };
                    steps.push((Step::NicChange(nic.clone(), change), why));
                }
                Some(_) => {}
            }
        }
        // Where one of its ports is taken its program is not run.
        let is_begun = machine.is_to_run() && !left.running.contains_key(&id);
        let mut ports = missing_ports(wanted, left, &id, is_begun);
        if is_begun {
            for (other, condition) in
                machine.after.iter().filter(|(_, how_far)| **how_far != Condition::Started)
            {
                let step = Step::MachineAwait(other.clone(), *condition);
                if !steps.iter().any(|(planned, _)| *planned == step) {
                    steps.push((step, format!("machines.{}.depends_on", id.name)));
                }
            }
            steps.append(&mut ports);
            let step = Step::MachineStart(id.clone(), machine.after.clone());
            steps.push((step, format!("machines.{}", id.name)));
        }
        if machine.is_to_run() {
            let missing = provision::missing(&machine.provision, left.provisioned.get(&id));
            steps.extend(missing.map(|(one, is_changed)| {
                let changed = if is_changed { " (changed)" } else { "" };
                let key = match &one.part {
                    Part::User(_) | Part::Home(_) => "dev".to_owned(),
                    Part::Own { place, .. } => format!("provision[{place}]"),
                };
                let why = format!("machines.{}.{key}{changed}", id.name);
                (Step::MachineProvision(id.clone(), Box::new(one.clone())), why)
            }));
        }
        // One that runs already is not kept from what else is done in it.
        steps.append(&mut ports);
    }
    steps
}

/// The ports of a machine that are not open yet.
fn missing_ports(wanted: &Wanted, left: &Observed, id: &MachineId, is_begun: bool) -> Vec<Reasoned> {
    let machine = wanted.machines.get(id).filter(|_| is_begun);
    let after = machine.map_or_else(BTreeMap::new, |machine| machine.after.clone());
    let own = wanted.ports.iter().filter(|(_, target)| target.machine == *id && wanted.publishes(id));
    let missing = own.filter(|(bind, target)| left.ports.get(bind) != Some(target));
    let why = || format!("machines.{}.ports", id.name);
    missing.map(|(bind, target)| (Step::PortAdd(*bind, target.clone(), after.clone()), why())).collect()
}
