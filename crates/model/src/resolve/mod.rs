//! Every open choice of a project, made: subnets, addresses, MACs, link names, the uplink. The choices are
//! functions of what is wanted and what exists, so the plan can show them before anything is there.
//!
//! Where a choice was made before it stands: first what exists, then what `stead.lock` pins, then a new one.

mod addresses;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use self::addresses::{
    auto_subnets, free_address, free_address6, free_mac, is_usable, pool, transfer_subnet6, transfer_subnets,
    ula,
};
use crate::address::{Mac, link_name, nth4, nth6, overlap};
use crate::lock::Lock;
use crate::name::{LinkName, MachineId, NetworkId, NicId, VolumeId};
use crate::observed::{
    GuardState, HostLink, Lease, MachineState, NetworkState, NicEnd, NicState, Observed, Service, Taken,
    Uplink, VethUplink,
};
use crate::plan::{UnwantedVolumes, Wanted};
use crate::project::{Addressing, Bind, Kind, Network, Nic, Project, Reach, Subnet};
use crate::served::{ServedDhcp, Target};

/// Why a project cannot be had on this computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The key that asks for it, `networks.lan.subnet`.
    pub key: String,
    /// Why not.
    pub why: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

/// What a project is resolved with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where the project's file is.
    pub directory: &'a Path,
    /// What was pinned.
    pub lock: &'a Lock,
    /// What exists.
    pub seen: &'a Observed,
    /// Who will open the TAPs.
    pub user: u32,
}

/// The domain of a project's names is this, under the project's own.
pub const DOMAIN: &str = "stead";

/// A route this short leads out (a VPN's `0.0.0.0/1`), it does not say that the range is in use.
const SHORTEST_TAKEN_PREFIX: u8 = 8;

/// The whole of a project, every choice made; or every reason why it cannot be had.
pub fn resolve(project: &Project, context: Context<'_>) -> Result<Wanted, Vec<Refusal>> {
    let mut choice = Choice { project, context, refusals: Vec::new(), links: BTreeSet::new() };
    let networks = choice.networks();
    let nics = choice.nics(&networks);
    let uplink = choice.uplink(&networks);
    let ports = choice.ports(&nics);
    choice.check_directory();
    if !choice.refusals.is_empty() {
        return Err(choice.refusals);
    }
    let machine_id = |name| MachineId::new(&project.name, name);
    let machines = project.machines.iter().map(|(name, machine)| {
        let after = machine.depends_on.iter().map(machine_id).collect();
        (machine_id(name), (MachineState { kind: machine.kind, driver: machine.driver }, after))
    });
    Ok(Wanted {
        project: project.name.clone(),
        directory: Some(context.directory.to_owned()),
        uplink,
        networks,
        machines: machines.collect(),
        nics,
        ports,
        volumes: project.volumes.iter().map(|name| VolumeId::new(&project.name, name)).collect(),
        unwanted_volumes: UnwantedVolumes::Keep,
    })
}

/// The choices being made, and the reasons against them.
struct Choice<'a> {
    project: &'a Project,
    context: Context<'a>,
    refusals: Vec<Refusal>,
    links: BTreeSet<LinkName>,
}

