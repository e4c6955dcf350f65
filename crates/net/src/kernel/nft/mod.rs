//! nftables' tables as values. `Display` gives the very text that `nft list table` prints, so that a
//! person can read what a test expects and what this computer has; [`NftSocket`] sends the same value to
//! the kernel. Only what our own rules need is here: each field and statement added needs both.

mod expr;
mod lacks;
mod socket;
mod text;
mod wire;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use stead_model::address::Mac;
use stead_model::name::LinkName;

pub use socket::{NftRequest, NftSocket, SeenChain, SeenTable, explained};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6, where they are routed.
    Inet,
    /// Frames, where they are bridged.
    Bridge,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Its sets, which rules refer to by name.
    pub sets: Vec<Set>,
    /// Its chains, in which rules refer to each other's chains by name.
    pub chains: Vec<Chain>,
}

/// A set: what rules look values up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// What an element is made of.
    pub key: Vec<KeyType>,
    /// Who fills it.
    pub filled: Filled,
}

/// Who fills a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    /// We do.
    ByUs(Vec<Element>),
    /// Rules do ([`Expr::OverLimit`]); what is not seen for so long is forgotten.
    ByRules {
        /// How long, in seconds.
        timeout_s: u32,
        /// The most elements: memory that a machine can make us use.
        size: u32,
    },
}

/// What a part of an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// A link's name.
    Ifname,
    /// A MAC.
    EtherAddr,
    /// An IPv4 address.
    Ipv4Addr,
    /// An IPv6 address.
    Ipv6Addr,
}

/// An element of a set, part by part.
pub type Element = Vec<Value>;

/// Elements of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: &'static str,
    /// The set.
    pub set: &'static str,
    /// The elements.
    pub elements: Vec<Element>,
}

/// Something that a packet's field is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A link's name.
    Name(LinkName),
    /// A MAC.
    Mac(Mac),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// IPv4 addresses.
    V4Net(Ipv4Net),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// IPv6 addresses.
    V6Net(Ipv6Net),
    /// A port.
    Port(u16),
    /// What a frame holds.
    EtherType(EtherType),
    /// What a packet holds.
    Protocol(Protocol),
    /// What an ICMPv6 message says.
    Icmpv6(Icmpv6),
    /// Whom a frame is for.
    PacketType(PacketType),
    /// Eight bytes, as they are in the packet.
    Raw64(u64),
}

/// Whom a frame is for, by its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// Everybody.
    Broadcast,
    /// A group.
    Multicast,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EtherType {
    /// ARP.
    Arp,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

/// What a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// ICMP.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMPv6.
    Icmpv6,
}

/// What an ICMPv6 message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Icmpv6 {
    /// I listen to this group (MLDv1).
    ListenerReport,
    /// I listen no longer (MLDv1).
    ListenerDone,
    /// I listen to these groups (MLDv2).
    ListenerReport2,
    /// Are there routers?
    RouterSolicit,
    /// I am a router.
    RouterAdvert,
    /// Who has this address?
    NeighborSolicit,
    /// I have this address.
    NeighborAdvert,
    /// Another router is better.
    Redirect,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The link it came in by.
    Iifname,
    /// The link it leaves by.
    Oifname,
    /// What the frame holds.
    EtherType,
    /// Whom the frame is for.
    PacketType,
    /// The frame's sender.
    EtherSaddr,
    /// The MAC that an ARP message says its sender has.
    ArpSaddrEther,
    /// The address that an ARP message says its sender has.
    ArpSaddrIp,
    /// The sender's IPv4 address.
    IpSaddr,
    /// The sender's IPv6 address.
    Ip6Saddr,
    /// The IPv4 address that it is sent to.
    IpDaddr,
    /// The IPv6 address that it is sent to.
    Ip6Daddr,
    /// What the packet holds.
    L4Proto,
    /// UDP's source port.
    UdpSport,
    /// UDP's destination port.
    UdpDport,
    /// TCP's destination port.
    TcpDport,
    /// What an ICMPv6 message says.
    Icmpv6Type,
    /// The address that a neighbour solicitation or advertisement is about.
    NdTarget,
    /// The prefix of that address.
    NdTargetPrefix,
}

/// What connection tracking says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtState {
    /// Of no connection and not fit to begin one.
    Invalid,
    /// Of a connection that has been answered.
    Established,
    /// Of one that follows from such a connection.
    Related,
}

/// A part of a rule: a condition, or something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// The field has this value.
    Is(Field, Value),
    /// The field has another value.
    IsNot(Field, Value),
    /// The fields together are in the set.
    In(Vec<Field>, &'static str),
    /// The fields together are not in the set.
    NotIn(Vec<Field>, &'static str),
    /// The packet is in one of these states.
    Ct(Vec<CtState>),
    /// A socket of this computer that speaks with another's address waits for the packet.
    SocketTransparent,
    /// More packets of this key than so many came; the set, which rules fill, holds the count of each.
    OverLimit {
        /// The set.
        set: &'static str,
        /// What is counted apart.
        key: Field,
        /// How many may come every second, for long.
        per_second: u32,
        /// How many more may come at once.
        burst: u32,
    },
    /// Sets the packet's mark.
    SetMark(u32),
    /// Sends the packet on with the address of the link it leaves by.
    Masquerade,
    /// Hands the packet to this port of ours, whichever it was sent to.
    Redirect(u16),
    /// Lets the packet pass this hook.
    Accept,
    /// Throws the packet away.
    Drop,
    /// Goes back to the calling chain.
    Return,
    /// Goes through another chain and comes back.
    Jump(String),
    /// Goes through another chain instead of this one.
    Goto(String),
}

/// A rule: conditions, then what to do.
pub type Rule = Vec<Expr>;

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets enter it; other chains' rules lead to it where absent.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The place.
    pub hook: Hook,
    /// The order among the chains of the place.
    pub priority: Priority,
    /// What happens to what no rule decides on.
    pub policy: Policy,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// All that comes in.
    Prerouting,
    /// What is for this computer.
    Input,
    /// What passes through.
    Forward,
    /// What this computer sends.
    Output,
    /// All that goes out.
    Postrouting,
}

/// The order among the chains of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Before routing is decided, where marks are set.
    Mangle,
    /// The usual one.
    Filter,
    /// Before routing is decided, where destinations are changed; the chain is of the type `nat`.
    Dstnat,
    /// Last, where source addresses are changed; the chain is of the type `nat`.
    Srcnat,
}

/// What happens to what no rule of a chain decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It passes.
    Accept,
    /// It is thrown away.
    Drop,
}
