//! Links as values, and the messages that make, change and remove them.
//!
//! All about a new link goes to the kernel in one datagram, so that a kill cannot leave a link without its
//! mark. It takes up to three messages: creation ignores the alias, the port's flags and how IPv6 makes
//! addresses, so a second message sets them, and a third brings the link up once IPv6 knows to keep quiet.
//! The later messages name the link by an index that we chose at random for its creation, not by name: had
//! the creation failed because the name is taken, they would change somebody else's link.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use stead_model::address::Mac;
use stead_model::name::LinkName;

use super::socket::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use super::tlv::Message;
use super::uapi::*;

/// RFC 8200: on a link of smaller packets the kernel has no IPv6.
const IPV6_MTU_MIN: u32 = 1280;

/// What every new link has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLink {
    /// Its name.
    pub name: LinkName,
    /// Whose it is and what for (at most [`ALIAS_MAX_BYTES`]); links of ours start with `stead:`.
    pub alias: String,
    /// Its MAC; the kernel draws one by lot where absent. A bridge keeps for itself what is sent to the MAC of
    /// one of its ports, so that a port must not have the MAC of the nic behind it.
    pub mac: Option<Mac>,
    /// The largest packet; the kernel's 1500 where absent.
    pub mtu: Option<u32>,
    /// The group that it can be removed with; 0 for none.
    pub group: u32,
}

/// The kernel's `IFALIASZ` less the closing NUL.
pub const ALIAS_MAX_BYTES: usize = 255;

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The bridge.
    pub bridge: LinkName,
    /// How the bridge treats it.
    pub flags: PortFlags,
}

/// How a bridge treats a port; what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// Whether a frame may leave by the port it came in by, as a machine that reaches itself by its published
    /// port needs.
    pub hairpin: Option<bool>,
    /// Whether the bridge learns MACs from it.
    pub learning: Option<bool>,
    /// Whether it reaches only ports that are not isolated.
    pub isolated: Option<bool>,
}

/// A veth pair. Its near end is brought up; the far end is left to whoever has a socket in its namespace,
/// because the kernel cannot bring it up while the pair is being made (`ENOTCONN`).
#[derive(Clone, Debug)]
pub struct Veth<'fd> {
    /// The near end.
    pub link: NewLink,
    /// The bridge that the near end is a port of.
    pub port: Option<Port>,
    /// The far end.
    pub peer: Peer<'fd>,
}

/// The far end of a veth pair.
#[derive(Clone, Debug)]
pub struct Peer<'fd> {
    /// The network namespace that it is made in; ours where absent.
    pub netns: Option<BorrowedFd<'fd>>,
    /// Its name there.
    pub name: LinkName,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// Its group there; 0 for none.
    pub group: u32,
}

/// What changes about a link; what is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'fd> {
    /// Up or down.
    pub up: Option<bool>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// The MAC.
    pub mac: Option<Mac>,
    /// The bridge it is a port of, or of none.
    pub bridge: Option<Option<LinkName>>,
    /// How that bridge treats it.
    pub port: PortFlags,
    /// The alias.
    pub alias: Option<String>,
    /// The group.
    pub group: Option<u32>,
    /// The network namespace to move to.
    pub netns: Option<BorrowedFd<'fd>>,
    /// Whether IPv6 makes the link a link-local address.
    pub link_local: Option<bool>,
}

impl fmt::Display for LinkChange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.up.map(|up| if up { "up".to_owned() } else { "down".to_owned() }));
        words.extend(self.mtu.map(|mtu| format!("mtu {mtu}")));
        words.extend(self.mac.map(|mac| format!("mac {mac}")));
        words.extend(self.bridge.as_ref().map(|bridge| match bridge {
            Some(bridge) => format!("bridge {bridge}"),
            None => "no bridge".to_owned(),
        }));
        let flags = [
            ("hairpin", self.port.hairpin),
            ("learning", self.port.learning),
            ("isolated", self.port.isolated),
            ("link-local", self.link_local),
        ];
        for (name, flag) in flags {
            words.extend(flag.map(|on| format!("{name} {}", if on { "on" } else { "off" })));
        }
        words.extend(self.alias.as_ref().map(|alias| format!("alias {alias}")));
        words.extend(self.group.map(|group| format!("group {group}")));
        words.extend(self.netns.map(|_| "to another namespace".to_owned()));
        f.write_str(&words.join(" "))
    }
}

/// The messages for a new bridge.
///
/// No spanning tree and no forward delay: a port forwards at once, and loops cannot be built from our links.
/// No multicast snooping: it drops frames to groups that nobody reported, and a guest's neighbour
/// discovery must not hang on the reports that it sent before its port was up; a bridge of one computer
/// can afford to flood. No link-local address of the kernel's making: duplicate address detection would hold
/// it back for seconds; a network that we serve is given its own, at once, with [`super::RouteRequest`].
pub(super) fn add_bridge(link: &NewLink, index: u32) -> Vec<Message> {
    let mut create = create(link, index);
    create.nest(IFLA_LINKINFO, |info| {
        info.put_text(IFLA_INFO_KIND, "bridge");
        info.nest(IFLA_INFO_DATA, |data| {
            data.put_u32(IFLA_BR_FORWARD_DELAY, 0);
            data.put_u32(IFLA_BR_STP_STATE, 0);
            data.put(IFLA_BR_MCAST_SNOOPING, &[0]);
        });
    });
    vec![create, finish(link, index, PortFlags::default()), up(index)]
}

