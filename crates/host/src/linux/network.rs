//! Networks: a bridge with our addresses, its place among the rules, a claim on its ranges, and what is
//! served on it.

use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::{IpNet, Ipv6Net};
use rustix::io::Errno;

use stead_model::name::{LinkName, NetworkId};
use stead_model::observed::NetworkState;
use stead_model::project::Reach;
use stead_model::step::{Change, Step};
use stead_net::kernel::nft::{Elements, NftRequest, Value};
use stead_net::kernel::rules::{self, NetworkRules};
use stead_net::kernel::{LinkChange, LinkKind, NewLink, Refused, RouteRequest};

use super::inside::{Inside, label};
use super::mark::Mark;
use super::{LinuxHost, bridged, claims, served};

/// Makes networks what they are to be. Each is done again without harm.
pub(super) fn set(host: &mut LinuxHost, steps: &[&Step]) -> Vec<Result<()>> {
    let wanted: Vec<(&NetworkId, Option<&NetworkState>, &NetworkState)> = steps
        .iter()
        .filter_map(|step| match step {
            Step::NetworkAdd(id, to) => Some((id, None, to)),
            Step::NetworkChange(id, Change { from, to }) => Some((id, Some(from), to)),
            _ => None,
        })
        .collect();
    host.bridges.extend(wanted.iter().map(|(id, _, to)| ((*id).clone(), to.link.clone())));
    let mut results: Vec<Result<()>> = Vec::new();
    for (id, from, to) in &wanted {
        results.push(set_one(host, id, *from, to));
    }
    // One that failed, now or before, may have left a claim that it no longer needs.
    if let Err(error) = host.inside().and_then(release_claims) {
        return super::together(steps, Err(error));
    }
    let served = served::edit(host, |served| {
        for ((id, _, to), _) in wanted.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
            let hosts = served.networks.remove(*id).map(|network| network.hosts).unwrap_or_default();
            served.networks.extend(served::network(id, to, hosts).map(|network| ((*id).clone(), network)));
        }
    });
    match served {
        Err(error) => super::together(steps, Err(error)),
        Ok(report) => results
            .into_iter()
            .zip(&wanted)
            .map(|(result, (id, ..))| match report.failed_networks.get(*id) {
                Some(why) if result.is_ok() => Err(anyhow!("cannot serve the network: {why}")),
                Some(_) | None => result,
            })
            .collect(),
    }
}

fn set_one(
    host: &mut LinuxHost,
    id: &NetworkId,
    from: Option<&NetworkState>,
    to: &NetworkState,
) -> Result<()> {
    let joined: Vec<LinkName> = to
        .joins
        .iter()
        .filter_map(|name| host.bridges.get(&NetworkId::new(&id.project, name)).cloned())
        .collect();
    let was_joined: Vec<LinkName> = from
        .iter()
        .flat_map(|from| &from.joins)
        .filter_map(|name| host.bridges.get(&NetworkId::new(&id.project, name)).cloned())
        .collect();
    let home = host.home_id()?;
    let inside = host.inside()?;
    claim(inside, ranges(to))?;
    make_bridge(inside, id, to)?;
    let mut requests = match from {
        None => stale_elements(inside, &[&to.link], &[])?,
        Some(_) => Vec::new(),
    };
    if let Some(from) = from {
        requests.extend(removed(rules::network_elements(&element(from, was_joined))));
    }
    requests.extend(added(rules::network_elements(&element(to, joined))));
    inside.nft.run(&requests).context("cannot write the network's rules")?;
    bridged::connect(inside, &home, id, to)
}

/// Takes networks away, with all that stands on their bridges of ours.
pub(super) fn remove(host: &mut LinuxHost, steps: &[&Step]) -> Result<()> {
    let gone: Vec<(&NetworkId, &NetworkState)> = steps
        .iter()
        .filter_map(|step| match step {
            Step::NetworkRemove(id, state) => Some((id, state)),
            _ => None,
        })
        .collect();
    // First nothing is served there any more: the last router advertisement still gets out.
    served::forget(host, |served| {
        for (id, _) in &gone {
            served.networks.remove(*id);
            served.networks.values_mut().for_each(|other| other.joins.retain(|joined| joined != *id));
        }
    })?;
    let mut requests = Vec::new();
    for (id, state) in &gone {
        let joined = state
            .joins
            .iter()
            .filter_map(|name| host.bridges.get(&NetworkId::new(&id.project, name)).cloned());
        requests.extend(removed(rules::network_elements(&element(state, joined.collect()))));
    }
    let inside = host.inside()?;
    for (id, _) in &gone {
        bridged::disconnect(inside, id)?;
    }
    let links: Vec<LinkName> = gone.iter().map(|(_, state)| state.link.clone()).collect();
    inside.route.delete_links(&links).context("cannot delete the bridges")?;
    inside.nft.run(&requests).context("cannot take the networks' rules away")?;
    release_claims(inside)?;
    host.bridges.retain(|id, _| !gone.iter().any(|(other, _)| *other == id));
    Ok(())
}

pub(super) fn added(elements: Vec<Elements>) -> Vec<NftRequest> {
    elements.into_iter().map(NftRequest::Add).collect()
}

