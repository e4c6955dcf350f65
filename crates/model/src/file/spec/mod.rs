//! The file as written, in types. What does not fit was reported by [`super::structure`] and is absent or
//! [`Given::Wrong`] here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::join;
use super::leaf::{self, Ports, Wrong};
use super::problem::{Problem, Span};
use super::yaml::{Node, Value};
use crate::address::Mac;
use crate::name::Name;
use crate::project::{Driver, Guard, Kind, Pool, Protocol, Reach, Subnet};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// Where something stands, and as what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) span: Span,
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Place {
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.span, &self.path, &self.text, message)
    }
}

/// A value that may be left out.
#[derive(Clone, Debug, Default)]
pub(crate) enum Given<T> {
    #[default]
    Absent,
    /// There, but unreadable, which was reported: nothing may be concluded from it.
    Wrong,
    Is(At<T>),
}

impl<T: Clone> Given<T> {
    pub(crate) fn is(&self) -> Option<&At<T>> {
        match self {
            Self::Is(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    pub(crate) fn value(&self) -> Option<T> {
        self.is().map(|at| at.value.clone())
    }

    pub(crate) fn or(self, other: &Self) -> Self {
        if let Self::Absent = self { other.clone() } else { self }
    }
}

/// The network of machines that name none, as in Compose.
pub(crate) const DEFAULT_NETWORK: &str = "default";

/// The whole file.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: Given<Name>,
    pub(crate) start: Place,
    pub(crate) networks: Vec<NetworkSpec>,
    /// The network `default`, for when something is on it and the file does not have it.
    pub(crate) implicit: Option<NetworkSpec>,
    pub(crate) machines: Vec<MachineSpec>,
    pub(crate) volumes: Vec<At<Name>>,
}

/// Who gives addresses, without the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Managed,
    Static,
    None,
}

#[derive(Debug)]
pub(crate) struct NetworkSpec {
    pub(crate) name: At<Name>,
    pub(crate) subnet: Given<Subnet<Ipv4Net>>,
    pub(crate) subnet6: Given<Subnet<Ipv6Net>>,
    pub(crate) addressing: Given<Mode>,
    pub(crate) reach: Given<Reach>,
    pub(crate) mtu: Given<u16>,
    pub(crate) joins: Vec<At<Name>>,
    pub(crate) dhcp: Option<Place>,
    pub(crate) pool: Given<Pool>,
    pub(crate) lease_s: Given<u32>,
    pub(crate) slaac: Given<bool>,
    pub(crate) boot: Option<Place>,
    pub(crate) boot_file: Given<String>,
    pub(crate) boot_server: Given<IpAddr>,
}

#[derive(Debug)]
pub(crate) struct MachineSpec {
    pub(crate) name: At<Name>,
    pub(crate) kind: Given<Kind>,
    pub(crate) driver: Given<Driver>,
    pub(crate) nics: Vec<NicSpec>,
    pub(crate) ports: Vec<At<Ports>>,
    pub(crate) depends_on: Vec<At<Name>>,
}

#[derive(Debug)]
pub(crate) struct NicSpec {
    pub(crate) network: At<Name>,
    pub(crate) address: Given<Ipv4Addr>,
    pub(crate) address6: Given<Ipv6Addr>,
    pub(crate) mac: Given<Mac>,
    pub(crate) aliases: Vec<At<Name>>,
    pub(crate) guard: Given<Guard>,
}

/// A node and its path; `place` is where messages about it as a whole point.
struct View<'a> {
    node: Option<&'a Node>,
    path: String,
    place: Place,
}

impl<'a> View<'a> {
    fn new(node: &'a Node, path: String) -> Self {
        let text = if let Value::Scalar(text) = &node.value { text.clone() } else { String::new() };
        Self { node: Some(node), place: Place { span: node.span, path: path.clone(), text }, path }
    }

