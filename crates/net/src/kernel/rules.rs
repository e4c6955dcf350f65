//! Our own rules, as values. In the engine's namespace the two tables stay as they are from its beginning to
//! its end, and networks and nics are elements of their sets: adding a nic costs a few elements and no
//! rule, and every packet passes a dozen rules however many nics there are.

mod calls;
mod host;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use stead_model::address::Mac;
use stead_model::name::LinkName;

use super::nft::{
    Base, Chain, CtState, Element, Elements, EtherType, Expr, Family, Field, Filled, Hook, Icmpv6, KeyType,
    PacketType, Policy, Priority, Protocol, Rule, Set, Table, Value,
};

pub use self::calls::{CALLS_PORT, call_chains};
pub use self::host::{HostUplink, host_chain_names, host_chains};

/// The name of our tables.
pub const TABLE: &str = "stead";
/// The link in the engine's namespace that leads out.
pub const UPLINK: &str = "uplink";
/// The mark of packets for a transparent socket of ours; a routing rule leads them to [`PROXY_TABLE`].
pub const PROXY_MARK: u32 = 1;
/// The routing table in which every address is this computer.
pub const PROXY_TABLE: u32 = 100;

/// How many questions of one port we take, for long and at once.
struct Limit {
    set: &'static str,
    per_second: u32,
    burst: u32,
}

/// More than the four messages of an exchange for each of ten machines behind one port, every second. Solicitations of
/// routers count as well: a machine sends a few when its link comes up.
const DHCP: Limit = Limit { set: "dhcp", per_second: 50, burst: 100 };
/// More than the names that ten machines look up, and less than what makes the others' questions get lost.
const DNS: Limit = Limit { set: "dns", per_second: 1000, burst: 1000 };
/// A port that has been silent for so long has its burst again anyway.
const FORGET_S: u32 = 60;
/// Ports of one kernel's bridges.
const PORTS_MAX: u32 = 65_535;

/// A network, as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRules {
    /// Its bridge.
    pub bridge: LinkName,
    /// The bridge's MAC, whose link-local address no machine may take.
    pub mac: Mac,
    /// Whether machines reach what is beyond the uplink.
    pub nat: bool,
    /// Whether we serve DHCP, DNS and TFTP there.
    pub served: bool,
    /// Our address there.
    pub gateway: Option<Ipv4Addr>,
    /// Our address there.
    pub gateway6: Option<Ipv6Addr>,
    /// The bridges of the networks that it is joined to.
    pub joins: Vec<LinkName>,
}

/// A nic, as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicRules {
    /// The bridge's port that it is behind.
    pub port: LinkName,
    /// What it may use.
    pub guard: NicGuard,
    /// The addresses from which its machine reaches this computer, each on the network of a bridge.
    pub calls: Vec<(LinkName, IpAddr)>,
}

/// What a nic may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicGuard {
    /// This MAC and these addresses, and link-local addresses that are nobody else's.
    Addresses(Mac, Vec<Ipv4Addr>, Vec<Ipv6Addr>),
    /// This MAC, and any address.
    MacOnly(Mac),
    /// Anything.
    Off,
}

/// The table of the engine's namespace for what is routed.
pub fn engine_table() -> Table {
    Table {
        family: Family::Inet,
        name: TABLE,
        sets: vec![
            set("joins", &[KeyType::Ifname, KeyType::Ifname]),
            set("nat", &[KeyType::Ifname]),
            set("served", &[KeyType::Ifname]),
            set("gateways4", &[KeyType::Ifname, KeyType::Ipv4Addr]),
            set("gateways6", &[KeyType::Ifname, KeyType::Ipv6Addr]),
            set("callers4", &[KeyType::Ifname, KeyType::Ipv4Addr]),
            set("callers6", &[KeyType::Ifname, KeyType::Ipv6Addr]),
        ],
        chains: vec![
            proxy_chain(),
            input_chain(),
            served_chain(),
            gateway_chain(),
            forward_chain(),
            masquerade_chain(),
        ],
    }
}

