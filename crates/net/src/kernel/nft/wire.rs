//! Tables as the kernel takes them (`linux/netfilter/nf_tables.h`). Numbers are in network byte order. The
//! conditions that nft leaves unsaid (`ip saddr` is only there if the packet is IPv4) are added here.

use super::*;
use crate::kernel::socket::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use crate::kernel::tlv::{self, Message, attribute, attributes};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENID: u16 = 1;
pub(super) const NEWTABLE: u16 = 0;
pub(super) const GETTABLE: u16 = 1;
pub(super) const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
pub(super) const GETCHAIN: u16 = 4;
pub(super) const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
pub(super) const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const GETSETELEM: u16 = 13;
pub(super) const DELSETELEM: u16 = 14;
pub(super) const GETGEN: u16 = 16;

pub(super) const LIST_ELEM: u16 = 1;
/// Names of the table and the thing have these types in most messages.
pub(super) const TABLE: u16 = 1;
const SECOND_NAME: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_USES: u16 = 6;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_TIMEOUT: u16 = 11;
const SET_USERDATA: u16 = 13;
const USERDATA_KEY_BYTE_ORDER: u8 = 0;
const SET_DESC_SIZE: u16 = 1;
const SET_FLAG_TIMEOUT: u32 = 0x10;
const SET_FLAG_EVAL: u32 = 0x20;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const EXPR_NAME: u16 = 1;
pub(super) const EXPR_DATA: u16 = 2;

const IFNAME_BYTES: usize = 16;

/// A list of elements is one attribute, which has at most 64 KiB; an element takes at most 60 bytes.
const ELEMENTS_PER_MESSAGE: usize = 500;

impl Family {
    /// The kernel's number.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }
}

/// A message of the nftables subsystem.
pub(super) fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, &[family, 0, 0, 0])
}

/// The messages of a transaction: all or nothing. With a generation, only if the rules are still of it.
pub(super) fn batch(requests: Vec<Message>, generation: Option<u32>) -> Vec<Message> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let header = [0, 0, high, low];
    let mut begin = Message::new(BATCH_BEGIN, NLM_F_REQUEST, &header);
    if let Some(generation) = generation {
        begin.put_be32(BATCH_GENID, generation);
    }
    let mut all = vec![begin];
    all.extend(requests);
    all.push(Message::new(BATCH_END, NLM_F_REQUEST, &header));
    all
}

/// A message about a table.
pub(super) fn table(kind: u16, flags: u16, family: Family, name: &str) -> Message {
    let mut message = message(kind, flags, family.number());
    message.put_text(TABLE, name);
    message
}

/// Everything in a table that does not exist yet.
pub(super) fn whole_table(value: &Table, flags: u16) -> Vec<Message> {
    let mut messages = vec![table(NEWTABLE, NLM_F_CREATE | flags, value.family, value.name)];
    for (id, set) in (1..).zip(&value.sets) {
        messages.push(new_set(value, set, id));
        if let Filled::ByUs(elements) = &set.filled {
            let elements = Elements {
                family: value.family,
                table: value.name,
                set: set.name,
                elements: elements.clone(),
            };
            messages.extend(set_elements(NEWSETELEM, &elements));
        }
    }
    messages.extend(chains(value.family, value.name, &value.chains));
    messages
}

/// Chains, then their rules, which may lead to chains further down.
pub(super) fn chains(family: Family, table_name: &str, chains: &[Chain]) -> Vec<Message> {
    let new = chains.iter().map(|chain| new_chain(family, table_name, chain));
    let rules = chains.iter().flat_map(|chain| {
        chain.rules.iter().map(move |rule| new_rule(family, table_name, &chain.name, rule))
    });
    new.chain(rules).collect()
}

/// A message about a chain, or with `DELRULE` about all of its rules.
pub(super) fn chain(kind: u16, family: Family, table_name: &str, name: &str) -> Message {
    let mut message = table(kind, 0, family, table_name);
    message.put_text(if kind == DELRULE { SECOND_NAME } else { CHAIN_NAME }, name);
    message
}

fn new_chain(family: Family, table_name: &str, chain: &Chain) -> Message {
    let mut message = table(NEWCHAIN, NLM_F_CREATE, family, table_name);
    message.put_text(CHAIN_NAME, &chain.name);
    if let Some(base) = chain.base {
        message.nest(CHAIN_HOOK, |hook| {
            hook.put_be32(HOOK_NUMBER, base.hook as u32);
            hook.put(HOOK_PRIORITY, &base.priority.number(family).to_be_bytes());
        });
        message.put_be32(CHAIN_POLICY, if base.policy == Policy::Accept { 1 } else { 0 });
        message.put_text(CHAIN_TYPE, base.priority.chain_type());
    }
    message
}

