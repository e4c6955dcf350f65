//! What the switchboard serves: the file is changed whole, then the switchboard reads it again and says how
//! it went.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};

use stead_model::name::{MachineId, NetworkId, NicId};
use stead_model::observed::{Lease, NetworkState, NicState};
use stead_model::project::{Bind, Reach};
use stead_model::served::{Keeper, Served, ServedHost, ServedNetwork, Target};
use stead_model::step::Step;

use super::LinuxHost;
use crate::machine::Files;
use crate::switchboard::{self, Report, find_served, load_served, mark, resting, store_served};

/// What to do about a port that cannot be opened, whyever.
const PORT_HINT: &str = "mend that and run the command again, or publish another port";

/// Changes what is served, and has it served.
pub(super) fn edit(host: &LinuxHost, change: impl FnOnce(&mut Served)) -> Result<Report> {
    change_file(host, change)?;
    // It may have been killed just now, or hang.
    let report = switchboard::start(&host.home, &host.program)?;
    check_serves(host, &report).map(|()| report)
}

/// Takes away from what is served. Where no switchboard lives nothing is served any more, and that is that; one that
/// hangs is ended, and a later step or command starts another.
pub(super) fn forget(host: &LinuxHost, change: impl FnOnce(&mut Served)) -> Result<()> {
    change_file(host, change)?;
    let report = switchboard::reload_or_end(&host.home)?;
    report.map_or(Ok(()), |report| check_serves(host, &report))
}

fn change_file(host: &LinuxHost, change: impl FnOnce(&mut Served)) -> Result<()> {
    let before = find_served(&host.home);
    let mut after = before.clone().unwrap_or_default();
    // What rests is nobody's any more.
    let resting = resting(&after);
    after.ports.retain(|bind, _| !resting.contains(bind));
    after.keepers.retain(|bind, _| !resting.contains(bind));
    change(&mut after);
    // Those of a machine that runs are followed, whoever opened them and was killed before it could say so.
    let unfollowed = |bind: &Bind| !after.keepers.contains_key(bind);
    let unfollowed: BTreeSet<Bind> = after.ports.keys().filter(|bind| unfollowed(bind)).copied().collect();
    follow(host, &mut after, |bind, _| unfollowed.contains(bind));
    let ports = &after.ports;
    after.keepers.retain(|bind, _| ports.contains_key(bind));
    if before.as_ref() != Some(&after) {
        store_served(&host.home, &after)?;
    }
    Ok(())
}

/// Starts the switchboard, which serves what its file says.
pub(super) fn start(host: &LinuxHost) -> Result<()> {
    if find_served(&host.home).is_none() && host.home.served().exists() {
        // What was served cannot be known any more; the steps that follow say it anew.
        store_served(&host.home, &Served::default())?;
    }
    let report = switchboard::start(&host.home, &host.program)?;
    check_serves(host, &report)
}

/// Whether the switchboard serves what the file says.
fn check_serves(host: &LinuxHost, report: &Report) -> Result<()> {
    let text = std::fs::read(host.home.served()).unwrap_or_default();
    if report.serves != mark(&text) {
        bail!(
            "the switchboard did not take over what to serve; see {}",
            host.home.run.join("switchboard.log").display()
        );
    }
    Ok(())
}

/// Publishes ports. One that is taken does not keep the others closed.
pub(super) fn open_ports(host: &LinuxHost, steps: &[&Step]) -> Vec<Result<()>> {
    let wanted: BTreeMap<_, _> = steps
        .iter()
        .filter_map(|step| match step {
            Step::PortAdd(bind, target, _) => Some((*bind, target.clone())),
            _ => None,
        })
        .collect();
    let publish = |served: &mut Served| {
        served.keepers.retain(|bind, _| !wanted.contains_key(bind));
        served.ports.extend(wanted.clone());
    };
    let report = match edit(host, publish) {
        Ok(report) => report,
        Err(error) => return super::together(steps, Err(error)),
    };
    let failed = |step: &&Step| match step {
        Step::PortAdd(bind, ..) => report.ports.get(bind).and_then(|port| port.error.clone()),
        _ => None,
    };
    let results: Vec<Result<()>> = steps
        .iter()
        .map(|step| failed(step).map_or(Ok(()), |why| Err(anyhow!("{why}; hint: {PORT_HINT}"))))
        .collect();
    // A port that could not be opened is not published: it must not open by itself later.
    let closed = results.iter().any(Result::is_err).then(|| {
        edit(host, |served| {
            served.ports.retain(|bind, _| {
                !wanted.contains_key(bind) || report.ports.get(bind).is_none_or(|port| port.error.is_none())
            });
        })
    });
    match closed {
        Some(Err(error)) => super::together(steps, Err(error)),
        Some(Ok(_)) | None => results,
    }
}

/// Has the ports of machines that were just started close when those end; of one that does not run they close now.
pub(super) fn follow_started(host: &LinuxHost, ids: &[&MachineId]) -> Result<()> {
    let is_started = |target: &Target| ids.contains(&&target.machine);
    if !load_served(&host.home).ports.values().any(is_started) {
        return Ok(());
    }
    let followed = |served: &mut Served| {
        follow(host, served, |_, machine| ids.contains(&machine));
        let keepers = &served.keepers;
        served.ports.retain(|bind, target| !is_started(target) || keepers.contains_key(bind));
    };
    edit(host, followed).map(drop)
}

/// Notes who looks after the machines of these ports, if they run.
fn follow(host: &LinuxHost, served: &mut Served, is_meant: impl Fn(&Bind, &MachineId) -> bool) {
    for (bind, target) in served.ports.iter().filter(|(bind, target)| is_meant(bind, &target.machine)) {
        // One that cannot be found out about does not run, as far as anybody can tell.
        let keeper = Files::new(&host.home, &target.machine).keeper().ok().flatten();
        let keeper = keeper.map(|keeper| Keeper { pid: keeper.pid, start_time: keeper.start_time });
        served.keepers.extend(keeper.map(|keeper| (*bind, keeper)));
    }
}

/// Closes published ports.
pub(super) fn close_ports(host: &LinuxHost, steps: &[&Step]) -> Result<()> {
    let change = |served: &mut Served| {
        for step in steps {
            if let Step::PortRemove(bind, _) = step {
                served.ports.remove(bind);
            }
        }
    };
    forget(host, change)
}

/// What is served on a network, its machines aside.
pub(super) fn network(id: &NetworkId, state: &NetworkState, hosts: ServedHosts) -> Option<ServedNetwork> {
    let service = state.service.as_ref()?;
    Some(ServedNetwork {
        link: state.link.clone(),
        mac: state.mac,
        mtu: state.mtu,
        gateway: state.gateway,
        gateway6: state.gateway6,
        routes: state.reach == Reach::Nat || !state.joins.is_empty(),
        resolves: state.reach == Reach::Nat,
        dhcp: service.dhcp.clone(),
        domain: service.domain.clone(),
        hosts,
        joins: state.joins.iter().map(|name| NetworkId::new(&id.project, name)).collect(),
    })
}

type ServedHosts = BTreeMap<stead_model::address::Mac, ServedHost>;

/// A nic, to the services.
pub(super) fn host(id: &NicId, state: &NicState) -> ServedHost {
    let aliases = state.names.iter().filter(|name| name.as_str() != id.machine.as_str()).cloned().collect();
    let project = id.is_external().then(|| id.project.clone());
    let Lease { address, address6, .. } = state.lease;
    ServedHost { name: id.machine.clone(), project, aliases, address, address6, calls: state.calls }
}