impl Choice<'_> {
    fn refuse(&mut self, key: String, why: String, hint: &str) {
        self.refusals.push(Refusal { key, why, hint: hint.to_owned() });
    }

    /// Two directories cannot be the same project.
    fn check_directory(&mut self) {
        if let Some(other) = self.context.seen.projects.get(&self.project.name)
            && other != self.context.directory
        {
            let why = format!("project `{}` is already at {}", self.project.name, other.display());
            self.refuse("name".into(), why, "give one of them another `name`, or take the other down first");
        }
    }

    fn networks(&mut self) -> BTreeMap<NetworkId, NetworkState> {
        let mut chosen: BTreeMap<NetworkId, NetworkState> = BTreeMap::new();
        for (name, network) in &self.project.networks {
            let id = NetworkId::new(&self.project.name, name);
            let (subnet, subnet6) = match network.addressing {
                Addressing::None => (None, None),
                Addressing::Managed(_) | Addressing::Static => {
                    (self.subnet(&id, network, &chosen), self.subnet6(&id, network, &chosen))
                }
            };
            self.check_bridged(&id, network);
            let seen = self.context.seen.networks.get(&id);
            let link =
                seen.map_or_else(|| self.link('b', name.as_str(), &id.to_string()), |n| n.link.clone());
            let state = NetworkState {
                link,
                mac: Mac::derived(&[&self.context.seen.host.home, &id.to_string()]),
                mtu: network.mtu,
                gateway: subnet.and_then(|net| Ipv4Net::new(nth4(net, 1)?, net.prefix_len()).ok()),
                gateway6: subnet6.and_then(|net| Ipv6Net::new(nth6(net, 1)?, net.prefix_len()).ok()),
                reach: network.reach.clone(),
                joins: network.joins.clone(),
                service: service(self.project, network, subnet),
            };
            chosen.insert(id, state);
        }
        chosen
    }

    /// A link name that nothing of ours has.
    fn link(&mut self, kind: char, name: &str, id: &str) -> LinkName {
        let seen = self.context.seen;
        let is_taken = |link: &LinkName| {
            self.links.contains(link)
                || seen.networks.values().any(|network| network.link == *link)
                || seen.nics.values().any(|nic| nic.link == *link)
        };
        let link = link_name(kind, name, &[id], &is_taken);
        self.links.insert(link.clone());
        link
    }

    /// Who else has addresses of `net`, as a person would say it.
    fn user_of(
        &self,
        net: IpNet,
        id: &NetworkId,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) -> Option<String> {
        let nets = |n: &NetworkState| n.gateway.map(IpNet::V4).into_iter().chain(n.gateway6.map(IpNet::V6));
        let stands = self.context.seen.networks.iter().filter(|(other, _)| other.project != id.project);
        let ours = stands.chain(chosen).find(|(other, n)| *other != id && nets(n).any(|o| overlap(o, net)));
        let given = self.project.networks.iter().find(|(name, network)| {
            let v4 = matches!(network.subnet, Subnet::Given(other) if overlap(IpNet::V4(other), net));
            **name != id.name
                && (v4 || matches!(network.subnet6, Subnet::Given(o) if overlap(IpNet::V6(o), net)))
        });
        let taken = self
            .context
            .seen
            .host
            .taken
            .iter()
            .find(|(other, _)| other.prefix_len() >= SHORTEST_TAKEN_PREFIX && overlap(**other, net));
        ours.map(|(other, _)| format!("network `{other}`"))
            .or_else(|| given.map(|(name, _)| format!("network `{name}`")))
            .or_else(|| {
                taken.map(|(net, taken)| match taken {
                    Taken::Route(link) => format!("a route of this computer ({net} by `{link}`)"),
                    Taken::Home => format!("another home of stead on this computer ({net})"),
                })
            })
    }

    fn subnet(
        &mut self,
        id: &NetworkId,
        network: &Network,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) -> Option<Ipv4Net> {
        let stands = self.context.seen.networks.get(id).and_then(|n| n.gateway).map(|net| net.trunc());
        let locked = self.context.lock.networks.get(&id.name).and_then(|n| n.subnet);
        match network.subnet {
            Subnet::Off => None,
            Subnet::Given(net) => Some(self.checked(id, Origin::File, net, chosen)),
            Subnet::Auto => match stands.or(locked) {
                Some(net) => Some(self.checked(id, Origin::Lock, net, chosen)),
                None => {
                    let free =
                        auto_subnets(id).find(|net| self.user_of(IpNet::V4(*net), id, chosen).is_none());
                    if free.is_none() {
                        let key = format!("networks.{}.subnet", id.name);
                        self.refuse(
                            key,
                            "no subnet is free on this computer".into(),
                            "give one: `subnet: 10.1.2.0/24`",
                        );
                    }
                    free
                }
            },
        }
    }

    fn subnet6(
        &mut self,
        id: &NetworkId,
        network: &Network,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) -> Option<Ipv6Net> {
        let stands = self.context.seen.networks.get(id).and_then(|n| n.gateway6).map(|net| net.trunc());
        let locked = self.context.lock.networks.get(&id.name).and_then(|n| n.subnet6);
        match network.subnet6 {
            Subnet::Off => None,
            Subnet::Given(net) => Some(self.checked(id, Origin::File, net, chosen)),
            Subnet::Auto => match stands.or(locked) {
                Some(net) => Some(self.checked(id, Origin::Lock, net, chosen)),
                None => (0_u32..)
                    .map(|attempt| ula(&self.context.seen.host.home, id, attempt))
                    .find(|net| self.user_of(IpNet::V6(*net), id, chosen).is_none()),
            },
        }
    }

    /// The subnet, refused if somebody else has a part of it.
    fn checked<T>(
        &mut self,
        id: &NetworkId,
        origin: Origin,
        net: T,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) -> T
    where
        T: Into<IpNet> + Copy,
    {
        let range: IpNet = net.into();
        if let Some(user) = self.user_of(range, id, chosen) {
            let key = if range.addr().is_ipv4() { "subnet" } else { "subnet6" };
            let (from, hint) = match origin {
                Origin::File => ("", "choose another, or `auto`"),
                Origin::Lock => {
                    (", which stead.lock pins,", "`stead up --relock` chooses anew; or free the range")
                }
            };
            self.refuse(
                format!("networks.{}.{key}", id.name),
                format!("{range}{from} overlaps {user}"),
                hint,
            );
        }
        net
    }

    fn check_bridged(&mut self, id: &NetworkId, network: &Network) {
        let Reach::Bridged(link) = &network.reach else { return };
        let key = format!("networks.{}.reach", id.name);
        let stands = self.context.seen.networks.get(id).is_some_and(|n| n.reach == network.reach);
        match self.context.seen.host.links.get(link) {
            Some(HostLink::Bridge | HostLink::Idle) => {}
            _ if stands => {}
            Some(HostLink::InUse(why)) => self.refuse(
                key,
                format!("this computer uses `{link}` itself ({why})"),
                "make a bridge of it in the computer's own network set-up and name the bridge here",
            ),
            None => {
                self.refuse(
                    key,
                    format!("there is no link `{link}` that we may use"),
                    "only root can bridge to a link of the computer; see `stead doctor`",
                );
            }
        }
    }

    /// The way out: the one there is while it works, else the kernel's path, else pasta.
    fn uplink(&mut self, networks: &BTreeMap<NetworkId, NetworkState>) -> Option<Uplink> {
        let seen = self.context.seen;
        let Some((id, _)) = networks.iter().find(|(_, n)| n.reach == Reach::Nat) else {
            let others =
                seen.networks.iter().any(|(id, n)| id.project != self.project.name && n.reach == Reach::Nat);
            return seen.uplink.clone().filter(|_| others);
        };
        // Offline, an uplink that stands cannot be told from one that is broken.
        let works = |uplink: &Uplink| {
            !seen.host.online
                || match uplink {
                    Uplink::Veth(_) => seen.host.uplinks.veth.is_ok(),
                    Uplink::Pasta => seen.host.uplinks.pasta.is_ok(),
                }
        };
        if let Some(uplink) = seen.uplink.clone().filter(works) {
            return Some(uplink);
        }
        match (&seen.host.uplinks.veth, &seen.host.uplinks.pasta) {
            (Ok(()), _) => self.veth_uplink(),
            (Err(_), Ok(())) => Some(Uplink::Pasta),
            // There is nothing to reach; the next command makes the way out when there is.
            (Err(_), Err(_)) if !seen.host.online => None,
            (Err(veth), Err(pasta)) => {
                let key = format!("networks.{}.reach", id.name);
                let why = format!("nothing can carry `nat` here: {}; and {}", veth.why, pasta.why);
                let hint = format!("{}; or {}; or `reach: isolated`", pasta.hint, veth.hint);
                self.refuse(key, why, &hint);
                None
            }
        }
    }

    fn veth_uplink(&mut self) -> Option<Uplink> {
        let home = &self.context.seen.host.home;
        let taken = &self.context.seen.host.taken;
        let is_taken = |net: Ipv4Net| {
            taken.keys().any(|t| t.prefix_len() >= SHORTEST_TAKEN_PREFIX && overlap(*t, IpNet::V4(net)))
        };
        let Some(net) = transfer_subnets(home).find(|net| !is_taken(*net)) else {
            let why = "no transfer subnet is free for the uplink".to_owned();
            self.refuse("networks".into(), why, "free a part of 10.63.0.0/16");
            return None;
        };
        let net6 = transfer_subnet6(home);
        Some(Uplink::Veth(VethUplink {
            link: link_name('u', home, &[home], &|_| false),
            transfer: Ipv4Net::new(nth4(net, 1)?, 30).ok()?,
            transfer6: net6.and_then(|net| Ipv6Net::new(nth6(net, 1)?, 126).ok()),
        }))
    }

    fn nics(&mut self, networks: &BTreeMap<NetworkId, NetworkState>) -> BTreeMap<NicId, NicState> {
        let mut used: BTreeMap<NetworkId, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut macs: BTreeSet<(NetworkId, Mac)> = BTreeSet::new();
        let wanted: Vec<(NicId, &Nic, Kind, usize)> = nics_of(self.project);
        // What is fixed or was given before is kept from the others.
        for (id, nic, ..) in &wanted {
            let kept = self.kept(id, nic, networks);
            let addresses = used.entry(id.network()).or_default();
            addresses.extend(kept.address.map(IpAddr::V4));
            addresses.extend(kept.address6.map(IpAddr::V6));
            macs.extend(kept.mac.map(|mac| (id.network(), mac)));
        }
        let mut chosen = BTreeMap::new();
        for (id, nic, kind, place) in wanted {
            let Some(network) = networks.get(&id.network()) else { continue };
            let kept = self.kept(&id, nic, networks);
            let used = used.entry(id.network()).or_default();
            let address = kept.address.or_else(|| free_address(network, used));
            let address6 = kept.address6.or_else(|| free_address6(network, address, used));
            used.extend(address.map(IpAddr::V4));
            used.extend(address6.map(IpAddr::V6));
            let mac = kept.mac.unwrap_or_else(|| free_mac(&id, &macs));
            macs.insert((id.network(), mac));
            if network.gateway.is_some() && address.is_none() {
                let key = format!("machines.{}.networks.{}", id.machine, id.network);
                self.refuse(
                    key,
                    format!("no address is left on network `{}`", id.network),
                    "give it a larger `subnet`, or a smaller `dhcp.pool`",
                );
            }
            let lease = Lease { mac, address, address6 };
            let seen = self.context.seen.nics.get(&id).map(|nic| nic.link.clone());
            let kind_letter = if kind == Kind::Container { 'v' } else { 't' };
            let same_kind = |link: &LinkName| link.as_str().starts_with(&format!("st{kind_letter}-"));
            let link = seen
                .filter(same_kind)
                .unwrap_or_else(|| self.link(kind_letter, id.machine.as_str(), &id.to_string()));
            let end = match kind {
                Kind::Container => NicEnd::Veth(eth(place)),
                Kind::Microvm | Kind::Vm => NicEnd::Tap(self.context.user),
            };
            let guard = GuardState::new(nic.guard, &lease, network);
            let names = nic.aliases.iter().cloned().chain([id.machine.clone()]).collect();
            chosen.insert(id, NicState { link, end, mtu: network.mtu, lease, guard, names });
        }
        chosen
    }

    /// The addresses of a nic that are fixed, or were given before and still fit.
    fn kept(&self, id: &NicId, nic: &Nic, networks: &BTreeMap<NetworkId, NetworkState>) -> Kept {
        let Some(network) = networks.get(&id.network()) else { return Kept::default() };
        let on_record = self.context.seen.leases.get(id);
        let locked = self.context.lock.machines.get(&id.machine).and_then(|m| m.get(&id.network));
        let earlier = [on_record, locked];
        let address = earlier.into_iter().flatten().filter_map(|lease| lease.address);
        let address6 = earlier.into_iter().flatten().filter_map(|lease| lease.address6);
        let mac = earlier.into_iter().flatten().map(|lease| lease.mac).next();
        let fixed = |address: IpAddr| {
            self.project.machines.iter().any(|(machine, m)| {
                *machine != id.machine
                    && m.nics.iter().any(|n| {
                        n.network == id.network
                            && (n.address.map(IpAddr::V4) == Some(address)
                                || n.address6.map(IpAddr::V6) == Some(address))
                    })
            })
        };
        let fits = |a: &Ipv4Addr| is_usable(network, *a) && !fixed(IpAddr::V4(*a));
        let fits6 = |a: &Ipv6Addr| {
            network.gateway6.is_some_and(|net| net.contains(a) && net.addr() != *a) && !fixed(IpAddr::V6(*a))
        };
        Kept {
            mac: nic.mac.or(mac),
            address: nic.address.or_else(|| address.into_iter().find(fits)),
            address6: nic.address6.or_else(|| address6.into_iter().find(fits6)),
        }
    }

    fn ports(&mut self, nics: &BTreeMap<NicId, NicState>) -> BTreeMap<Bind, Target> {
        let mut chosen = BTreeMap::new();
        for (name, machine) in &self.project.machines {
            let id = MachineId::new(&self.project.name, name);
            let addresses: Vec<IpAddr> = machine
                .nics
                .iter()
                .filter_map(|nic| nics.get(&nic_id(&id, nic)))
                .flat_map(|nic| nic.lease.addresses())
                .collect();
            for port in &machine.ports {
                let key = format!("machines.{name}.ports");
                let other = self.context.seen.ports.iter().find(|(bind, target)| {
                    target.machine.project != self.project.name && binds_clash(**bind, port.bind)
                });
                if let Some((bind, target)) = other {
                    let why = format!("port {bind} is published by machine `{}` already", target.machine);
                    self.refuse(key, why, "choose another port, or another address of this computer");
                    continue;
                }
                let same_family = addresses.iter().find(|a| a.is_ipv4() == port.bind.address.is_ipv4());
                match same_family.or(addresses.first()) {
                    Some(address) => {
                        let target = Target { machine: id.clone(), address: *address, port: port.target };
                        chosen.insert(port.bind, target);
                    }
                    None => self.refuse(
                        key,
                        "the machine has no address to carry it to".into(),
                        "give it a nic on a network with addresses",
                    ),
                }
            }
        }
        chosen
    }
}

