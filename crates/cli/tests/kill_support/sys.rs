//! What the tests need of the kernel and `rustix` marks as unsafe.
#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Puts this thread, and what it starts, into new network and mount namespaces.
pub(crate) fn unshare() {
    // SAFETY: only the namespaces and the file system view of this thread change; no memory is shared with what
    // is left.
    let done = unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) };
    done.expect("cannot make namespaces: run the tests as root or under `unshare -rn`");
}
