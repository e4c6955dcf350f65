//! A bundle's devices: nodes, or, where the kernel lets us make none, mounts of this computer's.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, chmodat, chownat, mknodat, stat, statat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::check::Plan;
use super::config::Device;
use super::place::tree;
use crate::mounts::confined::{self, Make};
use crate::mounts::device::{LINKS, usual};

/// The devices of a container: those it asks for, and of those that all have what it does not ask for otherwise.
pub(crate) fn wanted(plan: &Plan) -> Vec<Device> {
    // That one is a link to the container's own.
    let mut devices: Vec<Device> =
        plan.devices.iter().filter(|device| device.path != "/dev/ptmx").cloned().collect();
    for node in usual() {
        if !devices.iter().any(|device| device.path == node.target) {
            devices.push(Device {
                kind: "c".to_owned(),
                path: node.target,
                major: Some(i64::from(node.major)),
                minor: Some(i64::from(node.minor)),
                file_mode: Some(node.mode),
                uid: None,
                gid: None,
            });
        }
    }
    devices
}

/// Links that programs look for, where the image has nothing of that name.
pub(crate) fn links(root: BorrowedFd<'_>) -> Result<()> {
    let dev = confined::place(root, "/dev", Make::Directory).context("there is no `/dev`")?;
    for (leads_to, name) in LINKS {
        let doing = || format!("cannot make `/dev/{name}`");
        if name == "ptmx" {
            match unlinkat(&dev, name, rustix::fs::AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).with_context(doing),
            }
        }
        if name == "core" && !Path::new("/proc/kcore").exists() {
            continue;
        }
        match symlinkat(leads_to, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).with_context(doing),
        }
    }
    Ok(())
}

fn kind(device: &Device) -> FileType {
    match device.kind.as_str() {
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => FileType::CharacterDevice,
    }
}

fn number(device: &Device) -> u64 {
    let part = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    if device.kind == "p" { 0 } else { rustix::fs::makedev(part(device.major), part(device.minor)) }
}

fn is_it(found: &rustix::fs::Stat, device: &Device) -> bool {
    FileType::from_raw_mode(found.st_mode) == kind(device)
        && (device.kind == "p" || found.st_rdev == number(device))
}

pub(crate) fn make(root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let (parent, name) = device.path.rsplit_once('/').context("its path is not absolute")?;
    let parent = confined::place(root, if parent.is_empty() { "/" } else { parent }, Make::Directory)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    match mknodat(&parent, name, kind(device), mode, number(device)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            if !is_it(&found, device) {
                bail!("there is another file");
            }
        }
        Err(errno) => return Err(errno.into()),
    }
    chmodat(&parent, name, mode, rustix::fs::AtFlags::empty())?;
    let owner = rustix::fs::Uid::from_raw(device.uid.unwrap_or(0));
    let group = rustix::fs::Gid::from_raw(device.gid.unwrap_or(0));
    chownat(&parent, name, Some(owner), Some(group), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// This computer's device of the same name, which must be the one that was asked for.
pub(crate) fn shown(device: &Device) -> Result<OwnedFd> {
    let doing = || format!("cannot show device `{}`", device.path);
    let found = stat(device.path.as_str()).with_context(doing)?;
    if !is_it(&found, device) {
        bail!("{}: this computer has another one there, and none can be made in a user namespace", doing());
    }
    tree(Path::new(&device.path), false, 0).with_context(doing)
}
