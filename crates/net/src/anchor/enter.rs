//! Running a user's command inside the engine's namespaces: the only way in, and only for people.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::fstat;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::sys;
use crate::process::ProcessId;

/// Where programs look up who resolves names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where to go, and what to run there.
#[derive(Debug)]
pub struct Entrance {
    /// The anchor.
    pub anchor: ProcessId,
    /// A machine's namespace, from [`super::Client::namespace`]; the engine's own if `None`.
    pub namespace: Option<OwnedFd>,
    /// Who resolves names there; as outside if `None`.
    pub resolver: Option<Resolver>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// An `/etc/resolv.conf` for one command.
#[derive(Debug)]
pub struct Resolver {
    /// Its text.
    pub text: String,
    /// A directory of ours, which is covered for a moment.
    pub dir: PathBuf,
}

/// Becomes the command, inside. Returns only if that failed. Must be called in a program with one thread: a
/// process with several cannot change its user namespace.
pub fn enter(entrance: Entrance) -> Result<std::convert::Infallible> {
    let Entrance { anchor, namespace, resolver, command } = entrance;
    let Some((program, args)) = command.split_first() else { bail!("no command to run") };
    join(anchor, namespace.as_ref())?;
    if let Some(resolver) = resolver {
        cover_resolv_conf(&resolver)?;
    }
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.display()))
}

/// Moves this process into the engine's user namespace, where it is root, and into a network namespace: a
/// machine's, or the engine's own if `None`. Must be called in a program with one thread.
fn join(anchor: ProcessId, namespace: Option<&OwnedFd>) -> Result<()> {
    let engine = open_namespace(anchor, "net")?;
    join_users(anchor)?;
    let network = namespace.map_or(engine.as_fd(), AsFd::as_fd);
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
        .context("cannot enter the network namespace")
}

/// Moves this process into the engine's user namespace, where it is root, and into no other. Must be called in a
/// program with one thread.
pub fn join_users(anchor: ProcessId) -> Result<()> {
    let user = open_namespace(anchor, "user")?;
    // Opened first, then looked whose it was.
    if !anchor.is_alive()? {
        bail!("the anchor ended");
    }
    let own = rustix::fs::stat("/proc/self/ns/user").context("cannot look at our own user namespace")?;
    let theirs = fstat(&user).context("cannot look at the engine's user namespace")?;
    // Entering the one we are in is an error to the kernel, and as root there is no other.
    if (own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino) {
        move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
            .context("cannot enter the engine's user namespace")?;
    }
    Ok(())
}

fn open_namespace(anchor: ProcessId, kind: &str) -> Result<File> {
    let path = format!("/proc/{}/ns/{kind}", anchor.pid);
    File::open(&path).with_context(|| format!("cannot open `{path}`"))
}

/// Gives this process an `/etc/resolv.conf` of its own, in a mount namespace that ends with it. A DHCP client that
/// it runs cannot replace the computer's file either: what is a mount point is not renamed over.
fn cover_resolv_conf(resolver: &Resolver) -> Result<()> {
    // Where the file is a link, what it leads to is covered.
    let target = match fs::canonicalize(RESOLV_CONF) {
        Ok(target) => target,
        // Nothing to cover. Making one would be a change of the computer's files.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot find `{RESOLV_CONF}`")),
    };
    sys::unshare(UnshareFlags::NEWNS).context("cannot make a mount namespace")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("cannot detach our mounts from the computer's")?;
    // The file has to be on some file system, and leave no trace: one in memory, unmounted as soon as the file
    // is bound, lives on in the binding alone.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("stead", &resolver.dir, "tmpfs", flags, Some(c"mode=755,size=64k"))
        .context("cannot mount a file system in memory")?;
    let covered = cover(&resolver.dir.join("resolv.conf"), &target, &resolver.text);
    unmount(&resolver.dir, UnmountFlags::DETACH).context("cannot unmount the file system in memory")?;
    covered.with_context(|| format!("cannot cover `{}`", target.display()))
}

fn cover(file: &Path, target: &Path, text: &str) -> std::io::Result<()> {
    fs::write(file, text)?;
    Ok(mount_bind(file, target)?)
}
