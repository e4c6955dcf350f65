//! What goes over a connection with a keeper once it carries bytes both ways.

use std::io::{ErrorKind, Read, Write};

/// A piece of what goes over an attached connection: a byte that says what it is, its length in four bytes, the
/// highest first, and so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the machine: typed.
    Input = 0,
    /// From the machine: its standard output.
    Output = 1,
    /// From the machine: its standard error.
    Error = 2,
    /// From the machine, the last: how it ended, a [`crate::machine::Exit`] as JSON.
    Exit = 3,
    /// To the machine: nothing more will be typed.
    InputEnd = 4,
    /// To the machine: the terminal has so many rows and columns, two bytes each.
    Size = 5,
    /// To a program that a [`crate::machine::Exec`] started: the name of a signal.
    Signal = 6,
}

/// The most that a frame carries.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;

/// What comes before a frame's bytes.
pub const FRAME_HEAD_BYTES: usize = 5;

impl Frame {
    /// What comes before so many bytes of this kind.
    pub fn head(self, length: usize) -> [u8; FRAME_HEAD_BYTES] {
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        [self as u8, a, b, c, d]
    }

    /// Reads what comes before a frame's bytes; nothing if it is no frame of ours.
    pub fn parse_head(head: [u8; FRAME_HEAD_BYTES]) -> Option<(Self, usize)> {
        let [kind, a, b, c, d] = head;
        let all =
            [Self::Input, Self::Output, Self::Error, Self::Exit, Self::InputEnd, Self::Size, Self::Signal];
        let kind = all.into_iter().find(|frame| *frame as u8 == kind)?;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        (length <= FRAME_MAX_BYTES).then_some((kind, length))
    }

    /// Writes a frame.
    pub fn write(self, to: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
        to.write_all(&self.head(bytes.len()))?;
        to.write_all(bytes)
    }

    /// Reads a frame; nothing at the end.
    pub fn read(from: &mut impl Read) -> std::io::Result<Option<(Self, Vec<u8>)>> {
        let mut head = [0; FRAME_HEAD_BYTES];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let (frame, length) = Self::parse_head(head).ok_or(ErrorKind::InvalidData)?;
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        Ok(Some((frame, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_and_others_are_refused() {
        let mut bytes = Vec::new();
        Frame::Output.write(&mut bytes, b"hello").unwrap();
        Frame::InputEnd.write(&mut bytes, b"").unwrap();
        let mut reader = bytes.as_slice();
        assert_eq!(Frame::read(&mut reader).unwrap(), Some((Frame::Output, b"hello".to_vec())));
        assert_eq!(Frame::read(&mut reader).unwrap(), Some((Frame::InputEnd, Vec::new())));
        assert_eq!(Frame::read(&mut reader).unwrap(), None);
        assert!(Frame::read(&mut [9u8, 0, 0, 0, 0].as_slice()).is_err());
        assert!(Frame::read(&mut [1u8, 255, 0, 0, 0].as_slice()).is_err());
    }
}
