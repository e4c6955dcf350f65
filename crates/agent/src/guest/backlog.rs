//! What a container wrote and the host has not taken in yet. It is kept until then, so that a host that comes back gets
//! what was under way when it went.

use std::collections::VecDeque;

use stead_agent::mux::Channel;

/// The most that is kept. When it is full the container's pipe fills, and then whoever writes waits.
const KEPT_MAX_BYTES: usize = 256 * 1024;

/// Pieces that arrive one after the other are put together up to this.
const PIECE_MAX_BYTES: usize = 16 * 1024;

/// The output of a container, from what the host has taken in on.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pieces: VecDeque<(Channel, Vec<u8>)>,
    kept: usize,
    /// How much of what is kept was sent to the present host.
    sent: usize,
    /// How much the present host has taken in.
    taken: u64,
}

impl Backlog {
    /// How much more fits.
    pub(crate) fn room(&self) -> usize {
        KEPT_MAX_BYTES.saturating_sub(self.kept)
    }

    pub(crate) fn push(&mut self, channel: Channel, bytes: &[u8]) {
        self.kept += bytes.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == channel && piece.len() + bytes.len() <= PIECE_MAX_BYTES => {
                piece.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back((channel, bytes.to_vec())),
        }
    }

    /// Another host reads from here on: it gets all that is kept.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
        self.taken = 0;
    }

    /// Sends what was not yet, as far as `send` takes it.
    pub(crate) fn send(&mut self, mut send: impl FnMut(Channel, &[u8]) -> usize) {
        let mut before = self.sent;
        for (channel, piece) in &self.pieces {
            let Some(rest) = piece.get(before..) else {
                before -= piece.len();
                continue;
            };
            before = 0;
            let taken = send(*channel, rest);
            self.sent += taken;
            if taken < rest.len() {
                return;
            }
        }
    }

    /// The present host has taken in so much altogether.
    pub(crate) fn taken(&mut self, all: u64) {
        let mut more = usize::try_from(all.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(self.sent);
        self.taken = all.max(self.taken);
        self.sent -= more;
        self.kept -= more;
        while let Some((_, piece)) = self.pieces.front_mut().filter(|_| more > 0) {
            if piece.len() > more {
                piece.drain(..more);
                return;
            }
            more -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// Whether all that is kept was sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(backlog: &mut Backlog, room: usize) -> String {
        let (mut room, mut said) = (room, String::new());
        backlog.send(|channel, bytes| {
            let taken = bytes.len().min(room);
            room -= taken;
            said.push_str(&format!("{}{} ", channel as u8, String::from_utf8_lossy(&bytes[..taken])));
            taken
        });
        said.replace("2 ", "").replace("3 ", "").trim().to_owned()
    }

    #[test]
    fn what_was_not_taken_in_is_sent_again_to_the_next_host() {
        let mut backlog = Backlog::default();
        backlog.push(Channel::Output, b"abc");
        backlog.push(Channel::Error, b"de");
        backlog.push(Channel::Output, b"fgh");
        assert_eq!(send(&mut backlog, 4), "2abc 3d");
        backlog.taken(2);
        assert_eq!(send(&mut backlog, 100), "3e 2fgh");
        assert!(backlog.is_sent());
        backlog.taken(4);
        backlog.rewind();
        assert_eq!(send(&mut backlog, 100), "3e 2fgh");
        backlog.taken(1);
        backlog.push(Channel::Output, b"i");
        assert_eq!(send(&mut backlog, 100), "2i");
        backlog.taken(5);
        assert_eq!((backlog.kept, backlog.pieces.len()), (0, 0));
    }

    #[test]
    fn it_takes_so_much_and_a_host_that_lies_changes_nothing() {
        let mut backlog = Backlog::default();
        while backlog.room() > 0 {
            backlog.push(Channel::Output, &vec![1; backlog.room().min(10_000)]);
        }
        backlog.taken(u64::MAX);
        assert_eq!(backlog.room(), 0);
        assert!(!backlog.is_sent());
    }
}
