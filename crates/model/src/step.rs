//! The steps between what exists and what is wanted. A step is data that carries every choice; its one-line
//! `Display` is the dry run, the progress line, the expected text in tests and the context of an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::address::Mac;
use crate::difference::{differences, machine_differences};
use crate::name::{MachineId, Name, NetworkId, NicId, VolumeId};
use crate::observed::{Body, Lease, MachineState, NetworkState, NicEnd, NicState, PortLease, Uplink};
use crate::project::{Bind, Condition, ProjectFiles, Protocol, Reach, Volume};
use crate::provision::{Part, Provision};
use crate::served::Target;

/// One change to this computer. Every step can be done again after it was cut off half-way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Records where a project's files are.
    ProjectAdd(Name, ProjectFiles),
    /// Forgets a project.
    ProjectRemove(Name),
    /// Makes the engine's namespaces, with our rules in them.
    EngineStart,
    /// Takes away the engine, the switchboard and all that is left in there.
    EngineStop,
    /// Starts the process that serves the networks.
    SwitchboardStart,
    /// Gives the engine a way out.
    UplinkAdd(Uplink),
    /// Takes the way out away.
    UplinkRemove(Uplink),
    /// Makes a network and serves it.
    NetworkAdd(NetworkId, NetworkState),
    /// Changes a network under its machines.
    NetworkChange(NetworkId, Change<NetworkState>),
    /// Takes a network away.
    NetworkRemove(NetworkId, NetworkState),
    /// Records the addresses of a nic.
    LeaseAdd(NicId, Lease),
    /// Frees the addresses of a nic.
    LeaseRemove(NicId, Lease),
    /// Makes a machine; it comes after these others.
    MachineAdd(MachineId, MachineState, BTreeSet<MachineId>),
    /// Makes another of a machine that does not run, and keeps what it wrote.
    MachineChange(MachineId, Change<MachineState>),
    /// Starts a machine of ours, when these others are so far.
    MachineStart(MachineId, BTreeMap<MachineId, Condition>),
    /// Waits until a machine is so far.
    MachineAwait(MachineId, Condition),
    /// Runs a script in a machine that runs, and remembers that.
    MachineProvision(MachineId, Box<Provision>),
    /// Ends a machine of ours, when these others that depend on it have ended: first it is asked, then it is made to.
    MachineStop(MachineId, BTreeSet<MachineId>),
    /// Takes a machine away, and this with it.
    MachineRemove(MachineId, Lost, OwnVolumes),
    /// Puts a nic on its network.
    NicAdd(NicId, NicState),
    /// Changes what a nic may do and is called.
    NicChange(NicId, Change<NicState>),
    /// Takes a nic off its network. What leads out by it does then by the first that does of these others, which stay.
    NicRemove(NicId, NicState, Vec<NicId>),
    /// Publishes a port, when what its machine is to be started after is so far: until then nobody is to be let in, and
    /// others may have their turn.
    PortAdd(Bind, Target, BTreeMap<MachineId, Condition>),
    /// Closes a published port.
    PortRemove(Bind, Target),
    /// Records a port that was chosen, once it is open.
    PortLeaseAdd(Bind, PortLease),
    /// Gives back a port that was chosen.
    PortLeaseRemove(Bind, PortLease),
    /// Makes a volume.
    VolumeAdd(VolumeId, Volume),
    /// Limits what is in a volume otherwise.
    VolumeChange(VolumeId, Change<Volume>),
    /// Deletes a volume and all that is in it.
    VolumeRemove(VolumeId),
}

/// What goes with a machine and cannot be made again. What a container wrote is not meant: that is known to go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// What somebody took care to keep.
    pub snapshots: BTreeSet<Name>,
    /// Whether there may be others of these: its history is damaged.
    pub unknown: bool,
    /// Whether it is a vm, whose data is on its disk.
    pub disk: bool,
}

/// What becomes of the volumes without a name of a machine that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnVolumes {
    /// They are the next one's that has its name.
    Stay,
    /// They go with it.
    Go,
}

