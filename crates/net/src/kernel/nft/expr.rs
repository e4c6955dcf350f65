//! The expressions of a rule: each loads something into registers, compares registers, or does something.

use super::wire::{DATA_VALUE, DATA_VERDICT, EXPR_DATA, EXPR_NAME, LIST_ELEM, length32};
use super::*;
use crate::kernel::tlv::Message;

/// The first of the sixteen registers of four bytes.
const REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

const META: &str = "meta";
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const KEY_PROTOCOL: u32 = 1;
const KEY_MARK: u32 = 3;
const KEY_IIFNAME: u32 = 6;
const KEY_OIFNAME: u32 = 7;
const KEY_NFPROTO: u32 = 15;
const KEY_L4PROTO: u32 = 16;
const KEY_PKTTYPE: u32 = 19;

/// What the conditions of a rule so far say about the packet, which need not be said again.
#[derive(Default)]
struct Known {
    network: Option<EtherType>,
    transport: Option<Protocol>,
}

/// Adds the expressions of a rule to a list.
pub(super) fn rule(list: &mut Message, family: Family, rule: &[Expr]) {
    let mut known = Known::default();
    for part in rule {
        match part {
            Expr::Is(field, value) => compare(list, family, &mut known, (*field, value, CMP_EQ)),
            Expr::IsNot(field, value) => compare(list, family, &mut known, (*field, value, CMP_NEQ)),
            Expr::In(fields, set) => lookup(list, family, &mut known, (fields, set, 0)),
            Expr::NotIn(fields, set) => lookup(list, family, &mut known, (fields, set, LOOKUP_INVERTED)),
            Expr::OverLimit { set, key, per_second, burst } => {
                require(list, family, &mut known, *key);
                load(list, *key, REGISTER);
                over_limit(list, set, *per_second, *burst);
            }
            Expr::Ct(states) => ct_state(list, states),
            Expr::SocketTransparent => {
                expression(list, "socket", |data| {
                    data.put_be32(1, 0);
                    data.put_be32(2, REGISTER);
                });
                cmp(list, CMP_EQ, &[1]);
            }
            Expr::SetMark(mark) => {
                expression(list, "immediate", |data| {
                    data.put_be32(1, REGISTER);
                    data.nest(2, |value| value.put(DATA_VALUE, &mark.to_ne_bytes()));
                });
                expression(list, META, |data| {
                    data.put_be32(META_KEY, KEY_MARK);
                    data.put_be32(META_SREG, REGISTER);
                });
            }
            Expr::Masquerade => expression(list, "masq", |_| ()),
            Expr::Redirect(port) => redirect(list, *port),
            Expr::Accept => verdict(list, 1, None),
            Expr::Drop => verdict(list, 0, None),
            Expr::Return => verdict(list, -5, None),
            Expr::Jump(chain) => verdict(list, -3, Some(chain)),
            Expr::Goto(chain) => verdict(list, -4, Some(chain)),
        }
    }
}

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(LIST_ELEM, |entry| {
        entry.put_text(EXPR_NAME, name);
        entry.nest(EXPR_DATA, fill);
    });
}

fn compare(list: &mut Message, family: Family, known: &mut Known, part: (Field, &Value, u32)) {
    let (field, value, operation) = part;
    require(list, family, known, field);
    load(list, field, REGISTER);
    if let Some(mask) = value.mask() {
        mask_register(list, &mask);
    }
    cmp(list, operation, &value.bytes());
    if operation == CMP_EQ {
        if let Value::EtherType(kind) = value {
            known.network = Some(*kind);
        }
        if let Value::Protocol(protocol) = value {
            known.transport = Some(*protocol);
        }
    }
}

const LOOKUP_INVERTED: u32 = 1;

fn lookup(list: &mut Message, family: Family, known: &mut Known, part: (&[Field], &str, u32)) {
    let (fields, set, flags) = part;
    for field in fields {
        require(list, family, known, *field);
    }
    let mut register = REGISTER;
    for field in fields {
        load(list, *field, register);
        register += field.registers();
    }
    expression(list, "lookup", |data| {
        data.put_text(1, set);
        data.put_be32(2, REGISTER);
        if flags != 0 {
            data.put_be32(5, flags);
        }
    });
}

/// Adds the conditions without which the packet does not have the field.
fn require(list: &mut Message, family: Family, known: &mut Known, field: Field) {
    let (network, transport) = match field {
        Field::Iifname | Field::Oifname | Field::EtherType | Field::PacketType => (None, None),
        Field::EtherSaddr | Field::L4Proto => (None, None),
        // These stand after a condition on the ICMPv6 type.
        Field::NdTarget | Field::NdTargetPrefix => (None, None),
        Field::ArpSaddrEther | Field::ArpSaddrIp => (Some(EtherType::Arp), None),
        Field::IpSaddr | Field::IpDaddr => (Some(EtherType::Ip), None),
        Field::Ip6Saddr | Field::Ip6Daddr => (Some(EtherType::Ip6), None),
        Field::UdpSport | Field::UdpDport => (None, Some(Protocol::Udp)),
        Field::TcpDport => (None, Some(Protocol::Tcp)),
        Field::Icmpv6Type => (None, Some(Protocol::Icmpv6)),
    };
    if let Some(kind) = network.filter(|kind| known.network != Some(*kind)) {
        match family {
            Family::Bridge => {
                meta(list, KEY_PROTOCOL, REGISTER);
                cmp(list, CMP_EQ, &kind.number().to_be_bytes());
            }
            Family::Inet => {
                meta(list, KEY_NFPROTO, REGISTER);
                cmp(list, CMP_EQ, &[if kind == EtherType::Ip6 { 10 } else { 2 }]);
            }
        }
        known.network = Some(kind);
    }
    if let Some(protocol) = transport.filter(|protocol| known.transport != Some(*protocol)) {
        meta(list, KEY_L4PROTO, REGISTER);
        cmp(list, CMP_EQ, &[protocol.number()]);
        known.transport = Some(protocol);
    }
}

