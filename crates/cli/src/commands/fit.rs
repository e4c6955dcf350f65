//! Whether this computer can have what a project asks for, and what follows here of who calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use stead_container::ids_refused;
use stead_host::home::Home;
use stead_model::container::{Container, Mount};
use stead_model::dev::{Ids, Person};
use stead_model::name::{MachineId, Name};
use stead_model::observed::{Body, MachineState, Observed};
use stead_model::plan::{Plan, Planned};
use stead_model::project::{Project, Runs};
use stead_model::resolve::Refusal;
use stead_model::step::Step;

use super::up::Whose;
use crate::failure::Failure;

/// What to do about an id that this user has not.
const ID_HINT: &str = "name one that they have, or leave it out; `stead doctor` says under `subordinate ids` how they \
    get more, and after `stead down` they have them";

/// The containers that a plan makes.
pub(super) fn made_by(plan: &Plan) -> impl Iterator<Item = (&Name, &Container)> {
    plan.steps.iter().filter_map(|Planned { step, .. }| match step {
        Step::MachineAdd(id, MachineState { body: Body::Container(made), .. }, _) => {
            Some((&id.name, &made.wish))
        }
        _ => None,
    })
}

/// The containers of a project that are not there and are to be.
pub(super) fn new_ones<'a>(
    project: &'a Project,
    whose: &'a Whose,
    seen: &'a Observed,
) -> impl Iterator<Item = (&'a Name, &'a Container)> {
    let is_new = move |name: &Name| {
        let id = MachineId::new(&project.name, name);
        let is_meant = match whose {
            Whose::All => true,
            Whose::Only(chosen) | Whose::Alone(chosen) => chosen.contains(&id),
            Whose::Nics => false,
        };
        is_meant && !seen.machines.contains_key(&id)
    };
    project.machines.iter().filter_map(move |(name, machine)| match &machine.runs {
        Runs::Container(wish) if is_new(name) => Some((name, wish.as_ref())),
        Runs::Container(_) | Runs::External | Runs::Microvm(_) | Runs::Vm(_) => None,
    })
}

/// Why such containers cannot be here: limits that nothing could hold them to, users whom they cannot be, and what is not
/// here; but for files with these texts, which are yet to be written.
pub(super) fn unfit<'a>(
    home: &Home,
    texts: &BTreeMap<PathBuf, String>,
    containers: impl Iterator<Item = (&'a Name, &'a Container)>,
) -> Result<Vec<Refusal>, Failure> {
    let maps = id_maps(home)?;
    let mut refusals = Vec::new();
    for (name, wish) in containers {
        let limits = stead_container::limits_refused(&wish.limits)?.into_iter();
        let limits = limits.map(|refusal| (refusal.why, refusal.hint));
        let ids = ids_lacking(wish, (&maps.0, &maps.1)).into_iter();
        let ids = ids.map(|whom| (format!("this user's containers have no {whom}"), ID_HINT));
        for (why, hint) in limits.chain(ids) {
            refusals.push(Refusal { key: format!("machines.{name}"), why, hint: hint.to_owned() });
        }
        refusals.extend(super::lacking::lacks(name, wish, texts));
    }
    Ok(refusals)
}

/// The users and groups of a container, and of its file systems in memory, that there are not.
fn ids_lacking(wish: &Container, maps: (&str, &str)) -> BTreeSet<String> {
    let owners = wish.mounts.values().filter_map(|mount| match mount {
        Mount::Tmpfs { owner, .. } => Some(owner),
        Mount::Volume { .. } | Mount::Bind { .. } => None,
    });
    let of_owners = owners.flat_map(|owner| {
        let uid = owner.uid.map(|id| id.to_string());
        ids_refused(uid.as_deref(), &owner.gid.iter().map(ToString::to_string).collect(), maps)
    });
    ids_refused(wish.user.as_deref(), &wish.groups, maps).into_iter().chain(of_owners).collect()
}

/// The user and group ids that containers have: those of the engine, or that it will have.
fn id_maps(home: &Home) -> Result<(String, String)> {
    let of = |process: &str| -> Result<(String, String)> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            std::fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))
        };
        Ok((read("uid_map")?, read("gid_map")?))
    };
    if rustix::process::geteuid().is_root() {
        return of("self");
    }
    if let Some(anchor) = stead_net::anchor::Client::connect(&home.run)? {
        return of(&anchor.process().pid.to_string());
    }
    // Our own id, whoever that is, and those after it.
    let Some((uids, gids)) = stead_net::facts::sub_ids() else { return Ok(("0 0 1".into(), "0 0 1".into())) };
    let map = |count: u32| format!("0 0 1\n1 1 {count}\n");
    Ok((map(uids.count), map(gids.count)))
}

/// Who calls, if that bears on a machine of the project.
pub(super) fn person(project: &Project) -> Result<Person, Failure> {
    if project.machines.values().all(|machine| machine.dev.is_none()) {
        return Ok(Person::default());
    }
    let (uids, gids) = id_maps(&crate::session::home()?)?;
    // A group has the id of its user.
    let below = [&uids, &gids].map(|map| ids_below(map)).into_iter().min().unwrap_or(1);
    let ids = if rustix::process::geteuid().is_root() { Ids::Same(below) } else { Ids::Lent(below) };
    Ok(stead_host::person::observe(ids))
}

/// The first id that an id map has not, counted from 0.
fn ids_below(map: &str) -> u32 {
    let ranges = map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().ok());
        let (first, _, count) = (fields.next()??, fields.next()??, fields.next()??);
        Some((first, count))
    });
    let mut ranges: Vec<(u64, u64)> = ranges.collect();
    ranges.sort_unstable();
    let below = ranges
        .iter()
        .fold(0, |below, (first, count)| if *first <= below { below.max(first + count) } else { below });
    u32::try_from(below).unwrap_or(u32::MAX)
}
