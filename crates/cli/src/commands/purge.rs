//! `purge`: nothing of this home is left.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Error, Result};

use stead_host::home::Home;
use stead_model::name::{MachineId, Name, NicId};
use stead_model::plan::{Plan, UnwantedVolumes, Wanted, plan};

use super::steps::finished;
use crate::args::{Consent, Format};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::session::{Session, confirm, home, look};
use crate::working::Working;

/// Takes everything away: all projects, the engine, the records, the directories. What cannot be is told, and keeps
/// nothing else from going.
pub(crate) fn run(consent: Consent, output: Output) -> Result<(), Failure> {
    let home = home()?;
    if !home.exists() && !look()?.lives()? {
        return finished(&[], None, output);
    }
    if !consent.yes {
        let what = "this takes away all projects, machines, networks and volumes of this user";
        confirm(&format!("{what} ({}, {})", home.state.display(), home.run.display()))?;
    }
    let mut session = Session::open()?;
    let namespaces = session.host.namespaces()?;
    let around = home.goes_with_it();
    // It would include what is not there any more.
    let mut left: Vec<Error> = super::ssh::forget(&home).err().into_iter().collect();
    left.extend(super::autostart::forget().err());
    // What plans cannot do (the records are damaged, the engine is of another version), taking the engine away whole may still do.
    let mut done = Vec::new();
    if let Err(failure) = take_down(&mut session, output, &mut done, &mut left) {
        note(&format!("on the way:\n{}", failure.text().trim_end()));
    }
    // Whatever is left: an engine that was cut off, or that nothing uses.
    let working = Working::on("the end of all that still runs");
    let razed = session.host.raze();
    drop(working);
    match razed {
        // The lock goes last: until then nobody begins anew.
        Ok(()) => {
            let _working = Working::on("deleting images, volumes, disks and what machines wrote");
            left.extend(
                [
                    session.host.delete_data(),
                    remove(&home.state, || false),
                    remove(&home.run, || is_anew(&home)),
                ]
                .into_iter()
                .filter_map(Result::err),
            );
            for directory in around {
                // Somebody may have put something there, or begun anew: then it stays.
                let _is_in_use = std::fs::remove_dir(directory);
            }
        }
        // With the directories what is known of it would be lost.
        Err(error) => left.push(error),
    }
    left.extend(namespaces.check_gone().err());
    let mut left = left.into_iter();
    let Some(first) = left.next() else { return told(&done, output) };
    let all = left.fold(first, |error, more| error.context(format!("{more:#}")));
    Err(all.context("not everything could be taken away").into())
}

/// The steps, for programs: people were told each when it was done.
fn told(done: &[Plan], output: Output) -> Result<(), Failure> {
    if output.format == Format::Json { finished(done, None, output) } else { Ok(()) }
}

/// Takes those machines away that are on networks of other projects: then no project is in another one's way.
fn dissolve(session: &mut Session, output: Output, done: &mut Vec<Plan>) -> Result<(), Failure> {
    let leases = session.observe()?.leases;
    let machines: BTreeSet<MachineId> =
        leases.keys().filter(|nic| nic.is_external()).map(NicId::machine).collect();
    for project in machines.iter().map(|id| &id.project).collect::<BTreeSet<_>>() {
        let seen = session.observe()?;
        let plan = plan(&Wanted::as_it_is(project, &seen).without_machines(&machines), &seen);
        session.apply(&plan, Consent { yes: true }, output)?;
        done.push(plan);
    }
    Ok(())
}

/// Takes the projects down, with their volumes. What was done is added to `done`, what is left beside their files to `left`.
fn take_down(
    session: &mut Session,
    output: Output,
    done: &mut Vec<Plan>,
    left: &mut Vec<Error>,
) -> Result<(), Failure> {
    dissolve(session, output, done)?;
    loop {
        let seen = session.observe()?;
        let of_volumes = seen.volumes.keys().map(|id| &id.project);
        let of_leases = seen.leases.keys().map(|id| &id.project);
        let names: Vec<&Name> = seen.projects.keys().chain(of_volumes).chain(of_leases).collect();
        // Whoever has volumes that machines of others have mounted goes after those.
        let lends = |name: &&&Name| super::volume::refuse_lent(name, &seen).is_err();
        let Some(name) = names.iter().find(|name| !lends(name)).or(names.first()).copied().cloned() else {
            return Ok(());
        };
        if let Some(files) = seen.projects.get(&name) {
            left.extend(crate::project::tidy(&files.directory).err());
        }
        let plan = plan(&Wanted::nothing(&name, &seen, UnwantedVolumes::Delete), &seen);
        session.apply(&plan, Consent { yes: true }, output)?;
        if plan.steps.is_empty() {
            return Ok(());
        }
        done.push(plan);
    }
}

/// Who only looks may make a file (the records' index) while we delete; no more often than this.
const REMOVE_ATTEMPTS: u32 = 10;

/// Deletes a directory, unless it is another's by now.
fn remove(path: &Path, is_anew: impl Fn() -> bool) -> Result<()> {
    let mut attempts = 1..=REMOVE_ATTEMPTS;
    loop {
        attempts.next();
        match std::fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                if is_anew() {
                    return Ok(());
                }
                if attempts.is_empty() {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
}

/// Whether another command, which waited for us, has begun the home anew.
fn is_anew(home: &Home) -> bool {
    home.run.join("lock").exists()
}