/// From one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// As it is.
    pub from: T,
    /// As it is to be.
    pub to: T,
}

/// A thing that a step reads or writes: two steps that touch the same one keep their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A project's record.
    Project(Name),
    /// The engine.
    Engine,
    /// The switchboard.
    Switchboard,
    /// The way out.
    Uplink,
    /// A network.
    Network(NetworkId),
    /// A machine.
    Machine(MachineId),
    /// How far a machine is.
    Stage(MachineId),
    /// An address on a network.
    Address(NetworkId, IpAddr),
    /// A MAC on a network.
    Mac(NetworkId, Mac),
    /// A nic with its lease.
    Nic(NicId),
    /// A port of this computer, whatever the address: `0.0.0.0:80` has to wait until `127.0.0.1:80` is free.
    Port(Protocol, u16),
    /// One of an address, or of all.
    Bind(Bind),
    /// That one was chosen.
    PortLease(Bind),
    /// A volume.
    Volume(VolumeId),
    /// The volumes of a project: its machines start when they are there.
    Volumes(Name),
}

impl Step {
    /// Whether this step destroys what cannot be made again.
    pub fn loses_data(&self) -> bool {
        // What a machine wrote goes without a word; what somebody took care to keep does not.
        matches!(self, Self::VolumeRemove(_))
            || matches!(self, Self::MachineRemove(_, lost, _) if *lost != Lost::default())
    }

    /// Whether others may change the computer while this step is carried out, however long it takes.
    pub fn is_waited_for(&self) -> bool {
        matches!(self, Self::MachineAwait(..) | Self::MachineProvision(..))
    }

    /// What must be as it is while this step runs.
    pub fn reads(&self) -> BTreeSet<Thing> {
        use Thing::{Engine, Machine, Network, Project, Switchboard, Uplink};
        match self {
            // The record is there before anything else is, and goes after it: whatever stands when a plan is
            // cut short belongs to a project that can be named.
            Self::ProjectAdd(..) | Self::ProjectRemove(_) => [Engine, Switchboard, Uplink].into(),
            Self::EngineStart | Self::EngineStop => [].into(),
            Self::SwitchboardStart | Self::UplinkAdd(_) | Self::UplinkRemove(_) => [Engine].into(),
            Self::NetworkAdd(id, state) | Self::NetworkChange(id, Change { to: state, .. }) => {
                let mut things = BTreeSet::from([Engine, Switchboard, Project(id.project.clone())]);
                things.extend((state.reach == Reach::Nat).then_some(Uplink));
                things
            }
            Self::NetworkRemove(id, _) => [Engine, Switchboard, Uplink, Project(id.project.clone())].into(),
            Self::LeaseAdd(id, _) | Self::LeaseRemove(id, _) => {
                [Network(id.network()), Project(id.project.clone())].into()
            }
            // One of ours needs no engine, but may have the name of one that goes with an engine.
            Self::MachineAdd(id, _, after) => {
                let others = after.iter().cloned().map(Machine);
                others.chain([Engine, Project(id.project.clone())]).collect()
            }
            Self::MachineStart(id, after) => so_far(after)
                .chain([Engine, Project(id.project.clone()), Thing::Volumes(id.project.clone())])
                .collect(),
            Self::MachineAwait(id, _) => [Machine(id.clone()), Project(id.project.clone())].into(),
            Self::MachineStop(id, after) => {
                let others = after.iter().cloned().map(Machine);
                others.chain([Engine, Project(id.project.clone())]).collect()
            }
            Self::MachineChange(id, _) | Self::MachineProvision(id, _) => {
                [Engine, Project(id.project.clone())].into()
            }
            Self::MachineRemove(id, ..) => [Engine, Project(id.project.clone())].into(),
            Self::NicAdd(id, _) | Self::NicChange(id, _) | Self::NicRemove(id, ..) => {
                let machine = Machine(id.machine());
                [Engine, Switchboard, machine, Network(id.network()), Project(id.project.clone())].into()
            }
            Self::PortAdd(bind, target, after) => {
                // What has this port of any address goes first.
                let port = Thing::Port(bind.protocol, bind.port);
                let project = Project(target.machine.project.clone());
                let own = [Switchboard, Machine(target.machine.clone()), project, port];
                so_far(after).chain(own).collect()
            }
            Self::PortRemove(_, target) => {
                let project = Project(target.machine.project.clone());
                [Switchboard, Machine(target.machine.clone()), project].into()
            }
            // One that cannot be opened is not kept: the next command chooses another.
            Self::PortLeaseAdd(bind, lease) => {
                [Thing::Bind(*bind), Project(lease.machine.project.clone())].into()
            }
            Self::PortLeaseRemove(_, lease) => [Project(lease.machine.project.clone())].into(),
            Self::VolumeAdd(id, _) | Self::VolumeChange(id, _) | Self::VolumeRemove(id) => {
                [Project(id.project.clone())].into()
            }
        }
    }

