//! Our mark on links: an alias that says what a link is for, so that what exists can be read from the kernel
//! alone. People see it in `ip link`.

use std::fmt;
use std::net::IpAddr;

use stead_model::address::Mac;
use stead_model::name::{LinkName, NetworkId, NicId};
use stead_model::observed::{Lease, NicEnd};
use stead_net::kernel::ALIAS_PREFIX;

/// What a link of ours is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The bridge of a network.
    Network(NetworkId),
    /// The bridge's port to a link of the computer, and how that link was before.
    Bridged(NetworkId, LinkName, Before),
    /// A nic's end on the bridge.
    Nic(NicMark),
    /// The host's end of the engine's way out, by the home's mark.
    Uplink(String),
}

/// How a link of the computer was before we took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Up,
    Down,
}

/// A nic, as its link says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NicMark {
    pub(super) id: NicId,
    pub(super) lease: Lease,
    pub(super) end: NicEnd,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALIAS_PREFIX)?;
        match self {
            Self::Network(id) => write!(f, "network {id}"),
            Self::Bridged(id, link, Before::Up) => write!(f, "bridged {id} {link} up"),
            Self::Bridged(id, link, Before::Down) => write!(f, "bridged {id} {link} down"),
            Self::Uplink(home) => write!(f, "uplink {home}"),
            Self::Nic(nic) => {
                write!(f, "nic {} ", nic.id)?;
                match &nic.end {
                    NicEnd::Veth(name) => write!(f, "veth {name}")?,
                    NicEnd::Set(name) => write!(f, "set {name}")?,
                    NicEnd::Tap(user) => write!(f, "tap {user}")?,
                }
                write!(f, " {}", nic.lease.mac)?;
                nic.lease.addresses().iter().try_for_each(|address| write!(f, " {address}"))
            }
        }
    }
}

impl Mark {
    /// Reads an alias; nothing if it is not one of ours.
    pub(super) fn parse(alias: &str) -> Option<Self> {
        let mut words = alias.strip_prefix(ALIAS_PREFIX)?.split(' ');
        let kind = words.next()?;
        let id = words.next()?;
        let mark = match kind {
            "network" => Self::Network(id.parse().ok()?),
            "bridged" => {
                let link = words.next()?.parse().ok()?;
                let before = match words.next()? {
                    "up" => Before::Up,
                    "down" => Before::Down,
                    _ => return None,
                };
                Self::Bridged(id.parse().ok()?, link, before)
            }
            "uplink" => Self::Uplink(id.to_owned()),
            "nic" => {
                let end = match (words.next()?, words.next()?) {
                    ("veth", name) => NicEnd::Veth(name.parse().ok()?),
                    ("set", name) => NicEnd::Set(name.parse().ok()?),
                    ("tap", user) => NicEnd::Tap(user.parse().ok()?),
                    _ => return None,
                };
                let mac: Mac = words.next()?.parse().ok()?;
                let mut lease = Lease { mac, address: None, address6: None };
                for word in words.by_ref() {
                    match word.parse().ok()? {
                        IpAddr::V4(address) => lease.address = Some(address),
                        IpAddr::V6(address) => lease.address6 = Some(address),
                    }
                }
                Self::Nic(NicMark { id: id.parse().ok()?, lease, end })
            }
            _ => return None,
        };
        words.next().is_none().then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use stead_model::name::NIC_ID_MAX_CHARS;

    use super::*;

    #[track_caller]
    fn check(text: &str) {
        assert_eq!(Mark::parse(text).map(|mark| mark.to_string()).as_deref(), Some(text));
    }

    #[test]
    fn marks_read_back() {
        check("stead:network lan.shop");
        check("stead:bridged lan.shop eth1 up");
        check("stead:bridged lan.shop eth1 down");
        check("stead:uplink ab12");
        check("stead:nic web/lan.shop veth eth0 02:00:00:00:00:01 10.0.5.2 fd00::2");
        check("stead:nic web/lan.shop set eth0 02:00:00:00:00:01 10.0.5.2");
        check("stead:nic web.blog/lan.shop set eth1 02:00:00:00:00:01 10.0.5.2");
        check("stead:nic web/lan.shop tap 1000 02:00:00:00:00:01");
    }

    #[test]
    fn what_is_not_ours_is_no_mark() {
        for text in [
            "",
            "eth0",
            "stead:",
            "stead:network",
            "stead:network lan",
            "stead:nic web/lan.shop",
            "stead:bridged lan.shop eth1",
            "stead:network lan.shop x",
        ] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_longest_mark_fits_an_alias() {
        let name = "n".repeat(40);
        let lease = "02:00:00:00:00:01 255.255.255.255 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let text = format!("stead:nic {name}/{name}.{name} veth eth12345678901 {lease}");
        check(&text);
        assert!(text.len() <= stead_net::kernel::ALIAS_MAX_BYTES, "{}", text.len());
        // A nic on another project's network has four names, which are refused where they are too long.
        let id = "n".repeat(NIC_ID_MAX_CHARS);
        for end in ["veth eth9999", "tap 4294967295"] {
            let text = format!("stead:nic {id} {end} {lease}");
            assert!(text.len() <= stead_net::kernel::ALIAS_MAX_BYTES, "{}", text.len());
        }
    }
}