/// Answers to connections that our forwarder made with a client's address come back to it.
fn proxy_chain() -> Chain {
    base(
        "proxy",
        Hook::Prerouting,
        Priority::Mangle,
        Policy::Accept,
        vec![vec![Expr::SocketTransparent, Expr::SetMark(PROXY_MARK), Expr::Accept]],
    )
}

/// Machines reach only what we serve, and the outside reaches nothing.
fn input_chain() -> Chain {
    let from_uplink = |protocol| vec![is(Field::Iifname, uplink()), l4(protocol), Expr::Accept];
    base(
        "input",
        Hook::Input,
        Priority::Filter,
        Policy::Drop,
        vec![
            vec![known_connection(), Expr::Accept],
            vec![Expr::Ct(vec![CtState::Invalid]), Expr::Drop],
            vec![is(Field::Iifname, name("lo")), Expr::Accept],
            vec![Expr::In(vec![Field::Iifname], "served"), Expr::Goto("services".into())],
            from_uplink(Protocol::Icmp),
            from_uplink(Protocol::Icmpv6),
        ],
    )
}

/// Addresses are given out by broadcast and multicast; all else is at our address on the machine's own network.
/// Our others answer nothing there, or a machine could find out which networks there are.
fn served_chain() -> Chain {
    let at_own = |field, set| vec![Expr::In(vec![Field::Iifname, field], set), Expr::Goto("gateway".into())];
    let neighbours = |net| vec![is(Field::Ip6Daddr, Value::V6Net(net)), l4(Protocol::Icmpv6), Expr::Accept];
    let mut rules: Vec<Rule> =
        [67, 547].map(|port| vec![is(Field::UdpDport, Value::Port(port)), Expr::Accept]).into();
    rules.push(at_own(Field::IpDaddr, "gateways4"));
    rules.push(at_own(Field::Ip6Daddr, "gateways6"));
    rules.extend([LINK_LOCAL, MULTICAST].map(neighbours));
    plain("services", rules)
}

fn gateway_chain() -> Chain {
    let udp = [53, 69].map(|port| vec![is(Field::UdpDport, Value::Port(port)), Expr::Accept]);
    let mut rules: Vec<Rule> = udp.into();
    rules.push(vec![is(Field::TcpDport, Value::Port(53)), Expr::Accept]);
    rules.extend(calls::accepted());
    rules.push(vec![l4(Protocol::Icmp), Expr::Accept]);
    rules.push(vec![l4(Protocol::Icmpv6), Expr::Accept]);
    plain("gateway", rules)
}

/// What passes is asked of the sets each time, connections that stand included: one that the file no longer allows
/// ends with the change. Joins are both ways, so only what comes from outside has to be an answer.
fn forward_chain() -> Chain {
    let answers = vec![
        is(Field::Iifname, uplink()),
        Expr::In(vec![Field::Oifname], "nat"),
        known_connection(),
        Expr::Accept,
    ];
    base(
        "forward",
        Hook::Forward,
        Priority::Filter,
        Policy::Drop,
        vec![
            vec![Expr::Ct(vec![CtState::Invalid]), Expr::Drop],
            vec![Expr::In(vec![Field::Iifname, Field::Oifname], "joins"), Expr::Accept],
            vec![Expr::In(vec![Field::Iifname], "nat"), is(Field::Oifname, uplink()), Expr::Accept],
            answers,
        ],
    )
}

fn masquerade_chain() -> Chain {
    let rule = vec![is(Field::Oifname, uplink()), Expr::Masquerade];
    base("outward", Hook::Postrouting, Priority::Srcnat, Policy::Accept, vec![rule])
}

