//! What exists: links by their marks, rules by their sets, what is served by its file and the switchboard's
//! word, leases and machines by the records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;

use stead_model::address::Mac;
use stead_model::name::{LinkName, MachineId, Name, NetworkId, NicId, VolumeId};
use stead_model::observed::{
    Body, Engine, GuardState, HostFacts, HostLink, Lease, MachineState, NetworkState, NicState, Observed,
    Service, Switchboard, Uplink,
};
use stead_model::project::{Kind, Reach, Volume};
use stead_model::served::Served;
use stead_net::anchor::Label;
use stead_net::kernel::nft::{Elements, Family, Value};
use stead_net::kernel::{Address, Hop, Link, LinkKind, Route, RouteSocket, rules};
use stead_net::uplink;

use super::inside::Inside;
use super::mark::{Mark, NicMark};
use super::snapshot::Histories;
use super::{LinuxHost, bridged, claims, engine, facts, sharing};
use crate::home::Home;
use crate::machine::Files;
use crate::many;
use crate::state::Records;
use crate::switchboard::{self, Report, Request, load_served, mark};

/// Reads everything.
pub(super) fn observe(host: &mut LinuxHost) -> Result<Observed> {
    let home_id = host.home_id()?;
    let records = host.records()?;
    host.inside = if host.home.run.exists() { Inside::connect(&host.home.run)? } else { None };
    let home = host.home.clone();
    let held = match &mut host.inside {
        Some(inside) => inside.anchor.held()?,
        None => Vec::new(),
    };
    let own = match &host.inside {
        Some(_) => BTreeSet::new(),
        // An anchor that cannot be asked, as its socket is lost, is still ours.
        None => claims::sockets_of(&engine::anchors(&home)?),
    };
    std::thread::scope(|scope| {
        // The computer's own namespace has nothing to do with the engine's.
        let facts = scope.spawn(|| facts::observe(&home_id, &held, &own));
        let seen = observe_own(host, &home_id, records);
        let facts = facts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        seen.map(|seen| with_facts(seen, facts))
    })
}

/// Adds what the computer is like to what of it is in the engine.
fn with_facts(mut seen: Observed, mut facts: HostFacts) -> Observed {
    facts.links.append(&mut seen.host.links);
    for (link, mtu) in std::mem::take(&mut seen.host.mtus) {
        let carried = facts.mtus.entry(link).or_insert(mtu);
        *carried = mtu.min(*carried);
    }
    Observed { host: facts, ..seen }
}

