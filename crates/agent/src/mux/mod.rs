//! Many streams over one stream of bytes, with a window each: who does not take in what it was sent holds up nobody else,
//! and no end keeps more for the other one than [`STREAMS_MAX`] windows.
//!
//! ```text
//! host: greet ─▶ Hello ─▶ guest: Event::Hello, all earlier streams are gone ─ answer ─▶ host: Event::Hello
//! host: open ─▶ Open, Data, …, End ─▶            each stream is begun by the host, and ends when
//!                      ◀─ Data, …, End ◀─        both have ended it, or by Reset from either
//! ```
//!
//! A session has a number that the host draws by lot. What bears another one is left of an earlier connection, and is
//! dropped.

mod event;
mod stream;

use std::collections::{BTreeMap, VecDeque};

use crate::frame::{Decoder, Frame, Kind};
use stream::Stream;

pub use event::{Channel, Event, StreamId, Violation};

/// How many streams there may be at the same time.
pub const STREAMS_MAX: usize = 64;

/// What may be under way or not yet taken in on a stream, in each direction.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// What a piece counts beyond its bytes, so that many tiny ones are no way round the window.
pub const PIECE_COST_BYTES: usize = 64;

/// The longest word.
pub const WORD_MAX_BYTES: usize = 128 * 1024;

/// Words that wait to be said on a stream; more are not taken.
const UNSAID_MAX_BYTES: usize = 2 * WORD_MAX_BYTES;

/// The most that is ready to be sent, beyond one frame of each kind: what is said later need not wait long.
const READY_BYTES: usize = 48 * 1024;

/// Reasons for a broken stream are cut to this.
const REASON_MAX_BYTES: usize = 1024;

/// Streams refused before the peer has read that; who asks for more breaks the rules.
const REFUSALS_MAX: usize = STREAMS_MAX;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that begins sessions and streams.
    Host,
    /// The one inside a guest.
    Guest,
}

/// One end.
#[derive(Debug)]
pub struct Mux {
    role: Role,
    session: u64,
    hello: Vec<u8>,
    says_hello: bool,
    is_met: bool,
    decoder: Decoder,
    streams: BTreeMap<StreamId, Stream>,
    last_opened: StreamId,
    /// Streams that are broken off, and why, not yet sent.
    resets: VecDeque<(StreamId, String)>,
    events: VecDeque<Event>,
    /// Words of one piece, which come before all other events.
    heard: VecDeque<Event>,
    /// What is ready to be sent, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    /// Whose turn it was last.
    turn: StreamId,
}

impl Mux {
    /// The host's end, with a session of this number, which must be drawn by lot.
    pub fn host(session: u64, hello: Vec<u8>) -> Self {
        let mut mux = Self::new(Role::Host, session, hello);
        mux.greet();
        mux
    }

    /// The guest's end.
    pub fn guest(hello: Vec<u8>) -> Self {
        Self::new(Role::Guest, 0, hello)
    }

    fn new(role: Role, session: u64, hello: Vec<u8>) -> Self {
        Self {
            role,
            session,
            hello,
            says_hello: false,
            is_met: false,
            decoder: Decoder::default(),
            streams: BTreeMap::new(),
            last_opened: 0,
            resets: VecDeque::new(),
            events: VecDeque::new(),
            heard: VecDeque::new(),
            out: Vec::new(),
            out_at: 0,
            turn: 0,
        }
    }

    /// Says hello, or says it again, which changes nothing for a guest that heard it before.
    pub fn greet(&mut self) {
        self.says_hello = true;
    }

    /// Whether the other end has said hello in this session.
    pub fn is_met(&self) -> bool {
        self.is_met
    }

    /// Takes in bytes that came.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut result = Ok(());
        decoder.feed(bytes, |frame| {
            if result.is_ok() {
                result = self.take(frame);
            }
        });
        self.decoder = decoder;
        result
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<(), Violation> {
        if frame.kind == Kind::Hello {
            self.meet(frame);
            return Ok(());
        }
        // Left of an earlier session.
        if !self.is_met || frame.session != self.session {
            return Ok(());
        }
        let id = frame.stream;
        match frame.kind {
            Kind::Hello => Ok(()),
            Kind::Open => self.opened(id),
            Kind::Data => self.data(id, frame.channel, frame.body),
            Kind::Credit => self.credited(id, frame.body),
            Kind::End => {
                let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
                if std::mem::replace(&mut stream.is_peer_done, true) {
                    return Err(Violation("a stream ended twice"));
                }
                self.events.push_back(Event::Ended(id));
                Ok(())
            }
            Kind::Reset => {
                if self.streams.remove(&id).is_some() {
                    let reason = String::from_utf8_lossy(frame.body).into_owned();
                    self.events.push_back(Event::Broken(id, reason));
                }
                Ok(())
            }
        }
    }

