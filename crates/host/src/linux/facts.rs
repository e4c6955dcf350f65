//! What of this computer bears on a plan: its routes, the claims of other homes, and which ways out work.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use ipnet::IpNet;

use stead_model::name::LinkName;
use stead_model::observed::{HostFacts, HostLink, Lack, Taken, Uplinks};
use stead_net::anchor::Label;
use stead_net::kernel::nft::NftSocket;
use stead_net::kernel::{Address, Hop, Link, LinkKind, MAIN_TABLE, Route, RouteSocket, rules};

use super::claims;
use super::mark::Mark;
use super::network::claim_name;

/// Where pasta is looked for besides `PATH`, which for root may lack nothing and for others often does.
const MORE_PATHS: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// The kernel's number of the forward hook.
const HOOK_FORWARD: u32 = 2;

/// Looks at the computer. `held` is what our own anchor holds.
pub(super) fn observe(home: &str, held: &[Label]) -> Result<HostFacts> {
    let outside = RouteSocket::open()?;
    let links = outside.links()?;
    let routes = outside.routes(Some(MAIN_TABLE))?;
    let addresses = outside.addresses()?;
    let own_uplink = Mark::Uplink(home.to_owned()).to_string();
    let ours: Vec<&LinkName> =
        links.iter().filter(|link| link.alias == own_uplink).map(|link| &link.name).collect();
    let is_held = |net: &IpNet| held.iter().any(|label| label.as_str() == claim_name(*net));
    let claimed = claims::observe()?.into_iter().filter(|net| !is_held(net)).map(|net| (net, Taken::Home));
    let routed = routes.iter().filter_map(|route| match &route.by {
        Hop::Via(_, link) | Hop::Link(link) if !ours.contains(&link) => {
            Some((route.to.trunc(), Taken::Route(link.clone())))
        }
        Hop::Via(..) | Hop::Link(_) | Hop::Local => None,
    });
    let out: Vec<&Route> = routes.iter().filter(|route| route.to.prefix_len() == 0).collect();
    Ok(HostFacts {
        home: home.to_owned(),
        taken: claimed
            .chain(routed.filter(|(net, _)| net.prefix_len() > 0 && !is_link_local(*net)))
            .collect(),
        online: !out.is_empty(),
        uplinks: Uplinks { veth: veth(&out)?, pasta: pasta(&out) },
        links: host_links(&links, &addresses),
    })
}

fn is_link_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local() || net.addr().is_multicast(),
        IpNet::V6(net) => net.addr().is_unicast_link_local() || net.addr().is_multicast(),
    }
}

/// Whether the kernel's path out works: the computer forwards already, and nobody's rules drop that.
fn veth(out: &[&Route]) -> Result<Result<(), Lack>> {
    let lack = |why: String, hint: &str| Ok(Err(Lack { why, hint: hint.to_owned() }));
    if !rustix::process::geteuid().is_root() {
        return lack("only root can connect to the computer's own namespace".into(), "run as root");
    }
    for route in out.iter().filter(|route| route.to.addr().is_ipv4()) {
        let (Hop::Via(_, link) | Hop::Link(link)) = &route.by else { continue };
        let path = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "0") {
            let why = format!("the computer does not forward what comes in by `{link}`");
            return lack(why, "sysctl -w net.ipv4.ip_forward=1");
        }
    }
    let chains = NftSocket::open()?.chains()?;
    let dropping = chains
        .iter()
        .find(|chain| chain.hook == Some(HOOK_FORWARD) && chain.drops && chain.table.name != rules::TABLE);
    match dropping {
        Some(chain) => lack(
            format!(
                "the firewall table `{}` drops what is forwarded (chain `{}`)",
                chain.table.name, chain.name
            ),
            "install passt, which needs no forwarding",
        ),
        None => Ok(Ok(())),
    }
}

/// Whether pasta can be the way out.
fn pasta(out: &[&Route]) -> Result<(), Lack> {
    let lack = |why: String, hint: &str| Err(Lack { why, hint: hint.to_owned() });
    if find_pasta().is_none() {
        return lack("`pasta` is not installed".into(), "apt install passt");
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return lack(format!("/dev/net/tun cannot be opened ({error})"), "chmod 0666 /dev/net/tun");
    }
    if out.is_empty() {
        return lack("this computer has no way out itself".into(), "connect it to a network");
    }
    Ok(())
}

/// Where pasta is.
pub(super) fn find_pasta() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(MORE_PATHS.map(PathBuf::from));
    directories.map(|directory| directory.join("pasta")).find(|program| program.is_file())
}

/// Whether a home's chains stand in the host's table.
pub(super) fn has_host_chains(home: &str) -> Result<bool> {
    let chains = NftSocket::open()?.chains()?;
    let names = rules::host_chain_names(home);
    Ok(names
        .iter()
        .all(|name| chains.iter().any(|chain| chain.table.name == rules::TABLE && chain.name == *name)))
}

/// The links that a network may be bridged to.
fn host_links(links: &[Link], addresses: &[Address]) -> BTreeMap<LinkName, HostLink> {
    if !rustix::process::geteuid().is_root() {
        return BTreeMap::new();
    }
    let usable = links.iter().filter(|link| Mark::parse(&link.alias).is_none() && link.name.as_str() != "lo");
    let described = usable.map(|link| {
        let own = addresses.iter().find(|a| a.link == link.name && !is_link_local(a.address));
        let state = match (&link.kind, own, &link.bridge) {
            (LinkKind::Bridge, ..) => HostLink::Bridge,
            (_, Some(address), _) => HostLink::InUse(format!("it has address {}", address.address)),
            (_, None, Some(bridge)) => HostLink::InUse(format!("it is a port of `{bridge}`")),
            (_, None, None) => HostLink::Idle,
        };
        (link.name.clone(), state)
    });
    described.collect()
}
