//! Ports that are published for a moment: by the process that asks for it, as long as it is there. Nothing of them
//! is on record.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use stead_host::home::Home;
use stead_host::switchboard::find_served;
use stead_model::name::MachineId;
use stead_model::project::Bind;
use stead_model::served::{Served, Target};
use stead_net::forward::Forwards;

use crate::sockets::Sockets;

/// Carries ports of this computer to a machine until this process is told to end, or until the machine has no longer
/// the addresses that they lead to. Says with `ready` when all are open.
pub fn run(home: &Home, ports: BTreeMap<Bind, Target>, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(carry(home, ports, ready))
}

async fn carry(home: &Home, ports: BTreeMap<Bind, Target>, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    // Before anybody can connect: who ends us then leaves nothing.
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut told_to_end = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut hung_up = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let lost = Arc::new(Notify::new());
    let mut forwards = {
        let (sockets, home, targets) = (Sockets::new(home), home.clone(), ports.clone());
        let lost = Arc::clone(&lost);
        Forwards::new(move |socket| {
            // Somebody else may have the address by now.
            let gone = targets.values().find(|target| !has(&home, target));
            if let Some(target) = gone {
                lost.notify_one();
                bail!("`{}` has no longer the address {}", target.machine, target.address);
            }
            sockets.open(socket)
        })
    };
    let errors = forwards.set(&Served { networks: BTreeMap::new(), ports: ports.clone() }).await;
    if let Some((_, error)) = errors.into_iter().next() {
        return Err(error);
    }
    ready()?;
    tokio::select! {
        _ = interrupted.recv() => Ok(()),
        _ = told_to_end.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
        () = lost.notified() => {
            let machines = ports.values().map(|target| &target.machine);
            let machine = machines.min().map(MachineId::to_string).unwrap_or_default();
            Err(anyhow!("machine `{machine}` is gone, or has other addresses now"))
        }
    }
}

/// Whether a machine has still the address that a port leads to.
fn has(home: &Home, target: &Target) -> bool {
    find_served(home).is_some_and(|served| is_of(&served, target))
}

fn is_of(served: &Served, target: &Target) -> bool {
    let networks = served.networks.iter().filter(|(id, _)| id.project == target.machine.project);
    let mut hosts = networks.flat_map(|(_, network)| network.hosts.values());
    hosts.any(|host| {
        host.name == target.machine.name
            && match target.address {
                IpAddr::V4(address) => host.address == Some(address),
                IpAddr::V6(address) => host.address6 == Some(address),
            }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_a_machine_that_has_the_address_and_to_nobody_else() {
        let network = r#"{ "link": "stb-lan", "mac": "02:00:00:00:00:01", "mtu": 1500, "gateway": null, "gateway6": null,
            "routes": true, "dhcp": null, "domain": "shop.stead", "joins": [],
            "hosts": { "02:00:00:00:00:02": { "name": "web", "aliases": [], "address": "10.0.5.2", "address6": "fd00::2" } } }"#;
        let text = format!(r#"{{ "networks": {{ "lan.shop": {network} }}, "ports": {{}} }}"#);
        let served: Served = serde_json::from_str(&text).unwrap();
        let is_of = |machine: &str, address: &str| {
            let (machine, address) = (machine.parse().unwrap(), address.parse().unwrap());
            is_of(&served, &Target { machine, address, port: 80 })
        };
        assert!(is_of("web.shop", "10.0.5.2") && is_of("web.shop", "fd00::2"));
        assert!(!is_of("web.shop", "10.0.5.3"));
        assert!(!is_of("db.shop", "10.0.5.2"));
        assert!(!is_of("web.other", "10.0.5.2"));
    }
}
