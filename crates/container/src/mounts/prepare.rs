//! Making file systems that are attached to nothing yet.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use stead_model::container::{Propagation, is_made};

use super::plan::{Kind, Planned, What};
use crate::sys::{MountAttributes, mount_setattr};

/// `MS_PRIVATE` and `MS_SLAVE`.
const PRIVATE: u64 = 1 << 18;
const SLAVE: u64 = 1 << 19;

/// Makes it. Must be done before our mounts are cut off from this computer's, or none could be shared.
pub(crate) fn prepare(planned: &Planned) -> Result<OwnedFd> {
    let doing = || format!("cannot mount {planned}");
    match &planned.what {
        What::Kernel { kind, options } => kernel(*kind, options, planned.attributes).with_context(doing),
        What::Bind { source, propagation, create } => {
            if is_made(source, *create) && !source.exists() {
                fs::create_dir_all(source)
                    .with_context(|| format!("cannot make `{}`", source.display()))
                    .with_context(doing)?;
            }
            bind(source, *propagation).with_context(doing)
        }
        What::Volume { source } => bind(source, Propagation::Private).with_context(doing),
    }
}

/// A file or directory with all that is mounted below it.
pub(crate) fn bind(source: &Path, propagation: Propagation) -> Result<OwnedFd> {
    let seen = || format!("`{}`", source.display());
    let tree = clone(source).with_context(seen)?;
    let propagation = match propagation {
        Propagation::Private => PRIVATE,
        Propagation::Slave => SLAVE,
        Propagation::Shared => return Ok(tree),
    };
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    mount_setattr(tree.as_fd(), attributes, true).with_context(seen)?;
    Ok(tree)
}

/// A copy of what is mounted here, to be attached elsewhere. With all that is below, because what lies under a
/// mount of another user namespace must not come to light.
pub(crate) fn clone(source: &Path) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, source, flags)
}

fn kernel(kind: Kind, options: &[(&str, String)], attributes: u64) -> Result<OwnedFd> {
    match (make(kind, options, attributes), kind) {
        (Ok(made), _) => Ok(made),
        // In the network namespace of somebody else's user namespace the kernel does not let us have a /sys of
        // our own: then this computer's is shown, which we cannot change anyway.
        (Err(Errno::PERM), Kind::Sysfs) => {
            let tree = bind(Path::new("/sys"), Propagation::Private)?;
            let attributes = MountAttributes { set: attributes, ..MountAttributes::default() };
            mount_setattr(tree.as_fd(), attributes, true)?;
            Ok(tree)
        }
        (Err(errno), _) => Err(errno).context(format!("{} was refused", kind.name())),
    }
}

/// A file system of the kernel's.
pub(crate) fn make(kind: Kind, options: &[(&str, String)], attributes: u64) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind.name(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", kind.name())?;
    for (key, value) in options {
        match (kind, value.strip_prefix("name=")) {
            (Kind::Cgroup1, Some(name)) => fsconfig_set_string(&context, "name", name)?,
            (Kind::Cgroup1, None) => {
                value.split(',').try_for_each(|name| fsconfig_set_flag(&context, name))?;
            }
            _ if value.is_empty() => fsconfig_set_flag(&context, *key)?,
            _ => fsconfig_set_string(&context, *key, value.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or_default());
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Writes a text that is mounted in the container, unless the file holds it already.
pub(crate) fn store(path: &Path, text: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes()) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}
