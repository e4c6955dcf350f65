//! Packets with descriptors beside them, over a unix socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;

use super::protocol::MAX_SOCKETS;

/// The largest packet: a list of a thousand names of 81 characters, with room to spare. The kernel's own
/// limit for a unix packet is the send buffer, 208 KiB by default.
pub(crate) const PACKET_MAX_BYTES: usize = 160 * 1024;

const FDS: usize = MAX_SOCKETS as usize;

/// A received packet.
pub(crate) enum Packet {
    /// A text and what came beside it.
    Text(Vec<u8>, Vec<OwnedFd>),
    /// Too long, or with too many descriptors.
    Oversized,
    /// The other end closed.
    End,
}

/// Sends one packet whole. Never raises SIGPIPE.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    // Our own messages are plain data with string keys: writing them as JSON cannot fail.
    let text = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    let message = [IoSlice::new(&text)];
    let sent = retry_on_intr(|| sendmsg(&socket, &message, &mut control, SendFlags::NOSIGNAL))?;
    if sent == text.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives one packet of at most `limit` bytes.
pub(crate) fn receive(socket: impl AsFd, limit: usize) -> rustix::io::Result<Packet> {
    let mut text = vec![0; limit];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Packet::Oversized);
    }
    if got.bytes == 0 {
        return Ok(Packet::End);
    }
    text.truncate(got.bytes);
    Ok(Packet::Text(text, fds))
}
