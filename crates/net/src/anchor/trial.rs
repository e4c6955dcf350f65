//! Trying what an engine is made of, in namespaces that end with the process that tries.

use anyhow::{Context, Result};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use stead_model::name::LinkName;

use super::{isolate, mapped, sys};
use crate::kernel::nft::{NftRequest, NftSocket};
use crate::kernel::{NewLink, Peer, Port, PortFlags, RouteRequest, RouteSocket, Veth, rules};

/// How it went. What is `None` can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// How many user ids an engine has.
    pub ids: u64,
    /// Why there can be no bridge.
    pub bridge: Option<String>,
    /// Why there can be no veth pair.
    pub veth: Option<String>,
    /// Why our rules cannot be written.
    pub rules: Option<String>,
    /// The parts of nftables that they lack: modules, or options (`CONFIG_…`) of the kernel.
    pub parts: Vec<String>,
}

/// Makes a bridge, a veth pair and our rules, as an engine does. Must be called in a program with one thread, by
/// [`super::run_as_root`]. The kernel may load its modules for that, as it does for an engine.
pub fn try_networks() -> Result<Trial> {
    mapped::become_root()?;
    sys::unshare(UnshareFlags::NEWNET).context("cannot make a network namespace")?;
    isolate::loopback_up().context("cannot bring `lo` up")?;
    let map = std::fs::read_to_string("/proc/self/uid_map").context("cannot read `/proc/self/uid_map`")?;
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    let mut trial = Trial { ids: counts.sum(), ..Trial::default() };
    let route = RouteSocket::open()?;
    let bridge: LinkName = "stead-try".parse().context("no name of a link")?;
    trial.bridge = why(route.run(&[RouteRequest::AddBridge(link(&bridge))]));
    let port = trial.bridge.is_none().then(|| Port { bridge, flags: PortFlags::default() });
    trial.veth = why(route.run(&[RouteRequest::AddVeth(veth(port)?)]));
    let tables = [rules::guard_table(), rules::engine_table()].map(NftRequest::Replace);
    match NftSocket::open() {
        Ok(socket) => {
            trial.rules = why(socket.run(&tables));
            if trial.rules.is_some() {
                trial.parts = socket.missing(&tables)?.into_iter().map(str::to_owned).collect();
            }
        }
        Err(error) => trial.rules = Some(format!("{error:#}")),
    }
    Ok(trial)
}

fn why(done: Result<()>) -> Option<String> {
    done.err().map(|error| format!("{error:#}"))
}

fn link(name: &LinkName) -> NewLink {
    NewLink { name: name.clone(), alias: "stead:trial".to_owned(), mac: None, mtu: None, group: 0 }
}

fn veth(port: Option<Port>) -> Result<Veth<'static>> {
    let [near, far] = ["stead-try0", "stead-try1"].map(str::parse::<LinkName>);
    let (near, name) = (near.context("no name of a link")?, far.context("no name of a link")?);
    Ok(Veth { link: link(&near), port, peer: Peer { netns: None, name, mac: None, mtu: None, group: 0 } })
}
