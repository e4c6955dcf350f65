//! The connections of those who ask and those who watch. None of them can hold up the keeper: what one sends is
//! read as it comes, what it does not read is kept for it up to a limit, and beyond that the machine's output waits:
//! for whom the machine was started, as a program waits for its pipe; for all others a while, then they are let go.
//! A guest's console waits for nobody: its kernel would stand still.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use stead_agent::Call;
use stead_host::frame::{FRAME_HEAD_BYTES, FRAME_MAX_BYTES, Frame};
use stead_host::machine::{Answer, Request};
use stead_model::project::Condition;
use stead_vmm::Ticket;

use super::lifecycle::Life;

/// A request is a line, short but for a program's arguments and environment.
const REQUEST_MAX_BYTES: usize = 256 * 1024;

/// What is kept for a client that does not read, before the machine's output waits for it.
const BACKLOG_MAX_BYTES: usize = 256 * 1024;

/// One who reads nothing for so long, while the machine waits, is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// More who watch or wait at the same time are turned away.
pub(super) const CLIENTS_MAX: usize = 256;

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has not said.
    Asking,
    /// It waits until the machine has ended for good.
    StopWait,
    /// It waits until the machine runs again.
    RestartWait,
    /// It waits until the VMM has done this.
    Ordered(Ticket),
    /// The machine is held for it, as soon as the VMM has done that; and goes on when it goes, if it is held for that alone.
    Holding {
        /// What the VMM has yet to do.
        ticket: Option<Ticket>,
        /// Whether nobody held it before.
        lets_go: bool,
    },
    /// It waits for this.
    Awaiting(Condition),
    /// It watches; and types, if so. The machine waits for it as long as it takes, if so.
    Attached { stdin: bool, is_waited_for: bool },
    /// It sits at its guest's console.
    Console,
    /// It has had this program started in the machine's guest, or files carried.
    Exec(Call),
    /// It waits for what this call tells.
    Looking(Call),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) role: Role,
    pub(super) since: Instant,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// When it last read something, or had nothing to read.
    read_at: Instant,
    /// Whether it is to be forgotten once it has read everything.
    ends: bool,
    is_gone: bool,
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Request(Request),
    Frame(Frame, Vec<u8>),
    /// What cannot be understood.
    Nonsense,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        let (role, since) = (Role::Asking, Instant::now());
        Ok(Self {
            stream,
            role,
            since,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            read_at: since,
            ends: false,
            is_gone: false,
        })
    }

    /// Reads what is there. False when the client has gone.
    pub(super) fn receive(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_gone = true,
            Ok(length) => self.incoming.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.is_gone = true,
        }
    }

    /// The next whole thing that it said.
    pub(super) fn next(&mut self) -> Option<Said> {
        if self.sends_frames() { self.next_frame() } else { self.next_request() }
    }

    fn sends_frames(&self) -> bool {
        matches!(self.role, Role::Attached { .. } | Role::Console | Role::Exec(_))
    }

    fn next_request(&mut self) -> Option<Said> {
        let end = self.incoming.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            return (self.incoming.len() > REQUEST_MAX_BYTES).then_some(Said::Nonsense);
        };
        let rest = self.incoming.split_off(end + 1);
        let line = std::mem::replace(&mut self.incoming, rest);
        Some(serde_json::from_slice(&line).map_or(Said::Nonsense, Said::Request))
    }

    fn next_frame(&mut self) -> Option<Said> {
        let head: [u8; FRAME_HEAD_BYTES] = self.incoming.get(..FRAME_HEAD_BYTES)?.try_into().ok()?;
        let Some((frame, length)) = Frame::parse_head(head) else { return Some(Said::Nonsense) };
        if self.incoming.len() < FRAME_HEAD_BYTES + length {
            return None;
        }
        let rest = self.incoming.split_off(FRAME_HEAD_BYTES + length);
        let bytes = std::mem::replace(&mut self.incoming, rest).split_off(FRAME_HEAD_BYTES);
        Some(Said::Frame(frame, bytes))
    }

    /// Whether more may be read from it: what it typed and the machine has not taken yet is kept within limits.
    pub(super) fn may_send(&self) -> bool {
        let most = if self.sends_frames() { FRAME_MAX_BYTES + FRAME_HEAD_BYTES } else { REQUEST_MAX_BYTES };
        self.incoming.len() <= most
    }

    /// Says something to it in a line.
    pub(super) fn tell(&mut self, answer: &impl Serialize) {
        // Our own types always have a JSON form.
        self.outgoing.extend(serde_json::to_vec(answer).unwrap_or_default());
        self.outgoing.push(b'\n');
        self.send();
    }

    /// Answers, and is then done with it.
    pub(super) fn answer(&mut self, answer: &Answer) {
        self.tell(answer);
        self.end();
    }

    /// Answers now, or when the VMM has done it.
    pub(super) fn await_order(&mut self, given: Result<Option<Ticket>>) {
        match given {
            Ok(Some(ticket)) => self.role = Role::Ordered(ticket),
            Ok(None) => self.answer(&Answer::Done),
            Err(error) => self.answer(&Answer::Failed(format!("{error:#}"))),
        }
    }

    /// Sends it a frame.
    pub(super) fn frame(&mut self, frame: Frame, bytes: &[u8]) {
        if self.outgoing.is_empty() {
            self.read_at = Instant::now();
        }
        for piece in bytes.chunks(FRAME_MAX_BYTES) {
            self.outgoing.extend(frame.head(piece.len()));
            self.outgoing.extend_from_slice(piece);
        }
        self.send();
    }

    /// Sends it what a guest's kernel said, unless it does not read: then that is in the console's log alone.
    pub(super) fn show_console(&mut self, said: &[u8]) {
        if !self.is_slow() {
            self.frame(Frame::Output, said);
        }
    }

    /// Forgets it when it has read everything.
    pub(super) fn end(&mut self) {
        self.ends = true;
    }

    /// Sends as much as it takes.
    pub(super) fn send(&mut self) {
        while !self.outgoing.is_empty() && !self.is_gone {
            match self.stream.write(&self.outgoing) {
                Ok(0) => self.is_gone = true,
                Ok(length) => {
                    self.read_at = Instant::now();
                    drop(self.outgoing.drain(..length));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.is_gone = true,
            }
        }
    }

    /// Whether it has something to read yet.
    pub(super) fn has_backlog(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the machine's output has to wait for it.
    pub(super) fn is_slow(&self) -> bool {
        self.outgoing.len() > BACKLOG_MAX_BYTES
    }

    /// Whether it has gone, and left nothing but what is still to be read.
    pub(super) fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && !fds.iter().all(|fd| fd.revents().is_empty())
    }

    /// Whether what it types is not read for now, so that it waits with more.
    pub(super) fn has_typed_enough(&self, life: &Life) -> bool {
        match self.role {
            Role::Attached { stdin, .. } => stdin && life.has_input_backlog(),
            Role::Exec(call) => life.guest().is_some_and(|guest| guest.has_input_backlog(call)),
            Role::Asking
            | Role::StopWait
            | Role::RestartWait
            | Role::Ordered(_)
            | Role::Holding { .. }
            | Role::Awaiting(_)
            | Role::Console
            | Role::Looking(_) => false,
        }
    }

    /// When it is taken to be stuck, if it reads nothing until then.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        let is_let_go = matches!(self.role, Role::Attached { is_waited_for: false, .. } | Role::Console);
        (is_let_go && self.is_slow()).then(|| self.read_at + STUCK_AFTER)
    }

    /// Lets it go if it is stuck. What it did not read is in the log.
    pub(super) fn let_go_if_stuck(&mut self, now: Instant) {
        if self.stuck_at().is_some_and(|at| at <= now) {
            self.is_gone = true;
        }
    }

    /// Whether it can be forgotten.
    pub(super) fn is_done(&self) -> bool {
        self.is_gone || (self.ends && self.outgoing.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(ours).unwrap(), theirs)
    }

    #[test]
    fn requests_come_in_lines_however_they_are_cut() {
        let (mut client, mut theirs) = pair();
        theirs.write_all(b"\"sta").unwrap();
        client.receive();
        assert_eq!(client.next(), None);
        theirs.write_all(b"tus\"\n\"pause\"\njunk\n").unwrap();
        client.receive();
        assert_eq!(client.next(), Some(Said::Request(Request::Status)));
        assert_eq!(client.next(), Some(Said::Request(Request::Pause)));
        assert_eq!(client.next(), Some(Said::Nonsense));
        // A socket does not hold as much.
        for piece in [b'x'; REQUEST_MAX_BYTES + 1].chunks(8 * 1024) {
            assert!(client.next().is_none() && client.may_send());
            theirs.write_all(piece).unwrap();
            client.receive();
        }
        assert_eq!(client.next(), Some(Said::Nonsense));
    }

    #[test]
    fn frames_come_whole() {
        let (mut client, mut theirs) = pair();
        client.role = Role::Attached { stdin: true, is_waited_for: true };
        Frame::Input.write(&mut theirs, b"abc").unwrap();
        theirs.write_all(&Frame::Size.head(4)).unwrap();
        client.receive();
        assert_eq!(client.next(), Some(Said::Frame(Frame::Input, b"abc".to_vec())));
        assert_eq!(client.next(), None);
        theirs.write_all(&[0, 24, 0, 80]).unwrap();
        client.receive();
        assert_eq!(client.next(), Some(Said::Frame(Frame::Size, vec![0, 24, 0, 80])));
    }

    #[test]
    fn one_who_reads_nothing_is_let_go_after_a_while_unless_the_machine_was_started_for_it() {
        for (is_waited_for, read) in [(false, false), (false, true), (true, false)] {
            let (mut client, mut theirs) = pair();
            client.role = Role::Attached { stdin: false, is_waited_for };
            while !client.is_slow() {
                client.frame(Frame::Output, &[b'x'; 8192]);
            }
            let later = client.read_at + STUCK_AFTER;
            if read {
                theirs.read_exact(&mut [0; 100_000]).unwrap();
                client.send();
            }
            client.let_go_if_stuck(later - Duration::from_millis(1));
            assert!(!client.is_done());
            client.let_go_if_stuck(later);
            assert_eq!(client.is_done(), !is_waited_for && !read);
        }
    }

    #[test]
    fn one_who_does_not_read_at_a_console_is_sent_no_more_and_let_go_after_a_while() {
        for read in [false, true] {
            let (mut client, mut theirs) = pair();
            client.role = Role::Console;
            let most = BACKLOG_MAX_BYTES + 2 * 8192;
            for _ in 0..10 * BACKLOG_MAX_BYTES / 8192 {
                client.show_console(&[b'x'; 8192]);
                assert!(client.outgoing.len() <= most, "{} bytes are kept", client.outgoing.len());
            }
            let later = client.read_at + STUCK_AFTER;
            assert_eq!(client.stuck_at(), Some(later));
            if read {
                theirs.read_exact(&mut [0; 100_000]).unwrap();
                client.send();
            }
            client.let_go_if_stuck(later);
            assert_eq!(client.is_done(), !read);
        }
    }

    #[test]
    fn one_who_does_not_read_is_seen_to_be_slow_and_one_who_went_to_be_done() {
        let (mut client, theirs) = pair();
        while !client.is_slow() {
            client.frame(Frame::Output, &[b'x'; 8192]);
        }
        assert!(!client.is_done());
        drop(theirs);
        client.send();
        assert!(client.is_done());
    }
}
