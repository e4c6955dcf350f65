//! Hooks: programs that are run at certain moments of a container's life, with its state on their standard input.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::config::Hook;
use super::state::State;

/// What is repeated of what a hook that failed said.
const SAID_MAX_BYTES: u64 = 4 << 10;

/// Runs them in their order; the first that fails ends the row.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &State) -> Result<()> {
    hooks
        .iter()
        .try_for_each(|hook| one(hook, state).with_context(|| format!("{kind} hook `{}` failed", hook.path)))
}

/// Runs all of them, whatever becomes of each: one that fails is worth a warning.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &State) {
    for hook in hooks {
        if let Err(error) = one(hook, state) {
            tracing::warn!("{kind} hook `{}` failed: {error:#}", hook.path);
        }
    }
}

fn one(hook: &Hook, state: &State) -> Result<()> {
    // Files in memory: whoever a hook leaves behind does not keep us waiting for the end of a pipe.
    let file = |name| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from).context("cannot make a file");
    let (mut stdin, mut said) = (file("state")?, file("output")?);
    stdin.write_all(&serde_json::to_vec(state)?)?;
    stdin.rewind()?;
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear();
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(said.try_clone()?))
        .stderr(Stdio::from(said.try_clone()?));
    if hook.timeout.is_some() {
        // What it starts ends with it when it takes too long.
        command.process_group(0);
    }
    let mut child = command.spawn().context("cannot run it")?;
    if let Some(seconds) = hook.timeout {
        let limit = Duration::from_secs(seconds.unsigned_abs());
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("it has no number")?;
        if !ends(pid, limit)? {
            // It may have ended just now.
            let _ = kill_process_group(pid, Signal::KILL);
            child.wait()?;
            bail!("it took more than {seconds} s");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        said.rewind()?;
        let mut text = Vec::new();
        said.take(SAID_MAX_BYTES).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        bail!("{status}{}{text}", if text.is_empty() { "" } else { ": " });
    }
    Ok(())
}

/// Whether a child ends before the limit.
fn ends(pid: Pid, limit: Duration) -> Result<bool> {
    let fd = pidfd_open(pid, PidfdFlags::empty()).context("cannot open it")?;
    let deadline = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(&fd.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for it"),
        }
    }
}
