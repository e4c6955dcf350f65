//! Machines that reach this computer: what a rule of the engine's namespace hands to one port there is carried to the same
//! port of this computer.
//!
//! It comes to an address that others would come to as well, and from that address. So it reaches what is open to the
//! network, and neither what listens on the loopback alone, nor what trusts whoever comes from there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;

use super::engine::{CONNECT_TIMEOUT, Engine, connected};
use super::listen::BACKLOG;
use super::pump::{Carried, Stream, carry, reset, stream};
use super::tcp::{accept_all, go_unpaced, prepare};
use crate::kernel::RouteSocket;
use crate::kernel::rules::CALLS_PORT;

/// Where machines call, for both families; for IPv4 alone on a kernel that has no other.
pub(super) fn open(engine: &Engine) -> Result<Vec<AsyncFd<OwnedFd>>> {
    let v4 = open_one(engine, Ipv4Addr::UNSPECIFIED.into())?;
    let v6 = open_one(engine, Ipv6Addr::UNSPECIFIED.into());
    let v6 = v6.inspect_err(|error| tracing::warn!("machines do not reach this computer by IPv6: {error:#}"));
    Ok(std::iter::once(v4).chain(v6).collect())
}

fn open_one(engine: &Engine, address: IpAddr) -> Result<AsyncFd<OwnedFd>> {
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
pub(super) async fn serve(listener: AsyncFd<OwnedFd>, engine: Arc<Engine>) {
    let carried = |socket, client, permit| call(socket, client, Arc::clone(&engine), permit);
    accept_all(listener, Arc::clone(&engine.room), carried).await;
}

/// One call from its first byte to its last.
async fn call(socket: OwnedFd, caller: SocketAddr, engine: Arc<Engine>, _permit: OwnedSemaphorePermit) {
    go_unpaced(&socket);
    // In a box, as with published ports.
    let here = Box::pin(async { reach(called(&socket, caller)?).await }).await;
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
async fn reach(called: SocketAddr) -> Result<Stream> {
    let mut refused = None;
    for address in own_addresses(called.is_ipv4()) {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match connected(socket, SocketAddr::new(address, called.port()), CONNECT_TIMEOUT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(error),
        None => bail!("this computer has no address but its loopback"),
    }
}

/// The addresses of this computer, one of each family: that which others see, or the first that there is.
fn own_addresses(is_v4_first: bool) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = [true, false].into_iter().filter_map(own_address).collect();
    found.sort_by_key(|address| address.is_ipv4() != is_v4_first);
    found
}

fn own_address(is_v4: bool) -> Option<IpAddr> {
    seen_outside(is_v4).filter(is_open).or_else(|| {
        let all = RouteSocket::open().and_then(|route| route.addresses()).unwrap_or_default();
        let all = all.into_iter().map(|address| address.address.addr());
        all.filter(|address| address.is_ipv4() == is_v4).find(is_open)
    })
}

/// The address by which this computer speaks with the rest of the world. Nothing is sent: the kernel chooses it for a socket
/// that might.
fn seen_outside(is_v4: bool) -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849), which go the default way.
    let (any, world) = if is_v4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(world).ok()?;
    Some(socket.local_addr().ok()?.ip())
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
