//! What tests need of the kernel and `rustix` marks as unsafe or has not got.
#![allow(unsafe_code, dead_code, reason = "each test binary uses its part")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Puts this thread, and what it starts, into a new network namespace. No test may go on in the computer's own.
pub(crate) fn unshare_network() {
    // SAFETY: only the network namespace of this thread changes; no descriptors or memory are unshared.
    let done = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    done.expect("cannot make a network namespace: run the tests as root or under `unshare -rn`");
}

/// Lets a socket bind to addresses that are not of this computer.
pub(crate) fn transparent(socket: BorrowedFd<'_>, is_v4: bool) {
    let (level, option) = match is_v4 {
        true => (libc::SOL_IP, libc::IP_TRANSPARENT),
        false => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
    };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and `on` is a c_int that lives across the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), 4) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
