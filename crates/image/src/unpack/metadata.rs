//! Owner, mode, attributes and times: as archives have them, as the kernel has them, and how they get there.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens, lgetxattr, llistxattr, lsetxattr,
    openat, utimensat,
};
use rustix::io::Errno;

use super::time::Time;
use super::{Form, Owners, Skips, XattrSpace};

/// What an entry has besides its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Below 0o10000.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the attributes are of: something open, or a name in an open directory, which is then not followed.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a [u8]),
}

/// How attributes are set in one tree.
pub(super) struct Dresser {
    pub(super) owners: Owners,
    pub(super) form: Form,
    /// Who new files belong to, where that is known.
    pub(super) born: Option<(u32, u32)>,
    /// The bits that new files do not get.
    pub(super) umask: u32,
    /// What could not be set.
    pub(super) skips: Skips,
}

pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// The host's own labels. Its policy says what new files get, no image does.
const SELINUX: &[u8] = b"security.selinux";
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// The kernel allows no longer lists and values.
const XATTR_BYTES_MAX: usize = 64 << 10;

impl Metadata {
    /// Of a directory that nobody has described.
    pub(super) fn made_up(mtime: Time) -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }

    /// What the kernel has.
    pub(super) fn observe(target: Target<'_>, stat: &Stat) -> Result<Self> {
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime(stat),
            xattrs: xattrs(target)?,
        })
    }
}

/// When the contents changed.
pub(super) fn mtime(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() }
}

impl Dresser {
    /// Sets all of it. Contents must have been written before: that would change the time, and take away privileges.
    pub(super) fn dress(&mut self, target: Target<'_>, metadata: &Metadata, name: &[u8]) -> Result<()> {
        let lost = self.own(target, metadata)?;
        let mode = metadata.mode & !lost;
        self.dress_owned(target, mode, metadata, name)
    }

    /// The same for a regular file that was just made with the mode of `metadata`, so that most of it is there already.
    pub(super) fn dress_new(&mut self, file: BorrowedFd<'_>, metadata: &Metadata, name: &[u8]) -> Result<()> {
        let target = Target::Open(file);
        let is_ours = self.born == Some((metadata.uid, metadata.gid));
        let lost = if is_ours { 0 } else { self.own(target, metadata)? };
        let mode = metadata.mode & !lost;
        if is_ours && mode & (self.umask | 0o7000) == 0 {
            self.set_xattrs(target, metadata, name)?;
            return set_mtime(target, metadata.mtime);
        }
        self.dress_owned(target, mode, metadata, name)
    }

    fn dress_owned(&mut self, target: Target<'_>, mode: u32, metadata: &Metadata, name: &[u8]) -> Result<()> {
        set_mode(target, mode)?;
        self.set_xattrs(target, metadata, name)?;
        set_mtime(target, metadata.mtime)
    }

    /// A symlink has no mode.
    pub(super) fn dress_symlink(
        &mut self,
        target: Target<'_>,
        metadata: &Metadata,
        name: &[u8],
    ) -> Result<()> {
        if self.born != Some((metadata.uid, metadata.gid)) {
            self.own(target, metadata)?;
        }
        self.set_xattrs(target, metadata, name)?;
        set_mtime(target, metadata.mtime)
    }

    /// Gives the bits of the mode that are lost: a program that would run as somebody whom we could not make its owner
    /// is not turned into one that runs as us.
    fn own(&self, target: Target<'_>, metadata: &Metadata) -> Result<u32> {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        let set = |uid, gid| match target {
            Target::Open(fd) => fchown(fd, uid, gid),
            Target::Named(directory, name) => chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        };
        let is_refused = |error: &Errno| matches!(*error, Errno::INVAL | Errno::PERM);
        match (set(Some(uid), Some(gid)), self.owners) {
            (Ok(()), _) => Ok(0),
            (Err(error), Owners::KeepOrOwn) if is_refused(&error) => {
                let lost = |outcome: Result<(), Errno>, bit| match outcome {
                    Ok(()) => Ok(0),
                    Err(error) if is_refused(&error) => Ok(bit),
                    Err(error) => Err(error),
                };
                Ok(lost(set(Some(uid), None), SETUID)? | lost(set(None, Some(gid)), SETGID)?)
            }
            (Err(error), _) => {
                Err(error).with_context(|| format!("could not give it to {}:{}", metadata.uid, metadata.gid))
            }
        }
    }

    fn set_xattrs(&mut self, target: Target<'_>, metadata: &Metadata, name: &[u8]) -> Result<()> {
        for (key, value) in &metadata.xattrs {
            if key == SELINUX {
                continue;
            }
            let Some(real) = self.form.inside(key) else {
                self.skips.add(name, format!("attribute `{}` is overlayfs's own", super::name::show(key)));
                continue;
            };
            match set_xattr(target, &real, value) {
                Ok(()) => {}
                Err(error @ (Errno::PERM | Errno::NOTSUP)) => {
                    self.skips.add(name, format!("attribute `{}`: {error}", super::name::show(key)));
                }
                // It names owners, and some of them do not exist here.
                Err(error @ Errno::INVAL) if self.owners == Owners::KeepOrOwn => {
                    self.skips.add(name, format!("attribute `{}`: {error}", super::name::show(key)));
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("could not set attribute `{}`", super::name::show(key)));
                }
            }
        }
        Ok(())
    }
}

