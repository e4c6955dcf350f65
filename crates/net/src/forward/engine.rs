//! Sockets in the engine's namespace, where the machines are: made there by somebody else, set up and
//! connected here.
//!
//! Where it can be, a machine is spoken to from the client's own address. Such a socket is *transparent*: its
//! address is none of this computer's, and a rule of the engine's namespace hands the answers to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::{bind, connect, sockopt};
use stead_model::served::Target;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::pipes::Pipes;
use super::pump::{Stream, stream};
use super::sys::{Toggle, switch_on};
use super::tcp::{go_unpaced, prepare};
use crate::anchor::SocketKind;

/// How long a machine may take to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take when we speak with the client's address: if its answers take another way than through
/// us, none comes, and we speak with our own. Longer than the first retransmission of a SYN (1 s).
const KEPT_CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long we speak with our own address after the client's got no answer.
const PLAIN_FOR: Duration = Duration::from_secs(60);

/// Makes sockets where the machines are.
pub(super) type Open = Box<dyn Fn(SocketKind) -> anyhow::Result<OwnedFd> + Send + Sync>;

/// What all ports share.
pub(super) struct Engine {
    /// Makes sockets where the machines are.
    pub open: Open,
    /// The pipes not in use.
    pub pipes: Pipes,
    /// Where datagrams are while they pass; touched only between two waits.
    pub datagram: Mutex<Vec<u8>>,
    /// How many more connections the limit on descriptors allows.
    pub room: Arc<Semaphore>,
}

/// Where a port leads, and how the machine is spoken to.
#[derive(Debug)]
pub(super) struct Route {
    /// The machine's address and port.
    pub target: Target,
    /// What is known of the networks.
    pub reach: Reach,
    /// Until when the client's own address is not tried.
    plain_until: Mutex<Option<Instant>>,
}

/// What decides whether a machine can be spoken to from the client's own address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Whether the machine's network has us as its router, so that answers to strangers come to us.
    pub routed: bool,
    /// All subnets of ours: an address in one of them is a machine's, and not to be borrowed.
    pub subnets: Vec<IpNet>,
}

impl Route {
    /// A port's way to `target`.
    pub(super) fn new(target: Target, reach: Reach) -> Self {
        Self { target, reach, plain_until: Mutex::new(None) }
    }

    /// The machine's end.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.target.address, self.target.port)
    }

    /// Whether the machine can be spoken to as if by `client` itself.
    pub(super) fn keeps_source(&self, client: SocketAddr) -> bool {
        let address = client.ip();
        let local = match address {
            IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
        };
        self.reach.routed
            && !local
            && address.is_ipv4() == self.target.address.is_ipv4()
            && !self.reach.subnets.iter().any(|subnet| subnet.contains(&address))
            && self.plain_until().is_none_or(|until| until < Instant::now())
    }

    fn plain_until(&self) -> Option<Instant> {
        *self.plain_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that the client's address got no answer where ours did.
    fn be_plain(&self) {
        let until = Instant::now() + PLAIN_FOR;
        *self.plain_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

impl Engine {
    /// A stream to the machine, from the client's address if possible.
    pub(super) async fn connect(&self, client: SocketAddr, route: &Route) -> anyhow::Result<Stream> {
        if route.keeps_source(client) {
            // As the client itself; if its port is taken, as another port of it.
            for source in [client, SocketAddr::new(client.ip(), 0)] {
                match self.transparent(super::stream(client.ip()), source) {
                    Ok(socket) => match connected(socket, route.address(), KEPT_CONNECT_TIMEOUT).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) if refused(&error) => return Err(error),
                        Err(error) if in_use(&error) => {}
                        Err(error) => {
                            tracing::debug!(machine = %route.target.machine, %error, "the client's address gets no answer");
                            let socket = (self.open)(super::stream(route.target.address))?;
                            let stream = connected(socket, route.address(), CONNECT_TIMEOUT).await?;
                            // Ours did get one: its answers take another way than through us.
                            route.be_plain();
                            return Ok(stream);
                        }
                    },
                    Err(error) => tracing::debug!(%client, %error, "cannot speak as the client"),
                }
            }
        }
        let socket = (self.open)(super::stream(route.target.address))?;
        connected(socket, route.address(), CONNECT_TIMEOUT).await
    }

    /// A datagram socket that speaks with the machine alone, from the client's address if possible.
    pub(super) fn associate(&self, client: SocketAddr, route: &Route) -> anyhow::Result<Stream> {
        if route.keeps_source(client) {
            for source in [client, SocketAddr::new(client.ip(), 0)] {
                let made = self.transparent(super::datagram(client.ip()), source).and_then(|socket| {
                    connect(&socket, &route.address())?;
                    Ok(stream(socket)?)
                });
                match made {
                    Ok(stream) => return Ok(stream),
                    Err(error) => tracing::debug!(%client, %error, "cannot speak as the client"),
                }
            }
        }
        let socket = (self.open)(super::datagram(route.target.address))?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        connect(&socket, &route.address())?;
        Ok(stream(socket)?)
    }

    /// A socket with an address that is not this computer's.
    fn transparent(&self, socket: SocketKind, source: SocketAddr) -> anyhow::Result<OwnedFd> {
        let fd = (self.open)(socket)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        switch_on(&fd, source.ip(), Toggle::Transparent).context("no transparent sockets")?;
        // The same client may have connections to several machines from one port.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        if source.port() == 0 {
            switch_on(&fd, source.ip(), Toggle::LatePort)?;
        }
        bind(&fd, &source).with_context(|| format!("cannot speak as {source}"))?;
        Ok(fd)
    }
}

/// Connects within the limit.
pub(super) async fn connected(socket: OwnedFd, to: SocketAddr, limit: Duration) -> anyhow::Result<Stream> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    prepare(&socket)?;
    go_unpaced(&socket);
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = stream(socket)?;
    let waited = timeout(limit, stream.writable()).await;
    let _ready = waited.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    sockopt::socket_error(stream.get_ref())?.map_err(io::Error::from)?;
    Ok(stream)
}

/// Whether the machine answered that nobody listens.
fn refused(error: &anyhow::Error) -> bool {
    errno(error) == Some(Errno::CONNREFUSED)
}

/// Whether the address and port are in use towards this very machine.
fn in_use(error: &anyhow::Error) -> bool {
    matches!(errno(error), Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE))
}

/// The system's number for an error, however it came.
fn errno(error: &anyhow::Error) -> Option<Errno> {
    error
        .downcast_ref::<Errno>()
        .copied()
        .or_else(|| Errno::from_io_error(error.downcast_ref::<io::Error>()?))
}
