//! Mounts on a computer itself, in no container: a guest's own system, in which we are a service.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;
use stead_model::container::Mount;
use stead_model::name::Name;

use super::attach::attach;
use super::confined;
use super::plan::{Planned, What, wanted};
use super::prepare::prepare;

/// Mounts these by their places, those above others first, as in a container: places that are missing are made, empty
/// volumes filled. What is mounted there already stays.
pub fn mount_here(mounts: &BTreeMap<String, Mount>, volumes: &BTreeMap<Name, PathBuf>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open("/", flags, Mode::empty()).context("cannot open the root")?;
    let planned = mounts.iter().map(|(target, mount)| wanted(target, mount, volumes));
    let mut planned = planned.collect::<Result<Vec<Planned>>>()?;
    planned.sort_by_key(|planned| planned.target.split('/').count());
    for planned in &planned {
        if !is_there(root.as_fd(), planned).with_context(|| format!("cannot mount {planned}"))? {
            attach(root.as_fd(), planned, &prepare(planned)?)?;
        }
    }
    Ok(())
}

/// Whether its place is the very file or directory that is to be seen there.
fn is_there(root: BorrowedFd<'_>, planned: &Planned) -> Result<bool> {
    let source: &Path = match &planned.what {
        What::Bind { source, .. } | What::Volume { source } => source,
        What::Kernel { .. } => return Ok(false),
    };
    let target = match confined::open(root, &planned.target, OFlags::PATH) {
        Ok(target) => target,
        // What leads nowhere is made, or told, when it is mounted.
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    // By its path, so that what is mounted there as it is looked at is seen, and not its place.
    let there = statx(CWD, source, AtFlags::empty(), StatxFlags::INO)?;
    let here = statx(&target, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
    let key = |found: &rustix::fs::Statx| (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
    Ok(key(&there) == key(&here))
}
