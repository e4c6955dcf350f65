//! Nics: veth pairs and TAPs on the bridges, what they may speak with, and what they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::io::Errno;

use stead_model::name::{LinkName, NetworkId, NicId};
use stead_model::observed::{GuardState, NicEnd, NicState};
use stead_model::served::ServedNetwork;
use stead_model::step::{Change, Step};
use stead_net::kernel::nft::{Family, NftRequest};
use stead_net::kernel::rules::{self, NicGuard, NicRules};
use stead_net::kernel::tap::{self, TapOwner};
use stead_net::kernel::{Hop, LinkChange, MAIN_TABLE, NewLink, Peer, PortFlags, Route, RouteRequest, Veth};

use super::inside::{Inside, label};
use super::leaving::Leaving;
use super::mark::{Mark, NicMark};
use super::network::{added, removed, stale_elements, tolerate};
use super::{LinuxHost, hosts, resolver, served, way_out};
use crate::switchboard::load_served;

/// Makes nics what they are to be.
pub(super) fn set(host: &mut LinuxHost, steps: &[&Step]) -> Vec<Result<()>> {
    let wanted: Vec<(&NicId, Option<&NicState>, &NicState)> = steps
        .iter()
        .filter_map(|step| match step {
            Step::NicAdd(id, to) => Some((id, None, to)),
            Step::NicChange(id, Change { from, to }) => Some((id, Some(from), to)),
            _ => None,
        })
        .collect();
    super::together(steps, set_all(host, &wanted))
}

fn set_all(host: &mut LinuxHost, wanted: &[(&NicId, Option<&NicState>, &NicState)]) -> Result<()> {
    let bridges: Vec<LinkName> = wanted
        .iter()
        .map(|(id, ..)| {
            host.bridges
                .get(&id.network())
                .cloned()
                .with_context(|| format!("network `{}` is gone", id.network()))
        })
        .collect::<Result<_>>()?;
    let inside = host.inside()?;
    // The rules come first: a nic never speaks unguarded.
    let pairs = wanted.iter().zip(&bridges);
    let new = pairs.filter(|((_, from, _), _)| from.is_none()).map(|((_, _, to), bridge)| (*to, bridge));
    let links: Vec<&LinkName> = new.clone().map(|(to, _)| &to.link).collect();
    let callers: Vec<(LinkName, IpAddr)> = new.flat_map(|(to, bridge)| callers(to, bridge)).collect();
    let mut requests = stale_elements(inside, &links, &callers)?;
    for ((_, from, to), bridge) in wanted.iter().zip(&bridges) {
        requests.extend(from.iter().flat_map(|from| removed(rules::nic_elements(&element(from, bridge)))));
        requests.extend(added(rules::nic_elements(&element(to, bridge))));
    }
    if wanted.iter().any(|(_, _, to)| to.calls) {
        requests.push(NftRequest::SetChains(Family::Inet, rules::TABLE, rules::call_chains()));
    }
    inside.nft.run(&requests).context("cannot write the nics' rules")?;
    let new: Vec<(&NicId, &NicState, &LinkName)> = wanted
        .iter()
        .zip(&bridges)
        .filter(|((_, from, _), _)| from.is_none())
        .map(|((id, _, to), bridge)| (*id, *to, bridge))
        .collect();
    make_links(host, &new)?;
    let join = |networks: &mut BTreeMap<NetworkId, ServedNetwork>| {
        for (id, _, to) in wanted {
            if let Some(network) = networks.get_mut(&id.network()) {
                network.hosts.retain(|_, other| other.machine(&id.network()) != id.machine());
                network.hosts.insert(to.lease.mac, served::host(id, to));
            }
        }
    };
    let mut networks = load_served(&host.home).networks;
    join(&mut networks);
    resolver::catch_up(host, &networks, new.iter().map(|(id, ..)| *id))?;
    // What is served comes last: a nic of which that is missing is seen to be unfinished.
    served::edit(host, |served| join(&mut served.networks))?;
    let callers = wanted.iter().filter(|(_, _, to)| to.calls).map(|(id, ..)| id.machine());
    hosts::know_gateways(host, callers.collect())
}

/// Makes the links of nics, many at once. Each is put on its bridge last, when all else of it is there: it is
/// observed by that.
fn make_links(host: &mut LinuxHost, new: &[(&NicId, &NicState, &LinkName)]) -> Result<()> {
    let networks = load_served(&host.home).networks;
    let inside = host.inside()?;
    let kept = remove_unfinished(inside, new)?;
    make_veths(inside, new)?;
    let routers = networks.values().map(|network| rules::link_local(network.mac)).collect();
    for (id, state, _) in new {
        settle(inside, (id, state), networks.get(&id.network()), &routers)?;
    }
    let taps = make_taps(inside, new, &kept)?;
    let attach = new.iter().map(|(id, state, bridge)| {
        let change = LinkChange {
            up: Some(true),
            mtu: Some(u32::from(state.mtu)),
            alias: Some(alias(id, state)),
            bridge: Some(Some((*bridge).clone())),
            // Behind a port without a guard may be a switch that leaves it to ours to carry frames among its own
            // machines (VEPA). Where one MAC is behind it there is nobody to send back to, and what a machine says to
            // all does not come back to it (`rules`, chain `echo`). Published ports have nothing to do with it.
            port: PortFlags { hairpin: Some(true), ..PortFlags::default() },
            link_local: Some(false),
            ..LinkChange::default()
        };
        RouteRequest::ChangeLink(state.link.clone(), change)
    });
    inside.route.run(&attach.collect::<Vec<_>>()).context("cannot put the nics on their networks")?;
    taps.iter().try_for_each(tap::keep)
}

