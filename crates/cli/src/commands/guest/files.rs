//! Files of a machine with a guest: carried as parcels, by its keeper and its agent. Neither end trusts the other one:
//! what comes is unpacked where it was asked for and nowhere else.

use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use stead_container::{End, Owners, Root, pack, unpack};
use stead_host::frame::Frame;
use stead_host::machine::{Answer, Client, Exit, Files, Request};

/// What is carried at once.
const CARRY_BYTES: usize = 32 * 1024;

/// What may come between a parcel that could not be taken from a machine, and why.
const LAST_WORDS_BYTES: u64 = 64 * 1024;

/// Out of the machine, to a path here.
pub(crate) fn take(files: &Files, from: &str, to: &str, owners: Owners) -> Result<()> {
    let stream = begin(files, &Request::Read { path: from.to_owned() })?;
    let mut incoming = Incoming { stream, piece: Vec::new(), read: 0, exit: None };
    let unpacked = unpack(&mut incoming, &End { root: &Root::Here, path: to }, owners);
    if unpacked.is_err() {
        // How it went there is yet to come, unless what went wrong is ours, and there is much more.
        let _unknown = std::io::copy(&mut (&mut incoming).take(LAST_WORDS_BYTES), &mut std::io::sink());
    }
    match &incoming.exit {
        // What went wrong there is why it could not be unpacked here.
        Some(exit) if exit.code != 0 => Err(There(why(exit)).into()),
        _ => unpacked.map(drop),
    }
}

/// Into the machine, from a path here.
pub(crate) fn give(files: &Files, from: &str, to: &str, owners: Owners) -> Result<()> {
    let request = Request::Write { path: to.to_owned(), keep_owners: owners == Owners::Keep };
    let stream = begin(files, &request)?;
    let writer = stream.get_ref().try_clone().context("cannot share the connection")?;
    let mut outgoing = BufWriter::with_capacity(CARRY_BYTES, Outgoing(writer));
    let packed = pack(&End { root: &Root::Here, path: from }, &mut outgoing).and_then(|()| {
        let mut outgoing = outgoing.into_inner().map_err(|error| anyhow!("{error}"))?;
        Ok(Frame::InputEnd.write(&mut outgoing.0, b"")?)
    });
    let mut incoming = Incoming { stream, piece: Vec::new(), read: 0, exit: None };
    std::io::copy(&mut incoming, &mut std::io::sink()).context("cannot hear the keeper")?;
    match (incoming.exit, packed) {
        // What could not be taken here is known here best.
        (_, Err(error)) if !is_cut(&error) => Err(error),
        // The other end may have had all of it before we said that it is.
        (Some(exit), _) if exit.code == 0 => Ok(()),
        (Some(exit), _) => Err(There(why(&exit)).into()),
        (None, _) => bail!("the machine ended"),
    }
}

/// Why it could not be done in the machine.
#[derive(Debug)]
pub(crate) struct There(pub(crate) String);

impl std::fmt::Display for There {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for There {}

/// Whether the other end did not want more, for a reason of its own.
fn is_cut(error: &anyhow::Error) -> bool {
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset))
}

fn why(exit: &Exit) -> String {
    exit.why.clone().unwrap_or_else(|| format!("the machine's agent says {}", exit.code))
}

fn begin(files: &Files, request: &Request) -> Result<BufReader<UnixStream>> {
    let mut client = Client::connect(files)?.context("it does not run")?;
    match client.ask(request, Some(Duration::ZERO))? {
        Answer::Attached(_) => client.into_stream(),
        Answer::Failed(why) => bail!(why),
        other => bail!("the keeper answered {other:?}"),
    }
}

/// Bytes that come from a machine, until it says how it ended.
struct Incoming {
    stream: BufReader<UnixStream>,
    piece: Vec<u8>,
    read: usize,
    exit: Option<Exit>,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.read == self.piece.len() && self.exit.is_none() {
            match Frame::read(&mut self.stream)? {
                Some((Frame::Output, bytes)) => (self.piece, self.read) = (bytes, 0),
                Some((Frame::Exit, bytes)) => self.exit = Some(serde_json::from_slice(&bytes)?),
                Some(_) => {}
                None => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the machine ended")),
            }
        }
        let rest = self.piece.get(self.read..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.read += count;
        Ok(count)
    }
}

/// Bytes for a machine.
struct Outgoing(UnixStream);

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = bytes.get(..CARRY_BYTES.min(bytes.len())).unwrap_or_default();
        Frame::Input.write(&mut self.0, piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
