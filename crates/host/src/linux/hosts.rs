//! What a container knows without asking anybody: its `/etc/hosts`, with its own addresses for as long as it has them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use stead_model::container::{Container, HostAddress, NetworkMode};
use stead_model::name::MachineId;
use stead_model::served::ServedNetwork;
use stead_model::step::Step;

use super::machine::load_assignment;
use super::{LinuxHost, etc, sharing};
use crate::home::Home;
use crate::machine::Files;
use crate::state::Records;
use crate::switchboard::load_served;

/// The `/etc/hosts` of a machine as it is on record: where its network is another's, that one's.
pub(super) fn of_machine(
    home: &Home,
    records: &Records,
    id: &MachineId,
    (hostname, wish): (&str, &Container),
) -> Result<String> {
    let owner = sharing::keeper_of(id, &wish.network);
    Ok(match &wish.network {
        NetworkMode::Own => text(hostname, id, &addresses(records, id), &named(home, records, id, wish)),
        NetworkMode::Machine(_) => {
            let theirs = sharing::wish(records, &owner);
            let names = theirs.map(|wish| named(home, records, &owner, wish)).unwrap_or_default();
            text(hostname, &owner, &addresses(records, &owner), &names)
        }
        NetworkMode::Host => {
            let names = with_addresses(wish, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            on_this_computer(&sharing::of_this_computer("/etc/hosts")?, &names)
        }
    })
}

/// Names with their addresses.
type Names<'w> = Vec<(&'w str, Vec<IpAddr>)>;

/// What a machine with nics of its own is told of others.
fn named<'w>(home: &Home, records: &Records, id: &MachineId, wish: &'w Container) -> Names<'w> {
    if !wish.reaches_this_computer() {
        return with_addresses(wish, None);
    }
    let networks = load_served(home).networks;
    let nics = records.leases.keys().filter(|nic| nic.machine() == *id);
    with_addresses(wish, gateway(nics.filter_map(|nic| networks.get(&nic.network()))))
}

fn with_addresses(wish: &Container, this_computer: Option<IpAddr>) -> Names<'_> {
    let names = wish.hosts.iter().map(|(name, addresses)| {
        let addresses = addresses.iter().filter_map(|address| match address {
            HostAddress::Fixed(address) => Some(*address),
            HostAddress::ThisComputer => this_computer,
        });
        (name.as_str(), addresses.collect())
    });
    names.collect()
}

/// The address of ours on the first of these networks that has one; of IPv4 as long as there is one, as in Docker.
fn gateway<'n>(networks: impl Iterator<Item = &'n ServedNetwork> + Clone) -> Option<IpAddr> {
    let v4 = networks.clone().find_map(|network| network.gateway).map(|net| IpAddr::V4(net.addr()));
    let mut v6 = networks.filter_map(|network| network.gateway6).map(|net| IpAddr::V6(net.addr()));
    v4.or_else(|| v6.next())
}

/// What this computer knows, and more.
fn on_this_computer(there: &str, more: &Names<'_>) -> String {
    let mut text = there.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    write_names(&mut text, more);
    text
}

fn write_names(text: &mut String, names: &Names<'_>) {
    for (name, addresses) in names {
        for address in addresses {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
}

/// That of one with a network of its own.
fn text(hostname: &str, id: &MachineId, own: &[IpAddr], more: &Names<'_>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in own {
        let names = if hostname == id.name.as_str() {
            hostname.to_owned()
        } else {
            format!("{hostname} {}", id.name)
        };
        let _ = writeln!(text, "{address}\t{names}");
    }
    write_names(&mut text, more);
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
    let own: BTreeSet<MachineId> = steps.iter().filter_map(machine).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut records = host.records()?;
    let mut machines: BTreeSet<MachineId> =
        own.iter().flat_map(|id| sharing::with_sharers(&records, id)).collect();
    machines.retain(|id| Files::new(&host.home, id).present().join("hosts").exists());
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
pub(super) fn know_gateways(host: &mut LinuxHost, callers: BTreeSet<MachineId>) -> Result<()> {
    if callers.is_empty() {
        return Ok(());
    }
    let records = host.records()?;
    let machines = callers.iter().flat_map(|id| sharing::with_sharers(&records, id));
    let machines: BTreeSet<MachineId> =
        machines.filter(|id| Files::new(&host.home, id).present().join("hosts").exists()).collect();
    machines.iter().try_for_each(|id| know(&host.home, &records, id))
}

/// Has a container know its addresses, and what it is called, as they are on record.
pub(super) fn know(home: &Home, records: &Records, id: &MachineId) -> Result<()> {
    let files = Files::new(home, id);
    let made = records.machines.get(id).and_then(|state| state.container());
    let Some((made, mut assignment)) = made.zip(load_assignment(&files)) else { return Ok(()) };
    let after = of_machine(home, records, id, (&assignment.launch.hostname, &made.wish))?;
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
    fn who_is_in_this_computers_network_knows_what_it_knows_and_more() {
        let more = vec![("far", vec!["10.9.9.9".parse().unwrap(), "fd00::9".parse().unwrap()])];
        assert_eq!(
            on_this_computer("127.0.0.1 localhost", &more),
            "127.0.0.1 localhost\n10.9.9.9\tfar\nfd00::9\tfar\n"
        );
        assert_eq!(on_this_computer("", &Vec::new()), "");
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
