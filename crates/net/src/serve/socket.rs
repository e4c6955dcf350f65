//! Sockets of the services: asked for where the link is, bound to the link, and made ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{bind, listen, netdevice, sockopt};

use super::sys::{self, FilterStep};
use super::{OpenSocket, advert, dhcp4, dhcp6};
use crate::anchor::{Domain, Kind, SocketKind};

/// A link, as it is now: one of the same name made later has another index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) index: u32,
}

const DNS_PORT: u16 = 53;
/// Clients that wait to be accepted.
const BACKLOG: i32 = 128;
/// What the kernel keeps for us while we are busy: a few thousand packets. It may give less.
const RECEIVE_BYTES: usize = 1 << 20;
const ICMPV6: u32 = 58;

pub(crate) fn find_link(open: &OpenSocket, name: &str) -> Result<Link> {
    let any = open(SocketKind { domain: Domain::Inet, kind: Kind::Datagram, protocol: 0 })?;
    let index = netdevice::name_to_index(&any, name).with_context(|| format!("no link `{name}`"))?;
    Ok(Link { name: name.to_owned(), index })
}

pub(crate) fn dhcp4(open: &OpenSocket, link: &Link) -> Result<OwnedFd> {
    let fd = on_link(open, link, SocketKind { domain: Domain::Inet, kind: Kind::Datagram, protocol: 0 })?;
    sockopt::set_socket_broadcast(&fd, true)?;
    bind_to(&fd, SocketAddr::from((Ipv4Addr::UNSPECIFIED, dhcp4::SERVER_PORT)))?;
    Ok(fd)
}

/// The socket that DHCPv6 is answered from. It is a member of the group, so that the bridge brings us the
/// packets, and lets none of them in: they are read from a packet socket.
pub(crate) fn dhcp6_out(open: &OpenSocket, link: &Link) -> Result<OwnedFd> {
    let fd = on_link(open, link, SocketKind { domain: Domain::Inet6, kind: Kind::Datagram, protocol: 0 })?;
    sys::attach_filter(&fd, &[(RETURN, 0, 0, 0)]).context("cannot attach a packet filter")?;
    sockopt::set_ipv6_v6only(&fd, true)?;
    bind_to(&fd, SocketAddr::from((Ipv6Addr::UNSPECIFIED, dhcp6::SERVER_PORT)))?;
    join(&fd, dhcp6::SERVERS, link)?;
    Ok(fd)
}

/// The socket that DHCPv6 is read from: whole IPv6 packets, with the MAC that each came from.
pub(crate) fn dhcp6_in(open: &OpenSocket, link: &Link) -> Result<OwnedFd> {
    // Protocol 0: nothing comes in before the filter is there and the socket is bound.
    let fd = open(SocketKind { domain: Domain::Packet, kind: Kind::Datagram, protocol: 0 })?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    sys::attach_filter(&fd, &DHCP6_FILTER).context("cannot attach a packet filter")?;
    let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BYTES);
    sys::bind_packet6(&fd, link.index).with_context(|| format!("cannot listen on link `{}`", link.name))?;
    Ok(fd)
}

pub(crate) fn advert(open: &OpenSocket, link: &Link) -> Result<OwnedFd> {
    let fd = on_link(open, link, SocketKind { domain: Domain::Inet6, kind: Kind::Raw, protocol: ICMPV6 })?;
    sys::attach_filter(&fd, &SOLICITATION_FILTER).context("cannot attach a packet filter")?;
    // Receivers drop what may have passed a router.
    sockopt::set_ipv6_unicast_hops(&fd, Some(255))?;
    sockopt::set_ipv6_multicast_hops(&fd, 255)?;
    sockopt::set_ipv6_multicast_loop(&fd, false)?;
    join(&fd, advert::ALL_ROUTERS, link)?;
    Ok(fd)
}

pub(crate) fn dns(open: &OpenSocket, link: &Link, address: IpAddr, kind: Kind) -> Result<OwnedFd> {
    let domain = if address.is_ipv4() { Domain::Inet } else { Domain::Inet6 };
    let fd = on_link(open, link, SocketKind { domain, kind, protocol: 0 })?;
    // The address may be set a moment later, and an IPv6 one is not there until the link knows it is alone.
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&fd, true)?;
    } else {
        sockopt::set_ipv6_v6only(&fd, true)?;
        sockopt::set_ipv6_freebind(&fd, true)?;
    }
    if kind == Kind::Stream {
        // Or the connections of an earlier switchboard keep the port for a minute.
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    bind_to(&fd, SocketAddr::new(address, DNS_PORT))?;
    if kind == Kind::Stream {
        listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

fn on_link(open: &OpenSocket, link: &Link, socket: SocketKind) -> Result<OwnedFd> {
    let fd = open(socket)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    sys::bind_device(&fd, &link.name).with_context(|| format!("cannot bind to link `{}`", link.name))?;
    let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BYTES);
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> Result<()> {
    bind(fd, &address).with_context(|| format!("cannot bind to `{address}`"))
}

fn join(fd: &OwnedFd, group: Ipv6Addr, link: &Link) -> Result<()> {
    sockopt::set_ipv6_add_membership(fd, &group, link.index).with_context(|| format!("cannot join `{group}`"))
}

// Classic BPF, as `tcpdump -dd` prints it.
const LOAD_U8: u16 = 0x30;
const LOAD_U16: u16 = 0x28;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALL: u32 = 0xffff;
/// `SKF_NET_OFF`: offsets from here on count from the IP header, wherever the socket's own view starts.
const FROM_IP: u32 = 0xfff0_0000;

/// `udp dst port 547` of an IPv6 packet without extension headers.
const DHCP6_FILTER: [FilterStep; 6] = [
    (LOAD_U8, 0, 0, 6),
    (JUMP_EQUAL, 0, 3, 17),
    (LOAD_U16, 0, 0, 42),
    (JUMP_EQUAL, 0, 1, 547),
    (RETURN, 0, 0, ALL),
    (RETURN, 0, 0, 0),
];

/// A router solicitation that came with hop limit 255: it has passed no router, so it is from this link.
const SOLICITATION_FILTER: [FilterStep; 6] = [
    (LOAD_U8, 0, 0, FROM_IP + 7),
    (JUMP_EQUAL, 0, 3, 255),
    (LOAD_U8, 0, 0, FROM_IP + 40),
    (JUMP_EQUAL, 0, 1, advert::SOLICITATION as u32),
    (RETURN, 0, 0, ALL),
    (RETURN, 0, 0, 0),
];