    /// What this step changes.
    pub fn writes(&self) -> BTreeSet<Thing> {
        match self {
            Self::ProjectAdd(name, _) | Self::ProjectRemove(name) => [Thing::Project(name.clone())].into(),
            Self::EngineStart => [Thing::Engine].into(),
            Self::EngineStop => [Thing::Engine, Thing::Switchboard, Thing::Uplink].into(),
            Self::SwitchboardStart => [Thing::Switchboard].into(),
            Self::UplinkAdd(_) | Self::UplinkRemove(_) => [Thing::Uplink].into(),
            Self::NetworkAdd(id, _) | Self::NetworkChange(id, _) | Self::NetworkRemove(id, _) => {
                [Thing::Network(id.clone())].into()
            }
            Self::LeaseAdd(id, lease) | Self::LeaseRemove(id, lease) => {
                let addresses = lease.addresses().into_iter().map(|a| Thing::Address(id.network(), a));
                addresses.chain([Thing::Mac(id.network(), lease.mac), Thing::Nic(id.clone())]).collect()
            }
            Self::MachineAdd(id, ..)
            | Self::MachineChange(id, _)
            | Self::MachineStart(id, _)
            // What depends on the machine waits for it.
            | Self::MachineProvision(id, _)
            | Self::MachineStop(id, _)
            | Self::MachineRemove(id, ..) => [Thing::Machine(id.clone())].into(),
            Self::MachineAwait(id, _) => [Thing::Stage(id.clone())].into(),
            // A machine's nics come one after the other: `eth0` may have to go before another is `eth0`. And
            // what waits for the machine (a dependant, a port) waits for its nics.
            Self::NicAdd(id, _) | Self::NicRemove(id, ..) => {
                [Thing::Nic(id.clone()), Thing::Machine(id.machine())].into()
            }
            Self::NicChange(id, _) => [Thing::Nic(id.clone())].into(),
            Self::PortAdd(bind, ..) => [Thing::Bind(*bind)].into(),
            Self::PortRemove(bind, _) => [Thing::Bind(*bind), Thing::Port(bind.protocol, bind.port)].into(),
            Self::PortLeaseAdd(bind, _) | Self::PortLeaseRemove(bind, _) => [Thing::PortLease(*bind)].into(),
            Self::VolumeAdd(id, _) | Self::VolumeChange(id, _) | Self::VolumeRemove(id) => {
                [Thing::Volume(id.clone()), Thing::Volumes(id.project.clone())].into()
            }
        }
    }
}

