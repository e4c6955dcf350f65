//! `volume`: what is kept beside machines, and who uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use stead_host::home::Home;
use stead_host::linux::{Unlimitable, VolumeNote, limit_refused, volume_limited};
use stead_model::name::{LOOSE_PROJECT, MachineId, Name, VolumeId, as_ours};
use stead_model::observed::Observed;
use stead_model::plan::{UnwantedVolumes, Wanted, plan};
use stead_model::project::Volume;

use super::image::size;
use super::unmet::Unmet;
use crate::args::{Consent, Global, VolumeCommand, VolumeCreateArgs, VolumeListArgs};
use crate::failure::Failure;
use crate::output::{Output, raw, table};
use crate::session::{Session, look};

/// Carries out a command about volumes.
pub(crate) fn run(global: &Global, command: VolumeCommand, output: Output) -> Result<(), Failure> {
    match command {
        VolumeCommand::Ls(args) => ls(global, &args, output),
        VolumeCommand::Create(args) => create(&args, output),
        VolumeCommand::Inspect { volumes } => inspect(global, &volumes, output),
        VolumeCommand::Rm { volumes, consent, file } => {
            remove(&global.with_files(&file), &volumes, consent.into(), output)
        }
        VolumeCommand::Prune { label, consent } => prune(&label, consent.into(), output),
    }
}

/// A volume in the list.
#[derive(Serialize)]
struct Row {
    name: Name,
    project: Name,
    labels: BTreeMap<String, String>,
    /// The machines that have it mounted, or would when they ran.
    machines: BTreeSet<MachineId>,
    path: PathBuf,
    /// What its files may take at most.
    limit_bytes: Option<u64>,
    /// What they take, where it is limited.
    used_bytes: Option<u64>,
}

impl Row {
    fn id(&self) -> VolumeId {
        VolumeId::new(&self.project, &self.name)
    }
}

/// All volumes, or those that patterns name.
fn rows(global: &Global, patterns: &[String], seen: &Observed, home: &Home) -> Result<Vec<Row>, Failure> {
    let (rows, unmet) = some_rows(global, patterns, seen, home)?;
    unmet.unless(false)?;
    Ok(rows)
}

/// The same, beside which of the names nothing has; at least one has something. A pattern with `*` has to mean some.
fn some_rows(
    global: &Global,
    patterns: &[String],
    seen: &Observed,
    home: &Home,
) -> Result<(Vec<Row>, Unmet), Failure> {
    let is_asked = !patterns.is_empty() || global.project_name.is_some();
    let here = if is_asked { super::here::project_here(global, patterns, seen)? } else { None };
    let mut ids: BTreeSet<&VolumeId> = BTreeSet::new();
    let mut unmet = Unmet::default();
    for pattern in patterns {
        let mut meant = meant(pattern, here.as_ref(), seen);
        meant.retain(|id| global.may_mean(pattern, &id.project));
        match meant.as_slice() {
            [] => {
                let what = format!("there is no volume `{pattern}`");
                let lack = Failure::request(&what, "`stead volume ls` lists them all");
                if pattern.contains('*') {
                    return Err(lack);
                }
                unmet.put(lack)?;
            }
            [one, other, ..] if !pattern.contains('*') => {
                let what = format!("`{pattern}` could be `{one}` or `{other}`");
                return Err(Failure::request(&what, "say it with the project"));
            }
            _ => ids.extend(meant),
        }
    }
    if patterns.is_empty() {
        ids.extend(seen.volumes.keys().filter(|id| here.as_ref().is_none_or(|here| id.project == *here)));
    }
    let unmet = unmet.unless(!ids.is_empty())?;
    let rows: Result<Vec<Row>> = ids.into_iter().map(|id| row(id, seen, home)).collect();
    Ok((rows?, unmet))
}

fn row(id: &VolumeId, seen: &Observed, home: &Home) -> Result<Row> {
    let limited = volume_limited(home, id)?;
    Ok(Row {
        name: id.name.clone(),
        project: id.project.clone(),
        labels: VolumeNote::load(home, id)?.labels,
        machines: seen.users_of(id),
        path: stead_host::linux::volume_path(home, id),
        limit_bytes: limited.map(|limited| limited.most_bytes),
        used_bytes: limited.map(|limited| limited.used_bytes),
    })
}

