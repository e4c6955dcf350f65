//! What `/proc/<pid>/stat` says of a process, or of one of its threads, by the numbers of proc(5).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    state: u8,
    /// Time of the processor, in the kernel and out of it.
    pub(crate) cpu_ticks: u64,
    pub(crate) threads: u64,
    /// When it started, since the computer did.
    pub(crate) started_ticks: u64,
    mapped_bytes: u64,
    pub(crate) resident_pages: u64,
}

impl Stat {
    /// Of the process with this number; `None` if there is none.
    pub(crate) fn observe(pid: u32) -> Result<Option<Self>> {
        Self::load(Path::new(&format!("/proc/{pid}/stat")))
    }

    fn load(path: &Path) -> Result<Option<Self>> {
        // Bytes, not text: a process may call itself anything.
        let line = match fs::read(path) {
            Err(error) if is_gone(&error) => return Ok(None),
            line => line.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        let stat = Self::parse(&line);
        stat.map(Some).with_context(|| format!("`{}` is not what proc(5) says", path.display()))
    }

    /// The name, field 2, is in parentheses and may itself hold spaces and parentheses.
    fn parse(line: &[u8]) -> Option<Self> {
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first of these is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            started_ticks: field(22)?,
            mapped_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    /// Whether it is more than a body to be buried.
    pub(crate) fn is_alive(&self) -> bool {
        match self.state {
            // The first thread may have ended while others go on, and all that the process has with them.
            b'Z' => self.threads > 1,
            b'X' => false,
            _ => true,
        }
    }
}

/// Whether a process has memory of its own, by any of its threads: one that ended has let go of it. `None` if there is
/// no such process.
pub(crate) fn has_memory(pid: u32) -> Result<Option<bool>> {
    let path = format!("/proc/{pid}/task");
    let threads = match fs::read_dir(&path) {
        Err(error) if is_gone(&error) => return Ok(None),
        threads => threads.with_context(|| format!("cannot read `{path}`"))?,
    };
    let mut is_there = false;
    for thread in threads {
        let thread = match thread {
            Err(error) if is_gone(&error) => return Ok(None),
            thread => thread.with_context(|| format!("cannot read `{path}`"))?,
        };
        let Some(stat) = Stat::load(&thread.path().join("stat"))? else { continue };
        is_there = true;
        if stat.mapped_bytes != 0 {
            return Ok(Some(true));
        }
    }
    Ok(is_there.then_some(false))
}

/// ESRCH: it ended between open and read.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_process_is_called() {
        let rest = b" S 1 7 7 0 -1 4194304 1 2 3 4 30 12 7 8 20 0 3 0 4711 8192 2 18446744073709551615";
        for name in [&b"sh"[..], b"a b", b"a) Z 1", b"((", b"\xff\xfe"] {
            let stat = Stat::parse(&[b"42 (", name, b")", rest].concat()).unwrap();
            assert_eq!((stat.state, stat.cpu_ticks, stat.threads), (b'S', 42, 3));
            assert_eq!((stat.started_ticks, stat.mapped_bytes, stat.resident_pages), (4711, 8192, 2));
        }
        for line in [&b""[..], b"42 (\xff\xfe", b"42 (sh) R 1 7"] {
            assert_eq!(Stat::parse(line), None);
        }
    }

    #[test]
    fn one_whose_first_thread_ended_lives_as_long_as_another_does() {
        let stat = |state, threads| Stat {
            state,
            threads,
            cpu_ticks: 0,
            started_ticks: 0,
            mapped_bytes: 0,
            resident_pages: 0,
        };
        let lives = [(b'S', 1), (b'Z', 2), (b'Z', 1), (b'X', 1)].map(|(s, t)| stat(s, t).is_alive());
        assert_eq!(lives, [true, true, false, false]);
    }
}
