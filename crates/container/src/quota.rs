//! How much the files of a directory may take: quotas of projects, as ext4, XFS and f2fs keep them. A file is of a project by a
//! number; in a directory that passes its project on, whatever is made is of it as well.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, fstatfs, openat};
use rustix::io::Errno;

use crate::sys;
use crate::tree;

/// Whatever is made in a directory is of its project (`FS_XFLAG_PROJINHERIT`).
const PASSES_ON: u32 = 0x200;

/// Numbers that people choose are small, and the last one is nobody's.
const FIRST_PROJECT: u32 = 1 << 30;

/// More of them in a row that are taken is no accident.
const ATTEMPTS: u32 = 1 << 16;

/// A directory that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What its files may take.
    pub most_bytes: u64,
    /// What they take.
    pub used_bytes: u64,
}

/// Why no directory can be limited that is made in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlimitable {
    /// Why.
    pub why: String,
    /// What to do.
    pub hint: String,
}

/// Whether a directory that is made in this one, which is there, can be limited.
pub fn limit_refused(directory: &Path) -> Result<Option<Unlimitable>> {
    let elsewhere = "or leave the size out";
    if !rustix::process::geteuid().is_root() {
        let hint = format!("run stead as root, {elsewhere}");
        return Ok(Some(Unlimitable { why: "only root may limit what a directory holds".to_owned(), hint }));
    }
    let doing = || format!("cannot look at {}", directory.display());
    let opened = File::open(directory).with_context(doing)?;
    let kind = fstatfs(&opened).with_context(doing)?.f_type;
    let place = directory.display();
    let refused = |why: String, hint: String| Ok(Some(Unlimitable { why, hint }));
    // Whether quotas are kept everybody may know; what they are, only whose file system it is.
    let may_set = || match sys::quota(opened.as_fd(), FIRST_PROJECT) {
        Err(Errno::PERM) => Err(Errno::PERM),
        Ok(_) | Err(_) => sys::enforces_project_quotas(opened.as_fd()),
    };
    match sys::extra(opened.as_fd()).and_then(|_| may_set()) {
        Ok(true) => Ok(None),
        Err(Errno::PERM) => refused(
            format!("the quotas of the file system of {place} are not this root's to set"),
            format!("run stead as the computer's own root, {elsewhere}"),
        ),
        Ok(false) | Err(_) => match kind {
            EXT4 => refused(
                format!("the file system of {place} is ext4 and is not mounted with `prjquota`"),
                format!(
                    "unmounted, `tune2fs -O project,quota -Q prjquota` on its device prepares it; then mount it with \
                     `prjquota`, {elsewhere}"
                ),
            ),
            XFS => refused(
                format!("the file system of {place} is XFS and is not mounted with `prjquota`"),
                format!(
                    "mount it with `prjquota` (a root file system: `rootflags=prjquota` for the kernel), {elsewhere}"
                ),
            ),
            _ => refused(
                format!("the file system of {place} has no quotas of projects"),
                format!("have `STEAD_HOME` on ext4 that is mounted with `prjquota`, {elsewhere}"),
            ),
        },
    }
}

const EXT4: rustix::fs::FsWord = 0xEF53;
const XFS: rustix::fs::FsWord = 0x5846_5342;

/// How a directory is limited, if it is, and not just as the one that it is in.
pub fn limited(directory: &Path) -> Result<Option<Limited>> {
    let doing = || format!("cannot look at {}", directory.display());
    let opened = File::open(directory).with_context(doing)?;
    let Some(project) = own_project(opened.as_fd()).with_context(doing)? else { return Ok(None) };
    // Those that are counted and not kept to limit nothing.
    if !sys::enforces_project_quotas(opened.as_fd()).unwrap_or_default() {
        return Ok(None);
    }
    let quota = match sys::quota(opened.as_fd(), project) {
        Ok(quota) => quota,
        // None are kept any more, or they are not this root's to know.
        Err(Errno::SRCH | Errno::NOSYS | Errno::NOENT | Errno::PERM) => return Ok(None),
        Err(errno) => return Err(errno).with_context(doing),
    };
    let most_bytes = quota.hard_kib.saturating_mul(1024);
    Ok((most_bytes > 0).then_some(Limited { most_bytes, used_bytes: quota.used_bytes }))
}

