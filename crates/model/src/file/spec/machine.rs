//! Machines as written, of every kind.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::mounts::{self, Mounted};
use super::view::{At, Given, Place, View, word};
use super::{Around, DEFAULT_NETWORK, container, dev, mode, vm};
use crate::address::Mac;
use crate::container::{Container, NetworkMode};
use crate::dev::Dev;
use crate::file::leaf::port::{self, Ports};
use crate::file::leaf::vm::any_image;
use crate::file::leaf::{self, network as wire};
use crate::file::problem::Problem;
use crate::file::shape::is_machines;
use crate::file::yaml::Value;
use crate::file::{Build, Pull};
use crate::name::{Alias, Name};
use crate::project::{Condition, Driver, Guard, Kind, Protocol};
use crate::provision::Script;
use crate::vm::Vm;

#[derive(Debug)]
pub(crate) struct MachineSpec {
    pub(crate) name: At<Name>,
    pub(crate) kind: Given<Kind>,
    pub(crate) driver: Given<Driver>,
    /// In whose network it is, if the file says so; without nics then.
    pub(crate) mode: Given<NetworkMode>,
    pub(crate) nics: Vec<NicSpec>,
    pub(crate) ports: Vec<At<Ports>>,
    pub(crate) depends_on: Vec<Dependency>,
    pub(crate) profiles: Vec<At<String>>,
    pub(crate) replicas: Given<u16>,
    /// Its first key that only containers of ours have.
    pub(crate) contained: Option<Place>,
    /// The image, and the container but for its mounts.
    pub(crate) container: Given<Box<Container>>,
    pub(crate) vm: Given<Box<Vm>>,
    pub(crate) mounts: Vec<At<(String, Mounted)>>,
    pub(crate) pull: Given<Pull>,
    pub(crate) build: Given<Box<Build>>,
    pub(crate) dev: Option<Box<Dev>>,
    pub(crate) provision: Vec<Script>,
    /// Where one of these two stands, if anything of them is wanted.
    pub(crate) scripts_place: Option<Place>,
}

impl MachineSpec {
    /// The names of the machines that this stands for: its own, or one each of several.
    pub(crate) fn names(&self) -> Vec<Name> {
        let base = &self.name.value;
        match self.replicas.value() {
            Some(count) if count > 1 => {
                (1..=count).filter_map(|number| format!("{base}-{number}").parse().ok()).collect()
            }
            Some(_) | None => vec![base.clone()],
        }
    }
}

/// A machine that comes before another.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) on: At<Name>,
    pub(crate) condition: Condition,
    pub(crate) required: bool,
    pub(crate) restart: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct NicSpec {
    pub(crate) network: At<Name>,
    pub(crate) address: Given<Ipv4Addr>,
    pub(crate) address6: Given<Ipv6Addr>,
    pub(crate) mac: Given<Mac>,
    pub(crate) aliases: Vec<At<Alias>>,
    pub(crate) guard: Given<Guard>,
}

const KINDS: &[(&str, Kind)] =
    &[("container", Kind::Container), ("microvm", Kind::Microvm), ("vm", Kind::Vm)];
const DRIVERS: &[(&str, Driver)] =
    &[("native", Driver::Native), ("qemu", Driver::Qemu), ("external", Driver::External)];
const GUARDS: &[(&str, Guard)] = &[("on", Guard::On), ("off", Guard::Off)];
const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
const PULLS: &[(&str, Pull)] =
    &[("missing", Pull::Missing), ("always", Pull::Always), ("never", Pull::Never), ("build", Pull::Build)];
const CONDITIONS: &[(&str, Condition)] = &[
    ("service_started", Condition::Started),
    ("service_healthy", Condition::Healthy),
    ("service_completed_successfully", Condition::Completed),
];

/// The keys that machines of every kind have; what else there is says what a container of ours is to be.
const COMMON: [&str; 8] =
    ["kind", "driver", "networks", "ports", "depends_on", "profiles", "replicas", "extends"];

pub(crate) fn read(
    name: At<Name>,
    view: &View<'_>,
    around: &Around<'_>,
    problems: &mut Vec<Problem>,
) -> MachineSpec {
    let defaults = &around.defaults;
    // What is no mapping at all says nothing about its keys.
    let readable = matches!(view.node.map(|node| &node.value), Some(Value::Mapping(_) | Value::Null));
    let kind = |view: &View<'_>| view.get("kind").read(word(KINDS));
    let driver = |view: &View<'_>| view.get("driver").read(word(DRIVERS));
    let (kind, driver) = (kind(view).or(&kind(defaults)), driver(view).or(&driver(defaults)));
    let image = view.get("image").read(any_image);
    let named = !matches!(image, Given::Absent);
    let kind = kind.or(&implied(named, Kind::Container, &name.place));
    let usual = match kind.value() {
        Some(Kind::Microvm | Kind::Vm) => Driver::Qemu,
        Some(Kind::Container) | None => Driver::Native,
    };
    let driver = driver.or(&implied(named, usual, &name.place));
    let is_ours = !matches!(driver.value(), Some(Driver::External));
    let (container, vm) = match kind.value() {
        Some(Kind::Vm) if is_ours => {
            if named {
                vm::refuse_others(view, name.value.as_str(), &COMMON, problems);
            }
            (Given::Absent, vm::read(view, around, problems))
        }
        Some(kind) if is_ours => {
            vm::refuse_own(view, name.value.as_str(), kind, problems);
            (container::read(view, around, problems), Given::Absent)
        }
        Some(_) | None => (container::read(view, around, problems), Given::Absent),
    };
    let network_mode = mode::read(view);
    mode::refuse_beside(&network_mode, view, problems);
    let replicas = |view: View<'_>| view.read(leaf::replicas);
    MachineSpec {
        kind: if readable { kind } else { Given::Wrong },
        driver: if readable { driver } else { Given::Wrong },
        nics: if let Given::Absent = network_mode { nics(&name, view, defaults) } else { Vec::new() },
        ports: all_ports(&network_mode, view, defaults),
        depends_on: depends_on(&view.get("depends_on"), &network_mode),
        profiles: view.get("profiles").each(leaf::container::profile),
        replicas: replicas(view.get("replicas")).or(&replicas(view.get("deploy").get("replicas"))),
        contained: view
            .entries()
            .map(|(key, _)| key)
            // What is no key at all was reported.
            .find(|key| !COMMON.contains(&key.value) && is_machines(key.value))
            .map(|key| key.place),
        container,
        vm,
        mounts: mounts::read(view, around, problems),
        pull: view.get("pull_policy").read(word(PULLS)),
        build: super::build::read(&view.get("build"), &around.root, around.ground, problems),
        scripts_place: view
            .key_place("provision")
            .or_else(|| view.key_place("dev").filter(|_| dev::read(&view.get("dev")).is_some())),
        dev: dev::read(&view.get("dev")),
        provision: view.get("provision").items().filter_map(|item| script(&item)).collect(),
        mode: network_mode,
        name,
    }
}

