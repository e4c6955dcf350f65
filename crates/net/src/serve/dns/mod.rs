//! DNS: the names of machines from what is configured, all else from the computer's own resolvers.
//!
//! ```text
//! packet ─▶ decide ─┬▶ Answer            ours, or not for us to answer
//!                   ├▶ Forward ─▶ cache ─▶ Answer
//!                   │               └▶ resolver, once for all who ask the same ─▶ Answer
//!                   └▶ Silence           no question at all
//! ```
//!
//! On a network that nothing lies beyond, names that are not ours are REFUSED: to say that they do not exist would
//! be a lie that clients may keep.

pub mod cache;
pub mod reply;
pub(crate) mod resolver;
pub(crate) mod tasks;
pub(crate) mod wire;
pub mod zone;

use std::net::IpAddr;

use self::reply::Reply;
use self::wire::{CLASS_IN, Code, Message, NoQuery, Query, flag, kind};
use self::zone::{Found, labels_below};
use super::network::{Net, View};

/// How a question came: it says how long the answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a stream.
    Tcp,
}

/// What is asked of another resolver. Questions that differ only in case are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The name in wire form and lower case.
    pub name: Box<[u8]>,
    /// The type.
    pub kind: u16,
    /// Whether signatures are wanted.
    pub dnssec: bool,
    /// Whether the resolver shall leave them unchecked.
    pub unchecked: bool,
}

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this back.
    Answer(Vec<u8>),
    /// Ask another resolver.
    Forward(Question),
    /// Nothing.
    Silence,
}

/// How long clients may keep what we say of our own names. Machines come and go by command, and who gave the
/// command looks at once.
const TTL_S: u32 = 1;

/// What is asked of `com` and its like, not of machines: a resolver in a machine that checks signatures asks for all
/// of them on its way down.
const OF_ZONES: [u16; 4] = [kind::NS, kind::SOA, kind::DS, kind::DNSKEY];

/// What to do with `packet`, which `asker`, a client of `net`, sent.
pub fn decide(net: &Net, asker: IpAddr, packet: &[u8], transport: Transport) -> Decision {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(NoQuery::Silence) => return Decision::Silence,
        Err(NoQuery::Code { id, flags, code }) => return Decision::Answer(wire::bare(id, flags, code)),
    };
    let desk = Desk { view: net.view(asker), query: &query };
    match desk.message() {
        Ok(message) => Decision::Answer(message.finish(&query, limit(&query, transport))),
        Err(question) => Decision::Forward(question),
    }
}

/// The answer to `packet`, of which [`decide`] said that it is to be forwarded, out of what the other resolver
/// said `age_s` seconds ago.
pub fn relay(packet: &[u8], transport: Transport, reply: &Reply, age_s: u32) -> Option<Vec<u8>> {
    let query = Query::parse(packet).ok()?;
    let asked_for = query.wants_dnssec() || query.flags & flag::AUTHENTIC != 0;
    let authentic = if reply.authentic && asked_for { flag::AUTHENTIC } else { 0 };
    let mut message = Message::with_code(&query, reply.code, flag::RECURSES | authentic);
    reply.write(&mut message, age_s);
    Some(message.finish(&query, limit(&query, transport)))
}

fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => query.udp_bytes(),
        Transport::Tcp => usize::from(u16::MAX),
    }
}

struct Desk<'a> {
    view: &'a View,
    query: &'a Query<'a>,
}

