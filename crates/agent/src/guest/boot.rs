//! The first moments of a guest: a root that can be left, the kernel's file systems, its modules.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::finit_module;
use stead_agent::message::Stage;

/// Where the initramfs has the modules to be loaded, in the order of their names.
const MODULES: &str = "modules";

/// What is mounted: what it is, where, and how.
const KERNELS: [(&str, &str, &str); 8] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", "nsdelegate"),
];

/// Makes this computer one in which programs can be run.
pub(crate) fn boot() -> Result<()> {
    let initramfs = leave_initramfs()?;
    for (kind, place, options) in KERNELS {
        mkdir(Path::new(place))?;
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        // Programs are run of none of them but `/tmp` and `/run`, and devices are in `/dev` only.
        let flags = match place {
            "/dev" => MountFlags::NOSUID,
            "/run" | "/tmp" => MountFlags::NOSUID | MountFlags::NODEV,
            _ => flags | MountFlags::NODEV,
        };
        // Of terminals there must be devices.
        let flags = if place == "/dev/pts" { flags - MountFlags::NODEV } else { flags };
        let done = mount(kind, place, kind, flags, Some(options.as_c_str()));
        done.with_context(|| format!("cannot mount {kind} at `{place}`"))?;
    }
    modules(&initramfs)
}

/// Puts an empty root over the initramfs, because nobody can change the root away from that, and gives that back.
fn leave_initramfs() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let initramfs = open("/", flags, Mode::empty()).context("cannot open the initramfs")?;
    mkdir(Path::new("/root"))?;
    mount("tmpfs", "/root", "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
        .context("cannot mount a root")?;
    rustix::process::chdir("/root")?;
    mount_move(".", "/").context("cannot move the root to its place")?;
    rustix::process::chroot(".").context("cannot change the root")?;
    rustix::process::chdir("/")?;
    Ok(initramfs)
}

/// Makes a directory, unless it is there.
pub(crate) fn mkdir(path: &Path) -> Result<()> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("cannot make `{}`", path.display())),
    }
}

/// Loads the modules of the initramfs, and gives their memory back.
fn modules(initramfs: &OwnedFd) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match openat(initramfs, MODULES, flags, Mode::empty()) {
        Ok(directory) => directory,
        // A kernel that has all built in.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).context("cannot open the modules"),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).context("cannot list the modules")? {
        let name = entry.context("cannot list the modules")?.file_name().to_owned();
        if name.to_bytes().ends_with(b".ko") {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let doing = || format!("cannot load `{}`", name.to_string_lossy());
        let is_for_disks = name.to_bytes().ends_with(crate::disks::MODULE.as_bytes());
        if is_for_disks {
            crate::disks::leave_to_us(true)?;
        }
        let file = openat(&directory, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        match finit_module(file.with_context(doing)?.as_fd(), c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            // One that this guest has no device or processor for is no reason not to go on: what needs it says so.
            Err(errno) => eprintln!("stead-agent: {}: {}", doing(), std::io::Error::from(errno)),
        }
        if is_for_disks {
            crate::disks::leave_to_us(false)?;
        }
        unlinkat(&directory, &name, AtFlags::empty()).with_context(doing)?;
    }
    Ok(())
}

/// That this guest has got so far now.
pub(crate) fn stage(name: &str) -> Stage {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let at_us = seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default() / 1000;
    Stage { name: name.to_owned(), at_us }
}

/// Reads a file of the kernel's, as text.
pub(crate) fn text(path: &str) -> Result<String> {
    std::io::read_to_string(File::open(path).with_context(|| format!("cannot open `{path}`"))?)
        .with_context(|| format!("cannot read `{path}`"))
}