/// All that is ours.
fn observe_own(host: &mut LinuxHost, home_id: &str, records: Records) -> Result<Observed> {
    let home = host.home.clone();
    let mut seen = Observed::nothing(HostFacts::default());
    seen.projects = records.projects;
    seen.leases = records.leases;
    seen.port_leases = records.port_leases;
    seen.volumes = volumes(&home);
    seen.machines = records.machines;
    forget_halves(&home, &mut seen.machines);
    seen.running = super::machine::observe(&home)?;
    let Histories { snapshots, provisioned, damaged } = super::snapshot::observe(&home, seen.machines.keys());
    (seen.snapshots, seen.provisioned, seen.damaged) = (snapshots, provisioned, damaged);
    let Some(inside) = &mut host.inside else {
        let leftovers =
            has_leftovers(&home, home_id)? || seen.machines.values().any(MachineState::goes_with_engine);
        seen.engine = if leftovers { Engine::Partial } else { Engine::Absent };
        seen.machines.retain(|_, machine| !machine.goes_with_engine());
        return Ok(seen);
    };
    let routed = inside.nft.elements(&rules::engine_table())?;
    let guarded = inside.nft.elements(&rules::guard_table())?;
    let (Some(routed), Some(guarded)) = (routed, guarded) else {
        seen.engine = Engine::Partial;
        seen.machines.retain(|_, machine| !machine.goes_with_engine());
        return Ok(seen);
    };
    seen.engine = Engine::Present;
    let namespaces = inside.anchor.list()?;
    seen.machines = machines(seen.machines, &namespaces);
    sharing::connect(&home, inside, (&namespaces, &seen.machines), &mut seen.running)?;
    let served = load_served(&home);
    let report =
        switchboard::ask(&home, Request::Status).ok().flatten().filter(|report| serves_file(&home, report));
    let is_whole = report.is_some() && switchboard::is_watched(&home)?;
    seen.switchboard = if is_whole { Switchboard::Running } else { Switchboard::Absent };
    let links = inside.route.own_links()?;
    let addresses = inside.route.addresses()?;
    let sets = Sets { routed, guarded };
    seen.host.links.extend(lent(&links).map(|real| (real, HostLink::Idle)));
    seen.host.mtus.extend(nics_here(&links));
    seen.networks = networks(&links, &addresses, &sets, &served);
    seen.nics = nics(&links, &sets, &served, &seen.networks);
    (seen.uplink, seen.uplink_is_broken) = observe_uplink(&home, home_id, inside)?;
    let resting = switchboard::resting(&served);
    seen.ports = served.ports;
    seen.ports.retain(|bind, _| !resting.contains(bind));
    if let Some(report) = report {
        seen.ports.retain(|bind, _| report.ports.get(bind).is_some_and(|port| port.error.is_none()));
        seen.networks.retain(|id, network| {
            // What cannot be served is not as wanted: planning for it again says why.
            if report.failed_networks.contains_key(id) {
                network.service = None;
            }
            true
        });
    }
    host.bridges = seen.networks.iter().map(|(id, network)| (id.clone(), network.link.clone())).collect();
    Ok(seen)
}

/// Forgets those that a command took away until it was killed: what they wrote is out of sight already.
fn forget_halves(home: &Home, machines: &mut BTreeMap<MachineId, MachineState>) {
    let ours = machines.iter().filter(|(_, state)| state.is_ours()).map(|(id, _)| id.clone());
    let ours: Vec<MachineId> = ours.collect();
    let whole = many::each(&ours, |id| Files::new(home, id).are_whole());
    for (id, _) in ours.iter().zip(whole).filter(|(_, is_whole)| !is_whole) {
        machines.remove(id);
    }
}

/// The machines of the records that exist, and those that exist without a record: it was lost, or the command
/// that was to write it was killed.
fn machines(
    recorded: BTreeMap<MachineId, MachineState>,
    namespaces: &[Label],
) -> BTreeMap<MachineId, MachineState> {
    let held: BTreeSet<MachineId> =
        namespaces.iter().filter_map(|label| label.as_str().parse().ok()).collect();
    let mut machines = recorded;
    machines
        .retain(|id, state| !state.goes_with_engine() || state.kind != Kind::Container || held.contains(id));
    for id in held {
        machines.entry(id).or_insert(MachineState { kind: Kind::Container, body: Body::External });
    }
    machines
}

/// The nics of this computer that were moved to the engine, and not yet put on their network's bridge.
fn lent(links: &[Link]) -> impl Iterator<Item = LinkName> {
    links.iter().filter(|link| link.bridge.is_none()).filter_map(|link| match Mark::parse(&link.alias)? {
        Mark::Bridged(_, real, _) if real == link.name => Some(real),
        Mark::Bridged(..) | Mark::Network(_) | Mark::Nic(_) | Mark::Uplink(_) => None,
    })
}

/// What the nics of this computer carry that are in the engine. A joint with a bridge becomes what that carries.
fn nics_here(links: &[Link]) -> impl Iterator<Item = (LinkName, u32)> {
    links.iter().filter_map(|link| match Mark::parse(&link.alias)? {
        Mark::Bridged(_, real, _) if real == link.name => Some((real, link.mtu)),
        Mark::Bridged(..) | Mark::Network(_) | Mark::Nic(_) | Mark::Uplink(_) => None,
    })
}

fn serves_file(home: &Home, report: &Report) -> bool {
    let text = std::fs::read(home.served()).unwrap_or_default();
    report.serves == mark(&text) && report.version == switchboard::VERSION
}

