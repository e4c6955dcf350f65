//! What a container knows without asking anybody: its `/etc/hosts`, with its own addresses for as long as it has them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;

use stead_model::container::{HostAddress, Launch};
use stead_model::name::MachineId;
use stead_model::observed::MadeContainer;
use stead_model::served::ServedNetwork;
use stead_model::step::Step;

use super::machine::load_assignment;
use super::{LinuxHost, etc};
use crate::home::Home;
use crate::machine::Files;
use crate::state::Records;
use crate::switchboard::load_served;

/// The `/etc/hosts` of a machine.
pub(super) fn text(
    home: &Home,
    records: &Records,
    id: &MachineId,
    launch: &Launch,
    made: &MadeContainer,
) -> String {
    let networks = load_served(home).networks;
    let nics = records.leases.keys().filter(|nic| nic.machine() == *id);
    let gateway = gateway(nics.filter_map(|nic| networks.get(&nic.network())));
    let more = made.wish.hosts.iter().map(|(name, addresses)| {
        let addresses = addresses.iter().filter_map(|address| match address {
            HostAddress::Fixed(address) => Some(*address),
            HostAddress::ThisComputer => gateway,
        });
        (name.as_str(), addresses.collect())
    });
    written(&launch.hostname, id, &addresses(records, id), more)
}

/// The address of ours on the first of these networks that has one; of IPv4 as long as there is one, as in Docker.
fn gateway<'n>(networks: impl Iterator<Item = &'n ServedNetwork> + Clone) -> Option<IpAddr> {
    let v4 = networks.clone().find_map(|network| network.gateway).map(|net| IpAddr::V4(net.addr()));
    let mut v6 = networks.filter_map(|network| network.gateway6).map(|net| IpAddr::V6(net.addr()));
    v4.or_else(|| v6.next())
}

