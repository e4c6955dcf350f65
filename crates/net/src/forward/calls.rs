//! Machines that reach this computer: what a rule of the engine's namespace hands to one port there is carried to the same
//! port of this computer.
//!
//! It comes to an address of this computer that is not its loopback, and from that address. So it does not reach what
//! listens on the loopback alone, nor what trusts whoever comes from there; what trusts the computer's other addresses takes
//! it for this computer, which it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::engine::{CONNECT_TIMEOUT, Engine, connected};
use super::listen::BACKLOG;
use super::pump::{Carried, Stream, carry, reset, stream};
use super::tcp::{accept_all, go_unpaced, prepare};
use crate::kernel::RouteSocket;
use crate::kernel::rules::CALLS_PORT;

/// How many connections there are room for, for each that machines may have with this computer: they keep no client from a
/// published port.
const ROOM_OF: usize = 8;

/// How long the addresses hold that were looked up link by link.
const LOOKED_UP_FOR: Duration = Duration::from_secs(1);

/// Where machines call, while there are any that may.
pub(super) struct Calls {
    shared: Arc<Shared>,
    /// By the address that they wait at: of IPv4, and of IPv6 where the kernel has it.
    listeners: BTreeMap<IpAddr, JoinHandle<()>>,
    error: Option<String>,
}

/// What all calls share.
struct Shared {
    /// How many more there may be.
    room: Arc<Semaphore>,
    /// This computer's addresses as they were found where no route leads out, and when.
    looked_up: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl Calls {
    /// None yet; all connections have so much room.
    pub(super) fn new(room: usize) -> Self {
        let room = (room / ROOM_OF).clamp(1, Semaphore::MAX_PERMITS);
        let shared = Shared { room: Arc::new(Semaphore::new(room)), looked_up: Mutex::new(None) };
        Self { shared: Arc::new(shared), listeners: BTreeMap::new(), error: None }
    }

    pub(super) fn is_any(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Why they are not taken.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(super) fn fail(&mut self, error: &anyhow::Error) {
        self.error = Some(format!("machines do not reach this computer: {error:#}"));
    }

    /// Takes them from now on; what could not be opened is tried again.
    pub(super) fn open(&mut self, engine: &Arc<Engine>, carriers: &Handle) {
        self.error = None;
        let _context = carriers.enter();
        for address in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            if self.listeners.contains_key(&address) {
                continue;
            }
            match open(engine, address) {
                Ok(listener) => {
                    let serving = serve(listener, Arc::clone(&self.shared), Arc::clone(engine));
                    self.listeners.insert(address, tokio::spawn(serving));
                }
                Err(error) if address.is_ipv4() => self.fail(&error),
                // The kernel may have none.
                Err(error) => tracing::warn!("machines do not reach this computer by IPv6: {error:#}"),
            }
        }
    }

    /// Takes none any more; those that stand end. Waits until the port is free again.
    pub(super) async fn close(&mut self) {
        self.error = None;
        self.abort();
        for (_, task) in std::mem::take(&mut self.listeners) {
            // The result says only that we aborted it.
            let _aborted = task.await;
        }
    }

    pub(super) fn abort(&self) {
        self.listeners.values().for_each(JoinHandle::abort);
    }
}

fn open(engine: &Engine, address: IpAddr) -> Result<AsyncFd<OwnedFd>> {
    let socket = (engine.open)(super::stream(address))?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    prepare(&socket)?;
    bind(&socket, &SocketAddr::new(address, CALLS_PORT)).context("cannot wait for calls of machines")?;
    listen(&socket, BACKLOG)?;
    Ok(stream(socket)?)
}

/// Carries calls until the task is aborted; they end with it.
async fn serve(listener: AsyncFd<OwnedFd>, shared: Arc<Shared>, engine: Arc<Engine>) {
    let room = Arc::clone(&shared.room);
    let carried = |socket, caller, permit| {
        let (shared, engine) = (Arc::clone(&shared), Arc::clone(&engine));
        async move { call((socket, caller), &shared, &engine, permit).await }
    };
    accept_all(listener, room, carried).await;
}

/// One call from its first byte to its last.
async fn call(
    (socket, caller): (OwnedFd, SocketAddr),
    shared: &Shared,
    engine: &Engine,
    _permit: OwnedSemaphorePermit,
) {
    go_unpaced(&socket);
    // In a box, as with published ports.
    let here = Box::pin(async { reach(called(&socket, caller)?, shared).await }).await;
    match here {
        Ok(here) => {
            if let Ok(machine) = stream(socket) {
                carry(machine, here, &engine.pipes, &Carried::default()).await;
            }
        }
        Err(error) => {
            tracing::debug!(%caller, "a call fails: {error:#}");
            reset(&socket);
        }
    }
}

/// Whom a connection was for before it was handed to us.
fn called(socket: &OwnedFd, caller: SocketAddr) -> Result<SocketAddr> {
    let called = match caller {
        SocketAddr::V4(_) => SocketAddr::V4(sockopt::ip_original_dst(socket)?),
        SocketAddr::V6(_) => SocketAddr::V6(sockopt::ipv6_original_dst(socket)?),
    };
    Ok(called)
}

/// A connection to this port of this computer: by the family in which it was called, or else by the other.
async fn reach(called: SocketAddr, shared: &Shared) -> Result<Stream> {
    let families = [called.is_ipv4(), !called.is_ipv4()];
    let mut refused = None;
    for address in families.into_iter().filter_map(seen_outside) {
        match connect(address, called.port()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    // Nothing leads out: any address that is not of this computer alone.
    let all = looked_up(shared).await;
    let Some(address) = families.into_iter().find_map(|is_v4| all.iter().find(|all| all.is_ipv4() == is_v4))
    else {
        bail!("this computer has no address but its loopback");
    };
    connect(*address, called.port()).await
}

async fn connect(address: IpAddr, port: u16) -> Result<Stream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connected(socket, SocketAddr::new(address, port), CONNECT_TIMEOUT).await
}

/// The addresses of this computer's links, which the kernel lists one by one: not for each call anew.
async fn looked_up(shared: &Shared) -> Vec<IpAddr> {
    let held = || shared.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, found)) = &*held()
        && at.elapsed() < LOOKED_UP_FOR
    {
        return found.clone();
    }
    let found = tokio::task::spawn_blocking(own_addresses).await.unwrap_or_default();
    *held() = Some((Instant::now(), found.clone()));
    found
}

fn own_addresses() -> Vec<IpAddr> {
    let all = RouteSocket::open().and_then(|route| route.addresses()).unwrap_or_default();
    let others = all.into_iter().filter(|address| address.link.as_str() != "lo");
    others.map(|address| address.address.addr()).filter(is_open).collect()
}

/// The address by which this computer speaks with the rest of the world. Nothing is sent: the kernel chooses it for a socket
/// that might.
fn seen_outside(is_v4: bool) -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849), which go the default way.
    let (any, world) = if is_v4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(world).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(is_open)
}

/// Whether others than this computer may come to an address.
fn is_open(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_loopback() || address.is_unspecified() || address.is_link_local())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local())
        }
    }
}
