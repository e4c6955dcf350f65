//! Machines: their networks exist, their addresses fit, nothing is taken twice, and some order of
//! starting them exists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::super::problem::Problem;
use super::super::spec::{At, Given, MachineSpec, NetworkSpec, NicSpec, Place, Spec};
use super::{Dormant, Taken, containers, networks, once, order, replicas, sharing, unknown};
use crate::address::{Mac, nth4, nth6};
use crate::name::Name;
use crate::project::{Addressing, Bind, Guard, Machine, Network, Nic, Pool, Port, Protocol, Subnet};

/// The networks by their names; of those of other projects nothing is known here.
type Networks<'n> = BTreeMap<&'n Name, Option<&'n Network>>;

/// What only one may have.
struct Unique {
    addresses: Taken<(Name, IpAddr)>,
    macs: Taken<Mac>,
    binds: BTreeMap<(Protocol, u16), Vec<(IpAddr, Name)>>,
    ports: usize,
}

/// Each published port is a socket, and a process commonly has no more than 20,000.
const PORTS_MAX: usize = 16_384;

/// The machines of a file.
pub(super) fn check(
    spec: &Spec,
    networks: &BTreeMap<Name, Network>,
    dormant: &Dormant,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Name, Machine> {
    let mut unique = Unique {
        addresses: Taken(BTreeMap::new()),
        macs: Taken(BTreeMap::new()),
        binds: BTreeMap::new(),
        ports: 0,
    };
    let names: BTreeSet<&Name> = spec.machines.iter().map(|machine| &machine.name.value).collect();
    let own = networks.iter().map(|(name, network)| (name, Some(network)));
    let networks: Networks<'_> =
        own.chain(networks::external(spec).map(|(at, _)| (&at.value, None))).collect();
    let mut machines = BTreeMap::new();
    let unread = unread(spec);
    for machine in &spec.machines {
        let nics = nics(machine, &networks, &names, &mut unique, problems);
        for nic in machine.nics.iter().filter(|nic| !unread.contains(&nic.network.value)) {
            if let Some(Some(network)) = networks.get(&nic.network.value) {
                addresses(nic, network, problems);
            }
        }
        let ports = ports(machine, &nics, &networks, &mut unique, problems);
        let (depends_on, restarts_with) = order::depends_on(machine, &names, dormant, problems);
        let made = containers::runs(machine, &spec.volumes, problems).map(|(kind, runs)| Machine {
            kind,
            runs,
            nics,
            ports,
            depends_on,
            restarts_with,
            dev: machine.dev.clone(),
            provision: machine.provision.clone(),
        });
        if let (Some(place), Some(vm)) = (&machine.scripts_place, machine.vm.value())
            && vm.cloud_init.is_none()
        {
            let message = format!("machine `{}` has no agent of stead to run scripts", machine.name.value);
            problems.push(place.problem(message).hint("leave `cloud_init: off` out"));
        }
        if let Some(made) = made {
            machines.insert(machine.name.value.clone(), made);
        }
    }
    order::cycles(spec, problems);
    sharing::settle(spec, &mut machines, problems);
    replicas::multiply(spec, machines, problems)
}

/// Networks whose subnets or addressing are unreadable, which was reported: nothing fits or misfits them.
fn unread(spec: &Spec) -> BTreeSet<Name> {
    let wrong = |network: &&NetworkSpec| {
        matches!(network.subnet, Given::Wrong)
            || matches!(network.subnet6, Given::Wrong)
            || matches!(network.addressing, Given::Wrong)
    };
    spec.networks.iter().filter(wrong).map(|network| network.name.value.clone()).collect()
}

fn nics(
    machine: &MachineSpec,
    networks: &Networks<'_>,
    machines: &BTreeSet<&Name>,
    unique: &mut Unique,
    problems: &mut Vec<Problem>,
) -> Vec<Nic> {
    let specs = &machine.nics;
    let mut seen = BTreeSet::new();
    let places: Vec<At<Name>> = specs.iter().map(|spec| spec.network.clone()).collect();
    once(&places, &mut seen, "network", problems);
    let mut nics = Vec::new();
    for spec in specs {
        if !networks.contains_key(&spec.network.value) {
            problems.push(unknown(&spec.network, "network", networks.keys().copied()));
            continue;
        }
        only_one(machine, spec, machines, unique, problems);
        nics.push(Nic {
            network: spec.network.value.clone(),
            address: spec.address.value(),
            address6: spec.address6.value(),
            mac: spec.mac.value(),
            aliases: spec.aliases.iter().map(|at| at.value.clone()).collect(),
            guard: spec.guard.value().unwrap_or(Guard::On),
        });
    }
    nics
}

/// Fixed addresses are ones that a machine of this network can have.
fn addresses(spec: &NicSpec, network: &Network, problems: &mut Vec<Problem>) {
    let name = &spec.network.value;
    if let Some(at) = spec.address.is() {
        let dhcp = match &network.addressing {
            Addressing::Managed(dhcp) => Some(dhcp.pool),
            Addressing::Static => None,
            Addressing::None => return problems.push(unplanned(&at.place, name)),
        };
        match network.subnet {
            Subnet::Given(net) => problems.extend(address4(at, net, dhcp, name)),
            Subnet::Off => problems.push(off(&at.place, name, "subnet", "IPv4")),
            Subnet::Auto => {
                let net = Ipv4Net::new(at.value, 24).map_or(at.value, |net| net.network());
                problems.push(floating(&at.place, name, &format!("subnet: {net}/24")));
            }
        }
    }
    if let Some(at) = spec.address6.is() {
        if network.addressing == Addressing::None {
            return problems.push(unplanned(&at.place, name));
        }
        match network.subnet6 {
            Subnet::Given(net) => problems.extend(address6(at, net, name)),
            Subnet::Off => problems.push(off(&at.place, name, "subnet6", "IPv6")),
            Subnet::Auto => {
                let net = Ipv6Net::new(at.value, 64).map_or(at.value, |net| net.network());
                problems.push(floating(&at.place, name, &format!("subnet6: {net}/64")));
            }
        }
    }
}

fn unplanned(place: &Place, network: &Name) -> Problem {
    let message = format!("network `{network}` has addressing `none`: addresses are not planned there");
    place.problem(message).hint("leave the address out")
}

fn off(place: &Place, network: &Name, key: &str, what: &str) -> Problem {
    let message = format!("network `{network}` carries no {what}");
    place.problem(message).hint(format!("leave the address out, or take away its `{key}: off`"))
}

fn floating(place: &Place, network: &Name, hint: &str) -> Problem {
    let message = format!("a fixed address needs a fixed subnet, and that of network `{network}` is `auto`");
    place.problem(message).hint(format!("write `{hint}` there"))
}

fn address4(at: &At<Ipv4Addr>, net: Ipv4Net, pool: Option<Pool>, network: &Name) -> Option<Problem> {
    let address = at.value;
    let strangers = pool.and_then(|pool| pool.range(net));
    let message = if !net.contains(&address) {
        format!("`{address}` is not in `{net}` of network `{network}`")
    } else if address == net.network() {
        format!("`{address}` is the address of network `{network}` itself")
    } else if address == net.broadcast() {
        format!("`{address}` is the broadcast address of network `{network}`")
    } else if nth4(net, 1) == Some(address) {
        format!("`{address}` is the gateway of network `{network}`")
    } else {
        let (first, last) = strangers.filter(|(first, last)| (*first..=*last).contains(&address))?;
        let message =
            format!("`{address}` is in the pool for strangers of network `{network}`, `{first}-{last}`");
        return Some(
            at.place.problem(message).hint("take another address, or set the network's `dhcp: { pool: … }`"),
        );
    };
    let lowest = nth4(net, 2).unwrap_or(net.network());
    let highest = Ipv4Addr::from(u32::from(net.broadcast()).saturating_sub(1));
    let hint = format!("machines have `{lowest}` to `{highest}` there; without `address` one is chosen");
    Some(at.place.problem(message).hint(hint))
}

fn address6(at: &At<std::net::Ipv6Addr>, net: Ipv6Net, network: &Name) -> Option<Problem> {
    let address = at.value;
    let message = if !net.contains(&address) {
        format!("`{address}` is not in `{net}` of network `{network}`")
    } else if address == net.network() {
        format!("`{address}` is the address of network `{network}` itself")
    } else if nth6(net, 1) == Some(address) {
        format!("`{address}` is the gateway of network `{network}`")
    } else {
        return None;
    };
    let lowest = nth6(net, 2).unwrap_or(net.network());
    let hint = format!("machines have `{lowest}` and higher there; without `address6` one is chosen");
    Some(at.place.problem(message).hint(hint))
}

/// Addresses, MACs and aliases of a nic that something else has.
fn only_one(
    machine: &MachineSpec,
    spec: &NicSpec,
    machines: &BTreeSet<&Name>,
    unique: &mut Unique,
    problems: &mut Vec<Problem>,
) {
    let (own, network) = (&machine.name.value, &spec.network.value);
    let address = spec.address.is().map(|at| (IpAddr::V4(at.value), &at.place));
    let address6 = spec.address6.is().map(|at| (IpAddr::V6(at.value), &at.place));
    for (address, place) in address.into_iter().chain(address6) {
        if let Some(other) = unique.addresses.by((network.clone(), address), own.as_str()) {
            let message = format!("machine `{other}` has the address `{address}` already");
            problems.push(place.problem(message).hint("take another, or leave it out: one is chosen"));
        }
    }
    if let Some(at) = spec.mac.is()
        && let Some(other) = unique.macs.by(at.value, own.as_str())
    {
        let message = format!("a nic of machine `{other}` has the MAC `{}` already", at.value);
        problems.push(at.place.problem(message).hint("take another, or leave it out: each nic has its own"));
    }
    for at in &spec.aliases {
        let alias = at.value.as_str();
        if alias != own.as_str() && machines.iter().any(|name| name.as_str() == alias) {
            let message = format!("`{}` is the name of another machine", at.value);
            let hint = "take another alias; names that several machines have in common are none of a machine";
            problems.push(at.place.problem(message).hint(hint));
        }
    }
}

fn ports(
    machine: &MachineSpec,
    nics: &[Nic],
    networks: &Networks<'_>,
    unique: &mut Unique,
    problems: &mut Vec<Problem>,
) -> Vec<Port> {
    let planned = |nic: &Nic| match networks.get(&nic.network) {
        Some(Some(network)) => network.addressing != Addressing::None,
        Some(None) => true,
        None => false,
    };
    // Networks that do not exist were reported; nothing follows from them.
    let all_known = machine.nics.len() == nics.len();
    if let (Some(at), true) = (machine.ports.first(), all_known && !nics.iter().any(planned)) {
        let message = format!("machine `{}` is on no network where we know its address", machine.name.value);
        problems.push(at.place.problem(message).hint("put it on one with addressing `managed` or `static`"));
    }
    let mut ports = Vec::new();
    for at in &machine.ports {
        let written = at.value;
        if let Err(wrong) = super::super::leaf::port::same_length(written) {
            problems.push(wrong.at(at.place.span, &at.place.path, &at.place.text));
            continue;
        }
        let before = unique.ports;
        let replicas = machine.replicas.is().map_or(1, |at| usize::from(at.value.max(1)));
        unique.ports += (usize::from(written.port.last - written.port.first) + 1) * replicas;
        if unique.ports > PORTS_MAX {
            if before <= PORTS_MAX {
                let message = format!("the project publishes more than {PORTS_MAX} ports");
                let hint = "publish fewer, or reach machines by their own addresses";
                problems.push(at.place.problem(message).hint(hint));
            }
            continue;
        }
        let address = written.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let pairs = (written.port.first..=written.port.last).zip(written.target.first..=written.target.last);
        let mut told = false;
        for (port, target) in pairs {
            let bind = Bind { protocol: written.protocol, address, port };
            if bind.is_left_open() {
                ports.push(Port { bind, target });
                continue;
            }
            let taken = unique.binds.entry((bind.protocol, port)).or_default();
            if let Some((other, who)) = taken.iter().find(|(other, _)| same_socket(*other, address))
                && !told
            {
                let other = Bind { address: *other, ..bind };
                let message = format!("`{bind}` is published already, for machine `{who}` as `{other}`");
                problems.push(at.place.problem(message).hint("take another port or address"));
                // Once for a range.
                told = true;
            }
            taken.push((address, machine.name.value.clone()));
            ports.push(Port { bind, target });
        }
    }
    ports
}

/// Whether two sockets with these addresses and one port would be in each other's way.
fn same_socket(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}
