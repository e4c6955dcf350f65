//! Asking the anchor, and starting it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, socketpair};

use rustix::process::{getegid, geteuid};

use super::protocol::{Answer, Label, Mapping, PROTOCOL, Report, Request, SocketKind, SysctlPath};
use super::wire::{self, PACKET_MAX_BYTES, Packet};
use crate::facts::{self, IdRange};
use crate::process::ProcessId;

/// The slowest request makes a network namespace: milliseconds, or a second on a busy computer.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// From starting the program until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Between looks for an anchor that somebody else is starting.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A connection to a home's anchor. Dropping it changes nothing.
#[derive(Debug)]
pub struct Client {
    /// Absent after a failure: an answer that comes late would be taken for that of the next request.
    connection: Option<OwnedFd>,
    process: ProcessId,
}

impl Client {
    /// Connects to the anchor of the home with this run directory; `None` if none is alive.
    pub fn connect(dir: &Path) -> Result<Option<Self>> {
        let directory = match File::open(dir) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open `{}`", dir.display())),
        };
        let inside = by_descriptor(&directory);
        let connection = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for which in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&connection, which, Some(REQUEST_LIMIT))?;
        }
        match connect(&connection, &SocketAddrUnix::new(inside.join("anchor.sock"))?) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            Err(errno) => {
                return Err(errno)
                    .with_context(|| format!("cannot connect to the anchor in `{}`", dir.display()));
            }
        }
        // The kernel knows who listens, whatever became of the file that says so.
        let listener = socket_peercred(&connection)?.pid.as_raw_nonzero().get();
        let process = u32::try_from(listener).ok().map(ProcessId::observe).transpose()?.flatten();
        let Some(process) = process else { return Ok(None) };
        let mut client = Self { connection: Some(connection), process };
        client.agree()?;
        Ok(Some(client))
    }

    /// Refuses an anchor of another stead, which may take what we say for something else.
    fn agree(&mut self) -> Result<()> {
        let spoken = self.value(Request::Protocol);
        if spoken.as_ref().is_ok_and(|value| *value == PROTOCOL.to_string()) {
            return Ok(());
        }
        if spoken.as_ref().is_err_and(|error| error.downcast_ref::<NoAnswer>().is_some()) {
            let pid = self.process().pid;
            bail!(
                "process {pid}, which holds the engine's namespaces, does not answer; hint: `kill -CONT {pid}` if somebody \
                 stopped it; after `kill -KILL {pid}` the next `stead up` makes them anew"
            );
        }
        let spoken = spoken.map_or_else(|error| format!("{error:#}"), |value| format!("it speaks {value}"));
        bail!(
            "the engine was started by another version of stead, whose protocol is not {PROTOCOL} ({spoken}); \
             hint: take its projects down with that version, or all of this user's with `stead purge`"
        )
    }

    /// The anchor's process: its `/proc/<pid>/ns/net` and `ns/user` are the engine's.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// A new network namespace, with `lo` up, kept under this name.
    pub fn make(&mut self, name: &Label) -> Result<()> {
        self.ask(Request::Make { name: name.clone() }, None)?.done()
    }

    /// Makes sure that there is a network namespace of this name.
    pub fn ensure(&mut self, name: &Label) -> Result<()> {
        if self.list()?.contains(name) { Ok(()) } else { self.make(name) }
    }

    /// Lets go of a namespace: it ends, with its links, when no process and no socket is left in it.
    pub fn drop_namespace(&mut self, name: &Label) -> Result<()> {
        self.ask(Request::Drop { name: name.clone() }, None)?.done()
    }

    /// Keeps a namespace under another name. An anchor of a stead that did not know this ends the connection.
    pub fn relabel(&mut self, from: &Label, to: &Label) -> Result<()> {
        self.ask(Request::Relabel { from: from.clone(), to: to.clone() }, None)?.done()
    }

    /// The names of the namespaces, in order.
    pub fn list(&mut self) -> Result<Vec<Label>> {
        self.ask(Request::List, None)?.names()
    }

    /// A namespace itself, as from `/proc/<pid>/ns/net`.
    pub fn namespace(&mut self, name: &Label) -> Result<OwnedFd> {
        self.ask(Request::Get { name: name.clone() }, None)?.one()
    }

    /// A new socket in a namespace; the engine's own if `None`.
    pub fn socket(&mut self, namespace: Option<&Label>, socket: SocketKind) -> Result<OwnedFd> {
        self.ask(Request::Socket { namespace: namespace.cloned(), socket, count: 1 }, None)?.one()
    }

    /// Up to [`super::MAX_SOCKETS`] of them at once.
    pub fn sockets(
        &mut self,
        namespace: Option<&Label>,
        socket: SocketKind,
        count: u8,
    ) -> Result<Vec<OwnedFd>> {
        let reply = self.ask(Request::Socket { namespace: namespace.cloned(), socket, count }, None)?;
        if reply.fds.len() != usize::from(count) {
            bail!("the anchor made {} sockets instead of {count}", reply.fds.len());
        }
        Ok(reply.fds)
    }

    /// `/dev/net/tun`, opened in a namespace: a TAP made with it (`TUNSETIFF`) appears there.
    pub fn tun(&mut self, namespace: Option<&Label>) -> Result<OwnedFd> {
        self.ask(Request::Tun { namespace: namespace.cloned() }, None)?.one()
    }

    /// Sets a kernel parameter of a namespace.
    pub fn set_sysctl(&mut self, namespace: Option<&Label>, path: &SysctlPath, value: &str) -> Result<()> {
        let (namespace, path, value) = (namespace.cloned(), path.clone(), value.to_owned());
        self.ask(Request::Sysctl { namespace, path, value }, None)?.done()
    }

    /// Reads a kernel parameter of a namespace.
    pub fn sysctl(&mut self, namespace: Option<&Label>, path: &SysctlPath) -> Result<String> {
        let request = Request::SysctlRead { namespace: namespace.cloned(), path: path.clone() };
        self.value(request)
    }

    fn value(&mut self, request: Request) -> Result<String> {
        match self.ask(request, None)?.answer {
            Answer::Value { value } => Ok(value),
            other @ (Answer::Done | Answer::Names { .. } | Answer::Failed { .. }) => Err(unexpected(&other)),
        }
    }

    /// Keeps a descriptor open in the anchor, so that it outlives this process.
    pub fn hold(&mut self, name: &Label, fd: BorrowedFd<'_>) -> Result<()> {
        self.ask(Request::Hold { name: name.clone() }, Some(fd))?.done()
    }

    /// Closes a held descriptor.
    pub fn release(&mut self, name: &Label) -> Result<()> {
        self.ask(Request::Release { name: name.clone() }, None)?.done()
    }

    /// The names of what is held, in order.
    pub fn held(&mut self) -> Result<Vec<Label>> {
        self.ask(Request::Held, None)?.names()
    }

    /// Ends the anchor, and waits until it is gone.
    pub fn quit(mut self) -> Result<()> {
        self.ask(Request::Quit, None)?.done()?;
        if self.process.wait_gone(REQUEST_LIMIT)? {
            return Ok(());
        }
        bail!("the anchor (process {}) did not end within {REQUEST_LIMIT:?}", self.process.pid)
    }

    /// One request and its answer. What the anchor could not do is an error whose cause is the [`Errno`].
    fn ask(&mut self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply> {
        let Some(connection) = self.connection.take() else {
            bail!("the connection to the anchor was lost before");
        };
        let exchange = || -> Result<Reply> {
            let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
            wire::send(&connection, &request, &fds)?;
            match wire::receive(&connection, PACKET_MAX_BYTES) {
                Ok(Packet::Text(text, fds)) => Ok(Reply { answer: serde_json::from_slice(&text)?, fds }),
                Ok(Packet::Oversized) => bail!("its answer is too long"),
                Ok(Packet::End) => bail!("it ended"),
                Err(Errno::AGAIN) => Err(NoAnswer.into()),
                Err(errno) => Err(errno.into()),
            }
        };
        let reply = exchange().with_context(|| format!("the anchor cannot be asked to {request}"))?;
        self.connection = Some(connection);
        match reply.answer {
            Answer::Failed { errno, doing } => Err(anyhow!(Errno::from_raw_os_error(errno)))
                .with_context(|| format!("the anchor could not {doing}")),
            answer @ (Answer::Done | Answer::Names { .. } | Answer::Value { .. }) => {
                Ok(Reply { answer, fds: reply.fds })
            }
        }
    }
}

