//! What the kernel has: links, addresses, routes and rules, read from its messages.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use stead_model::address::Mac;
use stead_model::name::LinkName;

use super::route::{Hop, Route, Rule, RuleFamily};
use super::tlv::{array_at, attribute, text, u16_at, u32_at};
use super::uapi::*;

/// `sizeof(struct rtnexthop)`.
const NEXT_HOP_BYTES: usize = 8;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: LinkName,
    /// Its alias; empty for none.
    pub alias: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its MAC, where it has one.
    pub mac: Option<Mac>,
    /// The largest packet.
    pub mtu: u32,
    /// Its group.
    pub group: u32,
    /// The index of the link that it is a port of.
    pub master: Option<u32>,
    /// The name of that link.
    pub bridge: Option<LinkName>,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether there is something at the other end.
    pub carrier: bool,
    /// Whether frames pass.
    pub operational: bool,
    /// The index of a veth's other end, in its namespace.
    pub peer: Option<u32>,
    /// The index of the link that this one stands on, in this namespace: of a VLAN's, for instance.
    pub parent: Option<u32>,
    /// The namespace of the other end, by this namespace's own numbering; none if it is this one.
    pub peer_netns: Option<i32>,
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// An end of a veth pair.
    Veth,
    /// A TUN or TAP.
    Tun,
    /// Something else: the kernel's word, or nothing for hardware and loopback.
    Other(String),
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The link.
    pub link: LinkName,
    /// The address and its prefix.
    pub address: IpNet,
}

/// Reads a link. One whose name cannot be ours is left out.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let attributes = body.get(16..)?;
    let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    let byte = |kind| attribute(attributes, kind).and_then(|value| value.first().copied());
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    let kind = match attribute(info, IFLA_INFO_KIND).map(text).unwrap_or_default().as_str() {
        "bridge" => LinkKind::Bridge,
        "veth" => LinkKind::Veth,
        "tun" => LinkKind::Tun,
        other => LinkKind::Other(other.to_owned()),
    };
    Some(Link {
        index,
        name: text(attribute(attributes, IFLA_IFNAME)?).parse().ok()?,
        alias: attribute(attributes, IFLA_IFALIAS).map(text).unwrap_or_default(),
        peer: number(IFLA_LINK).filter(|_| kind == LinkKind::Veth),
        parent: number(IFLA_LINK)
            .filter(|_| kind != LinkKind::Veth && number(IFLA_LINK_NETNSID).is_none())
            .filter(|parent| *parent != index),
        kind,
        mac: attribute(attributes, IFLA_ADDRESS)
            .and_then(|value| array_at(value, 0))
            .and_then(|bytes| Mac::new(bytes).ok()),
        mtu: number(IFLA_MTU).unwrap_or(0),
        group: number(IFLA_GROUP).unwrap_or(0),
        master: number(IFLA_MASTER),
        bridge: None,
        up: flags & IFF_UP != 0,
        carrier: byte(IFLA_CARRIER) == Some(1),
        operational: byte(IFLA_OPERSTATE) == Some(IF_OPER_UP),
        peer_netns: number(IFLA_LINK_NETNSID).map(u32::cast_signed),
    })
}

/// Fills in the names of the links that others are ports of.
pub(super) fn name_bridges(links: &mut [Link]) {
    let names: HashMap<u32, LinkName> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    for link in links {
        link.bridge = link.master.and_then(|master| names.get(&master).cloned());
    }
}

/// Reads an address.
pub(super) fn address(body: &[u8], names: &HashMap<u32, LinkName>) -> Option<Address> {
    let (&family, &prefix) = (body.first()?, body.get(1)?);
    let link = names.get(&u32_at(body, 4)?)?.clone();
    let attributes = body.get(8..)?;
    // Where both are there, `IFA_ADDRESS` is the far end's.
    let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    Some(Address { link, address: IpNet::new(ip(family, value)?, prefix).ok()? })
}

/// Reads a route, unless it is of a kind that says nothing of what is there, or a cached one. One that leads several ways at once
/// is as many routes.
pub(super) fn routes(body: &[u8], names: &HashMap<u32, LinkName>) -> Option<Vec<Route>> {
    let (&family, &prefix, &kind) = (body.first()?, body.get(1)?, body.get(7)?);
    if u32_at(body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let attributes = body.get(12..)?;
    let to = match attribute(attributes, RTA_DST) {
        Some(value) => ip(family, value)?,
        None if family == AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        None => Ipv4Addr::UNSPECIFIED.into(),
    };
    let index = |attributes| attribute(attributes, RTA_OIF).and_then(|value| u32_at(value, 0));
    let hop = |index: Option<u32>, attributes| {
        let link = index.and_then(|index| names.get(&index)).cloned();
        let router = attribute(attributes, RTA_GATEWAY).and_then(|value| ip(family, value));
        match (router, link) {
            (Some(router), Some(link)) => Hop::Via(router, link),
            (None, Some(link)) => Hop::Link(link),
            (_, None) => Hop::NoLink,
        }
    };
    let by = match (kind, attribute(attributes, RTA_MULTIPATH)) {
        (RTN_LOCAL, _) => vec![Hop::Local],
        (RTN_UNICAST, Some(ways)) => next_hops(ways).map(|(index, more)| hop(Some(index), more)).collect(),
        (RTN_UNICAST, None) => vec![hop(index(attributes), attributes)],
        (RTN_BLACKHOLE | RTN_UNREACHABLE | RTN_PROHIBIT, _) => vec![Hop::NoLink],
        _ => return None,
    };
    let table = attribute(attributes, RTA_TABLE).and_then(|value| u32_at(value, 0))?;
    let to = IpNet::new(to, prefix).ok()?;
    Some(by.into_iter().map(|by| Route { to, by, table }).collect())
}

/// The ways of a route with several, as link and attributes. One that is cut short ends the list.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    // `struct rtnexthop` is the length, two bytes that are no matter, and the link.
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let way = (u32_at(bytes, 4)?, bytes.get(NEXT_HOP_BYTES..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(way)
    })
}

/// Reads a rule, unless it is of a kind that we never make.
pub(super) fn rule(body: &[u8]) -> Option<Rule> {
    let family = match *body.first()? {
        AF_INET => RuleFamily::V4,
        AF_INET6 => RuleFamily::V6,
        _ => return None,
    };
    let attributes = body.get(12..)?;
    let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    Some(Rule {
        family,
        mark: number(FRA_FWMARK)?,
        table: number(FRA_TABLE)?,
        priority: number(FRA_PRIORITY).unwrap_or(0),
    })
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => array_at::<4>(value, 0).map(IpAddr::from),
        AF_INET6 => array_at::<16>(value, 0).map(IpAddr::from),
        _ => None,
    }
}
