//! The one unsafe call about this process's own descriptors.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Has this descriptor closed in the programs that we start.
pub(crate) fn close_on_exec(fd: RawFd) -> rustix::io::Result<()> {
    // SAFETY: it is not -1, and borrowed for one call that changes nothing but its flag: neither the file nor
    // whoever owns the descriptor notices. Should it have been closed meanwhile, the kernel says so.
    let done = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC);
    if done == Err(Errno::BADF) { Ok(()) } else { done }
}
