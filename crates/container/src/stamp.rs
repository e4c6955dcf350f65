//! Processes that are found again later: by their number and when they started. And which one is a container's first,
//! on record from before it does anything: where no cgroup holds a container, and it let go of the kernel's promise to
//! kill it with its keeper, nothing else tells whom to end.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::sys;

/// A process: its number counts only together with when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) pid: u32,
    started: u64,
}

impl Stamp {
    /// Of a process that lives.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let (is_alive, started) = look(pid)?;
        is_alive.then_some(Self { pid, started })
    }

    /// A name that no other process has until the next boot.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.pid, self.started)
    }

    /// Whether it lives still.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A descriptor of it, if it lives.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Now that its number cannot change hands any more.
        self.is_alive().then_some(fd)
    }
}

/// Whether a process is more than a body to be buried, and when it started.
fn look(pid: u32) -> Option<(bool, u64)> {
    // Its name comes first, in parentheses, and may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    // Field 22 of proc(5); the first of these is field 3.
    let started = fields.nth(18)?.parse().ok()?;
    Some((!matches!(state, "Z" | "X"), started))
}

/// The file in which a container's first process is on record.
const RECORD: &str = "init.json";

/// A killed process is gone when the kernel gets round to it.
const GONE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Record {
    init: Stamp,
    /// The computer's run in which that is so: the next one may have the same number at the same time.
    boot: String,
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Puts a container's first process on record.
pub(crate) fn store(state: &Path, pid: u32) -> Result<()> {
    // One that has ended already need not be found.
    let Some(init) = Stamp::of(pid) else { return Ok(()) };
    let path = state.join(RECORD);
    fs::write(&path, serde_json::to_vec(&Record { init, boot: boot() })?)
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// Ends the process that is on record, and with it all others of its container; then it is on record no more. No
/// error if there is none.
pub(crate) fn end(state: &Path) -> Result<()> {
    let path = state.join(RECORD);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    // A record that was cut off is of one whose maker died before it could do anything, and who died with it.
    let record = serde_json::from_slice(&text).ok().filter(|record: &Record| record.boot == boot());
    if let Some(Record { init, .. }) = record
        && let Some(pidfd) = init.open()
    {
        match sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).context("cannot end the container's first process"),
        }
        if !is_gone(init.pid, &pidfd)? {
            bail!("the container's first process (process {}) cannot be ended", init.pid);
        }
    }
    match fs::remove_file(&path) {
        // Somebody else took the container away at the same time.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("cannot remove `{}`", path.display())),
    }
}

/// After so long a process that has no memory any more is one that only waits for others to be buried.
const BURIAL_LIMIT: Duration = Duration::from_millis(500);

/// Waits until a process is gone. The first of a namespace stays until all that were in there are buried, each by its
/// own parent, who may never do it; but then it has let go of all that it had.
fn is_gone(pid: u32, pidfd: &OwnedFd) -> Result<bool> {
    let start = Instant::now();
    let timeout = Timespec::try_from(BURIAL_LIMIT)?;
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if !has_memory(pid) => return Ok(true),
            Ok(0) if start.elapsed() > GONE_LIMIT => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno).context("cannot wait for the container's end"),
        }
    }
}

/// Whether a process has memory of its own, by field 23 of `/proc/<pid>/stat`.
fn has_memory(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let size = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(20));
    size.is_some_and(|size| size != "0")
}
