//! The engine: the anchor with its namespaces, our rules in them, the way out, and the namespaces of
//! containers that somebody else runs.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use stead_model::address::{nth4, nth6};
use stead_model::name::{LinkName, MachineId};
use stead_model::observed::{Uplink, VethUplink};
use stead_model::project::Kind;
use stead_model::step::{Change, OwnVolumes, Step};
use stead_net::anchor;
use stead_net::kernel::nft::{Family, NftRequest, NftSocket};
use stead_net::kernel::rules::{self, HostUplink};
use stead_net::kernel::{
    Hop, LinkChange, NewLink, Peer, Route, RouteRequest, RouteSocket, Rule, RuleFamily, Veth, has_ipv6,
};
use stead_net::process::{self, ProcessId};
use stead_net::uplink::{self, Pasta, Target};

use super::LinuxHost;
use super::inside::{Inside, label};
use super::mark::Mark;
use super::network::{claim, release_claims, tolerate};
use super::nic::default_route;
use crate::home::{Home, remove_if_there, write_run_file};
use crate::state::Entry;
use crate::switchboard;

/// The anchor has nothing to save when it ends.
const ANCHOR_STOP_LIMIT: Duration = Duration::from_secs(5);

/// What stead is called with to be the anchor.
const ANCHOR_WORD: &str = "__anchor";

/// The engine routes between its links, believes no router, and answers on each link for that link alone.
const SYSCTLS: [(&str, &str); 10] = [
    // Taken over from the host where `net.core.devconf_inherit_init_net` says so.
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv4/conf/all/forwarding", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
];

/// Bridged frames are judged by the bridge's own table alone. Absent where br_netfilter is not loaded.
const BRIDGE_SYSCTLS: [&str; 3] =
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables", "bridge/bridge-nf-call-arptables"];

/// Before the main table, which would send a transparent socket's answers on to the client.
const PROXY_RULE_PRIORITY: u32 = 100;

/// What the anchor calls a machine's namespace.
pub fn namespace_label(id: &MachineId) -> Result<anchor::Label> {
    label(&id.to_string())
}

/// Makes the namespaces and our rules in them.
pub(super) fn start(host: &mut LinuxHost) -> Result<()> {
    host.inside = None;
    let run = host.home.run.clone();
    let client = match anchor::Client::connect(&run)? {
        Some(client) => client,
        None => anchor::spawn(&host.program, &[ANCHOR_WORD.into(), run.clone().into()], &run)?,
    };
    let mut inside = Inside::new(client)?;
    let ipv6 = has_ipv6();
    for (path, value) in SYSCTLS.into_iter().filter(|(path, _)| ipv6 || !path.starts_with("ipv6/")) {
        let path = path.parse().with_context(|| format!("`{path}` is no kernel parameter"))?;
        inside.anchor.set_sysctl(None, &path, value)?;
    }
    for path in BRIDGE_SYSCTLS {
        if Path::new("/proc/sys/net").join(path).exists() {
            let path = path.parse().with_context(|| format!("`{path}` is no kernel parameter"))?;
            inside.anchor.set_sysctl(None, &path, "0")?;
        }
    }
    let proxy = |family, everywhere| {
        let rule = Rule {
            family,
            mark: rules::PROXY_MARK,
            table: rules::PROXY_TABLE,
            priority: PROXY_RULE_PRIORITY,
        };
        let route = Route { to: everywhere, by: Hop::Local, table: rules::PROXY_TABLE };
        [RouteRequest::AddRule(rule), RouteRequest::AddRoute(route)]
    };
    let requests: Vec<RouteRequest<'_>> = proxy(RuleFamily::V4, IpNet::V4(Ipv4Net::default()))
        .into_iter()
        .chain(proxy(RuleFamily::V6, IpNet::V6(Ipv6Net::default())).into_iter().filter(|_| ipv6))
        .collect();
    tolerate(inside.route.send(&requests)?, rustix::io::Errno::EXIST)?;
    // Last, as their presence is the sign that the engine is whole.
    inside
        .nft
        .run(&[NftRequest::Replace(rules::guard_table()), NftRequest::Replace(rules::engine_table())])
        .context("cannot write the engine's rules")?;
    host.inside = Some(inside);
    Ok(())
}

