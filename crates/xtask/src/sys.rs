//! The one thing that `rustix` marks as unsafe and the chores need.
#![allow(unsafe_code)]

use rustix::io;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves the namespaces named. `flags` must hold nothing but `NEW*` flags, which the callers are seen to do.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "only namespaces are unshared");
    // SAFETY: the condition is that no thread loses sight of another's file descriptors, which only `FILES`
    // could bring about, and that is excluded above.
    unsafe { unshare_unsafe(flags) }
}
