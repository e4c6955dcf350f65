//! The names that we answer for to one asker: those of the network that it asks on, of the other networks that it
//! has nics on, and of what all these are joined to, in this order.
//!
//! A machine is found as `web`, `web.shop` and `web.shop.stead`; so are its aliases. A name of a nearer network goes
//! before one of a farther, and a machine's name before an alias. A machine of another project is called so in that. Behind all of them `gateway` is the network's own
//! address. Several machines may share an alias: all are answered. Addresses in any range of ours are ours to name, also those whose names are not for this asker:
//! nobody outside is asked about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use stead_model::name::{Name, NetworkId};
use stead_model::resolve::DOMAIN;
use stead_model::served::{ServedHost, ServedNetwork};

use crate::serve::bytes::name_to_wire;

/// The addresses of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6.
    pub v6: Vec<Ipv6Addr>,
}

impl Addresses {
    fn all(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }
}

/// What something is called: alone, in its project, and in full.
struct Named {
    forms: [String; 3],
    addresses: Addresses,
}

impl Named {
    fn new(name: &str, project: &Name, domain: &str, addresses: Addresses) -> Self {
        Self { forms: [name.to_owned(), format!("{name}.{project}"), format!("{name}.{domain}")], addresses }
    }
}

/// All names and addresses that are answered for on one network. Names are in wire form and lower case.
#[derive(Debug, Default)]
pub struct Zone {
    /// `shop.stead`.
    pub domain: Vec<u8>,
    names: HashMap<Box<[u8]>, Addresses>,
    owners: HashMap<IpAddr, Box<[u8]>>,
    subnets4: Vec<Ipv4Net>,
    subnets6: Vec<Ipv6Net>,
}

/// The top of all domains of ours: nothing below it is anyone else's.
const TOP: &[u8] = b"\x05stead\0";

/// What we know of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// It has these addresses.
    Addresses(&'a Addresses),
    /// It is an address, and this is its name.
    Pointer(&'a [u8]),
    /// It is the domain itself.
    Apex,
    /// It is ours and has nothing, but something below it has.
    Empty,
    /// It is ours and not there. The number of its first labels that are below our zone.
    Absent(usize),
    /// It is one label, and no machine's name.
    Plain,
    /// It is not ours.
    Foreign,
}

impl Zone {
    /// The names for those who ask on the network `id` and have nics on `others` as well.
    pub fn new(
        id: &NetworkId,
        others: &BTreeSet<NetworkId>,
        all: &BTreeMap<NetworkId, ServedNetwork>,
    ) -> Self {
        let Some(own) = all.get(id) else { return Self::default() };
        let near = std::iter::once(id).chain(others).filter_map(|id| all.get_key_value(id));
        let mut networks: Vec<_> = near.collect();
        let joined = networks.iter().flat_map(|(_, network)| &network.joins);
        for joined in joined.filter_map(|id| all.get_key_value(id)).collect::<Vec<_>>() {
            if !networks.iter().any(|(id, _)| *id == joined.0) {
                networks.push(joined);
            }
        }
        let mut zone = Self { domain: name_to_wire(&own.domain).unwrap_or_default(), ..Self::default() };
        let ours = Addresses {
            v4: own.gateway.iter().map(Ipv4Net::addr).collect(),
            v6: own.gateway6.iter().map(Ipv6Net::addr).collect(),
        };
        let mut here = Vec::new();
        for (id, network) in &networks {
            let hosts = network.hosts.values();
            let named = hosts.clone().map(|host| (host.name.to_string(), host));
            here.push(zone.add_hosts(&named.collect::<Vec<_>>(), id, &network.domain));
            let aliased =
                hosts.flat_map(|host| host.aliases.iter().map(move |alias| (alias.to_string(), host)));
            here.push(zone.add_hosts(&aliased.collect::<Vec<_>>(), id, &network.domain));
        }
        // Whoever is of a network's own project is called so first, by whichever of his names and on whichever network.
        here.iter().for_each(|tier| zone.add(tier));
        zone.add_gateway(ours, &id.project, &own.domain);
        all.values().for_each(|network| zone.own(network));
        let home = Addresses { v4: vec![Ipv4Addr::LOCALHOST], v6: vec![Ipv6Addr::LOCALHOST] };
        zone.names.insert(b"\x09localhost\0".to_vec().into(), home);
        zone
    }

    /// What we know of a name, in lower case.
    pub fn find(&self, name: &[u8]) -> Found<'_> {
        if let Some(addresses) = self.names.get(name).or_else(|| self.names.get(&*with_hyphens(name)?)) {
            return Found::Addresses(addresses);
        }
        match parse_reverse(name) {
            Some(Reverse::Whole(address)) if self.owns(address) => {
                let labels = if address.is_ipv4() { 4 } else { 32 };
                return match self.owners.get(&address) {
                    Some(owner) => Found::Pointer(owner),
                    None => Found::Absent(labels - self.zone_labels(address)),
                };
            }
            Some(Reverse::Part(network)) if self.owns(network) => return Found::Empty,
            _ => {}
        }
        if name == &*self.domain {
            return Found::Apex;
        }
        if name == TOP {
            return Found::Empty;
        }
        for zone in [&*self.domain, TOP] {
            if let Some(below) = labels_below(name, zone).filter(|_| zone.len() > 1) {
                return Found::Absent(below);
            }
        }
        if labels_below(name, b"\0") == Some(1) { Found::Plain } else { Found::Foreign }
    }

    /// How many of the first labels of `name`, which has records, stand before its zone. A name with one label, or
    /// in `.shop`, is a zone of its own: no zone above it is ours.
    pub fn zone_offset(&self, name: &[u8]) -> usize {
        labels_below(name, &self.domain).filter(|_| self.domain.len() > 1).unwrap_or(0)
    }

    /// Adds what machines are called on a network, and gives what those of other projects are called there where nobody of its own
    /// is called so.
    fn add_hosts(&mut self, tier: &[(String, &ServedHost)], id: &NetworkId, domain: &str) -> Vec<Named> {
        let own = |(name, host): &(String, &ServedHost)| match &host.project {
            None => Named::new(name, &id.project, domain, addresses(host)),
            Some(project) => Named::new(name, project, &format!("{project}.{DOMAIN}"), addresses(host)),
        };
        self.add(&tier.iter().map(own).collect::<Vec<_>>());
        let external = tier.iter().filter(|(_, host)| host.project.is_some());
        external.map(|(name, host)| Named::new(name, &id.project, domain, addresses(host))).collect()
    }

    fn add(&mut self, tier: &[Named]) {
        let mut new: HashMap<Box<[u8]>, Addresses> = HashMap::new();
        for Named { forms, addresses } in tier {
            for form in forms.iter().filter_map(|form| name_to_wire(form)) {
                let entry = new.entry(form.into()).or_default();
                entry.v4.extend(&addresses.v4);
                entry.v6.extend(&addresses.v6);
            }
            let Some(full) = forms.last().and_then(|full| name_to_wire(full)) else { continue };
            for address in addresses.all() {
                self.owners.entry(address).or_insert_with(|| full.clone().into());
            }
        }
        for (name, addresses) in new {
            self.names.entry(name).or_insert(addresses);
        }
    }

    /// Names the network's own address, behind all that machines are called: theirs are many projects' `gateway`.
    fn add_gateway(&mut self, ours: Addresses, project: &Name, domain: &str) {
        let full = name_to_wire(&format!("gateway.{domain}"));
        let is_taken = full.is_some_and(|full| self.names.contains_key(&*full));
        let unnamed: Vec<IpAddr> = if is_taken { ours.all().collect() } else { Vec::new() };
        self.add(&[Named::new("gateway", project, domain, ours)]);
        // An address does not have a name that leads to a machine.
        unnamed.iter().for_each(|address| drop(self.owners.remove(address)));
    }

    fn own(&mut self, network: &ServedNetwork) {
        self.subnets4.extend(network.gateway.map(|net| net.trunc()));
        self.subnets6.extend(network.gateway6.map(|net| net.trunc()));
    }

    fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.subnets4.iter().any(|net| net.contains(&address)),
            IpAddr::V6(address) => self.subnets6.iter().any(|net| net.contains(&address)),
        }
    }

    /// How many labels of the reverse name the subnet's own name has, before `in-addr.arpa`.
    fn zone_labels(&self, address: IpAddr) -> usize {
        let length = match address {
            IpAddr::V4(address) => {
                self.subnets4.iter().find(|net| net.contains(&address)).map_or(0, |net| net.prefix_len() / 8)
            }
            IpAddr::V6(address) => {
                self.subnets6.iter().find(|net| net.contains(&address)).map_or(0, |net| net.prefix_len() / 4)
            }
        };
        usize::from(length)
    }
}