fn alias(id: &NicId, state: &NicState) -> String {
    let mark = NicMark { id: id.clone(), lease: state.lease.clone(), end: state.end.clone() };
    Mark::Nic(mark).to_string()
}

/// Takes away what a command that was killed had made of these nics. A TAP that is as it is to be is kept, and
/// returned: a VMM may hold it.
fn remove_unfinished(inside: &Inside, new: &[(&NicId, &NicState, &LinkName)]) -> Result<Vec<LinkName>> {
    let (mut kept, mut stale) = (Vec::new(), Vec::new());
    for link in inside.route.own_links()? {
        let Some(Mark::Nic(mark)) = Mark::parse(&link.alias) else { continue };
        let wanted = new.iter().find(|(id, state, _)| mark.id == **id || link.name == state.link);
        let Some((id, state, _)) = wanted else { continue };
        let is_as_wanted = link.name == state.link && link.alias == alias(id, state);
        if is_as_wanted && matches!(state.end, NicEnd::Tap(_)) {
            kept.push(link.name);
        } else {
            stale.push(link.name);
        }
    }
    inside.route.delete_links(&stale).context("cannot take away what was half made")?;
    Ok(kept)
}

/// The veth pairs, whose far ends are in the containers.
fn make_veths(inside: &mut Inside, new: &[(&NicId, &NicState, &LinkName)]) -> Result<()> {
    let mut ends: Vec<(&NicId, &NicState, &LinkName, OwnedFd)> = Vec::new();
    for (id, state, _) in new {
        if let Some(name) = state.end.inner() {
            let label = label(&id.machine().to_string())?;
            if matches!(state.end, NicEnd::Set(_)) {
                // A machine of ours exists without the engine: its first nic makes its namespace.
                inside.anchor.ensure(&label)?;
            }
            let namespace = inside.anchor.namespace(&label)?;
            ends.push((*id, *state, name, namespace));
        }
    }
    let requests = ends.iter().map(|(id, state, name, namespace)| {
        let mtu = Some(u32::from(state.mtu));
        let link = NewLink { name: state.link.clone(), alias: alias(id, state), mac: None, mtu, group: 0 };
        let (netns, mac) = (Some(namespace.as_fd()), Some(state.lease.mac));
        let peer = Peer { netns, name: (*name).clone(), mac, mtu, group: 0 };
        RouteRequest::AddVeth(Veth { link, port: None, peer })
    });
    inside.route.run(&requests.collect::<Vec<_>>()).context("cannot make the nics")
}

/// The TAPs, which go with their descriptors until they are told to stay.
fn make_taps(
    inside: &mut Inside,
    new: &[(&NicId, &NicState, &LinkName)],
    kept: &[LinkName],
) -> Result<Vec<OwnedFd>> {
    let mut taps = Vec::new();
    for (_, state, _) in new.iter().filter(|(_, state, _)| !kept.contains(&state.link)) {
        if let NicEnd::Tap(user) = &state.end {
            let tun = inside.anchor.tun(None)?;
            let owner = TapOwner { user: Some(*user), group: None };
            tap::make(&tun, &state.link, owner).with_context(|| format!("cannot make TAP {}", state.link))?;
            taps.push(tun);
        }
    }
    Ok(taps)
}

/// Brings a container's end up, and sets its addresses where nobody else does: with addressing `static`.
fn settle(
    inside: &mut Inside,
    (id, state): (&NicId, &NicState),
    network: Option<&ServedNetwork>,
    ours: &BTreeSet<Ipv6Addr>,
) -> Result<()> {
    let Some(name) = state.end.inner() else { return Ok(()) };
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let mut requests = vec![RouteRequest::ChangeLink(name.clone(), up)];
    if let Some(network) = network.filter(|network| is_ours_to_set(&state.end, network)) {
        requests.extend(static_addresses(name, state, network));
    }
    let route = inside.route_of(&id.machine())?;
    if requests.iter().any(|request| way_out(request).is_some()) {
        let there = route.routes(Some(MAIN_TABLE))?;
        requests.retain(|request| {
            way_out(request)
                .is_none_or(|to| !there.iter().any(|route| route.to == to && leads_out(route, ours)))
        });
    }
    tolerate(route.send(&requests)?, Errno::EXIST).with_context(|| format!("cannot set up {id}"))
}

/// Where to, if this sets a default route.
fn way_out(request: &RouteRequest<'_>) -> Option<IpNet> {
    match request {
        RouteRequest::AddRoute(route) if route.to.prefix_len() == 0 => Some(route.to),
        _ => None,
    }
}