impl Priority {
    fn number(self, family: Family) -> i32 {
        match (self, family) {
            (Self::Mangle, _) => -150,
            (Self::Filter, Family::Inet) => 0,
            (Self::Filter, Family::Bridge) => -200,
            (Self::Dstnat, Family::Inet) => -100,
            (Self::Dstnat, Family::Bridge) => -300,
            (Self::Srcnat, Family::Inet) => 100,
            (Self::Srcnat, Family::Bridge) => 300,
        }
    }
}

pub(super) fn new_set(table_value: &Table, set: &Set, id: u32) -> Message {
    let mut message = table(NEWSET, NLM_F_CREATE, table_value.family, table_value.name);
    message.put_text(SECOND_NAME, set.name);
    let key_type = set.key.iter().fold(0, |whole, part| whole << 6 | part.number());
    let key_length: usize = set.key.iter().map(|part| part.width().next_multiple_of(4)).sum();
    let [only] = set.key.as_slice() else {
        put_set_rest(&mut message, set, id, (key_type, key_length));
        return message;
    };
    // A single part is not padded.
    put_set_rest(&mut message, set, id, (key_type, only.width()));
    message
}

fn put_set_rest(message: &mut Message, set: &Set, id: u32, (key_type, key_length): (u32, usize)) {
    let flags = match set.filled {
        Filled::ByUs(_) => 0,
        Filled::ByRules { .. } => SET_FLAG_TIMEOUT | SET_FLAG_EVAL,
    };
    message.put_be32(SET_FLAGS, flags);
    message.put_be32(SET_KEY_TYPE, key_type);
    message.put_be32(SET_KEY_LEN, length32(key_length));
    message.put_be32(SET_ID, id);
    if let [only] = set.key.as_slice() {
        let [a, b, c, d] = only.byte_order().to_ne_bytes();
        message.put(SET_USERDATA, &[USERDATA_KEY_BYTE_ORDER, 4, a, b, c, d]);
    }
    if let Filled::ByRules { timeout_s, size } = set.filled {
        message.nest(SET_DESC, |desc| desc.put_be32(SET_DESC_SIZE, size));
        message.put(SET_TIMEOUT, &(u64::from(timeout_s) * 1000).to_be_bytes());
    }
}

impl KeyType {
    /// nft's own numbering of types, which the kernel only keeps for it.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::Ifname => 41,
        }
    }

    /// What nft must know to print an element; the kernel only keeps it. Names are numbers to nft.
    fn byte_order(self) -> u32 {
        match self {
            Self::Ifname => 1,
            Self::EtherAddr | Self::Ipv4Addr | Self::Ipv6Addr => 2,
        }
    }

    fn width(self) -> usize {
        match self {
            Self::Ipv4Addr => 4,
            Self::Ipv6Addr => 16,
            Self::EtherAddr => 6,
            Self::Ifname => IFNAME_BYTES,
        }
    }

    fn value(self, bytes: &[u8]) -> Option<Value> {
        match self {
            Self::Ipv4Addr => tlv::array_at::<4>(bytes, 0).map(|bytes| Value::V4(bytes.into())),
            Self::Ipv6Addr => tlv::array_at::<16>(bytes, 0).map(|bytes| Value::V6(bytes.into())),
            Self::EtherAddr => Some(Value::Mac(Mac::new(tlv::array_at(bytes, 0)?).ok()?)),
            Self::Ifname => Some(Value::Name(tlv::text(bytes).parse().ok()?)),
        }
    }
}

/// The messages that add or take away elements.
pub(super) fn set_elements(kind: u16, value: &Elements) -> Vec<Message> {
    let flags = if kind == NEWSETELEM { NLM_F_CREATE } else { 0 };
    value
        .elements
        .chunks(ELEMENTS_PER_MESSAGE)
        .map(|chunk| {
            let mut message = table(kind, flags, value.family, value.table);
            message.put_text(SECOND_NAME, value.set);
            message.nest(ELEMENTS, |list| {
                for element in chunk {
                    let key = element_key(element);
                    list.nest(LIST_ELEM, |entry| {
                        entry.nest(ELEMENT_KEY, |data| data.put(DATA_VALUE, &key));
                    });
                }
            });
            message
        })
        .collect()
}

/// The question for all elements of a set.
pub(super) fn list_elements(family: Family, table_name: &str, set: &str, flags: u16) -> Message {
    let mut message = table(GETSETELEM, flags, family, table_name);
    message.put_text(SECOND_NAME, set);
    message
}