/// Takes the engine away, or what is left of one that was cut off.
pub(super) fn stop(host: &mut LinuxHost) -> Result<()> {
    let id = host.home_id()?;
    raze(host, &[id])?;
    // Machines of ours only lose their networks.
    let lost = host.records()?.machines.into_iter().filter(|(_, state)| state.goes_with_engine());
    let entries: Vec<Entry> = lost.map(|(id, _)| Entry::NoMachine(id)).collect();
    host.store(&entries)
}

/// Takes the engine away by what the kernel and the run directory say alone. The home may have had several
/// marks. It goes on after a failure, so that as much as possible goes.
pub(super) fn raze(host: &mut LinuxHost, ids: &[String]) -> Result<()> {
    if host.inside.is_none() {
        // One that does not answer keeps nothing of the computer's that could be asked for.
        host.inside = Inside::connect(&host.home.run).unwrap_or_default();
    }
    let bridged = super::bridged::give_all_back(host.inside.as_ref());
    host.inside = None;
    host.bridges.clear();
    let home = &host.home;
    let mut results = vec![switchboard::stop(home), bridged];
    results.extend(ids.iter().map(|id| remove_host_uplink(id)));
    results.extend([uplink::stop(&home.run), stop_anchor(home), forget_run_files(home)]);
    let mut failures = results.into_iter().filter_map(Result::err);
    let Some(first) = failures.next() else { return Ok(()) };
    Err(failures.fold(first, |error, more| error.context(format!("{more:#}"))))
}

fn stop_anchor(home: &Home) -> Result<()> {
    if let Ok(Some(client)) = anchor::Client::connect(&home.run) {
        // One that hangs, or is on its way, is ended by force below.
        let _hangs = client.quit();
    }
    for process in anchors(home)? {
        process.kill(rustix::process::Signal::KILL)?;
        if !process.wait_gone(ANCHOR_STOP_LIMIT)? {
            bail!("the anchor (process {}) cannot be ended", process.pid);
        }
    }
    Ok(())
}

/// The anchor's process; also one that whoever started it did not live to see.
pub(super) fn anchors(home: &Home) -> Result<Vec<ProcessId>> {
    let run = home.run.as_os_str().as_bytes();
    let mut found = process::find(|words| words.get(1..) == Some(&[ANCHOR_WORD.as_bytes(), run]))?;
    found.retain(|process| process::sees(*process, &home.run));
    Ok(found)
}

fn forget_run_files(home: &Home) -> Result<()> {
    let names = [
        "anchor.pid",
        "anchor.sock",
        "served.json",
        "strangers.json",
        "uplink.json",
        "uplink-end.json",
        "pasta.pid",
    ];
    names.iter().try_for_each(|name| remove_if_there(&home.run.join(name)))
}

/// Makes the namespaces of containers that somebody else runs; other machines are a record.
pub(super) fn add_machines(host: &mut LinuxHost, steps: &[&Step]) -> Result<()> {
    let machines: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::MachineAdd(id, state, _) | Step::MachineChange(id, Change { to: state, .. }) => {
                Some((id, state))
            }
            _ => None,
        })
        .collect();
    let needs_engine = machines.iter().any(|(_, state)| state.goes_with_engine());
    let existing = if needs_engine { host.inside()?.anchor.list()? } else { Vec::new() };
    for (id, state) in &machines {
        let name = namespace_label(id)?;
        if state.is_ours() {
            super::machine::add(host, id, state)?;
        } else if state.kind == Kind::Container && !existing.contains(&name) {
            host.inside()?.anchor.make(&name)?;
        }
    }
    let entries: Vec<Entry> =
        machines.iter().map(|(id, state)| Entry::Machine((*id).clone(), (*state).clone())).collect();
    host.store(&entries)?;
    machines.iter().try_for_each(|(id, _)| super::aside::give_back(&host.home, id))?;
    host.hand_over()
}

