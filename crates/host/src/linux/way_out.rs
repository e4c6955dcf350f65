//! The way out of a container whose nics go one by one: its default route is by the first that leads out, and goes on to
//! the next one before that first one is gone. Where programs inside have set another, that is theirs.

use std::collections::BTreeMap;

use anyhow::Result;

use stead_model::name::{MachineId, NetworkId, NicId};
use stead_model::observed::{NicEnd, NicState};
use stead_model::served::ServedNetwork;
use stead_net::kernel::{MAIN_TABLE, Route, RouteRequest, RouteSocket};

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
        let nexts = nexts(routes_by(id, &state.end, networks), &others);
        if nexts.is_empty() {
            continue;
        }
        let route = inside.route_of(&id.machine())?;
        let there = route.routes(Some(MAIN_TABLE))?;
        for (_, nexts) in nexts.into_iter().filter(|(from, _)| there.contains(from)) {
            lead(&route, &id.machine(), nexts)?;
        }
    }
    Ok(())
}

/// Leads out by the first of these routes that the kernel takes: programs inside may have set the nic of one down. The nic
/// that goes now does so all the same where there is none.
fn lead(route: &RouteSocket, machine: &MachineId, nexts: Vec<Route>) -> Result<()> {
    let mut last = None;
    for next in nexts {
        last = route.send(&[RouteRequest::ReplaceRoute(next)])?.pop();
        if last.is_none() {
            return Ok(());
        }
    }
    if let Some(refused) = last {
        tracing::warn!("no other nic leads {machine} out: {refused}");
    }
    Ok(())
}

/// Routes that go, each with those of the others that lead to the same place.
fn nexts(going: Vec<Route>, others: &[Route]) -> Vec<(Route, Vec<Route>)> {
    let nexts = |from: &Route| others.iter().filter(|to| to.to == from.to).cloned().collect();
    let all = going.into_iter().map(|from| (nexts(&from), from));
    all.filter(|(nexts, _): &(Vec<Route>, _)| !nexts.is_empty()).map(|(nexts, from)| (from, nexts)).collect()
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
    fn of_each_family_all_that_lead_out_are_tried_in_order() {
        let by = |router: &str, name: &str| default_route(router.parse().unwrap(), &name.parse().unwrap());
        let going = vec![by("10.0.1.1/24", "eth0"), by("fd00:1::1/64", "eth0")];
        let others = [by("10.0.2.1/24", "eth1"), by("10.0.3.1/24", "eth2"), by("fd00:3::1/64", "eth2")];
        let [v4, v4_later, v6] = others.clone();
        let next = [(going[0].clone(), vec![v4, v4_later]), (going[1].clone(), vec![v6])];
        assert_eq!(nexts(going.clone(), &others), next);
        assert_eq!(nexts(going, &[]), []);
    }
}
