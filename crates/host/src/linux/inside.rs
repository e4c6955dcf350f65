//! The engine's inside, from the outside: sockets that belong to its network namespace.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};

use stead_model::name::{MachineId, NetworkId};
use stead_net::anchor::{Client, Domain, Kind, Label, SocketKind};
use stead_net::kernel::RouteSocket;
use stead_net::kernel::nft::{NftSocket, explained};

use super::mark::Mark;

/// `NETLINK_ROUTE` and `NETLINK_NETFILTER` of the kernel's interface.
const NETLINK_ROUTE: u32 = 0;
const NETLINK_NETFILTER: u32 = 12;

/// What commands need to look at and change the engine's namespace.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) anchor: Client,
    pub(super) route: RouteSocket,
    pub(super) nft: NftSocket,
}

impl Inside {
    /// Connects to the engine that lives; nothing if none does.
    pub(super) fn connect(run: &Path) -> Result<Option<Self>> {
        Client::connect(run)?.map(Self::new).transpose()
    }

    /// The networks that stand, by the kernel's word alone.
    pub(super) fn networks(&self) -> Result<Vec<NetworkId>> {
        let marks = self.route.own_links()?.into_iter().filter_map(|link| Mark::parse(&link.alias));
        let id = |mark| if let Mark::Network(id) = mark { Some(id) } else { None };
        Ok(marks.filter_map(id).collect())
    }

    /// The inside of this anchor's namespaces.
    pub(super) fn new(mut anchor: Client) -> Result<Self> {
        let route = RouteSocket::new(netlink(&mut anchor, NETLINK_ROUTE)?)?;
        let nft = netlink(&mut anchor, NETLINK_NETFILTER).map_err(explained)?;
        let nft = NftSocket::new(nft)?;
        Ok(Self { anchor, route, nft })
    }

    /// The same as `route`, for another thread.
    pub(super) fn another_route(&mut self) -> Result<RouteSocket> {
        RouteSocket::new(netlink(&mut self.anchor, NETLINK_ROUTE)?)
    }

    /// The kernel's network set-up of a machine's namespace.
    pub(super) fn route_of(&mut self, machine: &MachineId) -> Result<RouteSocket> {
        let label = label(&machine.to_string())?;
        let socket = SocketKind { domain: Domain::Netlink, kind: Kind::Raw, protocol: NETLINK_ROUTE };
        let fd =
            self.anchor.socket(Some(&label), socket).context("cannot look into the machine's namespace")?;
        RouteSocket::new(fd)
    }
}

fn netlink(anchor: &mut Client, protocol: u32) -> Result<OwnedFd> {
    let socket = SocketKind { domain: Domain::Netlink, kind: Kind::Raw, protocol };
    anchor.socket(None, socket).context("cannot reach into the engine's namespace")
}

/// A name that the anchor keeps something by.
pub(super) fn label(text: &str) -> Result<Label> {
    text.parse().with_context(|| format!("`{text}` is no label"))
}
