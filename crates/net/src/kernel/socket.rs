//! A netlink socket: requests out, many in one system call, and their acknowledgements back, matched by
//! sequence number. Netlink answers a request while `send` runs, so there is never a need to wait: the
//! receive limit below only says that a bug, not a busy computer, has been met.

use std::cell::Cell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::sys;
use super::tlv::{self, Message, Received};

/// Longer than any request takes that does not hang.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The kernel queues an acknowledgement, which takes about 1 KiB of the receive buffer, for each message of
/// a batch before we can read the first.
pub(super) const BATCH_MESSAGES: usize = 128;
/// Below the smallest send buffer that the kernel gives without being asked.
const BATCH_BYTES: usize = 64 * 1024;
/// For the acknowledgements of a batch, with room.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;
/// The kernel fills datagrams of at most 32 KiB for dumps.
const DATAGRAM_BYTES: usize = 64 * 1024;
/// A dump is read again when links came or went meanwhile; on a computer where they always do, give up.
const DUMP_ATTEMPTS: u32 = 50;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;

/// What the kernel said to a request that it did not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The request, in one line.
    pub request: String,
    /// The error number.
    pub errno: Errno,
    /// What the kernel adds in words, where it does.
    pub words: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = std::io::Error::from_raw_os_error(self.errno.raw_os_error());
        write!(f, "the kernel refused `{}`: {errno}", self.request)?;
        if let Some(words) = &self.words {
            write!(f, ": {words}")?;
        }
        // What links there are is a matter of the kernel's modules, and it says so in these words.
        let kind = self.request.strip_prefix("+ ").and_then(|rest| rest.split(' ').next());
        match kind.filter(|_| self.words.as_deref() == Some(UNKNOWN_KIND)) {
            Some(kind) => write!(f, "; hint: `modprobe {kind}`, or use a kernel that has it"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

/// The kernel's own words where a link is asked for of a kind that it has no code for.
const UNKNOWN_KIND: &str = "Unknown device type";

/// The kernel's answer to one request, without the request.
pub(super) type Answer = Result<(), (Errno, Option<String>)>;

/// A netlink socket of one protocol.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// Not to be shared between threads, which would read each other's answers.
    sequence: Cell<u32>,
}

impl Socket {
    /// Takes a socket, which belongs to the network namespace in which it was made.
    pub(super) fn new(fd: OwnedFd) -> Result<Self> {
        sys::set_netlink_option(&fd, NETLINK_EXT_ACK).context("cannot set NETLINK_EXT_ACK")?;
        sys::set_netlink_option(&fd, NETLINK_CAP_ACK).context("cannot set NETLINK_CAP_ACK")?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_LIMIT))?;
        // Beyond the system's limit only with a capability; what we get without is enough for a batch.
        if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES)?;
        }
        Ok(Self { fd, sequence: Cell::new(1) })
    }

    /// Opens one in the current network namespace.
    pub(super) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .context("cannot open a netlink socket")?;
        Self::new(fd)
    }

    /// Sends groups of messages that each ask for an acknowledgement and returns an answer for each group, in
    /// order: its first refusal, if any. A group goes in one datagram, all of which the kernel reads before
    /// we are told anything. A refusal does not keep what comes after it from being carried out.
    pub(super) fn send(&self, groups: Vec<Vec<Message>>) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(groups.len());
        let mut waiting = groups.into_iter().peekable();
        while waiting.peek().is_some() {
            let first = self.sequence.get();
            let mut bytes = Vec::new();
            let mut sizes = Vec::new();
            let mut count = 0;
            while count < BATCH_MESSAGES && bytes.len() < BATCH_BYTES {
                let Some(group) = waiting.next() else { break };
                count += group.len();
                sizes.push(group.len());
                bytes.extend(group.into_iter().flat_map(|message| message.finish(self.next_sequence())));
            }
            self.transmit(&bytes)?;
            let mut each = self.acknowledgements(first, count)?.into_iter();
            for size in sizes {
                let group: Vec<Answer> = each.by_ref().take(size).collect();
                answers.push(group.into_iter().find(Result::is_err).unwrap_or(Ok(())));
            }
        }
        Ok(answers)
    }

    /// Reads `count` acknowledgements of requests numbered from `first`.
    fn acknowledgements(&self, first: u32, count: usize) -> Result<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = vec![None; count];
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while answers.iter().any(Option::is_none) {
            for received in tlv::messages(self.receive(&mut buffer)?) {
                let Some(answer) = acknowledgement(&received) else { continue };
                let index = usize::try_from(received.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if let Some(slot) = answers.get_mut(index) {
                    *slot = Some(answer);
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sends one question and hands every part of the answer to `part`. Where what is asked for changed
    /// while it was read, it is asked for again and `part` sees all of it, from the start; what it made of
    /// the first reading is thrown away.
    pub(super) fn dump<T>(
        &self,
        question: &Message,
        part: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(question.clone(), &part)? {
                return Ok(all);
            }
        }
        bail!("what the kernel was asked for kept changing during {DUMP_ATTEMPTS} readings")
    }

    fn dump_once<T>(
        &self,
        question: Message,
        part: &impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let sequence = self.next_sequence();
        self.transmit(&question.finish(sequence))?;
        let mut all = Vec::new();
        let mut whole = true;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let datagram = match self.receive(&mut buffer) {
                Ok(datagram) => datagram,
                // Some of the answer was thrown away for want of buffer; ask again.
                Err(error) if error.downcast_ref() == Some(&Errno::NOBUFS) => return Ok(None),
                Err(error) => return Err(error),
            };
            for received in tlv::messages(datagram).filter(|received| received.sequence == sequence) {
                whole &= received.flags & NLM_F_DUMP_INTR == 0;
                match acknowledgement(&received) {
                    Some(Ok(())) => return Ok(whole.then_some(all)),
                    Some(Err((errno, _))) if errno == Errno::INTR => return Ok(None),
                    Some(Err((errno, words))) => {
                        return Err(errno)
                            .context(words.unwrap_or_else(|| "the kernel does not tell".into()));
                    }
                    None => all.extend(part(&received)),
                }
            }
        }
    }

    /// Sends a batch of nfnetlink messages, which succeed or fail together. Returns the first refusal as the
    /// index of the message and what was said.
    pub(super) fn transaction(
        &self,
        messages: Vec<Message>,
    ) -> Result<Option<(usize, Errno, Option<String>)>> {
        let first = self.sequence.get();
        let count = messages.len();
        let last = count.saturating_sub(2);
        let bytes: Vec<u8> =
            messages.into_iter().flat_map(|message| message.finish(self.next_sequence())).collect();
        // A transaction is one datagram, whatever its size; the kernel's own book-keeping needs as much again.
        let wanted = bytes.len().saturating_mul(2).max(BATCH_BYTES);
        if sockopt::set_socket_send_buffer_size_force(&self.fd, wanted).is_err() {
            sockopt::set_socket_send_buffer_size(&self.fd, wanted)?;
        }
        self.transmit(&bytes)?;
        let mut refused = None;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            for received in tlv::messages(self.receive(&mut buffer)?) {
                let Some(answer) = acknowledgement(&received) else { continue };
                let index = usize::try_from(received.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if index >= count {
                    continue;
                }
                if let Err((errno, words)) = answer {
                    refused.get_or_insert((index, errno, words));
                }
                // The batch's own beginning is answered only when all of it was turned down.
                if index == last || (index == 0 && refused.is_some()) {
                    self.discard();
                    return Ok(refused);
                }
            }
        }
    }

    /// Reads and forgets what is already there.
    fn discard(&self) {
        let mut buffer = [0; 64];
        while net::recv(&self.fd, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
    }

    fn transmit(&self, bytes: &[u8]) -> Result<()> {
        let sent = retry(|| net::send(&self.fd, bytes, SendFlags::empty()))
            .with_context(|| format!("cannot send {} bytes to the kernel", bytes.len()))?;
        anyhow::ensure!(sent == bytes.len(), "the kernel took {sent} of {} bytes", bytes.len());
        Ok(())
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let (_, length) = retry(|| net::recv(&self.fd, &mut *buffer, RecvFlags::TRUNC)).map_err(|errno| {
            let what = match errno {
                Errno::AGAIN => format!("no answer from the kernel within {ANSWER_LIMIT:?}"),
                _ => "cannot read the kernel's answer".to_owned(),
            };
            anyhow::Error::new(errno).context(what)
        })?;
        buffer.get(..length).with_context(|| format!("the kernel's answer of {length} bytes is too long"))
    }

    fn next_sequence(&self) -> u32 {
        self.sequence.replace(self.sequence.get().wrapping_add(1))
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The answer in a message that is one: an acknowledgement, an error, or the end of a dump.
fn acknowledgement(received: &Received<'_>) -> Option<Answer> {
    if !matches!(received.kind, NLMSG_ERROR | NLMSG_DONE) {
        return None;
    }
    // Some dumps end without a status.
    let code = tlv::u32_at(received.body, 0).map_or(0, u32::cast_signed);
    if code == 0 {
        return Some(Ok(()));
    }
    // After the status: the header of the request, its body unless capped, then attributes. The end of a
    // dump has its attributes at once.
    let request_bytes = match received.kind {
        NLMSG_DONE => 0,
        _ if received.flags & NLM_F_CAPPED != 0 => tlv::HEADER_BYTES,
        _ => tlv::u32_at(received.body, 4)
            .and_then(|length| usize::try_from(length).ok())
            .map_or(tlv::HEADER_BYTES, |length| length.next_multiple_of(4)),
    };
    let words = (received.flags & NLM_F_ACK_TLVS != 0)
        .then(|| received.body.get(4 + request_bytes..))
        .flatten()
        .and_then(|attributes| tlv::attribute(attributes, NLMSGERR_ATTR_MSG))
        .map(tlv::text);
    Some(Err((Errno::from_raw_os_error(code.wrapping_neg()), words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_link_that_the_kernel_lacks_is_told_with_what_mends_it() {
        let mut refused = Refused {
            request: "+ bridge stb-lan".into(),
            errno: Errno::OPNOTSUPP,
            words: Some(UNKNOWN_KIND.into()),
        };
        assert_eq!(
            refused.to_string(),
            "the kernel refused `+ bridge stb-lan`: Operation not supported (os error 95): Unknown device type; \
             hint: `modprobe bridge`, or use a kernel that has it"
        );
        refused.words = None;
        assert!(!refused.to_string().contains("hint"), "{refused}");
    }
}
