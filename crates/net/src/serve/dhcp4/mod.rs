//! DHCPv4, as a function: what to answer to one packet. Declared machines get exactly their address, always;
//! strangers get one of the pool.
//!
//! ```text
//! DISCOVER ─▶ OFFER                    REQUEST, not for us ─▶ nothing
//!    └ with rapid commit ─▶ ACK        REQUEST, can have it ─▶ ACK, else NAK
//! INFORM ─▶ ACK without an address     RELEASE, DECLINE ─▶ nothing
//! ```
//!
//! We are the only server of the network, so a wrong address is refused at once (NAK) rather than left to time out.

pub(crate) mod wire;

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use stead_model::address::Mac;
use stead_model::project::Boot;
use stead_model::served::{ServedDhcp, ServedHost};

use self::wire::{Answer, Head, Kind, Packet, option};
use super::bytes::name_to_wire;
use super::leases::{Book, Client, Wanted};
use super::network::Net;

/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 68;
/// The port that we listen on.
pub const SERVER_PORT: u16 = 67;

/// What follows from a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send this.
    Send {
        /// The packet.
        bytes: Vec<u8>,
        /// Where to.
        to: SocketAddrV4,
    },
    /// Nothing is to be said.
    Quiet,
    /// A stranger found the pool full.
    Exhausted,
}

/// The answer to `bytes`, which came from a client of `net`.
pub fn answer(net: &Net, book: &mut Book, bytes: &[u8], now_s: u64) -> Outcome {
    let (Some(gateway), Some(dhcp)) = (net.wanted.gateway, net.wanted.dhcp.as_ref()) else {
        return Outcome::Quiet;
    };
    let Some(packet) = Packet::parse(bytes) else { return Outcome::Quiet };
    let Ok(mac) = Mac::new(packet.chaddr) else { return Outcome::Quiet };
    let desk = Desk { net, gateway, dhcp, host: net.host(mac), packet: &packet, now_s };
    let client = Client { mac, id: packet.client_id.into() };
    match packet.kind {
        Kind::Discover => desk.discover(book, &client),
        Kind::Request => desk.request(book, &client),
        Kind::Inform => desk.inform(),
        Kind::Release => {
            book.release(&client, packet.ciaddr);
            Outcome::Quiet
        }
        Kind::Decline => {
            if let Some(address) = packet.requested {
                book.decline(&client, address, now_s);
            }
            Outcome::Quiet
        }
        Kind::Offer | Kind::Ack | Kind::Nak => Outcome::Quiet,
    }
}

/// One question and all that is needed to answer it.
struct Desk<'a> {
    net: &'a Net,
    gateway: Ipv4Net,
    dhcp: &'a ServedDhcp,
    host: Option<&'a ServedHost>,
    packet: &'a Packet<'a>,
    now_s: u64,
}

