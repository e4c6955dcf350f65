//! What machines with a guest of their own need of this computer, and which commands do not work on them yet.

use std::collections::BTreeSet;

use stead_host::home::Home;
use stead_host::linux::guest::{kernels, missing_programs};
use stead_image::Pulled;
use stead_model::name::MachineId;
use stead_model::observed::{Body, Observed};
use stead_model::project::{Project, Runs};

use super::image::progress::Progress;
use crate::failure::Failure;

/// Makes sure that there is all that the guests among these machines need, before anything is changed.
pub(crate) fn ensure(home: &Home, project: &Project, chosen: &BTreeSet<MachineId>) -> Result<(), Failure> {
    let is_guest = |id: &MachineId| {
        project.machines.get(&id.name).is_some_and(|machine| matches!(machine.runs, Runs::Microvm(_)))
    };
    if chosen.iter().any(is_guest) { ensure_ready(home) } else { Ok(()) }
}

/// Makes sure that there is all that guests need: programs, and a kernel, which is got where there is none.
pub(crate) fn ensure_ready(home: &Home) -> Result<(), Failure> {
    if let Some(missing) = missing_programs().into_iter().next() {
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

/// Refuses what cannot be done with a guest yet.
pub(crate) fn refuse(id: &MachineId, seen: &Observed, command: &str, hint: &str) -> Result<(), Failure> {
    if !is_guest(id, seen) {
        return Ok(());
    }
    let what = format!("`{id}` is a microVM, for which there is no `{command}` yet");
    Err(Failure::request(&what, hint))
}
