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

use crate::stat::{self, Stat};
use crate::sys;

/// A process: its number counts only together with when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) pid: u32,
    pub(crate) started: u64,
}

impl Stamp {
    /// Of a process that lives.
    pub(crate) fn of(pid: u32) -> Result<Option<Self>> {
        let alive = Stat::observe(pid)?.filter(Stat::is_alive);
        Ok(alive.map(|stat| Self { pid, started: stat.started_ticks }))
    }

    /// A name that no other process has until the next boot.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.pid, self.started)
    }

    /// Whether it lives still.
    pub(crate) fn is_alive(self) -> Result<bool> {
        Ok(Self::of(self.pid)? == Some(self))
    }

    /// A descriptor of it, unless it is gone, buried and all. Whether it has ended is the descriptor's to say.
    pub(crate) fn open(self) -> Result<Option<OwnedFd>> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("cannot open process {}", self.pid)),
        };
        // Looked at when the descriptor is there: if the number has changed hands, it had done so before.
        let is_it = Stat::observe(self.pid)?.is_some_and(|stat| stat.started_ticks == self.started);
        Ok(is_it.then_some(fd))
    }
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

/// The computer's present run.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Puts a container's first process on record.
pub(crate) fn store(state: &Path, pid: u32) -> Result<()> {
    // One that has ended already need not be found.
    let Some(init) = Stamp::of(pid)? else { return Ok(()) };
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
        && let Some(pidfd) = init.open()?
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
            // One that cannot be looked at may be there yet.
            Ok(0) if stat::has_memory(pid)? == Some(false) => return Ok(true),
            Ok(0) if start.elapsed() > GONE_LIMIT => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno).context("cannot wait for the container's end"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;
    use crate::sys::First;

    /// A process of ours that calls itself what no text can hold is found by its record, and ended.
    #[track_caller]
    fn check(first: First) {
        let state = tempfile::tempdir().unwrap();
        let pid = sys::fork_oddly(first).unwrap();
        let child = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
        let deadline = Instant::now() + GONE_LIMIT;
        let is_so = |stat: &[u8]| match first {
            First::GoesOn => stat.windows(4).any(|piece| piece == b"\xff) S"),
            First::Ends => stat.windows(4).any(|piece| piece == b"\xff) Z"),
        };
        while !is_so(&fs::read(format!("/proc/{pid}/stat")).unwrap()) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let stamp = Stamp::of(pid).unwrap().unwrap();
        assert!(stamp.is_alive().unwrap() && stamp.open().unwrap().is_some());
        assert_eq!(stat::has_memory(pid).unwrap(), Some(true));
        let stranger = Stamp { started: stamp.started - 1, ..stamp };
        assert!(!stranger.is_alive().unwrap() && stranger.open().unwrap().is_none());
        store(state.path(), pid).unwrap();
        end(state.path()).unwrap();
        assert!(!state.path().join(RECORD).exists());
        assert!(!stamp.is_alive().unwrap(), "it outlives who takes it away");
        waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED).unwrap();
        assert!(stamp.open().unwrap().is_none());
        assert_eq!(stat::has_memory(pid).unwrap(), None);
    }

    #[test]
    fn one_with_a_name_that_is_no_text_is_ended() {
        check(First::GoesOn);
    }

    #[test]
    fn one_whose_first_thread_has_ended_is_ended() {
        check(First::Ends);
    }
}
