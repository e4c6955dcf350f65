//! Running a user's command inside the engine's namespaces: the only way in, and only for people.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::fstat;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::ProcessId;

/// Where to go, and what to run there.
#[derive(Debug)]
pub struct Entrance {
    /// The anchor.
    pub anchor: ProcessId,
    /// A machine's namespace, from [`super::Client::namespace`]; the engine's own if `None`.
    pub namespace: Option<OwnedFd>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Becomes the command, inside. Returns only if that failed. Must be called in a program with one thread: a
/// process with several cannot change its user namespace.
pub fn enter(entrance: Entrance) -> Result<std::convert::Infallible> {
    let Entrance { anchor, namespace, command } = entrance;
    let Some((program, args)) = command.split_first() else { bail!("no command to run") };
    let open = |kind: &str| {
        let path = format!("/proc/{}/ns/{kind}", anchor.pid);
        File::open(&path).with_context(|| format!("cannot open `{path}`"))
    };
    let (user, engine) = (open("user")?, open("net")?);
    // Opened first, then looked whose they were.
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
    let network = namespace.as_ref().map_or(engine.as_fd(), AsFd::as_fd);
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
        .context("cannot enter the network namespace")?;
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.display()))
}
