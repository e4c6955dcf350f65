//! The two things that rustix has no safe words for: options of a netlink socket, and the ioctls of
//! `/dev/net/tun`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::ioctl::{self, IntegerSetter, Setter, opcode};

/// Sets an integer option of the level `SOL_NETLINK`.
pub(super) fn set_netlink_option(socket: impl AsFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and `on` is a c_int that lives
    // across the call and whose size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast::<libc::c_void>(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct ifreq` as `TUNSETIFF` reads it: a name and flags, in the size of the whole union.
#[repr(C)]
pub(super) struct InterfaceRequest {
    pub name: [u8; libc::IFNAMSIZ],
    pub flags: libc::c_short,
    pub rest: [u8; 22],
}

const TUN: u8 = b'T';
const TUNSETIFF: ioctl::Opcode = opcode::write::<libc::c_int>(TUN, 202);
const TUNSETPERSIST: ioctl::Opcode = opcode::write::<libc::c_int>(TUN, 203);
const TUNSETOWNER: ioctl::Opcode = opcode::write::<libc::c_int>(TUN, 204);
const TUNSETGROUP: ioctl::Opcode = opcode::write::<libc::c_int>(TUN, 206);

/// Binds the descriptor to the TAP of this name, made if absent.
pub(super) fn tun_attach(tun: impl AsFd, request: InterfaceRequest) -> io::Result<()> {
    const { assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>()) }
    // SAFETY: TUNSETIFF reads (and writes back) a `struct ifreq`, whose size and layout `InterfaceRequest`
    // has; the pattern hands the kernel a pointer to the value that it owns.
    Ok(unsafe { ioctl::ioctl(tun, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?)
}

/// Lets the TAP outlive its descriptor, or not.
pub(super) fn tun_persist(tun: impl AsFd, on: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
    Ok(unsafe { ioctl::ioctl(tun, IntegerSetter::<TUNSETPERSIST>::new_usize(usize::from(on))) }?)
}

/// Lets this user attach to the TAP.
pub(super) fn tun_owner(tun: impl AsFd, user: u32) -> io::Result<()> {
    // SAFETY: TUNSETOWNER takes its argument by value and touches no memory of ours.
    Ok(unsafe { ioctl::ioctl(tun, IntegerSetter::<TUNSETOWNER>::new_usize(user as usize)) }?)
}

/// Lets this group attach to the TAP.
pub(super) fn tun_group(tun: impl AsFd, group: u32) -> io::Result<()> {
    // SAFETY: TUNSETGROUP takes its argument by value and touches no memory of ours.
    Ok(unsafe { ioctl::ioctl(tun, IntegerSetter::<TUNSETGROUP>::new_usize(group as usize)) }?)
}

/// Reads an option that is a structure of bytes, in and out: the kernel reads the buffer's beginning as the
/// question and fills it with the answer. Gives how much it filled.
pub(super) fn socket_option(
    socket: impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, the buffer is exclusively ours, and
    // the kernel is told its length and writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}