/// The volumes that a pattern means: those made by command or of the project here, else of all.
fn meant<'a>(pattern: &str, here: Option<&Name>, seen: &'a Observed) -> Vec<&'a VolumeId> {
    let pattern = &as_ours(pattern);
    let is_meant = |id: &&VolumeId| {
        super::ps::matches(pattern, id.name.as_str()) || super::ps::matches(pattern, &id.to_string())
    };
    let all: Vec<&VolumeId> = seen.volumes.keys().filter(is_meant).collect();
    let near = |id: &&VolumeId| here.map_or(id.project.as_str() == LOOSE_PROJECT, |here| id.project == *here);
    let of_here: Vec<&VolumeId> = all.iter().copied().filter(near).collect();
    if of_here.is_empty() { all } else { of_here }
}

/// Whether a volume has one of these labels, if any are asked for.
fn has_label(row: &Row, wanted: &[String]) -> bool {
    let has = |label: &String| match label.split_once('=') {
        Some((name, value)) => row.labels.get(name).is_some_and(|found| found == value),
        None => row.labels.contains_key(label),
    };
    wanted.is_empty() || wanted.iter().any(has)
}

fn ls(global: &Global, args: &VolumeListArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let mut rows = rows(global, &args.volumes, &seen, host.home())?;
    rows.retain(|row| (row.machines.is_empty() || !args.unused) && has_label(row, &args.label));
    if args.quiet {
        let names: Vec<String> = rows.iter().map(|row| row.id().to_string()).collect();
        return output
            .data(&names, || names.iter().map(|name| format!("{name}\n")).collect())
            .map_err(Failure::from);
    }
    let text = || {
        let cells =
            |row: &Row| vec![row.id().to_string(), machines_text(row), limit_text(row), labels_text(row)];
        table(&["VOLUME", "MACHINES", "LIMIT", "LABELS"], &rows.iter().map(cells).collect::<Vec<_>>())
    };
    output.data(&rows, text).map_err(Failure::from)
}

fn machines_text(row: &Row) -> String {
    if row.machines.is_empty() { "-".to_owned() } else { joined(&row.machines) }
}