/// The messages for a new veth pair.
pub(super) fn add_veth(veth: &Veth<'_>, index: u32, bridge_index: Option<u32>) -> Vec<Message> {
    let mut create = create(&veth.link, index);
    if let Some(bridge_index) = bridge_index {
        create.put_u32(IFLA_MASTER, bridge_index);
    }
    create.nest(IFLA_LINKINFO, |info| {
        info.put_text(IFLA_INFO_KIND, "veth");
        info.nest(IFLA_INFO_DATA, |data| {
            let peer = &veth.peer;
            data.nest_after(VETH_INFO_PEER, &link_header(0, 0, 0), |far| {
                far.put_text(IFLA_IFNAME, peer.name.as_str());
                put_size_and_mac(far, peer.mtu, peer.mac);
                if peer.group != 0 {
                    far.put_u32(IFLA_GROUP, peer.group);
                }
                if let Some(netns) = peer.netns {
                    far.put(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
                }
            });
        });
    });
    let flags = veth.port.as_ref().map(|port| port.flags).unwrap_or_default();
    vec![create, finish(&veth.link, index, flags), up(index)]
}

/// The messages that change a link. What the bridge does with the port comes last, when it is one.
pub(super) fn change(link: &LinkName, change: &LinkChange<'_>, bridge_index: Option<u32>) -> Vec<Message> {
    let (flags, mask) = match change.up {
        Some(true) => (IFF_UP, IFF_UP),
        Some(false) => (0, IFF_UP),
        None => (0, 0),
    };
    let mut message = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(0, flags, mask));
    message.put_text(IFLA_IFNAME, link.as_str());
    put_size_and_mac(&mut message, change.mtu, change.mac);
    if change.bridge.is_some() {
        message.put_u32(IFLA_MASTER, bridge_index.unwrap_or(0));
    }
    if let Some(alias) = &change.alias {
        message.put(IFLA_IFALIAS, alias.as_bytes());
    }
    if let Some(group) = change.group {
        message.put_u32(IFLA_GROUP, group);
    }
    if let Some(netns) = change.netns {
        message.put(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    }
    if let Some(on) = change.link_local {
        put_link_local(&mut message, on, change.mtu);
    }
    let mut messages = vec![message];
    if change.port != PortFlags::default() {
        let mut port = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(0, 0, 0));
        port.put_text(IFLA_IFNAME, link.as_str());
        put_port_flags(&mut port, change.port);
        messages.push(port);
    }
    messages
}

/// The message that gives the link with this index a new name.
pub(super) fn rename(index: u32, name: &LinkName) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(index, 0, 0));
    message.put_text(IFLA_IFNAME, name.as_str());
    message
}

/// The message that removes a link by name.
pub(super) fn delete(link: &LinkName) -> Message {
    let mut message = Message::new(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(0, 0, 0));
    message.put_text(IFLA_IFNAME, link.as_str());
    message
}

/// The message that removes a link by index.
pub(super) fn delete_index(index: u32) -> Message {
    Message::new(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(index, 0, 0))
}

/// The message that removes all links of a group.
pub(super) fn delete_group(group: u32) -> Message {
    let mut message = Message::new(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(0, 0, 0));
    message.put_u32(IFLA_GROUP, group);
    message
}

fn create(link: &NewLink, index: u32) -> Message {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWLINK, flags, &link_header(index, 0, 0));
    message.put_text(IFLA_IFNAME, link.name.as_str());
    put_size_and_mac(&mut message, link.mtu, link.mac);
    if link.group != 0 {
        message.put_u32(IFLA_GROUP, link.group);
    }
    message
}

/// What creation ignores.
fn finish(link: &NewLink, index: u32, flags: PortFlags) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(index, 0, 0));
    message.put(IFLA_IFALIAS, link.alias.as_bytes());
    put_port_flags(&mut message, flags);
    put_link_local(&mut message, false, link.mtu);
    message
}

fn up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(index, IFF_UP, IFF_UP))
}

fn put_size_and_mac(message: &mut Message, mtu: Option<u32>, mac: Option<Mac>) {
    if let Some(mtu) = mtu {
        message.put_u32(IFLA_MTU, mtu);
    }
    if let Some(mac) = mac {
        message.put(IFLA_ADDRESS, &mac.bytes());
    }
}

fn put_port_flags(message: &mut Message, flags: PortFlags) {
    let flags = [
        (IFLA_BRPORT_MODE, flags.hairpin),
        (IFLA_BRPORT_LEARNING, flags.learning),
        (IFLA_BRPORT_ISOLATED, flags.isolated),
    ];
    if flags.iter().all(|(_, flag)| flag.is_none()) {
        return;
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.put_text(IFLA_INFO_SLAVE_KIND, "bridge");
        info.nest(IFLA_INFO_SLAVE_DATA, |data| {
            for (kind, flag) in flags {
                if let Some(on) = flag {
                    data.put(kind, &[u8::from(on)]);
                }
            }
        });
    });
}

/// A port that made itself an IPv6 address would speak on the wire with a MAC of nobody's.
fn put_link_local(message: &mut Message, on: bool, mtu: Option<u32>) {
    // Where there is no IPv6 to speak of, the kernel refuses the whole message.
    if mtu.is_some_and(|mtu| mtu < IPV6_MTU_MIN) || !has_ipv6() {
        return;
    }
    let mode = if on { IN6_ADDR_GEN_MODE_EUI64 } else { IN6_ADDR_GEN_MODE_NONE };
    message.nest(IFLA_AF_SPEC, |families| {
        families.nest(u16::from(AF_INET6), |inet6| inet6.put(IFLA_INET6_ADDR_GEN_MODE, &[mode]));
    });
}

/// Whether this kernel has IPv6 (it may be told `ipv6.disable=1`).
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// `struct ifinfomsg`.
pub(super) fn link_header(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let numbers = [index, flags, mask].map(u32::to_ne_bytes);
    header.iter_mut().skip(4).zip(numbers.as_flattened()).for_each(|(to, from)| *to = *from);
    header
}
