//! Copies of directory trees, with owners, modes, times, extended attributes, links and devices.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, FsWord, Gid, Mode, OFlags, PROC_SUPER_MAGIC, SeekFrom, Stat, Timespec,
    Timestamps, Uid, chmod, chownat, fstat, fstatfs, ftruncate, ioctl_ficlone, lgetxattr, linkat, llistxattr,
    lsetxattr, mkdirat, mknodat, openat, readlinkat, seek, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

/// How deep a tree may be: each level holds two descriptors open.
const DEPTH_MAX: usize = 1000;

/// File systems of the kernel's, whose files are made while one reads: sysfs, and cgroups of both versions.
const KERNEL_MAGIC: [FsWord; 3] = [0x6265_6572, 0x0027_e0eb, 0x6367_7270];

/// What overlayfs notes of a layer that is of use at its place alone: which files below it has copied up.
const OF_ONE_PLACE: [&[u8]; 4] = [b"origin", b"impure", b"nlink", b"uuid"];

/// How things are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// As they are, to where nothing is.
    Exact,
    /// As they are, to where nothing is, with the marks by which overlayfs knows what a layer hides.
    Layer,
    /// The same, by more names of the same files where the file system can.
    Link,
    /// As they are, in place of what is there.
    Archive,
    /// As a person's files, in place of what is there: everything is ours, and nothing has rights by itself. Devices
    /// are refused.
    Plain,
}

impl How {
    fn replaces(self) -> bool {
        !matches!(self, Self::Exact | Self::Layer | Self::Link)
    }
}

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
    Copy::new(to, How::Exact).directory(from, to)
}

/// Copies a layer of an overlay, or any other tree, to an empty directory: whatever is in it is the same there. Blocks are
/// shared where the file system can.
pub fn copy_layer(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    layer(from, to, How::Layer)
}

/// The same for a layer that nobody writes any more, nor the copy: they have their files in common, and a file is there
/// as long as one of them has it.
pub fn link_layer(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    layer(from, to, How::Link)
}

fn layer(from: &std::path::Path, to: &std::path::Path, how: How) -> Result<()> {
    let open = |path: &std::path::Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(rustix::fs::CWD, path, flags, Mode::empty())
            .with_context(|| format!("cannot open `{}`", path.display()))
    };
    let (from, to) = (open(from)?, open(to)?);
    Copy::new(to.as_fd(), how).directory(from.as_fd(), to.as_fd())
}

/// Copies all that is in a directory into another one, which itself stays as it is.
pub(crate) fn content_of(from: BorrowedFd<'_>, to: BorrowedFd<'_>, how: How) -> Result<()> {
    Copy::new(to, how).entries(from, to)
}

/// Copies what has a name in a directory to a name in another one.
pub(crate) fn one(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), how: How) -> Result<()> {
    let mut copy = Copy::new(to.0, how);
    copy.path.push(to.1.to_owned());
    copy.entry(from, to)
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    /// Where files that have several names were first copied to, by device and number.
    links: HashMap<(u64, u64), CString>,
    path: Vec<CString>,
    how: How,
}