fn written<'t>(
    hostname: &str,
    id: &MachineId,
    own: &[IpAddr],
    more: impl Iterator<Item = (&'t str, Vec<IpAddr>)>,
) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in own {
        let names = if hostname == id.name.as_str() {
            hostname.to_owned()
        } else {
            format!("{hostname} {}", id.name)
        };
        let _ = writeln!(text, "{address}\t{names}");
    }
    for (name, addresses) in more {
        for address in addresses {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    text
}

/// The addresses that a machine has on record.
fn addresses(records: &Records, id: &MachineId) -> Vec<IpAddr> {
    let own = records.leases.iter().filter(|(nic, _)| nic.machine() == *id);
    own.flat_map(|(_, lease)| lease.addresses()).collect()
}

/// Has containers that run know their addresses as leases come and go. Before those are on record: where a command is
/// killed in between, the next one does both.
pub(super) fn catch_up(host: &mut LinuxHost, steps: &[&Step]) -> Result<()> {
    let machine = |step: &&Step| match step {
        Step::LeaseAdd(id, _) | Step::LeaseRemove(id, _) => Some(id.machine()),
        _ => None,
    };
    let mut machines: BTreeSet<MachineId> = steps.iter().filter_map(machine).collect();
    machines.retain(|id| Files::new(&host.home, id).present().join("hosts").exists());
    if machines.is_empty() {
        return Ok(());
    }
    let mut records = host.records()?;
    for step in steps {
        match step {
            Step::LeaseAdd(id, lease) => drop(records.leases.insert(id.clone(), lease.clone())),
            Step::LeaseRemove(id, _) => drop(records.leases.remove(id)),
            _ => {}
        }
    }
    machines.iter().try_for_each(|id| know(&host.home, &records, id))
}

/// Has containers that run know the gateways by which they reach this computer, which may be others than before though their
/// own addresses are not.
pub(super) fn know_gateways(host: &mut LinuxHost, mut machines: BTreeSet<MachineId>) -> Result<()> {
    machines.retain(|id| Files::new(&host.home, id).present().join("hosts").exists());
    if machines.is_empty() {
        return Ok(());
    }
    let records = host.records()?;
    machines.iter().try_for_each(|id| know(&host.home, &records, id))
}

/// Has a container know its addresses, and what it is called, as they are on record.
pub(super) fn know(home: &Home, records: &Records, id: &MachineId) -> Result<()> {
    let files = Files::new(home, id);
    let made = records.machines.get(id).and_then(|state| state.container());
    let Some((made, mut assignment)) = made.zip(load_assignment(&files)) else { return Ok(()) };
    let after = text(home, records, id, &assignment.launch, made);
    let before = std::mem::replace(&mut assignment.hosts, after);
    let path = files.present().join("hosts");
    let change = |there: &[u8]| changed(there, &before, &assignment.hosts);
    // The file is in the hands of programs inside, which keep no nic by what they do to it.
    if let Err(error) = etc::edit(&path, change) {
        tracing::warn!("{id} goes on with the addresses of before in its /etc/hosts: {error:#}");
    }
    if before == assignment.hosts { Ok(()) } else { etc::assign(&files.assignment(), &assignment) }
}

/// What a file says when the lines that we wrote become others; nothing if it says that already. Lines that are not ours
/// stay, each where it is.
fn changed(there: &[u8], before: &str, after: &str) -> Option<Vec<u8>> {
    let mut lines: Vec<&[u8]> = there.split_inclusive(|byte| *byte == b'\n').map(without_end).collect();
    let old = lines.clone();
    for gone in before.lines().filter(|line| after.lines().all(|other| other != *line)) {
        if let Some(at) = place(&lines, gone) {
            lines.remove(at);
        }
    }
    let mut last = None;
    for line in after.lines() {
        let is_new = before.lines().all(|other| other != line);
        if is_new && place(&lines, line).is_none() {
            // After the one that it comes after, if somebody left that there.
            let at = last.and_then(|last| place(&lines, last)).map_or(lines.len(), |at| at + 1);
            lines.insert(at, line.as_bytes());
        }
        last = Some(line);
    }
    (lines != old).then(|| lines.iter().flat_map(|line| [*line, b"\n"].concat()).collect())
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

fn place(lines: &[&[u8]], line: &str) -> Option<usize> {
    lines.iter().position(|other| *other == line.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(there: &str, becomes: Option<&str>) {
        let before = "127.0.0.1\tlocalhost\n10.0.1.2\tweb\n10.0.2.2\tweb\n10.9.9.9\tfar\n";
        let after = "127.0.0.1\tlocalhost\n10.0.2.2\tweb\n10.0.3.2\tweb\n10.9.9.9\tfar\n";
        let changed = changed(there.as_bytes(), before, after);
        assert_eq!(changed.map(|text| String::from_utf8(text).unwrap()).as_deref(), becomes);
    }

    #[test]
    fn only_lines_that_are_ours_change() {
        check(
            "127.0.0.1\tlocalhost\n10.0.1.2\tweb\n10.0.2.2\tweb\n10.9.9.9\tfar\n",
            Some("127.0.0.1\tlocalhost\n10.0.2.2\tweb\n10.0.3.2\tweb\n10.9.9.9\tfar\n"),
        );
        check(
            "# mine\n10.0.1.2\tweb\n10.0.1.2 web\n\n10.0.2.2\tweb\n1.2.3.4 x",
            Some("# mine\n10.0.1.2 web\n\n10.0.2.2\tweb\n10.0.3.2\tweb\n1.2.3.4 x\n"),
        );
        check("1.2.3.4 x", Some("1.2.3.4 x\n10.0.3.2\tweb\n"));
        check("", Some("10.0.3.2\tweb\n"));
        // As it was left by one who was killed before it was cut.
        check("127.0.0.1\tlocalhost\n10.0.2.2\tweb\n10.0.3.2\tweb\n10.9.9.9\tfar\n\n\n", None);
    }
}
