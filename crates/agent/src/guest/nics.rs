//! The guest's nics, by netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use stead_agent::message::Nic;
use stead_model::address::Mac;
use stead_model::name::LinkName;
use stead_net::kernel::{Hop, Link, LinkChange, MAIN_TABLE, Route, RouteRequest, RouteSocket};

/// A nic that the VMM has is there at once, or a moment after its module was loaded.
const NIC_LIMIT: Duration = Duration::from_secs(10);
const NIC_LOOK_EVERY: Duration = Duration::from_millis(2);

/// Gives each nic its name, addresses and routes, and switches them on; the loopback, too.
pub(crate) fn set_up(nics: &[Nic]) -> Result<()> {
    let socket = RouteSocket::open().context("cannot speak with the kernel about nics")?;
    let up = |name: LinkName| RouteRequest::ChangeLink(name, change(true));
    socket.run(&[up("lo".parse().context("`lo` is a name")?)])?;
    if nics.is_empty() {
        return Ok(());
    }
    let found = wait(&socket, nics)?;
    // Names first: one may be that of another one now.
    for (number, (nic, link)) in nics.iter().zip(&found).enumerate() {
        if link.name != nic.name {
            let aside: LinkName = format!("stead-{number}").parse().context("our own name is lawful")?;
            let down = RouteRequest::ChangeLink(link.name.clone(), change(false));
            socket.run(&[down, RouteRequest::RenameLink(link.name.clone(), aside)])?;
        }
    }
    for (number, (nic, link)) in nics.iter().zip(&found).enumerate() {
        if link.name != nic.name {
            let aside: LinkName = format!("stead-{number}").parse().context("our own name is lawful")?;
            socket.run(&[RouteRequest::RenameLink(aside, nic.name.clone())])?;
        }
        // The network sees to it that nobody else has the address; without waiting it can be used at once. And where
        // routers are told, an advertised one would be a second, or take the first one's place.
        let has_router = nic.gateways.iter().any(IpAddr::is_ipv6);
        for file in ["accept_dad", "accept_ra"].iter().filter(|file| **file == "accept_dad" || has_router) {
            let _without_ipv6 = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/{file}", nic.name), "0");
        }
        let mac = nic.device.map(|_| nic.mac);
        let wanted = LinkChange { mtu: nic.mtu, mac, ..change(true) };
        let mut requests = vec![RouteRequest::ChangeLink(nic.name.clone(), wanted)];
        requests.extend(nic.addresses.iter().map(|net| RouteRequest::AddAddress(nic.name.clone(), *net)));
        requests
            .extend(nic.gateways.iter().map(|gateway| RouteRequest::AddRoute(default_route(nic, *gateway))));
        socket.run(&requests).with_context(|| format!("cannot set up `{}`", nic.name))?;
    }
    Ok(())
}

/// The MAC by which a nic is found.
fn device(nic: &Nic) -> Mac {
    nic.device.unwrap_or(nic.mac)
}

fn change(up: bool) -> LinkChange<'static> {
    LinkChange { up: Some(up), ..LinkChange::default() }
}

fn default_route(nic: &Nic, gateway: IpAddr) -> Route {
    let to = match gateway {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    };
    Route { to, by: Hop::Via(gateway, nic.name.clone()), table: MAIN_TABLE }
}

/// The links of the nics, in their order, waiting for them.
fn wait(socket: &RouteSocket, nics: &[Nic]) -> Result<Vec<Link>> {
    let deadline = Instant::now() + NIC_LIMIT;
    loop {
        let links = socket.links()?;
        let by_mac = |nic: &Nic| links.iter().find(|link| link.mac == Some(device(nic))).cloned();
        if let Some(found) = nics.iter().map(by_mac).collect::<Option<Vec<_>>>() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let missing: Vec<String> =
                nics.iter().filter(|nic| by_mac(nic).is_none()).map(|nic| device(nic).to_string()).collect();
            bail!("waited {} s for nics with {}", NIC_LIMIT.as_secs(), missing.join(", "));
        }
        std::thread::sleep(NIC_LOOK_EVERY);
    }
}
