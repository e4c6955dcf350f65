//! A process of ours in a container, and our ends of its pipes or its terminal.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{Winsize, tcsetwinsize};
use stead_agent::message::{Exec, Size};
use stead_agent::mux::Channel;
use stead_container::{Failure, Stdio, WindowSize};

/// A process while it lives, and until all that it wrote was read.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    /// How it ended, if it has.
    pub(crate) code: Option<u8>,
    pub(crate) output: Option<File>,
    pub(crate) error: Option<File>,
    input: Option<File>,
    typed: VecDeque<u8>,
    input_ends: bool,
    has_terminal: bool,
}

/// What a process is started with.
#[derive(Clone, Copy)]
pub(crate) enum Wish {
    /// A terminal of this size.
    Terminal(Size),
    /// Pipes; whether one of them leads to it.
    Pipes { stdin: bool },
    /// Nothing to read from, and nobody who reads.
    Nothing,
}

impl Wish {
    /// What a process of its own is started with.
    pub(crate) fn of(exec: &Exec) -> Self {
        match exec.tty {
            Some(size) => Self::Terminal(size),
            None if exec.detached => Self::Nothing,
            None => Self::Pipes { stdin: exec.stdin },
        }
    }
}

/// A process that was started, its descriptor, and its terminal if it has one.
pub(crate) type Made = (u32, OwnedFd, Option<OwnedFd>);

impl Process {
    /// Starts one with `start`.
    pub(crate) fn start(
        wish: Wish,
        start: impl FnOnce(Stdio<'_>) -> Result<Made, Failure>,
    ) -> Result<Self, Failure> {
        let doing = || "cannot make its pipes";
        let stdin = match wish {
            Wish::Terminal(size) => {
                let size = WindowSize { columns: size.columns, rows: size.rows };
                let (pid, pidfd, terminal) = start(Stdio::Terminal(size))?;
                let terminal = terminal.context("it has no terminal")?;
                rustix::io::ioctl_fionbio(&terminal, true).context("cannot wait for its terminal")?;
                let input = terminal.try_clone().context("cannot share its terminal")?;
                let mut process = Self::new(pid, pidfd);
                process.has_terminal = true;
                (process.input, process.output) = (Some(input.into()), Some(terminal.into()));
                return Ok(process);
            }
            Wish::Pipes { stdin } => stdin,
            Wish::Nothing => {
                let null = File::options().read(true).write(true).open("/dev/null");
                let null = null.context("cannot open /dev/null")?;
                let nothing = null.as_fd();
                let streams = Stdio::Streams { stdin: nothing, stdout: nothing, stderr: nothing };
                let (pid, pidfd, _) = start(streams)?;
                return Ok(Self::new(pid, pidfd));
            }
        };
        let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC).context(doing())?;
        let (err_read, err_write) = pipe_with(PipeFlags::CLOEXEC).context(doing())?;
        let (in_read, in_write) = if stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(doing())?;
            (read, Some(write))
        } else {
            (OwnedFd::from(File::open("/dev/null").context("cannot open /dev/null")?), None)
        };
        for end in [&out_read, &err_read].into_iter().chain(&in_write) {
            rustix::io::ioctl_fionbio(end, true).context(doing())?;
        }
        let (pid, pidfd, _) = start(Stdio::Streams {
            stdin: in_read.as_fd(),
            stdout: out_write.as_fd(),
            stderr: err_write.as_fd(),
        })?;
        let mut process = Self::new(pid, pidfd);
        process.input = in_write.map(File::from);
        (process.output, process.error) = (Some(out_read.into()), Some(err_read.into()));
        Ok(process)
    }

    fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self {
            pid,
            pidfd,
            code: None,
            output: None,
            error: None,
            input: None,
            typed: VecDeque::new(),
            input_ends: false,
            has_terminal: false,
        }
    }

    /// Looks whether it has ended.
    pub(crate) fn reap(&mut self) -> Result<()> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => {
                let code = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code,
                    (None, Some(signal)) => signal.saturating_add(128),
                    (None, None) => 255,
                };
                self.code = Some(u8::try_from(code).unwrap_or(255));
                self.close_input();
                Ok(())
            }
            Ok(None) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno).context("cannot look after a process"),
        }
    }

    /// What of it is to be waited for: what it writes, if that is wanted.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Channel, BorrowedFd<'_>)> {
        let output = self.output.as_ref().map(|file| (Channel::Output, file.as_fd()));
        output.into_iter().chain(self.error.as_ref().map(|file| (Channel::Error, file.as_fd())))
    }

    /// Reads what it wrote, `buffer` at most; nothing if nothing is there now. At its end the pipe is closed.
    pub(crate) fn read(&mut self, channel: Channel, buffer: &mut [u8]) -> usize {
        let from = if channel == Channel::Error { &mut self.error } else { &mut self.output };
        let Some(file) = from.as_mut().filter(|_| !buffer.is_empty()) else { return 0 };
        loop {
            match file.read(buffer) {
                Ok(length) => {
                    if length == 0 {
                        *from = None;
                    }
                    return length;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // Whoever holds the other end may live for long; it has ended, and so has its output.
                    if self.code.is_some() {
                        *from = None;
                    }
                    return 0;
                }
                // A terminal whose last user has gone says EIO.
                Err(_) => {
                    *from = None;
                    return 0;
                }
            }
        }
    }

    /// Whether it has ended, and all that it wrote was read.
    pub(crate) fn is_over(&self) -> bool {
        self.code.is_some() && self.output.is_none() && self.error.is_none()
    }

    /// Its standard input, if something is to be written there.
    pub(crate) fn input_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|_| !self.typed.is_empty()).map(AsFd::as_fd)
    }

    /// Takes what was typed: how much of what was typed before or now is done with.
    pub(crate) fn take_input(&mut self, bytes: &[u8]) -> usize {
        if self.input.is_none() || self.input_ends {
            return bytes.len();
        }
        self.typed.extend(bytes);
        self.write_input()
    }

    /// Nothing more will be typed: how much that was is done with.
    pub(crate) fn end_input(&mut self) -> usize {
        if !std::mem::replace(&mut self.input_ends, true) && self.has_terminal {
            // What a person would type: a terminal has no other end of input. It is not counted as typed.
            if let Some(input) = self.input.as_mut().filter(|_| self.typed.is_empty()) {
                let _gone = input.write(&[4]);
            }
        }
        self.write_input()
    }

    /// Writes what was typed, as far as it is read: how much.
    pub(crate) fn write_input(&mut self) -> usize {
        let mut done = 0;
        while let (Some(input), (first, _)) = (&mut self.input, self.typed.as_slices())
            && !first.is_empty()
        {
            match input.write(first) {
                Ok(length) => {
                    self.typed.drain(..length);
                    done += length;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return done,
                Err(_) => done += self.close_input(),
            }
        }
        if self.input_ends && !self.has_terminal {
            self.input = None;
        }
        done
    }

    /// Nobody reads any more: how much that was typed is lost.
    fn close_input(&mut self) -> usize {
        self.input = None;
        self.typed.drain(..).count()
    }

    /// Lets go of its pipes or its terminal.
    pub(crate) fn hung_up(self) -> Self {
        let has_terminal = self.has_terminal;
        Self { code: self.code, has_terminal, ..Self::new(self.pid, self.pidfd) }
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Its terminal has this size from now on.
    pub(crate) fn resize(&self, size: Size) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let Some(terminal) = self.output.as_ref().filter(|_| self.has_terminal) {
            // It is gone, then.
            let _gone = tcsetwinsize(terminal, size);
        }
    }
}