/// The elements in a part of the answer.
pub(super) fn read_elements(body: &[u8], key: &[KeyType]) -> Vec<Element> {
    let list = body.get(4..).and_then(|body| attribute(body, ELEMENTS)).unwrap_or_default();
    attributes(list)
        .filter_map(|(_, entry)| {
            let mut rest = attribute(attribute(entry, ELEMENT_KEY)?, DATA_VALUE)?;
            key.iter()
                .map(|part| {
                    let value = part.value(rest)?;
                    rest = rest.get(part.width().next_multiple_of(4)..).unwrap_or_default();
                    Some(value)
                })
                .collect()
        })
        .collect()
}

/// A chain, and whose it is.
pub(super) fn read_chain(body: &[u8]) -> Option<SeenChain> {
    let rest = body.get(4..)?;
    let hook = attribute(rest, CHAIN_HOOK);
    let number = |attributes, kind| attribute(attributes, kind).and_then(|v| tlv::array_at(v, 0));
    Some(SeenChain {
        table: SeenTable { family: *body.first()?, name: tlv::text(attribute(rest, TABLE)?) },
        name: tlv::text(attribute(rest, CHAIN_NAME)?),
        hook: hook.and_then(|hook| number(hook, HOOK_NUMBER)).map(u32::from_be_bytes),
        priority: hook.and_then(|hook| number(hook, HOOK_PRIORITY)).map(i32::from_be_bytes),
        drops: number(rest, CHAIN_POLICY).is_some_and(|policy| policy == [0; 4]),
        has_rules: number(rest, CHAIN_USES).is_some_and(|uses| uses != [0; 4]),
    })
}

fn element_key(element: &[Value]) -> Vec<u8> {
    let mut key = Vec::new();
    for value in element {
        key.extend(value.bytes());
        if element.len() > 1 {
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    key
}

impl Value {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Name(name) => {
                let mut bytes = name.as_str().as_bytes().to_vec();
                bytes.resize(IFNAME_BYTES, 0);
                bytes
            }
            Self::Mac(mac) => mac.bytes().to_vec(),
            Self::V4(address) => address.octets().to_vec(),
            Self::V4Net(net) => net.network().octets().to_vec(),
            Self::V6(address) => address.octets().to_vec(),
            Self::V6Net(net) => net.network().octets().to_vec(),
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::EtherType(kind) => kind.number().to_be_bytes().to_vec(),
            Self::Protocol(protocol) => vec![protocol.number()],
            Self::Icmpv6(message) => vec![message.number()],
            Self::PacketType(kind) => vec![kind.number()],
            Self::Raw64(value) => value.to_be_bytes().to_vec(),
        }
    }

    /// The bits that count, where not all do.
    pub(super) fn mask(&self) -> Option<Vec<u8>> {
        match self {
            Self::V4Net(net) => Some(net.netmask().octets().to_vec()),
            Self::V6Net(net) => Some(net.netmask().octets().to_vec()),
            Self::Name(_) | Self::Mac(_) | Self::V4(_) | Self::V6(_) | Self::Port(_) => None,
            Self::EtherType(_) | Self::Protocol(_) | Self::Icmpv6(_) => None,
            Self::PacketType(_) | Self::Raw64(_) => None,
        }
    }
}

impl EtherType {
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Arp => 0x0806,
            Self::Ip => 0x0800,
            Self::Ip6 => 0x86dd,
        }
    }
}

impl Protocol {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
        }
    }
}

impl PacketType {
    fn number(self) -> u8 {
        match self {
            Self::Broadcast => 1,
            Self::Multicast => 2,
        }
    }
}

impl Icmpv6 {
    fn number(self) -> u8 {
        match self {
            Self::ListenerReport => 131,
            Self::ListenerDone => 132,
            Self::RouterSolicit => 133,
            Self::RouterAdvert => 134,
            Self::NeighborSolicit => 135,
            Self::NeighborAdvert => 136,
            Self::Redirect => 137,
            Self::ListenerReport2 => 143,
        }
    }
}

fn new_rule(family: Family, table_name: &str, chain_name: &str, rule: &[Expr]) -> Message {
    let mut message = table(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, table_name);
    message.put_text(SECOND_NAME, chain_name);
    message.nest(RULE_EXPRESSIONS, |list| expr::rule(list, family, rule));
    message
}

pub(super) fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The flags of the last message before the end of a batch: its answer says that all were read.
pub(super) const ANSWERED: u16 = NLM_F_ACK;
/// Makes what does not exist.
pub(super) const CREATE: u16 = NLM_F_CREATE;
/// Refuses what exists.
pub(super) const EXCLUSIVE: u16 = NLM_F_EXCL;
