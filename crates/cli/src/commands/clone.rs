//! `clone`: a machine like another, with an identity of its own. It is made as `create` makes one, but for its files.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use stead_host::held::Held;
use stead_host::history::History;
use stead_host::home::Home;
use stead_host::linux::Origin;
use stead_host::linux::vm::disks;
use stead_host::machine::Files;
use stead_model::container::{Container, Mount, NetworkMode};
use stead_model::name::{LOOSE_PROJECT, MachineId, Name, NetworkId, NicId};
use stead_model::observed::{Body, Observed};
use stead_model::plan::Power;
use stead_model::project::{Bind, Guard, Machine, Nic, Project, Runs};
use stead_model::resolve::Images;
use stead_model::vm::Vm;

use super::up::{Anew, Bring, Whose};
use super::{machines, network, run, snapshot};
use crate::args::{CloneArgs, Consent, Global};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::session::Session;
use crate::working::Working;

/// Makes a machine like another.
pub(crate) fn clone(global: &Global, args: &CloneArgs, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let source = machines::chosen_one(global, &args.source, &seen)?;
    if matches!(seen.machines.get(&source).map(|state| &state.body), Some(Body::Microvm(_))) {
        let what = format!("machine `{source}` is a microVM, and clones are of containers and vms");
        return Err(Failure::request(&what, "`stead cp` carries its files out"));
    }
    let mut project = network::loose(session.host.home())?;
    let id = MachineId::new(&project.name, &args.name);
    if project.machines.contains_key(&args.name) || seen.machines.contains_key(&id) {
        let what = format!("there is a machine `{}` already", args.name);
        return Err(Failure::request(&what, "choose another name, or `stead rm` it first"));
    }
    if let Some(name) = &args.snapshot {
        let history = History::load(&Files::new(session.host.home(), &source));
        snapshot::known(&history.with_context(|| format!("machine `{source}`"))?, &source, name)?;
    }
    let Likeness { machine, volumes, images, told } =
        likeness(session.host.home(), &source, &seen, &mut project)?;
    network::name_volumes(session.host.home(), &mut project, volumes)?;
    project.machines.insert(args.name.clone(), machine);
    let doing = || format!("machine `{source}`");
    let runs = args.snapshot.is_none() && seen.running.contains_key(&source);
    let held = runs.then(|| Held::take(session.host.home(), &source)).transpose().with_context(doing)?;
    let origin = Origin { machine: &source, snapshot: args.snapshot.as_ref(), held };
    let working = Working::on(format!("copying the files of `{source}`"));
    let secrets = session.host.prepare_clone(&id, origin).with_context(doing)?;
    drop(working);
    let power = if args.start { Power::On } else { Power::Off };
    let consent = Consent { yes: false };
    let whose = Whose::Only([id.clone()].into());
    let how = Bring { whose, anew: Anew::default(), relock: false, images, power, consent };
    let made = network::apply_some(&mut session, &project, &how, output.quiet());
    let dropped = session.host.drop_prepared();
    made?;
    dropped?;
    told.iter().for_each(|text| note(text));
    if secrets > 0 {
        note(&format!(
            "the SSH host keys of `{source}` were left out: if its system makes none, `stead exec {} ssh-keygen -A` does",
            id.name
        ));
    }
    run::tell(global, &id, &mut session)
}

/// What a clone is to be.
struct Likeness {
    machine: Machine,
    /// The volumes that it uses together with the source.
    volumes: BTreeSet<Name>,
    images: Images,
    /// What a person has to know of it.
    told: Vec<String>,
}

/// A machine like this one, of the project of what commands make.
fn likeness(
    home: &Home,
    source: &MachineId,
    seen: &Observed,
    project: &mut Project,
) -> Result<Likeness, Failure> {
    let state = seen.machines.get(source).context("the machine is gone")?;
    let mut images = Images::default();
    let mut told = Vec::new();
    // It is called by its name, as the source may have been by another.
    let (runs, volumes) = match &state.body {
        Body::Container(made) => {
            let digest = made.image.clone().context("its image was never here")?;
            let mut wish = Container { hostname: None, one_off: None, ..made.wish.clone() };
            images.named.insert((wish.image.clone(), wish.platform.clone()), digest);
            let Volumes { shared, own } = share_volumes(source, &mut wish.mounts, "is a new one", &mut told);
            wish.own_volumes.extend(own);
            (Runs::Container(Box::new(wish)), shared)
        }
        Body::Vm(made) => {
            let image = made.image.clone().context("its image was never here")?;
            // By the copy of its image that the source has: the user's file may be another by now, or gone.
            let path = disks(home).path(&image);
            let mut wish = Vm { hostname: None, image: path, ..made.wish.clone() };
            images.disks.insert(wish.image.clone(), image);
            let Volumes { shared, .. } =
                share_volumes(source, &mut wish.mounts, "is not mounted in it", &mut told);
            told.push(renewed(&wish).to_owned());
            (Runs::Vm(Box::new(wish)), shared)
        }
        Body::Microvm(_) | Body::External => {
            return Err(anyhow::anyhow!("what machine `{source}` wrote cannot be another's").into());
        }
    };
    let runs = with_network(source, runs, &mut told);
    let nics = nics(source, seen, project, &mut told)?;
    let ports = ports(source, seen, project);
    if !ports.is_empty() {
        told.push(format!("published ports stay with `{source}`: {}", ports.join(", ")));
    }
    let machine = Machine {
        kind: state.kind,
        runs,
        nics,
        ports: Vec::new(),
        depends_on: [].into(),
        restarts_with: [].into(),
        dev: None,
        provision: Vec::new(),
    };
    Ok(Likeness { machine, volumes, images, told })
}

