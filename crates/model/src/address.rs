//! MAC addresses, and the names and numbers we derive rather than draw by lot: the same project gets the
//! same ones on every computer, and a test needs no seed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::name::LinkName;

/// An Ethernet address that one nic can have (not a group address, not all zero).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is not a [`Mac`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacError {
    /// Not six bytes in hexadecimal with `:` between.
    Form,
    /// The group bit is set: it names many nics.
    Group,
    /// All zero.
    Zero,
}

impl Mac {
    /// Checks six bytes.
    pub fn new(bytes: [u8; 6]) -> Result<Self, MacError> {
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(MacError::Zero),
            [first, ..] if first & 1 == 1 => Err(MacError::Group),
            _ => Ok(Self(bytes)),
        }
    }

    /// A locally administered address derived from what it is for.
    pub fn derived(parts: &[&str]) -> Self {
        let [a, b, c, d, e, ..] = digest(parts);
        Self([0x02, a, b, c, d, e])
    }

    /// The six bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address that a host on `prefix` makes of this MAC by SLAAC (RFC 4291, EUI-64).
    pub fn slaac(self, prefix: Ipv6Net) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let low = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Ipv6Addr::from(u128::from(prefix.network()) | u128::from(low))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(MacError::Form)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError::Form)?;
        }
        if parts.next().is_some() {
            return Err(MacError::Form);
        }
        Self::new(bytes)
    }
}

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a MAC is six bytes in hexadecimal, like `02:00:00:00:00:01`",
            Self::Group => "this MAC names a group of nics: its first byte must be even",
            Self::Zero => "a MAC cannot be all zero",
        })
    }
}

impl std::error::Error for MacError {}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// The first bytes of the SHA-256 of `parts`, which are kept apart by a NUL.
pub fn digest(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut first = [0; 16];
    first.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    first
}

/// A link name that a person can place and that no other of ours has: `stn-web-x7k2q` from a kind's letter,
/// the first five characters of `name`, and 25 bits of what it is for. `taken` says which are in use; the
/// next candidate is tried then, so names never collide.
pub fn link_name(kind: char, name: &str, parts: &[&str], taken: &dyn Fn(&LinkName) -> bool) -> LinkName {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let readable: String = name.chars().take(5).collect();
    for attempt in 0_u32.. {
        let attempt = attempt.to_string();
        let mut bits = u128::from_be_bytes(digest(&[parts, &[attempt.as_str()]].concat()));
        let mut text = format!("st{kind}-{readable}-");
        for _ in 0..5 {
            text.push(ALPHABET.get((bits & 31) as usize).copied().map_or('a', char::from));
            bits >>= 5;
        }
        if let Ok(link) = text.parse()
            && !taken(&link)
        {
            return link;
        }
    }
    unreachable!("fewer links than numbers")
}

/// The address `offset` places after the network's own.
pub fn nth4(net: Ipv4Net, offset: u32) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from(net.network()).checked_add(offset)?);
    (net.contains(&address) && address != net.broadcast()).then_some(address)
}

/// The address `offset` places after the network's own.
pub fn nth6(net: Ipv6Net, offset: u128) -> Option<Ipv6Addr> {
    let address = Ipv6Addr::from(u128::from(net.network()).checked_add(offset)?);
    net.contains(&address).then_some(address)
}

/// Whether two ranges share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Whether a nic can have this address at all, whatever its network.
pub fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !(a.is_multicast() || a.is_broadcast() || a.is_unspecified() || a.is_loopback()),
        IpAddr::V6(a) => !(a.is_multicast() || a.is_unspecified() || a.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_and_group_addresses_are_refused() {
        assert_eq!("02:00:5e:10:00:ff".parse::<Mac>().unwrap().to_string(), "02:00:5e:10:00:ff");
        assert_eq!("03:00:00:00:00:00".parse::<Mac>(), Err(MacError::Group));
        assert_eq!("00:00:00:00:00:00".parse::<Mac>(), Err(MacError::Zero));
        for bad in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "02-00-00-00-00-00",
            "02:00:00:00:00:0g",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(MacError::Form), "{bad}");
        }
    }

    #[test]
    fn slaac_makes_the_address_of_rfc_4291() {
        let mac: Mac = "34:56:78:9a:bc:de".parse().unwrap();
        assert_eq!(mac.slaac("fd00::/64".parse().unwrap()).to_string(), "fd00::3656:78ff:fe9a:bcde");
    }

    #[test]
    fn derived_link_names_fit_and_differ() {
        let free = |_: &LinkName| false;
        let name = link_name('n', "webserver", &["shop", "web", "lan"], &free);
        assert!(name.as_str().len() == 15 && name.as_str().starts_with("stn-webse-"), "{name}");
        assert_ne!(name, link_name('n', "webserver", &["shop", "webl", "an"], &free));
        assert_eq!(name, link_name('n', "webserver", &["shop", "web", "lan"], &free));
        assert_ne!(name, link_name('n', "webserver", &["shop", "web", "lan"], &|link| *link == name));
    }
}
