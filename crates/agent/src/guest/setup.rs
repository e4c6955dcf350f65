//! What a guest is told before it can have containers: its name, time, nics and disks.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::time::{ClockId, Timespec, clock_settime};
use stead_agent::MOUNTS;
use stead_agent::message::{FileSystem, SetUp, Source};
use stead_model::container::Access;

use crate::boot::mkdir;

/// What may be on a disk.
const DISK_KINDS: [&str; 2] = ["ext4", "erofs"];

/// What of it takes longest, told as it is done.
pub(crate) fn set_up(wanted: &SetUp, mut told: impl FnMut(&str)) -> Result<()> {
    // Before anything that may draw a number: others may go on from where this guest was saved.
    stead_container::stir(&wanted.entropy)?;
    set_clock(wanted.time_ns)?;
    crate::disks::find(wanted.is_restored)?;
    rustix::system::sethostname(wanted.hostname.as_bytes())
        .with_context(|| format!("cannot be called `{}`", wanted.hostname))?;
    crate::container::prepare()?;
    wanted.filesystems.iter().try_for_each(mount_one)?;
    told("disks");
    crate::nics::set_up(&wanted.nics)?;
    // As in containers: who is not root may use low ports and ping, since the network is the machine's own.
    let usual = [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
    let usual = usual.map(|(name, value)| (name.to_owned(), value.to_owned()));
    sysctls(&usual.into())?;
    sysctls(&wanted.sysctls)?;
    told("network");
    Ok(())
}

/// Sets the time.
pub(crate) fn set_clock(time_ns: u64) -> Result<()> {
    const SECOND: u64 = 1_000_000_000;
    let number = |value: u64| i64::try_from(value).unwrap_or_default();
    let time = Timespec { tv_sec: number(time_ns / SECOND), tv_nsec: number(time_ns % SECOND) };
    clock_settime(ClockId::Realtime, time).context("cannot set the clock")
}

/// Sets kernel parameters. A path with dots for slashes has slashes for dots, as names of
/// interfaces have.
pub(crate) fn sysctls(wanted: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in wanted {
        let is_lawful = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..");
        if !is_lawful {
            bail!("`{name}` is no kernel parameter");
        }
        let is_path =
            name.find(['.', '/']).is_some_and(|at| name.get(at..).is_some_and(|rest| rest.starts_with('/')));
        let swapped = |c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        let path: String = if is_path { name.clone() } else { name.chars().map(swapped).collect() };
        fs::write(Path::new("/proc/sys").join(path), value)
            .with_context(|| format!("cannot set `{name}` to `{value}`"))?;
    }
    Ok(())
}

/// Mounts a file system in its directory.
pub(crate) fn mount_one(wanted: &FileSystem) -> Result<()> {
    let place = Path::new(MOUNTS).join(wanted.name.as_str());
    let doing = || format!("cannot mount `{}`", wanted.name);
    mkdir(&place)?;
    let mut flags = MountFlags::NODEV;
    // The devices of an image are those of its layers.
    if matches!(wanted.source, Source::Disk(_)) {
        flags = MountFlags::empty();
    }
    if wanted.access == Access::Read {
        flags |= MountFlags::RDONLY;
    }
    let (source, kinds, options) = match &wanted.source {
        Source::Disk(disk) => (crate::disks::wait(disk).with_context(doing)?, &DISK_KINDS[..], String::new()),
        Source::VirtioFs(tag) => (PathBuf::from(tag), &["virtiofs"][..], String::new()),
        Source::NineP(tag) => {
            (PathBuf::from(tag), &["9p"][..], "trans=virtio,version=9p2000.L,msize=262144".to_owned())
        }
        Source::Memory { size_bytes } => {
            let size = size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
            (PathBuf::from("tmpfs"), &["tmpfs"][..], format!("mode=0755{size}"))
        }
    };
    let options = CString::new(options).with_context(doing)?;
    let mut last = Errno::NODEV;
    for kind in kinds {
        match mount(&source, &place, *kind, flags, Some(options.as_c_str())) {
            Ok(()) => return Ok(()),
            // It is of another kind, or the kernel does not know that one.
            Err(errno @ (Errno::INVAL | Errno::NODEV)) => last = errno,
            Err(errno) => return Err(errno).with_context(doing),
        }
    }
    Err(last).with_context(|| format!("it is none of {}", kinds.join(", "))).with_context(doing)
}

/// Lets go of all file systems, so that they are whole on their disks. Goes on after an error, and gives all of them.
pub(crate) fn unmount_all() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let ours =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|place| place.starts_with(MOUNTS));
    let mut said = Vec::new();
    for place in ours.collect::<Vec<_>>().into_iter().rev() {
        if let Err(errno) = unmount(place, UnmountFlags::empty()) {
            said.push(format!("cannot unmount `{place}`: {}", std::io::Error::from(errno)));
        }
    }
    rustix::fs::sync();
    said
}
