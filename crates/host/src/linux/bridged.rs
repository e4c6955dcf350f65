//! Networks with reach `bridged`: their bridge gets a port to a real network. That is a veth pair where the
//! computer has a bridge there, or else the nic itself, which then is in the engine's namespace.
//!
//! What is ours in the engine's namespace carries our mark from its first moment there, and the step can be done
//! again after any part of it: a nic of the computer is never lost.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};

use stead_model::address::{Mac, link_name};
use stead_model::name::{LinkName, NetworkId};
use stead_model::observed::NetworkState;
use stead_model::project::Reach;
use stead_net::kernel::{
    Link, LinkChange, LinkKind, NewLink, Peer, Port, PortFlags, RouteRequest, RouteSocket, Veth,
};

use super::inside::Inside;
use super::mark::{Before, Mark};

/// Connects a network's bridge with the real network that it is bridged to.
pub(super) fn connect(inside: &mut Inside, home: &str, id: &NetworkId, state: &NetworkState) -> Result<()> {
    let Reach::Bridged(real) = &state.reach else { return Ok(()) };
    let ours = inside.route.own_links()?;
    let is_ours = |link: &Link| match Mark::parse(&link.alias) {
        Some(Mark::Bridged(of, to, _)) => of == *id && to == *real,
        _ => false,
    };
    match ours.iter().find(|link| is_ours(link) && is_port(link, real, &state.link)) {
        Some(nic) if nic.name == *real => return Ok(()),
        Some(joint) => widen(inside, home, id, real, joint)?,
        None => put_port(inside, home, id, state, ours.iter().any(is_ours))?,
    }
    // A bridge takes the least of its ports' for its own, or the greatest while there is none beside this, until it is told.
    let own = LinkChange { mtu: Some(u32::from(state.mtu)), ..LinkChange::default() };
    let own = RouteRequest::ChangeLink(state.link.clone(), own);
    inside.route.run(&[own]).with_context(|| format!("cannot set the MTU of {}", state.link))
}

/// The port itself, whatever of it is there, and whether the nic was moved to the engine already.
fn put_port(inside: &Inside, home: &str, id: &NetworkId, state: &NetworkState, is_lent: bool) -> Result<()> {
    let (Reach::Bridged(real), bridge) = (&state.reach, &state.link) else { return Ok(()) };
    let outside = RouteSocket::open()?;
    let links = outside.links()?;
    let found = links.iter().find(|link| link.name == *real);
    let before = found.map_or(Before::Down, was_before);
    let mark = Mark::Bridged(id.clone(), real.clone(), before).to_string();
    let engine = File::open(format!("/proc/{}/ns/net", inside.anchor.process().pid))
        .context("cannot open the engine's namespace")?;
    match found {
        Some(link) if link.kind == LinkKind::Bridge => {
            join_bridge(inside, &outside, &Joint { home, id, real, mtu: link.mtu, mark, bridge })
        }
        found => {
            if found.is_some() {
                // Marked by the same message: one that is killed here has not hidden the nic from the next.
                let into =
                    LinkChange { netns: Some(engine.as_fd()), alias: Some(mark), ..LinkChange::default() };
                outside
                    .run(&[RouteRequest::ChangeLink(real.clone(), into)])
                    .with_context(|| format!("cannot move `{real}` to the engine"))?;
            } else if !is_lent {
                bail!("there is no link `{real}` any more");
            }
            let port = LinkChange {
                up: Some(true),
                bridge: Some(Some(bridge.clone())),
                link_local: Some(false),
                ..LinkChange::default()
            };
            let port = RouteRequest::ChangeLink(real.clone(), port);
            inside.route.run(&[port]).with_context(|| format!("cannot put `{real}` on the network's bridge"))
        }
    }
}

/// How a link of the computer is without us. One that has come back from an engine that died says it in its mark.
fn was_before(link: &Link) -> Before {
    match Mark::parse(&link.alias) {
        Some(Mark::Bridged(_, real, before)) if real == link.name => before,
        _ if link.up => Before::Up,
        _ => Before::Down,
    }
}

/// Which bridge of ours is joined with which of the computer's.
struct Joint<'a> {
    home: &'a str,
    id: &'a NetworkId,
    real: &'a LinkName,
    mtu: u32,
    mark: String,
    bridge: &'a LinkName,
}

