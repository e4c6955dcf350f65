//! `network …`. Networks and machines that are made by command are a project of their own, whose file stands
//! in the home: `create` and the like edit that file and bring the project up, as a person would.

mod inspect;
mod lent;
mod taken;

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::fs;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use stead_host::home::{Home, Prepared, write_whole};
use stead_host::machine::Files;
use stead_model::file::render;
use stead_model::name::{LOOSE_PROJECT, MachineId, Name, NetworkId, VolumeId, as_ours};
use stead_model::observed::{NetworkState, Observed};
use stead_model::plan::{Plan, Power, UnwantedVolumes, Wanted, plan};
use stead_model::project::{
    Addressing, Dhcp, Guard, Kind, Machine, Network, Nic, Pool, Project, Reach, Runs, Subnet, Volume,
};
use stead_model::resolve::Images;

pub(super) use self::lent::{again, refuse_lent};
pub(super) use self::taken::leases_are_free;
use self::taken::pin_subnets;
use super::steps::finished;
use super::unmet::Unmet;
use super::up::{Anew, Bring, Whose};
use crate::args::{ConnectArgs, CreateArgs, Global, NetworkCommand};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::project::load_file;
use crate::session::{Session, look};

/// Carries out a command about networks.
pub(crate) fn run(global: &Global, command: NetworkCommand, output: Output) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        NetworkCommand::Ls => ls(output).map(done),
        NetworkCommand::Inspect { network } => inspect::inspect(global, &network, output).map(done),
        NetworkCommand::Create(args) => create(&args, output).map(done),
        NetworkCommand::Rm { networks, force } => remove(&networks, force, output).map(done),
        NetworkCommand::Connect(args) => connect(&args, output).map(done),
        NetworkCommand::Disconnect { network, machine } => disconnect(&network, &machine, output).map(done),
        NetworkCommand::Enter(args) => super::enter::run(global, &args).map_err(Failure::before_program),
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    project: String,
    #[serde(flatten)]
    state: NetworkState,
    nics: usize,
}

fn ls(output: Output) -> Result<(), Failure> {
    let seen = look()?.observe()?;
    let rows = seen.networks.iter().map(|(id, state)| Row {
        name: id.name.to_string(),
        project: id.project.to_string(),
        state: state.clone(),
        nics: seen.nics.keys().filter(|nic| nic.network() == *id).count(),
    });
    let rows: Vec<Row> = rows.collect();
    let text = || {
        let cells = |row: &Row| {
            let subnet = row.state.gateway.map_or("-".to_owned(), |net| net.trunc().to_string());
            let subnet6 = row.state.gateway6.map_or("-".to_owned(), |net| net.trunc().to_string());
            let name = format!("{}.{}", row.name, row.project);
            let bridge = row.state.link.to_string();
            vec![name, subnet, subnet6, row.state.reach.to_string(), row.nics.to_string(), bridge]
        };
        let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        table(&["NETWORK", "SUBNET", "SUBNET6", "REACH", "NICS", "BRIDGE"], &rows)
    };
    output.data(&rows, text).map_err(Failure::from)
}

