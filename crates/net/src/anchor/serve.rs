//! The anchor's process: one thread, one poll loop, one packet at a time.
//!
//! It ignores no signal. A terminal's do not reach it, because it leads a session of its own; SIGTERM comes
//! at logout or shutdown, where ignoring it would only make the computer wait 90 s for the SIGKILL. Whoever
//! still has sockets in our namespaces keeps those alive until it ends itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, FlockOperation, Mode, flock, fstat};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_peercred, socket_type};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{geteuid, setsid, umask};
use rustix::thread::set_name;

use super::client::by_descriptor;
use super::protocol::Report;
use super::state::State;
use super::wire::{self, Packet};
use super::{isolate, sys};
use crate::process::{ProcessId, raise_file_limit};

/// More clients than a home has processes that ask: beyond this the one that was silent longest is closed.
const MAX_CONNECTIONS: usize = 64;

/// No request is longer: the largest carries two labels and a kernel parameter.
const REQUEST_MAX_BYTES: usize = 4096;

/// After the listening socket cannot be accepted from (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Is the anchor of the home with this run directory until told to quit. Must be called first thing in a
/// program with one thread. Where standard input is a packet socket, progress and failure are told there.
pub fn serve(dir: &Path) -> Result<()> {
    sys::close_inherited().context("cannot close inherited descriptors")?;
    let spawner = spawner()?;
    let result = start(dir, spawner.as_ref().map(AsFd::as_fd));
    let report = match &result {
        Ok(Some(_)) => Report::Ready,
        Ok(None) => Report::Taken,
        Err(error) => Report::Failed { text: format!("{error:#}") },
    };
    if let Some(spawner) = spawner {
        // A spawner that did not wait is no reason to end.
        let _ = wire::send(&spawner, &report, &[]);
    }
    match result? {
        Some(listening) => run(listening),
        None => bail!("another anchor runs in `{}`", dir.display()),
    }
}

struct Listening {
    directory: File,
    socket: OwnedFd,
    state: State,
    /// Held for life: two anchors of one home cannot be.
    _lock: File,
}

/// The socket to whoever started us, if standard input is one. It is moved away from there.
pub(super) fn spawner() -> Result<Option<OwnedFd>> {
    let stdin = rustix::stdio::stdin();
    let is_socket = fstat(stdin).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    if !is_socket || socket_type(stdin).ok() != Some(SocketType::SEQPACKET) {
        return Ok(None);
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3).context("cannot move standard input")?;
    Ok(Some(socket))
}

/// `None` if another anchor has this directory.
fn start(dir: &Path, spawner: Option<BorrowedFd<'_>>) -> Result<Option<Listening>> {
    // A namespace is a thread's, and a user namespace cannot be entered by one of several.
    let threads = fs::read_dir("/proc/self/task").context("cannot read `/proc/self/task`")?.count();
    ensure!(threads == 1, "an anchor has one thread, this process {threads}");
    let directory = File::open(dir).with_context(|| format!("cannot open `{}`", dir.display()))?;
    // A relative path would end with the change of directory below, and a long one does not fit into a
    // socket's address.
    let dir = by_descriptor(&directory);
    umask(Mode::from_raw_mode(0o177));
    let Some(lock) = lock(&dir)? else { return Ok(None) };
    detach(&dir)?;
    isolate::isolate(spawner)?;
    let socket = listening_socket(&dir).context("cannot listen")?;
    let state = State::new().context("cannot open our own namespace")?;
    ProcessId::own()?.store(&dir.join("anchor.pid"))?;
    Ok(Some(Listening { directory, socket, state, _lock: lock }))
}

fn lock(dir: &Path) -> Result<Option<File>> {
    let path = dir.join("anchor.lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).context("cannot lock `anchor.lock`"),
    }
}

/// Lets go of everything of whoever started us: session, directory, standard streams, limits.
fn detach(dir: &Path) -> Result<()> {
    // Fails only if we lead one already: started by hand from a shell.
    let _ = setsid();
    set_name(c"stead-anchor").context("cannot name this process")?;
    let log = File::create(dir.join("anchor.log")).context("cannot write `anchor.log`")?;
    let null =
        OpenOptions::new().read(true).write(true).open("/dev/null").context("cannot open `/dev/null`")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&log)?;
    std::env::set_current_dir("/").context("cannot leave the current directory")?;
    // Each namespace and each held claim is a descriptor.
    raise_file_limit()
}