/// The table of the engine's namespace for what is bridged: no machine speaks for another.
pub fn guard_table() -> Table {
    Table {
        family: Family::Bridge,
        name: TABLE,
        sets: vec![
            set("ports", &[KeyType::Ifname]),
            set("guarded", &[KeyType::Ifname]),
            set("maconly", &[KeyType::Ifname]),
            set("macs", &[KeyType::Ifname, KeyType::EtherAddr]),
            set("addr4", &[KeyType::Ifname, KeyType::Ipv4Addr]),
            set("addr6", &[KeyType::Ifname, KeyType::Ipv6Addr]),
            set("taken", &[KeyType::Ipv6Addr]),
            set("asked4", &[KeyType::Ipv4Addr]),
            set("asked6", &[KeyType::Ipv6Addr]),
            set("self", &[KeyType::Ifname, KeyType::Ifname]),
            counted(&DHCP),
            counted(&DNS),
        ],
        chains: vec![
            ports_chain(),
            asked_chain(),
            echo_chain(),
            guard_chain(),
            arp_chain(),
            ip4_chain(),
            ip6_chain(),
            nd_chain(),
        ],
    }
}

/// A port that floods the servers of addresses is cut back, so that the others are served.
fn ports_chain() -> Chain {
    base(
        "ports",
        Hook::Prerouting,
        Priority::Filter,
        Policy::Accept,
        vec![
            over(&DHCP, is(Field::UdpDport, Value::Port(67))),
            over(&DHCP, is(Field::UdpDport, Value::Port(547))),
            over(&DHCP, is(Field::Icmpv6Type, Value::Icmpv6(Icmpv6::RouterSolicit))),
            vec![Expr::In(vec![Field::Iifname], "maconly"), wrong_mac(Field::EtherSaddr), Expr::Drop],
            vec![Expr::In(vec![Field::Iifname], "guarded"), Expr::Goto("guard".into())],
        ],
    )
}

/// The same for what is asked of us alone, at our addresses: machines may ask each other as much as they like, and whom
/// they reach beyond us, whose packets come to the bridge as well.
fn asked_chain() -> Chain {
    let at_ours = |field, set| {
        let mut rule = over(&DNS, is(Field::UdpDport, Value::Port(53)));
        rule.insert(2, Expr::In(vec![field], set));
        rule
    };
    let rules = vec![at_ours(Field::IpDaddr, "asked4"), at_ours(Field::Ip6Daddr, "asked6")];
    base("asked", Hook::Input, Priority::Filter, Policy::Accept, rules)
}

/// What is over the limit of its port.
fn over(limit: &Limit, what: Expr) -> Rule {
    let Limit { set, per_second, burst } = *limit;
    let over = Expr::OverLimit { set, key: Field::Iifname, per_second, burst };
    vec![Expr::In(vec![Field::Iifname], "ports"), what, over, Expr::Drop]
}

fn counted(limit: &Limit) -> Set {
    let filled = Filled::ByRules { timeout_s: FORGET_S, size: PORTS_MAX };
    Set { name: limit.set, key: vec![KeyType::Ifname], filled }
}

/// A hairpin port would hear all that it says to many: a machine that asks whether its IPv6 address is free took its
/// own question for somebody else's (Linux knows better since 4.0, by RFC 7527; others do not).
fn echo_chain() -> Chain {
    let own = |kind| {
        vec![
            is(Field::PacketType, Value::PacketType(kind)),
            Expr::In(vec![Field::Iifname, Field::Oifname], "self"),
            Expr::Drop,
        ]
    };
    let rules = vec![own(PacketType::Broadcast), own(PacketType::Multicast)];
    base("echo", Hook::Forward, Priority::Filter, Policy::Accept, rules)
}

fn guard_chain() -> Chain {
    let to = |kind, chain: &str| vec![is(Field::EtherType, Value::EtherType(kind)), Expr::Goto(chain.into())];
    plain(
        "guard",
        vec![
            vec![wrong_mac(Field::EtherSaddr), Expr::Drop],
            to(EtherType::Ip, "guard_ip4"),
            to(EtherType::Ip6, "guard_ip6"),
            to(EtherType::Arp, "guard_arp"),
            vec![Expr::Drop],
        ],
    )
}