/// Whether anything is left of an engine whose anchor is dead.
pub(super) fn has_leftovers(home: &Home, home_id: &str) -> Result<bool> {
    if !engine::anchors(home)?.is_empty()
        || !switchboard::processes(home)?.is_empty()
        || uplink::observe(&home.run)?.is_some()
        || home.served().exists()
    {
        return Ok(true);
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let mark = Mark::Uplink(home_id.to_owned()).to_string();
    Ok(RouteSocket::open()?.own_links()?.iter().any(|link| link.alias == mark))
}

fn volumes(home: &Home) -> BTreeMap<VolumeId, Volume> {
    let directories = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Name>().ok()).collect::<Vec<_>>()
    };
    let projects = directories(&home.volumes());
    let volumes = projects.into_iter().flat_map(|project| {
        let names = directories(&home.volumes().join(project.as_str()));
        names.into_iter().map(move |name| VolumeId::new(&project, &name))
    });
    let limited = volumes.map(|id| {
        // One that cannot be opened, as the disk that a link leads to is away, hides none of the others.
        let limited = super::volume::limited(home, &id).unwrap_or_else(|error| {
            tracing::debug!("the limit of volume `{id}` is not known: {error:#}");
            None
        });
        (id, Volume { size_bytes: limited.map(|limited| limited.most_bytes) })
    });
    limited.collect()
}

/// The marks of this home on the host's ends of uplinks, by the record of the way out: for when the home's own
/// mark is not known.
pub(super) fn uplink_marks(home: &Home) -> Result<Vec<String>> {
    let text = std::fs::read(home.uplink()).unwrap_or_default();
    let Ok(Uplink::Veth(veth)) = serde_json::from_slice::<Uplink>(&text) else { return Ok(Vec::new()) };
    let links = RouteSocket::open()?.own_links()?.into_iter().filter(|link| link.name == veth.link);
    let marks = links.filter_map(|link| match Mark::parse(&link.alias)? {
        Mark::Uplink(id) => Some(id),
        Mark::Network(_) | Mark::Bridged(..) | Mark::Nic(_) => None,
    });
    Ok(marks.collect())
}

/// The way out, if what was made of it still stands, and whether something of it is missing. Others may have changed
/// it: with `disable_ipv6` for a moment all IPv6 addresses of a link are gone.
fn observe_uplink(home: &Home, home_id: &str, inside: &Inside) -> Result<(Option<Uplink>, bool)> {
    let text = std::fs::read(home.uplink()).unwrap_or_default();
    let Ok(uplink) = serde_json::from_slice::<Uplink>(&text) else { return Ok((None, false)) };
    let (stands, is_whole) = match &uplink {
        Uplink::Pasta => (uplink::observe(&home.run)?.is_some(), true),
        Uplink::Veth(veth) => {
            let outside = RouteSocket::open()?;
            let mark = Mark::Uplink(home_id.to_owned()).to_string();
            let links = outside.own_links()?;
            let link = links.iter().any(|link| link.name == veth.link && link.alias == mark && link.up);
            let addresses = outside.addresses()?;
            let has = |net: IpNet| addresses.iter().any(|a| a.link == veth.link && a.address == net);
            let has_all =
                has(IpNet::V4(veth.transfer)) && veth.transfer6.is_none_or(|net| has(IpNet::V6(net)));
            let has_rules = facts::has_host_chains(home_id)?;
            (link && has_rules.is_some(), has_all && has_rules == Some(true) && engine::forwards(&veth.link))
        }
    };
    // What pasta gave it depends on the computer.
    let had = std::fs::read(home.uplink_end()).unwrap_or_default();
    let had: BTreeSet<IpNet> = serde_json::from_slice(&had).unwrap_or_default();
    let is_whole = is_whole && FarEnd::observe(&inside.route)?.has.is_superset(&had);
    Ok((stands.then_some(uplink), stands && !is_whole))
}

