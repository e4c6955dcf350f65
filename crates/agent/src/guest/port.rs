//! The stream to the host. A virtio-serial port cannot be waited for together with others: once the host's side was
//! away, `poll` says for ever that it hung up. So two processes carry its bytes, and this one has a socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

/// What the processes that carry are told.
pub(crate) const CARRY_IN: &str = "--carry-in";
/// The other direction.
pub(crate) const CARRY_OUT: &str = "--carry-out";

/// A device that the VMM has is there at once, or a moment after its module was loaded.
const PORT_LIMIT: Duration = Duration::from_secs(30);
const PORT_LOOK_EVERY: Duration = Duration::from_millis(2);

/// While the host's side is away.
const AWAY_PAUSE: Duration = Duration::from_millis(20);

/// What is carried at once.
const CARRY_BYTES: usize = 32 * 1024;

/// What was written last gets so long to go out.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// The stream, and who carries it.
pub(crate) struct Link {
    stream: UnixStream,
    carrier: Option<Child>,
}

/// Opens the virtio-serial port that is ours, waiting for it.
pub(crate) fn open() -> Result<Link> {
    let deadline = Instant::now() + PORT_LIMIT;
    let path = loop {
        if let Some(path) = find()? {
            break path;
        }
        if Instant::now() > deadline {
            let name = stead_agent::PORT_NAME;
            bail!("waited {} s for a virtio-serial port named `{name}`", PORT_LIMIT.as_secs());
        }
        std::thread::sleep(PORT_LOOK_EVERY);
    };
    // A port can be opened once only; both processes share this.
    let port = File::options().read(true).write(true).open(&path);
    let port = port.with_context(|| format!("cannot open `{}`", path.display()))?;
    let (stream, theirs) = UnixStream::pair().context("cannot make a socket")?;
    let carry = |what: &str, from: OwnedFd, to: OwnedFd| {
        // The program's own file is out of sight, but the kernel leads there.
        Command::new("/proc/self/exe").arg(what).stdin(Stdio::from(from)).stdout(Stdio::from(to)).spawn()
    };
    let twice = || -> std::io::Result<(OwnedFd, OwnedFd)> {
        Ok((port.try_clone()?.into(), theirs.try_clone()?.into()))
    };
    let (from, to) = twice().context("cannot share the port")?;
    let _lives_as_long_as_we = carry(CARRY_IN, from, to).context("cannot carry the port's bytes in")?;
    let (to, from) = twice().context("cannot share the port")?;
    let carrier = carry(CARRY_OUT, from, to).context("cannot carry the port's bytes out")?;
    Link::new(stream, Some(carrier))
}

/// The device of our port, if it is there.
fn find() -> Result<Option<PathBuf>> {
    let ports = match fs::read_dir("/sys/class/virtio-ports") {
        Ok(ports) => ports,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot list virtio-serial ports"),
    };
    for port in ports.flatten() {
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == stead_agent::PORT_NAME {
            return Ok(Some(PathBuf::from("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}

/// The stream that is our standard input.
pub(crate) fn stdin() -> Result<Link> {
    let fd = std::io::stdin().as_fd().try_clone_to_owned().context("cannot share standard input")?;
    Link::new(UnixStream::from(fd), None)
}

/// From the port, which says that nothing is there while the host's side is away, to the socket.
pub(crate) fn carry_in() -> Result<()> {
    let (mut port, mut socket) = (std::io::stdin(), std::io::stdout());
    let mut buffer = vec![0; CARRY_BYTES];
    loop {
        match port.read(&mut buffer) {
            Ok(0) => std::thread::sleep(AWAY_PAUSE),
            Ok(length) => {
                socket.write_all(buffer.get(..length).unwrap_or_default())?;
                socket.flush()?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read from the port"),
        }
    }
}

/// From the socket to the port, until the socket is closed.
pub(crate) fn carry_out() -> Result<()> {
    let mut socket = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut port = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut buffer = vec![0; CARRY_BYTES];
    loop {
        let length = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read what is to be sent"),
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            match port.write(rest) {
                Ok(0) => std::thread::sleep(AWAY_PAUSE),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The host's side went away while it was written to.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {
                    std::thread::sleep(AWAY_PAUSE);
                }
                Err(error) => return Err(error).context("cannot write to the port"),
            }
        }
    }
}

impl Link {
    fn new(stream: UnixStream, carrier: Option<Child>) -> Result<Self> {
        stream.set_nonblocking(true).context("cannot wait for the host")?;
        Ok(Self { stream, carrier })
    }

    /// To wait for.
    pub(crate) fn fd(&self) -> impl AsFd + '_ {
        &self.stream
    }

    /// Reads what came; nothing if none is there now, 0 if the host is gone for good.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_later(&error) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(Some(0)),
            Err(error) => Err(error).context("cannot hear the host"),
        }
    }

    /// Writes as much as can be now.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.stream.write(bytes) {
            Ok(length) => Ok(length),
            Err(error) if is_later(&error) => Ok(0),
            Err(error) => Err(error).context("cannot speak to the host"),
        }
    }

    /// Waits until what was written has gone out.
    pub(crate) fn flush(&mut self) {
        // If it is closed already, so much the better.
        let _closed = self.stream.shutdown(std::net::Shutdown::Write);
        let Some(carrier) = &mut self.carrier else { return };
        let deadline = Instant::now() + FAREWELL_LIMIT;
        while matches!(carrier.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(PORT_LOOK_EVERY);
        }
    }
}

fn is_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}
