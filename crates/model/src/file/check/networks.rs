//! Networks: which settings go together, and that subnets do not overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::super::problem::Problem;
use super::super::spec::{At, DEFAULT_NETWORK, Given, Mode, NetworkSpec, Spec};
use super::{LEASE_DEFAULT_S, MTU_DEFAULT, once, unknown};
use crate::address::nth4;
use crate::name::{Name, NetworkId, RESERVED_OF_NETWORKS};
use crate::project::{Addressing, Boot, Dhcp, Network, Pool, Reach, Subnet};

/// The least that IPv6 works with (RFC 8200).
const MTU6_MIN: u16 = 1280;

/// The networks of a file, with `default` if something is on it.
pub(super) fn check(spec: &Spec, problems: &mut Vec<Problem>) -> BTreeMap<Name, Network> {
    let mut networks = BTreeMap::new();
    for network in spec.networks.iter().filter(|network| network.external.is_none()) {
        networks.insert(network.name.value.clone(), one(network, problems));
    }
    let nics = spec.machines.iter().flat_map(|machine| &machine.nics).map(|nic| &nic.network.value);
    let joined = spec.networks.iter().flat_map(|network| &network.joins).map(|at| &at.value);
    let is_external = external(spec).any(|(at, _)| at.value.as_str() == DEFAULT_NETWORK);
    if nics.chain(joined).any(|name| name.as_str() == DEFAULT_NETWORK)
        && !is_external
        && let Some(implicit) = &spec.implicit
    {
        networks.entry(implicit.name.value.clone()).or_insert_with(|| one(implicit, problems));
    }
    joins(spec, &mut networks, problems);
    overlaps(spec, |network| &network.subnet, |a: &Ipv4Net, b| a.contains(b) || b.contains(a), problems);
    overlaps(spec, |network| &network.subnet6, |a: &Ipv6Net, b| a == b, problems);
    networks
}

/// The networks of other projects, by the names that they have here.
pub(super) fn external(spec: &Spec) -> impl Iterator<Item = (&At<Name>, &NetworkId)> {
    spec.networks.iter().filter_map(|network| Some((&network.name, network.external.as_ref()?)))
}