fn listening_socket(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("anchor.sock");
    match fs::remove_file(&path) {
        // We hold the lock, so a socket that is there belongs to an anchor that is gone.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("cannot take the old socket away"),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The mode is that of the umask: 0600.
    bind(&socket, &SocketAddrUnix::new(&path)?)?;
    listen(&socket, 64)?;
    Ok(socket)
}

fn run(mut listening: Listening) -> Result<()> {
    let mut connections: Vec<OwnedFd> = Vec::new();
    crate::process::let_go_of_program();
    loop {
        let ready = wait(&listening.socket, &connections)?;
        let mut kept = Vec::with_capacity(connections.len());
        let mut used = Vec::new();
        let mut ready = ready.into_iter();
        let accept = ready.next().unwrap_or(false);
        for (connection, ready) in connections.drain(..).zip(ready) {
            if !ready {
                kept.push(connection);
                continue;
            }
            match answer(&mut listening.state, &connection)? {
                Next::Keep => used.push(connection),
                // That command has done what it was to do, so most likely nothing comes for a while.
                Next::Close => crate::process::let_go_of_program(),
                Next::End => return tidy(&by_descriptor(&listening.directory)),
            }
        }
        // In the order of use: the first is the one that was silent longest.
        kept.append(&mut used);
        connections = kept;
        if accept {
            connections.extend(accepted(&listening.socket)?);
            if connections.len() > MAX_CONNECTIONS {
                connections.remove(0);
            }
        }
    }
}

/// Takes the files away that say that we are here. The lock stays: whoever waits for it has it open.
fn tidy(dir: &Path) -> Result<()> {
    for file in ["anchor.sock", "anchor.pid"] {
        fs::remove_file(dir.join(file)).with_context(|| format!("cannot remove `{file}`"))?;
    }
    Ok(())
}

/// Which descriptors have something for us: the listening socket first, then the connections.
fn wait(socket: &OwnedFd, connections: &[OwnedFd]) -> Result<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> =
        std::iter::once(socket).chain(connections).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for requests"),
        }
    }
}

/// A new client, if it is one of ours. Inside a user namespace our own user is 0 and everyone whom it does
/// not map is 65534, the host's root too: that one can become us first.
fn accepted(socket: &OwnedFd) -> Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match accept_with(socket, flags) {
        Ok(connection) => {
            let peer = socket_peercred(&connection).context("cannot ask who connects")?.uid;
            Ok((peer == geteuid() || peer.is_root()).then_some(connection))
        }
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            let pause = Timespec::try_from(ACCEPT_PAUSE).context("the pause is too long")?;
            poll(&mut [], Some(&pause)).context("cannot wait")?;
            Ok(None)
        }
        // The client went away again, or a signal came.
        Err(_) => Ok(None),
    }
}

enum Next {
    Keep,
    Close,
    End,
}

/// One request of one client. Whoever breaks the rules or does not take its answer is closed; only the loss
/// of our own namespace is an error.
fn answer(state: &mut State, connection: &OwnedFd) -> Result<Next> {
    let (text, fds) = match wire::receive(connection, REQUEST_MAX_BYTES) {
        Ok(Packet::Text(text, fds)) => (text, fds),
        Err(Errno::AGAIN) => return Ok(Next::Keep),
        Ok(Packet::Oversized | Packet::End) | Err(_) => return Ok(Next::Close),
    };
    let Ok(request) = serde_json::from_slice(&text) else { return Ok(Next::Close) };
    let reply = state.run(request, fds)?;
    let beside: Vec<BorrowedFd<'_>> = reply.fds.iter().map(AsFd::as_fd).collect();
    let sent = wire::send(connection, &reply.answer, &beside);
    Ok(match (reply.end, sent) {
        (true, _) => Next::End,
        (false, Ok(())) => Next::Keep,
        (false, Err(_)) => Next::Close,
    })
}
