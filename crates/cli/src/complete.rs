//! What a shell offers after Tab: the names of projects, machines and networks that exist.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};

use stead_host::history::History;
use stead_host::home::{Environment, Home};
use stead_host::machine::Files;
use stead_host::state::{Records, State};

/// What is on record; nothing where there are no records, as a completion never fails.
fn records() -> Records {
    let state = home().filter(Home::exists).and_then(|home| State::find(&home.database()).ok().flatten());
    state.and_then(|state| state.load().ok()).unwrap_or_default()
}

fn home() -> Option<Home> {
    Home::new(&Environment::observe()).ok().filter(|home| home.check().is_ok())
}

fn starting_with(current: &OsStr, names: BTreeSet<String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}

/// The projects.
pub(crate) fn projects(current: &OsStr) -> Vec<CompletionCandidate> {
    starting_with(current, records().projects.keys().map(ToString::to_string).collect())
}

/// The machines, by their short and their long name.
pub(crate) fn machines(current: &OsStr) -> Vec<CompletionCandidate> {
    let records = records();
    let long = records.machines.keys().map(ToString::to_string);
    let short = records.machines.keys().map(|id| id.name.to_string());
    starting_with(current, long.chain(short).collect())
}

/// The snapshots of all machines.
pub(crate) fn snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(home) = home() else { return Vec::new() };
    let machines = records().machines;
    let histories = machines.keys().filter_map(|id| History::load(&Files::new(&home, id)).ok());
    let names = histories.flat_map(|history| history.snapshots.into_keys());
    starting_with(current, names.map(|name| name.to_string()).collect())
}

/// The volumes, by their short and their long name.
pub(crate) fn volumes(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(home) = home() else { return Vec::new() };
    let names = |path: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.starts_with('.')).collect()
    };
    let mut found = BTreeSet::new();
    for project in names(&home.volumes()) {
        for volume in names(&home.volumes().join(&project)) {
            found.extend([format!("{volume}.{project}"), volume]);
        }
    }
    starting_with(current, found)
}

/// Paths here, and the beginnings of paths in machines.
pub(crate) fn machine_paths(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = records().machines.keys().map(|id| format!("{}:", id.name)).collect();
    let mut found = starting_with(current, names);
    found.extend(PathCompleter::any().complete(current));
    found
}

/// The networks, by their short and their long name.
pub(crate) fn networks(current: &OsStr) -> Vec<CompletionCandidate> {
    let served = home().map(|home| stead_host::switchboard::load_served(&home)).unwrap_or_default();
    let long = served.networks.keys().map(ToString::to_string);
    let short = served.networks.keys().map(|id| id.name.to_string());
    starting_with(current, long.chain(short).collect())
}

/// The networks that were made by command.
pub(crate) fn loose_networks(current: &OsStr) -> Vec<CompletionCandidate> {
    let served = home().map(|home| stead_host::switchboard::load_served(&home)).unwrap_or_default();
    let loose = served.networks.keys().filter(|id| id.project.as_str() == crate::commands::LOOSE_PROJECT);
    starting_with(current, loose.map(|id| id.name.to_string()).collect())
}

/// The images that are here, by their names.
pub(crate) fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let store = home().map(|home| home.images()).filter(|images| images.exists());
    let images =
        store.and_then(|images| stead_image::Store::open(&images).ok()?.list().ok()).unwrap_or_default();
    let names = images.into_iter().flat_map(|details| details.image.names);
    starting_with(current, names.map(|name| name.to_string()).collect())
}