/// Where a subnet comes from.
#[derive(Clone, Copy)]
enum Origin {
    File,
    Lock,
}

/// What of a nic's addresses is already decided.
#[derive(Default)]
struct Kept {
    mac: Option<Mac>,
    address: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
}

fn nic_id(machine: &MachineId, nic: &Nic) -> NicId {
    NicId { project: machine.project.clone(), machine: machine.name.clone(), network: nic.network.clone() }
}

fn nics_of(project: &Project) -> Vec<(NicId, &Nic, Kind, usize)> {
    let machines = project.machines.iter();
    let nics = machines.flat_map(|(name, machine)| {
        let id = MachineId::new(&project.name, name);
        let nics = machine.nics.iter().enumerate();
        nics.map(move |(place, nic)| (nic_id(&id, nic), nic, machine.kind, place))
    });
    nics.collect()
}

/// The name of a container's nic inside: `eth` and its place, as everyone expects.
fn eth(place: usize) -> LinkName {
    // Four digits at most, as a machine has fewer nics than networks fit on a computer.
    format!("eth{place}").parse().unwrap_or_else(|_| unreachable!("`eth{place}` is a lawful link name"))
}

/// Whether two published ports want the same port of this computer.
pub fn binds_clash(a: Bind, b: Bind) -> bool {
    let everywhere = a.address.is_unspecified() || b.address.is_unspecified();
    a.protocol == b.protocol
        && a.port == b.port
        && (a.address == b.address || (everywhere && a.address.is_ipv4() == b.address.is_ipv4()))
}

fn service(project: &Project, network: &Network, subnet: Option<Ipv4Net>) -> Option<Service> {
    let dhcp = match &network.addressing {
        Addressing::None => return None,
        Addressing::Static => None,
        Addressing::Managed(dhcp) => Some(ServedDhcp {
            pool: subnet.and_then(|subnet| pool(dhcp, subnet)),
            lease_s: dhcp.lease_s,
            slaac: dhcp.slaac,
            boot: network.boot.clone(),
        }),
    };
    Some(Service { domain: format!("{}.{DOMAIN}", project.name), dhcp })
}