    fn meet(&mut self, frame: &Frame<'_>) {
        match self.role {
            Role::Host if frame.session == self.session && !self.is_met => {
                self.is_met = true;
                self.events.push_back(Event::Hello(frame.body.to_vec()));
            }
            Role::Host => {}
            Role::Guest => {
                self.says_hello = true;
                if self.is_met && frame.session == self.session {
                    return;
                }
                self.session = frame.session;
                self.is_met = true;
                self.streams.clear();
                self.resets.clear();
                self.events.clear();
                self.heard.clear();
                self.last_opened = 0;
                // What is ready may be under way already, up to the middle of a frame: the zero byte ends that.
                self.out.clear();
                self.out_at = 0;
                self.out.push(0);
                self.events.push_back(Event::Hello(frame.body.to_vec()));
            }
        }
    }

    fn opened(&mut self, id: StreamId) -> Result<(), Violation> {
        if self.role == Role::Host {
            return Err(Violation("a guest began a stream"));
        }
        if id <= self.last_opened {
            return Err(Violation("a stream began twice"));
        }
        self.last_opened = id;
        if self.streams.len() >= STREAMS_MAX {
            if self.resets.len() >= REFUSALS_MAX {
                return Err(Violation("far too many streams"));
            }
            self.resets.push_back((id, "too many things are asked at the same time".to_owned()));
            return Ok(());
        }
        self.streams.insert(id, Stream::default());
        self.events.push_back(Event::Opened(id));
        Ok(())
    }

    fn data(&mut self, id: StreamId, channel: u8, body: &[u8]) -> Result<(), Violation> {
        let channel = Channel::parse(channel).ok_or(Violation("an unknown channel"))?;
        // This end broke the stream off, and the other one did not know yet.
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.is_peer_done || body.is_empty() {
            return Err(Violation("bytes after a stream's end, or none"));
        }
        stream.unread += body.len() + PIECE_COST_BYTES;
        if stream.unread > WINDOW_BYTES {
            return Err(Violation("more bytes than a window takes"));
        }
        self.events.push_back(Event::Data(id, channel, body.to_vec()));
        Ok(())
    }

