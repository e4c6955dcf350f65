//! DHCPv6 (RFC 8415), as a function: what to answer to one packet.
//!
//! The MAC that the packet came from says who asks. The DUID in it does not: it may be of any type, it is one for
//! all nics of a machine, and clones share it. There is nothing to remember: a declared machine has exactly its
//! address, a stranger the one its MAC spells, `<prefix>:d6:<mac>`, which no other MAC spells. So no restart can
//! lose a binding and no flood can use one up.

use std::net::Ipv6Addr;

use stead_model::address::Mac;

use super::bytes::{Reader, name_to_wire, put_u16_prefixed};
use super::network::Net;

/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 546;
/// The port that we listen on.
pub const SERVER_PORT: u16 = 547;
/// `All_DHCP_Relay_Agents_and_Servers`, which clients send to.
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

mod option {
    pub(super) const CLIENT_ID: u16 = 1;
    pub(super) const SERVER_ID: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_TA: u16 = 4;
    pub(super) const IA_ADDRESS: u16 = 5;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const DNS: u16 = 23;
    pub(super) const SEARCH: u16 = 24;
    pub(super) const IA_PREFIX: u16 = 25;
    pub(super) const BOOT_URL: u16 = 59;
}

#[derive(Clone, Copy)]
enum Status {
    Success = 0,
    NoAddress = 2,
    NotOnLink = 4,
    NoPrefix = 6,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    Information,
}

const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;
/// A packet with more associations than this is cut: each costs bytes in the answer.
const ASSOCIATIONS_MAX: usize = 16;
/// Addresses in one association that we go into.
const ADDRESSES_MAX: usize = 16;
const IPV6_HEAD_BYTES: usize = 40;
const UDP: u8 = 17;

/// A client's datagram, out of the packet that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// What it says.
    pub payload: &'a [u8],
}

/// Takes the datagram for us out of an IPv6 packet, if there is one. Extension headers are not looked behind; no
/// client sends them. Nor is the checksum looked at: between machines of one computer it is often not made.
pub fn datagram(packet: &[u8]) -> Option<Datagram<'_>> {
    let mut reader = Reader::new(packet);
    let head: [u8; IPV6_HEAD_BYTES] = reader.array()?;
    let (fixed, addresses) = head.split_first_chunk::<8>()?;
    let [version, _, _, _, _, _, next, _] = *fixed;
    let source = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
    let _from_port = reader.u16()?;
    let to_port = reader.u16()?;
    let length = usize::from(reader.u16()?).checked_sub(8)?;
    let _checksum = reader.u16()?;
    let payload = reader.take(length)?;
    let ours = version >> 4 == 6 && next == UDP && to_port == SERVER_PORT;
    (ours && source.is_unicast_link_local()).then_some(Datagram { source, payload })
}

/// The IPv6 address that a nic of this network is given.
pub fn address_of(net: &Net, mac: Mac) -> Option<Ipv6Addr> {
    if let Some(host) = net.host(mac) {
        return host.address6;
    }
    let prefix = net.wanted.gateway6.filter(|prefix| prefix.prefix_len() <= 64)?.network();
    let [a, b, c, d, e, f] = mac.bytes();
    let low = u64::from_be_bytes([0, 0xd6, a, b, c, d, e, f]);
    let address = Ipv6Addr::from(u128::from(prefix) | u128::from(low));
    (!net.is_fixed6(address)).then_some(address)
}

/// The answer to `payload`, which the nic with `mac` sent to the network's DHCPv6 port.
pub fn answer(net: &Net, mac: Mac, payload: &[u8]) -> Option<Vec<u8>> {
    let question = Question::parse(payload)?;
    let duid = server_duid(net.wanted.mac);
    if !question.is_lawful(&duid) {
        return None;
    }
    let lease_s = net.wanted.dhcp.as_ref()?.lease_s;
    let desk = Desk { address: address_of(net, mac), lease_s };
    let rapid = question.kind == Kind::Solicit && question.rapid_commit;
    let kind = if question.kind == Kind::Solicit && !rapid { ADVERTISE } else { REPLY };
    let mut bytes = Vec::with_capacity(256);
    bytes.push(kind);
    bytes.extend(question.transaction);
    if let Some(client) = question.client {
        put(&mut bytes, option::CLIENT_ID, client);
    }
    put(&mut bytes, option::SERVER_ID, &duid);
    if rapid {
        put(&mut bytes, option::RAPID_COMMIT, &[]);
    }
    match question.kind {
        Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind => {
            for association in &question.associations {
                desk.put_association(&mut bytes, association);
            }
        }
        Kind::Confirm => {
            let mut all = question.associations.iter().flat_map(|ia| &ia.addresses).peekable();
            all.peek()?;
            let right = all.all(|address| Some(*address) == desk.address);
            put_status(&mut bytes, if right { Status::Success } else { Status::NotOnLink });
        }
        Kind::Release | Kind::Decline => {
            put_status(&mut bytes, Status::Success);
            return Some(bytes);
        }
        Kind::Information => {}
    }
    put_settings(&mut bytes, net);
    Some(bytes)
}