/// A script, whose text is here by now; what has none was told.
fn script(view: &View<'_>) -> Option<Script> {
    let any = leaf::container::any;
    let text = [view.read(any), view.get("run").read(any)].iter().find_map(Given::value)?;
    let user = view.get("user").read(leaf::container::user).value();
    let environment = view.get("environment").pairs().into_iter();
    let environment = environment.map(|(name, value)| (name.value, value.unwrap_or_default())).collect();
    Some(Script { text, user, environment })
}

fn implied<T>(named: bool, value: T, place: &Place) -> Given<T> {
    if named { Given::Is(At { value, place: place.clone() }) } else { Given::Absent }
}

fn nics(name: &At<Name>, view: &View<'_>, defaults: &View<'_>) -> Vec<NicSpec> {
    let networks = view.get("networks");
    match networks.node.map(|node| &node.value) {
        None | Some(Value::Null) => {
            let network = DEFAULT_NETWORK.parse().ok();
            let network = network.map(|value| At { value, place: name.place.clone() });
            network.map(|network| nic(network, &View::absent(), defaults)).into_iter().collect()
        }
        Some(Value::Mapping(_)) => networks.named().map(|(name, view)| nic(name, &view, defaults)).collect(),
        Some(_) => networks.names().into_iter().map(|name| nic(name, &View::absent(), defaults)).collect(),
    }
}

fn nic(network: At<Name>, view: &View<'_>, defaults: &View<'_>) -> NicSpec {
    let guard = |view: &View<'_>| view.get("guard").read(word(GUARDS));
    NicSpec {
        network,
        address: view.get("address").read(wire::address),
        address6: view.get("address6").read(wire::address6),
        mac: view.get("mac").read(wire::mac),
        aliases: view.get("aliases").aliases(),
        guard: guard(view).or(&guard(defaults)),
    }
}

/// Its ports, where it has any of its own; else it was told.
fn all_ports(mode: &Given<NetworkMode>, view: &View<'_>, defaults: &View<'_>) -> Vec<At<Ports>> {
    if mode.value().is_some_and(|mode| !mode.is_own()) {
        return Vec::new();
    }
    view.get("ports").items().filter_map(|item| ports(&item, defaults)).collect()
}

/// Ports as written, with the default address where they have none.
fn ports(view: &View<'_>, defaults: &View<'_>) -> Option<At<Ports>> {
    let protocol = match view.get("protocol").read(word(PROTOCOLS)) {
        Given::Is(at) => at.value,
        Given::Absent => Protocol::Tcp,
        Given::Wrong => return None,
    };
    let mut ports = match view.read(port::port).value() {
        Some(ports) => ports,
        None => {
            let target = view.get("target").read(port::port_range).value()?;
            let port = match view.get("port").read(port::published_range) {
                Given::Is(at) => at.value,
                Given::Absent => target,
                Given::Wrong => return None,
            };
            Ports { address: view.get("address").read(wire::any_address).value(), port, target, protocol }
        }
    };
    ports.address = ports.address.or(defaults.get("publish").read(wire::any_address).value());
    Some(At { value: ports, place: view.place.clone() })
}

/// The machines that it waits for; that in whose network it is in any case.
fn depends_on(view: &View<'_>, mode: &Given<NetworkMode>) -> Vec<Dependency> {
    let listed = view.names().into_iter().map(|on| Dependency {
        on,
        condition: Condition::Started,
        required: true,
        restart: false,
    });
    let mapped = view.named().map(|(on, view)| Dependency {
        on,
        condition: view.get("condition").read(word(CONDITIONS)).value().unwrap_or_default(),
        required: view.get("required").read(leaf::flag).value().unwrap_or(true),
        restart: view.get("restart").read(leaf::flag).value().unwrap_or(false),
    });
    let mut all: Vec<Dependency> = listed.chain(mapped).collect();
    if let Some(At { value: NetworkMode::Machine(other), place }) = mode.is() {
        match all.iter_mut().find(|dependency| dependency.on.value == *other) {
            Some(dependency) => dependency.required = true,
            None => all.push(Dependency {
                on: At { value: other.clone(), place: place.clone() },
                condition: Condition::Started,
                required: true,
                restart: false,
            }),
        }
    }
    all
}
