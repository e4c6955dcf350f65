//! What exists on this computer and carries our mark, and what of the computer bears on a decision.
//! `Observed` holds nothing that is somebody else's, so nothing of theirs can be planned away.

mod nic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::container::{Container, Mount};
use crate::image::Digest;
use crate::name::{LinkName, MachineId, Name, NetworkId, NicId, VolumeId};
use crate::project::{Bind, Driver, Kind, ProjectFiles, Reach, Volume};
use crate::provision::ScriptId;
use crate::served::{ServedDhcp, Target};
use crate::vm::MadeVm;

pub use self::nic::{GuardState, Lease, NicEnd, NicState};

/// All of ours that exists, and the computer it exists on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// What this computer offers.
    pub host: HostFacts,
    /// The engine: its namespaces and the process that holds them.
    pub engine: Engine,
    /// Whether the switchboard runs.
    pub switchboard: Switchboard,
    /// The way out of the engine's namespace.
    pub uplink: Option<Uplink>,
    /// Whether something of it is missing that it had when it was made.
    pub uplink_is_broken: bool,
    /// The projects on record, and where their files are.
    pub projects: BTreeMap<Name, ProjectFiles>,
    /// The networks that stand.
    pub networks: BTreeMap<NetworkId, NetworkState>,
    /// The machines that exist.
    pub machines: BTreeMap<MachineId, MachineState>,
    /// Those of them that we run, and that run.
    pub running: BTreeMap<MachineId, Running>,
    /// The snapshots of those of them that have any.
    pub snapshots: BTreeMap<MachineId, BTreeSet<Name>>,
    /// Those of them whose history is damaged: nobody knows which snapshots they have.
    pub damaged: BTreeSet<MachineId>,
    /// The scripts that have been run in those of them in which any have.
    pub provisioned: BTreeMap<MachineId, BTreeSet<ScriptId>>,
    /// The nics that are on their networks.
    pub nics: BTreeMap<NicId, NicState>,
    /// The addresses on record.
    pub leases: BTreeMap<NicId, Lease>,
    /// The ports that are published.
    pub ports: BTreeMap<Bind, Target>,
    /// The ports on record that this computer chose.
    pub port_leases: BTreeMap<Bind, PortLease>,
    /// The volumes that exist.
    pub volumes: BTreeMap<VolumeId, Volume>,
}

/// What this computer offers, and what of it is in use by others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// This home's mark in names on the host, six characters.
    pub home: String,
    /// Where the computer's own routes lead, and what other homes have claimed.
    pub taken: BTreeMap<IpNet, Taken>,
    /// Whether this computer has a way out itself.
    pub online: bool,
    /// Whether it speaks IPv6.
    pub ipv6: Ipv6,
    /// Whether each kind of uplink would work, and if not, why.
    pub uplinks: Uplinks,
    /// The links that a network can be bridged to.
    pub links: BTreeMap<LinkName, HostLink>,
    /// The largest packets that they carry.
    pub mtus: BTreeMap<LinkName, u32>,
    /// The ports, first and last, that the kernel gives to whoever asks for none in particular.
    pub local_ports: (u16, u16),
}

/// How far a computer speaks IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// Its kernel does not.
    #[default]
    Absent,
    /// Its kernel does, its own new links do not: our networks can have it, but nothing beyond.
    Inside,
    /// It does.
    Everywhere,
}

/// Who has an address range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// A route of this computer by this link.
    Route(LinkName),
    /// A route of this computer that leads by no link: what is sent there is refused or dropped.
    Refused,
    /// Another home of stead on this computer.
    Home,
}

/// Whether each kind of uplink would work here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uplinks {
    /// The kernel's path: a veth pair and address translation in the host's namespace.
    pub veth: Result<(), Lack>,
    /// pasta, a process that carries the traffic through ordinary sockets.
    pub pasta: Result<(), Lack>,
}

/// What is missing, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// What is missing.
    pub why: String,
    /// What to do.
    pub hint: String,
    /// Whether that is a command, to be run as it stands.
    pub is_command: bool,
}

impl Default for Uplinks {
    fn default() -> Self {
        let lack = Lack { why: "not looked at".into(), hint: String::new(), is_command: false };
        Self { veth: Err(lack.clone()), pasta: Err(lack) }
    }
}

/// A link of this computer that a network may be bridged to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostLink {
    /// A bridge: we add a port of ours.
    Bridge,
    /// A nic without addresses or master: it moves into the engine's namespace.
    Idle,
    /// A nic that the computer itself uses; why.
    InUse(String),
}

/// The engine's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Nothing of it.
    Absent,
    /// It was killed, or was never finished: some processes or rules of it. Nothing that was in its
    /// namespaces is left: no network, nic, port or switchboard.
    Partial,
    /// Namespaces, their holder, and our rules in them.
    Present,
}

/// The process that serves the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switchboard {
    /// It does not run, or nobody would start it again.
    Absent,
    /// It runs, and answers, and is watched over.
    Running,
}

/// The way out of the engine's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uplink {
    /// A veth pair into the host's namespace, which forwards and translates.
    Veth(VethUplink),
    /// pasta.
    Pasta,
}

/// The veth pair of an [`Uplink`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VethUplink {
    /// The host's end.
    pub link: LinkName,
    /// The host's address and the transfer subnet; the engine has the next address.
    pub transfer: Ipv4Net,
    /// The same for IPv6, where the host forwards it.
    pub transfer6: Option<Ipv6Net>,
}

