//! `snapshot` and `reset`: a machine's files kept as they are, and the way back to them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Serialize;

use stead_host::held::Held;
use stead_host::history::{History, Label, Snapshot};
use stead_host::linux::LinuxHost;
use stead_host::log::timestamp;
use stead_host::machine::Files;
use stead_model::name::{MachineId, Name};
use stead_model::observed::Observed;
use stead_model::plan::{Power, Wanted, plan};

use super::image::size;
use super::machines::{choose, chosen_one, ours, tell};
use crate::args::{Consent, Global, ResetArgs, SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs};
use crate::failure::Failure;
use crate::output::{Output, printable, table};
use crate::session::{Session, look};
use crate::working::Working;

/// The snapshot that `reset` takes when none is named.
const INITIAL: &str = "initial";

/// Carries out a command about snapshots.
pub(crate) fn run(global: &Global, command: SnapshotCommand, output: Output) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Create(args) => create(global, &args, output),
        SnapshotCommand::Ls(args) => ls(global, &args, output),
        SnapshotCommand::Rm { machine, snapshots } => remove(global, &machine, &snapshots, output),
        SnapshotCommand::Restore { machine, snapshot } => {
            let (mut session, seen, id) = begin(global, &machine)?;
            known(&history(&session.host, &id)?, &id, &snapshot)?;
            go_back(&mut session, &seen, &id, Some(&snapshot), output)
        }
    }
}

/// `reset`.
pub(crate) fn reset(global: &Global, args: &ResetArgs, output: Output) -> Result<(), Failure> {
    let (mut session, seen, id) = begin(global, &args.machine)?;
    let history = history(&session.host, &id)?;
    if let Some(name) = &args.snapshot {
        known(&history, &id, name)?;
    }
    let initial = history.snapshots.keys().find(|name| name.as_str() == INITIAL);
    go_back(&mut session, &seen, &id, args.snapshot.as_ref().or(initial), output)
}

/// The one machine that is meant, with the right to change it.
fn begin(global: &Global, machine: &str) -> Result<(Session, Observed, MachineId), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let id = chosen_one(global, machine, &seen)?;
    ours(std::slice::from_ref(&id), &seen)?;
    Ok((session, seen, id))
}

/// Refuses what cannot be made of a whole computer, whose files are in a disk of its own system.
pub(super) fn not_of_vms(what: &str, id: &MachineId, seen: &Observed) -> Result<(), Failure> {
    if seen.machines.get(id).is_none_or(|state| state.vm().is_none()) {
        return Ok(());
    }
    let what = format!("machine `{id}` is a vm, and {what} are of containers and microVMs");
    Err(Failure::request(&what, "`stead cp` carries its files out"))
}

fn history(host: &LinuxHost, id: &MachineId) -> anyhow::Result<History> {
    History::load(&Files::new(host.home(), id)).with_context(|| format!("machine `{id}`"))
}

pub(super) fn known(history: &History, id: &MachineId, name: &Name) -> Result<(), Failure> {
    if history.snapshots.contains_key(name) {
        return Ok(());
    }
    let what = format!("machine `{id}` has no snapshot `{name}`");
    Err(Failure::request(&what, &format!("`stead snapshot ls {id}` lists them")))
}

