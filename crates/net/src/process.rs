//! Processes that outlive the command that started them. A pid alone is reused by strangers; a pid with the
//! time its process started is not.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
};

/// One process of this computer, for as long as the computer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
}

impl ProcessId {
    /// This process.
    pub fn own() -> Result<Self> {
        Self::observe(std::process::id())?.context("cannot find ourselves in /proc")
    }

    /// The process that has this number now; `None` if none has, or only a zombie.
    pub fn observe(pid: u32) -> Result<Option<Self>> {
        // Bytes, not text: a process may call itself anything.
        let stat = match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || Errno::from_io_error(&error) == Some(Errno::SRCH) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read `/proc/{pid}/stat`")),
        };
        let (state, start_time) =
            parse_stat(&stat).with_context(|| format!("`/proc/{pid}/stat` is not what proc(5) says"))?;
        let lives = match state {
            // The first thread of a killed process may be a zombie while others still hold its files and locks.
            b'Z' => fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1),
            b'X' => false,
            _ => true,
        };
        Ok(lives.then_some(Self { pid, start_time }))
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(self) -> Result<bool> {
        Ok(Self::observe(self.pid)? == Some(self))
    }

    /// Sends a signal to it and to nobody else; `false` if it is gone.
    pub fn kill(self, signal: Signal) -> Result<bool> {
        let Some(handle) = self.handle()? else { return Ok(false) };
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("cannot send {signal:?} to process {self}")),
        }
    }

    /// Waits until it is gone; `false` if it still runs after `limit`.
    pub fn wait_gone(self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let Some(handle) = self.handle()? else { return Ok(true) };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).context("the limit is too long")?;
            // A pidfd becomes readable when its process ends, also while it is a zombie.
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).with_context(|| format!("cannot wait for process {self}")),
            }
        }
    }

    /// Waits until it is gone, as a task of a tokio runtime.
    pub async fn gone(self) -> Result<()> {
        let Some(handle) = self.handle()? else { return Ok(()) };
        let doing = || format!("cannot wait for process {self}");
        let handle = crate::serve::sys::register(handle).with_context(doing)?;
        handle.readable().await.map(drop).with_context(doing)
    }

    /// Writes it to a file, whole or not at all.
    pub fn store(self, path: &Path) -> Result<()> {
        let fresh = path.with_extension("new");
        fs::write(&fresh, format!("{self}\n"))
            .with_context(|| format!("cannot write `{}`", fresh.display()))?;
        fs::rename(&fresh, path).with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// Reads it from a file; `None` if there is no file, or one that we did not finish.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(parse_file(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    /// A descriptor of this very process. Opened first and compared after: a pid cannot change hands while
    /// the descriptor's process is the one that we then find alive.
    fn handle(self) -> Result<Option<OwnedFd>> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("cannot open process {self}")),
        };
        Ok(self.is_alive()?.then_some(handle))
    }
}

/// Keeps what we inherited from the processes that we start and that outlive us: a lock that a script took with
/// `flock` would be theirs for as long as they live, and a pipe that a shell reads to its end would have none.
pub fn keep_inherited() -> Result<()> {
    let entries = fs::read_dir("/proc/self/fd").context("cannot read `/proc/self/fd`")?;
    let open = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    open.filter(|fd| *fd > 2)
        .try_for_each(crate::sys::close_on_exec)
        .context("cannot keep inherited descriptors to ourselves")
}

/// Lets this process have as many files open as it may.
pub fn raise_file_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the file limit")
}

/// Lets go of the memory in which our program and its libraries are mapped as their files have them: most of it was
/// needed only to start. For processes that then wait for days, called before they wait.
pub fn let_go_of_program() {
    crate::sys::let_go_of_program();
}

