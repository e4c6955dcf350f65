//! The socket options and control messages that `rustix` does not have: transparent sockets, and the local
//! address of a datagram. All of this leaf's `unsafe` is here.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a socket with the runtime.
pub(super) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
    // SAFETY: an `OwnedFd` is open until it is dropped and is always the same descriptor, and the `AsyncFd`
    // keeps it until it has deregistered it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// What an option concerns: IPv4 and IPv6 have one each.
#[derive(Clone, Copy)]
pub(super) enum Toggle {
    /// The socket may take addresses that are not this computer's.
    Transparent,
    /// Received datagrams tell which of our addresses they were sent to.
    PacketInfo,
    /// A bind without a port leaves the choice to the connect, which knows which are free for that peer.
    LatePort,
}

/// Switches an option of the socket's family on.
pub(super) fn switch_on(socket: impl AsFd, family: IpAddr, toggle: Toggle) -> io::Result<()> {
    let (level, name) = match (family, toggle) {
        (IpAddr::V4(_), Toggle::Transparent) => (libc::SOL_IP, libc::IP_TRANSPARENT),
        (IpAddr::V6(_), Toggle::Transparent) => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
        (IpAddr::V4(_), Toggle::PacketInfo) => (libc::SOL_IP, libc::IP_PKTINFO),
        (IpAddr::V6(_), Toggle::PacketInfo) => (libc::SOL_IPV6, libc::IPV6_RECVPKTINFO),
        // The IPv4 option holds for IPv6 sockets too.
        (_, Toggle::LatePort) => (libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT),
    };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open while it is borrowed; `on` is a valid `int` of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            length(size_of::<libc::c_int>()),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A datagram as it came in.
#[derive(Debug)]
pub(super) struct Received {
    /// Its length; it fits the buffer, which holds the largest there is.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours that it was sent to, where the socket tells.
    pub to: Option<IpAddr>,
}

/// Room for one control message, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Receives a datagram from anybody, without waiting.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: all bytes zero is a valid value of these plain C structures.
    let (mut name, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length(size_of::<libc::sockaddr_storage>());
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `message` points to a live object of the length beside it.
    let count = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let from = peer(&name).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Received { length, from, to: local_address(&message) })
}

/// Sends a datagram to `to`, from our address `from` where given, without waiting.
pub(super) fn send(socket: impl AsFd, data: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    // SAFETY: all bytes zero is a valid value of this plain C structure.
    let mut message: libc::msghdr = unsafe { zeroed() };
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut name4 = libc::sockaddr_in {
        sin_family: family(libc::AF_INET),
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    let mut name6 = libc::sockaddr_in6 {
        sin6_family: family(libc::AF_INET6),
        sin6_port: to.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    };
    match to {
        SocketAddr::V4(to) => {
            name4.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            message.msg_name = (&raw mut name4).cast();
            message.msg_namelen = length(size_of::<libc::sockaddr_in>());
        }
        SocketAddr::V6(to) => {
            name6.sin6_addr.s6_addr = to.ip().octets();
            name6.sin6_scope_id = to.scope_id();
            message.msg_name = (&raw mut name6).cast();
            message.msg_namelen = length(size_of::<libc::sockaddr_in6>());
        }
    }
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(from) = from {
        write_local_address(&mut message, &mut control, from);
    }
    // SAFETY: every pointer in `message` points to a live object of the length beside it; the data is only read.
    let count = unsafe {
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `from` the message's one control message.
fn write_local_address(message: &mut libc::msghdr, control: &mut Control, from: IpAddr) {
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: `control` is aligned for `cmsghdr` and its 64 bytes hold a header and either structure; the data
    // is written unaligned, so its place needs no alignment of its own.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const *message);
        match from {
            IpAddr::V4(from) => {
                let mut info: libc::in_pktinfo = zeroed();
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(from.octets());
                let size = length(size_of::<libc::in_pktinfo>());
                (*header).cmsg_level = libc::SOL_IP;
                (*header).cmsg_type = libc::IP_PKTINFO;
                (*header).cmsg_len = libc::CMSG_LEN(size) as _;
                libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
                message.msg_controllen = libc::CMSG_SPACE(size) as _;
            }
            IpAddr::V6(from) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                    ipi6_ifindex: 0,
                };
                let size = length(size_of::<libc::in6_pktinfo>());
                (*header).cmsg_level = libc::SOL_IPV6;
                (*header).cmsg_type = libc::IPV6_PKTINFO;
                (*header).cmsg_len = libc::CMSG_LEN(size) as _;
                libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(info);
                message.msg_controllen = libc::CMSG_SPACE(size) as _;
            }
        }
    }
}

/// The local address in the control messages of a received datagram.
fn local_address(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled the control buffer and set its length; the `CMSG_*` macros stay within it, and
    // the data of a message of this level and type is this structure, read unaligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const *message);
        while !header.is_null() {
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())));
                }
                (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                _ => header = libc::CMSG_NXTHDR(&raw const *message, header),
            }
        }
    }
    None
}

/// The address that the kernel wrote.
fn peer(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this structure is there, and the storage is large and aligned enough.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(address, u16::from_be(name.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(address, port, 0, name.sin6_scope_id)))
        }
        _ => None,
    }
}

/// The size of a structure as C's functions want it.
fn length(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(0)
}

/// An address family as it stands in an address.
fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}