fn create(global: &Global, args: &SnapshotCreateArgs, output: Output) -> Result<(), Failure> {
    let (mut session, seen, id) = begin(global, &args.machine)?;
    let doing = || format!("machine `{id}`");
    let history = history(&session.host, &id)?;
    let name = args.name.clone().map_or_else(|| history.free_name(), Ok)?;
    if history.snapshots.contains_key(&name) {
        let what = format!("machine `{id}` has a snapshot `{name}` already");
        let hint = format!("choose another name, or `stead snapshot rm {id} {name}` first");
        return Err(Failure::request(&what, &hint));
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let label = Label { name, description: args.description.clone(), at_ms };
    let runs = seen.running.contains_key(&id);
    let held = runs.then(|| Held::take(session.host.home(), &id)).transpose().with_context(doing)?;
    let _working = Working::on(format!("the snapshot of `{id}`"));
    session.host.take_snapshot(&id, &label, held).with_context(doing)?;
    output.data(&label.name, || format!("{}\n", label.name)).map_err(Failure::from)
}

/// A snapshot in the list.
#[derive(Serialize)]
struct Row {
    machine: MachineId,
    name: Name,
    created_ms: u64,
    description: String,
    parent: Option<Name>,
    /// What came with it, beyond its parent's.
    size_bytes: u64,
    /// Whether the machine began there that it is now.
    is_current: bool,
}

fn ls(global: &Global, args: &SnapshotListArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let ids = if args.machines.is_empty() {
        let here = super::here::project_here(global, &[], &seen)?;
        let is_meant = |id: &&MachineId| here.as_ref().is_none_or(|project| id.project == *project);
        // Of those that are damaged it is told why they are not listed.
        let all: BTreeSet<&MachineId> = seen.snapshots.keys().chain(&seen.damaged).collect();
        all.into_iter().filter(is_meant).cloned().collect()
    } else {
        choose(global, &args.machines, &seen)?
    };
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for id in &ids {
        match rows_of(&host, id).with_context(|| format!("machine `{id}`")) {
            Ok(some) => rows.extend(some),
            Err(error) => failures.push(error),
        }
    }
    let cells = |row: &Row| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(row.created_ms);
        let seconds: String = timestamp(at).chars().take_while(|letter| *letter != '.').collect();
        vec![
            row.machine.to_string(),
            format!("{}{}", row.name, if row.is_current { " *" } else { "" }),
            format!("{seconds}Z"),
            size(row.size_bytes),
            row.parent.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            printable(&row.description),
        ]
    };
    let text = || {
        let heading = ["MACHINE", "SNAPSHOT", "CREATED", "SIZE", "PARENT", "DESCRIPTION"];
        table(&heading, &rows.iter().map(cells).collect::<Vec<_>>())
    };
    output.data(&rows, text)?;
    // The others' are listed all the same.
    failures.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

/// The snapshots of a machine, the oldest first.
fn rows_of(host: &LinuxHost, id: &MachineId) -> anyhow::Result<Vec<Row>> {
    let history = history(host, id)?;
    let row = |(name, snapshot): (&Name, &Snapshot)| -> anyhow::Result<Row> {
        let Snapshot { at_ms, description, parent, .. } = snapshot;
        Ok(Row {
            machine: id.clone(),
            name: name.clone(),
            created_ms: *at_ms,
            description: description.clone(),
            parent: parent.clone(),
            size_bytes: host.layer_bytes(id, &history.own_layers(snapshot))?,
            is_current: history.on.as_ref() == Some(name),
        })
    };
    let mut rows = history.snapshots.iter().map(row).collect::<anyhow::Result<Vec<Row>>>()?;
    rows.sort_by_key(|row| row.created_ms);
    Ok(rows)
}

fn remove(global: &Global, machine: &str, names: &[Name], output: Output) -> Result<(), Failure> {
    let (mut session, _, id) = begin(global, machine)?;
    let history = history(&session.host, &id)?;
    names.iter().try_for_each(|name| known(&history, &id, name))?;
    let _working = Working::on(format!("removing snapshots of `{id}`"));
    for name in names {
        session.host.forget_snapshot(&id, name).with_context(|| format!("machine `{id}`"))?;
    }
    if crate::args::Format::Json == output.format {
        output.data(&names, String::new)?;
    }
    Ok(())
}

/// Sets a machine back; one that runs is ended and started again.
fn go_back(
    session: &mut Session,
    seen: &Observed,
    id: &MachineId,
    to: Option<&Name>,
    output: Output,
) -> Result<(), Failure> {
    let doing = || format!("machine `{id}`");
    // What takes long, and what may fail, comes while it still runs.
    let working = Working::on(format!("preparing `{id}` as it was"));
    let way = session.host.prepare_return(id, to).with_context(doing)?;
    drop(working);
    let runs = seen.running.contains_key(id);
    if runs {
        let wanted = Wanted::as_it_is(&id.project, seen).with_power(&[id.clone()].into(), Power::Off);
        session.apply(&plan(&wanted, seen), Consent { yes: false }, output.quiet())?;
    }
    session.host.go_back(way).with_context(doing)?;
    if runs {
        // As it was made: what its file says by now, or whether it can be read, is another matter.
        let ports = seen.ports.iter().filter(|(_, target)| target.machine == *id);
        let now = session.observe()?;
        let mut wanted = Wanted::as_it_is(&id.project, &now).with_power(&[id.clone()].into(), Power::On);
        wanted.ports.extend(ports.map(|(bind, target)| (*bind, target.clone())));
        session.apply(&plan(&wanted, &now), Consent { yes: false }, output.quiet())?;
    }
    tell(std::slice::from_ref(id), output)
}
