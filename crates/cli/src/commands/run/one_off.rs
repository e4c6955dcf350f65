//! `run` of a machine of the project here: one more of that project is made, as the file says of the machine, with the
//! options over that. What it depends on is brought up first, as by `up`.

use std::collections::BTreeSet;
use std::fs::File;

use stead_host::lock::lock_project;
use stead_model::file::Pull;
use stead_model::name::{MachineId, Name, as_ours};
use stead_model::observed::Observed;
use stead_model::one_off::free_name;
use stead_model::plan::Power;
use stead_model::project::{Kind, Machine, Project};
use stead_model::resolve::Images;

use super::super::build::{self, BuildWhen};
use super::super::up::{self, Anew, Bring, Whose};
use super::super::wish::{self, Wish};
use super::super::{image, network, ps};
use super::take_away_again;
use crate::args::{Consent, Global, MachineArgs, PullWhen, RunArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::project::{self, Found, Loaded};
use crate::session::{Session, look};

/// The machine of the project here that is meant by what is to be run, if one is; and its project.
pub(super) fn meant(global: &Global, args: &RunArgs) -> Result<Option<MachineId>, Failure> {
    let text = &args.machine.image;
    let project = if text.contains(['/', ':', '@', '*']) { None } else { project_here(global) };
    let ids: Vec<MachineId> = project.iter().flat_map(ids).collect();
    if let Some(id) = ps::among(text, ids.iter()).first() {
        return Ok(Some((*id).clone()));
    }
    let is_project_said = global.is_file_said || global.project_name.is_some();
    if let (None, true) = (&project, is_project_said && !text.contains(['/', ':', '@', '*'])) {
        // Why it cannot be read.
        project::load_named(global, &[], false)?;
    }
    let said = [
        ("--file", global.is_file_said),
        ("--project-name", global.project_name.is_some()),
        ("--profile", !global.profile.is_empty()),
        ("--no-deps", args.no_deps),
        ("--service-ports", args.service_ports),
    ];
    match said.into_iter().find(|(_, is_said)| *is_said) {
        None => Ok(None),
        Some((option, _)) => {
            let what = match project {
                Some(project) => format!("project `{}` has no machine `{text}`", project.name),
                None => format!("`{text}` is an image, and `{option}` is about machines of a project"),
            };
            let hint = format!("name a machine of the project, or leave out `{option}`");
            Err(Failure::request(&what, &hint))
        }
    }
}

/// What is said, with the files that made the project here where nobody names others: one more machine of it changes
/// nothing of what the project is.
pub(super) fn on_record(global: &Global, text: &str) -> Result<Global, Failure> {
    let same = || global.clone();
    if !global.file.is_empty() || text.contains(['/', ':', '@', '*']) {
        return Ok(same());
    }
    let Ok(found) = project::found(global) else { return Ok(same()) };
    if found.is_named {
        return Ok(same());
    }
    let directory = project::directory_of(&project::find(global)?)?;
    let seen = look()?.records()?;
    let mut recorded = seen.projects.iter().filter(|(_, files)| files.directory == directory);
    let (Some((name, files)), None) = (recorded.next(), recorded.next()) else { return Ok(same()) };
    let Some(made) = Found::named(files.named.iter().cloned()) else { return Ok(same()) };
    let ids = || seen.machines.keys().filter(|id| id.project == *name);
    if files.named.iter().any(|file| project::is_stdin(file)) {
        return if ps::among(text, ids()).is_empty() { Ok(same()) } else { Err(project::read_before()) };
    }
    let with = |is_file_said| Global { file: files.named.clone(), is_file_said, ..global.clone() };
    let called = global.project_name.as_ref();
    let is_another =
        |found: &Found| project::peek(found, called).is_some_and(|project| project.name != *name);
    match project::peek(&made, called) {
        // Another project than the one that made the record is meant, or is in these files by now.
        _ if is_another(&found) || is_another(&made) => Ok(same()),
        Some(_) => Ok(with(false)),
        // Why they cannot be read is told to who means a machine.
        None if !ps::among(text, ids()).is_empty() => Ok(with(true)),
        None => Ok(same()),
    }
}

/// The project here as far as its file can be read.
pub(super) fn project_here(global: &Global) -> Option<Project> {
    project::found(global).ok().and_then(|found| project::peek(&found, global.project_name.as_ref()))
}

fn ids(project: &Project) -> Vec<MachineId> {
    project.machines.keys().map(|name| MachineId::new(&project.name, name)).collect()
}

/// Makes the machine and starts it. What failed leaves none.
pub(super) fn make(
    global: &Global,
    args: &RunArgs,
    of: &MachineId,
    output: Output,
) -> Result<(MachineId, Session), Failure> {
    let of = &of.name;
    let mut loaded = project::load_named(global, &[of.to_string()], false)?;
    let (machine, volumes) = derived(&loaded, of, args)?;
    if args.cold && machine.kind != Kind::Microvm {
        return Err(crate::commands::cold::container());
    }
    note(&format!(
        "`{of}` is a machine of project `{}`; an image is meant by `{}:latest`",
        loaded.project.name, args.machine.image
    ));
    let needed = dependencies(&loaded.project, of, args)?;
    let more = volumes.into_iter().filter(|name| !loaded.project.volumes.contains_key(name)).collect();
    network::name_volumes(&crate::session::home()?, &mut loaded.project, more)?;
    let seen = look()?.observe()?;
    let name = name(&loaded, of, &args.machine, &seen)?;
    put(&mut loaded, of, &name, machine);
    let names = needed.iter().map(|id| id.name.clone()).collect();
    loaded.project.yield_ports(&name, &names);
    if let Some(when) = args.machine.pull {
        loaded.pull.insert(name.clone(), as_in_file(when));
    }
    let id = MachineId::new(&loaded.project.name, &name);
    let images = images(&loaded, &id, &needed)?;
    let project_lock = lock(&loaded)?;
    let mut session = Session::open()?;
    // Others may have taken the name meanwhile; from now on nobody can.
    let seen = session.observe()?;
    let name = renamed(&mut loaded, of, &name, (&args.machine, &seen))?;
    let id = MachineId::new(&loaded.project.name, &name);
    let bring = |chosen: BTreeSet<MachineId>| Bring {
        whose: Whose::Only(chosen),
        anew: Anew::default(),
        relock: false,
        images: images.clone(),
        power: Power::On,
        consent: Consent { yes: false },
    };
    let alone = bring([id.clone()].into());
    up::check(&mut session, &loaded, &alone)?;
    if !needed.is_empty() {
        up::bring_up(&mut session, &loaded, &bring(needed), output)?;
    }
    // Those that it depends on begin as they would by themselves.
    if args.cold {
        session.host.start_cold();
    }
    if args.rm {
        session.host.make_fleeting();
        session.fleeting = Some(id.clone());
    }
    if let Err(failure) = up::bring_up(&mut session, &loaded, &alone, output) {
        if matches!(failure, Failure::Steps(_)) {
            // The failure is what matters.
            let _left = take_away_again(&mut session, &id, super::Stay::UntilItEnds, output);
        }
        return Err(failure);
    }
    drop(project_lock);
    Ok((id, session))
}

/// What the machine is to be, and the volumes that it needs.
fn derived(loaded: &Loaded, of: &Name, args: &RunArgs) -> Result<(Machine, BTreeSet<Name>), Failure> {
    let machine = loaded.project.machines.get(of).ok_or_else(|| {
        let what = format!("the project has no machine `{of}` any more");
        Failure::request(&what, "`stead plan` shows what it has")
    })?;
    let Some(mut base) = machine.for_one_off() else { return Err(unfit(of, machine)) };
    refuse_what_the_file_says(of, loaded, &args.machine)?;
    let is_machine =
        |alias: &&String| loaded.project.machines.keys().any(|name| as_ours(alias) == name.as_str());
    if let Some(alias) = args.machine.network_alias.iter().find(is_machine) {
        let what = format!("`--network-alias {alias}`: that is the name of another machine");
        return Err(Failure::request(&what, "choose another"));
    }
    if !machine.provision.is_empty() || machine.dev.is_some() {
        note(&format!(
            "the scripts and the user that the file says of `{of}` are not made in a machine of one run"
        ));
    }
    if args.service_ports || args.machine.publish_all {
        base.ports.clone_from(&machine.ports);
    }
    if args.no_deps {
        base.depends_on.clear();
        base.restarts_with.clear();
    }
    if let Some(container) = base.container_mut() {
        // As it is here: nobody else sits at it.
        container.tty &= args.detach && !args.no_tty;
        container.stdin &= args.detach;
    }
    let Wish { machine, volumes } = wish::over(of, &base, &args.machine, &loaded.project)?;
    let one_off = machine.as_one_off(of).ok_or_else(|| unfit(of, &base))?;
    Ok((one_off, volumes))
}

fn unfit(of: &Name, machine: &Machine) -> Failure {
    let (why, hint) = match machine.kind {
        Kind::Vm if machine.runs.is_ours() => (
            "a vm boots a system of its own, and runs no program instead",
            format!("`stead exec {of} PROGRAM` runs one in it"),
        ),
        Kind::Container | Kind::Microvm | Kind::Vm => {
            ("somebody else runs it (`driver: external`)", "ask the program that does".to_owned())
        }
    };
    Failure::request(&format!("machine `{of}` cannot be run once more: {why}"), &hint)
}

/// Refuses options about what the machine has from its file.
fn refuse_what_the_file_says(of: &Name, loaded: &Loaded, args: &MachineArgs) -> Result<(), Failure> {
    let is_built = loaded.builds.contains_key(of);
    let said = [
        ("--network", !args.network.is_empty(), "is on the networks that the file says"),
        ("--kind", args.kind.is_some(), "is of the kind that the file says"),
        ("--platform", args.platform.is_some(), "is for the platform that the file says"),
        (
            "--pull always",
            is_built && args.pull == Some(PullWhen::Always),
            "is made from an image that is built here",
        ),
    ];
    match said.into_iter().find(|(_, is_said, _)| *is_said) {
        None => Ok(()),
        Some((option, _, why)) => {
            let hint = if option.starts_with("--pull") {
                format!("`stead build {of}` builds it anew")
            } else {
                format!("change the file, or leave out `{option}`")
            };
            Err(Failure::request(&format!("`{option}`: a machine like `{of}` {why}"), &hint))
        }
    }
}

/// The machines that come before it.
fn dependencies(project: &Project, of: &Name, args: &RunArgs) -> Result<BTreeSet<MachineId>, Failure> {
    if args.no_deps {
        return Ok(BTreeSet::new());
    }
    let mut all = up::with_dependencies(project, &[of.to_string()])?;
    all.remove(&MachineId::new(&project.name, of));
    Ok(all)
}

/// The name that was asked for, if it is free; else the first that is.
fn name(loaded: &Loaded, of: &Name, args: &MachineArgs, seen: &Observed) -> Result<Name, Failure> {
    let project = &loaded.project;
    let is_taken = |name: &Name| {
        project.machines.contains_key(name)
            || loaded.dormant.contains_key(name)
            || seen.machines.contains_key(&MachineId::new(&project.name, name))
    };
    match &args.name {
        None => free_name(of, is_taken)
            .ok_or_else(|| Failure::request("no name is left for the machine", "say one with `--name`")),
        Some(name) if is_taken(name) => {
            let what = format!("project `{}` has a machine `{name}` already", project.name);
            Err(Failure::request(&what, "choose another name, or `stead rm` it first"))
        }
        Some(name) => Ok(name.clone()),
    }
}

/// Puts the machine into the project beside those of the file.
fn put(loaded: &mut Loaded, of: &Name, name: &Name, machine: Machine) {
    loaded.project.machines.insert(name.clone(), machine);
    let build = loaded.builds.get(of).cloned();
    loaded.builds.extend(build.map(|build| (name.clone(), build)));
    let pull = loaded.pull.get(of).copied();
    loaded.pull.extend(pull.map(|pull| (name.clone(), pull)));
    loaded.one_off = Some((name.clone(), of.clone()));
}

/// Calls it otherwise if its name is not free any more. How it is called then.
fn renamed(
    loaded: &mut Loaded,
    of: &Name,
    before: &Name,
    (args, seen): (&MachineArgs, &Observed),
) -> Result<Name, Failure> {
    let Some(machine) = loaded.project.machines.remove(before) else { return Ok(before.clone()) };
    let name = name(loaded, of, args, seen)?;
    put(loaded, of, &name, machine);
    Ok(name)
}

fn as_in_file(when: PullWhen) -> Pull {
    match when {
        PullWhen::Never => Pull::Never,
        PullWhen::Missing => Pull::Missing,
        PullWhen::Always => Pull::Always,
    }
}

/// The images that are needed, pulled or built as for `up`.
fn images(loaded: &Loaded, id: &MachineId, needed: &BTreeSet<MachineId>) -> Result<Images, Failure> {
    let home = crate::session::home()?;
    let chosen: BTreeSet<MachineId> = needed.iter().chain([id]).cloned().collect();
    let lacks = image::lacks(&home, loaded, &chosen, None)?;
    if !lacks.is_empty() {
        return Err(up::refused(lacks, loaded));
    }
    build::ensure(loaded, &chosen, BuildWhen::Missing)?;
    image::needed(loaded, &chosen, None)
}

fn lock(loaded: &Loaded) -> Result<File, Failure> {
    let locked = lock_project(&loaded.directory, &mut |holder| {
        note(&format!("waiting for {holder}, which has this project"));
    });
    Ok(locked?)
}