/// An association: the client's handle for the addresses of one nic.
struct Association {
    code: u16,
    id: [u8; 4],
    addresses: Vec<Ipv6Addr>,
    /// Whether it is the first for addresses, the one that gets ours.
    first: bool,
}

struct Question<'a> {
    kind: Kind,
    transaction: [u8; 3],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    rapid_commit: bool,
    associations: Vec<Association>,
}

impl<'a> Question<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let kind = match reader.u8()? {
            1 => Kind::Solicit,
            3 => Kind::Request,
            4 => Kind::Confirm,
            5 => Kind::Renew,
            6 => Kind::Rebind,
            8 => Kind::Release,
            9 => Kind::Decline,
            11 => Kind::Information,
            _ => return None,
        };
        let transaction = reader.array()?;
        let mut question = Self {
            kind,
            transaction,
            client: None,
            server: None,
            rapid_commit: false,
            associations: Vec::new(),
        };
        while !reader.rest().is_empty() {
            let (code, value) = read_option(&mut reader)?;
            match code {
                // RFC 8415 section 11.1: a DUID has at most 128 bytes after its type.
                option::CLIENT_ID => question.client = Some(value).filter(|id| (3..=130).contains(&id.len())),
                option::SERVER_ID => question.server = Some(value),
                option::RAPID_COMMIT => question.rapid_commit = true,
                option::IA_NA | option::IA_TA | option::IA_PREFIX
                    if question.associations.len() < ASSOCIATIONS_MAX =>
                {
                    let first = code == option::IA_NA && question.associations.iter().all(|ia| !ia.first);
                    question.associations.push(read_association(code, value, first)?);
                }
                _ => {}
            }
        }
        Some(question)
    }

    /// RFC 8415 section 16: who must name whom in which message.
    fn is_lawful(&self, duid: &[u8]) -> bool {
        let ours = self.server == Some(duid);
        match self.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => self.client.is_some() && self.server.is_none(),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => self.client.is_some() && ours,
            Kind::Information => self.server.is_none() || ours,
        }
    }
}

fn read_option<'a>(reader: &mut Reader<'a>) -> Option<(u16, &'a [u8])> {
    let code = reader.u16()?;
    let length = reader.u16()?;
    Some((code, reader.take(usize::from(length))?))
}

fn read_association(code: u16, value: &[u8], first: bool) -> Option<Association> {
    let mut reader = Reader::new(value);
    let id = reader.array()?;
    if code != option::IA_TA {
        let _times: [u8; 8] = reader.array()?;
    }
    let mut addresses = Vec::new();
    while !reader.rest().is_empty() && addresses.len() < ADDRESSES_MAX {
        let (code, value) = read_option(&mut reader)?;
        if code == option::IA_ADDRESS {
            addresses.push(Ipv6Addr::from(*value.first_chunk::<16>()?));
        }
    }
    Some(Association { code, id, addresses, first })
}

struct Desk {
    address: Option<Ipv6Addr>,
    lease_s: u32,
}

impl Desk {
    fn put_association(&self, to: &mut Vec<u8>, association: &Association) {
        let mut value = Vec::with_capacity(64);
        value.extend(association.id);
        if association.code != option::IA_TA {
            value.extend((self.lease_s / 2).to_be_bytes());
            value.extend((self.lease_s - self.lease_s / 5).to_be_bytes());
        }
        match (association.code, self.address) {
            (option::IA_NA, Some(address)) if association.first => {
                put_address(&mut value, address, self.lease_s);
                // What it holds else it must not keep.
                for other in association.addresses.iter().filter(|other| **other != address) {
                    put_address(&mut value, *other, 0);
                }
            }
            (option::IA_PREFIX, _) => put_status(&mut value, Status::NoPrefix),
            _ => put_status(&mut value, Status::NoAddress),
        }
        put(to, association.code, &value);
    }
}

fn put_address(to: &mut Vec<u8>, address: Ipv6Addr, lifetime_s: u32) {
    let mut value = Vec::with_capacity(24);
    value.extend(address.octets());
    value.extend(lifetime_s.to_be_bytes());
    value.extend(lifetime_s.to_be_bytes());
    put(to, option::IA_ADDRESS, &value);
}

fn put_status(to: &mut Vec<u8>, status: Status) {
    put(to, option::STATUS, &(status as u16).to_be_bytes());
}

fn put_settings(to: &mut Vec<u8>, net: &Net) {
    if let Some(gateway) = net.wanted.gateway6 {
        put(to, option::DNS, &gateway.addr().octets());
    }
    put(to, option::SEARCH, &name_to_wire(&net.wanted.domain).unwrap_or_default());
    let boot = net.wanted.dhcp.as_ref().and_then(|dhcp| dhcp.boot.as_ref());
    if let Some(boot) = boot.filter(|boot| boot.file.contains("://")) {
        put(to, option::BOOT_URL, boot.file.as_bytes());
    }
}

fn put(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    to.extend(code.to_be_bytes());
    put_u16_prefixed(to, value);
}

/// A DUID-LL of the bridge's MAC: the same one after every restart.
fn server_duid(mac: Mac) -> [u8; 10] {
    let [a, b, c, d, e, f] = mac.bytes();
    [0, 3, 0, 1, a, b, c, d, e, f]
}

#[cfg(test)]
mod tests;