impl Desk<'_> {
    /// The answer, or what to ask another resolver.
    fn message(&self) -> Result<Message, Question> {
        let query = self.query;
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return Ok(self.start(Code::Fine, 0));
        }
        if query.class != CLASS_IN || matches!(query.kind, kind::AXFR | kind::IXFR) {
            return Ok(self.start(Code::Refused, 0));
        }
        let zone = &self.view.zone;
        Ok(match zone.find(&query.name) {
            Found::Addresses(addresses) => {
                let v4 = addresses.v4.iter().map(|address| IpAddr::V4(*address));
                let v6 = addresses.v6.iter().map(|address| IpAddr::V6(*address));
                self.addresses(v4.chain(v6), zone.zone_offset(&query.name))
            }
            Found::Pointer(owner) => self.pointer(owner),
            Found::Apex => self.apex(),
            Found::Empty => self.nothing(Code::Fine, 0),
            Found::Absent(labels) => self.nothing(Code::NoName, labels),
            // One label is a machine's name or nobody's: it would be asked of the whole world.
            Found::Plain if !OF_ZONES.contains(&query.kind) => self.nothing(Code::NoName, 1),
            Found::Plain | Found::Foreign => return self.forward(),
        })
    }

    /// The question as another resolver is asked it, where one may be.
    fn forward(&self) -> Result<Message, Question> {
        let query = self.query;
        if !self.view.resolves || query.flags & flag::RECURSE == 0 {
            return Ok(self.start(Code::Refused, 0));
        }
        Err(Question {
            name: query.name.as_slice().into(),
            kind: query.kind,
            dnssec: query.wants_dnssec(),
            unchecked: query.flags & flag::UNCHECKED != 0,
        })
    }

    fn addresses(&self, addresses: impl Iterator<Item = IpAddr>, zone_labels: usize) -> Message {
        let mut message = self.start(Code::Fine, flag::AUTHORITATIVE);
        // RFC 8482: who asks for everything gets one kind of it.
        let mut wanted = (self.query.kind != kind::ANY).then_some(self.query.kind);
        let mut any = false;
        for address in addresses {
            let (kind, value) = match address {
                IpAddr::V4(address) => (kind::A, address.octets().to_vec()),
                IpAddr::V6(address) => (kind::AAAA, address.octets().to_vec()),
            };
            if *wanted.get_or_insert(kind) == kind {
                message.answer(kind, TTL_S, &value);
                any = true;
            }
        }
        if any { message } else { self.nothing(Code::Fine, zone_labels) }
    }

    fn pointer(&self, owner: &[u8]) -> Message {
        if !matches!(self.query.kind, kind::PTR | kind::ANY) {
            return self.nothing(Code::Fine, 0);
        }
        let mut message = self.start(Code::Fine, flag::AUTHORITATIVE);
        message.answer(kind::PTR, TTL_S, owner);
        message
    }

    fn apex(&self) -> Message {
        let mut message = self.start(Code::Fine, flag::AUTHORITATIVE);
        match self.query.kind {
            kind::SOA | kind::ANY => message.answer(kind::SOA, TTL_S, &self.soa()),
            kind::NS => message.answer(kind::NS, TTL_S, &self.prefixed(b"\x07gateway")),
            _ => return self.nothing(Code::Fine, 0),
        }
        message
    }

    /// No record, and how long that may be kept: by the SOA of the zone that the name is in, after `labels` labels.
    fn nothing(&self, code: Code, labels: usize) -> Message {
        let mut message = self.start(code, flag::AUTHORITATIVE);
        message.authority(label_offset(&self.query.name, labels), kind::SOA, TTL_S, &self.soa());
        message
    }

    fn soa(&self) -> Vec<u8> {
        let mut value = self.prefixed(b"\x07gateway");
        value.extend(self.prefixed(b"\x0ahostmaster"));
        // Serial, refresh, retry, expire: there is no second server that would go by them. The last is RFC 2308's.
        for number in [1, 3600, 600, 86_400, TTL_S] {
            value.extend(number.to_be_bytes());
        }
        value
    }

    fn prefixed(&self, label: &[u8]) -> Vec<u8> {
        [label, &self.view.zone.domain].concat()
    }

    fn start(&self, code: Code, flags: u16) -> Message {
        let recurses = if self.view.resolves { flag::RECURSES } else { 0 };
        Message::new(self.query, code, flags | recurses)
    }
}

/// Where in `name` what follows its first `labels` labels starts.
fn label_offset(name: &[u8], labels: usize) -> usize {
    debug_assert!(labels_below(name, b"\0").is_some(), "a name ends in the root");
    let mut offset = 0;
    for _ in 0..labels {
        match name.get(offset) {
            Some(length @ 1..) => offset += usize::from(*length) + 1,
            Some(0) | None => break,
        }
    }
    offset
}

#[cfg(test)]
mod tests;