/// The same, for the project of this name; none of these is its own, none is there twice, and each can be one.
pub(super) fn check_external(
    spec: &Spec,
    project: &Name,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Name, NetworkId> {
    let mut networks: BTreeMap<Name, NetworkId> = BTreeMap::new();
    for (at, id) in external(spec) {
        let same = networks.iter().find(|(_, other)| *other == id);
        if id.project == *project {
            let message = format!("network `{id}` is this project's own");
            problems.push(at.place.problem(message).hint("leave `external` and `name` out"));
        } else if RESERVED_OF_NETWORKS.contains(&id.name.as_str()) {
            let message = format!("no network is called `{}`", id.name);
            problems.push(at.place.problem(message).hint(
                "name one that `stead network ls` shows; what other tools call so is none of their networks, but a mode",
            ));
        } else if let Some((other, _)) = same {
            let message = format!("`{other}` and `{}` are both network `{id}`", at.value);
            problems.push(at.place.problem(message).hint("leave one of them out"));
        }
        networks.insert(at.value.clone(), id.clone());
    }
    networks
}

fn one(spec: &NetworkSpec, problems: &mut Vec<Problem>) -> Network {
    let name = spec.name.value.as_str();
    if RESERVED_OF_NETWORKS.contains(&name) {
        let problem = spec.name.place.problem(format!("a network cannot be called `{name}`"));
        problems.push(
            problem.hint(format!("take another name, like `my-{name}`: this word says something else")),
        );
    }
    // Serving addresses on a real network is never what someone wants without saying so.
    let bridged = matches!(spec.reach.value(), Some(Reach::Bridged(_)));
    let mode = spec.addressing.value().unwrap_or(if bridged { Mode::None } else { Mode::Managed });
    if mode != Mode::Managed && !matches!(spec.addressing, Given::Wrong) {
        for (key, place) in [("dhcp", &spec.dhcp), ("boot", &spec.boot)] {
            if let Some(place) = place {
                let message = format!("`{key}` needs addressing `managed`: otherwise nobody here answers");
                problems.push(
                    place.problem(message).hint(format!("leave out `{key}`, or write `addressing: managed`")),
                );
            }
        }
    }
    if mode == Mode::None {
        return unaddressed(spec, problems);
    }
    let subnet = spec.subnet.value().unwrap_or(Subnet::Auto);
    let subnet6 = spec.subnet6.value().unwrap_or(Subnet::Auto);
    if let (Some(_), Some(at)) = (both_off(spec), spec.subnet6.is()) {
        problems.push(
            at.place.problem("the network carries neither IPv4 nor IPv6").hint(
                "leave one of them on, or write `addressing: none` for a wire without addresses of ours",
            ),
        );
    }
    let mtu = spec.mtu.value().unwrap_or(MTU_DEFAULT);
    if let (Some(at), true) = (spec.mtu.is(), mtu < MTU6_MIN && subnet6 != Subnet::Off) {
        problems.push(
            at.place
                .problem(format!("IPv6 needs an mtu of at least {MTU6_MIN}, this is `{mtu}`"))
                .hint("write a larger one, or `subnet6: off`"),
        );
    }
    pool(spec, subnet, problems);
    let dhcp = Dhcp {
        pool: spec.pool.value().unwrap_or(Pool::Auto),
        lease_s: spec.lease_s.value().unwrap_or(LEASE_DEFAULT_S),
        slaac: spec.slaac.value().unwrap_or(false),
    };
    let boot = spec.boot_file.value().map(|file| Boot { file, server: spec.boot_server.value() });
    Network {
        addressing: if mode == Mode::Managed { Addressing::Managed(dhcp) } else { Addressing::Static },
        reach: spec.reach.value().unwrap_or(Reach::Nat),
        subnet,
        subnet6,
        mtu,
        joins: BTreeSet::new(),
        boot,
    }
}

fn both_off(spec: &NetworkSpec) -> Option<()> {
    let off =
        matches!(spec.subnet.value(), Some(Subnet::Off)) && matches!(spec.subnet6.value(), Some(Subnet::Off));
    off.then_some(())
}

/// A network that we are not on.
fn unaddressed(spec: &NetworkSpec, problems: &mut Vec<Problem>) -> Network {
    let hint = "leave it out, or let `addressing` be `managed` or `static`";
    let mut no_subnet = |key: &str, place: &super::super::spec::Place| {
        let message = format!("a network with addressing `none` has no `{key}`: we are not on its wire");
        problems.push(place.problem(message).hint(hint));
    };
    match spec.subnet.is() {
        Some(At { value: Subnet::Auto | Subnet::Given(_), place }) => no_subnet("subnet", place),
        Some(At { value: Subnet::Off, .. }) | None => {}
    }
    match spec.subnet6.is() {
        Some(At { value: Subnet::Auto | Subnet::Given(_), place }) => no_subnet("subnet6", place),
        Some(At { value: Subnet::Off, .. }) | None => {}
    }
    if let Some(At { value: Reach::Nat, place }) = spec.reach.is() {
        problems.push(
            place
                .problem("reach `nat` cannot go with addressing `none`: nobody would route")
                .hint("write `reach: isolated`, or let a machine be the router"),
        );
    }
    Network {
        addressing: Addressing::None,
        reach: spec.reach.value().unwrap_or(Reach::Isolated),
        subnet: Subnet::Off,
        subnet6: Subnet::Off,
        mtu: spec.mtu.value().unwrap_or(MTU_DEFAULT),
        joins: BTreeSet::new(),
        boot: None,
    }
}

/// A pool given as a range lies among the addresses that machines can have.
fn pool(spec: &NetworkSpec, subnet: Subnet<Ipv4Net>, problems: &mut Vec<Problem>) {
    let Some(At { value: Pool::Range(first, last), place }) = spec.pool.is() else { return };
    match subnet {
        Subnet::Given(net) => {
            let lowest = nth4(net, 2).unwrap_or(net.network());
            let highest = Ipv4Addr::from(u32::from(net.broadcast()).saturating_sub(1));
            if *first < lowest || *last > highest {
                let message =
                    format!("the pool `{first}-{last}` is not among the machines' addresses of `{net}`");
                problems.push(place.problem(message).hint(format!("they are `{lowest}` to `{highest}`")));
            }
        }
        Subnet::Off => {
            let message = "a pool needs a subnet, and this network has `subnet: off`";
            problems.push(place.problem(message).hint("leave one of them out"));
        }
        Subnet::Auto if matches!(spec.subnet, Given::Wrong) => {}
        Subnet::Auto => problems.push(
            place
                .problem("a pool of fixed addresses needs a fixed subnet")
                .hint("write the network's `subnet`, or `pool: auto`"),
        ),
    }
}

/// Joins go to other networks that route, and hold both ways.
fn joins(spec: &Spec, networks: &mut BTreeMap<Name, Network>, problems: &mut Vec<Problem>) {
    for network in spec.networks.iter().filter(|network| network.external.is_none()) {
        let own = &network.name.value;
        let mut wanted = BTreeSet::new();
        once(&network.joins, &mut wanted, "network", problems);
        for at in &network.joins {
            let other = &at.value;
            if own == other {
                problems.push(at.place.problem("a network cannot join itself").hint("leave it out"));
                continue;
            }
            if external(spec).any(|(at, _)| at.value == *other) {
                let message = format!("`{own}` cannot join `{other}`, which is another project's");
                problems.push(at.place.problem(message).hint("put a machine on both networks as a router"));
                continue;
            }
            if !networks.contains_key(other) {
                problems.push(unknown(at, "network", networks.keys()));
                continue;
            }
            if let Some((name, why)) = [own, other].into_iter().find_map(|name| unroutable(name, networks)) {
                let message =
                    format!("`{own}` cannot join `{other}`: `{name}` {why}, so we do not route there");
                problems.push(at.place.problem(message).hint("put a machine on both networks as a router"));
                continue;
            }
            for (from, to) in [(own, other), (other, own)] {
                if let Some(network) = networks.get_mut(from) {
                    network.joins.insert(to.clone());
                }
            }
        }
    }
}

fn unroutable<'n>(name: &'n Name, networks: &BTreeMap<Name, Network>) -> Option<(&'n Name, &'static str)> {
    let network = networks.get(name)?;
    match (&network.addressing, &network.reach) {
        (_, Reach::Bridged(_)) => Some((name, "is bridged")),
        (Addressing::None, Reach::Nat | Reach::Isolated) => Some((name, "has addressing `none`")),
        (Addressing::Managed(_) | Addressing::Static, Reach::Nat | Reach::Isolated) => None,
    }
}

fn overlaps<T: Display + Copy>(
    spec: &Spec,
    subnet: impl Fn(&NetworkSpec) -> &Given<Subnet<T>>,
    overlap: impl Fn(&T, &T) -> bool,
    problems: &mut Vec<Problem>,
) {
    let mut earlier: Vec<(&Name, T)> = Vec::new();
    for network in &spec.networks {
        let Given::Is(At { value: Subnet::Given(net), place }) = subnet(network) else { continue };
        if let Some((name, other)) = earlier.iter().find(|(_, other)| overlap(other, net)) {
            let message = format!("`{net}` overlaps `{other}` of network `{name}`");
            problems.push(place.problem(message).hint("give each network its own, or write `auto`"));
        }
        earlier.push((&network.name.value, *net));
    }
}
