//! Which subnets, addresses and MACs are chosen: candidates in an order that depends only on what they are
//! for, of which the first free one is taken.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::address::{Mac, digest, nth4, nth6};
use crate::name::{NetworkId, NicId};
use crate::observed::NetworkState;
use crate::project::{Dhcp, Pool};

/// Subnets are taken from these, first to last: rarely used, then what others use too.
const POOLS: [([u8; 4], u8); 3] = [([10, 64, 0, 0], 10), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)];

/// The prefix of an automatic subnet: 253 machines.
const AUTO_PREFIX: u8 = 24;

/// Transfer subnets of veth uplinks are taken from here.
const TRANSFER_POOL: ([u8; 4], u8) = ([10, 63, 0, 0], 16);

/// The candidates for the transfer subnet of a home's veth uplink.
pub(super) fn transfer_subnets(home: &str) -> impl Iterator<Item = Ipv4Net> + use<> {
    let (base, prefix) = TRANSFER_POOL;
    subnets_of(base, prefix, 30, &["uplink", home])
}

/// The IPv6 transfer subnet of a home's veth uplink: a unique local one.
pub(super) fn transfer_subnet6(home: &str) -> Option<Ipv6Net> {
    let bits = u128::from_be_bytes(digest(&["uplink", home])) >> 8;
    Ipv6Net::new(Ipv6Addr::from((0xfd << 120) | bits), 126).ok().map(|net| net.trunc())
}

/// The candidates for an automatic subnet: every pool in turn, each from a place of the network's own.
pub(super) fn auto_subnets(id: &NetworkId) -> impl Iterator<Item = Ipv4Net> {
    let parts = ["subnet".to_owned(), id.to_string()];
    POOLS.into_iter().flat_map(move |(base, prefix)| {
        subnets_of(base, prefix, AUTO_PREFIX, &parts.each_ref().map(String::as_str))
    })
}

/// The subnets of length `prefix` in a pool, from a place that `parts` decide, once round.
fn subnets_of(base: [u8; 4], pool: u8, prefix: u8, parts: &[&str]) -> impl Iterator<Item = Ipv4Net> + use<> {
    let count = 1_u32 << (prefix - pool);
    let [a, b, c, d, ..] = digest(parts);
    let first = u32::from_be_bytes([a, b, c, d]) % count;
    let base = u32::from_be_bytes(base);
    (0..count).filter_map(move |step| {
        let place = first.wrapping_add(step) % count;
        Ipv4Net::new(Ipv4Addr::from(base + (place << (32 - prefix))), prefix).ok()
    })
}

/// How many unique local subnets are tried. Each is one of 2^56, so a second is needed only where somebody has
/// claimed all of them (a route for `fd00::/8`), and then no number would do.
const ULA_ATTEMPTS: u32 = 16;

/// The candidates for a unique local /64 (RFC 4193): 40 bits of global id and 16 of subnet are a digest.
pub(super) fn ulas(home: &str, id: &NetworkId) -> impl Iterator<Item = Ipv6Net> {
    let candidates = (0..ULA_ATTEMPTS).map(move |attempt| {
        let bits = u128::from_be_bytes(digest(&["ula", home, &id.to_string(), &attempt.to_string()]));
        Ipv6Net::new(Ipv6Addr::from((0xfd << 120) | ((bits >> 8) & !u128::from(u64::MAX))), 64)
    });
    candidates.filter_map(Result::ok)
}

/// The strangers' addresses of a subnet.
pub(super) fn pool(dhcp: &Dhcp, subnet: Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
    match dhcp.pool {
        Pool::Off => None,
        Pool::Range(first, last) => Some((first, last)),
        Pool::Auto => {
            let size = 1_u32.checked_shl(u32::from(32 - subnet.prefix_len()))?;
            // The last quarter, less the broadcast address.
            Some((nth4(subnet, size - size / 4)?, nth4(subnet, size - 2)?))
        }
    }
}

/// Whether a machine can have this address at all: in its network's subnet, and not ours.
pub(super) fn is_host(network: &NetworkState, address: Ipv4Addr) -> bool {
    let not_ours = |net: Ipv4Net| ![net.addr(), net.network(), net.broadcast()].contains(&address);
    network.gateway.is_some_and(|net| net.contains(&address) && not_ours(net))
}

/// The same for IPv6, where the first address is every router's (RFC 4291, 2.6.1).
pub(crate) fn is_host6(network: &NetworkState, address: Ipv6Addr) -> bool {
    let not_ours = |net: Ipv6Net| ![net.addr(), net.network()].contains(&address);
    network.gateway6.is_some_and(|net| net.contains(&address) && not_ours(net))
}

/// Whether we would give a machine this address: it can have it, and it is not for strangers.
pub(crate) fn is_usable(network: &NetworkState, address: Ipv4Addr) -> bool {
    is_host(network, address)
        && strangers(network).is_none_or(|(first, last)| address < first || address > last)
}

fn strangers(network: &NetworkState) -> Option<(Ipv4Addr, Ipv4Addr)> {
    network.service.as_ref().and_then(|service| service.dhcp.as_ref()).and_then(|dhcp| dhcp.pool)
}

pub(super) fn free_address(network: &NetworkState, used: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
    let subnet = network.gateway?;
    let candidates = (2..).map_while(|offset| nth4(subnet, offset));
    candidates.into_iter().find(|a| is_usable(network, *a) && !used.contains(&IpAddr::V4(*a)))
}

/// The last one below the strangers' that is free. Machines of other projects have those, so that what a network's own
/// project chooses, or has in its lock, is mostly free for it.
pub(super) fn last_free_address(network: &NetworkState, used: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
    let subnet = network.gateway?;
    let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    let strangers = strangers(network).map_or(last, |(first, _)| u32::from(first));
    let candidates = (first..strangers).rev().chain((strangers..last).rev()).map(Ipv4Addr::from);
    candidates.into_iter().find(|a| is_usable(network, *a) && !used.contains(&IpAddr::V4(*a)))
}

/// The same host number as in IPv4 where it is free, else the first that is.
pub(super) fn free_address6(
    network: &NetworkState,
    address: Option<Ipv4Addr>,
    used: &BTreeSet<IpAddr>,
) -> Option<Ipv6Addr> {
    let subnet = network.gateway6?;
    let number = address.zip(network.gateway).map(|(a, net)| u32::from(a) - u32::from(net.network()));
    let candidates = number.map(u128::from).into_iter().chain(2..).map_while(|offset| nth6(subnet, offset));
    candidates.into_iter().find(|a| is_host6(network, *a) && !used.contains(&IpAddr::V6(*a)))
}

/// A MAC that nobody of the network has. `place` tells computers apart where their machines may meet.
pub(super) fn free_mac(place: Option<&str>, id: &NicId, macs: &BTreeSet<(NetworkId, Mac)>) -> Mac {
    let candidates = (0_u32..).map(|attempt| {
        let (id, attempt) = (id.to_string(), attempt.to_string());
        let parts = [Some(id.as_str()), Some(attempt.as_str()), place];
        Mac::derived(&parts.into_iter().flatten().collect::<Vec<_>>())
    });
    let mut free = candidates.filter(|mac| !macs.contains(&(id.network(), *mac)));
    free.next().unwrap_or_else(|| unreachable!("fewer nics than numbers"))
}