impl<'a> Copy<'a> {
    fn new(root: BorrowedFd<'a>, how: How) -> Self {
        Self { root, links: HashMap::new(), path: Vec::new(), how }
    }

    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let magic = fstatfs(from)?.f_type;
        if magic != PROC_SUPER_MAGIC && !KERNEL_MAGIC.contains(&magic) {
            self.entries(from, to)?;
        }
        let stat = fstat(from)?;
        let names = (by_fd(from, None), by_fd(to, None));
        adopt((to, c"."), &stat, &names, self.how)
    }

    fn entries(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        if self.path.len() > DEPTH_MAX {
            anyhow::bail!("directories are nested too deeply");
        }
        for name in names(from)? {
            self.path.push(name.clone());
            let path = String::from_utf8_lossy(self.whole().as_bytes()).into_owned();
            self.entry((from, &name), (to, &name)).with_context(|| format!("cannot copy `/{path}`"))?;
            self.path.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        (from, old): (BorrowedFd<'_>, &CStr),
        (to, name): (BorrowedFd<'_>, &CStr),
    ) -> Result<()> {
        let stat = statat(from, old, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && self.how.replaces() {
            match unlinkat(to, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => anyhow::bail!("there is a directory in its place"),
                Err(errno) => return Err(errno).context("cannot take away what is in its place"),
            }
        }
        if kind != FileType::Directory && matches!(self.how, How::Link) {
            match linkat(from, old, to, name, AtFlags::empty()) {
                // It has as many names as it can have, or this file system knows one a file.
                Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => {}
                linked => return Ok(linked?),
            }
        }
        let key = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                return Ok(linkat(self.root, first, to, name, AtFlags::empty())?);
            }
            self.links.insert(key, self.whole());
        }
        // Those who run in the machine may put a pipe in the place of a file meanwhile: then nobody waits for it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o700);
        match kind {
            FileType::Directory => {
                let inner = openat(from, old, flags | OFlags::DIRECTORY, Mode::empty())?;
                match mkdirat(to, name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let made = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                return self.directory(inner.as_fd(), made.as_fd());
            }
            FileType::RegularFile => {
                let source = openat(from, old, flags, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                content(source, openat(to, name, create, mode)?)?;
            }
            FileType::Symlink => symlinkat(readlinkat(from, old, Vec::new())?, to, name)?,
            FileType::CharacterDevice | FileType::BlockDevice if matches!(self.how, How::Plain) => {
                anyhow::bail!("it is a device, which is copied only with its owner and rights");
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket => {
                mknodat(to, name, kind, mode, stat.st_rdev)?;
            }
            FileType::Unknown => anyhow::bail!("it is of no known kind"),
        }
        let names = (by_fd(from, Some(old)), by_fd(to, Some(name)));
        adopt((to, name), &stat, &names, self.how)
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
    if reflink(from.as_fd(), to.as_fd())? {
        return Ok(());
    }
    copy_data(from.as_fd(), to.as_fd())
}

/// Gives a file the blocks of another one; false where the file system shares none, so that the bytes are to be copied.
pub fn reflink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        // These would hinder a copy as well. Else it has no such thing, not for these files, or not just now.
        Err(errno @ (Errno::IO | Errno::NOMEM | Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        Err(_) => Ok(false),
    }
}

/// Copies the bytes of a file into one that is empty, and leaves holes holes.
pub fn copy_data(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let length = u64::try_from(fstat(source)?.st_size)?;
    let mut at = 0;
    while at < length {
        let start = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        at = seek(source, SeekFrom::Hole(start))?;
        seek(source, SeekFrom::Start(start))?;
        seek(target, SeekFrom::Start(start))?;
        // The standard library asks the kernel to copy, and copies itself where that cannot.
        let mut from = std::fs::File::from(source.try_clone_to_owned()?);
        let mut to = std::fs::File::from(target.try_clone_to_owned()?);
        if std::io::copy(&mut Read::take(&mut from, at - start), &mut to)? < at - start {
            anyhow::bail!("it became shorter while it was read");
        }
    }
    ftruncate(target, length)?;
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
fn attributes(from: &CStr, to: &CStr, how: How) -> Result<()> {
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
        let mark =
            [&b"trusted.overlay."[..], b"user.overlay."].iter().find_map(|space| name.strip_prefix(*space));
        let stays =
            mark.is_none_or(|mark| matches!(how, How::Layer | How::Link) && !OF_ONE_PLACE.contains(&mark));
        if name.is_empty() || !stays {
            continue;
        }
        // The others are rights, and labels of who has them.
        if matches!(how, How::Plain) && !is_foreign(b"user.") {
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

/// Sets the mode of an entry that is no link. Those who run in the machine may put a link in its place meanwhile, and
/// that is not followed.
pub(crate) fn set_mode(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = openat(directory, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&entry)?.st_mode) != FileType::Symlink {
        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
        chmod(path, Mode::from_raw_mode(mode)).context("cannot set its mode")?;
    }
    Ok(())
}

/// Gives it owner, extended attributes, mode and times; in this order, as a change of owner clears parts of the mode
/// and a file's capabilities. The two names are those of the original and of the copy.
fn adopt(
    (directory, name): (BorrowedFd<'_>, &CStr),
    stat: &Stat,
    names: &(CString, CString),
    how: How,
) -> Result<()> {
    let (uid, gid, mode) = match how {
        How::Exact | How::Layer | How::Link | How::Archive => {
            (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)
        }
        How::Plain => (geteuid().as_raw(), getegid().as_raw(), stat.st_mode & 0o1777),
    };
    chownat(directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot give it its owner")?;
    attributes(&names.0, &names.1, how)?;
    set_mode(directory, name, mode)?;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_layer_keeps_what_it_hides_and_other_copies_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let [from, layer, exact] = ["from", "layer", "exact"].map(|name| dir.path().join(name));
        for path in [&from, &layer, &exact] {
            fs::create_dir(path).unwrap();
        }
        fs::create_dir(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), "text").unwrap();
        let set =
            |name: &CStr| lsetxattr(from.join("sub"), name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        let names = [c"user.overlay.opaque", c"user.overlay.origin", c"user.mine"];
        names.into_iter().for_each(set);
        copy_layer(&from, &layer).unwrap();
        let open = |path| fs::File::open(path).unwrap();
        tree(open(&from).as_fd(), open(&exact).as_fd()).unwrap();
        let has =
            |root: &std::path::Path| names.map(|name| lgetxattr(root.join("sub"), name, &mut [0; 8]).is_ok());
        assert_eq!((has(&layer), has(&exact)), ([true, false, true], [false, false, true]));
        assert_eq!(fs::read_to_string(layer.join("sub/file")).unwrap(), "text");
        let linked = dir.path().join("linked");
        fs::create_dir(&linked).unwrap();
        link_layer(&from, &linked).unwrap();
        assert_eq!(has(&linked), [true, false, true]);
        let number = |root: &std::path::Path| fs::metadata(root.join("sub/file")).unwrap().ino();
        assert!(number(&linked) == number(&from) && number(&layer) != number(&from));
        fs::remove_dir_all(&from).unwrap();
        assert_eq!(fs::read_to_string(linked.join("sub/file")).unwrap(), "text");
    }

    #[test]
    fn holes_stay_holes_and_the_rest_is_the_same() {
        const LENGTH: u64 = 64 << 20;
        for (at, text) in [(0, "first"), (5 << 20, "middle"), (LENGTH - 4, "last"), (0, "")] {
            let from = tempfile::tempfile().unwrap();
            from.set_len(LENGTH).unwrap();
            from.write_all_at(text.as_bytes(), at).unwrap();
            let to = tempfile::tempfile().unwrap();
            copy_data(from.as_fd(), to.as_fd()).unwrap();
            let mut copied = vec![0; text.len()];
            to.read_exact_at(&mut copied, at).unwrap();
            let meta = to.metadata().unwrap();
            assert_eq!((copied.as_slice(), meta.len()), (text.as_bytes(), LENGTH));
            assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        }
    }

    #[test]
    fn a_mode_is_not_set_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let directory = fs::File::open(dir.path()).unwrap();
        let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
        set_mode(directory.as_fd(), c"link", 0o777).unwrap();
        assert_eq!(mode(), 0o600);
        set_mode(directory.as_fd(), c"file", 0o640).unwrap();
        assert_eq!(mode(), 0o640);
    }

    #[test]
    fn blocks_are_shared_or_not() {
        let file = || tempfile::tempfile().unwrap();
        // Whether this file system can is not known here; that it can or cannot is no failure.
        reflink(file().as_fd(), file().as_fd()).unwrap();
        let other = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(reflink(other.as_fd(), file().as_fd()), Ok(false));
    }
}
