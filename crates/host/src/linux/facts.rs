//! What of this computer bears on a plan: its routes, the claims of other homes, and which ways out work.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use ipnet::IpNet;

use stead_model::name::LinkName;
use stead_model::observed::{HostFacts, HostLink, Ipv6, Lack, Taken, Uplinks};
use stead_net::anchor::Label;
use stead_net::kernel::nft::{NftSocket, SeenChain};
use stead_net::kernel::{
    Address, Hop, Link, LinkKind, MAIN_TABLE, Route, RouteSocket, has_ipv6, legacy, rules,
};
use stead_net::uplink::WayOut;

use super::claims;
use super::mark::Mark;
use super::network::claim_name;

/// The kernel's number of the forward hook.
const HOOK_FORWARD: u32 = 2;

/// The kernel's numbers of the families whose forward hook sees routed packets: inet, ip and ip6.
const ROUTED: [u8; 3] = [1, 2, 10];

/// The kernel's own table, of what this computer's addresses are.
const LOCAL_TABLE: u32 = 255;

/// Far addresses, to which nothing is sent: root name servers, to which no one has a route but the default one.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Whether links that are yet to be made will have no IPv6.
const IPV6_SWITCH: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// From which ports connections go out that ask for none.
const LOCAL_PORTS_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The kernel's own choice of them.
const LOCAL_PORTS: (u16, u16) = (32768, 60999);

/// Looks at the computer. `held` is what our own anchor holds, `own` the inodes of claims that are ours besides.
pub(super) fn observe(home: &str, held: &[Label], own: &BTreeSet<u64>) -> Result<HostFacts> {
    let outside = RouteSocket::open()?;
    let links = outside.links()?;
    let routes = outside.routes(None)?;
    let addresses = outside.addresses()?;
    let own_uplink = Mark::Uplink(home.to_owned()).to_string();
    let ours: Vec<&LinkName> =
        links.iter().filter(|link| link.alias == own_uplink).map(|link| &link.name).collect();
    let is_held = |net: &IpNet| held.iter().any(|label| label.as_str() == claim_name(*net));
    let claimed = claims::observe()?.into_iter().filter(|claim| !own.contains(&claim.inode));
    let claimed = claimed.map(|claim| claim.net).filter(|net| !is_held(net)).map(|net| (net, Taken::Home));
    let routed = taken_by_routes(&routes, &ours);
    let out = ways_out(&outside, &routes)?;
    Ok(HostFacts {
        home: home.to_owned(),
        taken: routed.into_iter().chain(claimed).collect(),
        online: !out.is_empty(),
        ipv6: ipv6(),
        uplinks: uplinks(&out)?,
        links: host_links(&links, &addresses, &routes),
        local_ports: local_ports().unwrap_or(LOCAL_PORTS),
        mtus: links.into_iter().map(|link| (link.name, link.mtu)).collect(),
    })
}

/// The ports that the kernel gives to whoever asks for none in particular.
fn local_ports() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string(LOCAL_PORTS_FILE).ok()?;
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// What the computer's routes say is in use. Those of other tables than the main one count as well: VPNs have theirs
/// in tables of their own, and where a rule leads a packet depends on more than where it goes.
fn taken_by_routes(routes: &[Route], ours: &[&LinkName]) -> BTreeMap<IpNet, Taken> {
    let mut taken = BTreeMap::new();
    for route in routes.iter().filter(|route| route.table != LOCAL_TABLE) {
        let net = route.to.trunc();
        if net.prefix_len() == 0 || is_link_local(net) {
            continue;
        }
        match &route.by {
            Hop::Via(_, link) | Hop::Link(link) if !ours.contains(&link) => {
                taken.insert(net, Taken::Route(link.clone()));
            }
            // Often the last of several for the same range, for when the link is down.
            Hop::NoLink => drop(taken.entry(net).or_insert(Taken::Refused)),
            Hop::Via(..) | Hop::Link(_) | Hop::Local => {}
        }
    }
    taken
}