struct Reply {
    answer: Answer,
    fds: Vec<OwnedFd>,
}

impl Reply {
    fn done(self) -> Result<()> {
        if self.answer == Answer::Done { Ok(()) } else { Err(unexpected(&self.answer)) }
    }

    fn names(self) -> Result<Vec<Label>> {
        match self.answer {
            Answer::Names { names } => Ok(names),
            other @ (Answer::Done | Answer::Value { .. } | Answer::Failed { .. }) => Err(unexpected(&other)),
        }
    }

    fn one(mut self) -> Result<OwnedFd> {
        self.fds.pop().filter(|_| self.fds.is_empty()).ok_or_else(|| unexpected(&self.answer))
    }
}

fn unexpected(answer: &Answer) -> anyhow::Error {
    anyhow!("the anchor gave an answer to another question: {answer:?}")
}

/// An anchor that hangs, or was stopped by somebody.
#[derive(Debug)]
struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {REQUEST_LIMIT:?}")
    }
}

impl std::error::Error for NoAnswer {}

/// A path to what is inside an open directory, always short: a socket's address has room for 107 bytes.
pub(super) fn by_descriptor(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Starts the anchor of a home: `program args…`, which has to call [`super::serve`] with the same directory.
/// It lives on when we end. If another one is being started at the same time, this is a client of that.
pub fn spawn(program: &Path, args: &[OsString], dir: &Path) -> Result<Client> {
    let deadline = Instant::now() + START_LIMIT;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&ours, Timeout::Recv, Some(START_LIMIT))?;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{}`", program.display()))?;
    match started(&ours, &child) {
        Ok(()) => connected(dir, deadline),
        Err(error) => {
            discard(child)?;
            Err(error.context("the anchor did not start"))
        }
    }
}

/// Follows the reports of a starting anchor until it, or another in its place, is there.
fn started(reports: &OwnedFd, child: &Child) -> Result<()> {
    loop {
        let text = match wire::receive(reports.as_fd(), 16 * 1024) {
            Ok(Packet::Text(text, _)) => text,
            Ok(Packet::End | Packet::Oversized) => bail!("it ended without a word; see `anchor.log`"),
            Err(Errno::AGAIN) => bail!("it was not ready within {START_LIMIT:?}"),
            Err(errno) => return Err(errno).context("cannot follow its start"),
        };
        match serde_json::from_slice(&text).context("it is not an anchor")? {
            Report::Map => wire::send(reports, &map_ids(child.id())?, &[]).context("cannot answer it")?,
            Report::Ready | Report::Taken => return Ok(()),
            Report::Failed { text } => bail!("{text}"),
        }
    }
}

/// Maps all of our subordinate ids where we have any, for containers with more than one user. Only the setuid
/// helpers of the `uidmap` package may, and they run in our namespace. The map, once written, cannot change.
pub(super) fn map_ids(pid: u32) -> Result<Mapping> {
    let Some((uids, gids)) = facts::sub_ids() else { return Ok(Mapping::Own) };
    // Group ids first: while no map is written, the anchor can still do with its own ids.
    if !written("newgidmap", pid, getegid().as_raw(), gids) {
        return Ok(Mapping::Own);
    }
    if !written("newuidmap", pid, geteuid().as_raw(), uids) {
        bail!(
            "`newuidmap` refused the range in `/etc/subuid`, although `newgidmap` took that in `/etc/subgid`"
        );
    }
    Ok(Mapping::Written)
}

fn written(helper: &str, pid: u32, own: u32, range: IdRange) -> bool {
    let args = [pid, 0, own, 1, 1, range.first, range.count].map(|number| number.to_string());
    let mut command = Command::new(helper);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Connects as soon as possible: the other one that has the directory may not listen yet.
fn connected(dir: &Path, deadline: Instant) -> Result<Client> {
    loop {
        if let Some(client) = Client::connect(dir)? {
            return Ok(client);
        }
        if Instant::now() >= deadline {
            bail!("an anchor holds `{}`, but did not listen within {START_LIMIT:?}", dir.display());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn discard(mut child: Child) -> Result<()> {
    // It ended already, or it hangs.
    child.kill().context("cannot end it")?;
    child.wait().context("cannot collect it")?;
    Ok(())
}