/// Joins two bridges by a veth pair. Our end is made first, whole; it has a carrier when the other end is in
/// place, and is observed by that.
fn join_bridge(inside: &Inside, outside: &RouteSocket, joint: &Joint<'_>) -> Result<()> {
    let Joint { home, id, real, mtu, mark, bridge } = joint;
    let near = near_end(home, id, real);
    let far = link_name('p', real.as_str(), &["far", &id.to_string()], &|_| false);
    // What is left of one that was cut off; with one end the other goes.
    inside.route.delete_links(std::slice::from_ref(&far))?;
    let host = File::open("/proc/self/ns/net").context("cannot open the host's namespace")?;
    let link = NewLink { name: far, alias: mark.clone(), mac: None, mtu: Some(*mtu), group: 0 };
    let mac = Some(last_mac(&near));
    let peer = Peer { netns: Some(host.as_fd()), name: near.clone(), mac, mtu: Some(*mtu), group: 0 };
    let port = Some(Port { bridge: (*bridge).clone(), flags: PortFlags::default() });
    inside
        .route
        .run(&[RouteRequest::AddVeth(Veth { link, port, peer })])
        .context("cannot join the network's bridge")?;
    let change = LinkChange {
        up: Some(true),
        alias: Some(mark.clone()),
        bridge: Some(Some((*real).clone())),
        link_local: Some(false),
        ..LinkChange::default()
    };
    outside
        .run(&[RouteRequest::ChangeLink(near, change)])
        .with_context(|| format!("cannot join bridge `{real}`"))
}

/// How the end is called that is with the computer's bridge.
fn near_end(home: &str, id: &NetworkId, real: &LinkName) -> LinkName {
    link_name('p', real.as_str(), &["near", home, &id.to_string()], &|_| false)
}

/// Has a joint carry what the computer's bridge carries by now.
fn widen(inside: &Inside, home: &str, id: &NetworkId, real: &LinkName, joint: &Link) -> Result<()> {
    let outside = RouteSocket::open()?;
    let links = outside.links()?;
    let Some(bridge) = links.iter().find(|link| link.name == *real && link.mtu != joint.mtu) else {
        return Ok(());
    };
    let change = || LinkChange { mtu: Some(bridge.mtu), ..LinkChange::default() };
    // Our end last, as it is by that that the joint is known to be done.
    outside
        .run(&[RouteRequest::ChangeLink(near_end(home, id, real), change())])
        .and_then(|()| inside.route.run(&[RouteRequest::ChangeLink(joint.name.clone(), change())]))
        .with_context(|| format!("cannot set the MTU of what joins bridge `{real}`"))
}

/// A MAC above those of others: a bridge takes the lowest of its ports for its own, unless somebody has given it one, and
/// the computer's is to stay what it is.
fn last_mac(link: &LinkName) -> Mac {
    let [.., e, f] = Mac::derived(&["last", link.as_str()]).bytes();
    Mac::new([0xfe, 0xff, 0xff, 0xff, e, f]).unwrap_or_else(|_| Mac::derived(&[link.as_str()]))
}

/// Whether a link of ours connects a network's bridge with the real network, and is in place.
pub(super) fn is_port(link: &Link, real: &LinkName, bridge: &LinkName) -> bool {
    let is_nic_itself = link.name == *real;
    link.bridge.as_ref() == Some(bridge) && link.up && (is_nic_itself || link.carrier)
}

/// Gives the real network its link back, whatever had become of it.
pub(super) fn disconnect(inside: &Inside, id: &NetworkId) -> Result<()> {
    give_back(inside, |of| of == id)?;
    restore(|of| of == id)
}

/// Gives all links of the computer back. Without an engine it has them already, but not as they were.
pub(super) fn give_all_back(inside: Option<&Inside>) -> Result<()> {
    inside.map_or(Ok(()), |inside| give_back(inside, |_| true))?;
    restore(|_| true)
}

fn give_back(inside: &Inside, of: impl Fn(&NetworkId) -> bool) -> Result<()> {
    for link in inside.route.own_links()? {
        let Some(Mark::Bridged(id, real, _)) = Mark::parse(&link.alias) else { continue };
        if !of(&id) {
            continue;
        }
        if link.name != real {
            inside.route.delete_links(&[link.name])?;
            continue;
        }
        let host = File::open("/proc/self/ns/net").context("cannot open the host's namespace")?;
        // It keeps our mark, which says how it was before: one that is killed here has not forgotten that.
        let back = LinkChange { bridge: Some(None), netns: Some(host.as_fd()), ..LinkChange::default() };
        inside
            .route
            .run(&[RouteRequest::ChangeLink(real.clone(), back)])
            .with_context(|| format!("cannot give `{real}` back"))?;
    }
    Ok(())
}

/// Makes links that have come back what they were: from us, or from an engine that died.
fn restore(of: impl Fn(&NetworkId) -> bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        // Nothing was ever lent.
        return Ok(());
    }
    let outside = RouteSocket::open()?;
    for link in outside.own_links()? {
        let Some(Mark::Bridged(id, real, before)) = Mark::parse(&link.alias) else { continue };
        if link.name != real || !of(&id) {
            continue;
        }
        // The kernel takes a link down on its way between namespaces.
        let as_before = LinkChange {
            up: (before == Before::Up).then_some(true),
            alias: Some(String::new()),
            ..LinkChange::default()
        };
        outside
            .run(&[RouteRequest::ChangeLink(real.clone(), as_before)])
            .with_context(|| format!("cannot make `{real}` what it was"))?;
    }
    Ok(())
}
