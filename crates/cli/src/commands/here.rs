//! Which project a command is about: one that is named, or the one here.

use std::collections::BTreeSet;
use std::path::Path;

use stead_model::name::{Name, as_ours};
use stead_model::observed::Observed;

use crate::args::Global;
use crate::failure::Failure;
use crate::output::note;
use crate::project;

/// The project that is to be taken away. Where it cannot be known, what is up here is told: it can be named.
pub(super) fn project_to_take_down(global: &Global, seen: &Observed) -> Result<Name, Failure> {
    project_of(global, None, seen).inspect_err(|_| {
        let directory = project::find(global).and_then(|file| project::directory_of(&file));
        if let Ok(directory) = directory {
            for name in recorded(seen, &directory) {
                note(&format!("project `{name}` is up here; `stead down {name}` takes it down"));
            }
        }
    })
}

/// The projects that patterns name: each of them some.
pub(super) fn projects_named(patterns: &[String], seen: &Observed) -> Result<Vec<Name>, Failure> {
    let there = projects(seen);
    let mut named = Vec::new();
    for pattern in patterns {
        let meant = there.iter().filter(|name| super::ps::matches(&as_ours(pattern), name.as_str()));
        let mut meant = meant.peekable();
        if meant.peek().is_none() {
            return Err(no_project(pattern));
        }
        named.extend(meant.filter(|name| !named.contains(*name)).cloned().collect::<Vec<_>>());
    }
    Ok(named)
}

fn no_project(name: &str) -> Failure {
    Failure::request(&format!("there is no project `{name}`"), "`stead ls` lists the projects")
}

/// All of which anything is there.
pub(super) fn projects(seen: &Observed) -> BTreeSet<Name> {
    let of_others = seen.volumes.keys().map(|id| &id.project);
    let of_others = of_others.chain(seen.networks.keys().map(|id| &id.project));
    let of_others = of_others.chain(seen.machines.keys().map(|id| &id.project));
    seen.projects.keys().chain(of_others).cloned().collect()
}

/// The project here for those who need none, as what these patterns mean hangs on it: nobody is to mean machines of all
/// projects, or of another, because a file is wrong just now. One whole name is found without it, unless somebody named
/// the file.
pub(super) fn project_here(
    global: &Global,
    patterns: &[String],
    seen: &Observed,
) -> Result<Option<Name>, Failure> {
    project_of(global, None, seen).map(Some).or_else(|failure| {
        let hangs = patterns.is_empty() || patterns.iter().any(|pattern| pattern.contains('*'));
        let is_told = match project::found(global) {
            Ok(found) => hangs || found.is_named,
            // A file is named, and cannot even be looked for.
            Err(_) => true,
        };
        let is_named = global.project_name.is_some();
        if is_named || (is_told && !project::is_none_here(global)) { Err(failure) } else { Ok(None) }
    })
}

/// Which project is meant: the one named, by the command or by what all can be told, or the one that is on record for the directory here, whatever its
/// file says by now; else the one of the file.
pub(super) fn project_of(global: &Global, named: Option<&Name>, seen: &Observed) -> Result<Name, Failure> {
    if let Some(name) = named.or(global.project_name.as_ref()) {
        return if projects(seen).contains(name) { Ok(name.clone()) } else { Err(no_project(name.as_str())) };
    }
    let is_named = project::found(global)?.is_named;
    let directory = project::directory_of(&project::find(global)?)?;
    let mut here = recorded(seen, &directory);
    match (here.next(), here.next()) {
        // Whoever names a file means what it says; there may be several beside each other.
        (Some(name), None) => match is_named.then(|| said_name(global)).transpose()? {
            Some(said) if said != *name => {
                let what = format!("the file is of project `{said}`, and this directory is that of `{name}`");
                Err(Failure::request(&what, "one directory has one project; `stead ls` shows them"))
            }
            _ => Ok(name.clone()),
        },
        // Or more than one: of those with earlier names only volumes are left.
        (None, _) | (Some(_), Some(_)) => {
            let name = said_name(global)?;
            match seen.projects.get(&name).filter(|recorded| recorded.directory != directory) {
                None => Ok(name),
                Some(other) => {
                    let what = format!(
                        "project `{name}` is the one at {}, not the one here",
                        other.directory.display()
                    );
                    let hint = format!(
                        "`stead down {name}` takes that one down, wherever it is; this one needs another `name`"
                    );
                    Err(Failure::request(&what, &hint))
                }
            }
        }
    }
}

/// The projects on record for a directory.
fn recorded<'a>(seen: &'a Observed, directory: &Path) -> impl Iterator<Item = &'a Name> {
    seen.projects.iter().filter(move |(_, recorded)| *recorded.directory == *directory).map(|(name, _)| name)
}

/// The name that the file says, whatever is wrong beside it.
fn said_name(global: &Global) -> Result<Name, Failure> {
    match project::peek(&project::found(global)?, global.project_name.as_ref()) {
        Some(project) => Ok(project.name),
        None => Ok(project::load(global)?.project.name),
    }
}
