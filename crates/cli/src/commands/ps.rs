//! `ps` and `ls`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::Serialize;

use stead_host::home::Home;
use stead_host::machine::{Files, HealthState};
use stead_host::many;
use stead_model::image::Reference;
use stead_model::name::{Alias, LOOSE_PROJECT, MachineId, Name, NicId, VolumeId, as_ours};
use stead_model::observed::{NicState, Observed};
use stead_model::project::Bind;
use stead_model::served::Target;

use super::condition::Condition;
use super::here::{projects, projects_named};
use crate::args::{Filter, Global, LsArgs, PsArgs, holds};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::session::look;

/// A machine in the list.
#[derive(Serialize)]
pub(super) struct MachineRow {
    pub(super) name: String,
    pub(super) project: String,
    pub(super) kind: String,
    pub(super) driver: String,
    #[serde(flatten)]
    pub(super) condition: Condition,
    pub(super) image: Option<String>,
    /// In whose network it is, where that is not its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_mode: Option<String>,
    pub(super) nics: Vec<NicRow>,
    pub(super) ports: Vec<String>,
    pub(super) snapshots: Vec<Name>,
    /// Whether its history is damaged, and nobody knows its snapshots.
    #[serde(rename = "damaged", skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_damaged: bool,
}

/// Its end of a network.
#[derive(Serialize)]
pub(super) struct NicRow {
    pub(super) network: String,
    pub(super) link: String,
    pub(super) mac: String,
    pub(super) address: Option<String>,
    pub(super) address6: Option<String>,
    pub(super) names: Vec<String>,
}

/// Lists machines.
pub(crate) fn ps(global: &Global, args: &PsArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let here = if args.all && global.project_name.is_none() {
        None
    } else {
        // Without a file here all machines are meant.
        super::here::project_here(global, &args.machines, &seen)?
    };
    let mut wanted: BTreeSet<&MachineId> = BTreeSet::new();
    for pattern in &args.machines {
        let meant = meant(global, pattern, here.as_ref(), &seen);
        if meant.is_empty() {
            return Err(Failure::request(
                &format!("there is no machine `{pattern}`"),
                "`stead ps --all` lists them all",
            ));
        }
        wanted.extend(meant);
    }
    if args.machines.is_empty() {
        let of_here = |id: &&MachineId| here.as_ref().is_none_or(|project| id.project == *project);
        wanted.extend(seen.machines.keys().filter(of_here));
    }
    let ends = Ends::of(&seen);
    let wanted: Vec<&MachineId> = wanted.into_iter().collect();
    let home = host.home();
    let rows = many::each(&wanted, |id| {
        let row = machine_row(id, &seen, &ends, home)?;
        holds(&args.filter, |filter| is_so(filter, id, &row, (&seen, here.as_ref()))).then_some(row)
    });
    let rows: Vec<MachineRow> = match args.last.or(args.latest.then_some(1)) {
        Some(most) => {
            let made = wanted.iter().zip(rows).filter_map(|(id, row)| Some((made_at(id, home)?, row?)));
            last_made(made.collect(), most)
        }
        None => rows.into_iter().flatten().collect(),
    };
    if args.quiet {
        let names: Vec<String> = rows.iter().map(|row| format!("{}.{}", row.name, row.project)).collect();
        let text = || names.iter().map(|name| format!("{name}\n")).collect();
        return output.data(&names, text).map_err(Failure::from);
    }
    let text = || {
        let rows: Vec<Vec<String>> = rows.iter().map(text_row).collect();
        table(&["MACHINE", "KIND", "STATUS", "IMAGE", "NETWORKS", "ADDRESSES", "PORTS"], &rows)
    };
    output.data(&rows, text).map_err(Failure::from)
}

/// When a machine was made, if we made it.
fn made_at(id: &MachineId, home: &Home) -> Option<SystemTime> {
    let metadata = Files::new(home, id).hold().and_then(|directory| directory.metadata()).ok()?;
    // A file system that does not know it knows when something was last put there.
    metadata.created().or_else(|_| metadata.modified()).ok()
}

/// So many that were made last, the last one first.
fn last_made<T>(mut made: Vec<(SystemTime, T)>, most: usize) -> Vec<T> {
    made.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    made.into_iter().take(most).map(|(_, what)| what).collect()
}

