//! The few socket calls that rustix does not have: options by number, a packet filter, and packet sockets.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// One instruction of a classic packet filter: code, jump if true, jump if false, constant.
pub(crate) type FilterStep = (u16, u8, u8, u32);

/// What the kernel says of a packet's sender on a packet socket.
pub(crate) struct Sender {
    /// Its MAC.
    pub(crate) mac: [u8; 6],
    /// Whether we are the sender: packet sockets see what goes out too.
    pub(crate) ourselves: bool,
}

/// Binds to the link with this index: what comes in by another one is not seen, and everything goes out by it.
pub(crate) fn bind_device(fd: impl AsFd, name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `name`, which the kernel copies before it returns.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            libc::socklen_t::try_from(name.len()).unwrap_or(0),
        )
    })
}

/// Lets only those packets in for which the filter gives more than 0.
pub(crate) fn attach_filter(fd: impl AsFd, steps: &[FilterStep]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> =
        steps.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: code.as_mut_ptr(),
    };
    // SAFETY: `program` points to `code`, whose length it states; both live until the kernel has copied them.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            socklen::<libc::sock_fprog>(),
        )
    })
}

/// Binds a packet socket to a link, for all packets of IPv6.
pub(crate) fn bind_packet6(fd: impl AsFd, index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain numbers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| io::ErrorKind::InvalidInput)?;
    address.sll_protocol = ETH_P_IPV6.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length are those of `address`, which the kernel copies before it returns.
    check(unsafe {
        libc::bind(fd.as_fd().as_raw_fd(), (&raw const address).cast(), socklen::<libc::sockaddr_ll>())
    })
}

/// Receives from a packet socket without waiting.
pub(crate) fn receive_packet(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Sender)> {
    // SAFETY: `sockaddr_ll` is plain numbers, for which zero is a value.
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut length = socklen::<libc::sockaddr_ll>();
    // SAFETY: buffer and address are ours alone and are given with their own lengths, which the kernel keeps to.
    let count = unsafe {
        libc::recvfrom(
            fd.as_fd().as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let [a, b, c, d, e, f, ..] = from.sll_addr;
    let ourselves = from.sll_pkttype == libc::PACKET_OUTGOING;
    Ok((count, Sender { mac: [a, b, c, d, e, f], ourselves }))
}

/// Waits for a socket by tokio.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same file until it is dropped, which the `AsyncFd` does last.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// IPv6's number on an Ethernet.
const ETH_P_IPV6: u16 = 0x86dd;

fn socklen<T>() -> libc::socklen_t {
    // No address or option here is larger than a few dozen bytes.
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
