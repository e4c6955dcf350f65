//! A connection to the user's own systemd: by the socket that it listens on itself, which is there without a bus as well, and
//! where nobody else answers; or by the user's bus.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::message::{Call, HEAD_BYTES, Heard, Writer, parse, rest_bytes};

/// An answer to who we are is one line, shorter than this.
const LINE_MAX_BYTES: usize = 512;

const UNCLEAR: &str = "an answer of D-Bus cannot be understood";

/// Until when all that is asked is to be answered.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    /// From now on.
    pub(super) fn after(after: Duration) -> Self {
        Self { at: Instant::now() + after, after }
    }

    /// How long it is until then.
    fn left(self) -> Result<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "it has not answered within {}", self.span());
        Ok(left)
    }

    pub(super) fn has_passed(self) -> bool {
        self.at <= Instant::now()
    }

    /// For messages.
    pub(super) fn span(self) -> String {
        format!("{} s", self.after.as_secs_f64())
    }
}

/// A connection, on which one call is made after the other.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    deadline: Deadline,
}

impl Bus {
    /// Connects to who listens in a user's directory of sockets. All that is said is to be said until the deadline.
    pub(super) fn open(directory: &Path, deadline: Deadline) -> Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        let path = directory.join("systemd/private");
        let unreached = match reach(&path) {
            Ok(stream) => return Self::begin(stream, user, deadline),
            Err(unreached) => unreached.context(format!("cannot reach `{}`", path.display())),
        };
        let Ok(stream) = reach(&directory.join("bus")) else { return Err(unreached) };
        let mut bus = Self::begin(stream, user, deadline)?;
        let peer = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        let hello = Call {
            destination: peer.0,
            path: peer.1,
            interface: peer.0,
            member: "Hello",
            signature: "",
            body: Writer::default(),
        };
        bus.call(&hello)?;
        Ok(bus)
    }

    /// Says who we are, which the kernel tells them as well, and begins in the same breath, as systemd's own programs do.
    /// Said after the answer, `BEGIN` would be read together with the first call by a systemd that comes round to it late,
    /// as on a single processor. Version 252 leaves such a call in its buffer, and waits for more to be said.
    pub(super) fn begin(stream: UnixStream, user: u32, deadline: Deadline) -> Result<Self> {
        let mut bus = Self { stream, serial: 0, deadline };
        let name: String = user.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.say(format!("\0AUTH EXTERNAL {name}\r\nBEGIN\r\n").as_bytes())?;
        let line = bus.line()?;
        ensure!(line.starts_with("OK "), "it does not take us for whom we are: `{}`", line.escape_debug());
        Ok(bus)
    }

    /// Calls a method: what it returns, with the types of that. What others are told is heard as well, until the deadline.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<(String, Vec<u8>)> {
        self.serial += 1;
        self.say(&call.render(self.serial))?;
        loop {
            match self.hear()? {
                Heard::Returned { serial, signature, body } if serial == self.serial => {
                    return Ok((signature, body));
                }
                Heard::Failed { serial, why } if serial == self.serial => {
                    bail!("`{}`: {}", call.member, why.escape_debug());
                }
                Heard::Returned { .. } | Heard::Failed { .. } | Heard::Other => {}
            }
        }
    }

    fn hear(&mut self) -> Result<Heard> {
        let mut head = [0; HEAD_BYTES];
        self.read(&mut head)?;
        let mut message = head.to_vec();
        message.resize(HEAD_BYTES + rest_bytes(head).context(UNCLEAR)?, 0);
        self.read(message.get_mut(HEAD_BYTES..).unwrap_or_default())?;
        parse(&message).context(UNCLEAR)
    }

    /// What comes after the line is not asked for yet, so nothing does.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            ensure!(line.len() < LINE_MAX_BYTES, "its first line is longer than {LINE_MAX_BYTES} bytes");
            let mut byte = [0];
            self.read(&mut byte)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(self.deadline.left()?)).context("cannot wait for it")?;
        self.stream.write_all(bytes).context("it does not listen")
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(self.deadline.left()?)).context("cannot wait for it")?;
            match self.stream.read(buffer) {
                Ok(0) => bail!("it hung up"),
                Ok(length) => buffer = buffer.get_mut(length..).unwrap_or_default(),
                Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => {}
                Err(error) => return Err(error).context("it cannot be heard"),
            }
        }
        Ok(())
    }
}

/// Connects to a socket, unless so many wait there already that we would as well.
fn reach(path: &Path) -> Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