/// Whether what is open may go by this default route, so that a nic that comes does not take it over, whatever the metric is:
/// we or programs inside have set it, or the kernel has heard of a router. The routers of our networks, which it has heard of
/// beside what we set, are none.
fn leads_out(route: &Route, ours: &BTreeSet<Ipv6Addr>) -> bool {
    match &route.by {
        Hop::Via(IpAddr::V6(router), _) => !ours.contains(router),
        Hop::Via(IpAddr::V4(_), _) | Hop::Link(_) => true,
        Hop::Local | Hop::NoLink => false,
    }
}

/// Whether we set the addresses of a nic's inner end.
pub(super) fn is_ours_to_set(end: &NicEnd, network: &ServedNetwork) -> bool {
    matches!(end, NicEnd::Set(_)) || network.dhcp.is_none()
}

fn static_addresses<'fd>(
    name: &LinkName,
    state: &NicState,
    network: &ServedNetwork,
) -> Vec<RouteRequest<'fd>> {
    let (gateway, gateway6) = (network.gateway, network.gateway6);
    let v4 = state.lease.address.zip(gateway).and_then(|(a, net)| Ipv4Net::new(a, net.prefix_len()).ok());
    let v6 = state.lease.address6.zip(gateway6).and_then(|(a, net)| Ipv6Net::new(a, net.prefix_len()).ok());
    let addresses = v4.map(IpNet::V4).into_iter().chain(v6.map(IpNet::V6));
    let addresses = addresses.map(|address| RouteRequest::AddAddress(name.clone(), address));
    addresses.chain(ways_out(name, network).map(RouteRequest::AddRoute)).collect()
}

/// The default routes that a machine has by a nic where we set its addresses.
pub(super) fn ways_out(name: &LinkName, network: &ServedNetwork) -> impl Iterator<Item = Route> {
    let routers = network.gateway.map(IpNet::V4).into_iter().chain(network.gateway6.map(IpNet::V6));
    routers.filter(|_| network.routes).map(|via| default_route(via, name))
}

/// The way out by this router.
pub(super) fn default_route(router: IpNet, link: &LinkName) -> Route {
    let everywhere = match router {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    Route { to: everywhere, by: Hop::Via(router.addr(), link.clone()), table: MAIN_TABLE }
}

/// Takes nics off their networks. Whoever is in a hurry sees them off later.
pub(super) fn remove(host: &mut LinuxHost, steps: &[&Step]) -> Result<()> {
    let gone: Vec<(&NicId, &NicState, &[NicId])> = steps
        .iter()
        .filter_map(|step| match step {
            Step::NicRemove(id, state, others) => Some((id, state, others.as_slice())),
            _ => None,
        })
        .collect();
    let links: Vec<LinkName> = gone.iter().map(|(_, state, _)| state.link.clone()).collect();
    let rules_of = |(id, state, _): &(&NicId, &NicState, &[NicId])| {
        // Without its bridge there is nobody who calls from there.
        let bridge = host.bridges.get(&id.network()).unwrap_or(&state.link);
        removed(rules::nic_elements(&element(state, bridge)))
    };
    let rules: Vec<_> = gone.iter().flat_map(rules_of).collect();
    if gone.iter().any(|(.., others)| !others.is_empty()) {
        let networks = load_served(&host.home).networks;
        way_out::hand_on(host.inside()?, &gone, &networks)?;
        resolver::hand_on(host, &gone, &networks)?;
    }
    let is_fleeting = host.is_fleeting;
    let inside = host.inside()?;
    if is_fleeting {
        host.leaving = Some(Leaving::begin(inside.another_route()?, links, rules)?);
    } else {
        inside.route.delete_links(&links).context("cannot delete the nics")?;
        inside.nft.run(&rules).context("cannot take the nics' rules away")?;
    }
    served::forget(host, |served| {
        for (id, state, _) in &gone {
            let network: NetworkId = id.network();
            if let Some(network) = served.networks.get_mut(&network) {
                network.hosts.remove(&state.lease.mac);
            }
        }
    })
}

fn element(state: &NicState, bridge: &LinkName) -> NicRules {
    let mac = state.lease.mac;
    let guard = match &state.guard {
        GuardState::Off => NicGuard::Off,
        GuardState::Mac => NicGuard::MacOnly(mac),
        GuardState::Addresses(addresses) => {
            let v4 = addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
            let v6 = addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
            NicGuard::Addresses(mac, v4.collect(), v6.collect())
        }
    };
    let calls = if state.calls { callers(state, bridge) } else { Vec::new() };
    NicRules { port: state.link.clone(), guard, calls }
}

/// From where a machine calls this computer, if it may.
fn callers(state: &NicState, bridge: &LinkName) -> Vec<(LinkName, IpAddr)> {
    let own = match &state.guard {
        GuardState::Addresses(addresses) => addresses.iter().copied().collect(),
        GuardState::Mac | GuardState::Off => state.lease.addresses(),
    };
    own.into_iter().map(|address| (bridge.clone(), address)).collect()
}
