//! What a container uses, its processes, and holding them still.

use std::fs;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::{Cgroup, write};
use crate::tree;

type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// What a container uses. Absent is what cannot be known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start.
    pub cpu_ns: Option<u64>,
    /// Memory, without what the kernel can take back at once: files that were read and are not in use.
    pub memory_bytes: Option<u64>,
    /// The most memory it may use; absent if there is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The most processes and threads; absent if there is no limit.
    pub pids_limit: Option<u64>,
    /// Read from disks.
    pub read_bytes: Option<u64>,
    /// Written to disks.
    pub written_bytes: Option<u64>,
    /// How often the kernel ended a process in it for want of memory.
    pub oom_kills: Option<u64>,
}

/// Version 1 says this, rounded down to pages, where there is no limit.
const NO_LIMIT_LEAST: u64 = 1 << 62;

impl Cgroup {
    /// What is used.
    pub(crate) fn usage(&self) -> Usage {
        let cpu_unified = || Some(field(&read(self.unified.as_deref()?, "cpu.stat")?, "usage_usec")? * 1000);
        let cpu_ns = self.number("cpuacct", "cpuacct.usage").or_else(cpu_unified);
        let memory_current = |file| self.number("memory", file);
        let memory = memory_current("memory.usage_in_bytes").or_else(|| memory_current("memory.current"));
        let stat = self.text("memory", "memory.stat").unwrap_or_default();
        let idle = field(&stat, "total_inactive_file").or_else(|| field(&stat, "inactive_file"));
        let limit = memory_current("memory.limit_in_bytes").or_else(|| memory_current("memory.max"));
        let events =
            self.text("memory", "memory.oom_control").or_else(|| self.text("memory", "memory.events"));
        let (read_bytes, written_bytes) = self.io();
        Usage {
            cpu_ns,
            memory_bytes: memory.map(|all| all.saturating_sub(idle.unwrap_or_default())),
            memory_limit_bytes: limit.filter(|limit| *limit < NO_LIMIT_LEAST),
            pids: self.number("pids", "pids.current"),
            pids_limit: self.number("pids", "pids.max"),
            read_bytes,
            written_bytes,
            oom_kills: events.and_then(|text| field(&text, "oom_kill")),
        }
    }

    fn io(&self) -> (Option<u64>, Option<u64>) {
        if let Some(text) = self.text("blkio", "blkio.throttle.io_service_bytes_recursive") {
            let sum = |word: &str| {
                let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
                lines
                    .filter(|(what, _)| what.ends_with(word))
                    .filter_map(|(_, n)| n.parse::<u64>().ok())
                    .sum()
            };
            return (Some(sum(" Read")), Some(sum(" Write")));
        }
        let Some(text) = self.text("blkio", "io.stat") else { return (None, None) };
        let sum = |key: &str| {
            let words = text.split_whitespace().filter_map(|word| word.strip_prefix(key));
            words.filter_map(|n| n.parse::<u64>().ok()).sum()
        };
        (Some(sum("rbytes=")), Some(sum("wbytes=")))
    }

    fn text(&self, controller: &str, file: &str) -> Option<String> {
        read(self.directory(controller)?, file)
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.text(controller, file)?.trim().parse().ok()
    }

    /// The processes in it, and in those below it; `None` if there is no cgroup to ask.
    pub(crate) fn processes(&self) -> Result<Option<Vec<u32>>> {
        let Some(directory) = self.directories().next() else { return Ok(None) };
        let mut pids = Vec::new();
        let walked = tree::visit(directory, |cgroup| collect(cgroup, &mut pids));
        walked.with_context(|| format!("cannot read `{}`", directory.display()))?;
        Ok(Some(pids))
    }

    /// Ends all processes at once, where the kernel does that for us: whether it does.
    pub(crate) fn kill(&self) -> bool {
        let Some(unified) = &self.unified else { return false };
        write(&unified.join("cgroup.kill"), "1").is_ok()
    }

    /// Holds all processes still, or lets them go on.
    pub(crate) fn freeze(&self, is_still: bool) -> Result<()> {
        if let Some(unified) = self.unified.as_ref().filter(|path| path.join("cgroup.freeze").exists()) {
            write(&unified.join("cgroup.freeze"), if is_still { "1" } else { "0" })?;
            let wanted = u64::from(is_still);
            return until("the processes to stand still", || {
                Ok(field(&read(unified, "cgroup.events").unwrap_or_default(), "frozen") == Some(wanted))
            });
        }
        let Some(directory) = self.directory("freezer").filter(|path| path.join("freezer.state").exists())
        else {
            bail!(
                "processes cannot be held still: no cgroup was delegated to this user, or the kernel has no freezer"
            );
        };
        let state = if is_still { "FROZEN" } else { "THAWED" };
        until("the processes to stand still", || {
            // Written again, as runc does: a process that was forking meanwhile keeps it from being complete.
            write(&directory.join("freezer.state"), state)?;
            Ok(read(directory, "freezer.state").is_some_and(|text| text.trim() == state))
        })
    }

    /// Whether all processes are held still.
    pub(crate) fn is_frozen(&self) -> bool {
        let unified = self.unified.as_deref().and_then(|path| read(path, "cgroup.freeze"));
        let legacy = || self.text("freezer", "freezer.state");
        unified.or_else(legacy).is_some_and(|text| matches!(text.trim(), "1" | "FROZEN" | "FREEZING"))
    }
}

/// How long the kernel may take to hold processes still.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
const FREEZE_LOOK_EVERY: Duration = Duration::from_millis(1);

fn until(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + FREEZE_LIMIT;
    while !done()? {
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", FREEZE_LIMIT.as_secs());
        }
        std::thread::sleep(FREEZE_LOOK_EVERY);
    }
    Ok(())
}

/// Adds the processes of one cgroup.
fn collect(cgroup: BorrowedFd<'_>, pids: &mut Vec<u32>) -> Result<(), Errno> {
    let mut text = String::new();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let read = openat(cgroup, "cgroup.procs", flags, Mode::empty()).and_then(|file| {
        let read = fs::File::from(file).read_to_string(&mut text);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    });
    match read {
        // Removed while we look, or a threaded one, whose processes the one above lists.
        Err(Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => return Ok(()),
        read => read?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    Ok(())
}

/// Which cgroup in or below this one holds a process.
pub(super) fn holder(directory: &Path, pid: u32) -> Option<PathBuf> {
    let pids = read(directory, "cgroup.procs").unwrap_or_default();
    if pids.lines().any(|line| line.parse() == Ok(pid)) {
        return Some(directory.to_owned());
    }
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    inner.find_map(|entry| holder(&entry.path(), pid))
}

fn read(directory: &Path, file: &str) -> Option<String> {
    fs::read_to_string(directory.join(file)).ok()
}

/// The number after this word, in lines of a word and a number.
fn field(text: &str, word: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == word).and_then(|(_, number)| number.trim().parse().ok())
}
