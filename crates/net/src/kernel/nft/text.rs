//! Tables as `nft list table` (1.0.6) prints them.

use std::fmt::{self, Display, Formatter};

use super::*;

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        let sets = self.sets.iter().map(ToString::to_string);
        let chains = self.chains.iter().map(ToString::to_string);
        let parts: Vec<_> = sets.chain(chains).collect();
        writeln!(f, "{}}}", parts.join("\n"))
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tset {} {{", self.name)?;
        writeln!(f, "\t\ttype {}", joined(&self.key, " . "))?;
        match &self.filled {
            Filled::ByUs(elements) if elements.is_empty() => {}
            Filled::ByUs(elements) => {
                let elements: Vec<_> = elements.iter().map(|element| joined(element, " . ")).collect();
                writeln!(f, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "))?;
            }
            Filled::ByRules { timeout_s, size } => {
                writeln!(
                    f,
                    "\t\tsize {size}\n\t\tflags dynamic,timeout\n\t\ttimeout {}",
                    duration(*timeout_s)
                )?;
            }
        }
        writeln!(f, "\t}}")
    }
}

impl Display for KeyType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ifname => "ifname",
            Self::EtherAddr => "ether_addr",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
        })
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(base) = self.base {
            writeln!(f, "\t\t{base}")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{}", joined(rule, " "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let priority = match self.priority {
            Priority::Mangle => "mangle",
            Priority::Filter => "filter",
            Priority::Dstnat => "dstnat",
            Priority::Srcnat => "srcnat",
        };
        let policy = match self.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        write!(f, "type {} hook {hook} priority {priority}; policy {policy};", self.priority.chain_type())
    }
}

impl Priority {
    /// The type of chain that has its place there.
    pub(super) fn chain_type(self) -> &'static str {
        match self {
            Self::Mangle | Self::Filter => "filter",
            Self::Dstnat | Self::Srcnat => "nat",
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(field, value) => write!(f, "{field} {value}"),
            Self::IsNot(field, value) => write!(f, "{field} != {value}"),
            Self::In(fields, set) => write!(f, "{} @{set}", joined(fields, " . ")),
            Self::NotIn(fields, set) => write!(f, "{} != @{set}", joined(fields, " . ")),
            Self::Ct(states) => write!(f, "ct state {}", joined(states, ",")),
            Self::SocketTransparent => write!(f, "socket transparent 1"),
            Self::OverLimit { set, key, per_second, burst } => {
                write!(f, "add @{set} {{ {key} limit rate over {per_second}/second burst {burst} packets }}")
            }
            Self::SetMark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::Masquerade => write!(f, "masquerade"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Accept => write!(f, "accept"),
            Self::Drop => write!(f, "drop"),
            Self::Return => write!(f, "return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for CtState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Established => "established",
            Self::Related => "related",
        })
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iifname => "iifname",
            Self::Oifname => "oifname",
            Self::EtherType => "meta protocol",
            Self::PacketType => "meta pkttype",
            Self::EtherSaddr => "ether saddr",
            Self::ArpSaddrEther => "arp saddr ether",
            Self::ArpSaddrIp => "arp saddr ip",
            Self::IpSaddr => "ip saddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::L4Proto => "meta l4proto",
            Self::UdpSport => "udp sport",
            Self::UdpDport => "udp dport",
            Self::TcpDport => "tcp dport",
            Self::Icmpv6Type => "icmpv6 type",
            Self::NdTarget => "@th,64,128",
            Self::NdTargetPrefix => "@th,64,64",
        })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "\"{name}\""),
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::V4(address) => write!(f, "{address}"),
            Self::V4Net(net) => write!(f, "{net}"),
            Self::V6(address) => write!(f, "{address}"),
            Self::V6Net(net) => write!(f, "{net}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::EtherType(kind) => f.write_str(match kind {
                EtherType::Arp => "arp",
                EtherType::Ip => "ip",
                EtherType::Ip6 => "ip6",
            }),
            Self::Protocol(protocol) => f.write_str(match protocol {
                Protocol::Icmp => "icmp",
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Icmpv6 => "ipv6-icmp",
            }),
            Self::Icmpv6(message) => f.write_str(match message {
                Icmpv6::ListenerReport => "mld-listener-report",
                Icmpv6::ListenerDone => "mld-listener-done",
                Icmpv6::ListenerReport2 => "mld2-listener-report",
                Icmpv6::RouterSolicit => "nd-router-solicit",
                Icmpv6::RouterAdvert => "nd-router-advert",
                Icmpv6::NeighborSolicit => "nd-neighbor-solicit",
                Icmpv6::NeighborAdvert => "nd-neighbor-advert",
                Icmpv6::Redirect => "nd-redirect",
            }),
            Self::PacketType(kind) => f.write_str(match kind {
                PacketType::Broadcast => "broadcast",
                PacketType::Multicast => "multicast",
            }),
            Self::Raw64(value) => write!(f, "{value:#x}"),
        }
    }
}

/// A time as nft writes it: whole minutes, or seconds.
fn duration(seconds: u32) -> String {
    match (seconds / 60, seconds % 60) {
        (0, rest) => format!("{rest}s"),
        (minutes, 0) => format!("{minutes}m"),
        (minutes, rest) => format!("{minutes}m{rest}s"),
    }
}

pub(super) fn joined<T: Display>(parts: &[T], between: &str) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}
