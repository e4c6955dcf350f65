//! The root of a container: its image's layers with its own one on top.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, unmount,
};
use rustix::process::{fchdir, pivot_root};

use super::attach::onto;
use super::confined;
use super::prepare::clone;
use crate::place::Place;

/// Whether this process is in a user namespace that is not the computer's own, by its `uid_map`.
pub(crate) fn is_mapped(uid_map: &str) -> bool {
    uid_map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Whether this process is in a user namespace that is not the computer's own.
pub fn is_mapped_here() -> Result<bool> {
    let map = std::fs::read_to_string("/proc/self/uid_map").context("cannot read `/proc/self/uid_map`")?;
    Ok(is_mapped(&map))
}

/// Cuts our mounts off from this computer's, and mounts the root at its place.
pub(crate) fn mount_root(place: &Place, is_mapped: bool) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("cannot cut our mounts off from this computer's")?;
    let at = || format!("cannot mount the root at `{}`", place.root.display());
    let target = open(&place.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(at)?;
    if place.layers.is_empty() {
        return onto(clone(&place.upper).with_context(at)?, target).with_context(at);
    }
    let parts = Parts::open(place)?;
    let flags = Flags { is_mapped, is_passing: place.is_passing };
    if place.is_passing {
        // The kernel's mark of a former run whose changes may not have reached the disk; they need not have.
        let _ = std::fs::remove_dir(place.work.join("work/incompat/volatile"));
    }
    match parts.mount(flags) {
        Ok(made) => onto(made, target).with_context(at),
        // Before Linux 6.7 layers cannot be named one by one.
        Err(Errno::INVAL) => parts.mount_at_once(&place.root, flags).with_context(at),
        Err(errno) => Err(errno).with_context(at),
    }
}

/// Whether the kernel mounts an overlay whose upper part is in this directory: the reason if not. Files of the trial
/// are made in it and taken away.
pub fn overlay_refused(directory: &Path) -> Result<Option<String>> {
    let trial = directory.join("overlay-trial");
    let parts = ["lower", "upper", "work"].map(|name| trial.join(name));
    for part in &parts {
        std::fs::create_dir_all(part).with_context(|| format!("cannot make `{}`", part.display()))?;
    }
    let [lower, upper, work] = parts;
    let parts = Parts::open_at(&[lower], &upper, &work)?;
    let flags = Flags { is_mapped: is_mapped_here()?, is_passing: false };
    let refused = match parts.mount(flags) {
        // A mount that was never attached goes when its descriptor does.
        Ok(_) => None,
        Err(errno) => Some(format!("overlayfs cannot be used there: {}", std::io::Error::from(errno))),
    };
    drop(parts);
    std::fs::remove_dir_all(&trial).with_context(|| format!("cannot remove `{}`", trial.display()))?;
    Ok(refused)
}

/// How an overlay is mounted.
#[derive(Clone, Copy)]
struct Flags {
    /// By root of a user namespace, who cannot write the attributes that root has for this.
    is_mapped: bool,
    /// With changes that need not reach the disk.
    is_passing: bool,
}

/// What a computer may have overlayfs do that makes a layer mean something at its place alone: a directory that was moved,
/// or a file whose attributes were changed, is then a reference to a layer below.
const REFERENCES: [&str; 2] = ["redirect_dir", "metacopy"];

impl Flags {
    /// Options, with their values if they have any.
    fn words(self) -> Vec<(&'static str, Option<&'static str>)> {
        let is_on = |name: &str| {
            let value = std::fs::read_to_string(format!("/sys/module/overlay/parameters/{name}"));
            value.is_ok_and(|value| value.trim() == "Y")
        };
        self.words_where(is_on)
    }

    /// The same on a computer that has these switched on for all overlays that say nothing of them.
    fn words_where(self, is_on: impl Fn(&str) -> bool) -> Vec<(&'static str, Option<&'static str>)> {
        let words = [(self.is_mapped, "userxattr"), (self.is_passing, "volatile")];
        let words = words.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| (word, None));
        // With `userxattr` they are off anyway.
        let references = REFERENCES.into_iter().filter(|name| !self.is_mapped && is_on(name));
        words.chain(references.map(|name| (name, Some("off")))).collect()
    }
}

