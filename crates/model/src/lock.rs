//! `stead.lock`: what was resolved once, so that a teammate gets the same lab. It is written beside the
//! project file and meant to be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::name::Name;
use crate::observed::NetworkState;
use crate::plan::Wanted;

/// What a project's open choices became.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The form of this file.
    pub version: Version,
    /// The subnets of networks.
    pub networks: BTreeMap<Name, LockedNetwork>,
    /// The addresses of nics, by machine and network.
    pub machines: BTreeMap<Name, BTreeMap<Name, LockedNic>>,
}

/// The form of a lock file: so far there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// The first.
    #[default]
    #[serde(rename = "1")]
    One,
}

/// Why a lock file cannot be read.
#[derive(Debug)]
pub enum LockError {
    /// It has a form that came after this program.
    Newer(String),
    /// It is not what we write; the text says where.
    Broken(serde_json::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(version) => {
                write!(f, "its version is {version:?}, and this program reads version \"1\"")
            }
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

/// The subnets of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNetwork {
    /// Its IPv4 subnet.
    pub subnet: Option<Ipv4Net>,
    /// Its IPv6 subnet.
    pub subnet6: Option<Ipv6Net>,
}

/// What is pinned of a nic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNic {
    /// Its MAC.
    pub mac: Option<Mac>,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Addr>,
}

impl Lock {
    /// What a plan's choices pin.
    pub fn new(wanted: &Wanted) -> Self {
        let networks = wanted.networks.iter().map(|(id, network)| {
            let subnet = network.gateway.map(|net| net.trunc());
            let subnet6 = network.gateway6.map(|net| net.trunc());
            (id.name.clone(), LockedNetwork { subnet, subnet6 })
        });
        let mut machines: BTreeMap<Name, BTreeMap<Name, LockedNic>> = BTreeMap::new();
        for (id, nic) in &wanted.nics {
            let network = wanted.networks.get(&id.network());
            let locked = LockedNic {
                // On a real network MACs are each computer's own, or two teammates would have the same.
                mac: Some(nic.lease.mac).filter(|_| !network.is_some_and(NetworkState::is_bridged)),
                address: nic.lease.address,
                address6: nic.lease.address6,
            };
            machines.entry(id.machine.clone()).or_default().insert(id.network.clone(), locked);
        }
        Self { version: Version::One, networks: networks.collect(), machines }
    }

    /// The same, and what was pinned of these machines, which the choices were not about.
    #[must_use]
    pub fn keeping(mut self, earlier: &Self, resting: &BTreeSet<Name>) -> Self {
        for (name, nics) in earlier.machines.iter().filter(|(name, _)| resting.contains(*name)) {
            self.machines.entry(name.clone()).or_insert_with(|| nics.clone());
        }
        self
    }

    /// Reads a lock file.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        /// What is read first, of a file of any form.
        #[derive(Deserialize)]
        struct Any {
            version: String,
        }
        match serde_json::from_str::<Any>(text) {
            Ok(Any { version }) if version != "1" => Err(LockError::Newer(version)),
            Ok(_) | Err(_) => serde_json::from_str(text).map_err(LockError::Broken),
        }
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        // A map with text keys always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