    fn entries(&self) -> impl Iterator<Item = (At<&'a str>, Self)> + use<'a> {
        let entries = match self.node.map(|node| &node.value) {
            Some(Value::Mapping(entries)) => entries.as_slice(),
            _ => &[],
        };
        let path = self.path.clone();
        entries.iter().map(move |entry| {
            let path = join(&path, &entry.key);
            let place = Place { span: entry.key_span, path: path.clone(), text: entry.key.clone() };
            (At { value: entry.key.as_str(), place }, View::new(&entry.node, path))
        })
    }

    fn get(&self, key: &str) -> Self {
        let absent = || View { node: None, path: join(&self.path, key), place: Place::default() };
        self.entries().find(|(at, _)| at.value == key).map_or_else(absent, |(_, view)| view)
    }

    /// Where the key stands, if it does and something is under it.
    fn key_place(&self, key: &str) -> Option<Place> {
        self.entries().find(|(at, _)| at.value == key).map(|(at, _)| at.place)
    }

    fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let items = match self.node.map(|node| &node.value) {
            Some(Value::Sequence(items)) => items.as_slice(),
            _ => &[],
        };
        let path = self.path.clone();
        items.iter().enumerate().map(move |(index, node)| View::new(node, format!("{path}[{index}]")))
    }

    fn read<T>(&self, parse: impl Fn(&str) -> Result<T, Wrong>) -> Given<T> {
        match self.node.map(|node| &node.value) {
            None => Given::Absent,
            Some(Value::Scalar(text)) => match parse(text) {
                Ok(value) => Given::Is(At { value, place: self.place.clone() }),
                Err(_) => Given::Wrong,
            },
            Some(_) => Given::Wrong,
        }
    }

    fn names(&self) -> Vec<At<Name>> {
        let read = |view: Self| match view.read(leaf::name) {
            Given::Is(at) => Some(at),
            Given::Absent | Given::Wrong => None,
        };
        self.items().filter_map(read).collect()
    }

    /// The entries whose keys are names.
    fn named(&self) -> impl Iterator<Item = (At<Name>, Self)> + use<'a> {
        self.entries().filter_map(|(key, view)| {
            Some((At { value: leaf::name(key.value).ok()?, place: key.place }, view))
        })
    }
}

/// Finds the value that a word stands for.
fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&str) -> Result<T, Wrong> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| Wrong::new("not one of the words"))
    }
}

const KINDS: &[(&str, Kind)] =
    &[("container", Kind::Container), ("microvm", Kind::Microvm), ("vm", Kind::Vm)];
const DRIVERS: &[(&str, Driver)] = &[("external", Driver::External)];
const GUARDS: &[(&str, Guard)] = &[("on", Guard::On), ("off", Guard::Off)];
const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
const MODES: &[(&str, Mode)] = &[("managed", Mode::Managed), ("static", Mode::Static), ("none", Mode::None)];

/// Reads a tree, with its defaults put where nothing is said.
pub(crate) fn read(tree: &Node) -> Spec {
    let root = View::new(tree, String::new());
    let defaults = root.get("defaults");
    let absent = View { node: None, path: String::new(), place: Place::default() };
    let implicit = DEFAULT_NETWORK.parse().ok().map(|value| At { value, place: Place::default() });
    let volumes = root.get("volumes");
    let mut names = volumes.names();
    names.extend(volumes.named().map(|(name, _)| name));
    Spec {
        name: root.get("name").read(leaf::name),
        start: Place { span: Span { line: 1, column: 1, chars: 0 }, ..Place::default() },
        networks: root.get("networks").named().map(|(name, view)| network(name, &view, &defaults)).collect(),
        implicit: implicit.map(|name| network(name, &absent, &defaults)),
        machines: root.get("machines").named().map(|(name, view)| machine(name, &view, &defaults)).collect(),
        volumes: names,
    }
}

