//! The keeper's end: requests out, answers in.
//!
//! ```no_run
//! # use std::io::{Read, Write};
//! # use stead_agent::{Happening, Session, message::{Exec, Request}, mux::Channel};
//! # fn keeper(mut stream: std::os::unix::net::UnixStream, exec: Exec) -> std::io::Result<()> {
//! let mut session = Session::new()?;
//! let mut call = None;
//! loop {
//!     // 1. What is to be sent, as far as the stream takes it (poll for OUT while there is any).
//!     let count = stream.write(session.pending())?;
//!     session.sent(count);
//!     // 2. What came (poll for IN always).
//!     let mut buffer = [0; 16 * 1024];
//!     let count = stream.read(&mut buffer)?;
//!     session.receive(&buffer[..count]).map_err(std::io::Error::other)?;
//!     // 3. What that means.
//!     while let Some(happening) = session.next_event() {
//!         match happening {
//!             Happening::Hello(_) => call = session.ask(&Request::Exec(exec.clone())).ok(),
//!             Happening::Bytes(id, Channel::Output, bytes) => {
//!                 std::io::stdout().write_all(&bytes)?;
//!                 session.taken(id, bytes.len()); // then as many more may come
//!             }
//!             Happening::Word(id, word) if Some(id) == call => println!("{word:?}"),
//!             Happening::Over(id) if Some(id) == call => return Ok(()),
//!             Happening::Broken(_, why) => return Err(std::io::Error::other(why)),
//!             _ => {}
//!         }
//!     }
//! }
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;

use crate::message::{Hello, Request, VERSION, Word};
use crate::mux::{Channel, Event, Mux, StreamId, Violation, WORD_MAX_BYTES};

/// A request that was made, until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call(StreamId);

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The guest is there, and speaks our version. Requests made before are carried out only now.
    Hello(Hello),
    /// The guest speaks another version; nothing will come of this session.
    Foreign(Hello),
    /// The guest said something about a call.
    Word(Call, Word),
    /// A process wrote something, or a file's bytes came. To be acknowledged by [`Session::taken`].
    Bytes(Call, Channel, Vec<u8>),
    /// [`Session::input`] takes more again.
    Room(Call),
    /// All of a call's answer has come.
    Over(Call),
    /// A call was broken off by the guest, for this reason.
    Broken(Call, String),
}

/// Why a request was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Too many are being answered.
    TooMany,
    /// It is longer than a word may be.
    TooLong,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("too many things are asked of the guest at the same time"),
            Self::TooLong => write!(f, "what is asked of the guest is longer than {WORD_MAX_BYTES} bytes"),
        }
    }
}

impl std::error::Error for AskError {}

/// A session with a guest: as long as both ends of the stream live. Another keeper begins another one, and the guest
/// carries on with that.
#[derive(Debug)]
pub struct Session {
    mux: Mux,
    /// The calls, and whether their input has been ended.
    calls: BTreeMap<StreamId, bool>,
}

impl Session {
    /// Begins a session: its hello is among what is to be sent.
    pub fn new() -> std::io::Result<Self> {
        let mut number = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut number)?;
        Ok(Self::numbered(u64::from_le_bytes(number)))
    }

    /// Begins one with this number, for tests that are to be the same each time.
    pub fn numbered(number: u64) -> Self {
        let hello = Hello { version: VERSION, program: env!("CARGO_PKG_VERSION").to_owned() };
        // A struct of numbers and texts is JSON.
        let hello = serde_json::to_vec(&hello).unwrap_or_default();
        Self { mux: Mux::host(number, hello), calls: BTreeMap::new() }
    }

    /// Whether the guest has said hello.
    pub fn is_met(&self) -> bool {
        self.mux.is_met()
    }

    /// Says hello again. To be done about once a second until [`Session::is_met`]: what was sent before the guest
    /// listened may be lost.
    pub fn greet(&mut self) {
        self.mux.greet();
    }

    /// Takes in bytes that came from the guest. After an error the session is over: the guest cannot be trusted.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.mux.receive(bytes)
    }

    /// What is to be sent to the guest now.
    pub fn pending(&mut self) -> &[u8] {
        self.mux.pending()
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.mux.sent(bytes);
    }

    /// What has happened, in order. What a guest says that is no word of ours breaks its call off.
    pub fn next_event(&mut self) -> Option<Happening> {
        loop {
            let happening = match self.mux.next_event()? {
                Event::Hello(body) => match serde_json::from_slice::<Hello>(&body) {
                    Ok(hello) if hello.version == VERSION => Happening::Hello(hello),
                    Ok(hello) => Happening::Foreign(hello),
                    Err(_) => Happening::Foreign(Hello { version: 0, program: String::new() }),
                },
                // The mux does not let a guest do that.
                Event::Opened(_) => continue,
                Event::Word(id, word) => match serde_json::from_slice(&word) {
                    Ok(word) => Happening::Word(Call(id), word),
                    Err(_) => {
                        self.cancel(Call(id));
                        Happening::Broken(Call(id), "the guest said what is no word of ours".to_owned())
                    }
                },
                Event::Data(id, channel, bytes) => Happening::Bytes(Call(id), channel, bytes),
                Event::Room(id) => Happening::Room(Call(id)),
                Event::Ended(id) => {
                    self.mux.close(id);
                    self.calls.remove(&id);
                    Happening::Over(Call(id))
                }
                Event::Broken(id, reason) => {
                    self.calls.remove(&id);
                    Happening::Broken(Call(id), reason)
                }
            };
            return Some(happening);
        }
    }

    /// Asks something of the guest.
    pub fn ask(&mut self, request: &Request) -> Result<Call, AskError> {
        let body = serde_json::to_vec(request).map_err(|_| AskError::TooLong)?;
        if body.len() >= WORD_MAX_BYTES {
            return Err(AskError::TooLong);
        }
        let id = self.mux.open().ok_or(AskError::TooMany)?;
        let _fits = self.mux.say(id, &body);
        self.calls.insert(id, false);
        Ok(Call(id))
    }

    /// Sends what a call's process is to read, or a file's bytes, as far as there is room: how many bytes were taken. There
    /// will be room again when [`Happening::Room`] says so.
    pub fn input(&mut self, call: Call, bytes: &[u8]) -> usize {
        match self.calls.get(&call.0) {
            Some(false) => self.mux.send(call.0, Channel::Input, bytes),
            // Nobody reads it any more.
            Some(true) | None => bytes.len(),
        }
    }

    /// How much [`Session::input`] would take now.
    pub fn room(&self, call: Call) -> usize {
        self.mux.room(call.0)
    }

    /// Nothing more is to be read by a call's process, after what was given.
    pub fn end_input(&mut self, call: Call) {
        if let Some(ended) = self.calls.get_mut(&call.0)
            && !std::mem::replace(ended, true)
        {
            let _room_for_it = self.say(call, &Word::InputEnd);
        }
    }

    /// Says something about a call; false if too much waits to be said already.
    pub fn say(&mut self, call: Call, word: &Word) -> bool {
        serde_json::to_vec(word).is_ok_and(|word| self.mux.say(call.0, &word))
    }

    /// Bytes of a call were passed on: as many more may come.
    pub fn taken(&mut self, call: Call, bytes: usize) {
        self.mux.taken(call.0, bytes);
    }

    /// Wants no more of a call. Nothing more is heard of it; a process that it started is hung up on.
    pub fn cancel(&mut self, call: Call) {
        self.calls.remove(&call.0);
        self.mux.reset(call.0, "nobody waits for it any more");
    }
}
