//! A checked project: what a `stead.yaml` asks for, in types that cannot be wrong. What may be left to us
//! (a subnet, an address, a MAC) is still open here; [`crate::resolve`] decides it.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::{Mac, overlap};
use crate::container::{Container, Mount};
use crate::dev::Dev;
use crate::name::{Alias, LinkName, Name, NetworkId, VolumeId};
use crate::provision::Script;
use crate::vm::Vm;

pub use self::files::ProjectFiles;

/// What a project asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// The project's name.
    pub name: Name,
    /// Its networks.
    pub networks: BTreeMap<Name, Network>,
    /// The networks of other projects that its machines may be on, by the names that it has for them; none of these is among
    /// its own.
    #[serde(default)]
    pub external_networks: BTreeMap<Name, NetworkId>,
    /// Its machines.
    pub machines: BTreeMap<Name, Machine>,
    /// Its volumes.
    pub volumes: BTreeMap<Name, Volume>,
    /// The volumes of other projects that its machines may mount, by the names that it has for them; none of these is among
    /// its own.
    #[serde(default)]
    pub external_volumes: BTreeMap<Name, VolumeId>,
}

/// A volume, as wanted and as it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What its files may take at most.
    pub size_bytes: Option<u64>,
}

impl Project {
    /// The network that it calls so, its own or another project's.
    pub fn network(&self, name: &Name) -> NetworkId {
        self.external_networks.get(name).cloned().unwrap_or_else(|| NetworkId::new(&self.name, name))
    }

    /// The first subnet that is given to `asked` of which a network of the project is given a part, and that one with its
    /// own.
    pub fn overlapping(&self, asked: &Network) -> Option<(IpNet, &Name, IpNet)> {
        let all = self.networks.iter();
        let theirs: Vec<_> =
            all.flat_map(|(name, other)| other.given().into_iter().map(move |net| (name, net))).collect();
        asked.given().into_iter().find_map(|net| {
            let (name, other) = theirs.iter().find(|(_, other)| overlap(*other, net))?;
            Some((net, *name, *other))
        })
    }
}

/// A network, as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Who gives the machines their addresses.
    pub addressing: Addressing,
    /// What lies beyond it.
    pub reach: Reach,
    /// Its IPv4 subnet.
    pub subnet: Subnet<Ipv4Net>,
    /// Its IPv6 subnet, always a /64.
    pub subnet6: Subnet<Ipv6Net>,
    /// The largest packet.
    pub mtu: u16,
    /// The networks of this project that it is joined to (always both ways).
    pub joins: BTreeSet<Name>,
    /// What DHCP tells machines that boot from the network.
    pub boot: Option<Boot>,
}

impl Network {
    /// The subnets that it is given.
    fn given(&self) -> Vec<IpNet> {
        let v4 = if let Subnet::Given(net) = self.subnet { Some(IpNet::V4(net)) } else { None };
        let v6 = if let Subnet::Given(net) = self.subnet6 { Some(IpNet::V6(net)) } else { None };
        v4.into_iter().chain(v6).collect()
    }
}

/// Who gives the machines of a network their addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// We do: DHCPv4, DHCPv6, router advertisements and DNS.
    Managed(Dhcp),
    /// The machines' own set-up does, with the addresses that we planned; we serve DNS.
    Static,
    /// A machine of the lab does; we are not on this wire.
    None,
}

/// How a managed network gives out addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// The addresses for machines that we do not know, both ends included; none: strangers get no answer.
    pub pool: Pool,
    /// How long a lease holds, in seconds.
    pub lease_s: u32,
    /// Whether machines may also make themselves an address from their MAC.
    pub slaac: bool,
}

/// The addresses for strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// The last quarter of the subnet.
    Auto,
    /// Strangers get no answer.
    Off,
    /// From the first to the second, both included.
    Range(Ipv4Addr, Ipv4Addr),
}

/// What lies beyond a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Whatever this computer reaches, behind its address.
    Nat,
    /// Nothing.
    Isolated,
    /// The real network behind this link of the computer.
    Bridged(LinkName),
}

/// A subnet, as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subnet<T> {
    /// One that nothing on this computer uses.
    Auto,
    /// This one.
    Given(T),
    /// None: the network does not carry this protocol.
    Off,
}

/// What DHCP tells a machine that boots from the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The file to load: a path for TFTP, or a URL.
    pub file: String,
    /// Where from; the network's gateway where absent.
    pub server: Option<IpAddr>,
}

/// A machine, as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What kind of machine it is.
    pub kind: Kind,
    /// What runs it, and what it runs.
    pub runs: Runs,
    /// Its nics, in the order of the file: the first one has the default route.
    pub nics: Vec<Nic>,
    /// The ports of it that this computer publishes.
    pub ports: Vec<Port>,
    /// The machines that come before it, and how far those have to be.
    pub depends_on: BTreeMap<Name, Condition>,
    /// Those of them with which it is started again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub restarts_with: BTreeSet<Name>,
    /// Somebody to work as in it.
    #[serde(default)]
    pub dev: Option<Box<Dev>>,
    /// What is run in it once it runs, in this order, each once.
    #[serde(default)]
    pub provision: Vec<Script>,
}

/// What runs a machine, and what it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runs {
    /// Somebody else does; what is theirs to know.
    External,
    /// We do, as a container.
    Container(Box<Container>),
    /// We do, as a container in a guest of its own.
    Microvm(Box<Container>),
    /// We do, with a disk that it boots from.
    Vm(Box<Vm>),
}

