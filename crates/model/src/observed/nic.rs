//! Nics as they exist: where they are on the wire, and what they may do there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::NetworkState;
use crate::address::Mac;
use crate::name::{Alias, LinkName};
use crate::project::Guard;

/// The addresses that are a nic's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its MAC.
    pub mac: Mac,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Addr>,
}

/// A nic on its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicState {
    /// The link on the bridge: its end of the veth pair, or the TAP.
    pub link: LinkName,
    /// The other end.
    pub end: NicEnd,
    /// The largest packet.
    pub mtu: u16,
    /// Its addresses.
    pub lease: Lease,
    /// What it may speak with.
    pub guard: GuardState,
    /// What the machine is called on this network.
    pub names: BTreeSet<Alias>,
    /// Whether it reaches this computer, at the network's gateway.
    #[serde(default)]
    pub calls: bool,
}

/// The machine's side of a nic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicEnd {
    /// The other end of the veth pair, in the machine's namespace, by this name.
    Veth(LinkName),
    /// The same, and we set its addresses: nobody in there asks for them.
    Set(LinkName),
    /// A TAP that a process of this user may open.
    Tap(u32),
}

/// What a nic may speak with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardState {
    /// Its own MAC, and these addresses.
    Addresses(BTreeSet<IpAddr>),
    /// Its own MAC, and any address: on this network addresses are not ours to give.
    Mac,
    /// Anything.
    Off,
}

impl NicEnd {
    /// Its name in the machine's namespace, if it is a link there.
    pub fn inner(&self) -> Option<&LinkName> {
        match self {
            Self::Veth(name) | Self::Set(name) => Some(name),
            Self::Tap(_) => None,
        }
    }

    /// By this a machine's nics are in their order: `eth10` comes after `eth9`.
    pub fn order(&self) -> Option<(usize, &LinkName)> {
        self.inner().map(|name| (name.as_str().len(), name))
    }
}

impl Lease {
    /// Its addresses of both families.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.address.map(IpAddr::V4).into_iter().chain(self.address6.map(IpAddr::V6)).collect()
    }
}

impl GuardState {
    /// What a nic with this lease may speak with.
    pub fn new(guard: Guard, lease: &Lease, network: &NetworkState) -> Self {
        let Some(service) = &network.service else {
            return match guard {
                Guard::On => Self::Mac,
                Guard::Off => Self::Off,
            };
        };
        let slaac = service.dhcp.as_ref().is_some_and(|dhcp| dhcp.slaac);
        let made = network.gateway6.filter(|_| slaac).map(|prefix| IpAddr::V6(lease.mac.slaac(prefix)));
        match guard {
            Guard::Off => Self::Off,
            Guard::On => Self::Addresses(lease.addresses().into_iter().chain(made).collect()),
        }
    }
}
