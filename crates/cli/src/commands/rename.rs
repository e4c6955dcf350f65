//! `rename`: a machine that a command made, under another name. Its files and addresses stay; a container that runs goes on.

use std::collections::BTreeSet;

use stead_host::linux::Renaming;
use stead_model::file::render;
use stead_model::name::{LOOSE_PROJECT, MachineId};
use stead_model::observed::{NetworkState, Observed};
use stead_model::plan::{Power, Wanted, plan};
use stead_model::project::Kind;

use super::machines::chosen_one;
use super::{network, up};
use crate::args::{Consent, Global, RenameArgs};
use crate::failure::Failure;
use crate::output::{Output, raw};
use crate::project;
use crate::session::Session;

/// Gives a machine another name.
pub(crate) fn rename(global: &Global, args: &RenameArgs, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let from = chosen_one(global, &args.machine, &seen)?;
    if from.project.as_str() != LOOSE_PROJECT {
        let what = format!("machine `{from}` has its name from its project's file");
        return Err(Failure::request(&what, "write another there; `stead up` then makes it anew"));
    }
    if let Some(sharer) = seen.sharers(&from).next() {
        let what = format!("machine `{sharer}` is in the network of `{from}`, by that name");
        return Err(Failure::request(&what, &format!("`stead rm {sharer}` first, and make it anew then")));
    }
    let runs = seen.running.contains_key(&from);
    if runs {
        ensure_renamable(&from, &seen)?;
    }
    let mut project = network::loose(session.host.home())?;
    let to = MachineId::new(&from.project, &args.name);
    if seen.machines.contains_key(&to) || project.machines.contains_key(&to.name) {
        let what = format!("there is a machine `{}` already", to.name);
        return Err(Failure::request(&what, "choose another name, or `stead rm` it first"));
    }
    if !runs {
        // What may be left of it on the wire carries its name, and is made anew.
        let mut wanted = Wanted::as_it_is(&from.project, &seen);
        wanted.nics.retain(|nic, _| nic.machine() != from);
        wanted.ports.retain(|_, target| target.machine != from);
        session.apply(&plan(&wanted, &seen), Consent { yes: false }, output.quiet())?;
    }
    let path = session.host.home().loose_project().join("stead.yaml");
    let mut lock = project::load_file(&path)?.lock;
    project.call(&from.name, &to.name);
    if let Some(nics) = lock.machines.remove(&from.name) {
        lock.machines.insert(to.name.clone(), nics);
    }
    let files = vec![(path.with_file_name("stead.lock"), lock.render()), (path, render(&project))];
    session.host.rename(&Renaming { from, to: to.clone(), runs, files })?;
    let seen = session.observe()?;
    let machines = BTreeSet::from([to.clone()]);
    let (loaded, wanted) = up::wanted_of(&mut session, (&to.project, None), &machines)?;
    let power = if seen.running.contains_key(&to) { Power::On } else { Power::Off };
    let wanted = wanted.as_made(&machines, &seen).with_power(&machines, power).only(&machines, &seen);
    let wanted = wanted.map_err(|refusals| up::refused(refusals, &loaded))?;
    session.apply(&plan(&wanted, &seen), Consent { yes: false }, output.quiet())?;
    raw(&format!("{}\n", to.name)).map_err(Failure::from)
}

/// Refuses one that runs and cannot go on as another.
fn ensure_renamable(id: &MachineId, seen: &Observed) -> Result<(), Failure> {
    let why = if seen.machines.get(id).is_some_and(|state| state.kind != Kind::Container) {
        "its VMM has its files and its nics by its name"
    } else if seen.nics.keys().any(|nic| {
        nic.machine() == *id && seen.networks.get(&nic.network()).is_some_and(NetworkState::is_bridged)
    }) {
        "its MAC on a real network follows from its name"
    } else {
        return Ok(());
    };
    let what = format!("machine `{id}` runs, and {why}");
    Err(Failure::request(&what, &format!("`stead stop {}` first", id.name)))
}
