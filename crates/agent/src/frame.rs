//! Frames on a stream of bytes, which may lose what was under way when one end was replaced by another.
//!
//! A frame is stuffed (COBS) so that it holds no zero byte, and ends with one. Whatever junk a broken connection left
//! behind, at the next zero byte both ends agree again where frames begin. A frame that lost its beginning or its
//! end in such a break does not have the length that it says or the number of the session, and is dropped.
//!
//! ```text
//! session 8 │ stream 4 │ length 2 │ kind 1 │ channel 1 │ body      before stuffing; the lowest byte first
//! ```

/// The most that a frame carries.
pub(crate) const DATA_MAX_BYTES: usize = 16 * 1024;

/// What comes before a frame's body.
const HEAD_BYTES: usize = 16;

/// A stuffed frame is longer by one byte, and by one for each 254.
const ENCODED_MAX_BYTES: usize = (HEAD_BYTES + DATA_MAX_BYTES) + (HEAD_BYTES + DATA_MAX_BYTES) / 254 + 2;

/// A run of stuffing: a byte that says how far the next zero is, and what comes before that.
const RUN_MAX_BYTES: usize = 254;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Begins a session, or answers that.
    Hello = 1,
    /// Begins a stream.
    Open = 2,
    /// Bytes of a stream.
    Data = 3,
    /// The peer may send more: four bytes how much, eight how much was taken in altogether.
    Credit = 4,
    /// Nothing more will be sent on a stream.
    End = 5,
    /// A stream is broken off, and why.
    Reset = 6,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        let all = [Self::Hello, Self::Open, Self::Data, Self::Credit, Self::End, Self::Reset];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) session: u64,
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    pub(crate) channel: u8,
    pub(crate) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Appends it, as it is sent.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        debug_assert!(self.body.len() <= DATA_MAX_BYTES, "a frame of {} bytes", self.body.len());
        let length = u16::try_from(self.body.len()).unwrap_or(u16::MAX);
        let mut head = [0; HEAD_BYTES];
        let (session, rest) = head.split_at_mut(8);
        let (stream, rest) = rest.split_at_mut(4);
        session.copy_from_slice(&self.session.to_le_bytes());
        stream.copy_from_slice(&self.stream.to_le_bytes());
        let [low, high] = length.to_le_bytes();
        rest.copy_from_slice(&[low, high, self.kind as u8, self.channel]);
        let mut stuffer = Stuffer::new(to);
        stuffer.put(&head);
        stuffer.put(self.body);
        stuffer.finish();
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let (session, rest) = head.split_at_checked(8)?;
        let (stream, rest) = rest.split_at_checked(4)?;
        let &[low, high, kind, channel] = rest else { return None };
        let is_whole = usize::from(u16::from_le_bytes([low, high])) == body.len();
        (is_whole && body.len() <= DATA_MAX_BYTES).then_some(())?;
        Some(Self {
            session: u64::from_le_bytes(session.try_into().ok()?),
            stream: u32::from_le_bytes(stream.try_into().ok()?),
            kind: Kind::parse(kind)?,
            channel,
            body,
        })
    }
}

/// Replaces zero bytes by how far it is to the next one.
struct Stuffer<'a> {
    to: &'a mut Vec<u8>,
    /// Where the byte is that says how long the present run is.
    mark: usize,
}

impl<'a> Stuffer<'a> {
    fn new(to: &'a mut Vec<u8>) -> Self {
        let mark = to.len();
        to.push(0);
        Self { to, mark }
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = RUN_MAX_BYTES - (self.to.len() - self.mark - 1);
            let run = bytes.iter().take(room).take_while(|byte| **byte != 0).count();
            let (taken, rest) = bytes.split_at_checked(run).unwrap_or_default();
            self.to.extend_from_slice(taken);
            bytes = rest;
            if run == room {
                self.close();
            } else if let Some((_zero, rest)) = rest.split_first() {
                bytes = rest;
                self.close();
            }
        }
    }

    /// Ends the run.
    fn close(&mut self) {
        let length = u8::try_from(self.to.len() - self.mark).unwrap_or(u8::MAX);
        if let Some(mark) = self.to.get_mut(self.mark) {
            *mark = length;
        }
        self.mark = self.to.len();
        self.to.push(0);
    }

    fn finish(mut self) {
        self.close();
    }
}

