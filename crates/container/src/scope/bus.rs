//! A connection to the user's own systemd: by the socket that it listens on itself, which is there without a bus as well, and
//! where nobody else answers; or by the user's bus.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::message::{Call, HEAD_BYTES, Heard, Writer, parse, rest_bytes};

/// An answer to who we are is one line, shorter than this.
const LINE_MAX_BYTES: usize = 512;

/// A connection, on which one call is made after the other.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    deadline: Instant,
}

impl Bus {
    /// Connects to who listens in a user's directory of sockets. All that is said is to be said until the deadline.
    pub(super) fn open(directory: &Path, deadline: Instant) -> Result<Self> {
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

    /// Says who we are, which the kernel tells them as well.
    pub(super) fn begin(stream: UnixStream, user: u32, deadline: Instant) -> Result<Self> {
        let mut bus = Self { stream, serial: 0, deadline };
        let name: String = user.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.say(format!("\0AUTH EXTERNAL {name}\r\n").as_bytes())?;
        let line = bus.line()?;
        ensure!(line.starts_with("OK "), "it does not take us for whom we are: `{}`", line.escape_debug());
        bus.say(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// Calls a method: what it returns, with the types of that. What others are told is heard as well, until the deadline.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<(String, Vec<u8>)> {
        self.serial += 1;
        self.say(&call.render(self.serial))?;
        loop {
            match self.hear().context("an answer of D-Bus cannot be understood")? {
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
        message.resize(HEAD_BYTES + rest_bytes(head)?, 0);
        self.read(message.get_mut(HEAD_BYTES..).unwrap_or_default())?;
        parse(&message)
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
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "it takes too long");
        self.stream.set_write_timeout(Some(left)).context("cannot wait for it")?;
        self.stream.write_all(bytes).context("it does not listen")
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "it takes too long");
            self.stream.set_read_timeout(Some(left)).context("cannot wait for it")?;
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