/// Lets go of containers' namespaces, and forgets machines.
pub(super) fn remove_machines(host: &mut LinuxHost, steps: &[&Step]) -> Result<()> {
    let machines: Vec<(&MachineId, OwnVolumes)> = steps
        .iter()
        .filter_map(|step| if let Step::MachineRemove(id, _, own) = step { Some((id, *own)) } else { None })
        .collect();
    if let Some(inside) = &mut host.inside {
        let existing = inside.anchor.list()?;
        for (id, _) in &machines {
            let name = namespace_label(id)?;
            if existing.contains(&name) {
                inside.anchor.drop_namespace(&name)?;
            }
        }
    }
    for (id, own) in &machines {
        match own {
            OwnVolumes::Stay => super::aside::set(&host.home, id)?,
            OwnVolumes::Go => drop(super::aside::forget(&host.home, |other| other == *id)?),
        }
        super::machine::remove(&host.home, id)?;
    }
    let entries: Vec<Entry> = machines.into_iter().map(|(id, _)| Entry::NoMachine(id.clone())).collect();
    let stored = host.store(&entries);
    super::going::tidy(&host.home, &host.program)?;
    // Where the disk was full there is room now.
    stored.or_else(|_| host.store(&entries))?;
    super::vm::tidy(host)
}

/// Gives the engine a way out.
pub(super) fn add_uplink(host: &mut LinuxHost, uplink: &Uplink) -> Result<()> {
    let id = host.home_id()?;
    let run = host.home.run.clone();
    let (record, end_record) = (host.home.uplink(), host.home.uplink_end());
    let inside = host.inside()?;
    // Both kinds have the same link inside, and a command may have been killed while it made the other one.
    match uplink {
        Uplink::Veth(veth) => {
            uplink::stop(&run)?;
            add_veth_uplink(inside, &id, veth)?;
        }
        Uplink::Pasta => {
            remove_host_uplink(&id)?;
            let program = stead_net::uplink::program()
                .ok_or_else(|| anyhow!("`pasta` is not in PATH; hint: install passt"))?;
            let target = Target::of(inside.anchor.process());
            let way_out = super::facts::told_way_out()?;
            uplink::start(&program, &Pasta { dir: run, target, way_out, mtu: None })?;
        }
    }
    let doing = "cannot write the uplink's record";
    let end = serde_json::to_vec(&super::observe::FarEnd::observe(&inside.route)?.has).context(doing)?;
    write_run_file(&end_record, &end)?;
    write_run_file(&record, &serde_json::to_vec(uplink).context(doing)?)
}

/// Takes the way out away.
pub(super) fn remove_uplink(host: &mut LinuxHost, uplink: &Uplink) -> Result<()> {
    match uplink {
        Uplink::Veth(_) => {
            remove_host_uplink(&host.home_id()?)?;
            release_claims(host.inside()?)?;
        }
        Uplink::Pasta => uplink::stop(&host.home.run)?,
    }
    remove_if_there(&host.home.uplink_end())?;
    remove_if_there(&host.home.uplink())
}

