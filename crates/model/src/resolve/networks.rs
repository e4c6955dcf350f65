//! The choices about networks: their subnets, their bridges, and whether this computer can have them.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::addresses::{auto_subnets, pool, ulas};
use super::{Choice, DOMAIN, is_taken};
use crate::address::{Mac, nth4, nth6, overlap};
use crate::name::{Name, NetworkId};
use crate::observed::{HostLink, Ipv6, NetworkState, Service, Taken, Uplink};
use crate::project::{Addressing, Network, Project, Reach, Subnet};
use crate::served::ServedDhcp;

/// Where a subnet that is not ours to choose comes from; the earlier keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Stands,
    File,
    Lock,
}

impl Choice<'_> {
    pub(super) fn networks(&mut self) -> BTreeMap<NetworkId, NetworkState> {
        let mut chosen: BTreeMap<NetworkId, NetworkState> = BTreeMap::new();
        for (name, network) in &self.project.networks {
            let id = NetworkId::new(&self.project.name, name);
            let (subnet, subnet6) = match network.addressing {
                Addressing::None => (None, None),
                Addressing::Managed(_) | Addressing::Static => {
                    (self.subnet(&id, network, &chosen), self.subnet6(&id, network, &chosen))
                }
            };
            self.check_bridged(&id, network, &chosen);
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

    /// These networks of the project, and those of others that its machines may be on, as they stand.
    pub(super) fn with_external(
        &self,
        own: &BTreeMap<NetworkId, NetworkState>,
    ) -> BTreeMap<NetworkId, NetworkState> {
        let external = self.project.external_networks.values();
        let standing = external.filter_map(|id| Some((id.clone(), self.context.seen.lent(id)?.clone())));
        own.clone().into_iter().chain(standing).collect()
    }

    fn subnet(
        &mut self,
        id: &NetworkId,
        network: &Network,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) -> Option<Ipv4Net> {
        if network.subnet == Subnet::Off {
            return None;
        }
        if let Some((net, origin)) = self.pinned(id, network) {
            self.check_free(id, origin, IpNet::V4(net), chosen);
            return Some(net);
        }
        let free =
            auto_subnets(id).find(|net| self.user_of(IpNet::V4(*net), id, chosen, &|_| true).is_none());
        if free.is_none() {
            let key = format!("networks.{}.subnet", id.name);
            let why = "no subnet is free on this computer: its routes lead to all that are tried";
            self.refuse(key, why.into(), "give one to which none of them leads: `subnet: 100.64.2.0/24`");
        }
        free
    }

    fn subnet6(
        &mut self,
        id: &NetworkId,
        network: &Network,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) -> Option<Ipv6Net> {
        if network.subnet6 == Subnet::Off {
            return None;
        }
        if self.context.seen.host.ipv6 == Ipv6::Absent {
            if let Subnet::Given(net) = network.subnet6 {
                let key = format!("networks.{}.subnet6", id.name);
                self.refuse(
                    key,
                    format!("{net}: this computer's kernel has no IPv6"),
                    "write `subnet6: off`",
                );
            }
            return None;
        }
        if let Some((net, origin)) = self.pinned6(id, network) {
            self.check_free(id, origin, IpNet::V6(net), chosen);
            return Some(net);
        }
        let home = &self.context.seen.host.home;
        let free = ulas(home, id).find(|net| self.user_of(IpNet::V6(*net), id, chosen, &|_| true).is_none());
        if free.is_none() {
            let key = format!("networks.{}.subnet6", id.name);
            let hint = "give one: `subnet6: fd12:3456:789a::/64`, or `subnet6: off`";
            self.refuse(key, "no unique local IPv6 subnet is free on this computer".into(), hint);
        }
        free
    }

    /// The IPv4 subnet that a network has to have: the file's, else the one it stands with, else the lock's.
    fn pinned(&self, id: &NetworkId, network: &Network) -> Option<(Ipv4Net, Origin)> {
        let stands = self.context.seen.networks.get(id).and_then(|n| n.gateway).map(|net| net.trunc());
        let locked = self.context.lock.networks.get(&id.name).and_then(|n| n.subnet);
        pin(network.subnet, stands, locked)
    }

    /// The same for IPv6.
    fn pinned6(&self, id: &NetworkId, network: &Network) -> Option<(Ipv6Net, Origin)> {
        let stands = self.context.seen.networks.get(id).and_then(|n| n.gateway6).map(|net| net.trunc());
        let locked = self.context.lock.networks.get(&id.name).and_then(|n| n.subnet6);
        pin(network.subnet6, stands, locked)
    }

    /// Who of two networks of the project keeps a range that both are to have, before whom: the one that stands with it,
    /// the one that the file gives it, the one that the lock does.
    fn claim(&self, name: &Name, is_v4: bool) -> (Origin, Name) {
        let id = NetworkId::new(&self.project.name, name);
        let stands = self.context.seen.networks.get(&id);
        let stands = stands.and_then(|n| n.subnets().into_iter().find(|net| net.addr().is_ipv4() == is_v4));
        let pinned = self.project.networks.get(name).and_then(|network| {
            let v4 = || self.pinned(&id, network).map(|(net, origin)| (IpNet::V4(net), origin));
            let v6 = || self.pinned6(&id, network).map(|(net, origin)| (IpNet::V6(net), origin));
            if is_v4 { v4() } else { v6() }
        });
        let origin = match pinned {
            Some((net, _)) if stands == Some(net) => Origin::Stands,
            Some((_, origin)) => origin,
            None => Origin::Lock,
        };
        (origin, name.clone())
    }

    /// Who else has addresses of `net`, or is to have them, as a person would say it; of this project's networks those that
    /// count.
    fn user_of(
        &self,
        net: IpNet,
        id: &NetworkId,
        chosen: &BTreeMap<NetworkId, NetworkState>,
        counts: &dyn Fn(&Name) -> bool,
    ) -> Option<String> {
        let stands = self.context.seen.networks.iter().filter(|(other, _)| other.project != id.project);
        let chosen = chosen.iter().filter(|(other, _)| *other != id && counts(&other.name));
        let mut chosen = stands.chain(chosen);
        if let Some((other, _)) = chosen.find(|(_, n)| n.subnets().into_iter().any(|o| overlap(o, net))) {
            return Some(format!("network `{other}`"));
        }
        // Networks of this project that are still to be looked at keep what they have, too.
        let served = |network: &Network| network.addressing != Addressing::None;
        let mut siblings =
            self.project.networks.iter().filter(|(name, n)| **name != id.name && served(n) && counts(name));
        let is_pinned = |name, network: &Network| {
            let other = NetworkId::new(&id.project, name);
            let v4 = self.pinned(&other, network).map(|(other, _)| IpNet::V4(other));
            let v6 = self.pinned6(&other, network).map(|(other, _)| IpNet::V6(other));
            v4.into_iter().chain(v6).any(|other| overlap(other, net))
        };
        if let Some((name, _)) = siblings.find(|(name, network)| is_pinned(name, network)) {
            return Some(format!("network `{name}`"));
        }
        if let Some(Uplink::Veth(veth)) = &self.context.seen.uplink
            && overlap(IpNet::V4(veth.transfer), net)
        {
            return Some(format!("the uplink ({})", veth.transfer.trunc()));
        }
        let taken = self.context.seen.host.taken.iter();
        let mut taken = taken.filter(|(other, by)| is_taken(**other, by, net));
        taken.next().map(|(net, taken)| match taken {
            Taken::Route(link) => format!("a route of this computer ({net} by `{link}`)"),
            Taken::Refused => format!("a route of this computer ({net}, which it refuses or drops)"),
            Taken::Home => format!("another home of stead on this computer ({net})"),
        })
    }

    /// Refuses a subnet of which somebody else has a part.
    fn check_free(
        &mut self,
        id: &NetworkId,
        origin: Origin,
        net: IpNet,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) {
        // Of two that overlap the later one is to blame.
        let is_v4 = net.addr().is_ipv4();
        let own = self.claim(&id.name, is_v4);
        let counts = |other: &Name| self.claim(other, is_v4) < own;
        let Some(user) = self.user_of(net, id, chosen, &counts) else { return };
        let key = if net.addr().is_ipv4() { "subnet" } else { "subnet6" };
        let (from, hint) = match origin {
            Origin::File => ("", "choose another, or `auto`"),
            Origin::Stands => (
                ", which the network has,",
                "`stead down`, then `stead up --relock` chooses anew; or free the range",
            ),
            Origin::Lock => {
                (", which stead.lock pins,", "`stead up --relock` chooses anew; or free the range")
            }
        };
        self.refuse(format!("networks.{}.{key}", id.name), format!("{net}{from} overlaps {user}"), hint);
    }

    fn check_bridged(
        &mut self,
        id: &NetworkId,
        network: &Network,
        chosen: &BTreeMap<NetworkId, NetworkState>,
    ) {
        let Reach::Bridged(link) = &network.reach else { return };
        let key = format!("networks.{}.reach", id.name);
        let carried = self.context.seen.host.mtus.get(link).copied();
        if let Some(carried) = carried.filter(|carried| *carried < u32::from(network.mtu)) {
            let why = format!(
                "`{link}` carries packets of {carried} bytes at most, and the network of {}",
                network.mtu
            );
            self.refuse(key.clone(), why, &format!("write `mtu: {carried}` there"));
        }
        // A network of this project may stand on it already, by this name or one that it had before.
        let mut seen = self.context.seen.networks.iter();
        let is_ours = seen.any(|(other, n)| other.project == id.project && n.reach == network.reach);
        let sibling = chosen.iter().find(|(_, n)| n.reach == network.reach);
        match (self.context.seen.host.links.get(link), sibling) {
            (Some(HostLink::Bridge), _) => {}
            (_, Some((other, _))) => self.refuse(
                key,
                format!("network `{}` is bridged to `{link}` already", other.name),
                "make a bridge of it in the computer's own network set-up: a bridge takes several networks",
            ),
            (Some(HostLink::Idle), None) => {}
            _ if is_ours => {}
            (Some(HostLink::InUse(why)), None) => self.refuse(
                key,
                format!("this computer uses `{link}` itself ({why})"),
                "make a bridge of it in the computer's own network set-up and name the bridge here",
            ),
            (None, None) => self.refuse(
                key,
                format!("there is no link `{link}` that we may use"),
                "name one that `ls /sys/class/net` shows, and no loopback; only root can bridge to it",
            ),
        }
    }
}

fn pin<T>(subnet: Subnet<T>, stands: Option<T>, locked: Option<T>) -> Option<(T, Origin)> {
    match subnet {
        Subnet::Off => None,
        Subnet::Given(net) => Some((net, Origin::File)),
        Subnet::Auto => {
            stands.map(|net| (net, Origin::Stands)).or_else(|| locked.map(|net| (net, Origin::Lock)))
        }
    }
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
