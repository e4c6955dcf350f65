//! What the parts of a file mean together: names that exist, addresses that fit, nothing twice.

mod containers;
mod machines;
mod networks;
mod order;
mod replicas;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::leaf::lawful_name;
use super::problem::{Problem, nearest, quote};
use super::spec::{At, Given, MachineSpec, Spec, VolumeSpec};
use crate::name::Name;
use crate::project::Project;

/// What Ethernet carries.
const MTU_DEFAULT: u16 = 1500;

/// Long enough not to bother, short enough that strangers' addresses come free the same day.
const LEASE_DEFAULT_S: u32 = 3600;

/// The machines that are not there this time, with the profiles that would bring them; none of those if they have no
/// replicas.
pub(crate) type Dormant = BTreeMap<Name, BTreeSet<String>>;

/// What is asked for beside the file.
pub(crate) struct Asked<'a> {
    /// The file, and what is said beside it.
    pub(crate) source: &'a Source<'a>,
    /// All profiles that are active; `*` is all.
    pub(crate) profiles: &'a BTreeSet<String>,
}

/// Checks a spec; `None` if the project's own name cannot be told. The project counts only if there are
/// no problems.
pub(crate) fn check(
    spec: &mut Spec,
    asked: &Asked<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Project, Dormant)> {
    let name = project_name(spec, asked, problems);
    replicas::scale(spec, asked, problems);
    let (dormant, mut resting) = leave_out(spec, asked.profiles);
    let networks = networks::check(spec, problems);
    let machines = machines::check(spec, &networks, &dormant, problems);
    // One that is there may have the name of one of several that are not.
    resting.retain(|name, _| !machines.contains_key(name));
    order::never_seen(spec, problems);
    once(spec.volumes.iter().map(|(name, _)| name), &mut BTreeSet::new(), "volume", problems);
    let name = name?;
    let (mut volumes, mut external_volumes) = (BTreeMap::new(), BTreeMap::new());
    for (at, volume) in &spec.volumes {
        match volume {
            VolumeSpec::Own(volume) => drop(volumes.insert(at.value.clone(), *volume)),
            VolumeSpec::External(id) if id.project == name => {
                let message = format!("volume `{id}` is this project's own");
                problems.push(at.place.problem(message).hint("leave `external` and `name` out"));
            }
            VolumeSpec::External(id) => drop(external_volumes.insert(at.value.clone(), id.clone())),
        }
    }
    let external_networks = networks::check_external(spec, &name, problems);
    Some((Project { name, networks, external_networks, machines, volumes, external_volumes }, resting))
}

/// Takes out the machines that no active profile brings, or of which there are none: as the file calls them, and each of
/// several by its own name.
fn leave_out(spec: &mut Spec, active: &BTreeSet<String>) -> (Dormant, Dormant) {
    let (mut dormant, mut each) = (Dormant::new(), Dormant::new());
    spec.machines.retain(|machine| {
        let asked = is_asked(machine, active);
        let none = machine.replicas.value() == Some(0);
        if !asked || none {
            let profiles = machine.profiles.iter().map(|at| at.value.clone()).filter(|_| !asked);
            let profiles: BTreeSet<String> = profiles.collect();
            each.extend(machine.names().into_iter().map(|name| (name, profiles.clone())));
            dormant.insert(machine.name.value.clone(), profiles);
        }
        asked && !none
    });
    (dormant, each)
}

/// Whether an active profile brings a machine, or it needs none.
fn is_asked(machine: &MachineSpec, active: &BTreeSet<String>) -> bool {
    let mut profiles = machine.profiles.iter();
    machine.profiles.is_empty() || active.contains("*") || profiles.any(|at| active.contains(&at.value))
}

fn project_name(spec: &Spec, asked: &Asked<'_>, problems: &mut Vec<Problem>) -> Option<Name> {
    match (asked.source.called, &spec.name) {
        (Some(name), _) => return Some(name.clone()),
        (None, Given::Is(at)) => return Some(at.value.clone()),
        (None, Given::Wrong) => return None,
        (None, Given::Absent) => {}
    }
    let dir_name = asked.source.dir.file_name().map(|name| name.to_string_lossy());
    let name = dir_name.as_deref().and_then(lawful_name);
    if name.is_none() {
        let message = match dir_name.as_deref() {
            Some(dir) => format!("the directory's name {} cannot name the project", quote(dir)),
            None => "the project has no name".to_owned(),
        };
        problems.push(spec.start.problem(message).hint("write `name: …` at the top"));
    }
    name
}

/// Takes names of a list into a set, reporting those that come twice.
fn once<'a>(
    names: impl IntoIterator<Item = &'a At<Name>>,
    into: &mut BTreeSet<Name>,
    what: &str,
    problems: &mut Vec<Problem>,
) {
    for at in names {
        if !into.insert(at.value.clone()) {
            let message = format!("the {what} `{}` stands here twice", at.value);
            problems.push(at.place.problem(message).hint("leave one of them out"));
        }
    }
}

/// A name that nothing has.
fn unknown<'a>(at: &At<Name>, what: &str, names: impl Iterator<Item = &'a Name>) -> Problem {
    let problem = at.place.problem(format!("there is no {what} `{}`", at.value));
    let names: Vec<&str> = names.map(Name::as_str).collect();
    match nearest(at.value.as_str(), names.iter().copied()) {
        Some(name) => problem.hint(format!("did you mean `{name}`?")),
        None if names.is_empty() => problem.hint(format!("the file has no {what}s")),
        None => problem.hint(format!("there are {}", names.join(", "))),
    }
}

/// Remembers who has what, and tells who had it before.
struct Taken<K>(BTreeMap<K, String>);

impl<K: Ord> Taken<K> {
    fn by(&mut self, key: K, who: &str) -> Option<String> {
        self.0.insert(key, who.to_owned())
    }
}