fn joined(machines: &BTreeSet<MachineId>) -> String {
    machines.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn limit_text(row: &Row) -> String {
    match (row.limit_bytes, row.used_bytes) {
        (Some(limit), Some(used)) => {
            format!("{} ({} used)", Volume { size_bytes: Some(limit) }, size(used))
        }
        _ => "-".to_owned(),
    }
}

fn labels_text(row: &Row) -> String {
    if row.labels.is_empty() {
        return "-".to_owned();
    }
    row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Makes a volume; one that is there already is left as it is.
fn create(args: &VolumeCreateArgs, output: Output) -> Result<(), Failure> {
    let mut labels = BTreeMap::new();
    for label in &args.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            let what = format!("`--label`: `{label}` has no name");
            return Err(Failure::request(&what, "write `NAME=VALUE`"));
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let project = Name::of_loose_project();
    let id = VolumeId::new(&project, &args.name);
    let home = session.host.home().clone();
    let asked = Volume { size_bytes: args.size };
    if let Some(there) = seen.volumes.get(&id) {
        let other = match (*there == asked, VolumeNote::load(&home, &id)?.labels == labels) {
            (true, true) => return raw(&format!("{}\n", id.name)).map_err(Failure::from),
            (true, false) => "with other labels".to_owned(),
            (false, _) if there.size_bytes.is_none() => "without a limit".to_owned(),
            (false, _) => format!("of at most {there}"),
        };
        let what = format!("there is a volume `{}` already, {other}", id.name);
        return Err(Failure::request(&what, "choose another name, or `stead volume rm` it first"));
    }
    if let Some(Unlimitable { why, hint }) =
        asked.size_bytes.and_then(|_| limit_refused(&home).transpose()).transpose()?
    {
        return Err(Failure::request(&format!("`--size`: {why}"), &hint));
    }
    let mut wanted = Wanted::as_it_is(&project, &seen);
    wanted.volumes.insert(id.clone(), asked);
    session.apply(&plan(&wanted, &seen), Consent { yes: false }, output.quiet())?;
    VolumeNote { labels }.store(&home, &id)?;
    raw(&format!("{}\n", id.name)).map_err(Failure::from)
}

/// All about a volume.
#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    row: Row,
    /// When it was made, in milliseconds since 1970, where the file system knows.
    created_ms: Option<u64>,
    /// What its files take, where all of them can be seen.
    size_bytes: Option<u64>,
}

fn inspect(global: &Global, patterns: &[String], output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let rows = rows(global, patterns, &seen, host.home())?;
    let inspected: Vec<Inspected> = rows
        .into_iter()
        .map(|row| {
            let size_bytes = stead_host::linux::taken_bytes(&row.path).ok();
            Inspected { created_ms: created_ms(&row.path), size_bytes, row }
        })
        .collect();
    let text = || {
        let block = |one: &Inspected| {
            let size = one.size_bytes.map_or_else(|| "unknown".to_owned(), size);
            let rows = [
                ("volume", one.row.id().to_string()),
                ("path", one.row.path.display().to_string()),
                ("size", size),
                ("limit", limit_text(&one.row)),
                ("machines", machines_text(&one.row)),
                ("labels", labels_text(&one.row)),
            ];
            let lines = rows.map(|(key, value)| format!("{key:10}{}\n", crate::output::printable(&value)));
            lines.concat()
        };
        inspected.iter().map(block).collect::<Vec<_>>().join("\n")
    };
    output.data(&inspected, text).map_err(Failure::from)
}

fn created_ms(path: &Path) -> Option<u64> {
    let created = std::fs::metadata(path).ok()?.created().ok()?;
    let since = created.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn remove(global: &Global, patterns: &[String], consent: Consent, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let (rows, unmet) = some_rows(global, patterns, &seen, session.host.home())?;
    if let Some(row) = rows.iter().find(|row| !row.machines.is_empty()) {
        return Err(used(&row.id(), &row.machines));
    }
    unmet.after(delete(&mut session, &rows.iter().map(Row::id).collect(), consent, output))
}

fn used(id: &VolumeId, by: &BTreeSet<MachineId>) -> Failure {
    let what = format!("volume `{id}` is used by {}", joined(by));
    Failure::request(&what, "`stead rm` these machines first, or `stead down` their project")
}

/// Refuses to delete volumes of a project that machines of others have mounted.
pub(super) fn refuse_lent(project: &Name, seen: &Observed) -> Result<(), Failure> {
    for id in seen.volumes.keys().filter(|id| id.project == *project) {
        let mut others = seen.users_of(id);
        others.retain(|machine| machine.project != *project);
        if !others.is_empty() {
            return Err(used(id, &others));
        }
    }
    Ok(())
}

fn prune(labels: &[String], consent: Consent, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let home = session.host.home().clone();
    let mut ids = BTreeSet::new();
    for id in seen.volumes.keys().filter(|id| seen.users_of(id).is_empty()) {
        if has_label(&row(id, &seen, &home)?, labels) {
            ids.insert(id.clone());
        }
    }
    delete(&mut session, &ids, consent, output)
}

/// Deletes volumes by one plan for each project, and asks once for all of them.
fn delete(
    session: &mut Session,
    ids: &BTreeSet<VolumeId>,
    consent: Consent,
    output: Output,
) -> Result<(), Failure> {
    if !consent.yes && !ids.is_empty() {
        let names: Vec<String> = ids.iter().map(|id| format!("- volume {id}")).collect();
        crate::session::confirm(&format!("this loses data:\n  {}", names.join("\n  ")))?;
    }
    let projects: BTreeSet<&Name> = ids.iter().map(|id| &id.project).collect();
    for project in projects {
        let seen = session.observe()?;
        let mut wanted = Wanted::as_it_is(project, &seen);
        wanted.volumes.retain(|id, _| !ids.contains(id));
        wanted.unwanted_volumes = UnwantedVolumes::Delete;
        session.apply(&plan(&wanted, &seen), Consent { yes: true }, output)?;
        if project.as_str() == LOOSE_PROJECT {
            super::network::forget_volumes(session, ids)?;
        }
    }
    if crate::args::Format::Json == output.format {
        output.data(ids, String::new)?;
    }
    Ok(())
}
