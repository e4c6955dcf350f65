//! Names that a machine finds without asking the network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{AddrParseError, IpAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The address of such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddress {
    /// This one.
    Fixed(IpAddr),
    /// That of the machine's router, by which it reaches this computer.
    ThisComputer,
}

/// How this computer is written, as in Compose and on Docker's command line.
const THIS_COMPUTER: &str = "host-gateway";

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::ThisComputer => f.write_str(THIS_COMPUTER),
        }
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

impl FromStr for HostAddress {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == THIS_COMPUTER { Ok(Self::ThisComputer) } else { text.parse().map(Self::Fixed) }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

type Hosts = BTreeMap<String, Vec<HostAddress>>;

/// Machines that were made when a name had one address have that alone on record.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hosts, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Addresses {
        One(HostAddress),
        Several(Vec<HostAddress>),
    }
    let read: BTreeMap<String, Addresses> = BTreeMap::deserialize(from)?;
    let several = |addresses| match addresses {
        Addresses::One(address) => vec![address],
        Addresses::Several(addresses) => addresses,
    };
    Ok(read.into_iter().map(|(name, addresses)| (name, several(addresses))).collect())
}

/// One address is recorded as those before us recorded it, who would not read a list.
pub(super) fn serialize<S: Serializer>(hosts: &Hosts, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Addresses<'a> {
        One(&'a HostAddress),
        Several(&'a [HostAddress]),
    }
    to.collect_map(hosts.iter().map(|(name, addresses)| match addresses.as_slice() {
        [one] => (name, Addresses::One(one)),
        several => (name, Addresses::Several(several)),
    }))
}

#[cfg(test)]
mod tests {
    use crate::container::Container;

    #[test]
    fn hosts_with_one_address_each_are_read_as_they_were_recorded() {
        let mut container = Container::new("web".parse().unwrap());
        let addresses = ["10.0.0.1", "::1", "host-gateway"].map(|address| address.parse().unwrap());
        container.hosts.insert("a".to_owned(), vec![addresses[0]]);
        container.hosts.insert("b".to_owned(), addresses.to_vec());
        let recorded = serde_json::to_value(&container).unwrap();
        let expected = serde_json::json!({ "a": "10.0.0.1", "b": ["10.0.0.1", "::1", "host-gateway"] });
        assert_eq!(recorded["hosts"], expected);
        assert_eq!(serde_json::from_value::<Container>(recorded).unwrap(), container);
    }
}
