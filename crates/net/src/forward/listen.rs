//! Opens the host's end of a published port, and says who has it where it is taken.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, anyhow};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use stead_model::project::{Bind, Protocol};
use tokio::io::unix::AsyncFd;

use super::owner;
use super::pump::stream;
use super::sys::{Toggle, switch_on};
use super::tcp::prepare;

/// How many connections may wait to be accepted; the kernel takes less if `net.core.somaxconn` is less.
pub(super) const BACKLOG: i32 = 4096;

/// Opens a port of this computer.
pub(super) fn open(port: Bind) -> anyhow::Result<AsyncFd<OwnedFd>> {
    match opened(port) {
        Ok(socket) => stream(socket).with_context(|| format!("cannot wait for `{port}`")),
        Err(Errno::ADDRINUSE) => Err(match owner::of(port) {
            Some(owner) => anyhow!("`{port}` is taken by {owner}"),
            None => anyhow!("`{port}` is taken by another process"),
        }),
        Err(Errno::ADDRNOTAVAIL) => Err(anyhow!("this computer does not have the address of `{port}`")),
        Err(Errno::ACCESS) => Err(anyhow!(
            "`{port}` needs more rights: ports below `net.ipv4.ip_unprivileged_port_start` are for root"
        )),
        Err(error) => Err(error).with_context(|| format!("cannot open `{port}`")),
    }
}

/// Whether nobody has a port of this computer. What else keeps it from being opened is told when it is.
pub(super) fn is_free(port: Bind) -> bool {
    opened(port).err() != Some(Errno::ADDRINUSE)
}

fn opened(port: Bind) -> Result<OwnedFd, Errno> {
    let family = match port.address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if port.address.is_ipv6() {
        // So that `0.0.0.0` and `::` can both be bound.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let address = SocketAddr::new(port.address, port.port);
    match port.protocol {
        Protocol::Tcp => {
            // Lets us have a port whose last connections are still in TIME_WAIT. (UDP must not have this: two
            // sockets could then have the same port.)
            sockopt::set_socket_reuseaddr(&socket, true)?;
            prepare(&socket)?;
            bind(&socket, &address)?;
            listen(&socket, BACKLOG)?;
        }
        Protocol::Udp => {
            if port.address.is_unspecified() {
                // Answers must come from the address that was asked.
                switch_on(&socket, port.address, Toggle::PacketInfo)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            }
            bind(&socket, &address)?;
        }
    }
    Ok(socket)
}
