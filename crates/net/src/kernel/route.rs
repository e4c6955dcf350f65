//! Links, addresses, routes and rules: requests as values, sent many at a time, and what there is, read
//! back.

mod text;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use ipnet::IpNet;
use rustix::io::Errno;
use stead_model::name::LinkName;

use super::link::{self, LinkChange, NewLink, Veth};
use super::seen::{self, Address, Link};
use super::socket::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, Refused, Socket,
};
use super::tlv::Message;
use super::uapi::*;

/// Something to change. Its `Display` is one line.
#[derive(Clone, Debug)]
pub enum RouteRequest<'fd> {
    /// Makes a bridge and brings it up.
    AddBridge(NewLink),
    /// Makes a veth pair.
    AddVeth(Veth<'fd>),
    /// Changes a link.
    ChangeLink(LinkName, LinkChange<'fd>),
    /// Gives a link a new name. Kernels before 6.2 refuse that while it is up.
    RenameLink(LinkName, LinkName),
    /// Removes a link.
    DeleteLink(LinkName),
    /// Removes the link with this index.
    DeleteIndex(u32),
    /// Removes all links of a group at once, which takes the kernel hardly longer than one link.
    DeleteGroup(u32),
    /// Gives a link an address and its prefix.
    AddAddress(LinkName, IpNet),
    /// Takes an address from a link.
    DeleteAddress(LinkName, IpNet),
    /// Adds a route.
    AddRoute(Route),
    /// Adds a route in the place of the one that leads there now, with no moment between them.
    ReplaceRoute(Route),
    /// Removes a route.
    DeleteRoute(Route),
    /// Adds a rule.
    AddRule(Rule),
    /// Removes a rule.
    DeleteRule(Rule),
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// How to get there.
    pub by: Hop,
    /// The table; [`MAIN_TABLE`] is the usual one.
    pub table: u32,
}

/// How a route leads on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// By a router.
    Via(IpAddr, LinkName),
    /// The destination is on this link.
    Link(LinkName),
    /// The destination is this computer itself, as a transparent proxy needs.
    Local,
    /// By no link: what is sent there is refused. Seen is so, too, what is dropped, and a link that cannot be named.
    NoLink,
}

/// The table that is looked in without a rule of one's own.
pub const MAIN_TABLE: u32 = 254;

/// A rule: packets with this mark look in this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// For IPv4 or IPv6.
    pub family: RuleFamily,
    /// The mark.
    pub mark: u32,
    /// The table.
    pub table: u32,
    /// Its place among the rules; lower comes first.
    pub priority: u32,
}

/// Which packets a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The rtnetlink socket of one network namespace.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
}

/// How the kernel says that there is no route: none at all, one that refuses or drops, or a protocol that it does not speak.
const NO_ROUTE: [Errno; 6] = [
    Errno::NETUNREACH,
    Errno::HOSTUNREACH,
    Errno::ACCESS,
    Errno::INVAL,
    Errno::OPNOTSUPP,
    Errno::AFNOSUPPORT,
];

/// A group for links on their way out; see [`RouteSocket::delete_links`].
const LEAVING_GROUP: u32 = 0x7374_6f75;

/// Where the indexes that we give to new links start: those that the kernel gives never get here.
const INDEX_FLOOR: u32 = 1 << 20;

impl RouteSocket {
    /// Takes a `NETLINK_ROUTE` socket, which belongs to the namespace in which it was made.
    pub fn new(fd: OwnedFd) -> Result<Self> {
        Ok(Self { socket: Socket::new(fd)? })
    }

