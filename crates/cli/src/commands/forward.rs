//! `forward`: ports of a machine, published by this process alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::Context;
use serde::Serialize;

use stead_model::file::published_ports;
use stead_model::name::MachineId;
use stead_model::observed::{MachineState, Observed};
use stead_model::project::{Bind, Protocol};
use stead_model::resolve::binds_clash;
use stead_model::served::Target;

use crate::args::{ForwardArgs, Global};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::look;

/// A port of this computer, and where it leads.
#[derive(Serialize)]
struct Row {
    address: IpAddr,
    port: u16,
    protocol: String,
    machine: String,
    target: u16,
}

/// Carries what comes to these ports until it is told to end.
pub(crate) fn forward(global: &Global, args: &ForwardArgs, output: Output) -> Result<(), Failure> {
    let mut asked = Vec::new();
    for text in &args.ports {
        let read = published_ports(text);
        let ports =
            read.map_err(|(what, hint)| Failure::request(&format!("port `{text}`: {what}"), &hint))?;
        asked.extend(ports);
    }
    let wanted = choose(asked, free)?;
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::one(global, &args.machine, &seen)?;
    let addresses = addresses(&id, &seen);
    let mut ports = BTreeMap::new();
    for (bind, target) in wanted {
        let same_family = addresses.iter().find(|address| address.is_ipv4() == bind.address.is_ipv4());
        let Some(address) = same_family.or(addresses.first()) else {
            return Err(no_address(&id, &seen));
        };
        ports.insert(bind, Target { machine: id.clone(), address: *address, port: target });
    }
    if let Some((bind, target)) = ports.keys().find_map(|bind| seen.ports.get_key_value(bind)) {
        let what = format!("port {bind} is published by machine `{}`", target.machine);
        return Err(Failure::request(&what, "choose another port, or another address of this computer"));
    }
    let rows = ports.iter().map(|(bind, target)| Row {
        address: bind.address,
        port: bind.port,
        protocol: bind.protocol.to_string(),
        machine: id.to_string(),
        target: target.port,
    });
    let rows: Vec<Row> = rows.collect();
    let text = || rows.iter().map(Row::line).collect();
    stead_keeper::forward::run(host.home(), ports, || output.data(&rows, text)).map_err(Failure::from)
}

/// What is asked for, with a port for each that is left open: one that no other word asks for, before or after it.
fn choose(
    asked: Vec<(Bind, u16)>,
    free: impl Fn(Bind, &BTreeMap<Bind, u16>) -> anyhow::Result<Bind>,
) -> Result<BTreeMap<Bind, u16>, Failure> {
    let (open, fixed): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(bind, _)| bind.is_left_open());
    let mut wanted = BTreeMap::new();
    for (bind, target) in fixed {
        if wanted.insert(bind, target).is_some() {
            let what = format!("port {bind} is asked for twice");
            return Err(Failure::request(&what, "say it once"));
        }
    }
    for (bind, target) in open {
        wanted.insert(free(bind, &wanted)?, target);
    }
    Ok(wanted)
}

/// A port that nobody has just now, of those that the kernel gives.
fn free(open: Bind, others: &BTreeMap<Bind, u16>) -> anyhow::Result<Bind> {
    let at = SocketAddr::new(open.address, open.port);
    // Those that others are to have are held meanwhile, or the kernel could give them again and again.
    let mut held = Vec::new();
    loop {
        let (address, socket) = match open.protocol {
            Protocol::Tcp => TcpListener::bind(at).and_then(|it| Ok((it.local_addr()?, OwnedFd::from(it)))),
            Protocol::Udp => UdpSocket::bind(at).and_then(|it| Ok((it.local_addr()?, OwnedFd::from(it)))),
        }
        .with_context(|| format!("cannot find a port that is free on {}", open.address))?;
        let bind = Bind { port: address.port(), ..open };
        if !others.keys().any(|other| binds_clash(*other, bind)) {
            return Ok(bind);
        }
        held.push(socket);
    }
}

fn no_address(id: &MachineId, seen: &Observed) -> Failure {
    if seen.machines.get(id).is_some_and(MachineState::is_on_host) {
        let what = format!("machine `{id}` is in this computer's network: its ports are this computer's own");
        return Failure::request(&what, "ask for them as they are");
    }
    let what = format!("machine `{id}` has no address to carry it to");
    Failure::request(&what, "give it a nic on a network with addresses")
}

/// Its addresses, or those of the machine in whose network it is.
fn addresses(id: &MachineId, seen: &Observed) -> Vec<IpAddr> {
    let owner = seen.owner_of(id);
    let nics = seen.nics.iter().filter(|(nic, _)| nic.machine() == owner);
    nics.flat_map(|(_, nic)| nic.lease.addresses()).collect()
}

impl Row {
    /// `127.0.0.1:8080 leads to web.shop:80`.
    fn line(&self) -> String {
        let from = SocketAddr::new(self.address, self.port);
        let protocol = if self.protocol == "tcp" { "" } else { "/udp" };
        format!("{from}{protocol} leads to {}:{}{protocol}\n", self.machine, self.target)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_left_open_is_none_that_is_asked_for_later() {
        let ask = |texts: &[&str]| texts.iter().flat_map(|text| published_ports(text).unwrap()).collect();
        let next = |open: Bind, others: &BTreeMap<Bind, u16>| {
            let binds = (45000..).map(|port| Bind { port, ..open });
            Ok(binds.into_iter().find(|bind| !others.contains_key(bind)).unwrap())
        };
        let wanted = choose(ask(&["0:80", "45000:81", "0:82", "45001:83/udp"]), next).unwrap();
        let ports: Vec<(u16, u16)> = wanted.iter().map(|(bind, target)| (bind.port, *target)).collect();
        assert_eq!(ports, [(45000, 81), (45001, 80), (45002, 82), (45001, 83)]);
        assert!(choose(ask(&["0:80", "0:80"]), next).is_ok());
        assert!(choose(ask(&["7000", "0:80", "7000:80"]), next).is_err());
    }
}
