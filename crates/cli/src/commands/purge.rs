//! `purge`: nothing of this home is left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_host::home::{Home, remove_if_there};
use stead_model::plan::{UnwantedVolumes, Wanted, plan};
use stead_model::step::Step;

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
    let mut failures = Vec::new();
    loop {
        let seen = match session.observe() {
            Ok(seen) => seen,
            // Damaged records, or an engine of another version: then all is taken away unseen.
            Err(error) => {
                failures.push(Failure::from(error));
                forget_records(&home)?;
                break;
            }
        };
        let of_volumes = seen.volumes.iter().map(|id| &id.project);
        let of_leases = seen.leases.keys().map(|id| &id.project);
        let Some(name) = seen.projects.keys().chain(of_volumes).chain(of_leases).next().cloned() else {
            break;
        };
        if let Some(directory) = seen.projects.get(&name) {
            crate::project::tidy(directory)?;
        }
        let plan = plan(&Wanted::nothing(&name, &seen, UnwantedVolumes::Delete), &seen);
        if let Err(failure) = session.apply(&plan, Consent { yes: true }, output) {
            // What a plan could not do, taking the engine away whole may still do.
            failures.push(failure);
            break;
        }
        if plan.steps.is_empty() {
            break;
        }
    }
    // Whatever is left: an engine that was cut off, or that nothing uses.
    let engine = stead_host::apply::Host::run(&mut session.host, &[&Step::EngineStop]);
    engine.into_iter().collect::<Result<Vec<()>>>()?;
    remove(&home.run)?;
    remove(&home.state)?;
    for failure in &failures {
        note(&format!("on the way:\n{}", failure.text().trim_end()));
    }
    Ok(())
}

/// Takes the records away alone, with what SQLite has beside them.
fn forget_records(home: &Home) -> Result<()> {
    let with = |end: &str| {
        let mut name = home.database().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    ["", "-wal", "-shm"].into_iter().try_for_each(|end| remove_if_there(&with(end)))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
