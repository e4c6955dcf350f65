//! What a shell offers after Tab: the names of projects, machines and networks that exist, or stand in the project file
//! here. It waits for no lock, and for nobody else long.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::mpsc;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};

use stead_host::history::History;
use stead_host::home::{Environment, Home};
use stead_host::linux::standing_networks;
use stead_host::machine::Files;
use stead_host::state::{Records, State};
use stead_model::name::{Name, NetworkId, NicId, as_ours};
use stead_model::project::{Nic, Project};

use crate::project::{self, Found};
use crate::working::TELL_AFTER;

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

/// The project of the file here, or of the one that the command line names; nothing if it cannot be read.
fn project_here() -> Option<Project> {
    let said = files_said();
    if said.iter().any(|file| project::is_stdin(file)) {
        return None;
    }
    let found = Found::named(said).or_else(|| project::find_here().ok())?;
    project::peek(&found, project_said().as_ref())
}

/// The words so far.
fn words() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1)
}

/// What the words so far call the project.
fn project_said() -> Option<Name> {
    let mut words = words();
    while let Some(word) = words.next() {
        let said = match word.to_str()?.strip_prefix("--project-name") {
            Some("") => words.next()?.into_string().ok()?,
            Some(said) => said.strip_prefix('=')?.to_owned(),
            None => continue,
        };
        return as_ours(&said).parse().ok();
    }
    None
}

/// The project files that the words so far name, or the environment.
fn files_said() -> Vec<PathBuf> {
    let mut words = words();
    let mut said = Vec::new();
    while let Some(word) = words.next() {
        if word == "-f" || word == "--file" {
            said.extend(words.next());
        } else if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--file=")) {
            said.push(file.into());
        }
    }
    if said.is_empty() {
        said.extend(std::env::var_os("STEAD_FILE").filter(|file| !file.is_empty()));
    }
    said.into_iter().map(PathBuf::from).collect()
}

/// The machines of the project here, whether they were ever made or not; else those that there are.
pub(crate) fn project_machines(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(project) = project_here() else { return machines(current) };
    let long = project.machines.keys().map(|name| format!("{name}.{}", project.name));
    let short = project.machines.keys().map(ToString::to_string);
    starting_with(current, long.chain(short).collect())
}

/// The networks that stand, as far as that can be seen at once.
fn standing() -> Vec<NetworkId> {
    let Some(home) = home() else { return Vec::new() };
    let (sender, networks) = mpsc::channel();
    // An engine that hangs answers late.
    std::thread::spawn(move || sender.send(standing_networks(&home).unwrap_or_default()));
    networks.recv_timeout(TELL_AFTER).unwrap_or_default()
}

fn of_project(project: Project) -> Vec<NetworkId> {
    project.networks.keys().map(|name| NetworkId::new(&project.name, name)).collect()
}

/// What was made by command, as its own file has it.
fn loose_project() -> Option<Project> {
    project::peek(&Found::one(home()?.loose_project().join("stead.yaml")), None)
}

/// The networks that were made by command.
fn by_command() -> Vec<NetworkId> {
    loose_project().map(of_project).unwrap_or_default()
}

/// The machines that were made by command and have a nic on the network that the words so far name.
pub(crate) fn machines_on(current: &OsStr) -> Vec<CompletionCandidate> {
    of_network(current, true)
}

/// Those that have none there.
pub(crate) fn machines_not_on(current: &OsStr) -> Vec<CompletionCandidate> {
    of_network(current, false)
}

fn of_network(current: &OsStr, are_on: bool) -> Vec<CompletionCandidate> {
    let Some(project) = loose_project() else { return Vec::new() };
    let after = words().skip_while(|word| word != "connect" && word != "disconnect").skip(1);
    let named = after.filter_map(|word| word.into_string().ok()).find_map(|word| {
        let name = word.strip_suffix(&format!(".{}", project.name)).unwrap_or(&word);
        project.networks.keys().find(|network| network.as_str() == name)
    });
    let Some(network) = named else { return Vec::new() };
    let is_on = |nics: &[Nic]| nics.iter().any(|nic| nic.network == *network);
    let found = project.machines.iter().filter(|(_, machine)| is_on(&machine.nics) == are_on);
    let found = found.map(|(name, _)| name.to_string()).collect();
    starting_with(current, found)
}

/// The networks, by their short and their long name. After the computer was started anew none stands, and those are known
/// that machines have addresses on.
pub(crate) fn networks(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = standing();
    found.extend(records().leases.keys().map(NicId::network));
    found.extend(by_command());
    found.extend(project_here().map(of_project).unwrap_or_default());
    starting_with(current, found.iter().flat_map(|id| [id.to_string(), id.name.to_string()]).collect())
}

/// The networks that were made by command.
pub(crate) fn loose_networks(current: &OsStr) -> Vec<CompletionCandidate> {
    starting_with(current, by_command().iter().map(|id| id.name.to_string()).collect())
}

/// What `run` makes machines of: the machines of the project here, and images.
pub(crate) fn what_is_run(current: &OsStr) -> Vec<CompletionCandidate> {
    let project = project_here();
    let machines = project.iter().flat_map(|project| project.machines.keys().map(ToString::to_string));
    let mut found = starting_with(current, machines.collect());
    found.extend(images(current));
    found
}

/// The images that are here, by their names.
pub(crate) fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let store = home().map(|home| home.images()).filter(|images| images.exists());
    let images =
        store.and_then(|images| stead_image::Store::open(&images).ok()?.list().ok()).unwrap_or_default();
    let names = images.into_iter().flat_map(|details| details.image.names);
    starting_with(current, names.map(|name| name.to_string()).collect())
}
