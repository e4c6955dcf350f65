//! What is served on one network, made ready to answer from: looked up by hash, worked out once per change
//! and not once per packet.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use stead_model::address::Mac;
use stead_model::name::NetworkId;
use stead_model::served::{ServedHost, ServedNetwork};

use super::dns::zone::Zone;

/// One network, ready to answer from.
#[derive(Debug)]
pub struct Net {
    /// Which one.
    pub id: NetworkId,
    /// What is wanted.
    pub wanted: ServedNetwork,
    /// All names and addresses that are answered for here.
    pub zone: Zone,
    fixed4: HashSet<Ipv4Addr>,
    fixed6: HashSet<Ipv6Addr>,
}

impl Net {
    /// Makes the network `id` of `all` ready; `None` if it is not there.
    pub fn new(id: &NetworkId, all: &BTreeMap<NetworkId, ServedNetwork>) -> Option<Self> {
        let wanted = all.get(id)?.clone();
        let hosts = wanted.hosts.values();
        let gateway4 = wanted.gateway.map(|gateway| gateway.addr());
        let gateway6 = wanted.gateway6.map(|gateway| gateway.addr());
        Some(Self {
            id: id.clone(),
            fixed4: hosts.clone().filter_map(|host| host.address).chain(gateway4).collect(),
            fixed6: hosts.filter_map(|host| host.address6).chain(gateway6).collect(),
            zone: Zone::new(id, all),
            wanted,
        })
    }

    /// The machine with this MAC.
    pub fn host(&self, mac: Mac) -> Option<&ServedHost> {
        self.wanted.hosts.get(&mac)
    }

    /// Whether an address is a machine's or our own.
    pub fn is_fixed(&self, address: Ipv4Addr) -> bool {
        self.fixed4.contains(&address)
    }

    /// Whether an address is a machine's or our own.
    pub fn is_fixed6(&self, address: Ipv6Addr) -> bool {
        self.fixed6.contains(&address)
    }
}