/// Where a field is in the packet: the header, and its offset and length there in bytes.
enum Place {
    Meta(u32, u32),
    Payload(u32, u32, u32),
}

const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

impl Field {
    fn place(self) -> Place {
        match self {
            Self::Iifname => Place::Meta(KEY_IIFNAME, 16),
            Self::Oifname => Place::Meta(KEY_OIFNAME, 16),
            Self::EtherType => Place::Meta(KEY_PROTOCOL, 2),
            Self::L4Proto => Place::Meta(KEY_L4PROTO, 1),
            Self::PacketType => Place::Meta(KEY_PKTTYPE, 1),
            Self::EtherSaddr => Place::Payload(LINK_HEADER, 6, 6),
            Self::ArpSaddrEther => Place::Payload(NETWORK_HEADER, 8, 6),
            Self::ArpSaddrIp => Place::Payload(NETWORK_HEADER, 14, 4),
            Self::IpSaddr => Place::Payload(NETWORK_HEADER, 12, 4),
            Self::Ip6Saddr => Place::Payload(NETWORK_HEADER, 8, 16),
            Self::IpDaddr => Place::Payload(NETWORK_HEADER, 16, 4),
            Self::Ip6Daddr => Place::Payload(NETWORK_HEADER, 24, 16),
            Self::UdpSport => Place::Payload(TRANSPORT_HEADER, 0, 2),
            Self::UdpDport | Self::TcpDport => Place::Payload(TRANSPORT_HEADER, 2, 2),
            Self::Icmpv6Type => Place::Payload(TRANSPORT_HEADER, 0, 1),
            Self::NdTarget => Place::Payload(TRANSPORT_HEADER, 8, 16),
            Self::NdTargetPrefix => Place::Payload(TRANSPORT_HEADER, 8, 8),
        }
    }

    /// How many registers of four bytes it takes.
    fn registers(self) -> u32 {
        match self.place() {
            Place::Meta(_, bytes) | Place::Payload(_, _, bytes) => bytes.div_ceil(4),
        }
    }
}

fn load(list: &mut Message, field: Field, register: u32) {
    match field.place() {
        Place::Meta(key, _) => meta(list, key, register),
        Place::Payload(base, offset, length) => expression(list, "payload", |data| {
            data.put_be32(1, register);
            data.put_be32(2, base);
            data.put_be32(3, offset);
            data.put_be32(4, length);
        }),
    }
}

fn meta(list: &mut Message, key: u32, register: u32) {
    expression(list, META, |data| {
        data.put_be32(META_KEY, key);
        data.put_be32(META_DREG, register);
    });
}

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

fn cmp(list: &mut Message, operation: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.put_be32(1, REGISTER);
        data.put_be32(2, operation);
        data.nest(3, |data| data.put(DATA_VALUE, value));
    });
}

fn mask_register(list: &mut Message, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.put_be32(1, REGISTER);
        data.put_be32(2, REGISTER);
        data.put_be32(3, length32(mask.len()));
        data.nest(4, |data| data.put(DATA_VALUE, mask));
        data.nest(5, |data| data.put(DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn ct_state(list: &mut Message, states: &[CtState]) {
    let bits = states.iter().fold(0_u32, |bits, state| {
        bits | match state {
            CtState::Invalid => 1,
            CtState::Established => 2,
            CtState::Related => 4,
        }
    });
    expression(list, "ct", |data| {
        data.put_be32(1, REGISTER);
        data.put_be32(2, 0);
    });
    mask_register(list, &bits.to_ne_bytes());
    cmp(list, CMP_NEQ, &[0; 4]);
}

/// Counts the key in the set, each key with a limit of its own; the rule goes on only above it.
fn over_limit(list: &mut Message, set: &str, per_second: u32, burst: u32) {
    expression(list, "dynset", |data| {
        data.put_text(1, set);
        data.put_be32(3, 0);
        data.put_be32(4, REGISTER);
        data.nest(7, |limit| {
            limit.put_text(EXPR_NAME, "limit");
            limit.nest(EXPR_DATA, |data| {
                data.put(1, &u64::from(per_second).to_be_bytes());
                data.put(2, &1_u64.to_be_bytes());
                data.put_be32(3, burst);
                data.put_be32(4, 0);
                data.put_be32(5, 1);
            });
        });
    });
}

fn redirect(list: &mut Message, port: u16) {
    expression(list, "immediate", |data| {
        data.put_be32(1, REGISTER);
        data.nest(2, |value| value.put(DATA_VALUE, &port.to_be_bytes()));
    });
    expression(list, "redir", |data| {
        data.put_be32(1, REGISTER);
        data.put_be32(3, PROTO_SPECIFIED);
    });
}

/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the port is said.
const PROTO_SPECIFIED: u32 = 2;

fn verdict(list: &mut Message, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.put_be32(1, VERDICT_REGISTER);
        data.nest(2, |value| {
            value.nest(DATA_VERDICT, |verdict| {
                verdict.put(1, &code.to_be_bytes());
                if let Some(chain) = chain {
                    verdict.put_text(2, chain);
                }
            });
        });
    });
}
