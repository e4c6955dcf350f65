//! What the anchor owns, and what each request does to it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Result, ensure};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::isolate::loopback_up;
use super::protocol::{Answer, Domain, Kind, Label, MAX_SOCKETS, PROTOCOL, Request, SocketKind, SysctlPath};
use super::sys;

/// A home has a namespace per container; their names have to fit into one answer.
const MAX_NAMESPACES: usize = 1024;

/// Claims of subnets: a few per network.
const MAX_HELD: usize = 1024;

/// A kernel parameter is one line; `tcp_available_congestion_control` and such are the longest.
const SYSCTL_MAX_BYTES: u64 = 4096;

/// The namespaces and descriptors that the anchor keeps.
pub(super) struct State {
    /// The engine's own namespace, where the anchor is between requests.
    home: OwnedFd,
    namespaces: BTreeMap<Label, OwnedFd>,
    held: BTreeMap<Label, OwnedFd>,
}

/// What one request leads to.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) fds: Vec<OwnedFd>,
    /// The anchor ends after this.
    pub(super) end: bool,
}

type Done<T> = rustix::io::Result<T>;

impl State {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { home: own_namespace()?, namespaces: BTreeMap::new(), held: BTreeMap::new() })
    }

    /// Carries out a request. An error means that we lost our own namespace: the anchor must end, for every
    /// later request would be carried out in the wrong place.
    pub(super) fn run(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply> {
        let doing = request.to_string();
        let end = request == Request::Quit;
        let done = self.carry_out(request, fds);
        self.ensure_home()?;
        let (answer, fds) = match done {
            Ok((answer, fds)) => (answer, fds),
            Err(errno) => (Answer::Failed { errno: errno.raw_os_error(), doing }, Vec::new()),
        };
        Ok(Reply { answer, fds, end })
    }

    fn carry_out(&mut self, request: Request, mut fds: Vec<OwnedFd>) -> Done<(Answer, Vec<OwnedFd>)> {
        let done = |fds| Ok((Answer::Done, fds));
        match request {
            Request::Protocol => Ok((Answer::Value { value: PROTOCOL.to_string() }, Vec::new())),
            Request::Make { name } => self.make(name).and(done(Vec::new())),
            Request::Drop { name } => {
                self.namespaces.remove(&name).ok_or(Errno::NOENT)?;
                done(Vec::new())
            }
            Request::Relabel { from, to } => self.relabel(&from, to).and(done(Vec::new())),
            Request::List => {
                Ok((Answer::Names { names: self.namespaces.keys().cloned().collect() }, Vec::new()))
            }
            Request::Get { name } => {
                done(vec![self.namespaces.get(&name).ok_or(Errno::NOENT)?.try_clone().map_err(errno)?])
            }
            Request::Socket { namespace, socket, count } => {
                done(self.within(namespace.as_ref(), || sockets(socket, count))?)
            }
            Request::Tun { namespace } => done(vec![self.within(namespace.as_ref(), open_tun)?]),
            Request::Sysctl { namespace, path, value } => {
                self.within(namespace.as_ref(), || write_sysctl(&path, &value))?;
                done(Vec::new())
            }
            Request::SysctlRead { namespace, path } => {
                let value = self.within(namespace.as_ref(), || read_sysctl(&path))?;
                Ok((Answer::Value { value }, Vec::new()))
            }
            Request::Hold { name } => {
                let fd = fds.pop().filter(|_| fds.is_empty()).ok_or(Errno::BADF)?;
                hold(&mut self.held, name, fd, MAX_HELD)?;
                done(Vec::new())
            }
            Request::Release { name } => {
                self.held.remove(&name).ok_or(Errno::NOENT)?;
                done(Vec::new())
            }
            Request::Held => Ok((Answer::Names { names: self.held.keys().cloned().collect() }, Vec::new())),
            Request::Quit => done(Vec::new()),
        }
    }

    fn make(&mut self, name: Label) -> Done<()> {
        if self.namespaces.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        sys::unshare(UnshareFlags::NEWNET)?;
        let made = loopback_up().and_then(|()| own_namespace().map_err(errno));
        move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network))?;
        hold(&mut self.namespaces, name, made?, MAX_NAMESPACES)
    }

    fn relabel(&mut self, from: &Label, to: Label) -> Done<()> {
        if *from != to && self.namespaces.contains_key(&to) {
            return Err(Errno::EXIST);
        }
        let namespace = self.namespaces.remove(from).ok_or(Errno::NOENT)?;
        self.namespaces.insert(to, namespace);
        Ok(())
    }

    /// Acts in another namespace. Whether we came back is checked by [`State::run`].
    fn within<T>(&self, namespace: Option<&Label>, act: impl FnOnce() -> Done<T>) -> Done<T> {
        let Some(name) = namespace else { return act() };
        let namespace = self.namespaces.get(name).ok_or(Errno::NOENT)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let result = act();
        move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network))?;
        result
    }

    fn ensure_home(&self) -> Result<()> {
        let (home, here) = (fstat(&self.home)?, rustix::fs::stat("/proc/thread-self/ns/net")?);
        ensure!(
            (home.st_dev, home.st_ino) == (here.st_dev, here.st_ino),
            "lost in a foreign network namespace"
        );
        Ok(())
    }
}

fn own_namespace() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

fn hold(kept: &mut BTreeMap<Label, OwnedFd>, name: Label, fd: OwnedFd, limit: usize) -> Done<()> {
    if kept.contains_key(&name) {
        return Err(Errno::EXIST);
    }
    if kept.len() >= limit {
        return Err(Errno::NOSPC);
    }
    kept.insert(name, fd);
    Ok(())
}

fn sockets(socket: SocketKind, count: u8) -> Done<Vec<OwnedFd>> {
    if !(1..=MAX_SOCKETS).contains(&count) {
        return Err(Errno::INVAL);
    }
    let domain = match socket.domain {
        Domain::Inet => AddressFamily::INET,
        Domain::Inet6 => AddressFamily::INET6,
        Domain::Netlink => AddressFamily::NETLINK,
        Domain::Packet => AddressFamily::PACKET,
        Domain::Unix => AddressFamily::UNIX,
    };
    let kind = match socket.kind {
        Kind::Stream => SocketType::STREAM,
        Kind::Datagram => SocketType::DGRAM,
        Kind::Raw => SocketType::RAW,
    };
    let protocol = socket.protocol.try_into().ok().map(Protocol::from_raw);
    (0..count).map(|_| socket_with(domain, kind, SocketFlags::CLOEXEC, protocol)).collect()
}

fn open_tun() -> Done<OwnedFd> {
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(OwnedFd::from).map_err(errno)
}

fn write_sysctl(path: &SysctlPath, value: &str) -> Done<()> {
    // Not truncated: some parameters take that for a write of nothing.
    let mut file = OpenOptions::new().write(true).open(sysctl_file(path)).map_err(errno)?;
    file.write_all(value.as_bytes()).map_err(errno)
}

fn read_sysctl(path: &SysctlPath) -> Done<String> {
    let file = File::open(sysctl_file(path)).map_err(errno)?;
    let mut value = String::new();
    file.take(SYSCTL_MAX_BYTES).read_to_string(&mut value).map_err(errno)?;
    Ok(value.trim_end().to_owned())
}

/// The directory below `/proc/sys` shows the network namespace of whoever opens it.
fn sysctl_file(path: &SysctlPath) -> String {
    format!("/proc/sys/net/{}", path.as_str())
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
