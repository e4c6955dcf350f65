//! DHCPv4, DHCPv6, router advertisements and DNS.
//!
//! Each protocol is a function from a packet to an answer, without sockets or clock ([`dhcp4`], [`dhcp6`],
//! [`advert`], [`dns`]); the loops in `tasks` carry packets to and fro. [`Services`] compares what is wanted with
//! what runs: tasks that stay get the new network by a channel and go on.

mod bytes;
mod socket;
mod store;
pub(crate) mod sys;
mod tasks;

#[cfg(test)]
mod network_tests;

pub mod advert;
pub mod dhcp4;
pub mod dhcp6;
pub mod dns;
pub mod leases;
pub mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use stead_model::name::NetworkId;
use stead_model::served::ServedNetwork;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::dns::resolver::Resolver;
use self::leases::Lease;
use self::network::Net;
use self::socket::Link;
use self::store::Store;
use self::tasks::Dhcp6Sockets;
use crate::anchor::{Kind, SocketKind};

/// Makes a socket in the engine's network namespace.
pub type OpenSocket = dyn Fn(SocketKind) -> Result<OwnedFd>;

/// Who is asked about names that are not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// The resolvers in this file, which is read again when it changes.
    ResolvConf(PathBuf),
    /// These.
    Fixed(Vec<SocketAddr>),
}

/// All that is served, on all networks. Needs a tokio runtime.
pub struct Services {
    open: Box<OpenSocket>,
    store: Arc<Store>,
    running: BTreeMap<Place, Running>,
    resolver: Arc<Resolver>,
    keeper: JoinHandle<()>,
}

/// What one task does, and where. A link that was made anew or an address that changed is another place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    network: NetworkId,
    link: Link,
    service: Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Dhcp4,
    Dhcp6,
    Advert,
    DnsUdp(IpAddr),
    DnsTcp(IpAddr),
}

struct Running {
    wish: watch::Sender<Option<Arc<Net>>>,
    task: JoinHandle<()>,
}

/// How long a task may take to end. It has nothing to wait for.
const STOP_LIMIT: Duration = Duration::from_secs(1);

impl Services {
    /// Serves nothing yet. `open` makes sockets where the links are; `leases_file` keeps the leases of strangers.
    pub fn new(open: Box<OpenSocket>, upstream: Upstream, leases_file: PathBuf) -> Self {
        let store = Arc::new(Store::open(leases_file));
        let keeper = tokio::spawn(Arc::clone(&store).keep());
        let resolver = Arc::new(Resolver::new(upstream));
        Self { open, store, running: BTreeMap::new(), resolver, keeper }
    }

    /// Serves `wanted` from now on: starts what is missing, stops what is too much, and tells what stays. A network
    /// that cannot be served (its link may not be there yet) is reported and tried again by the next call; the
    /// others are served.
    pub async fn set(
        &mut self,
        wanted: &BTreeMap<NetworkId, ServedNetwork>,
    ) -> Vec<(NetworkId, anyhow::Error)> {
        let mut failed = Vec::new();
        let mut places: BTreeMap<Place, Arc<Net>> = BTreeMap::new();
        for id in wanted.keys() {
            let Some(net) = Net::new(id, wanted).map(Arc::new) else { continue };
            match socket::find_link(&*self.open, net.wanted.link.as_str()) {
                Ok(link) => places.extend(services(&net).into_iter().map(|service| {
                    (Place { network: id.clone(), link: link.clone(), service }, Arc::clone(&net))
                })),
                Err(error) => failed.push((id.clone(), error)),
            }
        }
        self.stop(|place| !places.contains_key(place)).await;
        self.resolver.set_own(wanted.values().flat_map(gateways).collect());
        self.store.retain(|id| wanted.contains_key(id));
        for (place, net) in places {
            let network = place.network.clone();
            if let Some(running) = self.running.get(&place) {
                running.wish.send_replace(Some(net));
            } else if let Err(error) = self.start(place, net) {
                failed.push((network, error));
            }
        }
        failed
    }

    /// The leases of machines that no project declares.
    pub fn leases(&self) -> BTreeMap<NetworkId, Vec<Lease>> {
        self.store.list()
    }

