//! The one call that the kernel's bindings call unsafe.
#![allow(unsafe_code)]

use rustix::io;
use rustix::thread::UnshareFlags;

/// Leaves namespaces that this process shares with others, for new ones.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "the table of descriptors is shared by all of a process");
    // SAFETY: What is unsafe is to leave the table of descriptors (`FILES`), in which others of this process may
    // count on theirs; that was just ruled out.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