/// A veth pair: its host's end is ours in the host's namespace, forwards, and is translated by chains of ours.
fn add_veth_uplink(inside: &mut Inside, home: &str, veth: &VethUplink) -> Result<()> {
    let transfer = [Some(IpNet::V4(veth.transfer.trunc())), veth.transfer6.map(|net| IpNet::V6(net.trunc()))];
    claim(inside, transfer.into_iter().flatten())?;
    let outside = RouteSocket::open()?;
    // What is left of one that was cut off.
    outside.delete_links(std::slice::from_ref(&veth.link))?;
    let engine = fs::File::open(format!("/proc/{}/ns/net", inside.anchor.process().pid))
        .context("cannot open the engine's namespace")?;
    let name: LinkName = uplink::LINK.parse()?;
    let link = NewLink {
        name: veth.link.clone(),
        alias: Mark::Uplink(home.to_owned()).to_string(),
        mac: None,
        mtu: None,
        group: 0,
    };
    let peer = Peer { netns: Some(engine.as_fd()), name: name.clone(), mac: None, mtu: None, group: 0 };
    let mut requests = vec![RouteRequest::AddVeth(Veth { link, port: None, peer })];
    requests.push(RouteRequest::AddAddress(veth.link.clone(), IpNet::V4(veth.transfer)));
    requests.extend(veth.transfer6.map(|net| RouteRequest::AddAddress(veth.link.clone(), IpNet::V6(net))));
    let neighbours = LinkChange { link_local: Some(true), ..LinkChange::default() };
    requests.push(RouteRequest::ChangeLink(veth.link.clone(), neighbours.clone()));
    outside.run(&requests).context("cannot make the uplink")?;
    // Packets from the engine are forwarded by this link's own setting; the computer's stay as they are.
    for path in forwarding(&veth.link).filter(|path| path.exists()) {
        fs::write(&path, "1").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let up = LinkChange { up: Some(true), ..neighbours };
    let far = |net: Ipv4Net| Ipv4Net::new(nth4(net.trunc(), 2)?, net.prefix_len()).ok();
    let far6 = |net: Ipv6Net| Ipv6Net::new(nth6(net.trunc(), 2)?, net.prefix_len()).ok();
    let ends = [
        far(veth.transfer).map(|end| (IpNet::V4(end), IpNet::V4(veth.transfer))),
        veth.transfer6.and_then(|net| Some((IpNet::V6(far6(net)?), IpNet::V6(net)))),
    ];
    let ends = ends.into_iter().flatten().flat_map(|(own, router)| {
        [RouteRequest::AddAddress(name.clone(), own), RouteRequest::AddRoute(default_route(router, &name))]
    });
    let requests: Vec<RouteRequest<'_>> =
        [RouteRequest::ChangeLink(name.clone(), up)].into_iter().chain(ends).collect();
    inside.route.run(&requests).context("cannot set up the uplink's far end")?;
    let chains = rules::host_chains(&HostUplink {
        home: home.to_owned(),
        link: veth.link.clone(),
        subnet: veth.transfer.trunc(),
        subnet6: veth.transfer6.map(|net| net.trunc()),
    });
    NftSocket::open()?
        .run(&[NftRequest::SetChains(Family::Inet, rules::TABLE, chains)])
        .context("cannot write the uplink's rules in the host's namespace")
}

/// The settings that say whether packets from a link are forwarded.
fn forwarding(link: &LinkName) -> impl Iterator<Item = PathBuf> {
    ["ipv4", "ipv6"].map(|family| format!("/proc/sys/net/{family}/conf/{link}/forwarding").into()).into_iter()
}

/// Whether packets from a link of ours are forwarded.
pub(super) fn forwards(link: &LinkName) -> bool {
    forwarding(link)
        .all(|path| fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") || !path.exists())
}

/// Takes our link and our chains out of the host's namespace, whatever there is of them.
fn remove_host_uplink(home: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let outside = RouteSocket::open()?;
    let mark = Mark::Uplink(home.to_owned()).to_string();
    let ours: Vec<LinkName> =
        outside.own_links()?.into_iter().filter(|link| link.alias == mark).map(|link| link.name).collect();
    outside.delete_links(&ours).context("cannot delete the uplink")?;
    NftSocket::open()?
        .remove_chains(Family::Inet, rules::TABLE, &rules::host_chain_names(home))
        .context("cannot take the uplink's rules away")
}
