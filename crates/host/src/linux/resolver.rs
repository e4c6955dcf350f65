//! Whom a container asks for names: its `/etc/resolv.conf`. A network's name server answers on that network alone, so
//! when the nic goes by which it is reached, another one is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use stead_model::container::{Container, NetworkMode};
use stead_model::name::{MachineId, NetworkId, NicId};
use stead_model::observed::NicState;
use stead_model::resolve::DOMAIN;
use stead_model::served::ServedNetwork;

use super::machine::load_assignment;
use super::{LinuxHost, etc, sharing};
use crate::machine::Files;
use crate::state::Records;

type Networks = BTreeMap<NetworkId, ServedNetwork>;

/// The `/etc/resolv.conf` of a machine as it is on record: whom it was told to ask, else the first of its networks that is
/// served; where its network is another's, that one's.
pub(super) fn text(
    networks: &Networks,
    records: &Records,
    id: &MachineId,
    wish: &Container,
) -> Result<String> {
    let owner = sharing::keeper_of(id, &wish.network);
    Ok(match &wish.network {
        NetworkMode::Own | NetworkMode::Machine(_) => {
            text_by(of_machine(networks, &owner).next(), &owner, sharing::wish(records, &owner))
        }
        NetworkMode::Host => on_this_computer(&sharing::of_this_computer("/etc/resolv.conf")?, wish),
    })
}

/// What this computer itself is told, but for what a container is told otherwise.
fn on_this_computer(there: &str, wish: &Container) -> String {
    let is_said = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        let is_server = word == "nameserver" && !wish.dns.is_empty();
        is_server || (matches!(word, "search" | "domain") && !wish.dns_search.is_empty())
    };
    let own = there.lines().filter(|line| !is_said(line)).map(str::to_owned);
    let servers = wish.dns.iter().map(|server| format!("nameserver {server}"));
    let search =
        Some(format!("search {}", wish.dns_search.join(" "))).filter(|_| !wish.dns_search.is_empty());
    own.chain(servers).chain(search).map(|line| line + "\n").collect()
}

/// The networks that a machine has a nic on, those of its own project first.
fn of_machine<'n>(networks: &'n Networks, id: &MachineId) -> impl Iterator<Item = &'n ServedNetwork> {
    let is_on = |(network, served): &(&NetworkId, &ServedNetwork)| {
        served.hosts.values().any(|host| host.machine(network) == *id)
    };
    let (own, external): (Vec<_>, Vec<_>) =
        networks.iter().filter(is_on).partition(|(network, _)| network.project == id.project);
    own.into_iter().chain(external).map(|(_, network)| network)
}

fn text_by(network: Option<&ServedNetwork>, id: &MachineId, wish: Option<&Container>) -> String {
    let mut text = String::new();
    let (dns, search) = wish.map_or((&[][..], &[][..]), |wish| (&wish.dns[..], &wish.dns_search[..]));
    let gateway = network.and_then(|network| {
        let v4 = network.gateway.map(|net| IpAddr::V4(net.addr()));
        v4.or(network.gateway6.map(|net| IpAddr::V6(net.addr())))
    });
    let servers: Vec<IpAddr> = if dns.is_empty() { gateway.into_iter().collect() } else { dns.to_vec() };
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // Also on another project's network: the names of its own project come first.
    let own = network.map(|_| format!("{}.{DOMAIN}", id.project));
    let search: Vec<String> = if search.is_empty() { own.into_iter().collect() } else { search.to_vec() };
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text
}

/// Has containers that run ask on another of their networks before the nics go by which they ask now: of each the ones
/// that stay are told.
pub(super) fn hand_on(
    host: &mut LinuxHost,
    gone: &[(&NicId, &NicState, &[NicId])],
    networks: &Networks,
) -> Result<()> {
    let gone: Vec<_> = gone.iter().filter(|(.., others)| !others.is_empty()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let records = host.records()?;
    for (id, _, others) in gone {
        let staying: BTreeSet<NetworkId> = others.iter().map(NicId::network).collect();
        go_on(host, &records, &id.machine(), staying.iter().filter_map(|id| networks.get(id)))?;
    }
    Ok(())
}

/// Has containers that run and have new nics ask on one of their networks, where the one on which they asked is gone.
pub(super) fn catch_up<'n>(
    host: &mut LinuxHost,
    networks: &Networks,
    new: impl Iterator<Item = &'n NicId>,
) -> Result<()> {
    let machines: BTreeSet<MachineId> = new.map(NicId::machine).collect();
    if machines.is_empty() {
        return Ok(());
    }
    let records = host.records()?;
    machines.iter().try_for_each(|machine| go_on(host, &records, machine, of_machine(networks, machine)))
}