    /// Opens one in the current network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(None)? })
    }

    /// Carries out requests in order. One that is refused does not keep those after it from being carried
    /// out: the refusals are returned.
    pub fn send(&self, requests: &[RouteRequest<'_>]) -> Result<Vec<Refused>> {
        let mut batch = Batch { known: HashMap::new(), waiting: Vec::new(), refused: Vec::new() };
        let mut fresh = random_index();
        for request in requests {
            let index = match request.named() {
                None => None,
                Some(name) => match batch.index(self, name)? {
                    Some(index) => Some(index),
                    None => {
                        batch.refuse(request, Errno::NODEV, Some(format!("there is no link `{name}`")));
                        continue;
                    }
                },
            };
            fresh += 1;
            batch.waiting.push((request, request.messages(index, fresh)));
            match request {
                RouteRequest::AddBridge(link) => drop(batch.known.insert(link.name.clone(), fresh)),
                RouteRequest::AddVeth(veth) => drop(batch.known.insert(veth.link.name.clone(), fresh)),
                RouteRequest::ChangeLink(_, LinkChange { netns: None, .. })
                | RouteRequest::AddAddress(..)
                | RouteRequest::DeleteAddress(..)
                | RouteRequest::AddRoute(_)
                | RouteRequest::ReplaceRoute(_)
                | RouteRequest::DeleteRoute(_)
                | RouteRequest::AddRule(_)
                | RouteRequest::DeleteRule(_) => {}
                RouteRequest::ChangeLink(..)
                | RouteRequest::RenameLink(..)
                | RouteRequest::DeleteLink(_)
                | RouteRequest::DeleteIndex(_)
                | RouteRequest::DeleteGroup(_) => batch.known.clear(),
            }
        }
        batch.flush(self)?;
        Ok(batch.refused)
    }

    /// Carries out requests in order; an error tells everything that was refused.
    pub fn run(&self, requests: &[RouteRequest<'_>]) -> Result<()> {
        let mut refused = self.send(requests)?.into_iter();
        let Some(first) = refused.next() else { return Ok(()) };
        // The later ones often follow from the first, which is the one to match on.
        let more: Vec<_> = refused.map(|refused| refused.to_string()).collect();
        if more.is_empty() {
            Err(first.into())
        } else {
            Err(first).context(format!(
                "{} requests were refused, after the first: {}",
                more.len() + 1,
                more.join("; ")
            ))
        }
    }

    /// Removes many links at once; one that is already gone is no error. The kernel waits for all CPUs for
    /// each link that it is told to remove, but only once for a group.
    pub fn delete_links(&self, links: &[LinkName]) -> Result<()> {
        if links.is_empty() {
            return Ok(());
        }
        let leaving = LinkChange { group: Some(LEAVING_GROUP), ..LinkChange::default() };
        let mut requests: Vec<_> =
            links.iter().map(|link| RouteRequest::ChangeLink(link.clone(), leaving.clone())).collect();
        requests.push(RouteRequest::DeleteGroup(LEAVING_GROUP));
        let refused = self.send(&requests)?;
        match refused.into_iter().find(|refused| refused.errno != Errno::NODEV) {
            Some(refused) => Err(refused.into()),
            None => Ok(()),
        }
    }

    /// All links.
    pub fn links(&self) -> Result<Vec<Link>> {
        let question = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &link::link_header(0, 0, 0));
        let mut links = self.dump(&question, "links", seen::link)?;
        seen::name_bridges(&mut links);
        Ok(links)
    }

    /// The links whose alias says that they are ours.
    pub fn own_links(&self) -> Result<Vec<Link>> {
        let mut links = self.links()?;
        links.retain(|link| link.alias.starts_with(super::ALIAS_PREFIX));
        Ok(links)
    }

    /// All addresses.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let question = Message::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0; 8]);
        let names = self.names()?;
        self.dump(&question, "addresses", |body| seen::address(body, &names))
    }

    /// The routes of a table, or of all tables. One that leads several ways at once is as many routes.
    pub fn routes(&self, table: Option<u32>) -> Result<Vec<Route>> {
        let names = self.names()?;
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let question = Message::new(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, &header);
            routes.extend(
                self.dump(&question, "routes", |body| seen::routes(body, &names))?.into_iter().flatten(),
            );
        }
        routes.retain(|route| table.is_none_or(|table| route.table == table));
        Ok(routes)
    }

    /// The route by which a packet of this computer gets to an address, as its rules and tables have it: several where
    /// that leads several ways, none where it would not be sent. Nothing is sent.
    pub fn route_to(&self, address: IpAddr) -> Result<Vec<Route>> {
        let (family, to) = octets(address);
        let length = if address.is_ipv4() { 32 } else { 128 };
        let [a, b, c, d] = (RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE).to_ne_bytes();
        let header = [family, length, 0, 0, 0, 0, 0, 0, a, b, c, d];
        let mut question = Message::new(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK, &header);
        question.put(RTA_DST, &to);
        let names = self.names()?;
        match self.socket.dump(&question, |received| seen::routes(received.body, &names)) {
            Ok(routes) => Ok(routes.into_iter().flatten().filter(|route| route.by != Hop::NoLink).collect()),
            Err(error) if error.downcast_ref().is_some_and(|errno| NO_ROUTE.contains(errno)) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error).with_context(|| format!("cannot find the route to {address}")),
        }
    }

    /// The rules that lead packets with a mark to a table.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let question = Message::new(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, &header);
            rules.extend(self.dump(&question, "rules", seen::rule)?);
        }
        Ok(rules)
    }

    fn names(&self) -> Result<HashMap<u32, LinkName>> {
        Ok(self.links()?.into_iter().map(|link| (link.index, link.name)).collect())
    }

    fn dump<T>(&self, question: &Message, what: &str, part: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        self.socket
            .dump(question, |received| part(received.body))
            .with_context(|| format!("cannot list {what}"))
    }

    /// The index of a link; none if there is no such link.
    fn index(&self, name: &LinkName) -> Result<Option<u32>> {
        let mut question = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &link::link_header(0, 0, 0));
        question.put_text(IFLA_IFNAME, name.as_str());
        match self.socket.dump(&question, |received| seen::link(received.body)) {
            Ok(links) => Ok(links.first().map(|link| link.index)),
            Err(error) if error.downcast_ref() == Some(&Errno::NODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot find link `{name}`")),
        }
    }
}

