//! The way out of a container whose nics go one by one: its default route is by the first that leads out, and goes on to
//! the next one before that first one is gone. Where programs inside have set another, that is theirs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use stead_model::name::{NetworkId, NicId};
use stead_model::observed::{NicEnd, NicState};
use stead_model::served::ServedNetwork;
use stead_net::kernel::{MAIN_TABLE, Route, RouteRequest};

use super::inside::Inside;
use super::mark::{Mark, NicMark};
use super::nic::{is_ours_to_set, ways_out};

type Networks = BTreeMap<NetworkId, ServedNetwork>;

/// Has those of a machine's nics that stay, which are told of each, lead out where one that is about to go does so now.
pub(super) fn hand_on(
    inside: &mut Inside,
    gone: &[(&NicId, &NicState, &[NicId])],
    networks: &Networks,
) -> Result<()> {
    let links = inside.route.own_links()?;
    let marks: Vec<NicMark> = links
        .iter()
        .filter_map(
            |link| if let Some(Mark::Nic(mark)) = Mark::parse(&link.alias) { Some(mark) } else { None },
        )
        .collect();
    for (id, state, others) in gone {
        let others = others.iter().filter_map(|id| marks.iter().find(|mark| mark.id == *id));
        let others: Vec<Route> = others.flat_map(|mark| routes_by(&mark.id, &mark.end, networks)).collect();
        let pairs = replacements(routes_by(id, &state.end, networks), &others);
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

/// Routes that go, each with the first of the others that leads to the same place.
fn replacements(going: Vec<Route>, others: &[Route]) -> Vec<(Route, Route)> {
    let next = |from: &Route| others.iter().find(|to| to.to == from.to).cloned();
    let pairs = going.into_iter().map(|from| (next(&from), from));
    pairs.filter_map(|(to, from)| Some((from, to?))).collect()
}

/// The default routes by a nic, as far as we set them.
fn routes_by(id: &NicId, end: &NicEnd, networks: &Networks) -> Vec<Route> {
    let network = networks.get(&id.network()).filter(|network| is_ours_to_set(end, network));
    end.inner().zip(network).map(|(name, network)| ways_out(name, network).collect()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::linux::nic::default_route;

    #[test]
    fn of_each_family_the_first_that_leads_out_does_so_next() {
        let by = |router: &str, name: &str| default_route(router.parse().unwrap(), &name.parse().unwrap());
        let going = vec![by("10.0.1.1/24", "eth0"), by("fd00:1::1/64", "eth0")];
        let others = [by("10.0.2.1/24", "eth1"), by("10.0.3.1/24", "eth2"), by("fd00:3::1/64", "eth2")];
        let next = replacements(going.clone(), &others).into_iter().map(|(_, to)| to);
        assert_eq!(next.collect::<Vec<_>>(), [others[0].clone(), others[2].clone()]);
        assert_eq!(replacements(going, &[]), []);
    }
}
