//! Unix sockets in directories with long names: a socket's address has room for 107 bytes, a path below
//! `/proc/self/fd` is always short.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = short(path)?;
    UnixStream::connect(short)
}

/// Listens at `path`, for this user alone: the directory it is in keeps others out.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let bound = short(path).and_then(|(_directory, short)| UnixListener::bind(short));
    bound.with_context(|| format!("cannot listen at {}", path.display()))
}

/// A short path to `path`, good as long as the file beside it is open.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_be_deep() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("a.sock");
        let _listener = listen(&path).unwrap();
        connect(&path).unwrap();
        assert!(connect(&deep.join("b.sock")).is_err());
    }
}