fn is_so(
    filter: &Filter,
    id: &MachineId,
    row: &MachineRow,
    (seen, here): (&Observed, Option<&Name>),
) -> bool {
    let made = || seen.machines.get(id)?.container();
    match filter {
        Filter::Status(word) => row.condition.word() == word,
        Filter::Name(pattern) => means(pattern, id, here, seen),
        Filter::Label(name, value) => seen
            .machines
            .get(id)
            .and_then(|state| state.labels()?.get(name))
            .is_some_and(|found| value.as_ref().is_none_or(|value| found == value)),
        Filter::Health(word) => match &row.condition {
            Condition::Running { health, .. } => *word == health_word(*health),
            _ => word == "none",
        },
        Filter::Exited(code) => {
            matches!(&row.condition, Condition::Exited { exit_code, .. } if exit_code == code)
        }
        Filter::Project(project) => matches(project, id.project.as_str()),
        Filter::Network(pattern) => {
            let mut nics = seen.nics.keys().filter(|nic| nic.machine() == *id);
            row.network_mode.as_ref() == Some(pattern)
                || nics.any(|nic| {
                    matches(pattern, nic.network.as_str()) || matches(pattern, &nic.network().to_string())
                })
        }
        Filter::Volume(text) => made().is_some_and(|made| {
            made.wish.mounts.iter().any(|(target, mount)| {
                let is_named = |volume: VolumeId| {
                    matches(text, volume.name.as_str()) || matches(text, &volume.to_string())
                };
                mount.volume(&id.project).is_some_and(is_named) || target == text
            })
        }),
        Filter::Ancestor(text) => made().is_some_and(|made| {
            let is_named = text.parse().is_ok_and(|image: Reference| image == made.wish.image);
            let digest = made.image.as_ref().map(ToString::to_string).unwrap_or_default();
            let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
            let is_start = |of: &str| text.len() >= DIGEST_CHARS_MIN && of.starts_with(text.as_str());
            is_named || is_start(&digest) || is_start(hex)
        }),
    }
}

fn health_word(health: Option<HealthState>) -> &'static str {
    match health {
        Some(HealthState::Starting) => "starting",
        Some(HealthState::Healthy) => "healthy",
        Some(HealthState::Unhealthy) => "unhealthy",
        None => "none",
    }
}

/// Fewer characters could be the beginning of many digests, and are rather a name.
const DIGEST_CHARS_MIN: usize = 12;

/// The machines that a pattern means: those of the project here, by their name, by one that several of them have in common,
/// or by what else one of them is called on a network; or those of all projects, by the latter two only where the project is
/// named with it. Where the command line says which project is meant, those of no other.
pub(super) fn meant<'a>(
    global: &Global,
    pattern: &str,
    here: Option<&Name>,
    seen: &'a Observed,
) -> Vec<&'a MachineId> {
    let mut meant = found(pattern, here, seen);
    meant.retain(|id| global.may_mean(pattern, &id.project));
    meant
}

fn found<'a>(pattern: &str, here: Option<&Name>, seen: &'a Observed) -> Vec<&'a MachineId> {
    let those = |is_so: &dyn Fn(&MachineId) -> bool| -> Option<Vec<&MachineId>> {
        let those: Vec<_> = seen.machines.keys().filter(|id| is_so(id)).collect();
        (!those.is_empty()).then_some(those)
    };
    let is_here = |id: &MachineId| Some(&id.project) == here;
    let by_name = |id: &MachineId| is_meant(pattern, id);
    let in_common = |id: &MachineId| is_one_of(pattern, id, here);
    // What several here are called means none of them, and nobody elsewhere.
    let by_alias = |is_of: &dyn Fn(&MachineId) -> bool| {
        let called: BTreeSet<_> = called(pattern, here, seen).into_iter().filter(|id| is_of(id)).collect();
        let one = those(&|id| called.contains(id))?;
        Some(if one.len() == 1 { one } else { Vec::new() })
    };
    those(&|id| is_here(id) && by_name(id))
        .or_else(|| those(&|id| is_here(id) && in_common(id)))
        .or_else(|| by_alias(&is_here))
        .or_else(|| those(&by_name))
        .or_else(|| those(&in_common))
        .or_else(|| by_alias(&|_| true))
        .unwrap_or_default()
}

/// Whether a pattern means a machine, which need not be there any more: by its name, or by the one that it has in common
/// with others or is called by on a network, where no machine of its project has that.
pub(super) fn means(pattern: &str, id: &MachineId, here: Option<&Name>, seen: &Observed) -> bool {
    let has_it = |other: &MachineId| other.project == id.project && is_meant(pattern, other);
    let is_called = || {
        let called = called(pattern, here, seen);
        called.contains(id) && called.len() == 1
    };
    is_meant(pattern, id)
        || (is_one_of(pattern, id, here) || is_called()) && !seen.machines.keys().any(has_it)
}

