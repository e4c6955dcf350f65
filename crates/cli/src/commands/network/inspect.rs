//! `network inspect`.

use std::net::IpAddr;

use anyhow::Context as _;
use serde::Serialize;

use stead_host::switchboard::{self, PortReport, Report, Request, Stranger};
use stead_model::name::NetworkId;
use stead_model::observed::NetworkState;
use stead_model::project::Reach;

use super::{find, join};
use crate::args::Global;
use crate::failure::Failure;
use crate::output::{Output, note, table};
use crate::session::look;
use crate::working::Working;

#[derive(Serialize)]
struct Inspection {
    name: String,
    project: String,
    #[serde(flatten)]
    state: NetworkState,
    uplink: Option<String>,
    machines: Vec<Inspected>,
    ports: std::collections::BTreeMap<String, PortReport>,
    strangers: Vec<Stranger>,
}

#[derive(Serialize)]
struct Inspected {
    machine: String,
    link: String,
    mac: String,
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

pub(super) fn inspect(global: &Global, network: &str, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let id = find(global, network, &seen)?;
    let state = seen.networks.get(&id).cloned().context("the network is gone")?;
    let working = Working::on("the switchboard's answer");
    let report = match switchboard::ask(host.home(), Request::Status) {
        Ok(Some(report)) => report,
        Ok(None) if state.service.is_none() => Report::default(),
        Ok(None) => {
            note("no switchboard runs, so nothing is served here; hint: `stead up` starts it");
            Report::default()
        }
        Err(error) => {
            note(&format!("what is served here cannot be told: {error:#}; hint: `stead up` starts another"));
            Report::default()
        }
    };
    drop(working);
    let machines = seen.nics.iter().filter(|(nic, _)| nic.network() == id).map(|(nic, state)| Inspected {
        machine: nic.machine_called(),
        link: state.link.to_string(),
        mac: state.lease.mac.to_string(),
        addresses: state.lease.addresses(),
        names: state.names.iter().map(ToString::to_string).collect(),
    });
    let machines: Vec<Inspected> = machines.collect();
    let ports = report.ports.into_iter().filter(|(bind, _)| {
        let target = seen.ports.get(bind);
        target.is_some_and(|target| machines.iter().any(|m| m.addresses.contains(&target.address)))
    });
    let inspection = Inspection {
        name: id.name.to_string(),
        project: id.project.to_string(),
        uplink: seen.uplink.as_ref().filter(|_| state.reach == Reach::Nat).map(ToString::to_string),
        ports: ports.map(|(bind, port)| (bind.to_string(), port)).collect(),
        strangers: report.strangers.get(&id).cloned().unwrap_or_default(),
        machines,
        state,
    };
    output.data(&inspection, || inspection_text(&id, &inspection)).map_err(Failure::from)
}

fn inspection_text(id: &NetworkId, inspection: &Inspection) -> String {
    let state = &inspection.state;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let mut lines = vec![
        format!("network   {id}"),
        format!(
            "subnet    {}",
            or_none(state.gateway.map(|net| format!("{} (gateway {})", net.trunc(), net.addr())))
        ),
        format!(
            "subnet6   {}",
            or_none(state.gateway6.map(|net| format!("{} (gateway {})", net.trunc(), net.addr())))
        ),
        format!("reach     {}", state.reach),
        format!("uplink    {}", or_none(inspection.uplink.clone())),
        format!("joins     {}", or_none(join(state.joins.iter()))),
        format!("mtu       {}", state.mtu),
        format!("bridge    {} {}", state.link, state.mac),
        format!("domain    {}", or_none(state.service.as_ref().map(|service| service.domain.clone()))),
    ];
    let pool = state.service.as_ref().and_then(|s| s.dhcp.as_ref()).and_then(|dhcp| dhcp.pool);
    lines.push(format!("strangers {}", or_none(pool.map(|(first, last)| format!("{first} to {last}")))));
    let rows = inspection.machines.iter().map(|machine| {
        let addresses = join(machine.addresses.iter()).unwrap_or_default();
        vec![
            machine.machine.clone(),
            machine.mac.clone(),
            addresses,
            machine.names.join(","),
            machine.link.clone(),
        ]
    });
    let strangers = inspection.strangers.iter().map(|stranger| {
        let name = stranger.name.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            "(stranger)".to_owned(),
            stranger.mac.clone(),
            stranger.address.to_string(),
            name,
            "-".to_owned(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.chain(strangers).collect();
    let ports = inspection.ports.iter().map(|(bind, port)| {
        let error = port.error.clone().unwrap_or_else(|| "open".to_owned());
        vec![
            bind.clone(),
            port.live.to_string(),
            port.bytes_in.to_string(),
            port.bytes_out.to_string(),
            error,
        ]
    });
    let ports: Vec<Vec<String>> = ports.collect();
    let mut text =
        lines.join("\n") + "\n\n" + &table(&["MACHINE", "MAC", "ADDRESSES", "NAMES", "LINK"], &rows);
    if !ports.is_empty() {
        text += &("\n".to_owned() + &table(&["PORT", "LIVE", "BYTES IN", "BYTES OUT", "STATE"], &ports));
    }
    text
}
