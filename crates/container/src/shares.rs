//! Files of this computer that a guest is given: bound below one directory, for whoever serves that to the guest.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde::{Deserialize, Serialize};
use stead_model::container::{Access, Propagation};

use crate::mounts::attach::{is_directory, onto};
use crate::mounts::plan::{Kind, NO_DEVICES, READ_ONLY};
use crate::mounts::prepare::{bind, make};
use crate::sys::{MountAttributes, mount_setattr};

/// A file or directory of this computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Where it is.
    pub source: PathBuf,
    /// Whether it can be written: the kernel sees to that here, whatever the guest does.
    pub access: Access,
}

/// Makes the directory `place` one in which each of them is, named by its number. In a mount namespace of its own, which
/// this process must have left the computer's for.
pub fn assemble(shares: &[Share], place: &Path) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("cannot cut our mounts off from this computer's")?;
    let options = [("size", "1m".to_owned()), ("mode", "755".to_owned())];
    let top = make(Kind::Tmpfs, &options, NO_DEVICES).context("cannot make a file system in memory")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(place, flags, Mode::empty())
        .and_then(|target| onto(&top, target))
        .with_context(|| format!("cannot mount what is shared at `{}`", place.display()))?;
    for (number, share) in shares.iter().enumerate() {
        add(&top, number, share).with_context(|| format!("cannot share `{}`", share.source.display()))?;
    }
    // A guest writes nothing beside them.
    let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
    mount_setattr(top.as_fd(), attributes, false).context("cannot close what is shared")
}

fn add(top: &OwnedFd, number: usize, share: &Share) -> Result<()> {
    let tree = bind(&share.source, Propagation::Private)?;
    let set = NO_DEVICES | if share.access == Access::Read { READ_ONLY } else { 0 };
    mount_setattr(tree.as_fd(), MountAttributes { set, ..MountAttributes::default() }, true)?;
    let name = number.to_string();
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let target = if is_directory(&tree)? {
        mkdirat(top, &name, 0o755.into())?;
        openat(top, &name, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
    } else {
        drop(File::from(openat(top, &name, flags | OFlags::CREATE | OFlags::WRONLY, 0o644.into())?));
        openat(top, &name, flags | OFlags::PATH, Mode::empty())?
    };
    Ok(onto(&tree, target)?)
}