/// Has a container that runs ask on the first of these networks, unless it does so on one of them; and with it those in
/// its network.
fn go_on<'n>(
    host: &LinuxHost,
    records: &Records,
    machine: &MachineId,
    networks: impl Iterator<Item = &'n ServedNetwork>,
) -> Result<()> {
    let wish = sharing::wish(records, machine);
    let texts: Vec<String> = networks.map(|network| text_by(Some(network), machine, wish)).collect();
    for id in sharing::with_sharers(records, machine) {
        let files = Files::new(&host.home, &id);
        let path = files.present().join("resolv.conf");
        let Some(mut assignment) = path.exists().then(|| load_assignment(&files)).flatten() else { continue };
        let Some(next) = next(&assignment.resolv_conf, &texts) else { continue };
        let before = std::mem::replace(&mut assignment.resolv_conf, next);
        // The file is in the hands of programs inside, which keep no nic by what they do to it.
        if let Err(error) = put(&path, &before, &assignment.resolv_conf) {
            tracing::warn!("{id} goes on asking for names where it did: {error:#}");
        }
        etc::assign(&files.assignment(), &assignment)?;
    }
    Ok(())
}

/// The text that takes the place of one, if that is about none of these networks and there is one at all.
fn next(now: &str, staying: &[String]) -> Option<String> {
    staying.first().filter(|_| staying.iter().all(|text| text != now)).cloned()
}

/// Puts a text in the place of what we wrote; what programs inside have made of it is theirs.
fn put(path: &Path, before: &str, after: &str) -> Result<()> {
    // One who was killed may have left empty lines.
    let lines = |text: &[u8]| text.trim_ascii_end().to_vec();
    let is_ours = |there: &[u8]| lines(there) == lines(before.as_bytes());
    etc::edit(path, |there| is_ours(there).then(|| after.as_bytes().to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn who_is_in_this_computers_network_asks_as_it_does_unless_told_otherwise() {
        let there = "# by hand\nsearch home\nnameserver 192.0.2.1\noptions edns0\n";
        let mut wish = Container::new("web".parse().unwrap());
        assert_eq!(on_this_computer(there, &wish), there);
        wish.dns = vec!["10.0.0.53".parse().unwrap()];
        assert_eq!(
            on_this_computer(there, &wish),
            "# by hand\nsearch home\noptions edns0\nnameserver 10.0.0.53\n"
        );
        wish.dns_search = vec!["x.test".to_owned()];
        assert_eq!(
            on_this_computer(there, &wish),
            "# by hand\noptions edns0\nnameserver 10.0.0.53\nsearch x.test\n"
        );
    }

    #[test]
    fn who_asks_on_a_network_that_stays_goes_on_asking_there() {
        let staying = ["b".to_owned(), "c".to_owned()];
        assert_eq!(next("a", &staying), Some("b".to_owned()));
        assert_eq!(next("c", &staying), None);
        assert_eq!(next("a", &[]), None);
    }

    #[test]
    fn a_text_is_replaced_in_its_file_and_one_that_was_changed_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 10.10.10.10\n").unwrap();
        put(&path, "nameserver 10.10.10.10\n", "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.0.0.1\n");
        put(&path, "nameserver 10.10.10.10\n", "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.0.0.1\n");
        fs::write(&path, "nameserver 10.0.0.1\n\n\n").unwrap();
        put(&path, "nameserver 10.0.0.1\n", "nameserver 10.0.0.3\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.0.0.3\n");
        fs::write(&path, "nameserver 10.0.0.1\n# mine\n").unwrap();
        put(&path, "nameserver 10.0.0.1\n", "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.0.0.1\n# mine\n");
    }
}