/// Undoes the stuffing, in place; nothing if it is none.
fn unstuff(bytes: &mut Vec<u8>) -> Option<()> {
    let (mut read, mut write) = (0, 0);
    while read < bytes.len() {
        let mark = usize::from(*bytes.get(read)?);
        let run = mark.checked_sub(1)?;
        (read + mark <= bytes.len()).then_some(())?;
        bytes.copy_within(read + 1..read + mark, write);
        read += mark;
        write += run;
        // A run of full length stands for no zero byte, and the last one's is not there.
        if run < RUN_MAX_BYTES && read < bytes.len() {
            *bytes.get_mut(write)? = 0;
            write += 1;
        }
    }
    bytes.truncate(write);
    Some(())
}

/// Finds frames in what comes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// What came since the last zero byte.
    pending: Vec<u8>,
    /// Whether that is more than any frame has.
    is_overlong: bool,
}

impl Decoder {
    /// Takes in bytes until a frame is whole, and says how many those were; what is no frame is dropped. The frame is
    /// handed to `take`.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&Frame<'_>)) {
        for piece in bytes.split_inclusive(|byte| *byte == 0) {
            let (is_end, piece) = match piece.split_last() {
                Some((0, rest)) => (true, rest),
                _ => (false, piece),
            };
            if self.is_overlong || self.pending.len() + piece.len() > ENCODED_MAX_BYTES {
                self.is_overlong = true;
                self.pending.clear();
            } else {
                self.pending.extend_from_slice(piece);
            }
            if is_end {
                if !self.is_overlong
                    && unstuff(&mut self.pending).is_some()
                    && let Some(frame) = Frame::parse(&self.pending)
                {
                    take(&frame);
                }
                self.pending.clear();
                self.is_overlong = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(body: &[u8]) -> Frame<'_> {
        Frame { session: 7, stream: 3, kind: Kind::Data, channel: 2, body }
    }

    fn decode(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            decoder.feed(piece, |frame| {
                assert_eq!((frame.session, frame.stream, frame.channel), (7, 3, 2));
                found.push(frame.body.to_vec());
            });
        }
        found
    }

    proptest! {
        #[test]
        fn frames_read_back_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..700), 0..5),
            piece in 1usize..900,
        ) {
            let mut bytes = Vec::new();
            for body in &bodies {
                frame(body).encode(&mut bytes);
            }
            prop_assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), bodies.len());
            prop_assert_eq!(decode(&bytes, piece), bodies);
        }

        #[test]
        fn after_any_break_the_next_frame_is_understood_and_no_broken_one(
            body in prop::collection::vec(any::<u8>(), 0..600),
            cut in 0usize..700,
        ) {
            let mut bytes = Vec::new();
            frame(&body).encode(&mut bytes);
            let cut = cut.min(bytes.len() - 1);
            // The end is lost, and a new connection begins with a zero byte.
            let mut broken = bytes[..cut].to_vec();
            broken.push(0);
            frame(b"next").encode(&mut broken);
            let mut found = decode(&broken, 100);
            // All but the zero byte had come.
            if cut == bytes.len() - 1 {
                prop_assert_eq!(found.remove(0), body);
            }
            prop_assert_eq!(found, vec![b"next".to_vec()]);
        }

        #[test]
        fn junk_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes, |_| {});
            prop_assert!(decoder.pending.len() <= ENCODED_MAX_BYTES);
        }
    }

    #[test]
    fn the_longest_frame_fits_and_what_is_longer_is_dropped() {
        for byte in [0, 1] {
            let mut bytes = Vec::new();
            frame(&[byte; DATA_MAX_BYTES]).encode(&mut bytes);
            assert!(bytes.len() <= ENCODED_MAX_BYTES + 1, "{}", bytes.len());
            assert_eq!(decode(&bytes, 1000), [vec![byte; DATA_MAX_BYTES]]);
        }
        let mut bytes = vec![5; 10 * ENCODED_MAX_BYTES];
        bytes.push(0);
        frame(b"next").encode(&mut bytes);
        assert_eq!(decode(&bytes, 1000), [b"next".to_vec()]);
    }
}