    fn credited(&mut self, id: StreamId, body: &[u8]) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let parsed = body.split_at_checked(4).and_then(|(grant, taken)| {
            Some((u32::from_le_bytes(grant.try_into().ok()?), u64::from_le_bytes(taken.try_into().ok()?)))
        });
        let (grant, taken) = parsed.ok_or(Violation("a credit of another form"))?;
        let grant = usize::try_from(grant).unwrap_or(usize::MAX);
        let queued: usize = stream.queue.iter().map(|(_, bytes)| bytes.len() + PIECE_COST_BYTES).sum();
        if grant > stream.outstanding - queued || taken > stream.sent || taken < stream.peer_taken {
            return Err(Violation("a credit for what was not sent"));
        }
        stream.outstanding -= grant;
        stream.peer_taken = taken;
        stream.queue_unsaid();
        if !std::mem::replace(&mut stream.is_room_told, true) {
            self.events.push_back(Event::Room(id));
        }
        Ok(())
    }

    /// What has come, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(word) = self.heard.pop_front() {
                return Some(word);
            }
            match self.events.pop_front()? {
                Event::Data(id, Channel::Word, bytes) => {
                    self.grant(id, bytes.len() + PIECE_COST_BYTES);
                    if !self.hear(id, &bytes) {
                        self.reset(id, "a word is too long");
                        return Some(Event::Broken(id, "the other end said too long a word".to_owned()));
                    }
                }
                Event::Data(id, channel, bytes) => {
                    self.grant(id, PIECE_COST_BYTES);
                    return Some(Event::Data(id, channel, bytes));
                }
                Event::Room(id) => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.is_room_told = false;
                    }
                    return Some(Event::Room(id));
                }
                Event::Ended(id) => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.is_end_told = true;
                    }
                    self.forget_if_over(id);
                    return Some(Event::Ended(id));
                }
                event => return Some(event),
            }
        }
    }

    /// Finds words in a piece; false if one is too long.
    fn hear(&mut self, id: StreamId, bytes: &[u8]) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            stream.half_heard.extend_from_slice(line);
            if stream.half_heard.len() > WORD_MAX_BYTES {
                return false;
            }
            if stream.half_heard.last() == Some(&b'\n') {
                let mut word = std::mem::take(&mut stream.half_heard);
                word.pop();
                self.heard.push_back(Event::Word(id, word));
            }
        }
        true
    }

    /// Says that bytes of a stream were taken in: as many more may come.
    pub fn taken(&mut self, id: StreamId, bytes: usize) {
        self.grant(id, bytes);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.taken = stream.taken.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    fn grant(&mut self, id: StreamId, cost: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            // Saying so twice does not make the window larger.
            let cost = cost.min(stream.unread.saturating_sub(stream.grant));
            stream.grant += cost;
        }
    }

    /// Begins a stream, unless there are too many.
    pub fn open(&mut self) -> Option<StreamId> {
        assert!(self.role == Role::Host, "only the host begins streams");
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        self.last_opened = self.last_opened.checked_add(1)?;
        self.streams.insert(self.last_opened, Stream { is_unheard: true, ..Stream::default() });
        Some(self.last_opened)
    }

    /// How much [`Mux::send`] would take now.
    pub fn room(&self, id: StreamId) -> usize {
        let open = self.streams.get(&id).filter(|stream| !stream.ends && stream.unsaid.is_empty());
        open.map_or(0, Stream::room)
    }

    /// Sends bytes, as far as there is room: how many were taken.
    pub fn send(&mut self, id: StreamId, channel: Channel, bytes: &[u8]) -> usize {
        debug_assert!(channel != Channel::Word, "words are said");
        let open = self.streams.get_mut(&id).filter(|stream| !stream.ends && stream.unsaid.is_empty());
        open.map_or(0, |stream| stream.queue(channel, bytes))
    }

    /// Says a word, after all that was sent before; false if too much waits to be said, or nobody hears it.
    pub fn say(&mut self, id: StreamId, word: &[u8]) -> bool {
        let open = self.streams.get_mut(&id).filter(|stream| !stream.ends);
        let Some(stream) = open else { return false };
        if word.len() >= WORD_MAX_BYTES || stream.unsaid.len() + word.len() > UNSAID_MAX_BYTES {
            return false;
        }
        debug_assert!(!word.contains(&b'\n'), "a word is one line");
        stream.unsaid.extend_from_slice(word);
        stream.unsaid.push(b'\n');
        stream.queue_unsaid();
        true
    }

    /// Sends nothing more on a stream once all that was given is under way.
    pub fn end(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ends = true;
        }
    }

    /// Ends a stream that the other end has ended, who does not want what still waits to be sent.
    pub fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let waiting: usize =
                stream.queue.drain(..).map(|(_, bytes)| bytes.len() + PIECE_COST_BYTES).sum();
            stream.outstanding -= waiting;
            stream.unsaid.clear();
            stream.ends = true;
        }
    }

    /// Breaks a stream off. Nothing more is heard of it.
    pub fn reset(&mut self, id: StreamId, reason: &str) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.events.retain(|event| event.stream() != Some(id));
        self.heard.retain(|event| event.stream() != Some(id));
        // The other end never heard of it.
        if !stream.is_unheard {
            let mut end = reason.len().min(REASON_MAX_BYTES);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            self.resets.push_back((id, reason.get(..end).unwrap_or_default().to_owned()));
        }
    }

    /// How much of what was sent on a stream, words apart, the other end has taken in.
    pub fn peer_taken(&self, id: StreamId) -> u64 {
        self.streams.get(&id).map_or(0, |stream| stream.peer_taken)
    }

    /// Whether a stream is still there.
    pub fn has(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    /// What is to be sent now; empty if nothing is.
    pub fn pending(&mut self) -> &[u8] {
        if self.out.len() - self.out_at < READY_BYTES {
            self.fill();
        }
        self.out.get(self.out_at..).unwrap_or_default()
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.out_at = (self.out_at + bytes).min(self.out.len());
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
    }

    fn fill(&mut self) {
        self.out.drain(..self.out_at);
        self.out_at = 0;
        if std::mem::take(&mut self.says_hello) {
            if self.role == Role::Host {
                // Ends whatever an earlier host left half said.
                self.out.push(0);
            }
            let (session, body) = (self.session, self.hello.as_slice());
            Frame { session, stream: 0, kind: Kind::Hello, channel: 0, body }.encode(&mut self.out);
        }
        if !self.is_met {
            return;
        }
        while let Some((id, reason)) = self.resets.pop_front() {
            self.put(id, Kind::Reset, 0, reason.as_bytes());
        }
        self.fill_credits();
        while self.out.len() < READY_BYTES && self.fill_one() {}
    }

    fn put(&mut self, stream: StreamId, kind: Kind, channel: u8, body: &[u8]) {
        Frame { session: self.session, stream, kind, channel, body }.encode(&mut self.out);
    }

    fn fill_credits(&mut self) {
        for (id, stream) in &mut self.streams {
            let grant = std::mem::take(&mut stream.grant);
            if grant == 0 {
                continue;
            }
            stream.unread -= grant;
            let grant = u32::try_from(grant).unwrap_or(u32::MAX).to_le_bytes();
            let body: Vec<u8> = grant.into_iter().chain(stream.taken.to_le_bytes()).collect();
            let session = self.session;
            Frame { session, stream: *id, kind: Kind::Credit, channel: 0, body: &body }.encode(&mut self.out);
        }
    }

    /// One frame of the stream whose turn it is; false if none has anything to be sent.
    fn fill_one(&mut self) -> bool {
        let after = self.streams.range(self.turn.saturating_add(1)..).chain(self.streams.range(..=self.turn));
        let Some(id) =
            after.into_iter().find(|(_, stream)| stream.has_something_to_send()).map(|(id, _)| *id)
        else {
            return false;
        };
        self.turn = id;
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if std::mem::take(&mut stream.is_unheard) {
            self.put(id, Kind::Open, 0, &[]);
        } else if let Some((channel, bytes)) = stream.queue.pop_front() {
            if channel != Channel::Word {
                stream.sent = stream.sent.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            }
            self.put(id, Kind::Data, channel as u8, &bytes);
        } else {
            stream.is_end_sent = true;
            self.put(id, Kind::End, 0, &[]);
            self.forget_if_over(id);
        }
        true
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
        }
    }
}