fn join<T: ToString>(items: impl Iterator<Item = T>) -> Option<String> {
    let texts: Vec<String> = items.map(|item| item.to_string()).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// The network that is meant: `lan.shop`, or `lan` of the project here, or the only `lan` there is.
fn find(global: &Global, text: &str, seen: &Observed) -> Result<NetworkId, Failure> {
    let text = &*as_ours(text);
    let is_meant = |id: &&NetworkId| {
        (id.to_string() == text || id.name.as_str() == text) && global.may_mean(text, &id.project)
    };
    let matching: Vec<&NetworkId> = seen.networks.keys().filter(is_meant).collect();
    let here = super::here::project_here(global, &[text.to_owned()], seen)?;
    let chosen = matching.iter().find(|id| id.to_string() == text || Some(&id.project) == here.as_ref());
    match (chosen, matching.as_slice()) {
        (Some(id), _) => Ok((**id).clone()),
        (None, [only]) => Ok((*only).clone()),
        (None, []) => {
            Err(Failure::request(&format!("there is no network `{text}`"), "`stead network ls` lists them"))
        }
        (None, several) => {
            let names = join(several.iter()).unwrap_or_default();
            Err(Failure::request(&format!("`{text}` may be any of {names}"), "name it in full"))
        }
    }
}

/// The project of what is made by command. A machine that was written down and never made, as the command was killed or
/// failed, is none: its name is free.
pub(super) fn loose(home: &Home) -> Result<Project, Failure> {
    let path = home.loose_project().join("stead.yaml");
    if path.exists() {
        let mut project = load_file(&path)?.project;
        let is_there = |name: &Name| Files::new(home, &MachineId::new(&project.name, name)).are_whole();
        let is_none = |(name, machine): (&Name, &Machine)| machine.runs != Runs::External && !is_there(name);
        let never: BTreeSet<Name> =
            project.machines.iter().filter(|entry| is_none(*entry)).map(|(name, _)| name.clone()).collect();
        project.take_out(|name| never.contains(name));
        return Ok(project);
    }
    let name = Name::of_loose_project();
    let empty = std::collections::BTreeMap::new();
    Ok(Project {
        name,
        networks: empty,
        external_networks: [].into(),
        machines: [].into(),
        volumes: [].into(),
        external_volumes: [].into(),
    })
}

/// Brings it up as far as networks and nics go: what runs goes on.
fn apply(session: &mut Session, project: &Project, output: Output) -> Result<Plan, Failure> {
    let images = super::image::those_here(session.host.home(), project)?;
    apply_some(session, project, &about_networks(images), output)
}

fn about_networks(images: Images) -> Bring {
    let consent = crate::args::Consent { yes: false };
    let whose = Whose::Nics;
    Bring { whose, anew: Anew::default(), relock: false, images, power: Power::On, consent }
}

/// Refuses to change the nics of a guest that runs: it has those that it was started with.
fn guest_is_off(session: &mut Session, name: &Name, machine: &Machine) -> Result<(), Failure> {
    let id = MachineId::new(&Name::of_loose_project(), name);
    if matches!(machine.runs, Runs::Microvm(_) | Runs::Vm(_)) && session.observe()?.running.contains_key(&id)
    {
        let what =
            format!("machine `{name}` runs, and a {} has the nics that it was started with", machine.kind);
        return Err(Failure::request(&what, &format!("`stead stop {id}` first, and `stead start` it then")));
    }
    Ok(())
}

/// Refuses to put one on a network that is in another's.
fn has_own_network(name: &Name, machine: &Machine) -> Result<(), Failure> {
    match machine.runs.container().and_then(|container| container.network.word()) {
        None => Ok(()),
        Some(mode) => {
            let what = format!("machine `{name}` is in a network that is not its own (`{mode}`)");
            Err(Failure::request(&what, "make it anew with a network of its own"))
        }
    }
}

/// Takes nics off a network; what somebody else runs is gone with its last one.
fn take_off(machine: &mut Machine, network: &Name) {
    machine.nics.retain(|nic| nic.network != *network);
}

/// Whether there is anything left to know of a machine: what we run is more than its nics.
fn is_kept(machine: &Machine) -> bool {
    !machine.nics.is_empty() || machine.runs != Runs::External
}

/// The file without these machines, ready to take its place when they are gone.
pub(super) fn without_machines(
    home: &Home,
    machines: &BTreeSet<MachineId>,
) -> Result<Option<Prepared>, Failure> {
    edited(home, |project| {
        let of = project.name.clone();
        project.take_out(|name| machines.contains(&MachineId::new(&of, name)));
    })
}

/// Whether the file names a machine of ours, be it there or not.
pub(super) fn is_written_down(home: &Home, id: &MachineId) -> Result<bool, Failure> {
    let path = home.loose_project().join("stead.yaml");
    let is_ours = |machine: &Machine| machine.runs != Runs::External;
    Ok(id.project.as_str() == LOOSE_PROJECT
        && path.exists()
        && load_file(&path)?.project.machines.get(&id.name).is_some_and(is_ours))
}

/// Puts volumes into the project that machines of it have, with the limits that they have already.
pub(super) fn name_volumes(
    home: &Home,
    project: &mut Project,
    volumes: BTreeSet<Name>,
) -> Result<(), Failure> {
    for name in volumes {
        let id = VolumeId::new(&project.name, &name);
        let is_there = stead_host::linux::volume_path(home, &id).exists();
        let limited = if is_there { stead_host::linux::volume_limited(home, &id)? } else { None };
        let size_bytes = limited.map(|limited| limited.most_bytes);
        project.volumes.insert(name, Volume { size_bytes });
    }
    Ok(())
}

/// Takes volumes out of the file, which are gone already, or the next command would make them anew.
pub(super) fn forget_volumes(session: &Session, volumes: &BTreeSet<VolumeId>) -> Result<(), Failure> {
    edit(session, |project| {
        let mounts = project.machines.values().flat_map(|machine| machine.runs.mounts());
        let used: BTreeSet<VolumeId> = mounts.filter_map(|mount| mount.volume(&project.name)).collect();
        project.volumes.retain(|name, _| {
            let id = VolumeId::new(&project.name, name);
            !volumes.contains(&id) || used.contains(&id)
        });
    })
}

/// Changes the file, and nothing that it describes.
fn edit(session: &Session, change: impl FnOnce(&mut Project)) -> Result<(), Failure> {
    edited(session.host.home(), change)?.map_or(Ok(()), Prepared::put).map_err(Failure::from)
}

/// The changed file, if there is one, ready to take its place.
fn edited(home: &Home, change: impl FnOnce(&mut Project)) -> Result<Option<Prepared>, Failure> {
    let path = home.loose_project().join("stead.yaml");
    if !path.exists() {
        return Ok(None);
    }
    let mut project = loose(home)?;
    change(&mut project);
    Ok(Some(Prepared::write(&path, render(&project).as_bytes())?))
}

/// Writes the project's file and brings it up; what cannot be had leaves the file as it was.
pub(super) fn apply_some(
    session: &mut Session,
    project: &Project,
    how: &Bring,
    output: Output,
) -> Result<Plan, Failure> {
    let directory = session.host.home().loose_project();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join("stead.yaml");
    let before = fs::read(&path).ok();
    let text = render(project);
    session.observe_beside(|| write_whole(&path, text.as_bytes()))??;
    let result = load_file(&path).and_then(|loaded| super::up::bring_up(session, &loaded, how, output));
    if matches!(result, Err(Failure::Request(_) | Failure::File(_))) {
        match before {
            Some(text) => write_whole(&path, &text)?,
            None => stead_host::home::remove_if_there(&path)?,
        }
    }
    // Nobody wrote that file, and its lines say nothing to who said a command.
    result.map_err(Failure::of_request)
}

fn create(args: &CreateArgs, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let mut project = loose(session.host.home())?;
    if project.networks.contains_key(&args.name) {
        let what = format!("there is a network `{}` already", args.name);
        return Err(Failure::request(&what, "choose another name, or remove it first"));
    }
    let asked = network(args)?;
    check_overlap(&project, &asked)?;
    project.networks.insert(args.name.clone(), asked);
    let plan = apply(&mut session, &project, output)?;
    finished(&[plan], None, output)
}

/// Refuses a network that has a part of another one's subnet. Of networks in one file the later in it is to blame, and
/// the file that commands write has no such order.
fn check_overlap(project: &Project, asked: &Network) -> Result<(), Failure> {
    let Some((net, name, other)) = project.overlapping(asked) else { return Ok(()) };
    let option = if net.addr().is_ipv4() { "--subnet" } else { "--subnet6" };
    let what = format!("{net} (`{option}`) overlaps {other} of network `{name}`");
    Err(Failure::request(&what, "choose another, or `auto`"))
}

/// The network that the arguments ask for.
fn network(args: &CreateArgs) -> Result<Network, Failure> {
    let wrong = |what: String| Failure::request(&what, "see `stead network create --help`");
    let addressing = match args.addressing.as_str() {
        "managed" => Addressing::Managed(Dhcp { pool: Pool::Auto, lease_s: 3600, slaac: false }),
        "static" => Addressing::Static,
        "none" => Addressing::None,
        other => return Err(wrong(format!("`{other}` is no addressing"))),
    };
    let reach = match args.reach.as_deref() {
        None if addressing == Addressing::None => Reach::Isolated,
        None | Some("nat") => Reach::Nat,
        Some("isolated") => Reach::Isolated,
        Some(other) => match other.strip_prefix("bridged:").map(str::parse) {
            Some(Ok(link)) => Reach::Bridged(link),
            Some(Err(_)) | None => return Err(wrong(format!("`{other}` is no reach"))),
        },
    };
    let carries_none = addressing == Addressing::None;
    Ok(Network {
        reach,
        subnet: subnet(&args.subnet, carries_none)
            .ok_or_else(|| wrong(format!("`{}` is no IPv4 range", args.subnet)))?,
        subnet6: subnet(&args.subnet6, carries_none)
            .ok_or_else(|| wrong(format!("`{}` is no IPv6 range", args.subnet6)))?,
        mtu: args.mtu.unwrap_or(1500),
        joins: [].into(),
        boot: None,
        addressing,
    })
}

fn subnet<T: std::str::FromStr>(text: &str, carries_none: bool) -> Option<Subnet<T>> {
    match text {
        "auto" if carries_none => Some(Subnet::Off),
        "auto" => Some(Subnet::Auto),
        "off" => Some(Subnet::Off),
        range => range.parse().ok().map(Subnet::Given),
    }
}

fn remove(networks: &[Name], force: bool, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let mut project = loose(session.host.home())?;
    let mut unmet = Unmet::default();
    let mut is_any = false;
    for network in networks.iter().collect::<BTreeSet<_>>() {
        is_any |= unmet.sort(take_away(&mut session, &mut project, network, force))?.is_some();
    }
    let unmet = unmet.unless(is_any)?;
    project.machines.retain(|_, machine| is_kept(machine));
    unmet.after(settle(&mut session, &project, output))
}

/// Takes a network out of the project, and nics on it if that is agreed to.
fn take_away(
    session: &mut Session,
    project: &mut Project,
    network: &Name,
    force: bool,
) -> Result<(), Failure> {
    if !project.networks.contains_key(network) {
        let what = format!("no command made a network `{network}`");
        return Err(Failure::request(&what, "networks of a project file go with their line in the file"));
    }
    let id = NetworkId::new(&project.name, network);
    let mut wanted = Wanted::as_it_is(&project.name, &session.observe()?);
    wanted.networks.remove(&id);
    refuse_lent(&wanted, &session.observe()?)?;
    let has_nic = |machine: &Machine| machine.nics.iter().any(|nic| nic.network == *network);
    let users = project.machines.iter().filter(|(_, machine)| has_nic(machine));
    let names: Vec<String> = users.clone().map(|(name, _)| name.to_string()).collect();
    if !names.is_empty() && !force {
        let what = format!("machines have nics on network `{network}`: {}", names.join(", "));
        return Err(Failure::request(&what, "`stead network disconnect` them first, or say `--force`"));
    }
    for (name, machine) in users {
        guest_is_off(session, name, machine)?;
    }
    project.networks.remove(network);
    project.machines.values_mut().filter(|machine| has_nic(machine)).for_each(|one| take_off(one, network));
    Ok(())
}

/// Brings the loose project up, or down if there is nothing in it any more.
fn settle(session: &mut Session, project: &Project, output: Output) -> Result<(), Failure> {
    let first = apply(session, project, output)?;
    if !project.networks.is_empty() || !project.machines.is_empty() {
        return finished(&[first], None, output);
    }
    let seen = session.observe()?;
    let last = plan(&Wanted::nothing(&project.name, &seen, UnwantedVolumes::Keep), &seen);
    session.apply(&last, crate::args::Consent { yes: false }, output)?;
    finished(&[first, last], None, output)
}

fn connect(args: &ConnectArgs, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let mut project = loose(session.host.home())?;
    pin_subnets(&mut session, &mut project, args)?;
    if !project.networks.contains_key(&args.network) {
        let what = format!("no command made a network `{}`", args.network);
        return Err(Failure::request(
            &what,
            "make one with `stead network create`, or edit the project's file",
        ));
    }
    let machine = match project.machines.entry(args.machine.clone()) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(place) => place.insert(somebody_elses(args)?),
    };
    if let Some(kind) = args.kind.map(Kind::from).filter(|kind| *kind != machine.kind) {
        let what = format!("machine `{}` is of kind `{}`, not `{kind}`", args.machine, machine.kind);
        return Err(Failure::request(&what, "leave out `--kind`"));
    }
    has_own_network(&args.machine, machine)?;
    guest_is_off(&mut session, &args.machine, machine)?;
    if machine.nics.iter().any(|nic| nic.network == args.network) {
        let what = format!("machine `{}` has a nic on network `{}` already", args.machine, args.network);
        return Err(Failure::request(&what, "`stead network disconnect` it first to change the nic"));
    }
    machine.nics.push(Nic {
        network: args.network.clone(),
        address: args.address,
        address6: args.address6,
        mac: args.mac,
        aliases: args.alias.iter().cloned().collect(),
        guard: Guard::On,
    });
    leases_are_free(&mut session, &project, &args.machine)?;
    let plan = apply(&mut session, &project, output)?;
    finished(&[plan], None, output)
}

