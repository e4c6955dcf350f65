//! What machines of commands have for their own, and nobody else may have.

use stead_model::name::{MachineId, Name, NetworkId};
use stead_model::project::{Project, Subnet};

use crate::args::ConnectArgs;
use crate::failure::Failure;
use crate::session::Session;

/// Refuses what a machine that a command makes or connects is to have for its own, and another one has got: a file's wish
/// moves others to other addresses, and its plan shows that; a command's does not.
pub(in crate::commands) fn leases_are_free(
    session: &mut Session,
    project: &Project,
    name: &Name,
) -> Result<(), Failure> {
    let seen = session.observe()?;
    let own = MachineId::new(&project.name, name);
    let nics = project.machines.get(name).into_iter().flat_map(|machine| &machine.nics);
    for nic in nics {
        let others = seen
            .leases
            .iter()
            .filter(|(id, _)| id.network() == project.network(&nic.network) && id.machine() != own);
        for (id, lease) in others {
            let v4 = nic.address.filter(|address| lease.address == Some(*address)).map(|a| a.to_string());
            let v6 = nic.address6.filter(|address| lease.address6 == Some(*address)).map(|a| a.to_string());
            let mac = nic.mac.filter(|mac| lease.mac == *mac).map(|mac| mac.to_string());
            if let Some(taken) = v4.or(v6).or(mac) {
                let what = format!(
                    "machine `{}` has `{taken}` on network `{}` already",
                    id.machine_called(),
                    id.network
                );
                return Err(Failure::request(
                    &what,
                    "choose another, or leave it out: the next free one is taken",
                ));
            }
        }
    }
    Ok(())
}

/// A fixed address is one of a fixed subnet: an automatic one becomes the one that was chosen.
pub(super) fn pin_subnets(
    session: &mut Session,
    project: &mut Project,
    args: &ConnectArgs,
) -> Result<(), Failure> {
    let seen = session.observe()?;
    let state = seen.networks.get(&NetworkId::new(&project.name, &args.network));
    if let (Some(network), Some(state)) = (project.networks.get_mut(&args.network), state) {
        if let (Subnet::Auto, Some(net), Some(_)) = (network.subnet, state.gateway, args.address) {
            network.subnet = Subnet::Given(net.trunc());
        }
        if let (Subnet::Auto, Some(net), Some(_)) = (network.subnet6, state.gateway6, args.address6) {
            network.subnet6 = Subnet::Given(net.trunc());
        }
    }
    Ok(())
}