/// In that of a machine of another project it cannot be.
fn with_network(source: &MachineId, mut runs: Runs, told: &mut Vec<String>) -> Runs {
    if let Runs::Container(wish) = &mut runs
        && let NetworkMode::Machine(other) = &wish.network
        && source.project.as_str() != LOOSE_PROJECT
    {
        told.push(format!("it is on no network: that of `{source}` is machine `{other}`'s of its project"));
        wish.network = NetworkMode::Own;
    }
    runs
}

/// What becomes of that by which the system of a vm is known.
fn renewed(wish: &Vm) -> &'static str {
    if wish.cloud_init.is_some() {
        "its cloud-init does again what it does once: SSH host keys and machine-id are its own after its start"
    } else {
        "its system is told nothing (`cloud_init: off`): SSH host keys and machine-id are those of its source"
    }
}

/// What becomes of the named volumes that a machine mounts.
struct Volumes {
    /// Those that its clone uses as well.
    shared: BTreeSet<Name>,
    /// The places of the others.
    own: Vec<String>,
}

/// The ports that are published of the source, or will be when it is started: two machines cannot have the same ones.
fn ports(source: &MachineId, seen: &Observed, project: &Project) -> Vec<String> {
    let is_loose = source.project == project.name;
    let written = project.machines.get(&source.name).filter(|_| is_loose);
    let written = written.into_iter().flat_map(|machine| &machine.ports).map(|port| port.bind);
    let written = written.filter(|bind| !bind.is_left_open());
    let chosen = seen.port_leases.iter().filter(|(_, lease)| lease.machine == *source).map(|(bind, _)| *bind);
    let open = seen.ports.iter().filter(|(_, target)| target.machine == *source).map(|(bind, _)| *bind);
    let binds: BTreeSet<Bind> = written.chain(chosen).chain(open).collect();
    binds.iter().map(ToString::to_string).collect()
}

/// What becomes of the source's volumes: those of what commands make, as the clone is, are used by both. Those of another
/// project are that project's, and not mounted in the clone.
fn share_volumes(
    source: &MachineId,
    mounts: &mut BTreeMap<String, Mount>,
    instead: &str,
    told: &mut Vec<String>,
) -> Volumes {
    let mut volumes = Volumes { shared: BTreeSet::new(), own: Vec::new() };
    mounts.retain(|place, mount| {
        let Some(id) = mount.volume(&source.project) else { return true };
        if id.project.as_str() != LOOSE_PROJECT {
            told.push(format!("volume `{id}` stays with its project: `{place}` {instead}"));
            volumes.own.push(place.clone());
            return false;
        }
        let by = if source.project == id.project { source.name.to_string() } else { source.to_string() };
        told.push(format!("volume `{}` is used by `{by}` as well", id.name));
        if let Mount::Volume { name, external, .. } = mount {
            (*name, *external) = (id.name.clone(), None);
        }
        volumes.shared.insert(id.name);
        true
    });
    volumes
}

/// The nics of a clone: on the source's networks, but for those of another project.
fn nics(
    source: &MachineId,
    seen: &Observed,
    project: &mut Project,
    told: &mut Vec<String>,
) -> Result<Vec<Nic>, Failure> {
    let usual = |network: Name, guard: Guard| Nic {
        network,
        address: None,
        address6: None,
        mac: None,
        aliases: [].into(),
        guard,
    };
    if source.project.as_str() == LOOSE_PROJECT {
        let machine = project.machines.get(&source.name);
        let nics = machine.into_iter().flat_map(|machine| &machine.nics);
        return Ok(nics.map(|nic| usual(nic.network.clone(), nic.guard)).collect());
    }
    let networks = seen.leases.keys().filter(|nic| nic.machine() == *source).map(NicId::network);
    let is_ours = |id: &NetworkId| id.project == project.name && project.networks.contains_key(&id.name);
    let (ours, theirs): (Vec<NetworkId>, Vec<NetworkId>) = networks.partition(is_ours);
    let networks: Vec<String> = theirs.iter().map(ToString::to_string).collect();
    if !ours.is_empty() {
        if !networks.is_empty() {
            let stay = networks.join(", ");
            told.push(format!("it is not on {stay}: only machines of that project are"));
        }
        return Ok(ours.into_iter().map(|id| usual(id.name, Guard::On)).collect());
    }
    if networks.is_empty() {
        return Ok(Vec::new());
    }
    let default: Name = "default".parse().map_err(anyhow::Error::from)?;
    project.networks.entry(default.clone()).or_insert_with(run::usual_network);
    let id = NetworkId::new(&project.name, &default);
    told.push(format!(
        "it is on network `{id}`: only machines of project `{}` are on {}",
        source.project,
        networks.join(", ")
    ));
    Ok(vec![usual(default, Guard::On)])
}