/// The machines that their project, the one here or the one that is named with it, calls so on a network beside their names and
/// those that several have in common: by an alias, or by Compose's `container_name`.
fn called(pattern: &str, here: Option<&Name>, seen: &Observed) -> BTreeSet<MachineId> {
    let name = as_ours(pattern);
    let bare = here.zip(name.parse::<Alias>().ok());
    let of_project = name
        .rsplit_once('.')
        .and_then(|(alias, project)| Some((project.parse::<Name>().ok()?, alias.parse::<Alias>().ok()?)));
    let of_project = of_project.as_ref().map(|(project, alias)| (project, alias.clone()));
    let asked: Vec<(&Name, Alias)> = bare.into_iter().chain(of_project).collect();
    let is_called = |(id, nic): &(&NicId, &NicState)| {
        asked.iter().any(|(project, alias)| {
            **project == id.project && nic.names.contains(alias) && base(&id.machine) != Some(alias.as_str())
        })
    };
    seen.nics.iter().filter(is_called).map(|(id, _)| id.machine()).collect()
}

/// Whether a machine is one of several that have this name in common, of the project here or of the one that is named with
/// it. What commands made one by one has no name in common.
fn is_one_of(pattern: &str, id: &MachineId, here: Option<&Name>) -> bool {
    is_replica(pattern, id)
        && (Some(&id.project) == here || pattern.contains('.'))
        && id.project.as_str() != LOOSE_PROJECT
}

/// Those of these machines that a pattern means: the ones of that name, or where there is none, the ones that are several of
/// that name: `web-1`, `web-2`.
pub(crate) fn among<'a>(pattern: &str, ids: impl Iterator<Item = &'a MachineId>) -> Vec<&'a MachineId> {
    let ids: Vec<&MachineId> = ids.collect();
    let those = |is_so: fn(&str, &MachineId) -> bool| {
        ids.iter().copied().filter(move |id| is_so(pattern, id)).collect::<Vec<_>>()
    };
    let named = those(is_meant);
    if named.is_empty() { those(is_replica) } else { named }
}

/// Whether a machine is one of several that have this name in common.
fn is_replica(name: &str, id: &MachineId) -> bool {
    let Some(base) = base(&id.name) else { return false };
    let name = &*as_ours(name);
    let project = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('.'));
    name == base || project == Some(id.project.as_str())
}

/// What several that are alike have in common: `web` of `web-2`.
pub(super) fn base(name: &Name) -> Option<&str> {
    let (base, number) = name.as_str().rsplit_once('-')?;
    let is_number = !number.starts_with('0') && number.parse::<u16>().is_ok();
    is_number.then_some(base)
}

/// Whether a pattern names a machine: `web`, `web.shop`, with `*` for any text.
pub(super) fn is_meant(pattern: &str, id: &MachineId) -> bool {
    let pattern = &as_ours(pattern);
    matches(pattern, id.name.as_str()) || matches(pattern, &id.to_string())
}

pub(super) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
        }),
    }
}

/// What exists of networks, by machine: looked through once for all of them.
pub(super) struct Ends<'a> {
    nics: BTreeMap<MachineId, Vec<(&'a NicId, &'a NicState)>>,
    ports: BTreeMap<MachineId, Vec<(&'a Bind, &'a Target)>>,
}

impl<'a> Ends<'a> {
    /// All that exists.
    pub(super) fn of(seen: &'a Observed) -> Self {
        let mut ends = Self { nics: BTreeMap::new(), ports: BTreeMap::new() };
        for (nic, state) in &seen.nics {
            ends.nics.entry(nic.machine()).or_default().push((nic, state));
        }
        for (bind, target) in &seen.ports {
            ends.ports.entry(target.machine.clone()).or_default().push((bind, target));
        }
        ends
    }
}

/// What the list says about a machine that exists.
pub(super) fn machine_row(
    id: &MachineId,
    seen: &Observed,
    ends: &Ends<'_>,
    home: &Home,
) -> Option<MachineRow> {
    let state = seen.machines.get(id)?;
    let nics = ends.nics.get(id).into_iter().flatten().map(|(nic, state)| NicRow {
        network: nic.network_called(),
        link: state.link.to_string(),
        mac: state.lease.mac.to_string(),
        address: state.lease.address.map(|address| address.to_string()),
        address6: state.lease.address6.map(|address| address.to_string()),
        names: state.names.iter().map(ToString::to_string).collect(),
    });
    let ports = ends.ports.get(id).into_iter().flatten();
    Some(MachineRow {
        name: id.name.to_string(),
        project: id.project.to_string(),
        kind: state.kind.to_string(),
        driver: state.driver().to_string(),
        condition: Condition::observe(id, seen, home),
        image: state.image(),
        network_mode: state.container().and_then(|made| made.wish.network.word()),
        nics: nics.collect(),
        ports: ports.map(|(bind, target)| format!("{bind} -> {}", target.port)).collect(),
        snapshots: seen.snapshots.get(id).into_iter().flatten().cloned().collect(),
        is_damaged: seen.damaged.contains(id),
    })
}

