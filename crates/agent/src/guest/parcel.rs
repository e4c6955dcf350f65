//! Files carried into and out of containers, by a process of its own for each: reading and writing them may take long.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stead_container::{End, Failure, Owners, Root, pack, running_root, unpack};
use stead_net::process::ProcessId;

use crate::process::{Process, Wish};

/// What the processes that carry files are told.
pub(crate) const PACK: &str = "--pack";
/// The other direction.
pub(crate) const UNPACK: &str = "--unpack";
/// And whether owners stay.
pub(crate) const KEEP: &str = "keep";
pub(crate) const OURS: &str = "ours";

/// What is carried at once.
const CARRY_BYTES: usize = 64 * 1024;

/// From the container whose first process this is, to our standard output.
pub(crate) fn pack_from(pid: &str, started: &str, path: &str) -> Result<()> {
    let root = Root::Container(running_root(pid.parse()?, started.parse()?)?);
    let out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    pack(&End { root: &root, path }, &mut BufWriter::with_capacity(CARRY_BYTES, out))
}

/// From our standard input to the container.
pub(crate) fn unpack_to((pid, started): (&str, &str), path: &str, owners: &str) -> Result<()> {
    let root = Root::Container(running_root(pid.parse()?, started.parse()?)?);
    let owners = if owners == KEEP { Owners::Keep } else { Owners::Ours };
    let input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    unpack(&mut BufReader::with_capacity(CARRY_BYTES, input), &End { root: &root, path }, owners)
}

/// Starts one of them, for the container whose first process this is. What it says as an error is why it failed.
pub(crate) fn start(what: &str, pid: &str, args: &[&str]) -> Result<Process, Failure> {
    let container = ProcessId::observe(pid.parse().context("this is no process")?)?;
    let container = container.context("the container has just ended")?;
    Process::start(Wish::Pipes { stdin: true }, |stdio| {
        let stead_container::Stdio::Streams { stdin, stdout, stderr } = stdio else {
            return Err(anyhow::anyhow!("files are not carried by a terminal").into());
        };
        let share = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(Stdio::from);
        let doing = "cannot carry files";
        let child = Command::new("/proc/self/exe")
            .args([what, pid, &container.start_time.to_string()])
            .args(args)
            .stdin(share(stdin).context(doing)?)
            .stdout(share(stdout).context(doing)?)
            .stderr(share(stderr).context(doing)?)
            .spawn()
            .context(doing)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context(doing)?;
        Ok((child.id(), pidfd_open(pid, PidfdFlags::empty()).context(doing)?, None))
    })
}
