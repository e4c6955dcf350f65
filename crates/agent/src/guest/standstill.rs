//! File systems held still by a process of its own, which lets them go on when the program is gone that had it hold them,
//! or asks for it no more. The kernel itself never does: a file system is held until somebody lets it go on.
//!
//! ```text
//! the program ── standard input, until it is closed ──▶ holder: a note of what it holds, holds it, says so, lets it go on
//!                              both killed: who comes next (the service's end, its next start) lets go on what is noted
//! ```

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use stead_container::{Standstill, held_places, let_go_on};

/// What the process that holds is told, before the places.
pub(crate) const HOLD: &str = "--hold-still";
/// What lets those go on whose holder was killed.
pub(crate) const GO_ON: &str = "--go-on";

/// Whoever has file systems held still holds the whole guest at once, for which no time passes while it is held.
const LIMIT: Duration = Duration::from_secs(20);
/// For one whose program lives and does not answer.
const HOLDER_LIMIT: Duration = Duration::from_secs(25);
/// A guest may have much to write, and a busy disk. Who asked for it waits a little longer.
const BEGIN_LIMIT: Duration = Duration::from_secs(110);
/// It has nothing to do any more but that.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Where is noted what is held, which is never a disk.
const NOTE: &str = "/run/stead/standstill.json";
/// What the holder says when all is held.
const HELD: &[u8] = b"held\n";

/// File systems that are held still, for as long as this lasts.
pub(crate) struct Hold {
    holder: Child,
    pub(crate) until: Instant,
}

impl Hold {
    /// Has all file systems on disks held.
    pub(crate) fn begin() -> Result<Self> {
        let holder = Command::new("/proc/self/exe")
            .arg(HOLD)
            .args(held_places()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start what holds file systems still")?;
        // If it fails after this, what is held already goes on.
        let mut hold = Self { holder, until: Instant::now() + LIMIT };
        hold.wait()?;
        // Who asked for it counts from the answer.
        hold.until = Instant::now() + LIMIT;
        Ok(hold)
    }

    fn wait(&mut self) -> Result<()> {
        let output = self.holder.stdout.as_mut().context("it has no output")?;
        if !is_there(output, BEGIN_LIMIT)? {
            bail!("file systems were not written within {} s", BEGIN_LIMIT.as_secs());
        }
        let mut said = Vec::new();
        output.take(HELD.len() as u64).read_to_end(&mut said).context("cannot hear what holds them")?;
        if said != HELD {
            let mut why = String::new();
            let error = self.holder.stderr.as_mut();
            error.map(|error| error.read_to_string(&mut why)).transpose().context("cannot hear why")?;
            bail!("{}", why.trim().trim_start_matches("stead-agent: "));
        }
        Ok(())
    }
}

impl Hold {
    /// Whether the holder has ended, or does so in time: its output ends with it.
    fn is_over(&self) -> bool {
        self.holder.stdout.as_ref().is_some_and(|out| is_there(out, END_LIMIT).unwrap_or(false))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It lets them go on, unless it was killed. One that still writes does so when it is done: if it were killed in the
        // middle of holding one still, nobody would know when to let that go on.
        if !self.is_over() {
            return eprintln!("stead-agent: file systems are not let go on within {} s", END_LIMIT.as_secs());
        }
        if !self.holder.wait().is_ok_and(|status| status.success()) {
            go_on();
        }
    }
}

/// Whether something can be read of it, or it has ended, within this time.
fn is_there(from: &impl AsFd, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).context("a time limit is too long")?;
        match poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait"),
        }
    }
}

/// Holds the file systems at these places, until standard input is closed.
pub(crate) fn hold(places: &[&str]) -> Result<()> {
    let places: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
    let note = serde_json::to_vec(&places).context("cannot write what is held as JSON")?;
    fs::create_dir_all("/run/stead").context("cannot make `/run/stead`")?;
    match fs::File::create_new(NOTE).and_then(|mut file| file.write_all(&note)) {
        // What that one lets go on this one would count on.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("others hold them, who are not done yet")
        }
        written => written.with_context(|| format!("cannot write `{NOTE}`"))?,
    }
    let standstill = Standstill::begin(&places);
    let held = standstill.and_then(|standstill| {
        let mut output = std::io::stdout();
        // Who would hear it may be gone: then there is nothing to wait for.
        let _gone = output.write_all(HELD).and_then(|()| output.flush());
        let _in_time = is_there(&std::io::stdin(), HOLDER_LIMIT)?;
        drop(standstill);
        Ok(())
    });
    fs::remove_file(NOTE).with_context(|| format!("cannot remove `{NOTE}`"))?;
    held
}

/// Lets those file systems go on that a holder held which was killed.
pub(crate) fn go_on() {
    let noted = match fs::read(NOTE) {
        Ok(noted) => noted,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return eprintln!("stead-agent: cannot read `{NOTE}`: {error}"),
    };
    // Where it is cut off nothing was held yet.
    if let Ok(places) = serde_json::from_slice::<Vec<PathBuf>>(&noted) {
        let_go_on(&places);
    }
    if let Err(error) = fs::remove_file(NOTE) {
        eprintln!("stead-agent: cannot remove `{NOTE}`: {error}");
    }
}
