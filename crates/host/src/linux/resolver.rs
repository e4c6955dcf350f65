//! Whom a container asks for names: its `/etc/resolv.conf`. A network's name server answers on that network alone, so
//! when the nic goes by which it is reached, another one is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};

use stead_model::name::{MachineId, NetworkId, NicId};
use stead_model::observed::{Body, MadeContainer, NicState};
use stead_model::served::ServedNetwork;

use super::LinuxHost;
use super::machine::load_assignment;
use crate::home::write_run_file;
use crate::machine::{Assignment, Files};

type Networks = BTreeMap<NetworkId, ServedNetwork>;

/// The `/etc/resolv.conf` of a machine: whom it was told to ask, else the first of its networks that is served.
pub(super) fn text(networks: &Networks, id: &MachineId, made: &MadeContainer) -> String {
    let mut own = networks.iter().filter(|(network, served)| {
        network.project == id.project && served.hosts.values().any(|host| host.name == id.name)
    });
    text_by(own.next().map(|(_, network)| network), made)
}

fn text_by(network: Option<&ServedNetwork>, made: &MadeContainer) -> String {
    let mut text = String::new();
    let gateway = network.and_then(|network| {
        let v4 = network.gateway.map(|net| IpAddr::V4(net.addr()));
        v4.or(network.gateway6.map(|net| IpAddr::V6(net.addr())))
    });
    let servers: Vec<IpAddr> =
        if made.wish.dns.is_empty() { gateway.into_iter().collect() } else { made.wish.dns.clone() };
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let own = network.map(|network| network.domain.clone());
    let search: Vec<String> = if made.wish.dns_search.is_empty() {
        own.into_iter().collect()
    } else {
        made.wish.dns_search.clone()
    };
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
    for (id, _, others) in gone.iter().filter(|(.., others)| !others.is_empty()) {
        let machine = id.machine();
        let files = Files::new(&host.home, &machine);
        let path = files.present().join("resolv.conf");
        let Some(mut assignment) = path.exists().then(|| load_assignment(&files)).flatten() else { continue };
        let state = host.records()?.machines.remove(&machine);
        let Some(Body::Container(made)) = state.map(|state| state.body) else { continue };
        let staying: BTreeSet<NetworkId> = others.iter().map(NicId::network).collect();
        let staying = staying.iter().filter_map(|id| networks.get(id));
        let staying: Vec<String> = staying.map(|network| text_by(Some(network), &made)).collect();
        let Some(next) = next(&assignment.resolv_conf, &staying) else { continue };
        let before = std::mem::replace(&mut assignment.resolv_conf, next);
        put(&path, &before, &assignment.resolv_conf)?;
        assign(&files.assignment(), &assignment)?;
    }
    Ok(())
}

/// The text that takes the place of one, if that is about none of the networks that stay and there is one at all.
fn next(now: &str, staying: &[String]) -> Option<String> {
    staying.first().filter(|_| staying.iter().all(|text| text != now)).cloned()
}

/// Tells the keeper, who asks when it starts the machine again. When the file was written says when it was started first.
fn assign(path: &Path, assignment: &Assignment) -> Result<()> {
    let text = serde_json::to_vec(assignment).context("cannot write an assignment as JSON")?;
    let begun = fs::metadata(path).and_then(|metadata| metadata.modified());
    let begun = begun.with_context(|| format!("cannot read {}", path.display()))?;
    write_run_file(path, &text)?;
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_modified(begun)).with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a text in the place of what we wrote; what programs inside have made of it is theirs. In the same file, as that
/// is mounted; what is there is never nothing.
fn put(path: &Path, before: &str, after: &str) -> Result<()> {
    if fs::read(path).ok().as_deref() != Some(before.as_bytes()) {
        return Ok(());
    }
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| {
        file.write_all(after.as_bytes())?;
        file.set_len(after.len() as u64)
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
    }
}
