//! The anchor's two unsafe calls. Both change what belongs to the whole process, so they are right only
//! where this process has one thread and nothing else holds what they change.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use rustix::thread::UnshareFlags;

/// Moves this process into new namespaces. The flags are ours and never `FILES` or `FS`.
pub(super) fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    let namespaces = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: only `CLONE_FILES` and `CLONE_FS` endanger memory or descriptors of other threads; the mask
    // lets neither through.
    unsafe { rustix::thread::unshare_unsafe(what & namespaces) }
}

/// Closes every descriptor after standard error. Rust opens its own ones close-on-exec, so what is open at
/// the start of a program comes from whoever started it: the pipe of a shell that would wait for us forever.
pub(super) fn close_inherited() -> std::io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    // The directory's own descriptor was in it, and is closed by now.
    let still_open = |fd: &RawFd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    for fd in open.into_iter().filter(still_open) {
        // SAFETY: it is open, and called first thing in `serve`, before this program opened anything that it
        // keeps: no owner in this process has this number.
        unsafe { rustix::io::close(fd) };
    }
    Ok(())
}
