//! The way out of a container whose nics go one by one: its default route is by the first that leads out, and goes on to
//! the next one before that first one is gone. Where programs inside have set another, that is theirs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use stead_model::name::{NetworkId, NicId};
use stead_model::observed::NicState;
use stead_model::served::ServedNetwork;
use stead_net::kernel::{MAIN_TABLE, Route, RouteRequest};

use super::inside::Inside;
use super::mark::{Mark, NicMark};
use super::nic::{is_ours_to_set, ways_out};

type Networks = BTreeMap<NetworkId, ServedNetwork>;

/// Has the machines' other nics lead out where those that are about to go do so now.
pub(super) fn hand_on(inside: &mut Inside, gone: &[(&NicId, &NicState)], networks: &Networks) -> Result<()> {
    if gone.iter().all(|(_, state)| state.end.inner().is_none()) {
        return Ok(());
    }
    let links = inside.route.own_links()?.into_iter();
    let marks = links.filter_map(|link| {
        if let Some(Mark::Nic(mark)) = Mark::parse(&link.alias) { Some(mark) } else { None }
    });
    let mut staying: Vec<NicMark> = marks.filter(|mark| gone.iter().all(|(id, _)| **id != mark.id)).collect();
    staying.sort_by(|a, b| a.end.order().cmp(&b.end.order()));
    for (id, state) in gone {
        let going = NicMark { id: (*id).clone(), lease: state.lease.clone(), end: state.end.clone() };
        let pairs = replacements(&going, &staying, networks);
        if pairs.is_empty() {
            continue;
        }
        let route = inside.route_of(&id.machine())?;
        let there = route.routes(Some(MAIN_TABLE))?;
        let used = pairs.into_iter().filter(|(from, _)| there.contains(from));
        let requests: Vec<RouteRequest<'_>> = used.map(|(_, to)| RouteRequest::ReplaceRoute(to)).collect();
        route.run(&requests).with_context(|| format!("cannot lead {} out by another nic", id.machine()))?;
    }
    Ok(())
}

/// The default routes by a nic that goes, each with the one that takes its place. Those that stay are in their order.
fn replacements(going: &NicMark, staying: &[NicMark], networks: &Networks) -> Vec<(Route, Route)> {
    let own = staying.iter().filter(|mark| mark.id.machine() == going.id.machine());
    let others: Vec<Route> = own.flat_map(|mark| routes_by(mark, networks)).collect();
    let next = |from: &Route| others.iter().find(|to| to.to == from.to).cloned();
    routes_by(going, networks)
        .into_iter()
        .filter_map(|from| {
            let to = next(&from)?;
            Some((from, to))
        })
        .collect()
}

/// The default routes by a nic, as far as we set them.
fn routes_by(mark: &NicMark, networks: &Networks) -> Vec<Route> {
    let network = networks.get(&mark.id.network()).filter(|network| is_ours_to_set(&mark.end, network));
    mark.end.inner().zip(network).map(|(name, network)| ways_out(name, network).collect()).unwrap_or_default()
}