/// The end of the way out that is in the engine's namespace.
pub(super) struct FarEnd {
    /// Its addresses, and where its default routes lead; nothing while it is down.
    pub(super) has: BTreeSet<IpNet>,
}

impl FarEnd {
    pub(super) fn observe(route: &RouteSocket) -> Result<Self> {
        let is_it = |link: &LinkName| link.as_str() == uplink::LINK;
        if !route.links()?.iter().any(|link| is_it(&link.name) && link.up) {
            return Ok(Self { has: BTreeSet::new() });
        }
        let leads = |route: &Route| match &route.by {
            Hop::Via(_, link) | Hop::Link(link) => route.to.prefix_len() == 0 && is_it(link),
            Hop::NoLink | Hop::Local => false,
        };
        let addresses = route.addresses()?.into_iter().filter(|address| is_it(&address.link));
        let own = addresses.map(|address| address.address).filter(|net| !facts::is_link_local(*net));
        let routes = route.routes(None)?.into_iter().filter(leads).map(|route| route.to);
        Ok(Self { has: own.chain(routes).collect() })
    }
}

/// The elements of our sets.
struct Sets {
    routed: Vec<Elements>,
    guarded: Vec<Elements>,
}

impl Sets {
    fn of(&self, family: Family, set: &str) -> impl Iterator<Item = &[Value]> {
        let all = match family {
            Family::Inet => &self.routed,
            Family::Bridge => &self.guarded,
        };
        let found = all.iter().filter(move |elements| elements.set == set);
        found.flat_map(|elements| elements.elements.iter().map(Vec::as_slice))
    }

    fn has(&self, family: Family, set: &str, link: &LinkName) -> bool {
        self.of(family, set).any(|element| matches!(element, [Value::Name(name)] if name == link))
    }
}

fn networks(
    links: &[Link],
    addresses: &[Address],
    sets: &Sets,
    served: &Served,
) -> BTreeMap<NetworkId, NetworkState> {
    let marked = || links.iter().filter_map(|link| Some((link, Mark::parse(&link.alias)?)));
    let bridges: Vec<(&Link, NetworkId)> = marked()
        .filter_map(|(link, mark)| if let Mark::Network(id) = mark { Some((link, id)) } else { None })
        .collect();
    let bridged = |id: &NetworkId, bridge: &LinkName| {
        marked().find_map(|(link, mark)| match mark {
            Mark::Bridged(of, real, _) if of == *id && bridged::is_port(link, &real, bridge) => Some(real),
            _ => None,
        })
    };
    let whole = bridges.iter().filter(|(link, _)| link.up && link.kind == LinkKind::Bridge);
    let states = whole.filter_map(|(link, id)| {
        let ours = addresses.iter().filter(|a| a.link == link.name).map(|a| a.address);
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = ours.partition(|net| net.addr().is_ipv4());
        let joins = sets.of(Family::Inet, "joins").filter_map(|element| match element {
            [Value::Name(from), Value::Name(to)] if *from == link.name && to != from => {
                bridges.iter().find(|(other, _)| other.name == *to).map(|(_, other)| other.name.clone())
            }
            _ => None,
        });
        let reach = match bridged(id, &link.name) {
            Some(real) => Reach::Bridged(real),
            None if sets.has(Family::Inet, "nat", &link.name) => Reach::Nat,
            None => Reach::Isolated,
        };
        let state = NetworkState {
            link: link.name.clone(),
            mac: link.mac?,
            mtu: u16::try_from(link.mtu).ok()?,
            gateway: v4.into_iter().find_map(|net| if let IpNet::V4(net) = net { Some(net) } else { None }),
            gateway6: v6.into_iter().find_map(|net| match net {
                IpNet::V6(net) if !net.addr().is_unicast_link_local() => Some(net),
                IpNet::V4(_) | IpNet::V6(_) => None,
            }),
            reach,
            joins: joins.collect(),
            service: None,
        };
        Some((id.clone(), with_service(state, id, served, sets)))
    });
    states.collect()
}

