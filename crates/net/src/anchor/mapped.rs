//! Work that only root may do with the files of an ordinary user's containers: whose owners are subordinate ids. It
//! is done by a process of ours in a user namespace with the engine's id map, which needs no engine.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::geteuid;
use rustix::thread::UnshareFlags;

use super::client::map_ids;
use super::protocol::Report;
use super::serve::spawner;
use super::wire::{self, Packet};
use super::{isolate, sys};

/// Runs `program args…`, which has to call [`become_root`] first thing, and gives what it wrote to its standard
/// output. It may take as long as its work does.
pub fn run_as_root(program: &Path, args: &[OsString]) -> Result<String> {
    run(program, args, Stdio::piped(), None)
}

/// The same for a program that reads or writes what it has as its standard output.
pub fn run_as_root_at(program: &Path, args: &[OsString], stdout: OwnedFd) -> Result<()> {
    run(program, args, Stdio::from(stdout), None).map(drop)
}

/// The same for a program that is told what to do beside its command line, which everybody on this computer can read. It
/// hears it by [`order`].
pub fn order_as_root(
    program: &Path,
    args: &[OsString],
    stdout: Option<OwnedFd>,
    order: &[u8],
) -> Result<String> {
    run(program, args, stdout.map_or_else(Stdio::piped, Stdio::from), Some(order))
}

/// What we were told by [`order_as_root`]. To be called before [`become_root`].
pub fn order() -> Result<Vec<u8>> {
    let spawner = spawner()?.context("nobody tells us what to do")?;
    let packet = wire::receive(&spawner, 16 * 1024).context("cannot hear what to do")?;
    let Packet::Text(_, fds) = packet else { bail!("nobody tells us what to do") };
    let mut file = File::from(fds.into_iter().next().context("it came without a text")?);
    let mut text = Vec::new();
    file.read_to_end(&mut text).context("cannot read what to do")?;
    Ok(text)
}

/// Files in memory have names for whoever looks at descriptors.
const ORDER_NAME: &str = "stead-order";

/// A text for another process to read.
fn in_memory(text: &[u8]) -> Result<OwnedFd> {
    let file = memfd_create(ORDER_NAME, MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    let mut file = File::from(file);
    file.write_all(text).and_then(|()| file.rewind()).context("cannot write a file in memory")?;
    Ok(file.into())
}

fn run(program: &Path, args: &[OsString], stdout: Stdio, order: Option<&[u8]>) -> Result<String> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    if let Some(order) = order {
        // It waits in the socket until it is heard.
        wire::send(&ours, &ORDER_NAME, &[in_memory(order)?.as_fd()]).context("cannot say what to do")?;
    }
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::from(theirs))
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", program.display()))?;
    let followed = follow(&ours, child.id());
    if followed.is_err() {
        // It hangs, or has ended: its own words say why.
        let _ended = child.kill();
    }
    let mut words = String::new();
    let mut errors = child.stderr.take().context("it has no standard error")?;
    // What it has to say on either side is short: neither can fill a pipe.
    errors.read_to_string(&mut words).context("cannot hear it")?;
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut output).context("cannot hear it")?;
    }
    let status = child.wait().context("cannot look after it")?;
    followed?;
    if !status.success() {
        let told = words.trim().trim_start_matches("error: ").to_owned();
        bail!("{}", if told.is_empty() { format!("it ended with {status}") } else { told });
    }
    Ok(output)
}

fn follow(reports: &impl AsFd, pid: u32) -> Result<()> {
    loop {
        let text = match wire::receive(reports.as_fd(), 16 * 1024) {
            Ok(Packet::Text(text, _)) => text,
            // It ended; its words are read next.
            Ok(Packet::End | Packet::Oversized) => return Ok(()),
            Err(errno) => return Err(errno).context("cannot follow its start"),
        };
        match serde_json::from_slice(&text).context("it is not one of ours")? {
            Report::Map => {
                wire::send(reports.as_fd(), &map_ids(pid)?, &[]).context("cannot answer it")?;
            }
            Report::Ready | Report::Taken => return Ok(()),
            Report::Failed { text } => bail!("{text}"),
        }
    }
}

/// Gives a process of root's mounts of its own: what it mounts goes with it. Must be called in a program with one thread.
pub fn own_mounts() -> Result<()> {
    sys::unshare(UnshareFlags::NEWNS).context("cannot make a mount namespace")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("cannot detach our mounts from the host's")
}

/// Becomes root of a user namespace with the engine's id map, unless this is root anyway. Must be called in a
/// program with one thread, by [`run_as_root`].
pub fn become_root() -> Result<()> {
    let spawner = spawner()?;
    if !geteuid().is_root() {
        isolate::user_namespace(spawner.as_ref().map(AsFd::as_fd))?;
        sys::unshare(UnshareFlags::NEWNS).context("cannot make a mount namespace")?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context("cannot detach our mounts from the host's")?;
    }
    match spawner {
        Some(spawner) => wire::send(&spawner, &Report::Ready, &[]).context("cannot report"),
        None => Ok(()),
    }
}