fn addresses(host: &ServedHost) -> Addresses {
    Addresses { v4: host.address.into_iter().collect(), v6: host.address6.into_iter().collect() }
}

/// How many labels `name` has before `zone`; `None` if it is not in it.
pub(crate) fn labels_below(name: &[u8], zone: &[u8]) -> Option<usize> {
    let (mut rest, mut labels) = (name, 0);
    loop {
        if rest == zone {
            return Some(labels);
        }
        let (length, after) = rest.split_first()?;
        rest = after.get(usize::from(*length)..).filter(|_| *length > 0)?;
        labels += 1;
    }
}

enum Reverse {
    /// One address.
    Whole(IpAddr),
    /// The beginning of addresses, the rest being zero, at least as long as one of our prefixes has it.
    Part(IpAddr),
}

/// A name with `-` for `_`, which none of ours has: services of Compose are called so. Lengths of labels are below 64, and
/// `_` is above; nothing where there is nothing to replace.
fn with_hyphens(name: &[u8]) -> Option<Vec<u8>> {
    let hyphen = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    name.contains(&b'_').then(|| name.iter().map(hyphen).collect())
}

/// Reads `4.3.2.1.in-addr.arpa` and its like for IPv6.
fn parse_reverse(name: &[u8]) -> Option<Reverse> {
    let labels = |name: &[u8], count: usize| {
        let mut rest = name;
        let mut labels = Vec::with_capacity(32);
        for _ in 0..count {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            labels.push(label.to_vec());
            rest = after;
        }
        labels.reverse();
        Some(labels)
    };
    if let Some(count @ 1..=4) = labels_below(name, b"\x07in-addr\x04arpa\0") {
        let mut octets = [0; 4];
        for (octet, label) in octets.iter_mut().zip(labels(name, count)?) {
            let text = std::str::from_utf8(&label).ok()?;
            *octet = text.parse().ok().filter(|octet: &u8| octet.to_string() == text)?;
        }
        let address = IpAddr::V4(octets.into());
        return Some(if count == 4 { Reverse::Whole(address) } else { Reverse::Part(address) });
    }
    let count = labels_below(name, b"\x03ip6\x04arpa\0").filter(|count| (1..=32).contains(count))?;
    let mut bits = 0_u128;
    for label in labels(name, count)? {
        let [digit] = *label else { return None };
        bits = (bits << 4) | u128::from(char::from(digit).to_digit(16)?);
    }
    bits = bits.checked_shl(u32::try_from((32 - count) * 4).ok()?).unwrap_or(0);
    let address = IpAddr::V6(bits.into());
    Some(if count == 32 { Reverse::Whole(address) } else { Reverse::Part(address) })
}