/// The default routes: the main table's, and for a protocol that has none there the one to which the rules lead from
/// everywhere.
fn ways_out(outside: &RouteSocket, routes: &[Route]) -> Result<Vec<Route>> {
    let is_main = |route: &&Route| route.table == MAIN_TABLE && leads_out(route);
    let mut out: Vec<Route> = routes.iter().filter(is_main).cloned().collect();
    for far in FAR {
        if !out.iter().any(|route| route.to.addr().is_ipv4() == far.is_ipv4()) {
            out.extend(outside.route_to(far)?.into_iter().filter(leads_out));
        }
    }
    Ok(out)
}

fn leads_out(route: &Route) -> bool {
    route.to.prefix_len() == 0 && matches!(route.by, Hop::Via(..) | Hop::Link(_))
}

/// What pasta has to be told of the way out: nothing where it finds a default route for itself.
pub(super) fn told_way_out() -> Result<Option<WayOut>> {
    let outside = RouteSocket::open()?;
    let main = outside.routes(Some(MAIN_TABLE))?;
    let lead = |far: IpAddr| -> Result<Vec<Route>> {
        Ok(outside.route_to(far)?.into_iter().filter(leads_out).collect())
    };
    let [far4, far6] = FAR;
    Ok(way_to_tell(&main, &[lead(far4)?, lead(far6)?], &outside.addresses()?))
}

/// Looking at the main table alone, at routes that lead one way, pasta of Debian 12 finds no other for itself; and told of
/// one link it uses that alone, and ends where it has no router there. `leads` are the routes far away, of IPv4 and IPv6.
fn way_to_tell(main: &[Route], leads: &[Vec<Route>; 2], addresses: &[Address]) -> Option<WayOut> {
    let is_found = |out: &[Route]| match out {
        [one] => {
            main.iter().any(|route| leads_out(route) && route.to.addr().is_ipv4() == one.to.addr().is_ipv4())
        }
        _ => false,
    };
    let end = |link: &LinkName, out: &[Route]| {
        let router = out.iter().find_map(|route| match &route.by {
            Hop::Via(router, by) if by == link => Some(*router),
            Hop::Via(..) | Hop::Link(_) | Hop::Local | Hop::NoLink => None,
        })?;
        let is_own = |own: &&Address| {
            own.link == *link
                && own.address.addr().is_ipv4() == router.is_ipv4()
                && !is_link_local(own.address)
        };
        Some((addresses.iter().find(is_own)?.address.addr(), router))
    };
    let [ipv4, _] = leads;
    let unseen = leads.iter().filter(|out| !is_found(out)).filter_map(|out| out.first());
    let mut ways = unseen.filter_map(|route| match &route.by {
        Hop::Via(_, link) | Hop::Link(link) => {
            let ends = leads.iter().filter_map(|out| end(link, out)).collect();
            Some(WayOut { ends, link: link.clone() })
        }
        Hop::Local | Hop::NoLink => None,
    });
    // IPv4 is not to be lost that it finds for itself. IPv6 is, where IPv4 cannot be had otherwise.
    let loses_ipv4 = |way: &WayOut| is_found(ipv4) && !way.ends.iter().any(|(own, _)| own.is_ipv4());
    ways.find(|way| !way.ends.is_empty() && !loses_ipv4(way))
}

fn ipv6() -> Ipv6 {
    match std::fs::read_to_string(IPV6_SWITCH).as_deref().map(str::trim) {
        Ok("0") => Ipv6::Everywhere,
        Ok(_) => Ipv6::Inside,
        Err(_) if has_ipv6() => Ipv6::Inside,
        Err(_) => Ipv6::Absent,
    }
}

pub(super) fn is_link_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local() || net.addr().is_multicast(),
        IpNet::V6(net) => net.addr().is_unicast_link_local() || net.addr().is_multicast(),
    }
}

/// Which ways out work. What may or may not work by the kernel is only risked where pasta cannot be had.
fn uplinks(out: &[Route]) -> Result<Uplinks> {
    let pasta = pasta(out);
    let veth = match veth(out)? {
        Veth::Works => Ok(()),
        Veth::Doubtful(_) if pasta.is_err() => Ok(()),
        Veth::Doubtful(lack) | Veth::Fails(lack) => Err(lack),
    };
    Ok(Uplinks { veth, pasta })
}

