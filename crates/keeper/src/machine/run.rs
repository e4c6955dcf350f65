//! One run of a machine: its first process, and our ends of its pipes or its terminal.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use stead_container::{Failure, Place, Started, Stdio, WindowSize};
use stead_model::container::{Launch, Signal};
use stead_net::process::ProcessId;

use super::guest::Guest;
use super::health::Health;
use super::stages::Stages;

/// The machine while it runs.
pub(super) struct Run {
    pub(super) body: Body,
    /// Absent where it was quicker than we: its end is yet to be seen.
    pub(super) process: Option<ProcessId>,
    /// The machine's own end of its terminal. While we hold it, too, a system may close its console and open it again:
    /// the other end would else be done for.
    pub(super) _console: Option<OwnedFd>,
    pub(super) output: Option<File>,
    pub(super) error: Option<File>,
    pub(super) input: Option<File>,
    pub(super) typed: VecDeque<u8>,
    pub(super) input_ends: bool,
    pub(super) started: Instant,
    pub(super) kill_at: Option<Instant>,
    /// The last signal that somebody sent it, and when.
    pub(super) sent: Option<(Signal, Instant)>,
    pub(super) health: Option<Health>,
    pub(super) stages: Stages,
}

/// What there is of the machine while it runs.
pub(super) enum Body {
    /// A process on this computer.
    Container(Started),
    /// A guest, in which its process is.
    Guest(Box<Guest>),
}

impl Body {
    /// Is ready when it has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Container(container) => container.pidfd.as_fd(),
            Self::Guest(guest) => guest.pidfd.as_fd(),
        }
    }

    /// Sends a signal to its first process.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        match self {
            Self::Container(container) => stead_container::kill(container.pidfd.as_fd(), signal).map(drop),
            Self::Guest(guest) => guest.signal(signal),
        }
    }
}

/// Makes the container and starts its program.
fn start(launch: &Launch, place: &Place, stdio: Stdio<'_>, stages: &mut Stages) -> Result<Started, Failure> {
    let created = stead_container::create(launch, place, stdio)?;
    stages.reach("created");
    let pidfd = created.pidfd.try_clone().context("cannot share a descriptor")?;
    let started = created.start().inspect_err(|_| {
        // Its process has ended, or does now.
        let _gone = stead_container::kill(pidfd.as_fd(), Signal::KILL);
        let _buried = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    })?;
    stages.reach("started");
    Ok(started)
}

pub(super) fn set_size(terminal: &File, size: WindowSize) -> rustix::io::Result<()> {
    let size =
        rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// What a pipe holds at most, or would if this were one: more than that was not there when one began to read.
pub(super) fn held(fd: BorrowedFd<'_>) -> usize {
    const USUAL_BYTES: usize = 64 * 1024;
    rustix::pipe::fcntl_getpipe_size(fd).unwrap_or(USUAL_BYTES)
}

impl Run {
    pub(super) fn new(launch: &Launch, place: &Place, mut stages: Stages) -> Result<Self, Failure> {
        let started = Instant::now();
        let doing = || "cannot make its pipes";
        let health = launch.health.as_ref().map(|check| Health::new(check.clone(), started));
        if launch.tty {
            let mut container = start(launch, place, Stdio::Terminal(WindowSize::default()), &mut stages)?;
            let terminal = container.terminal.take().context("it has no terminal")?;
            let input = terminal.try_clone().context("cannot share its terminal")?;
            rustix::io::ioctl_fionbio(&terminal, true).context("cannot wait for its terminal")?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let console = ioctl_tiocgptpeer(&terminal, flags).context("cannot hold its terminal")?;
            let (input, output) = (Some(File::from(input)), Some(File::from(terminal)));
            let run = Self::of(container, stages, started, health)?;
            return Ok(Self { input, output, _console: Some(console), ..run });
        }
        let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC).context(doing())?;
        let (err_read, err_write) = pipe_with(PipeFlags::CLOEXEC).context(doing())?;
        let (in_read, in_write) = if launch.stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(doing())?;
            rustix::io::ioctl_fionbio(&write, true).context(doing())?;
            (read, Some(File::from(write)))
        } else {
            (OwnedFd::from(File::open("/dev/null").context("cannot open /dev/null")?), None)
        };
        for read in [&out_read, &err_read] {
            rustix::io::ioctl_fionbio(read, true).context(doing())?;
        }
        let stdio =
            Stdio::Streams { stdin: in_read.as_fd(), stdout: out_write.as_fd(), stderr: err_write.as_fd() };
        let container = start(launch, place, stdio, &mut stages)?;
        let (output, error) = (Some(File::from(out_read)), Some(File::from(err_read)));
        Ok(Self { output, error, input: in_write, ..Self::of(container, stages, started, health)? })
    }

    /// A run in a guest, which comes up.
    pub(super) fn in_guest(guest: Guest, launch: &Launch, mut stages: Stages) -> Self {
        stages.reach("vmm");
        let started = Instant::now();
        let health = launch.health.as_ref().map(|check| Health::new(check.clone(), started));
        let process = Some(guest.process);
        Self { health, ..Self::with(Body::Guest(Box::new(guest)), process, stages, started) }
    }

    fn of(container: Started, stages: Stages, started: Instant, health: Option<Health>) -> Result<Self> {
        let process = ProcessId::observe(container.pid)?;
        Ok(Self { health, ..Self::with(Body::Container(container), process, stages, started) })
    }

    fn with(body: Body, process: Option<ProcessId>, stages: Stages, started: Instant) -> Self {
        Self {
            body,
            process,
            _console: None,
            output: None,
            error: None,
            input: None,
            typed: VecDeque::new(),
            input_ends: false,
            started,
            kill_at: None,
            sent: None,
            health: None,
            stages,
        }
    }

    pub(super) fn close_input(&mut self) {
        self.input = None;
        self.typed.clear();
    }
}