impl XattrSpace {
    /// The prefix of what overlayfs keeps for itself.
    pub(super) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    /// One of overlayfs's own attributes.
    pub(super) fn key(self, name: &str) -> Vec<u8> {
        [self.prefix(), name.as_bytes()].concat()
    }
}

impl Form {
    /// What an attribute is called on disk, so that it has its own name for who sees the directory through overlayfs.
    /// None for what must not be there.
    fn inside(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self {
            // An image could point to other files by these. Escaped they mean nothing, but to an overlayfs in a machine.
            Self::Overlay { space, .. } => match key.strip_prefix(space.prefix()) {
                Some(rest) => Some([space.prefix(), b"overlay.", rest].concat()),
                None => Some(key.to_vec()),
            },
            Self::Flat => {
                let is_own = [XattrSpace::Trusted, XattrSpace::User]
                    .iter()
                    .any(|space| key.starts_with(space.prefix()));
                (!is_own).then(|| key.to_vec())
            }
        }
    }

    /// The other way round. None for what belongs to overlayfs or the host.
    pub(super) fn outside(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self {
            _ if key == SELINUX => None,
            Self::Overlay { space, .. } => match key.strip_prefix(space.prefix()) {
                Some(rest) => Some([space.prefix(), rest.strip_prefix(b"overlay.")?].concat()),
                None => Some(key.to_vec()),
            },
            Self::Flat => self.inside(key),
        }
    }
}

fn set_mode(target: Target<'_>, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match target {
        Target::Open(fd) => fchmod(fd, mode),
        // Not for symlinks. Where a machine runs on the directory, somebody may put one there meanwhile.
        Target::Named(directory, name) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, name, flags, Mode::empty()).and_then(|entry| {
                let is_link = FileType::from_raw_mode(fstat(&entry)?.st_mode) == FileType::Symlink;
                let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
                if is_link { Err(Errno::LOOP) } else { chmod(path, mode) }
            })
        }
    }
    .context("could not set its mode")
}

/// The time of the last change; that of the last access is said to be the same.
pub(super) fn set_mtime(target: Target<'_>, time: Time) -> Result<()> {
    let times = Timestamps { last_access: time.timespec(), last_modification: time.timespec() };
    match target {
        Target::Open(fd) => futimens(fd, &times),
        Target::Named(directory, name) => utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    }
    .context("could not set its time")
}

/// Sets one attribute.
pub(super) fn set_xattr(target: Target<'_>, key: &[u8], value: &[u8]) -> Result<(), Errno> {
    match target {
        Target::Open(fd) => fsetxattr(fd, key, value, XattrFlags::empty()),
        Target::Named(directory, name) => lsetxattr(path(directory, name), key, value, XattrFlags::empty()),
    }
}

/// One attribute, if it is there.
pub(super) fn xattr(target: Target<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    // Most are short, so one call is enough.
    for capacity in [256, XATTR_BYTES_MAX + 1] {
        let mut value = vec![0u8; capacity];
        let length = match target {
            Target::Open(fd) => fgetxattr(fd, key, value.as_mut_slice()),
            Target::Named(directory, name) => lgetxattr(path(directory, name), key, value.as_mut_slice()),
        };
        match length {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

/// Takes one attribute away, if it is there.
pub(super) fn remove_xattr(directory: BorrowedFd<'_>, key: &[u8]) -> Result<(), Errno> {
    match fremovexattr(directory, key) {
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

/// All attributes, by their names.
pub(super) fn xattrs(target: Target<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    for key in keys(target).context("could not list its attributes")? {
        let value = xattr(target, &key);
        let value =
            value.with_context(|| format!("could not read attribute `{}`", super::name::show(&key)))?;
        all.extend(value.map(|value| (key, value)));
    }
    all.sort();
    Ok(all)
}

fn keys(target: Target<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    for capacity in [1024, XATTR_BYTES_MAX + 1] {
        let mut list = vec![0u8; capacity];
        let length = match target {
            Target::Open(fd) => flistxattr(fd, list.as_mut_slice()),
            Target::Named(directory, name) => llistxattr(path(directory, name), list.as_mut_slice()),
        };
        match length {
            Ok(length) => {
                list.truncate(length);
                let keys = list.split(|byte| *byte == 0).filter(|key| !key.is_empty());
                return Ok(keys.map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

/// There are no calls for attributes of a name in an open directory before Linux 6.13.
fn path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend(name);
    path
}

/// What new files do not get of the mode that is asked for. All of it where that is not to be found out.
pub(super) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok()).unwrap_or(0o777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Whiteouts;

    #[test]
    fn attributes_of_overlayfs_are_escaped_both_ways() {
        let overlay = Form::Overlay { space: XattrSpace::Trusted, whiteouts: Whiteouts::Devices };
        for (key, inside) in [
            ("user.a", Some("user.a")),
            ("trusted.overlay.redirect", Some("trusted.overlay.overlay.redirect")),
            ("user.overlay.opaque", Some("user.overlay.opaque")),
        ] {
            let on_disk = overlay.inside(key.as_bytes());
            assert_eq!(on_disk.as_deref(), inside.map(str::as_bytes));
            assert_eq!(overlay.outside(&on_disk.unwrap()).as_deref(), Some(key.as_bytes()));
        }
        assert_eq!(overlay.outside(b"trusted.overlay.opaque"), None);
        assert_eq!(overlay.outside(SELINUX), None);
        assert_eq!(Form::Flat.inside(b"user.overlay.opaque"), None);
        assert_eq!(Form::Flat.inside(b"user.a").as_deref(), Some(&b"user.a"[..]));
    }
}