/// What can be told of the kernel's path out.
enum Veth {
    Works,
    Doubtful(Lack),
    Fails(Lack),
}

/// Looks at the kernel's path out: the computer has to forward already, for both protocols that it reaches out
/// by, and nobody's rules may drop that.
fn veth(out: &[Route]) -> Result<Veth> {
    let lack = |why: String, hint: &str| Lack { why, hint: hint.to_owned(), is_command: false };
    if !rustix::process::geteuid().is_root() {
        return Ok(Veth::Fails(lack(
            "only root can connect to the computer's own namespace".into(),
            "run as root",
        )));
    }
    for route in out.iter().filter(|route| route.to.addr().is_ipv4()) {
        let (Hop::Via(_, link) | Hop::Link(link)) = &route.by else { continue };
        if is_off(&format!("/proc/sys/net/ipv4/conf/{link}/forwarding")) {
            let why = format!("the computer does not forward what comes in by `{link}`");
            let hint = "sysctl -w net.ipv4.ip_forward=1".to_owned();
            return Ok(Veth::Fails(Lack { why, hint, is_command: true }));
        }
    }
    let hint = "install passt, which needs no forwarding";
    match firewall()? {
        Firewall::Drops(who) => return Ok(Veth::Fails(lack(format!("{who} drops what is forwarded"), hint))),
        Firewall::HasRules(who) => {
            return Ok(Veth::Doubtful(lack(format!("{who} may drop what is forwarded"), hint)));
        }
        Firewall::Open => {}
    }
    let reaches6 = out.iter().any(|route| !route.to.addr().is_ipv4());
    if reaches6 && is_off("/proc/sys/net/ipv6/conf/all/forwarding") {
        return Ok(Veth::Doubtful(lack("the computer does not forward IPv6".into(), hint)));
    }
    Ok(Veth::Works)
}

fn is_off(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
}

/// What somebody's firewall does to packets that pass through. An `accept` of ours does not overrule it.
enum Firewall {
    Open,
    /// What its rules would do to packets like ours cannot be told from here.
    HasRules(String),
    Drops(String),
}

fn firewall() -> Result<Firewall> {
    let chains = NftSocket::open()?.chains()?;
    let others: Vec<_> = chains
        .iter()
        .filter(|chain| {
            let forwards = chain.hook == Some(HOOK_FORWARD) && ROUTED.contains(&chain.table.family);
            forwards && chain.table.name != rules::TABLE
        })
        .collect();
    let legacy = legacy::observe().context("cannot look at the older packet filter")?;
    let called =
        |chain: &SeenChain| format!("the firewall's chain `{}` (table `{}`)", chain.name, chain.table.name);
    let older = || "the firewall's chain `FORWARD` (iptables)".to_owned();
    if let Some(chain) = others.iter().find(|chain| chain.drops) {
        return Ok(Firewall::Drops(called(chain)));
    }
    if legacy.drops {
        return Ok(Firewall::Drops(older()));
    }
    if let Some(chain) = others.iter().find(|chain| chain.has_rules) {
        return Ok(Firewall::HasRules(called(chain)));
    }
    Ok(if legacy.has_rules { Firewall::HasRules(older()) } else { Firewall::Open })
}

/// Whether pasta can be the way out.
fn pasta(out: &[Route]) -> Result<(), Lack> {
    let lack = |why: String, hint: &str, is_command| Err(Lack { why, hint: hint.to_owned(), is_command });
    if stead_net::uplink::program().is_none() {
        return lack("`pasta` is not installed".into(), "apt-get install passt", true);
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        let why = format!("/dev/net/tun cannot be opened ({error})");
        return match error.kind() {
            ErrorKind::PermissionDenied => lack(why, "chmod 0666 /dev/net/tun", true),
            _ => lack(why, "modprobe tun", true),
        };
    }
    if out.is_empty() {
        return lack("this computer has no way out itself".into(), "connect it to a network", false);
    }
    Ok(())
}