/// The living processes of this user, in this process namespace, whose command line fits. What wrote no pid
/// file, or whose file is lost, is found all the same.
pub fn find(fits: impl Fn(&[&[u8]]) -> bool) -> Result<Vec<ProcessId>> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").context("cannot read `/proc`")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = Vec::new();
    for pid in pids.filter(|pid| *pid != own) {
        // What ends while we look has no command line any more, nor has a zombie.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let words: Vec<&[u8]> = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0).collect();
        if fits(&words) && is_ours(pid) {
            found.extend(ProcessId::observe(pid)?);
        }
    }
    Ok(found)
}

/// Whether a process is of this user. The owner of its directory in `/proc` says nothing of one that keeps
/// others from looking into it, as pasta does.
fn is_ours(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let real = ids.and_then(|ids| ids.split_whitespace().next()?.parse().ok());
    real == Some(rustix::process::getuid().as_raw())
}

/// Whether a process sees this directory where we do. In a container of its own there may be another one by
/// the same path.
pub fn sees(process: ProcessId, directory: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let below = directory.strip_prefix("/").unwrap_or(directory);
    identity(directory) == identity(&Path::new(&format!("/proc/{}/root", process.pid)).join(below))
}

/// `pid start_time`, as in its file.
impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start_time)
    }
}

fn parse_file(text: &str) -> Option<ProcessId> {
    let (pid, start_time) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(ProcessId { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
}

/// State (field 3) and start time (field 22). Field 2 is the program's name in parentheses and may itself
/// hold spaces and parentheses, so counting starts after the last `)`.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // 22 less the three fields before.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    const REST: &str = "1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        for name in ["sh", "a b", "a) Z 1", "((", "\u{fc})"] {
            let line = format!("42 ({name}) S {REST}");
            assert_eq!(parse_stat(line.as_bytes()), Some((b'S', 4711)), "{name}");
        }
        assert_eq!(parse_stat(b"42 (\xff\xfe) R 1 7"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn programs_that_we_start_do_not_inherit_what_we_did() {
        let file = tempfile::tempfile().unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file).to_string();
        let inherits = || {
            let mut command = Command::new("test");
            command.args(["-e", &format!("/proc/self/fd/{number}")]).status().unwrap().success()
        };
        assert!(inherits());
        keep_inherited().unwrap();
        assert!(!inherits());
    }

    #[test]
    fn a_half_written_file_is_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        assert_eq!(ProcessId::load(&path).unwrap(), None);
        for text in ["", "12", "12 34", "12 x\n", "-1 5\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(ProcessId::load(&path).unwrap(), None, "{text:?}");
        }
        let own = ProcessId::own().unwrap();
        own.store(&path).unwrap();
        assert_eq!(ProcessId::load(&path).unwrap(), Some(own));
    }

    #[test]
    fn a_process_is_found_by_its_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().to_str().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read line", mark]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let fits = |words: &[&[u8]]| words.last() == Some(&mark.as_bytes());
        let started = Instant::now();
        // Until it executes, the child has our own command line.
        let found = loop {
            let found = find(fits).unwrap();
            if !found.is_empty() || started.elapsed() > Duration::from_secs(10) {
                break found;
            }
        };
        assert_eq!(found, [ProcessId::observe(child.id()).unwrap().unwrap()]);
        assert!(sees(found[0], dir.path()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(find(fits).unwrap(), []);
    }

    #[test]
    fn a_stranger_with_the_same_pid_is_neither_alive_nor_killed() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let real = ProcessId::observe(child.id()).unwrap().unwrap();
        let stale = ProcessId { start_time: real.start_time - 1, ..real };
        assert!(!stale.is_alive().unwrap());
        assert!(!stale.kill(Signal::KILL).unwrap());
        assert!(stale.wait_gone(Duration::ZERO).unwrap());
        assert!(real.is_alive().unwrap());
        assert!(!real.wait_gone(Duration::from_millis(1)).unwrap());
        assert!(real.kill(Signal::KILL).unwrap());
        // Not reaped yet: a zombie counts as gone.
        assert!(real.wait_gone(Duration::from_secs(10)).unwrap());
        assert!(!real.is_alive().unwrap());
        child.wait().unwrap();
        assert!(!real.kill(Signal::KILL).unwrap());
    }
}