/// 0.0.0.0 asks whether an address is free.
fn arp_chain() -> Chain {
    plain(
        "guard_arp",
        vec![
            vec![wrong_mac(Field::ArpSaddrEther), Expr::Drop],
            vec![is(Field::ArpSaddrIp, Value::V4(Ipv4Addr::UNSPECIFIED)), Expr::Accept],
            vec![Expr::In(vec![Field::Iifname, Field::ArpSaddrIp], "addr4"), Expr::Accept],
            vec![Expr::Drop],
        ],
    )
}

/// No DHCP server, and no address of others but none at all while asking for one.
fn ip4_chain() -> Chain {
    plain(
        "guard_ip4",
        vec![
            vec![is(Field::UdpSport, Value::Port(67)), Expr::Drop],
            vec![Expr::In(vec![Field::Iifname, Field::IpSaddr], "addr4"), Expr::Accept],
            vec![
                is(Field::IpSaddr, Value::V4(Ipv4Addr::UNSPECIFIED)),
                is(Field::UdpSport, Value::Port(68)),
                is(Field::UdpDport, Value::Port(67)),
                Expr::Accept,
            ],
            vec![Expr::Drop],
        ],
    )
}

/// No DHCP server, no router, no speaking for others' addresses. A guest may draw its link-local address by
/// lot (RFC 7217), so any will do that is not known to be somebody else's.
fn ip6_chain() -> Chain {
    let icmp = |message| is(Field::Icmpv6Type, Value::Icmpv6(message));
    let nobody = || is(Field::Ip6Saddr, Value::V6(Ipv6Addr::UNSPECIFIED));
    let before_address = [
        Icmpv6::NeighborSolicit,
        Icmpv6::RouterSolicit,
        Icmpv6::ListenerReport,
        Icmpv6::ListenerDone,
        Icmpv6::ListenerReport2,
    ];
    let mut rules = vec![
        vec![is(Field::UdpSport, Value::Port(547)), Expr::Drop],
        vec![icmp(Icmpv6::RouterAdvert), Expr::Drop],
        vec![icmp(Icmpv6::Redirect), Expr::Drop],
        vec![icmp(Icmpv6::NeighborAdvert), Expr::Jump("guard_nd".into())],
        vec![nobody(), icmp(Icmpv6::NeighborSolicit), Expr::Jump("guard_nd".into())],
    ];
    rules.extend(before_address.map(|message| vec![nobody(), icmp(message), Expr::Accept]));
    rules.extend([
        vec![Expr::In(vec![Field::Iifname, Field::Ip6Saddr], "addr6"), Expr::Accept],
        vec![Expr::In(vec![Field::Ip6Saddr], "taken"), Expr::Drop],
        vec![is(Field::Ip6Saddr, Value::V6Net(LINK_LOCAL)), Expr::Accept],
        vec![Expr::Drop],
    ]);
    plain("guard_ip6", rules)
}

/// Who claims an address must be allowed it. Duplicate address detection is a claim too: answered for others'
/// addresses, or merely asked, it would keep them from using them.
fn nd_chain() -> Chain {
    plain(
        "guard_nd",
        vec![
            vec![Expr::In(vec![Field::Iifname, Field::NdTarget], "addr6"), Expr::Return],
            vec![Expr::In(vec![Field::NdTarget], "taken"), Expr::Drop],
            vec![is(Field::NdTargetPrefix, Value::Raw64(0xfe80_0000_0000_0000)), Expr::Return],
            vec![Expr::Drop],
        ],
    )
}

/// Where link-local addresses really are (RFC 4291, 2.5.6).
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);

