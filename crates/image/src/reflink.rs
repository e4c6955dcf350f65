//! Files that share their blocks, where the file system has that.

use std::os::fd::BorrowedFd;

use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

/// Gives a file the blocks of another one; false where the file system shares none, so that the bytes are to be copied.
pub(crate) fn reflink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        // It has no such thing, not with this one, or not for such files. Anything else would hinder a copy as well.
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn blocks_are_shared_or_not_and_what_fails_is_told() {
        let file = || tempfile::tempfile().unwrap();
        // Whether this file system can is not known here; that it can or cannot is no failure.
        reflink(file().as_fd(), file().as_fd()).unwrap();
        let other = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(reflink(other.as_fd(), file().as_fd()), Ok(false));
        let unwritable = std::fs::File::open(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
        assert_eq!(reflink(file().as_fd(), unwritable.as_fd()), Err(Errno::BADF));
    }
}
