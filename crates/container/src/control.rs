//! What is done with a container that runs or ran.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use stead_model::container::{Launch, Mode, Signal};

use crate::cgroup::Cgroup;
use crate::cgroup::watch::Usage;
use crate::stamp;
use crate::stat::Stat;
use crate::sys;
use crate::tree::Contents;

/// Sends a signal to a process; false if it is gone.
pub fn kill(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<bool> {
    match sys::pidfd_signal(pidfd, signal.number()) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("cannot send {signal}")),
    }
}

/// By what a container is told to end whose first process has this number, and was not waited for yet. A system is told
/// as systemd is; one that would not hear that has an init like busybox', which is switched off by another. Whether it
/// hears that one cannot be seen of busybox', and what a first process does not hear does nothing to it.
pub fn stop_signal(launch: &Launch, pid: u32) -> Signal {
    if launch.mode != Mode::System || launch.stop_signal != Signal::HALT {
        return launch.stop_signal;
    }
    // What cannot be read is of one that is ending.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if hears(&status, Signal::HALT) { Signal::HALT } else { Signal::USR2 }
}

/// Whether a process with this status, by proc(5), does something about a signal: it has a handler for it, or holds it
/// back to read it.
fn hears(status: &str, signal: Signal) -> bool {
    let sets = status.lines().filter_map(|line| {
        let (_, set) = line.split_once(':').filter(|(key, _)| ["SigCgt", "SigBlk"].contains(key))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    let bit = u32::try_from(signal.number() - 1).unwrap_or_default();
    sets.fold(0, |all, set| all | set).checked_shr(bit).is_some_and(|rest| rest & 1 == 1)
}

/// Holds all processes of a container still.
pub fn pause(state: &Path) -> Result<()> {
    Cgroup::load(state)?.freeze(true)
}

/// Lets them go on.
pub fn unpause(state: &Path) -> Result<()> {
    Cgroup::load(state)?.freeze(false)
}

/// Whether they are held still.
pub fn is_paused(state: &Path) -> Result<bool> {
    Ok(Cgroup::load(state)?.is_frozen())
}

/// What a container uses, whose first process this is.
pub fn usage(state: &Path, pid: u32) -> Result<Usage> {
    let cgroup = Cgroup::load(state)?;
    let mut usage = cgroup.usage();
    if usage.cpu_ns.is_none() || usage.memory_bytes.is_none() || usage.pids.is_none() {
        // Not all is counted by cgroups here: then by looking at each process, of which those that ended are lost.
        let mut sum = Process::default();
        for pid in processes(state, pid)? {
            sum = sum.plus(Process::observe(pid)?.unwrap_or_default());
        }
        usage.cpu_ns.get_or_insert(sum.cpu_ns);
        usage.memory_bytes.get_or_insert(sum.memory_bytes);
        usage.pids.get_or_insert(sum.threads);
    }
    Ok(usage)
}

/// The processes of a container, whose first one this is, by their numbers here.
pub fn processes(state: &Path, pid: u32) -> Result<Vec<u32>> {
    if let Some(pids) = Cgroup::load(state)?.processes()? {
        return Ok(pids);
    }
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(pid) else { return Ok(Vec::new()) };
    let entries = fs::read_dir("/proc").context("cannot read `/proc`")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter(|pid| namespace(*pid).as_ref() == Some(&own)).collect())
}

/// Ends what is left of a container's processes, and takes its cgroups away. Its mounts went with its processes. Can
/// be done again, after a crash, and where nothing is left.
pub fn remove(state: &Path) -> Result<()> {
    let cgroup = Cgroup::load(state)?;
    // What stands still does not die.
    if cgroup.is_frozen() {
        cgroup.freeze(false)?;
    }
    if !cgroup.kill() {
        for pid in cgroup.processes()?.unwrap_or_default() {
            let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
                continue;
            };
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    // Where there is no cgroup, or it is in none of them any more.
    stamp::end(state)?;
    cgroup.remove()?;
    Cgroup::forget(state)
}

/// Deletes a tree of files, whoever of our user namespace owns them; what is not there is no error.
pub fn delete(tree: &Path) -> Result<()> {
    crate::tree::remove(tree, Contents::Files).with_context(|| format!("cannot delete `{}`", tree.display()))
}

/// What a process uses, as `/proc` says.
#[derive(Default)]
struct Process {
    cpu_ns: u64,
    memory_bytes: u64,
    threads: u64,
}

impl Process {
    fn observe(pid: u32) -> Result<Option<Self>> {
        let Some(stat) = Stat::observe(pid)? else { return Ok(None) };
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let page_bytes = u64::try_from(rustix::param::page_size())?;
        Ok(Some(Self {
            cpu_ns: stat.cpu_ticks * tick_ns,
            memory_bytes: stat.resident_pages * page_bytes,
            threads: stat.threads,
        }))
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            threads: self.threads + other.threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_heard_that_is_caught_or_held_back() {
        let status = |blocked: u64, caught: u64| {
            format!(
                "Name:\tinit\nSigBlk:\t{blocked:016x}\nSigIgn:\tffffffffffffffff\nSigCgt:\t{caught:016x}\n"
            )
        };
        let bit = |signal: Signal| 1u64 << (signal.number() - 1);
        for (blocked, caught, halt, usr2) in [
            (0, 0, false, false),
            (bit(Signal::HALT) | bit(Signal::USR2), 0, true, true),
            (0, bit(Signal::USR2), false, true),
            (bit(Signal::USR2), 0, false, true),
            (0, bit(Signal::HALT), true, false),
        ] {
            let status = status(blocked, caught);
            assert_eq!(
                (hears(&status, Signal::HALT), hears(&status, Signal::USR2)),
                (halt, usr2),
                "{status}"
            );
        }
        assert!(!hears("", Signal::USR2));
    }
}