/// The directories of an overlay. By their descriptors they have short names, whatever is in their paths.
struct Parts {
    layers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Parts {
    fn open(place: &Place) -> Result<Self> {
        Self::open_at(&place.layers, &place.upper, &place.work)
    }

    fn open_at(layers: &[PathBuf], upper: &Path, work: &Path) -> Result<Self> {
        let open = |path: &Path| -> Result<OwnedFd> {
            let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
            Ok(file.into())
        };
        let layers = layers.iter().rev().map(|layer| open(layer)).collect::<Result<_>>()?;
        Ok(Self { layers, upper: open(upper)?, work: open(work)? })
    }

    fn mount(&self, flags: Flags) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        match self.layers.as_slice() {
            // As all kernels understand it.
            [only] => fsconfig_set_string(&context, "lowerdir", path_of(only))?,
            many => {
                many.iter().try_for_each(|one| fsconfig_set_string(&context, "lowerdir+", path_of(one)))?;
            }
        }
        fsconfig_set_string(&context, "upperdir", path_of(&self.upper))?;
        fsconfig_set_string(&context, "workdir", path_of(&self.work))?;
        for (word, value) in flags.words() {
            match value {
                None => fsconfig_set_flag(&context, word)?,
                Some(value) => fsconfig_set_string(&context, word, value)?,
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    fn mount_at_once(&self, target: &Path, flags: Flags) -> Result<()> {
        let layers: Vec<String> = self.layers.iter().map(path_of).collect();
        let (upper, work) = (path_of(&self.upper), path_of(&self.work));
        let more = flags.words().into_iter().map(|(word, value)| match value {
            None => format!(",{word}"),
            Some(value) => format!(",{word}={value}"),
        });
        let more: String = more.collect();
        let options = format!("lowerdir={},upperdir={upper},workdir={work}{more}", layers.join(":"));
        let options = std::ffi::CString::new(options)?;
        Ok(mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))?)
    }
}

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// This computer's root, after [`enter`]: still there, but out of every path's way.
pub(crate) struct Old(OwnedFd);

/// Makes what is mounted at this place our root.
pub(crate) fn enter(root: &Path) -> Result<(OwnedFd, Old)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let new =
        open(root, flags, Mode::empty()).with_context(|| format!("cannot open `{}`", root.display()))?;
    let old = enter_open(&new)?;
    Ok((new, old))
}

/// Makes what is mounted at this open place our root.
pub(crate) fn enter_open(new: &OwnedFd) -> Result<Old> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = open("/", flags, Mode::empty()).context("cannot open the old root")?;
    fchdir(new)?;
    // The old root ends up on top of the new one; see pivot_root(2).
    pivot_root(".", ".").context("cannot change the root")?;
    rustix::process::chdir("/")?;
    Ok(Old(old))
}

/// Takes this computer's root out of our sight.
pub(crate) fn leave(old: Old, new: impl AsFd) -> Result<()> {
    fchdir(&old.0)?;
    unmount(".", UnmountFlags::DETACH).context("cannot let go of the old root")?;
    fchdir(&new)?;
    drop(old);
    // Had something been mounted on the root itself, that would be gone, and the old root on top of the new one.
    let above = open("/..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if !confined::is_same(&above, &new)? {
        bail!("this computer's root is still in sight");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_layer_refers_to_another_whatever_a_computer_has_switched_on() {
        let root = Flags { is_mapped: false, is_passing: true };
        let is_on = |name: &str| name == "metacopy";
        assert_eq!(root.words_where(is_on), [("volatile", None), ("metacopy", Some("off"))]);
        assert_eq!(root.words_where(|_| false), [("volatile", None)]);
        let mapped = Flags { is_mapped: true, is_passing: false };
        assert_eq!(mapped.words_where(|_| true), [("userxattr", None)]);
    }
}