/// Whether a home's chains in the host's table have what belongs in them; nothing if one of them is not there.
pub(super) fn has_host_chains(home: &str) -> Result<Option<bool>> {
    let chains = NftSocket::open()?.chains()?;
    let ours = |name: &String| {
        let is_it = |chain: &&SeenChain| chain.table.name == rules::TABLE && chain.name == *name;
        chains.iter().find(is_it).map(|chain| chain.has_rules)
    };
    let found: Option<Vec<bool>> = rules::host_chain_names(home).iter().map(ours).collect();
    Ok(found.map(|all| all.into_iter().all(|has_rules| has_rules)))
}

/// The links that a network may be bridged to.
fn host_links(links: &[Link], addresses: &[Address], routes: &[Route]) -> BTreeMap<LinkName, HostLink> {
    if !rustix::process::geteuid().is_root() {
        return BTreeMap::new();
    }
    // A nic that was lent to an engine which died has come back with its mark.
    let is_free = |link: &Link| match Mark::parse(&link.alias) {
        None => true,
        Some(Mark::Bridged(_, real, _)) => real == link.name,
        Some(Mark::Network(_) | Mark::Nic(_) | Mark::Uplink(_)) => false,
    };
    let usable = links.iter().filter(|link| is_free(link) && link.name.as_str() != "lo");
    let described = usable.map(|link| {
        let state = match link.kind {
            LinkKind::Bridge => HostLink::Bridge,
            LinkKind::Veth | LinkKind::Tun | LinkKind::Other(_) => {
                use_of(link, links, addresses, routes).map_or(HostLink::Idle, HostLink::InUse)
            }
        };
        (link.name.clone(), state)
    });
    described.collect()
}

