//! Copies of directory trees, with owners, modes, times, extended attributes, links and devices.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fstat,
    ioctl_ficlone, lgetxattr, linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, statat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

/// How deep a tree may be: each level holds two descriptors open.
const DEPTH_MAX: usize = 1000;

/// Fills an empty directory with what another one holds, and gives it its owner and mode. One that holds
/// anything is left alone.
pub(crate) fn fill(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let to = openat(to, ".", flags, Mode::empty())?;
    if names(to.as_fd())?.is_empty() {
        let from = openat(from, ".", flags, Mode::empty())?;
        tree(from.as_fd(), to.as_fd())?;
    }
    Ok(())
}

/// Copies all that is in a directory, and what the directory itself is, into another that is empty.
pub(crate) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut copy = Copy { root: to, links: HashMap::new(), path: Vec::new() };
    copy.directory(from, to)
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    /// Where files that have several names were first copied to, by device and number.
    links: HashMap<(u64, u64), CString>,
    path: Vec<CString>,
}

impl Copy<'_> {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        if self.path.len() > DEPTH_MAX {
            anyhow::bail!("directories are nested too deeply");
        }
        for name in names(from)? {
            self.path.push(name.clone());
            let path = || String::from_utf8_lossy(self.whole().as_bytes()).into_owned();
            let path = path();
            self.entry(from, to, &name).with_context(|| format!("cannot copy `/{path}`"))?;
            self.path.pop();
        }
        let stat = fstat(from)?;
        let names = (by_fd(from, None), by_fd(to, None));
        adopt(to, c".", &stat, &names)
    }

    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let key = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                return Ok(linkat(self.root, first, to, name, AtFlags::empty())?);
            }
            self.links.insert(key, self.whole());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o700);
        match kind {
            FileType::Directory => {
                let inner = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                match mkdirat(to, name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let made = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                return self.directory(inner.as_fd(), made.as_fd());
            }
            FileType::RegularFile => {
                let source = openat(from, name, flags, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                content(source, openat(to, name, create, mode)?)?;
            }
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket => {
                mknodat(to, name, kind, mode, stat.st_rdev)?;
            }
            FileType::Unknown => anyhow::bail!("it is of no known kind"),
        }
        let names = (by_fd(from, Some(name)), by_fd(to, Some(name)));
        adopt(to, name, &stat, &names)
    }

    /// The path of what is copied, below the root.
    fn whole(&self) -> CString {
        let parts: Vec<&[u8]> = self.path.iter().map(CString::as_bytes).collect();
        CString::new(parts.join(&b'/')).unwrap_or_default()
    }
}

/// The names in a directory.
pub(crate) fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Copies the bytes, as a reflink where the file system has them, and leaves holes out.
fn content(from: OwnedFd, to: OwnedFd) -> Result<()> {
    if ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    // The standard library asks the kernel to copy, and copies itself where that cannot.
    std::io::copy(&mut std::fs::File::from(from), &mut std::fs::File::from(to))?;
    Ok(())
}

fn by_fd(directory: BorrowedFd<'_>, name: Option<&CStr>) -> CString {
    let mut path = format!("/proc/self/fd/{}", directory.as_raw_fd()).into_bytes();
    match name {
        Some(name) => {
            path.push(b'/');
            path.extend(name.to_bytes());
        }
        // The directory itself, and not the link that leads to it.
        None => path.extend(b"/."),
    }
    CString::new(path).unwrap_or_default()
}

/// Copies extended attributes, but those that only the file system below understands.
fn attributes(from: &CStr, to: &CStr) -> Result<()> {
    const LIST_MAX_BYTES: usize = 64 << 10;
    let mut list = vec![0; LIST_MAX_BYTES];
    let length = match llistxattr(from, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno).context("cannot list extended attributes"),
    };
    let mut value = Vec::new();
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        let is_foreign = |prefix: &[u8]| name.starts_with(prefix);
        if name.is_empty() || is_foreign(b"trusted.overlay.") || is_foreign(b"user.overlay.") {
            continue;
        }
        if value.is_empty() {
            value = vec![0; LIST_MAX_BYTES];
        }
        let length = lgetxattr(from, name, value.as_mut_slice())?;
        match lsetxattr(to, name, value.get(..length).unwrap_or_default(), rustix::fs::XattrFlags::empty()) {
            // Labels of security modules and file systems without attributes are this computer's matter.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno).context("cannot set an extended attribute"),
        }
    }
    Ok(())
}

/// Gives it owner, extended attributes, mode and times; in this order, as a change of owner clears parts of the mode
/// and a file's capabilities. The two names are those of the original and of the copy.
fn adopt(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat, names: &(CString, CString)) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot give it its owner")?;
    attributes(&names.0, &names.1)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(directory, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
