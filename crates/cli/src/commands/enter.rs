//! `network enter`.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;

use stead_model::name::MachineId;
use stead_model::observed::{Engine, Observed};
use stead_model::project::Kind;

use crate::args::{EnterArgs, Global};
use crate::failure::Failure;
use crate::session::look;

/// Becomes a program among the networks, by way of a process of ours that has one thread.
pub(crate) fn run(global: &Global, args: &EnterArgs) -> Result<ExitCode, Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let mut command =
        std::process::Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("__enter").arg(&host.home().run);
    if let Some(text) = &args.machine {
        let here = super::here::project_here(global, std::slice::from_ref(text), &seen)?;
        let id = match *super::ps::meant(global, text, here.as_ref(), &seen) {
            [id] => id,
            // Several that have the name in common.
            [id, ref more @ ..]
                if !text.contains('*') && more.iter().all(|more| more.project == id.project) =>
            {
                id
            }
            [] => {
                let what = format!("there is no machine `{text}`");
                return Err(Failure::request(&what, "`stead ps --all` lists them"));
            }
            ref several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                let what = format!("`{text}` may be any of {}", names.join(", "));
                return Err(Failure::request(&what, "name it in full"));
            }
        };
        let Some(state) = seen.machines.get(id) else {
            return Err(anyhow::anyhow!("machine `{id}` is gone").into());
        };
        if state.kind != Kind::Container {
            let what = format!("machine `{id}` is a {}: it has no network namespace", state.kind);
            return Err(Failure::request(&what, "give its TAP to the program that runs it"));
        }
        if state.is_on_host() {
            let what = format!("machine `{id}` is in this computer's network");
            return Err(Failure::request(&what, "run the program as it is: it is there already"));
        }
        let owner = seen.owner_of(id);
        command.arg("--namespace").arg(owner.to_string());
        if let Some(text) = resolv_conf(&owner, &seen) {
            command.arg("--resolv-conf").arg(text);
        }
    }
    if seen.engine != Engine::Present {
        let hint = "`stead up` brings those of a project file, `stead network create` makes one without";
        return Err(Failure::request("there is no network to enter: nothing is up", hint));
    }
    let error = command.arg("--").args(&args.command).exec();
    Err(anyhow::Error::new(error).context("cannot run this program again").into())
}

/// The `/etc/resolv.conf` of a container: what DHCP would tell it on the first of its networks that stead serves.
fn resolv_conf(id: &MachineId, seen: &Observed) -> Option<String> {
    let nics = seen.nics.iter().filter(|(nic, _)| nic.machine() == *id);
    let mut named: Vec<_> =
        nics.filter_map(|(nic, state)| Some((state.end.order()?, nic.network()))).collect();
    named.sort();
    named.into_iter().find_map(|(_, network)| {
        let network = seen.networks.get(&network)?;
        let domain = &network.service.as_ref()?.domain;
        let v4 = network.gateway.map(|net| IpAddr::V4(net.addr()));
        let server = v4.or(network.gateway6.map(|net| IpAddr::V6(net.addr())))?;
        Some(format!("nameserver {server}\nsearch {domain}\n"))
    })
}
