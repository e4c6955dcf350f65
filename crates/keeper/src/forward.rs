//! Ports that are published for a moment: by the process that asks for it, as long as it is there. Nothing of them
//! is on record.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use stead_host::home::Home;
use stead_host::switchboard::find_served;
use stead_model::name::MachineId;
use stead_model::project::Bind;
use stead_model::served::{Served, Target};
use stead_net::forward::Forwards;

use crate::sockets::Sockets;

/// How often it is looked whether the machine has still its addresses.
const LOOK: Duration = Duration::from_millis(200);

/// Carries ports of this computer to a machine until this process is told to end, or until the machine has no longer
/// the addresses that they lead to. Says with `ready` when all are open.
pub fn run(home: &Home, ports: BTreeMap<Bind, Target>, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(carry(home, ports, ready))
}

async fn carry(home: &Home, ports: BTreeMap<Bind, Target>, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    // Before anybody can connect: who ends us then leaves nothing.
    let mut interrupted = unless_ignored(SignalKind::interrupt())?;
    let mut told_to_end = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut hung_up = unless_ignored(SignalKind::hangup())?;
    let lost = Arc::new(Notify::new());
    let mut forwards = {
        let (sockets, home, targets) = (Sockets::new(home), home.clone(), ports.clone());
        let lost = Arc::clone(&lost);
        Forwards::new(move |socket| {
            // Somebody else may have the address by now.
            if let Some(target) = gone(&home, &targets) {
                lost.notify_one();
                bail!("`{}` has no longer the address {}", target.machine, target.address);
            }
            sockets.open(socket)
        })
    };
    let errors = forwards.set(&Served { ports: ports.clone(), ..Served::default() }).await;
    if let Some((_, error)) = errors.into_iter().next() {
        return Err(error);
    }
    ready()?;
    // Nobody asks for a socket who has one: a client that keeps on sending datagrams from one port.
    let looked = async {
        let mut before = None;
        loop {
            let now = Some(stamp(home));
            if now != before && gone(home, &ports).is_some() {
                return;
            }
            before = now;
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = come(&mut interrupted) => Ok(()),
        _ = told_to_end.recv() => Ok(()),
        () = come(&mut hung_up) => Ok(()),
        () = lost.notified() => Err(is_gone(&ports)),
        () = looked => Err(is_gone(&ports)),
    }
}

/// Listens for a signal. One that was ignored before stays so: `nohup`, and a shell for what it runs beside it, ask for
/// that.
fn unless_ignored(kind: SignalKind) -> Result<Option<Signal>> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    if is_ignored(&status, kind) {
        return Ok(None);
    }
    signal(kind).map(Some).context("cannot listen for signals")
}

/// Whether a process ignores a signal, by its `status`.
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (kind.as_raw_value() - 1)) != 0
}

async fn come(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn is_gone(ports: &BTreeMap<Bind, Target>) -> anyhow::Error {
    let machines = ports.values().map(|target| &target.machine);
    let machine = machines.min().map(MachineId::to_string).unwrap_or_default();
    anyhow!("machine `{machine}` is gone, or has other addresses now")
}

/// Where a port leads to that its machine has no longer.
fn gone<'t>(home: &Home, ports: &'t BTreeMap<Bind, Target>) -> Option<&'t Target> {
    let served = find_served(home);
    ports.values().find(|target| served.as_ref().is_none_or(|served| !is_of(served, target)))
}

/// Another one for each writing of what is served; nothing if there is no such file.
fn stamp(home: &Home) -> Option<(u64, i64, i64)> {
    let file = std::fs::metadata(home.served()).ok()?;
    Some((file.ino(), file.ctime(), file.ctime_nsec()))
}

fn is_of(served: &Served, target: &Target) -> bool {
    let networks = served.networks.iter();
    let mut hosts = networks.flat_map(|(id, network)| network.hosts.values().map(move |host| (id, host)));
    hosts.any(|(id, host)| {
        host.machine(id) == target.machine
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
    fn the_kernel_says_what_is_ignored() {
        let is_ignored = |digits: &str| {
            let status = format!("Name:\tstead\nSigBlk:\tffffffffffffffff\nSigIgn:\t{digits}\n");
            [SignalKind::hangup(), SignalKind::interrupt()].map(|kind| is_ignored(&status, kind))
        };
        assert_eq!(is_ignored("0000000000001000"), [false, false]);
        assert_eq!(is_ignored("0000000000001001"), [true, false]);
        assert_eq!(is_ignored("0000000000000006"), [false, true]);
    }

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