/// What the rules still say about links that are yet to be made: a command was killed after it had taken such
/// a link away, and before it took it out of the rules.
/// A machine that may call is known by its network and addresses.
pub(super) fn stale_elements(
    inside: &Inside,
    links: &[&LinkName],
    callers: &[(LinkName, IpAddr)],
) -> Result<Vec<NftRequest>> {
    let mut requests = Vec::new();
    for table in [rules::engine_table(), rules::guard_table()] {
        for mut elements in inside.nft.elements(&table)?.unwrap_or_default() {
            let is_of_link = |value: &Value| matches!(value, Value::Name(name) if links.contains(&name));
            let is_of_callers = elements.set.starts_with("callers");
            let is_caller = |bridge: &LinkName, address: IpAddr| {
                callers.iter().any(|(theirs, own)| theirs == bridge && *own == address)
            };
            elements.elements.retain(|element| match element.as_slice() {
                [Value::Name(bridge), Value::V4(address)] if is_of_callers => {
                    is_caller(bridge, IpAddr::V4(*address)) || links.contains(&bridge)
                }
                [Value::Name(bridge), Value::V6(address)] if is_of_callers => {
                    is_caller(bridge, IpAddr::V6(*address)) || links.contains(&bridge)
                }
                _ => element.iter().any(is_of_link),
            });
            if !elements.elements.is_empty() {
                requests.push(NftRequest::Remove(elements));
            }
        }
    }
    Ok(requests)
}

pub(super) fn removed(elements: Vec<Elements>) -> Vec<NftRequest> {
    elements.into_iter().map(NftRequest::Remove).collect()
}

fn element(state: &NetworkState, joins: Vec<LinkName>) -> NetworkRules {
    NetworkRules {
        bridge: state.link.clone(),
        mac: state.mac,
        nat: state.reach == Reach::Nat,
        served: state.service.is_some(),
        gateway: state.gateway.map(|net| net.addr()),
        gateway6: state.gateway6.map(|net| net.addr()),
        joins,
    }
}

fn ranges(state: &NetworkState) -> impl Iterator<Item = IpNet> {
    let v4 = state.gateway.map(|net| IpNet::V4(net.trunc()));
    v4.into_iter().chain(state.gateway6.map(|net| IpNet::V6(net.trunc())))
}

/// What the labels of claims begin with.
const CLAIM_PREFIX: &str = "claim:";

pub(super) fn claim_name(net: IpNet) -> String {
    format!("{CLAIM_PREFIX}{net}")
}

/// Claims ranges, unless we hold them already.
pub(super) fn claim(inside: &mut Inside, nets: impl Iterator<Item = IpNet>) -> Result<()> {
    let held = inside.anchor.held()?;
    for net in nets {
        let name = label(&claim_name(net))?;
        if !held.contains(&name) {
            let claim = claims::claim(net)?;
            inside.anchor.hold(&name, claim.as_fd())?;
        }
    }
    Ok(())
}

/// Lets go of the ranges that no network and no uplink has; also those that a command claimed which was killed then.
pub(super) fn release_claims(inside: &mut Inside) -> Result<()> {
    let addresses = inside.route.addresses()?;
    let needed: Vec<String> = addresses.iter().map(|address| claim_name(address.address.trunc())).collect();
    for name in inside.anchor.held()? {
        if name.as_str().starts_with(CLAIM_PREFIX) && !needed.iter().any(|needed| needed == name.as_str()) {
            inside.anchor.release(&name)?;
        }
    }
    Ok(())
}

/// Makes the bridge, or what is there what it is to be.
fn make_bridge(inside: &Inside, id: &NetworkId, state: &NetworkState) -> Result<()> {
    let doing = || format!("cannot make bridge {}", state.link);
    let link = NewLink {
        name: state.link.clone(),
        alias: Mark::Network(id.clone()).to_string(),
        mac: Some(state.mac),
        mtu: Some(u32::from(state.mtu)),
        group: 0,
    };
    let change = LinkChange {
        up: Some(true),
        mtu: Some(u32::from(state.mtu)),
        alias: Some(link.alias.clone()),
        ..LinkChange::default()
    };
    // Sent by itself: the requests after it name the link by the index that it was to get, which is that of no
    // link when the bridge is there already.
    let refused = inside.route.send(&[RouteRequest::AddBridge(link)])?;
    let was_there = refused.iter().any(|refused| refused.errno == Errno::EXIST);
    tolerate(refused, Errno::EXIST).with_context(doing)?;
    if was_there && !is_bridge(inside, &state.link)? {
        bail!("{} is there already, and no bridge; hint: delete it", state.link);
    }
    let mut requests = vec![RouteRequest::ChangeLink(state.link.clone(), change)];
    let addresses = state.gateway.map(IpNet::V4).into_iter().chain(state.gateway6.map(IpNet::V6));
    // Links of ours have no link-local address but those given: on a wire that is not ours to serve we are
    // not to be seen. Without one a router cannot ask for its IPv6 neighbours.
    let own = Ipv6Net::new(rules::link_local(state.mac), 64)
        .ok()
        .filter(|_| state.service.is_some() && state.gateway6.is_some());
    let addresses = addresses.chain(own.map(IpNet::V6));
    requests.extend(addresses.map(|address| RouteRequest::AddAddress(state.link.clone(), address)));
    run_again(inside, &requests).with_context(doing)
}

fn is_bridge(inside: &Inside, name: &LinkName) -> Result<bool> {
    let links = inside.route.links()?;
    Ok(links.iter().any(|link| link.name == *name && link.kind == LinkKind::Bridge))
}

/// Carries out requests of which some may have been carried out before.
pub(super) fn run_again(inside: &Inside, requests: &[RouteRequest<'_>]) -> Result<()> {
    tolerate(inside.route.send(requests)?, Errno::EXIST)
}

/// Fails if anything was refused for another reason than this.
pub(super) fn tolerate(refused: Vec<Refused>, errno: Errno) -> Result<()> {
    match refused.into_iter().find(|refused| refused.errno != errno) {
        Some(refused) => Err(refused.into()),
        None => Ok(()),
    }
}
