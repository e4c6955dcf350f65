//! What a keeper tells the VMM of its guest, and hears of it. Nothing here waits: orders are answered when they are, or
//! given up after a while.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use stead_vmm::{Order, Qmp, Reason, Ticket, Told};

/// Carried out within milliseconds, unless the computer has much else to do. Whoever asked waits a little longer.
const ORDER_LIMIT: Duration = Duration::from_secs(8);
/// What is read at once; more is read at the next turn.
const READ_MAX_BYTES: usize = 64 * 1024;

/// How an order fared.
pub(super) type Answered = (Ticket, Order, Result<(), String>);

/// The stream on which a VMM is told what to do.
pub(super) struct Control {
    stream: UnixStream,
    qmp: Qmp,
    /// Nothing more comes of it.
    is_cut: bool,
    waiting: BTreeMap<Ticket, (Order, Instant)>,
    /// Why the guest is at its end, once it is.
    pub(super) reason: Option<Reason>,
    /// Whether the VMM has greeted us: then its guest's machine stands.
    pub(super) is_met: bool,
    /// Whether the guest has opened the agent's port, each time that it did or let go of it.
    pub(super) ports: VecDeque<bool>,
    /// Whether the guest was saved, once that is over.
    pub(super) saved: Option<bool>,
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            qmp: Qmp::default(),
            is_cut: false,
            waiting: BTreeMap::new(),
            reason: None,
            is_met: false,
            ports: VecDeque::new(),
            saved: None,
        }
    }

    /// The stream, unless nothing more comes of it.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_cut).then(|| self.stream.as_fd())
    }

    /// The same, if something is to be sent.
    pub(super) fn stream_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.stream().filter(|_| !self.qmp.pending().is_empty())
    }

    /// Gives an order.
    pub(super) fn give(&mut self, order: Order) -> Result<Ticket> {
        anyhow::ensure!(!self.is_cut, "its VMM does not listen any more");
        let ticket = self.qmp.give(order).context("its VMM is told too much at the same time")?;
        self.waiting.insert(ticket, (order, Instant::now() + ORDER_LIMIT));
        self.send();
        Ok(ticket)
    }

    /// Gives an order with a file that goes along with it.
    pub(super) fn give_with(&mut self, order: Order, file: BorrowedFd<'_>) -> Result<Ticket> {
        let ticket = self.qmp.give(order).context("its VMM is told too much at the same time")?;
        self.waiting.insert(ticket, (order, Instant::now() + ORDER_LIMIT));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let files = [file];
        anyhow::ensure!(
            along.push(SendAncillaryMessage::ScmRights(&files)),
            "a file has no room beside words"
        );
        let words = [IoSlice::new(self.qmp.pending())];
        // QEMU takes the one that came last.
        let count = sendmsg(&self.stream, &words, &mut along, SendFlags::NOSIGNAL)
            .context("cannot hand a file to its VMM")?;
        self.qmp.sent(count);
        self.send();
        Ok(ticket)
    }

    /// When an order is given up.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.waiting.values().map(|(_, at)| *at).min()
    }

    /// Sends as much as the stream takes.
    pub(super) fn send(&mut self) {
        while !self.is_cut && !self.qmp.pending().is_empty() {
            match self.stream.write(self.qmp.pending()) {
                Ok(0) => self.is_cut = true,
                Ok(count) => self.qmp.sent(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The VMM ends.
                Err(_) => self.is_cut = true,
            }
        }
    }

    /// Reads what the VMM says: the orders that were carried out, refused, or given up by now.
    pub(super) fn hear(&mut self, now: Instant) -> Vec<Answered> {
        let mut buffer = [0; 4096];
        let mut total = 0;
        while total < READ_MAX_BYTES && !self.is_cut {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_cut = true,
                Ok(count) => {
                    total += count;
                    if self.qmp.receive(buffer.get(..count).unwrap_or_default()).is_err() {
                        tracing::warn!("the VMM says what is no QMP");
                        self.is_cut = true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_cut = true,
            }
        }
        self.send();
        let mut answered = Vec::new();
        while let Some(told) = self.qmp.next_told() {
            let (ticket, order, result) = match told {
                Told::Done(ticket, order) => (ticket, order, Ok(())),
                Told::Refused(ticket, order, why) => (ticket, order, Err(format!("its VMM refused: {why}"))),
                Told::ShutDown(reason) => {
                    self.reason.get_or_insert(reason);
                    continue;
                }
                Told::Met => {
                    self.is_met = true;
                    continue;
                }
                Told::Saved { is_whole } => {
                    self.saved = Some(is_whole);
                    continue;
                }
                Told::Port { is_open } => {
                    self.ports.push_back(is_open);
                    continue;
                }
            };
            if self.waiting.remove(&ticket).is_some() {
                answered.push((ticket, order, result));
            }
        }
        answered.extend(self.give_up(now));
        answered
    }

    fn give_up(&mut self, now: Instant) -> Vec<Answered> {
        let (is_cut, mut given_up) = (self.is_cut, Vec::new());
        self.waiting.retain(|ticket, (order, at)| {
            let stays = !is_cut && *at > now;
            if !stays {
                given_up.push((*ticket, *order, Err("its VMM does not answer".to_owned())));
            }
            stays
        });
        given_up
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_answered_or_given_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut control = Control::new(ours);
        let ticket = control.give(Order::Stop).unwrap();
        let now = Instant::now();
        theirs.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n{\"return\": {}, \"id\": 1}\n").unwrap();
        assert_eq!(control.hear(now), [(ticket, Order::Stop, Ok(()))]);
        assert_eq!(control.next_look(), None);
        let late = control.give(Order::Continue).unwrap();
        assert_eq!(control.hear(now), []);
        let why = "its VMM does not answer".to_owned();
        assert_eq!(control.hear(now + 2 * ORDER_LIMIT), [(late, Order::Continue, Err(why.clone()))]);
        let cut = control.give(Order::Quit).unwrap();
        drop(theirs);
        assert_eq!(control.hear(now), [(cut, Order::Quit, Err(why))]);
        assert!(control.give(Order::Quit).is_err() && control.stream().is_none());
    }

    #[test]
    fn what_is_no_qmp_ends_the_talk_and_a_reason_is_kept() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut control = Control::new(ours);
        let event = "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-shutdown\"}}\nnonsense\n";
        theirs.write_all(event.as_bytes()).unwrap();
        assert_eq!(control.hear(Instant::now()), []);
        assert_eq!(control.reason, Some(Reason::Off));
        assert!(control.stream().is_none());
    }
}