/// A machine that somebody else runs: a name without `--kind` is one that exists, or a slip.
fn somebody_elses(args: &ConnectArgs) -> Result<Machine, Failure> {
    let Some(kind) = args.kind else {
        let what = format!("no command made a machine `{}`", args.machine);
        let hint = "`stead ps --all` lists them; for one that somebody else runs say its `--kind`";
        return Err(Failure::request(&what, hint));
    };
    let (nics, ports, depends_on) = (Vec::new(), Vec::new(), [].into());
    Ok(Machine {
        kind: kind.into(),
        runs: Runs::External,
        nics,
        ports,
        depends_on,
        restarts_with: [].into(),
        dev: None,
        provision: Vec::new(),
    })
}

fn disconnect(network: &Name, machine: &Name, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let mut project = loose(session.host.home())?;
    let Some(found) = project.machines.get_mut(machine) else {
        let what = format!("no command made a machine `{machine}`");
        return Err(Failure::request(&what, "machines of a project file are changed in the file"));
    };
    if !project.networks.contains_key(network) {
        let what = format!("no command made a network `{network}`");
        return Err(Failure::request(&what, "`stead network ls` lists them"));
    }
    if !found.nics.iter().any(|nic| nic.network == *network) {
        let what = format!("machine `{machine}` has no nic on network `{network}`");
        return Err(Failure::request(&what, "`stead ps default` lists machines and their networks"));
    }
    guest_is_off(&mut session, machine, found)?;
    take_off(found, network);
    project.machines.retain(|_, machine| is_kept(machine));
    settle(&mut session, &project, output)
}