/// A network as it stands: every choice made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The bridge.
    pub link: LinkName,
    /// Its MAC.
    pub mac: Mac,
    /// The largest packet.
    pub mtu: u16,
    /// Our IPv4 address on it and its subnet.
    pub gateway: Option<Ipv4Net>,
    /// Our IPv6 address on it and its subnet.
    pub gateway6: Option<Ipv6Net>,
    /// What lies beyond.
    pub reach: Reach,
    /// The networks of the same project it is joined to.
    pub joins: BTreeSet<Name>,
    /// What we serve there; nothing on networks with addressing `none`.
    pub service: Option<Service>,
}

/// What we serve on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The domain of its names.
    pub domain: String,
    /// How addresses are given out; absent with addressing `static`.
    pub dhcp: Option<ServedDhcp>,
}

/// A machine as it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineState {
    /// Its kind.
    pub kind: Kind,
    /// What was made of it.
    pub body: Body,
}

/// What was made of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Somebody else runs it: there is nothing but its namespace or its TAPs, which go with the engine.
    External,
    /// A container of ours: what was asked for, which it is on record with, and its files.
    Container(Box<MadeContainer>),
    /// The same in a guest of its own.
    Microvm(Box<MadeContainer>),
    /// A vm of ours.
    Vm(Box<MadeVm>),
}

/// A container of ours, as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeContainer {
    /// What was asked for.
    pub wish: Container,
    /// What its image was then. Absent only in a plan that is merely shown, of an image that is not here yet.
    pub image: Option<Digest>,
}

/// How a machine of ours runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Running {
    /// In a network namespace of the engine, or in this computer's as long as there is the engine.
    Connected,
    /// In the network namespace of an engine that is gone, or in one that is not the other machine's any more.
    CutOff,
}

/// Whose a port of this computer is that was chosen for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortLease {
    /// The machine.
    pub machine: MachineId,
    /// Its port.
    pub target: u16,
}

impl MachineState {
    /// What runs it.
    pub fn driver(&self) -> Driver {
        match self.body {
            Body::External => Driver::External,
            Body::Container(_) => Driver::Native,
            Body::Microvm(_) | Body::Vm(_) => Driver::Qemu,
        }
    }

    /// Whether we run it.
    pub fn is_ours(&self) -> bool {
        !matches!(self.body, Body::External)
    }

    /// Whether it has a kernel of its own.
    pub fn is_guest(&self) -> bool {
        matches!(self.body, Body::Microvm(_) | Body::Vm(_))
    }

    /// The vm of ours that it is, if it is one.
    pub fn vm(&self) -> Option<&MadeVm> {
        match &self.body {
            Body::External | Body::Container(_) | Body::Microvm(_) => None,
            Body::Vm(made) => Some(made),
        }
    }

    /// What it is made from, if we run it: an image's name, or a file.
    pub fn image(&self) -> Option<String> {
        match &self.body {
            Body::External => None,
            Body::Container(made) | Body::Microvm(made) => Some(made.wish.image.to_string()),
            Body::Vm(made) => Some(made.wish.image.display().to_string()),
        }
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        match &self.body {
            Body::External => None,
            Body::Container(made) | Body::Microvm(made) => Some(&made.wish.labels),
            Body::Vm(made) => Some(&made.wish.labels),
        }
    }

    /// The container of ours that it is, be it in a guest, if it is one.
    pub fn container(&self) -> Option<&MadeContainer> {
        match &self.body {
            Body::External | Body::Vm(_) => None,
            Body::Container(made) | Body::Microvm(made) => Some(made),
        }
    }

    /// What is mounted in it, if we run it.
    pub fn mounts(&self) -> impl Iterator<Item = &Mount> {
        let of_container = self.container().map(|made| &made.wish.mounts);
        of_container
            .or_else(|| self.vm().map(|made| &made.wish.mounts))
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Whether it is nothing without the engine.
    pub fn goes_with_engine(&self) -> bool {
        matches!(self.body, Body::External)
    }
}

impl NetworkState {
    /// Whether it is a part of a real network.
    pub fn is_bridged(&self) -> bool {
        matches!(self.reach, Reach::Bridged(_))
    }

    /// Its subnets of both families.
    pub fn subnets(&self) -> Vec<IpNet> {
        let v4 = self.gateway.map(|net| IpNet::V4(net.trunc()));
        v4.into_iter().chain(self.gateway6.map(|net| IpNet::V6(net.trunc()))).collect()
    }
}

impl Observed {
    /// A computer on which nothing of ours exists.
    pub fn nothing(host: HostFacts) -> Self {
        Self {
            host,
            engine: Engine::Absent,
            switchboard: Switchboard::Absent,
            uplink: None,
            uplink_is_broken: false,
            projects: BTreeMap::new(),
            networks: BTreeMap::new(),
            machines: BTreeMap::new(),
            running: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            damaged: BTreeSet::new(),
            provisioned: BTreeMap::new(),
            nics: BTreeMap::new(),
            leases: BTreeMap::new(),
            ports: BTreeMap::new(),
            port_leases: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addresses().iter().try_for_each(|address| write!(f, "{address} "))?;
        write!(f, "{}", self.mac)
    }
}

impl fmt::Display for PortLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.machine, self.target)
    }
}

impl fmt::Display for NetworkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subnets = self.gateway.map(|net| net.trunc().to_string());
        let subnets6 = self.gateway6.map(|net| net.trunc().to_string());
        let texts = subnets.into_iter().chain(subnets6).chain([self.reach.to_string()]);
        f.write_str(&texts.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Veth(veth) => {
                write!(f, "veth {} {}", veth.link, veth.transfer.trunc())?;
                veth.transfer6.iter().try_for_each(|net| write!(f, " {}", net.trunc()))
            }
            Self::Pasta => write!(f, "pasta"),
        }
    }
}