/// How far a machine has to be before another that depends on it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It was started.
    #[default]
    Started,
    /// Its health check says that it is well.
    Healthy,
    /// It ended, and with 0.
    Completed,
}

/// The kinds of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Shares this computer's kernel; its nics are veth pairs.
    Container,
    /// Has a kernel of its own and little else; its nics are TAPs.
    Microvm,
    /// A whole computer; its nics are TAPs.
    Vm,
}

/// What runs a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Somebody else. We make its network namespace (container) or its TAPs (microvm, vm), and give it
    /// its leases, names and ports.
    External,
    /// This program itself, with the kernel's namespaces.
    Native,
    /// QEMU.
    Qemu,
}

/// A nic of a machine, as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The network it is on.
    pub network: Name,
    /// Its IPv4 address, where fixed.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address, where fixed.
    pub address6: Option<Ipv6Addr>,
    /// Its MAC, where fixed.
    pub mac: Option<Mac>,
    /// More names for the machine on this network.
    pub aliases: BTreeSet<Alias>,
    /// Whether it may speak with other addresses than its own.
    pub guard: Guard,
}

/// Whether a nic may speak with other addresses than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Only its own MAC and addresses pass.
    On,
    /// Everything passes: a router, or a machine that holds machines.
    Off,
}

/// A published port: what reaches `bind` goes to `target` of the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The address and port of this computer.
    pub bind: Bind,
    /// The machine's port.
    pub target: u16,
}

/// An address and port of this computer, for one protocol, written `127.0.0.1:8080/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bind {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address; `0.0.0.0` and `::` mean all.
    pub address: IpAddr,
    /// The port. 0 in what a project asks for: this computer chooses it.
    pub port: u16,
}

impl Bind {
    /// Whether the number is this computer's to choose.
    pub fn is_left_open(self) -> bool {
        self.port == 0
    }
}

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Runs {
    /// What runs the machine.
    pub fn driver(&self) -> Driver {
        match self {
            Self::External => Driver::External,
            Self::Container(_) => Driver::Native,
            Self::Microvm(_) | Self::Vm(_) => Driver::Qemu,
        }
    }

    /// Whether we run it.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::External)
    }

    /// The container, if we run one, be it in a guest.
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::External | Self::Vm(_) => None,
            Self::Container(container) | Self::Microvm(container) => Some(container),
        }
    }

    /// What is mounted in it, if we run it.
    pub fn mounts(&self) -> impl Iterator<Item = &Mount> {
        self.places().map(|(_, mount)| mount)
    }

    /// Where directories and files of this computer are in it.
    pub fn binds(&self) -> BTreeSet<String> {
        let binds = self.places().filter(|(_, mount)| matches!(mount, Mount::Bind { .. }));
        binds.map(|(place, _)| place.clone()).collect()
    }

    fn places(&self) -> impl Iterator<Item = (&String, &Mount)> {
        let of_container = self.container().map(|container| &container.mounts);
        of_container.or_else(|| self.vm().map(|vm| &vm.mounts)).into_iter().flatten()
    }

    /// The vm, if we run one.
    pub fn vm(&self) -> Option<&Vm> {
        match self {
            Self::External | Self::Container(_) | Self::Microvm(_) => None,
            Self::Vm(vm) => Some(vm),
        }
    }
}

impl Pool {
    /// The first and the last address for strangers in `subnet`; none if they get no answer.
    pub fn range(self, subnet: Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match self {
            Self::Off => None,
            Self::Range(first, last) => Some((first, last)),
            Self::Auto => {
                let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
                let quarter = (last - first) / 4;
                // The broadcast address is nobody's.
                Some((Ipv4Addr::from(last - quarter), Ipv4Addr::from(last.checked_sub(1)?)))
            }
        }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let Some(bytes) = self.size_bytes else { return f.write_str("none") };
        // The largest unit of which it is whole.
        let (mut number, mut unit) = (bytes, 0);
        while number != 0 && number % 1024 == 0 && unit + 1 < UNITS.len() {
            (number, unit) = (number / 1024, unit + 1);
        }
        write!(f, "{number}{}", UNITS.get(unit).copied().unwrap_or_default())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            IpAddr::V6(address) => write!(f, "[{address}]:{}/{}", self.port, self.protocol),
        }
    }
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, BindError> {
        let parsed = text.split_once('/').and_then(|(socket, protocol)| {
            let socket: SocketAddr = socket.parse().ok()?;
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            Some(Self { protocol, address: socket.ip(), port: socket.port() })
        });
        parsed.ok_or_else(|| BindError(text.to_owned()))
    }
}

/// This text is not `address:port/protocol`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindError(String);

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not `address:port/tcp` or `address:port/udp`", self.0)
    }
}

impl std::error::Error for BindError {}

impl TryFrom<String> for Bind {
    type Error = BindError;

    fn try_from(text: String) -> Result<Self, BindError> {
        text.parse()
    }
}

impl From<Bind> for String {
    fn from(bind: Bind) -> Self {
        bind.to_string()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Container => "container",
            Self::Microvm => "microvm",
            Self::Vm => "vm",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::External => "external",
            Self::Native => "native",
            Self::Qemu => "qemu",
        })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nat => f.write_str("nat"),
            Self::Isolated => f.write_str("isolated"),
            Self::Bridged(link) => write!(f, "bridged:{link}"),
        }
    }
}
