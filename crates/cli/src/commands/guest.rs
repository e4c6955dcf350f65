//! What machines with a guest of their own need of this computer.

pub(crate) mod files;
pub(crate) mod looks;

use std::collections::BTreeSet;

use stead_host::home::Home;
use stead_host::linux::guest::{kernels, missing_programs};
use stead_image::Pulled;
use stead_model::container::{Container, Mount};
use stead_model::name::MachineId;
use stead_model::observed::{Body, Observed};
use stead_model::project::{Project, Runs};

use super::image::progress::Progress;
use crate::failure::Failure;

/// Makes sure that there is all that the guests among these machines need, before anything is changed.
pub(crate) fn ensure(home: &Home, project: &Project, chosen: &BTreeSet<MachineId>) -> Result<(), Failure> {
    let guests = chosen.iter().filter_map(|id| match &project.machines.get(&id.name)?.runs {
        Runs::Microvm(wish) => Some(wish),
        Runs::External | Runs::Container(_) => None,
    });
    let is_given = |wish: &Container| wish.mounts.values().any(|mount| !matches!(mount, Mount::Tmpfs { .. }));
    match guests.map(|wish| is_given(wish)).reduce(|a, b| a || b) {
        Some(needs_files) => ensure_ready(home, needs_files),
        None => Ok(()),
    }
}

/// Makes sure that there is all that guests need: programs, and a kernel, which is got where there is none.
pub(crate) fn ensure_ready(home: &Home, needs_files: bool) -> Result<(), Failure> {
    if let Some(missing) = missing_programs(needs_files).into_iter().next() {
        let (what, hint) = missing.split_once("; hint: ").unwrap_or((&missing, "install it"));
        return Err(Failure::request(&format!("a microVM cannot be had here: {what}"), hint));
    }
    home.prepare()?;
    let store = kernels(home);
    if store.list()?.is_empty() {
        let _progress = Progress::of("getting a kernel for microVMs".to_owned());
        match store.pull(None)? {
            Pulled::New(_) | Pulled::Known(_) => {}
        }
    }
    Ok(())
}

/// Whether a machine has a guest of its own.
pub(crate) fn is_guest(id: &MachineId, seen: &Observed) -> bool {
    seen.machines.get(id).is_some_and(|state| matches!(state.body, Body::Microvm(_)))
}
