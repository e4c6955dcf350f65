//! `rename`: a machine that a command made, under another name. Its files and addresses stay.

use std::collections::BTreeSet;

use stead_host::linux::Renaming;
use stead_model::file::render;
use stead_model::name::{LOOSE_PROJECT, MachineId};
use stead_model::plan::{Power, Wanted, plan};

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
    if seen.running.contains_key(&from) {
        let what = format!("machine `{from}` runs, and others know it by its name");
        let hint = format!(
            "`stead stop {}` first: until it ends its keeper, its control group and its nics have that name",
            from.name
        );
        return Err(Failure::request(&what, &hint));
    }
    let mut project = network::loose(session.host.home())?;
    let to = MachineId::new(&from.project, &args.name);
    if seen.machines.contains_key(&to) || project.machines.contains_key(&to.name) {
        let what = format!("there is a machine `{}` already", to.name);
        return Err(Failure::request(&what, "choose another name, or `stead rm` it first"));
    }
    // What is on the wire carries its name, and is made anew.
    let mut wanted = Wanted::as_it_is(&from.project, &seen);
    wanted.nics.retain(|nic, _| nic.machine() != from);
    wanted.ports.retain(|_, target| target.machine != from);
    session.apply(&plan(&wanted, &seen), Consent { yes: false }, output.quiet())?;
    let path = session.host.home().loose_project().join("stead.yaml");
    let mut lock = project::load_file(&path)?.lock;
    if let Some(machine) = project.machines.remove(&from.name) {
        project.machines.insert(to.name.clone(), machine);
    }
    if let Some(nics) = lock.machines.remove(&from.name) {
        lock.machines.insert(to.name.clone(), nics);
    }
    let files = vec![(path.with_file_name("stead.lock"), lock.render()), (path, render(&project))];
    session.host.rename(&Renaming { from, to: to.clone(), files })?;
    let seen = session.observe()?;
    let machines = BTreeSet::from([to.clone()]);
    let (loaded, wanted) = up::wanted_of(&mut session, (&to.project, None), &machines)?;
    let wanted = wanted.as_made(&machines, &seen).with_power(&machines, Power::Off).only(&machines, &seen);
    let wanted = wanted.map_err(|refusals| up::refused(refusals, &loaded))?;
    session.apply(&plan(&wanted, &seen), Consent { yes: false }, output.quiet())?;
    raw(&format!("{}\n", to.name)).map_err(Failure::from)
}