    fn start(&mut self, place: Place, net: Arc<Net>) -> Result<()> {
        let (wish, wished) = watch::channel(Some(net));
        let task = self.spawn(&place, wished).with_context(|| format!("cannot serve {place}"))?;
        self.running.insert(place, Running { wish, task });
        Ok(())
    }

    fn spawn(&self, place: &Place, wish: tasks::Wish) -> Result<JoinHandle<()>> {
        let (open, link) = (&*self.open, place.link.clone());
        let what = place.to_string();
        Ok(match place.service {
            Service::Dhcp4 => {
                let fd = socket::dhcp4(open, &link)?;
                tokio::spawn(logged(what, tasks::dhcp4(fd, link, wish, Arc::clone(&self.store))))
            }
            Service::Dhcp6 => {
                let (packets, answers) = (socket::dhcp6_in(open, &link)?, socket::dhcp6_out(open, &link)?);
                tokio::spawn(logged(what, tasks::dhcp6(Dhcp6Sockets { packets, answers }, link, wish)))
            }
            Service::Advert => {
                let fd = socket::advert(open, &link)?;
                tokio::spawn(logged(what, tasks::advert(fd, link, wish)))
            }
            Service::DnsUdp(address) => {
                let fd = socket::dns(open, &link, address, Kind::Datagram)?;
                tokio::spawn(logged(what, dns::tasks::udp(fd, link, wish, Arc::clone(&self.resolver))))
            }
            Service::DnsTcp(address) => {
                let fd = socket::dns(open, &link, address, Kind::Stream)?;
                tokio::spawn(logged(what, dns::tasks::tcp(fd, link, wish, Arc::clone(&self.resolver))))
            }
        })
    }

    /// Ends the tasks that are too much and takes away those that have ended by themselves. Waits for their
    /// sockets to be closed: the link may be deleted next.
    async fn stop(&mut self, is_unwanted: impl Fn(&Place) -> bool) {
        let ended: Vec<_> = self
            .running
            .extract_if(.., |place, running| is_unwanted(place) || running.task.is_finished())
            .collect();
        for (_, running) in &ended {
            running.wish.send_replace(None);
        }
        for (place, running) in ended {
            let abort = running.task.abort_handle();
            if tokio::time::timeout(STOP_LIMIT, running.task).await.is_err() {
                tracing::warn!("{place} did not end by itself");
                abort.abort();
            }
        }
    }
}

impl Drop for Services {
    /// Ends at once and without a last advertisement: another switchboard may be about to take over.
    fn drop(&mut self) {
        self.keeper.abort();
        for running in self.running.values() {
            running.task.abort();
        }
        if self.store.is_changed()
            && let Err(error) = self.store.write()
        {
            tracing::warn!("leases of strangers are not stored: {error:#}");
        }
    }
}

/// What is to be done on a network.
fn services(net: &Net) -> BTreeSet<Service> {
    let mut services = BTreeSet::new();
    if net.wanted.dhcp.is_some() {
        services.extend(net.wanted.gateway.map(|_| Service::Dhcp4));
        services.extend(net.wanted.gateway6.into_iter().flat_map(|_| [Service::Dhcp6, Service::Advert]));
    }
    for address in gateways(&net.wanted) {
        services.extend([Service::DnsUdp(address), Service::DnsTcp(address)]);
    }
    services
}

fn gateways(network: &ServedNetwork) -> impl Iterator<Item = IpAddr> {
    let v4 = network.gateway.map(|gateway| IpAddr::V4(gateway.addr()));
    let v6 = network.gateway6.map(|gateway| IpAddr::V6(gateway.addr()));
    v4.into_iter().chain(v6)
}

async fn logged(what: String, task: impl Future<Output = Result<()>>) {
    match task.await {
        Ok(()) => tracing::debug!("{what} has ended"),
        Err(error) => tracing::warn!("{what} has ended: {error:#}"),
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let service = match self.service {
            Service::Dhcp4 => "DHCPv4",
            Service::Dhcp6 => "DHCPv6",
            Service::Advert => "router advertisements",
            Service::DnsUdp(address) => return write!(f, "DNS on {address} of network `{}`", self.network),
            Service::DnsTcp(address) => {
                return write!(f, "DNS by TCP on {address} of network `{}`", self.network);
            }
        };
        write!(f, "{service} on network `{}`", self.network)
    }
}