impl Desk<'_> {
    fn discover(&self, book: &mut Book, client: &Client) -> Outcome {
        let address = match self.host {
            // A declared machine without an IPv4 address has none, rather than one of the pool.
            Some(host) => host.address,
            None => book.offer(self.net, client, self.packet.requested, self.now_s),
        };
        let Some(address) = address else {
            let full = self.host.is_none() && self.dhcp.pool.is_some();
            return if full { Outcome::Exhausted } else { Outcome::Quiet };
        };
        if self.packet.rapid_commit && self.can_have(book, client, address) {
            return self.give(Kind::Ack, address);
        }
        self.give(Kind::Offer, address)
    }

    fn request(&self, book: &mut Book, client: &Client) -> Outcome {
        if self.packet.server.is_some_and(|server| server != self.gateway.addr()) {
            return Outcome::Quiet;
        }
        let holds = (!self.packet.ciaddr.is_unspecified()).then_some(self.packet.ciaddr);
        let Some(address) = self.packet.requested.or(holds) else { return Outcome::Quiet };
        let silent = match self.host {
            Some(host) => host.address.is_none(),
            None => self.dhcp.pool.is_none(),
        };
        if silent {
            return Outcome::Quiet;
        }
        if self.can_have(book, client, address) { self.give(Kind::Ack, address) } else { self.refuse() }
    }

    fn can_have(&self, book: &mut Book, client: &Client, address: Ipv4Addr) -> bool {
        if let Some(host) = self.host {
            return host.address == Some(address);
        }
        let host_name = host_name(self.packet.host_name);
        let expires_s = self.now_s.saturating_add(u64::from(self.dhcp.lease_s));
        book.hold(self.net, client, Wanted { address, host_name, expires_s }, self.now_s)
    }

    fn inform(&self) -> Outcome {
        let client = self.packet.ciaddr;
        if !self.gateway.contains(&client) {
            return Outcome::Quiet;
        }
        let answer = Answer::new(self.packet, Kind::Ack, &self.head(Ipv4Addr::UNSPECIFIED));
        let bytes = self.options(answer).finish();
        Outcome::Send { bytes, to: SocketAddrV4::new(client, CLIENT_PORT) }
    }

    fn give(&self, kind: Kind, address: Ipv4Addr) -> Outcome {
        let mut answer = Answer::new(self.packet, kind, &self.head(address));
        let lease_s = self.dhcp.lease_s;
        answer.put(option::LEASE_S, &lease_s.to_be_bytes());
        answer.put(option::RENEW_S, &(lease_s / 2).to_be_bytes());
        answer.put(option::REBIND_S, &(lease_s - lease_s / 8).to_be_bytes());
        if kind == Kind::Ack && self.packet.kind == Kind::Discover {
            answer.put_flag(option::RAPID_COMMIT);
        }
        let bytes = self.options(answer).finish();
        // One that uses the address already is found by ARP. All others are told by broadcast: a client without an
        // address does not answer ARP, and to write to its MAC past the kernel would take a raw socket.
        let known = self.packet.ciaddr == address && kind == Kind::Ack;
        let to = if known { address } else { Ipv4Addr::BROADCAST };
        Outcome::Send { bytes, to: SocketAddrV4::new(to, CLIENT_PORT) }
    }

    fn refuse(&self) -> Outcome {
        let head = Head { yiaddr: Ipv4Addr::UNSPECIFIED, siaddr: Ipv4Addr::UNSPECIFIED, file: "" };
        let mut answer = Answer::new(self.packet, Kind::Nak, &head);
        answer.put(option::SERVER, &self.gateway.addr().octets());
        answer.put(option::CLIENT_ID, self.packet.client_id);
        Outcome::Send { bytes: answer.finish(), to: SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT) }
    }

    fn head(&self, yiaddr: Ipv4Addr) -> Head<'_> {
        let boot = self.dhcp.boot.as_ref();
        let siaddr = boot.map_or(Ipv4Addr::UNSPECIFIED, |boot| self.boot_server(boot));
        Head { yiaddr, siaddr, file: boot.map_or("", |boot| boot.file.as_str()) }
    }

    fn boot_server(&self, boot: &Boot) -> Ipv4Addr {
        match boot.server {
            Some(std::net::IpAddr::V4(server)) => server,
            Some(std::net::IpAddr::V6(_)) | None => self.gateway.addr(),
        }
    }

    fn options(&self, mut answer: Answer) -> Answer {
        let ours = self.gateway.addr().octets();
        answer.put(option::SERVER, &ours);
        answer.put(option::SUBNET_MASK, &self.gateway.netmask().octets());
        if self.net.wanted.routes {
            answer.put(option::ROUTER, &ours);
        }
        answer.put(option::DNS, &ours);
        let name = self.host.map(|host| host.name.as_str());
        let domain = self.net.wanted.domain.as_str();
        let optional = [
            (option::BROADCAST, self.gateway.broadcast().octets().to_vec()),
            (option::MTU, self.net.wanted.mtu.to_be_bytes().to_vec()),
            (option::HOST_NAME, name.unwrap_or_default().as_bytes().to_vec()),
            (option::DOMAIN, domain.as_bytes().to_vec()),
            (option::SEARCH, name_to_wire(domain).unwrap_or_default()),
        ];
        for (code, value) in optional {
            if self.packet.asks(code) {
                answer.put(code, &value);
            }
        }
        if let Some(boot) = &self.dhcp.boot {
            answer.put(option::BOOT_SERVER, self.boot_server(boot).to_string().as_bytes());
            answer.put(option::BOOT_FILE, boot.file.as_bytes());
            // UEFI's HTTP boot takes an answer for its own only if it says so.
            if self.packet.vendor_class.starts_with(b"HTTPClient") && boot.file.contains("://") {
                answer.put(option::VENDOR_CLASS, b"HTTPClient");
            }
        }
        // RFC 6842: it comes back as it was sent.
        answer.put(option::CLIENT_ID, self.packet.client_id);
        answer
    }
}

/// A stranger's name for itself, if it is a lawful one: it is shown to people and stored.
fn host_name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').to_ascii_lowercase();
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    ((1..=63).contains(&text.len()) && text.chars().all(lawful)).then_some(text)
}

#[cfg(test)]
mod tests;