/// The network with what is served on it, if that is served as the network is.
fn with_service(state: NetworkState, id: &NetworkId, served: &Served, sets: &Sets) -> NetworkState {
    let Some(network) = served.networks.get(id) else { return state };
    let service = Service { domain: network.domain.clone(), dhcp: network.dhcp.clone() };
    let full = NetworkState { service: Some(service), ..state.clone() };
    let expected = super::served::network(id, &full, network.hosts.clone());
    let is_so = expected.as_ref() == Some(network) && sets.has(Family::Inet, "served", &state.link);
    if is_so { full } else { state }
}

fn nics(
    links: &[Link],
    sets: &Sets,
    served: &Served,
    networks: &BTreeMap<NetworkId, NetworkState>,
) -> BTreeMap<NicId, NicState> {
    let marked = links.iter().filter_map(|link| match Mark::parse(&link.alias)? {
        Mark::Nic(nic) => Some((link, nic)),
        Mark::Network(_) | Mark::Bridged(..) | Mark::Uplink(_) => None,
    });
    let states = marked.filter_map(|(link, nic)| {
        let NicMark { id, lease, end } = nic;
        let network = networks.get(&id.network());
        let is_on_network =
            link.up && link.bridge.is_some() && link.bridge.as_ref() == network.map(|network| &network.link);
        let host = served.networks.get(&id.network()).and_then(|network| network.hosts.get(&lease.mac));
        let right = host.filter(|host| {
            host.machine(&id.network()) == id.machine()
                && host.address == lease.address
                && host.address6 == lease.address6
        });
        let names = match right {
            Some(host) => host.aliases.iter().cloned().chain([host.name.clone().into()]).collect(),
            // Where nothing is served a nic's names are nobody's business.
            None if network.is_some_and(has_no_services) => [id.machine.clone().into()].into(),
            None => BTreeSet::new(),
        };
        let calls = right.is_some_and(|host| host.calls)
            && network.is_some_and(|network| may_call(&network.link, &lease, sets));
        let state = NicState {
            link: link.name.clone(),
            end,
            // What is not on its network was never finished, and no nic that is wanted is like this: it is taken
            // away before it is made anew.
            mtu: if is_on_network { u16::try_from(link.mtu).ok()? } else { 0 },
            guard: guard(&link.name, lease.mac, sets),
            lease,
            names,
            calls,
        };
        Some((id, state))
    });
    states.collect()
}

/// Whether a network is one on which nothing is ever served: we have no address there.
fn has_no_services(network: &NetworkState) -> bool {
    network.service.is_none() && network.gateway.is_none() && network.gateway6.is_none()
}

/// Whether the rules let the machine with this lease reach this computer.
fn may_call(bridge: &LinkName, lease: &Lease, sets: &Sets) -> bool {
    let among = |set, own: Value| {
        let mut elements = sets.of(Family::Inet, set);
        elements
            .any(|element| matches!(element, [Value::Name(name), value] if name == bridge && *value == own))
    };
    lease.addresses().into_iter().all(|address| match address {
        IpAddr::V4(address) => among("callers4", Value::V4(address)),
        IpAddr::V6(address) => among("callers6", Value::V6(address)),
    })
}

/// What the rules let a nic speak with.
fn guard(link: &LinkName, mac: Mac, sets: &Sets) -> GuardState {
    let of_link = |set: &'static str| {
        sets.of(Family::Bridge, set).filter_map(move |element| match element {
            [Value::Name(name), value] if name == link => Some(value),
            _ => None,
        })
    };
    if sets.has(Family::Bridge, "maconly", link) {
        return GuardState::Mac;
    }
    if !sets.has(Family::Bridge, "guarded", link) {
        return GuardState::Off;
    }
    let own = rules::link_local(mac);
    let addresses = of_link("addr4").chain(of_link("addr6")).filter_map(|value| match value {
        Value::V4(address) => Some(IpAddr::V4(*address)),
        Value::V6(address) if *address != own => Some(IpAddr::V6(*address)),
        _ => None,
    });
    GuardState::Addresses(addresses.collect())
}