/// An index that no link has, but for one chance in a thousand million.
fn random_index() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_ne_bytes();
    INDEX_FLOOR + (u32::from_ne_bytes([a, b, c, d]) >> 2)
}

/// Requests on their way.
struct Batch<'r, 'fd> {
    /// Indexes found out, or given, in this batch. They are not kept longer: another process may remove a
    /// link and make one of the same name.
    known: HashMap<LinkName, u32>,
    waiting: Vec<(&'r RouteRequest<'fd>, Vec<Message>)>,
    refused: Vec<Refused>,
}

impl<'r, 'fd> Batch<'r, 'fd> {
    fn index(&mut self, socket: &RouteSocket, name: &LinkName) -> Result<Option<u32>> {
        if let Some(index) = self.known.get(name) {
            return Ok(Some(*index));
        }
        // The link may be made or renamed by what is still waiting.
        self.flush(socket)?;
        let index = socket.index(name)?;
        if let Some(index) = index {
            self.known.insert(name.clone(), index);
        }
        Ok(index)
    }

    fn refuse(&mut self, request: &RouteRequest<'_>, errno: Errno, words: Option<String>) {
        self.refused.push(Refused { request: request.to_string(), errno, words });
    }

    fn flush(&mut self, socket: &RouteSocket) -> Result<()> {
        let (requests, groups): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        for (request, answer) in requests.into_iter().zip(socket.socket.send(groups)?) {
            if let Err((errno, words)) = answer {
                self.refuse(request, errno, words);
            }
        }
        Ok(())
    }
}

