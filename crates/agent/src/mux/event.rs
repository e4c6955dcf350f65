//! What comes of the bytes that one end receives.

use std::fmt;

/// What a piece of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// A line of JSON: the [`crate::message::Request`] first, and then each a [`crate::message::Word`].
    Word = 0,
    /// To a process: what it reads.
    Input = 1,
    /// From a process: what it wrote.
    Output = 2,
    /// From a process: its standard error.
    Error = 3,
}

impl Channel {
    pub(super) fn parse(byte: u8) -> Option<Self> {
        let all = [Self::Word, Self::Input, Self::Output, Self::Error];
        all.into_iter().find(|channel| *channel as u8 == byte)
    }
}

/// A stream's number; none is used twice in a session.
pub type StreamId = u32;

/// What has come of the bytes that were received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer has said hello. For the guest that is a new session: all streams it knew are gone.
    Hello(Vec<u8>),
    /// The host began a stream.
    Opened(StreamId),
    /// A word was said on a stream.
    Word(StreamId, Vec<u8>),
    /// Bytes of a stream. Whoever has taken them in says so by [`super::Mux::taken`].
    Data(StreamId, Channel, Vec<u8>),
    /// The peer takes more in on a stream again, and has taken in so much altogether.
    Room(StreamId),
    /// The peer sends nothing more on a stream.
    Ended(StreamId),
    /// A stream is broken off, for this reason.
    Broken(StreamId, String),
}

/// The peer broke the rules: nothing that it sends can be trusted to mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub(super) &'static str);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the other end broke the protocol: {}", self.0)
    }
}

impl std::error::Error for Violation {}

impl Event {
    /// The stream that it is about.
    pub(super) fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Hello(_) => None,
            Self::Opened(id)
            | Self::Word(id, _)
            | Self::Data(id, ..)
            | Self::Room(id)
            | Self::Ended(id)
            | Self::Broken(id, _) => Some(*id),
        }
    }
}
