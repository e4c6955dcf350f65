//! What a process that is on its way into a container and whoever made it say to each other.
//!
//! ```text
//! child ──▶ Ready (with its terminal, if it has one) ──▶ parent
//! child ◀── go                                       ◀── parent
//! child ──▶ Failed, or nothing: the program's start closes the channel
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::place::{CODE_OURS, Failure};

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What a child says.
#[derive(Debug)]
pub(crate) enum Said {
    /// All is there; nothing but the program is missing.
    Ready {
        /// Whoever holds this holds the terminal.
        terminal: Option<OwnedFd>,
        /// A number that it tells: of a process.
        pid: u32,
    },
    /// It cannot go on.
    Failed(Failure),
    /// It is a program now, or it died.
    Closed,
}

/// A message holds the text of an error at most.
const MESSAGE_MAX_BYTES: usize = 8 << 10;

/// Filling a volume takes as long as its copy.
const READY_LIMIT: Duration = Duration::from_secs(600);

/// Both ends.
pub(crate) fn pair() -> rustix::io::Result<(Channel, Channel)> {
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Channel(one), Channel(other)))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Over a connection that somebody else made.
    pub(crate) fn over(connection: OwnedFd) -> Self {
        Self(connection)
    }

    /// The child is ready.
    pub(crate) fn ready(&self, terminal: Option<&OwnedFd>, pid: u32) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut more = SendAncillaryBuffer::new(&mut space);
        let fds = terminal.map(|fd| [fd.as_fd()]);
        if let Some(fds) = &fds {
            more.push(SendAncillaryMessage::ScmRights(fds));
        }
        let text = format!("R{pid}");
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut more, SendFlags::NOSIGNAL)
            .context("whoever started us is gone")?;
        Ok(())
    }

    /// The child cannot go on. Nobody may hear it.
    pub(crate) fn fail(&self, failure: &Failure) {
        let text = format!("F{:03}{}", failure.code, failure.text);
        let bytes = text.as_bytes();
        let bytes = bytes.get(..MESSAGE_MAX_BYTES).unwrap_or(bytes);
        let mut none = SendAncillaryBuffer::default();
        if let Err(errno) = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut none, SendFlags::NOSIGNAL) {
            tracing::debug!("nobody hears that {failure}: {errno}");
        }
    }

    /// Lets the child go on.
    pub(crate) fn go(&self) -> rustix::io::Result<()> {
        let mut none = SendAncillaryBuffer::default();
        sendmsg(&self.0, &[IoSlice::new(b"G")], &mut none, SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits until the child may go on; false if whoever made it is gone.
    pub(crate) fn wait_go(&self) -> Result<bool> {
        let mut bytes = [0; 1];
        Ok(self.receive(&mut bytes)?.0 == 1)
    }

    /// What the child says next.
    pub(crate) fn hear(&self) -> Result<Said> {
        let said = self.hear_within(READY_LIMIT)?;
        said.with_context(|| format!("waited {} s for the container to be made", READY_LIMIT.as_secs()))
    }

    /// What the child says next; `None` if it says nothing within this time.
    pub(crate) fn hear_within(&self, limit: Duration) -> Result<Option<Said>> {
        let timeout = Timespec::try_from(limit)?;
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.take().map(Some),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for the container"),
            }
        }
    }

    /// What the child said, or says next.
    fn take(&self) -> Result<Said> {
        let mut bytes = vec![0; MESSAGE_MAX_BYTES];
        let (length, terminal) = match self.receive(&mut bytes) {
            // It died with something unread.
            Err(Errno::CONNRESET) => (0, None),
            received => received.context("cannot hear from the container")?,
        };
        let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
        match (text.get(..1), text.get(1..)) {
            (Some("R"), Some(pid)) => Ok(Said::Ready { terminal, pid: pid.parse().unwrap_or_default() }),
            (Some("F"), Some(rest)) => {
                let code = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(CODE_OURS);
                Ok(Said::Failed(Failure { code, text: rest.get(3..).unwrap_or_default().to_owned() }))
            }
            _ => Ok(Said::Closed),
        }
    }

    /// Is ready when the child has said something.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn receive(&self, bytes: &mut [u8]) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut more = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut more, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message.bytes,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        let mut fd = None;
        for message in more.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                fd = fds.next();
            }
        }
        Ok((length, fd))
    }
}