impl RouteRequest<'_> {
    /// The link whose index the message needs, where the kernel does not take a name.
    fn named(&self) -> Option<&LinkName> {
        match self {
            Self::AddVeth(veth) => veth.port.as_ref().map(|port| &port.bridge),
            Self::ChangeLink(_, change) => change.bridge.as_ref().and_then(Option::as_ref),
            Self::RenameLink(link, _) | Self::AddAddress(link, _) | Self::DeleteAddress(link, _) => {
                Some(link)
            }
            Self::AddRoute(route) | Self::ReplaceRoute(route) | Self::DeleteRoute(route) => match &route.by {
                Hop::Via(_, link) | Hop::Link(link) => Some(link),
                Hop::Local | Hop::NoLink => None,
            },
            Self::AddBridge(_)
            | Self::DeleteLink(_)
            | Self::DeleteIndex(_)
            | Self::DeleteGroup(_)
            | Self::AddRule(_)
            | Self::DeleteRule(_) => None,
        }
    }

    /// The messages, with the index of the link that they need and one for the link that they make.
    fn messages(&self, index: Option<u32>, fresh: u32) -> Vec<Message> {
        let at = index.unwrap_or(0);
        match self {
            Self::AddBridge(bridge) => link::add_bridge(bridge, fresh),
            Self::AddVeth(veth) => link::add_veth(veth, fresh, index),
            Self::ChangeLink(name, change) => link::change(name, change, index),
            Self::RenameLink(_, name) => vec![link::rename(at, name)],
            Self::DeleteLink(name) => vec![link::delete(name)],
            Self::DeleteIndex(index) => vec![link::delete_index(*index)],
            Self::DeleteGroup(group) => vec![link::delete_group(*group)],
            Self::AddAddress(_, address) => vec![address_message(RTM_NEWADDR, NEW, *address, at)],
            Self::DeleteAddress(_, address) => vec![address_message(RTM_DELADDR, 0, *address, at)],
            Self::AddRoute(route) => vec![route_message(RTM_NEWROUTE, NEW, route, at)],
            Self::ReplaceRoute(route) => {
                vec![route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route, at)]
            }
            Self::DeleteRoute(route) => vec![route_message(RTM_DELROUTE, 0, route, at)],
            Self::AddRule(rule) => vec![rule_message(RTM_NEWRULE, NEW, rule)],
            Self::DeleteRule(rule) => vec![rule_message(RTM_DELRULE, 0, rule)],
        }
    }
}

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An address is usable at once: addresses are ours to give, so that nobody else on the network has them,
/// and duplicate address detection would hold back the services by seconds.
fn address_message(kind: u16, flags: u16, address: IpNet, index: u32) -> Message {
    let (family, value) = octets(address.addr());
    let scope = match address.addr() {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => RT_SCOPE_LINK,
        IpAddr::V4(_) | IpAddr::V6(_) => RT_SCOPE_UNIVERSE,
    };
    let [a, b, c, d] = index.to_ne_bytes();
    let header = [family, address.prefix_len(), 0, scope, a, b, c, d];
    let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &header);
    message.put(IFA_LOCAL, &value);
    message.put(IFA_ADDRESS, &value);
    match address {
        IpNet::V4(v4) if v4.prefix_len() < 31 => message.put(IFA_BROADCAST, &v4.broadcast().octets()),
        IpNet::V4(_) => {}
        IpNet::V6(_) => message.put_u32(IFA_FLAGS, IFA_F_NODAD),
    }
    message
}

fn route_message(kind: u16, flags: u16, route: &Route, index: u32) -> Message {
    let (family, to) = octets(route.to.network());
    let (scope, route_type) = match (&route.by, route.to) {
        (Hop::Local, _) => (RT_SCOPE_HOST, RTN_LOCAL),
        (Hop::Link(_), IpNet::V4(_)) => (RT_SCOPE_LINK, RTN_UNICAST),
        (Hop::Link(_) | Hop::Via(..), _) => (RT_SCOPE_UNIVERSE, RTN_UNICAST),
        (Hop::NoLink, _) => (RT_SCOPE_UNIVERSE, RTN_UNREACHABLE),
    };
    // The table stands in an attribute, which has room for any.
    let header =
        [family, route.to.prefix_len(), 0, 0, 0, super::ROUTE_PROTOCOL, scope, route_type, 0, 0, 0, 0];
    let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &header);
    message.put_u32(RTA_TABLE, route.table);
    if route.to.prefix_len() > 0 {
        message.put(RTA_DST, &to);
    }
    match &route.by {
        Hop::Via(router, _) => {
            message.put(RTA_GATEWAY, &octets(*router).1);
            message.put_u32(RTA_OIF, index);
            // One to take away is found whatever its metric is.
            if flags & NLM_F_CREATE != 0 && family == AF_INET6 && route.to.prefix_len() == 0 {
                message.put_u32(RTA_PRIORITY, WAY_OUT_METRIC);
            }
        }
        Hop::Link(_) => message.put_u32(RTA_OIF, index),
        Hop::Local => message.put_u32(RTA_OIF, LOOPBACK_INDEX),
        Hop::NoLink => {}
    }
    message
}

/// The metric of a default route of IPv6. A kernel that hears of routers gives theirs, on whatever link, the 1024 that is
/// usual, and would take ours for one that is there already.
const WAY_OUT_METRIC: u32 = 512;

/// `lo` is the first link of every namespace.
const LOOPBACK_INDEX: u32 = 1;

fn rule_message(kind: u16, flags: u16, rule: &Rule) -> Message {
    let family = match rule.family {
        RuleFamily::V4 => AF_INET,
        RuleFamily::V6 => AF_INET6,
    };
    let header = [family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &header);
    message.put_u32(FRA_PRIORITY, rule.priority);
    message.put_u32(FRA_FWMARK, rule.mark);
    message.put_u32(FRA_TABLE, rule.table);
    message
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    }
}