fn text_row(row: &MachineRow) -> Vec<String> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let networks: Vec<&str> = row.nics.iter().map(|nic| nic.network.as_str()).collect();
    let addresses = row.nics.iter().flat_map(|nic| nic.address.iter().chain(&nic.address6));
    vec![
        format!("{}.{}", row.name, row.project),
        row.kind.clone(),
        row.condition.to_string(),
        or_dash(row.image.clone().unwrap_or_default()),
        or_dash(row.network_mode.clone().unwrap_or_else(|| networks.join(","))),
        or_dash(addresses.cloned().collect::<Vec<_>>().join(",")),
        or_dash(row.ports.join(", ")),
    ]
}

#[derive(Serialize)]
struct ProjectRow {
    name: String,
    directory: String,
    networks: usize,
    machines: usize,
    volumes: usize,
}

/// Lists projects.
pub(crate) fn ls(args: &LsArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let mut names = projects(&seen);
    if !args.projects.is_empty() {
        let named = projects_named(&args.projects, &seen)?;
        names.retain(|name| named.contains(name));
    }
    let rows = names.into_iter().map(|name| ProjectRow {
        name: name.to_string(),
        directory: seen
            .projects
            .get(&name)
            .map(|files| files.directory.display().to_string())
            .unwrap_or_default(),
        networks: seen.networks.keys().filter(|id| id.project == name).count(),
        machines: seen.machines.keys().filter(|id| id.project == name).count(),
        volumes: seen.volumes.keys().filter(|id| id.project == name).count(),
    });
    let rows: Vec<ProjectRow> = rows.collect();
    let text = || {
        let cells = |row: &ProjectRow| {
            let numbers = [row.networks, row.machines, row.volumes].map(|number| number.to_string());
            [row.name.clone()].into_iter().chain(numbers).chain([row.directory.clone()]).collect()
        };
        table(
            &["PROJECT", "NETWORKS", "MACHINES", "VOLUMES", "DIRECTORY"],
            &rows.iter().map(cells).collect::<Vec<_>>(),
        )
    };
    output.data(&rows, text).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_short_and_long_names() {
        let id: MachineId = "web.shop".parse().unwrap();
        for pattern in ["web", "web.shop", "w*", "*.shop", "*", "w*b", "*e*"] {
            assert!(is_meant(pattern, &id), "{pattern}");
        }
        let [one, two, other] =
            ["web-1.shop", "web-2.shop", "web-x.shop"].map(|text| text.parse::<MachineId>().unwrap());
        let several = [&one, &two, &other];
        assert_eq!(among("web", several.into_iter()), [&one, &two]);
        assert_eq!(among("web.shop", several.into_iter()), [&one, &two]);
        assert_eq!(among("web-2", several.into_iter()), [&two]);
        assert_eq!(among("web", several.into_iter().chain([&id])), [&id]);
        assert!(among("web.blog", several.into_iter()).is_empty());
        for pattern in ["we", "web.blog", "b*", "*x*", "shop"] {
            assert!(!is_meant(pattern, &id), "{pattern}");
        }
    }

    #[test]
    fn a_name_in_common_means_none_but_those_of_a_project() {
        use stead_model::observed::{Body, HostFacts, MachineState};
        use stead_model::project::Kind;

        let mut seen = Observed::nothing(HostFacts::default());
        for id in ["web-1.shop", "web-2.shop", "db-1.shop", "pg-1.default", "pg-2.default", "db.default"] {
            let state = MachineState { kind: Kind::Container, body: Body::External };
            seen.machines.insert(id.parse().unwrap(), state);
        }
        let shop: Name = "shop".parse().unwrap();
        let said = |pattern: &str, here: Option<&Name>| -> Vec<String> {
            found(pattern, here, &seen).into_iter().map(ToString::to_string).collect()
        };
        assert_eq!(said("web", Some(&shop)), ["web-1.shop", "web-2.shop"]);
        assert_eq!(said("web.shop", None), ["web-1.shop", "web-2.shop"]);
        // Not from elsewhere, and not what was made by command.
        for (pattern, here) in [("web", None), ("pg", None), ("pg.default", None), ("pg", Some(&shop))] {
            assert!(said(pattern, here).is_empty(), "{pattern}");
        }
        // What is here comes before what is elsewhere.
        assert_eq!(said("db", Some(&shop)), ["db-1.shop"]);
        assert_eq!(said("db", None), ["db.default"]);
        for (pattern, id, here, expected) in [
            ("web", "web-1.shop", Some(&shop), true),
            // One that is gone by now.
            ("web", "web-7.shop", Some(&shop), true),
            ("web.shop", "web-2.shop", None, true),
            ("web", "web-1.shop", None, false),
            ("web-1", "web-1.shop", None, true),
            ("db", "db-1.shop", Some(&shop), true),
            ("db", "db.default", Some(&shop), true),
            ("pg", "pg-1.default", None, false),
        ] {
            assert_eq!(means(pattern, &id.parse().unwrap(), here, &seen), expected, "{pattern} {id}");
        }
    }
}