fn network(name: At<Name>, view: &View<'_>, defaults: &View<'_>) -> NetworkSpec {
    let (dhcp, boot) = (view.get("dhcp"), view.get("boot"));
    let mtu = |view: &View<'_>| view.get("mtu").read(|text| leaf::whole(text, 576, 9216));
    let reach = view.get("reach");
    let reach = match reach.get("bridged").read(leaf::link) {
        Given::Is(At { value, place }) => Given::Is(At { value: Reach::Bridged(value), place }),
        Given::Wrong => Given::Wrong,
        Given::Absent => reach.read(leaf::reach),
    };
    NetworkSpec {
        name,
        subnet: view.get("subnet").read(leaf::subnet),
        subnet6: view.get("subnet6").read(leaf::subnet6),
        addressing: view.get("addressing").read(word(MODES)),
        reach,
        mtu: mtu(view).or(&mtu(defaults)),
        joins: view.get("joins").names(),
        dhcp: view.key_place("dhcp"),
        pool: dhcp.get("pool").read(leaf::pool),
        lease_s: dhcp.get("lease").read(leaf::duration_s),
        slaac: dhcp.get("slaac").read(leaf::flag),
        boot: view.key_place("boot"),
        boot_file: boot.get("file").read(leaf::plain_text),
        boot_server: boot.get("server").read(leaf::any_address),
    }
}

fn machine(name: At<Name>, view: &View<'_>, defaults: &View<'_>) -> MachineSpec {
    // What is no mapping at all says nothing about its keys.
    let readable = matches!(view.node.map(|node| &node.value), Some(Value::Mapping(_) | Value::Null));
    let kind = |view: &View<'_>| view.get("kind").read(word(KINDS));
    let driver = |view: &View<'_>| view.get("driver").read(word(DRIVERS));
    let networks = view.get("networks");
    let absent = View { node: None, path: String::new(), place: Place::default() };
    let nics = match networks.node.map(|node| &node.value) {
        None | Some(Value::Null) => {
            let network = DEFAULT_NETWORK.parse().ok();
            let network = network.map(|value| At { value, place: name.place.clone() });
            network.map(|network| nic(network, &absent, defaults)).into_iter().collect()
        }
        Some(Value::Mapping(_)) => networks.named().map(|(name, view)| nic(name, &view, defaults)).collect(),
        Some(_) => networks.names().into_iter().map(|name| nic(name, &absent, defaults)).collect(),
    };
    MachineSpec {
        name,
        kind: if readable { kind(view).or(&kind(defaults)) } else { Given::Wrong },
        driver: if readable { driver(view).or(&driver(defaults)) } else { Given::Wrong },
        nics,
        ports: view.get("ports").items().filter_map(|item| ports(&item, defaults)).collect(),
        depends_on: view.get("depends_on").names(),
    }
}

fn nic(network: At<Name>, view: &View<'_>, defaults: &View<'_>) -> NicSpec {
    let guard = |view: &View<'_>| view.get("guard").read(word(GUARDS));
    NicSpec {
        network,
        address: view.get("address").read(leaf::address),
        address6: view.get("address6").read(leaf::address6),
        mac: view.get("mac").read(leaf::mac),
        aliases: view.get("aliases").names(),
        guard: guard(view).or(&guard(defaults)),
    }
}

/// Ports as written, with the default address where they have none.
fn ports(view: &View<'_>, defaults: &View<'_>) -> Option<At<Ports>> {
    let protocol = match view.get("protocol").read(word(PROTOCOLS)) {
        Given::Is(at) => at.value,
        Given::Absent => Protocol::Tcp,
        Given::Wrong => return None,
    };
    let mut ports = match view.read(leaf::port).value() {
        Some(ports) => ports,
        None => {
            let target = view.get("target").read(leaf::port_range).value()?;
            let port = match view.get("port").read(leaf::port_range) {
                Given::Is(at) => at.value,
                Given::Absent => target,
                Given::Wrong => return None,
            };
            Ports { address: view.get("address").read(leaf::any_address).value(), port, target, protocol }
        }
    };
    ports.address = ports.address.or(defaults.get("publish").read(leaf::any_address).value());
    Some(At { value: ports, place: view.place.clone() })
}