/// Limits what the files of a directory take, those that are in it included; or takes its limit away. `near` is where the
/// search for a number begins that no other project has.
pub fn limit(directory: &Path, most_bytes: Option<u64>, near: u32) -> Result<()> {
    let doing = || format!("cannot limit {}", directory.display());
    let opened = File::open(directory).with_context(doing)?;
    let own = own_project(opened.as_fd()).with_context(doing)?;
    let Some(most_bytes) = most_bytes else {
        let Some(project) = own else { return Ok(()) };
        return match sys::set_quota(opened.as_fd(), project, 0) {
            Ok(()) | Err(Errno::SRCH | Errno::NOSYS | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(doing),
        };
    };
    let project = match own {
        Some(project) => project,
        None => take_project(opened.as_fd(), near).with_context(doing)?,
    };
    // Before the limit holds, so that it is not there unless it holds for all.
    tree::visit(directory, |below| give(below, project)).with_context(doing)?;
    sys::set_quota(opened.as_fd(), project, most_bytes / 1024).with_context(doing)
}

/// Takes the limit of a directory that goes away, and makes it one like that in which it is: so it can be moved, and its
/// number is free when its files are gone.
pub fn release(directory: &Path) -> Result<()> {
    limit(directory, None, 0)?;
    let doing = || format!("cannot take the limit of {} away", directory.display());
    let opened = File::open(directory).with_context(doing)?;
    if own_project(opened.as_fd()).with_context(doing)?.is_some() {
        let above = above(opened.as_fd()).with_context(doing)?;
        give_one(opened.as_fd(), above.project, above.flags & PASSES_ON != 0).with_context(doing)?;
    }
    Ok(())
}

/// The project of a directory that it passes on and has not from the one that it is in. The numbers of others are
/// somebody else's.
fn own_project(directory: BorrowedFd<'_>) -> Result<Option<u32>, Errno> {
    let extra = match sys::extra(directory) {
        Ok(extra) => extra,
        // The file system has no projects.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if extra.flags & PASSES_ON == 0 || extra.project < FIRST_PROJECT {
        return Ok(None);
    }
    Ok((above(directory)?.project != extra.project).then_some(extra.project))
}

/// What the directory is like that one is in.
fn above(directory: BorrowedFd<'_>) -> Result<sys::Extra, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = openat(directory, c"..", flags, Mode::empty())?;
    match sys::extra(above.as_fd()) {
        // A file system that has no projects, with another mounted in it.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(sys::Extra::default()),
        extra => extra,
    }
}

/// Makes a directory one of a project that nothing else is of.
fn take_project(directory: BorrowedFd<'_>, near: u32) -> Result<u32> {
    for attempt in 0..ATTEMPTS {
        let project = FIRST_PROJECT | (near.wrapping_add(attempt) & (FIRST_PROJECT - 1));
        if files_of(directory, project)?.is_some() {
            continue;
        }
        give_one(directory, project, true)?;
        // Another home may have taken the same number since we looked.
        if files_of(directory, project)? == Some(1) {
            return Ok(project);
        }
        give_one(directory, 0, false)?;
    }
    bail!("all numbers of projects are taken")
}

/// How many files are of a project; nothing if none are and it has no limit.
fn files_of(directory: BorrowedFd<'_>, project: u32) -> Result<Option<u64>> {
    match sys::quota(directory, project) {
        Ok(quota) => {
            let is_free =
                (quota.files_used, quota.used_bytes, quota.hard_kib, quota.soft_kib) == (0, 0, 0, 0);
            Ok((!is_free).then_some(quota.files_used))
        }
        // XFS knows nothing of one that nobody has.
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context("cannot read a quota"),
    }
}

/// Gives a directory and the files in it to a project. What is in it and neither a directory nor a file takes no room.
fn give(directory: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
    give_one(directory, project, true)?;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown) {
            continue;
        }
        // What is a file now may be a device when it is opened: first it is only named, and looked at.
        let named = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let named = match openat(directory, entry.file_name(), named, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            named => named?,
        };
        if FileType::from_raw_mode(fstat(&named)?.st_mode) != FileType::RegularFile {
            continue;
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&named));
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC, Mode::empty())?;
        give_one(file.as_fd(), project, false)?;
    }
    Ok(())
}

fn give_one(file: BorrowedFd<'_>, project: u32, passes_on: bool) -> Result<(), Errno> {
    let mut extra = sys::extra(file)?;
    let flags = if passes_on { extra.flags | PASSES_ON } else { extra.flags & !PASSES_ON };
    if (extra.project, extra.flags) == (project, flags) {
        return Ok(());
    }
    (extra.project, extra.flags) = (project, flags);
    sys::set_extra(file, &extra)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_nobody_limited_has_no_limit_and_none_to_take_away() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(limited(directory.path()).unwrap(), None);
        limit(directory.path(), None, 0).unwrap();
        release(directory.path()).unwrap();
        assert_eq!(limited(directory.path()).unwrap(), None);
    }

    #[test]
    fn where_the_kernel_keeps_no_quotas_it_is_said_what_to_do() {
        // No kernel has them there.
        let refused = limit_refused(Path::new("/proc")).unwrap().unwrap();
        let expected =
            if rustix::process::geteuid().is_root() { "has no quotas of projects" } else { "only root" };
        assert!(refused.why.contains(expected) && !refused.hint.is_empty(), "{refused:?}");
        assert!(limit(Path::new("/proc"), Some(1 << 20), 7).is_err());
    }
}