/// All groups of IPv6.
const MULTICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// The elements for a network, to add or to remove. Joins are both ways, and with itself: where the
/// computer sends bridged packets through the forward hook (`bridge-nf-call-iptables`), neighbours are routed back where
/// they came from.
pub fn network_elements(network: &NetworkRules) -> Vec<Elements> {
    let bridge = || Value::Name(network.bridge.clone());
    let mut joins = vec![vec![bridge(), bridge()]];
    for other in &network.joins {
        joins.push(vec![bridge(), Value::Name(other.clone())]);
        joins.push(vec![Value::Name(other.clone()), bridge()]);
    }
    let only_if = |wanted| if wanted { vec![vec![bridge()]] } else { Vec::new() };
    let taken = vec![vec![Value::V6(link_local(network.mac))]];
    let at = |address| vec![bridge(), address];
    // No two networks have one address, so the bridge need not be said.
    let asked4 = network.gateway.into_iter().map(|address| vec![Value::V4(address)]).collect();
    let asked6 = network.gateway6.into_iter().map(|address| vec![Value::V6(address)]).collect();
    let gateways4 = network.gateway.into_iter().map(Value::V4).map(at).collect();
    let gateways6 = network.gateway6.into_iter().map(Value::V6).map(at).collect();
    present([
        elements(Family::Inet, "gateways4", gateways4),
        elements(Family::Inet, "gateways6", gateways6),
        elements(Family::Inet, "joins", joins),
        elements(Family::Inet, "nat", only_if(network.nat)),
        elements(Family::Inet, "served", only_if(network.served)),
        elements(Family::Bridge, "taken", taken),
        elements(Family::Bridge, "asked4", asked4),
        elements(Family::Bridge, "asked6", asked6),
    ])
}

/// The elements for a nic, to add or to remove.
pub fn nic_elements(nic: &NicRules) -> Vec<Elements> {
    let port = || Value::Name(nic.port.clone());
    let on_port = |values: Vec<Value>| values.into_iter().map(|value| vec![port(), value]).collect();
    let list = |set, elements_of| elements(Family::Bridge, set, elements_of);
    let all = list("ports", vec![vec![port()]]);
    // Behind a port with one MAC there is nobody else whom its machine could mean.
    let own = list("self", vec![vec![port(), port()]]);
    let mut elements = calls::elements(&nic.calls);
    elements.extend(match &nic.guard {
        NicGuard::Off => vec![all],
        NicGuard::MacOnly(mac) => {
            let macs = list("macs", on_port(vec![Value::Mac(*mac)]));
            vec![all, own, list("maconly", vec![vec![port()]]), macs]
        }
        NicGuard::Addresses(mac, v4, v6) => {
            let local = link_local(*mac);
            let mut v6: Vec<_> =
                v6.iter().copied().filter(|address| *address != local).map(Value::V6).collect();
            v6.push(Value::V6(local));
            present([
                all,
                own,
                list("guarded", vec![vec![port()]]),
                list("macs", on_port(vec![Value::Mac(*mac)])),
                list("addr4", on_port(v4.iter().copied().map(Value::V4).collect())),
                list("addr6", on_port(v6)),
                list("taken", vec![vec![Value::V6(local)]]),
            ])
        }
    });
    elements
}

/// The link-local address that follows from a MAC.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    mac.slaac(LINK_LOCAL)
}

fn known_connection() -> Expr {
    Expr::Ct(vec![CtState::Established, CtState::Related])
}

fn wrong_mac(field: Field) -> Expr {
    Expr::NotIn(vec![Field::Iifname, field], "macs")
}

fn is(field: Field, value: Value) -> Expr {
    Expr::Is(field, value)
}

fn l4(protocol: Protocol) -> Expr {
    is(Field::L4Proto, Value::Protocol(protocol))
}

fn uplink() -> Value {
    name(UPLINK)
}

fn name(text: &'static str) -> Value {
    Value::Name(text.parse().unwrap_or_else(|_| unreachable!("`{text}` is a lawful link name")))
}

fn set(name: &'static str, key: &[KeyType]) -> Set {
    Set { name, key: key.to_vec(), filled: Filled::ByUs(Vec::new()) }
}

fn base(name: &str, hook: Hook, priority: Priority, policy: Policy, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), base: Some(Base { hook, priority, policy }), rules }
}

fn plain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), base: None, rules }
}

fn elements(family: Family, set: &'static str, elements: Vec<Element>) -> Elements {
    Elements { family, table: TABLE, set, elements }
}

fn present<const N: usize>(all: [Elements; N]) -> Vec<Elements> {
    all.into_iter().filter(|elements| !elements.elements.is_empty()).collect()
}
