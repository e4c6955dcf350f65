//! What machines with a guest of their own need of this computer.

pub(crate) mod files;
pub(crate) mod looks;

use std::collections::BTreeSet;

use anyhow::Result;

use stead_host::home::Home;
use stead_host::linux::guest::{Need, kernels, missing_programs};
use stead_image::Pulled;
use stead_model::container::Mount;
use stead_model::name::MachineId;
use stead_model::observed::{MachineState, Observed};
use stead_model::project::{Project, Runs};
use stead_model::resolve::Refusal;
use stead_model::vm::Firmware;

use crate::failure::Failure;
use crate::working::Working;

/// Makes sure that there is all that the guests among these machines need, before anything is changed.
pub(crate) fn ensure(home: &Home, project: &Project, chosen: &BTreeSet<MachineId>) -> Result<(), Failure> {
    let machines = chosen.iter().filter_map(|id| project.machines.get(&id.name));
    let guests: Vec<BTreeSet<Need>> = machines.filter_map(|machine| needs(&machine.runs)).collect();
    if guests.is_empty() {
        return Ok(());
    }
    ensure_ready(home, &guests.into_iter().flatten().collect())
}

/// Whether a guest among these machines needs a kernel, and there is none yet.
pub(crate) fn awaits_kernel(home: &Home, project: &Project, chosen: &BTreeSet<MachineId>) -> Result<bool> {
    let mut machines = chosen.iter().filter_map(|id| project.machines.get(&id.name));
    let is_needed = machines.any(|machine| needs(&machine.runs).is_some());
    Ok(is_needed && (!home.state.exists() || kernels(home).list()?.is_empty()))
}

/// The programs that the guests among these machines need and that are not here, each once.
pub(crate) fn lacks(project: &Project, chosen: &BTreeSet<MachineId>) -> Vec<Refusal> {
    let mut told = BTreeSet::new();
    let mut lacks = Vec::new();
    for id in chosen {
        let needs = project.machines.get(&id.name).and_then(|machine| needs(&machine.runs));
        let missing = needs.map(|needs| missing_programs(&needs)).unwrap_or_default();
        for (why, hint) in missing.iter().map(|missing| without(missing)) {
            if told.insert(why.clone()) {
                let key = format!("machines.{}.kind", id.name);
                lacks.push(Refusal { key, why, hint: hint.to_owned() });
            }
        }
    }
    lacks
}

/// What is said of a program that is not here.
fn without(missing: &str) -> (String, &str) {
    let (what, hint) = missing.split_once("; hint: ").unwrap_or((missing, "install it"));
    (format!("a machine with a kernel of its own cannot be had here: {what}"), hint)
}

/// What a machine's guest needs; nothing if it has none.
fn needs(runs: &Runs) -> Option<BTreeSet<Need>> {
    match runs {
        Runs::External | Runs::Container(_) => None,
        Runs::Microvm(_) => Some(needs_of_microvm(is_given_files(runs))),
        Runs::Vm(wish) => {
            let uefi = (wish.firmware == Firmware::Uefi).then_some(Need::Uefi);
            Some(uefi.into_iter().chain(is_given_files(runs).then_some(Need::Files)).collect())
        }
    }
}

fn is_given_files(runs: &Runs) -> bool {
    runs.mounts().any(|mount| !matches!(mount, Mount::Tmpfs { .. }))
}

/// What a microVM needs, which may be given files of this computer.
pub(crate) fn needs_of_microvm(is_given_files: bool) -> BTreeSet<Need> {
    [Need::Root].into_iter().chain(is_given_files.then_some(Need::Files)).collect()
}

/// Makes sure that there is all that guests need: programs, and a kernel, which is got where there is none.
pub(crate) fn ensure_ready(home: &Home, needs: &BTreeSet<Need>) -> Result<(), Failure> {
    if let Some(missing) = missing_programs(needs).into_iter().next() {
        let (what, hint) = without(&missing);
        return Err(Failure::request(&what, hint));
    }
    home.prepare()?;
    let store = kernels(home);
    if store.list()?.is_empty() {
        let _working = Working::on("getting a kernel for microVMs");
        match store.pull(None)? {
            Pulled::New(_) | Pulled::Known(_) => {}
        }
    }
    Ok(())
}

/// Whether a machine has a guest of its own.
pub(crate) fn is_guest(id: &MachineId, seen: &Observed) -> bool {
    seen.machines.get(id).is_some_and(MachineState::is_guest)
}