/// What this computer has of a link that would be lost if the link went: a link that is lent is moved.
fn use_of(link: &Link, links: &[Link], addresses: &[Address], routes: &[Route]) -> Option<String> {
    let address = addresses.iter().find(|a| a.link == link.name && !is_link_local(a.address));
    let leads_by = |route: &&Route| match &route.by {
        Hop::Via(_, by) | Hop::Link(by) => {
            *by == link.name && route.table != LOCAL_TABLE && !is_link_local(route.to)
        }
        Hop::NoLink | Hop::Local => false,
    };
    let upon = links.iter().find(|other| other.parent == Some(link.index));
    let master = links.iter().find(|other| Some(other.index) == link.master);
    let alias = Some(&link.alias).filter(|alias| !alias.is_empty() && Mark::parse(alias).is_none());
    None.or(address.map(|address| format!("it has address {}", address.address)))
        .or(master.map(|master| format!("it is a port of `{}`", master.name)))
        .or(upon.map(|upon| format!("`{}` stands on it", upon.name)))
        .or(routes.iter().find(leads_by).map(|route| format!("the route to {} leads by it", route.to)))
        .or(alias.map(|alias| format!("it has the alias `{}`", alias.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::mark::Before;

    fn route(to: &str, via: Option<&str>, link: &str) -> Route {
        let link: LinkName = link.parse().unwrap();
        let by = via.map_or(Hop::Link(link.clone()), |via| Hop::Via(via.parse().unwrap(), link.clone()));
        Route { to: to.parse().unwrap(), by, table: MAIN_TABLE }
    }

    #[test]
    fn a_link_of_which_the_computer_has_something_is_not_lent() {
        let link = |index: u32, name: &str, alias: &str| Link {
            index,
            name: name.parse().unwrap(),
            alias: alias.to_owned(),
            kind: LinkKind::Other(String::new()),
            mac: None,
            mtu: 1500,
            group: 0,
            peer: None,
            parent: None,
            master: None,
            bridge: None,
            up: true,
            carrier: true,
            operational: true,
            peer_netns: None,
        };
        let address = |text: &str| Address { link: "lan0".parse().unwrap(), address: text.parse().unwrap() };
        let plain = link(2, "lan0", "");
        let told = |nic: &Link, others: &[Link], address: Option<Address>, route: Option<Route>| {
            use_of(nic, others, address.as_slice(), route.as_slice())
        };
        assert_eq!(
            told(&plain, &[], Some(address("fe80::1/64")), Some(route("fe80::/64", None, "lan0"))),
            None
        );
        assert_eq!(told(&plain, &[], None, Some(route("192.0.2.0/24", None, "lan1"))), None);
        let say = |said: Option<String>| said.unwrap_or_default();
        assert_eq!(
            say(told(&plain, &[], Some(address("192.0.2.2/24")), None)),
            "it has address 192.0.2.2/24"
        );
        let by = route("203.0.113.0/24", None, "lan0");
        assert_eq!(say(told(&plain, &[], None, Some(by))), "the route to 203.0.113.0/24 leads by it");
        let vlan = Link { parent: Some(2), ..link(3, "lan0.7", "") };
        assert_eq!(say(told(&plain, std::slice::from_ref(&vlan), None, None)), "`lan0.7` stands on it");
        assert_eq!(told(&vlan, std::slice::from_ref(&plain), None, None), None);
        let port = Link { master: Some(4), ..plain.clone() };
        assert_eq!(say(told(&port, &[link(4, "bond0", "")], None, None)), "it is a port of `bond0`");
        assert_eq!(say(told(&link(2, "lan0", "hello"), &[], None, None)), "it has the alias `hello`");
        let returned =
            Mark::Bridged("lan.shop".parse().unwrap(), "lan0".parse().unwrap(), Before::Up).to_string();
        assert_eq!(told(&link(2, "lan0", &returned), &[], None, None), None);
    }

    #[test]
    fn pasta_is_told_what_it_does_not_find_and_loses_no_ipv4_by_that() {
        let v4 = |link: &str| route("0.0.0.0/0", Some("192.0.2.1"), link);
        let v6 = |link: &str| route("::/0", Some("2001:db8::1"), link);
        let addresses: Vec<Address> = ["a", "b"]
            .into_iter()
            .flat_map(|link| {
                ["192.0.2.2/24", "fe80::2/64", "2001:db8::2/64"]
                    .map(|address| Address { link: link.parse().unwrap(), address: address.parse().unwrap() })
            })
            .collect();
        let told = |main: &[Route], v4: &[Route], v6: &[Route]| {
            let way = way_to_tell(main, &[v4.to_vec(), v6.to_vec()], &addresses)?;
            let ends = way.ends.iter().map(|(own, router)| format!(" {own}>{router}"));
            Some(format!("{}{}", way.link, ends.collect::<String>()))
        };
        let both4 = [v4("a"), v4("b")];
        // It finds both, or there is nothing.
        assert_eq!(told(&[v4("a"), v6("b")], &[v4("a")], &[v6("b")]), None);
        assert_eq!(told(&[], &[], &[]), None);
        // Several routers, or another table.
        assert_eq!(told(&both4, &both4, &[]).unwrap(), "a 192.0.2.2>192.0.2.1");
        assert_eq!(told(&[], &[v4("b")], &[]).unwrap(), "b 192.0.2.2>192.0.2.1");
        assert_eq!(
            told(&[], &[v4("a")], &[v6("a")]).unwrap(),
            "a 192.0.2.2>192.0.2.1 2001:db8::2>2001:db8::1"
        );
        // One of two, and the other by the same link, or by another one.
        assert_eq!(
            told(&[v6("a")], &both4, &[v6("a")]).unwrap(),
            "a 192.0.2.2>192.0.2.1 2001:db8::2>2001:db8::1"
        );
        assert_eq!(told(&[v6("b")], &[v4("a")], &[v6("b")]).unwrap(), "a 192.0.2.2>192.0.2.1");
        assert_eq!(
            told(&[v4("a")], &[v4("a")], &[v6("a")]).unwrap(),
            "a 192.0.2.2>192.0.2.1 2001:db8::2>2001:db8::1"
        );
        assert_eq!(told(&[v4("a")], &[v4("a")], &[v6("b")]), None);
        // A link without a router: the other one is told, or nothing.
        let ppp = route("0.0.0.0/0", None, "a");
        assert_eq!(told(&[], std::slice::from_ref(&ppp), &[]), None);
        assert_eq!(told(&[v6("b")], std::slice::from_ref(&ppp), &[v6("b")]), None);
        assert_eq!(told(&[], &[ppp], &[v6("b")]).unwrap(), "b 2001:db8::2>2001:db8::1");
    }
}