/// What it is by which others are so far.
fn so_far(after: &BTreeMap<MachineId, Condition>) -> impl Iterator<Item = Thing> {
    after.iter().map(|(other, condition)| match condition {
        Condition::Started => Thing::Machine(other.clone()),
        Condition::Healthy | Condition::Completed => Thing::Stage(other.clone()),
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProjectAdd(name, files) => write!(f, "+ project {name} at {files}"),
            Self::ProjectRemove(name) => write!(f, "- project {name}"),
            Self::EngineStart => write!(f, "+ engine"),
            Self::EngineStop => write!(f, "- engine"),
            Self::SwitchboardStart => write!(f, "+ switchboard"),
            Self::UplinkAdd(uplink) => write!(f, "+ uplink {uplink}"),
            Self::UplinkRemove(uplink) => write!(f, "- uplink {uplink}"),
            Self::NetworkAdd(id, state) => write!(f, "+ network {id} {state}"),
            Self::NetworkChange(id, change) => {
                write!(f, "~ network {id} {}", differences(&change.from, &change.to))
            }
            Self::NetworkRemove(id, _) => write!(f, "- network {id}"),
            Self::LeaseAdd(id, lease) => write!(f, "+ lease {id} {lease}"),
            Self::LeaseRemove(id, lease) => write!(f, "- lease {id} {lease}"),
            Self::MachineAdd(id, state, _) => match &state.body {
                Body::External => write!(f, "+ {} {id} ({})", state.kind, state.driver()),
                Body::Container(made) | Body::Microvm(made) => {
                    write!(f, "+ {} {id} from {}", state.kind, made.wish.image)
                }
                Body::Vm(made) => write!(f, "+ vm {id} from {}", made.wish.image.display()),
            },
            Self::MachineChange(id, change) => {
                write!(f, "~ {} {id} {}", change.to.kind, machine_differences(&change.from, &change.to))
            }
            Self::MachineStart(id, _) => write!(f, "> start {id}"),
            Self::MachineAwait(id, condition) => write!(f, "> await {id} {condition}"),
            Self::MachineProvision(id, one) => match &one.part {
                Part::User(user) => write!(f, "> provision {id} (user {user})"),
                Part::Home(user) => write!(f, "> provision {id} (home of {user})"),
                Part::Own { place, of } => write!(f, "> provision {id} ({} of {of})", place + 1),
            },
            Self::MachineStop(id, _) => write!(f, "> stop {id}"),
            Self::MachineRemove(id, Lost { snapshots, unknown, disk }, _) => {
                write!(f, "- machine {id}")?;
                if *disk {
                    f.write_str(" (its disk is lost)")?;
                }
                if *unknown {
                    f.write_str(" (its snapshots are lost: nobody knows which, its history is damaged)")?;
                }
                let names: Vec<&str> = snapshots.iter().map(Name::as_str).collect();
                if names.is_empty() {
                    Ok(())
                } else {
                    write!(f, " (its snapshots are lost: {})", names.join(", "))
                }
            }
            Self::NicAdd(id, state) => match &state.end {
                NicEnd::Veth(name) | NicEnd::Set(name) => write!(f, "+ nic {id} as {name} by {}", state.link),
                NicEnd::Tap(_) => write!(f, "+ nic {id} by tap {}", state.link),
            },
            Self::NicChange(id, change) => write!(f, "~ nic {id} {}", differences(&change.from, &change.to)),
            Self::NicRemove(id, ..) => write!(f, "- nic {id}"),
            Self::PortAdd(bind, target, _) => {
                write!(f, "+ port {bind} to {}:{}", target.machine, target.port)
            }
            Self::PortRemove(bind, target) => {
                write!(f, "- port {bind} to {}:{}", target.machine, target.port)
            }
            Self::PortLeaseAdd(bind, lease) => write!(f, "+ lease {lease} {bind}"),
            Self::PortLeaseRemove(bind, lease) => write!(f, "- lease {lease} {bind}"),
            Self::VolumeAdd(id, Volume { size_bytes: None }) => write!(f, "+ volume {id}"),
            Self::VolumeAdd(id, volume) => write!(f, "+ volume {id} of at most {volume}"),
            Self::VolumeChange(id, Change { from, to }) => write!(f, "~ volume {id} size {from} -> {to}"),
            Self::VolumeRemove(id) => write!(f, "- volume {id} (its data is lost)"),
        }
    }
}
