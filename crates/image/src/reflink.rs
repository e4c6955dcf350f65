//! Files that share their blocks, where the file system has that.

use std::os::fd::BorrowedFd;

use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

/// Gives a file the blocks of another one; false where the file system shares none, so that the bytes are to be copied.
pub(crate) fn reflink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        // These would hinder a copy as well. Else it has no such thing, not for these files, or not just now.
        Err(errno @ (Errno::IO | Errno::NOMEM | Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn blocks_are_shared_or_not() {
        let file = || tempfile::tempfile().unwrap();
        // Whether this file system can is not known here; that it can or cannot is no failure.
        reflink(file().as_fd(), file().as_fd()).unwrap();
        let other = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(reflink(other.as_fd(), file().as_fd()), Ok(false));
    }
}
