//! Router advertisements (RFC 4861, RDNSS and DNSSL of RFC 8106): the packet, and when to send it.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::bytes::name_to_wire;
use super::network::Net;

/// All nodes of a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of a link, whom solicitations are sent to.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const ADVERTISEMENT: u8 = 134;
/// The type of a router solicitation.
pub const SOLICITATION: u8 = 133;
/// `MaxRtrAdvInterval`, the standard's default; the least is a third of it.
const INTERVAL_MAX_S: u64 = 600;
const INTERVAL_MIN_S: u64 = 200;
/// Three times the interval, so that two lost packets do no harm.
const LIFETIME_S: u16 = 1800;
/// `MIN_DELAY_BETWEEN_RAS`.
const BETWEEN: Duration = Duration::from_secs(3);
/// `MAX_INITIAL_RTR_ADVERTISEMENTS` and `MAX_INITIAL_RTR_ADVERT_INTERVAL`.
const INITIAL: u32 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Answers to one machine alone that are sent in a second; more is a flood.
const UNICAST_PER_S: u32 = 100;

const PREFIX_VALID_S: u32 = 86_400;
const PREFIX_PREFERRED_S: u32 = 14_400;

/// Whether we are there, or about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// We serve.
    Here,
    /// This is the last packet: nobody is to use us any more.
    Leaving,
}

/// The advertisement of a network; `None` where it has no IPv6. The checksum is left to the kernel.
pub fn advertisement(net: &Net, presence: Presence) -> Option<Vec<u8>> {
    let gateway = net.wanted.gateway6?;
    let here = presence == Presence::Here;
    let lifetime_s = if here { LIFETIME_S } else { 0 };
    let router_s = if net.wanted.routes { lifetime_s } else { 0 };
    let mut bytes = Vec::with_capacity(160);
    // Hop limit 64; addresses and the rest are to be had by DHCPv6 (M and O).
    bytes.extend([ADVERTISEMENT, 0, 0, 0, 64, 0x80 | 0x40]);
    bytes.extend(router_s.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([1, 1]);
    bytes.extend(net.wanted.mac.bytes());
    bytes.extend([5, 1, 0, 0]);
    bytes.extend(u32::from(net.wanted.mtu).to_be_bytes());
    if here {
        let slaac = net.wanted.dhcp.as_ref().is_some_and(|dhcp| dhcp.slaac);
        let flags = 0x80 | if slaac { 0x40 } else { 0 };
        bytes.extend([3, 4, gateway.prefix_len(), flags]);
        bytes.extend(PREFIX_VALID_S.to_be_bytes());
        bytes.extend(PREFIX_PREFERRED_S.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(gateway.network().octets());
    }
    bytes.extend([25, 3, 0, 0]);
    bytes.extend(u32::from(lifetime_s).to_be_bytes());
    bytes.extend(gateway.addr().octets());
    if let Some(mut name) = name_to_wire(&net.wanted.domain).filter(|name| name.len() > 1) {
        name.resize(name.len().next_multiple_of(8), 0);
        bytes.extend([31, u8::try_from(name.len() / 8 + 1).ok()?, 0, 0]);
        bytes.extend(u32::from(lifetime_s).to_be_bytes());
        bytes.extend(name);
    }
    Some(bytes)
}

/// Whether an ICMPv6 message is a lawful solicitation (RFC 4861 section 6.1.1). That it came with hop limit
/// 255, so from this link, is seen to by the socket's filter.
pub fn is_solicitation(message: &[u8], source: Ipv6Addr) -> bool {
    let [SOLICITATION, 0, _, _, _, _, _, _, options @ ..] = message else { return false };
    let mut options = options;
    while let [kind, length, ..] = options {
        // The unspecified address has no link-layer address.
        if *length == 0 || (*kind == 1 && source.is_unspecified()) {
            return false;
        }
        let Some((_, rest)) = options.split_at_checked(usize::from(*length) * 8) else { return false };
        options = rest;
    }
    options.is_empty()
}

/// When to send the next advertisement. Times are counted from any fixed moment.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    next: Duration,
    last: Option<Duration>,
    sent: u32,
    second: Duration,
    in_second: u32,
}

/// How to answer a solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solicited {
    /// Now, to the one who asked.
    Unicast,
    /// With the next one to all, for which [`Schedule::next`] has been moved forward.
    Multicast,
    /// Not at all.
    Flood,
}

impl Schedule {
    /// One that starts now.
    pub fn new(now: Duration) -> Self {
        Self { next: now, last: None, sent: 0, second: now, in_second: 0 }
    }

    /// When the next one to all is due.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// One to all was sent (or could not be); `chance` is any number.
    pub fn sent(&mut self, now: Duration, chance: u64) {
        self.last = Some(now);
        self.sent = self.sent.saturating_add(1);
        let wait = INTERVAL_MIN_S + chance % (INTERVAL_MAX_S - INTERVAL_MIN_S);
        let wait = Duration::from_secs(wait);
        self.next = now + if self.sent < INITIAL { INITIAL_INTERVAL } else { wait };
    }

    /// What is advertised has changed: tell all, soon.
    pub fn changed(&mut self, now: Duration) {
        self.sent = 0;
        self.soon(now);
    }

    /// Somebody asked.
    pub fn solicited(&mut self, now: Duration, source: Ipv6Addr) -> Solicited {
        if source.is_unspecified() {
            self.soon(now);
            return Solicited::Multicast;
        }
        if now.saturating_sub(self.second) >= Duration::from_secs(1) {
            (self.second, self.in_second) = (now, 0);
        }
        self.in_second += 1;
        if self.in_second > UNICAST_PER_S { Solicited::Flood } else { Solicited::Unicast }
    }

    fn soon(&mut self, now: Duration) {
        let earliest = self.last.map_or(now, |last| (last + BETWEEN).max(now));
        self.next = self.next.min(earliest);
    }
}

#[cfg(test)]
mod tests;
