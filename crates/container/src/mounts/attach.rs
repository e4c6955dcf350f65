//! Attaching what was made at its place, once the container's root is ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::confined::{self, Make};
use super::plan::{Guarded, Kind, Planned, READ_ONLY, What};
use super::prepare::{clone, make};
use crate::copy;
use crate::sys::{MountAttributes, mount_setattr};

/// Attaches it. `root` is the container's, and ours.
pub(crate) fn attach(root: BorrowedFd<'_>, planned: &Planned, made: &OwnedFd) -> Result<()> {
    let doing = || format!("cannot mount {planned}");
    let make = if is_directory(made).with_context(doing)? { Make::Directory } else { Make::File };
    let target = match &planned.what {
        // Were one of them a link, what is guarded below would be guarded elsewhere.
        What::Kernel { .. } if matches!(planned.target.as_str(), "/proc" | "/sys" | "/dev") => {
            plain(root, &planned.target)
        }
        _ => confined::place(root, &planned.target, make).map_err(Into::into),
    };
    let target = target.with_context(doing)?;
    if confined::is_same(&target, root).with_context(doing)? {
        bail!("cannot mount {planned}: the place is the root itself");
    }
    let is_wanted = !matches!(&planned.what, What::Kernel { kind, .. } if *kind != Kind::Tmpfs);
    if is_wanted && fstatfs(&target).with_context(doing)?.f_type == PROC_SUPER_MAGIC {
        bail!("cannot mount {planned}: the place is in /proc");
    }
    match &planned.what {
        What::Kernel { .. } => {}
        What::Bind { .. } => restrict(made, planned.attributes).with_context(doing)?,
        What::Volume { .. } => {
            if is_directory(&target).with_context(doing)? {
                copy::fill(target.as_fd(), made.as_fd())
                    .with_context(|| format!("cannot fill the volume at `{}`", planned.target))?;
            }
            restrict(made, planned.attributes).with_context(doing)?;
        }
    }
    onto(made, &target).with_context(doing)
}

fn restrict(made: &OwnedFd, attributes: u64) -> rustix::io::Result<()> {
    if attributes == 0 {
        return Ok(());
    }
    mount_setattr(made.as_fd(), MountAttributes { set: attributes, ..MountAttributes::default() }, true)
}

/// A directory of the root itself, which may be missing but is no link.
pub(crate) fn plain(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    let name = path.trim_start_matches('/');
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::mkdirat(root, name, 0o755.into()) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let fd = rustix::fs::openat(root, name, flags, 0.into())?;
    if !is_directory(&fd)? {
        bail!("in the image `{path}` is no directory");
    }
    Ok(fd)
}

/// Attaches a file system at an open place.
pub(crate) fn onto(made: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(made, "", target, "", flags)
}

pub(crate) fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Hides and fixes what the kernel shows.
pub(crate) fn guard(root: BorrowedFd<'_>, guarded: &Guarded) -> Result<()> {
    let free = guarded.free.iter().map(|path| Ok((*path, clone(Path::new(path))?)));
    let free =
        free.collect::<rustix::io::Result<Vec<_>>>().context("cannot keep kernel parameters writable")?;
    let mut nothing: Option<OwnedFd> = None;
    for path in guarded.hidden {
        hide(root, path, &mut nothing).with_context(|| format!("cannot hide `{path}`"))?;
    }
    for path in guarded.fixed {
        fix(root, path).with_context(|| format!("cannot make `{path}` read-only"))?;
    }
    for (path, tree) in free {
        let target = confined::open(root, path, OFlags::PATH)?;
        onto(tree, target).with_context(|| format!("cannot keep `{path}` writable"))?;
    }
    Ok(())
}

/// Covers it with nothing: a directory with an empty one, a file with `/dev/null`.
fn hide(root: BorrowedFd<'_>, path: &str, nothing: &mut Option<OwnedFd>) -> rustix::io::Result<()> {
    let target = match confined::open(root, path, OFlags::PATH) {
        Ok(target) => target,
        // Kernels differ in what they show.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if !is_directory(&target)? {
        return onto(clone(Path::new("/dev/null"))?, target);
    }
    // One empty directory serves for all: its second attachment is a copy of the first.
    let made = match nothing {
        Some(first) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            open_tree(first, "", flags)?
        }
        None => {
            let options = [("size", "0".to_owned()), ("mode", "755".to_owned())];
            make(Kind::Tmpfs, &options, READ_ONLY)?
        }
    };
    onto(&made, target)?;
    nothing.get_or_insert(made);
    Ok(())
}

fn fix(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    let target = match confined::open(root, path, OFlags::PATH) {
        Ok(target) => target,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let tree = clone(Path::new(path))?;
    mount_setattr(tree.as_fd(), MountAttributes { set: READ_ONLY, ..MountAttributes::default() }, true)?;
    onto(tree, target)
}
