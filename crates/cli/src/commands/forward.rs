//! `forward`: ports of a machine, published by this process alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use anyhow::Context;
use serde::Serialize;

use stead_host::apply::Host;
use stead_model::file::published_ports;
use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::project::{Bind, Protocol};
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
    let mut wanted: BTreeMap<Bind, u16> = BTreeMap::new();
    for text in &args.ports {
        let read = published_ports(text);
        let ports =
            read.map_err(|(what, hint)| Failure::request(&format!("port `{text}`: {what}"), &hint))?;
        for (bind, target) in ports {
            let bind = if bind.is_left_open() { free(bind, &wanted)? } else { bind };
            if wanted.insert(bind, target).is_some() {
                let what = format!("port {bind} is asked for twice");
                return Err(Failure::request(&what, "say it once"));
            }
        }
    }
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::one(global, &args.machine, &seen)?;
    let addresses = addresses(&id, &seen);
    let mut ports = BTreeMap::new();
    for (bind, target) in wanted {
        let same_family = addresses.iter().find(|address| address.is_ipv4() == bind.address.is_ipv4());
        let Some(address) = same_family.or(addresses.first()) else {
            let what = format!("machine `{id}` has no address to carry it to");
            return Err(Failure::request(&what, "give it a nic on a network with addresses"));
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

/// A port that nobody has just now, of those that the kernel gives.
fn free(open: Bind, others: &BTreeMap<Bind, u16>) -> anyhow::Result<Bind> {
    loop {
        let at = SocketAddr::new(open.address, open.port);
        let given = match open.protocol {
            Protocol::Tcp => TcpListener::bind(at).and_then(|socket| socket.local_addr()),
            Protocol::Udp => UdpSocket::bind(at).and_then(|socket| socket.local_addr()),
        };
        let port =
            given.with_context(|| format!("cannot find a port that is free on {}", open.address))?.port();
        let bind = Bind { port, ..open };
        if !others.contains_key(&bind) {
            return Ok(bind);
        }
    }
}

fn addresses(id: &MachineId, seen: &Observed) -> Vec<IpAddr> {
    let nics = seen.nics.iter().filter(|(nic, _)| nic.project == id.project && nic.machine == id.name);
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
