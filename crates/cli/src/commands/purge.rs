//! `purge`: nothing of this home is left.

use std::path::Path;

use anyhow::{Context, Result};

use stead_model::plan::{UnwantedVolumes, Wanted, plan};

use crate::args::Consent;
use crate::failure::Failure;
use crate::output::{Output, note, raw};
use crate::session::{Session, confirm, home};

/// Takes everything away: all projects, the engine, the records, the directories.
pub(crate) fn run(consent: Consent, output: Output) -> Result<(), Failure> {
    let home = home()?;
    if !home.exists() {
        return raw("nothing to do\n").map_err(Failure::from);
    }
    if !consent.yes {
        let what = "this takes away all projects, machines, networks and volumes of this user";
        confirm(&format!("{what} ({}, {})", home.state.display(), home.run.display()))?;
    }
    let mut session = Session::open()?;
    // What plans cannot do (the records are damaged, the engine is of another version), taking the engine away whole may still do.
    if let Err(failure) = take_down(&mut session, output) {
        note(&format!("on the way:\n{}", failure.text().trim_end()));
    }
    // Whatever is left: an engine that was cut off, or that nothing uses.
    session.host.raze()?;
    // The lock goes last: until then nobody begins anew.
    remove(&home.state)?;
    remove(&home.run)?;
    Ok(())
}

/// Takes the projects down, with their volumes.
fn take_down(session: &mut Session, output: Output) -> Result<(), Failure> {
    loop {
        let seen = session.observe()?;
        let of_volumes = seen.volumes.iter().map(|id| &id.project);
        let of_leases = seen.leases.keys().map(|id| &id.project);
        let Some(name) = seen.projects.keys().chain(of_volumes).chain(of_leases).next().cloned() else {
            return Ok(());
        };
        if let Some(directory) = seen.projects.get(&name) {
            crate::project::tidy(directory)?;
        }
        let plan = plan(&Wanted::nothing(&name, &seen, UnwantedVolumes::Delete), &seen);
        session.apply(&plan, Consent { yes: true }, output)?;
        if plan.steps.is_empty() {
            return Ok(());
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        // Somebody begins anew there.
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
