//! Commands about machines that exist: `start`, `kill`, `pause`, `unpause`, `rm`, `wait`, `attach`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};

use stead_host::apply::Host;
use stead_host::home::{Home, Prepared};
use stead_host::linux::LinuxHost;
use stead_host::machine::{Answer, Client, Exit, Files, Request, Stop};
use stead_model::container::Signal;
use stead_model::external::{missing_networks, missing_volumes};
use stead_model::name::{LOOSE_PROJECT, MachineId, Name};
use stead_model::observed::{Engine, MachineState, Observed};
use stead_model::plan::{Power, Wanted, plan};

use super::attach::{Watch, Watched, log_end, watch};
use super::network;
use super::unmet::Unmet;
use crate::args::{AttachArgs, Consent, Global, KillArgs, MachinesArgs, RemoveArgs, StartArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Session, look};
use crate::working::Working;

/// Without any time to end by itself.
const AT_ONCE: Stop = Stop { grace_ms: Some(0), with_computer: false };

/// The machines that patterns name: those of the project here first, and nothing that no machine is.
pub(crate) fn chosen(
    global: &Global,
    patterns: &[String],
    host: &mut LinuxHost,
) -> Result<Vec<MachineId>, Failure> {
    let seen = host.observe()?;
    choose(global, patterns, &seen)
}

/// The same among what exists.
pub(crate) fn choose(
    global: &Global,
    patterns: &[String],
    seen: &Observed,
) -> Result<Vec<MachineId>, Failure> {
    let (ids, unmet) = choose_some(global, patterns, seen)?;
    unmet.unless(false)?;
    Ok(ids)
}

/// Those that there are, and which of the names nothing has; at least one has something. A pattern with `*` has to mean some.
pub(super) fn choose_some(
    global: &Global,
    patterns: &[String],
    seen: &Observed,
) -> Result<(Vec<MachineId>, Unmet), Failure> {
    let here = super::here::project_here(global, patterns, seen)?;
    if patterns.is_empty() {
        let project = here.ok_or_else(|| {
            Failure::request("no machine is named", "name one, or go to a project's directory")
        })?;
        let ids = seen.machines.keys().filter(|id| id.project == project).cloned().collect();
        return Ok((ids, Unmet::default()));
    }
    let mut ids: Vec<MachineId> = Vec::new();
    let mut unmet = Unmet::default();
    for pattern in patterns {
        let mut meant = super::ps::meant(global, pattern, here.as_ref(), seen);
        // Of several with one name what a command made is the nearest.
        let is_loose = |id: &MachineId| id.project.as_str() == LOOSE_PROJECT;
        if !pattern.contains('*') && meant.iter().any(|id| is_loose(id)) {
            meant.retain(|id| is_loose(id));
        }
        let other =
            meant.first().and_then(|one| Some((*one, *meant.iter().find(|id| id.project != one.project)?)));
        match other {
            _ if meant.is_empty() => {
                let what = format!("there is no machine `{pattern}`");
                let lack = Failure::request(&what, "`stead ps --all` lists them all");
                if pattern.contains('*') {
                    return Err(lack);
                }
                unmet.put(lack)?;
            }
            Some((one, other)) if !pattern.contains('*') => {
                let what = format!("`{pattern}` could be `{one}` or `{other}`");
                return Err(Failure::request(&what, "say it with the project"));
            }
            // One, or several of a project that have the name in common.
            None | Some(_) => {}
        }
        for id in meant {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
    }
    let unmet = unmet.unless(!ids.is_empty())?;
    Ok((ids, unmet))
}

/// The one machine that a pattern names.
pub(crate) fn one(global: &Global, pattern: &str, seen: &Observed) -> Result<MachineId, Failure> {
    let ids = choose(global, &[pattern.to_owned()], seen)?;
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        _ => Err(Failure::request(&format!("`{pattern}` names {} machines", ids.len()), "name one")),
    }
}

/// The machine that a pattern names, or the first of several that have the name in common, if we run it.
pub(crate) fn chosen_first(global: &Global, pattern: &str, seen: &Observed) -> Result<MachineId, Failure> {
    let id = match choose(global, &[pattern.to_owned()], seen)?.into_iter().next() {
        Some(first) if !pattern.contains('*') => first,
        _ => one(global, pattern, seen)?,
    };
    ours(std::slice::from_ref(&id), seen)?;
    Ok(id)
}

/// The same as [`one`], if we run it.
pub(crate) fn chosen_one(global: &Global, pattern: &str, seen: &Observed) -> Result<MachineId, Failure> {
    let id = one(global, pattern, seen)?;
    ours(std::slice::from_ref(&id), seen)?;
    Ok(id)
}

/// Refuses machines that somebody else runs.
pub(super) fn ours(ids: &[MachineId], seen: &Observed) -> Result<(), Failure> {
    let is_foreign = |id: &&MachineId| seen.machines.get(*id).is_some_and(MachineState::goes_with_engine);
    match ids.iter().find(is_foreign) {
        Some(id) => {
            let what = format!("machine `{id}` has driver `external`: somebody else runs it");
            Err(Failure::request(&what, "ask the program that does"))
        }
        None => Ok(()),
    }
}

/// The machines of each project.
pub(super) fn by_project(ids: &[MachineId]) -> Vec<(Name, BTreeSet<MachineId>)> {
    let projects: BTreeSet<&Name> = ids.iter().map(|id| &id.project).collect();
    let of = |project: &Name| ids.iter().filter(|id| id.project == *project).cloned().collect();
    projects.into_iter().map(|project| (project.clone(), of(project))).collect()
}

/// The same, each project behind those that have networks which its machines are on.
pub(super) fn in_turn(ids: &[MachineId], seen: &Observed) -> Vec<(Name, BTreeSet<MachineId>)> {
    let mut machines: BTreeMap<Name, BTreeSet<MachineId>> = by_project(ids).into_iter().collect();
    let projects = seen.lenders_first(machines.keys().cloned().collect());
    projects.into_iter().filter_map(|project| machines.remove_entry(&project)).collect()
}

/// What a step says that was carried out without a plan.
pub(crate) fn tell(ids: &[MachineId], output: Output) -> Result<(), Failure> {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    output.data(&names, || names.iter().map(|name| format!("{name}\n")).collect()).map_err(Failure::from)
}

/// `start`: as they were made, whatever the file says by now.
pub(crate) fn start(global: &Global, args: &StartArgs, output: Output) -> Result<ExitCode, Failure> {
    let is_watched = args.attach || args.interactive;
    let called = global.project_name.as_ref();
    let begun = || -> Result<_, Failure> {
        let mut session = Session::open()?;
        let seen = session.observe()?;
        let (ids, unmet) = choose_some(global, &args.machines, &seen)?;
        let ids = without_one_offs(ids, &args.machines, &seen);
        ours(&ids, &seen)?;
        if args.cold {
            super::cold::refuse_without_microvm(&ids, &seen)?;
            session.host.start_cold();
        }
        // One that is watched is the only one.
        let unmet = if is_watched { unmet.unless(false)? } else { unmet };
        Ok((session, seen, ids, unmet))
    };
    let (mut session, seen, ids, unmet) =
        begun().map_err(|failure| if is_watched { failure.before_program() } else { failure })?;
    if !is_watched {
        return unmet.after(start_these(&mut session, &ids, called, output)).map(|()| ExitCode::SUCCESS);
    }
    let [id] = ids.as_slice() else {
        let option = if args.attach { "--attach" } else { "--interactive" };
        let what = format!("`{option}` is about one machine, and {} are meant", ids.len());
        return Err(Failure::request(&what, "name one").before_program());
    };
    let files = Files::new(session.host.home(), id);
    // What earlier runs wrote was read, or is in its log.
    let from = log_end(&files).map_err(Failure::from).map_err(Failure::before_program)?;
    // What was being done is told only where it is all there is to tell.
    start_these(&mut session, &ids, called, output.quiet()).map_err(super::run::not_started)?;
    drop(session);
    // One that runs already goes on whether its output is read here or not.
    let is_waited_for = !seen.running.contains_key(id);
    let how = Watch { stdin: args.interactive, replay: Some(from), signals: true, is_waited_for };
    watch(&files, how).map(|watched| code(&watched)).or_else(super::run::unwatched)
}

/// Without one-offs, if nobody named machines: each was to run once.
pub(super) fn without_one_offs(mut ids: Vec<MachineId>, named: &[String], seen: &Observed) -> Vec<MachineId> {
    if named.is_empty() {
        ids.retain(|id| seen.machines.get(id).is_none_or(|state| state.one_off().is_none()));
    }
    ids
}

/// The same for these.
pub(super) fn start_these(
    session: &mut Session,
    ids: &[MachineId],
    called: Option<&Name>,
    output: Output,
) -> Result<(), Failure> {
    let mut left = None;
    let seen = session.observe()?;
    for (project, machines) in in_turn(ids, &seen) {
        // Others may have changed it while a machine of the project before was waited for.
        let seen = &session.observe()?;
        let (mut loaded, mut wanted) = super::up::wanted_of(session, (&project, called), &machines)?;
        if let Some(before) = network::again(session.host.home(), &loaded.project, seen)? {
            session.apply(&before, Consent { yes: false }, output)?;
            (loaded, wanted) = super::up::wanted_of(session, (&project, called), &machines)?;
        }
        let seen = &session.observe()?;
        // Of those that they depend on only these are waited for: nobody asked for the others.
        let mut wanted = wanted.waiting_among(&machines);
        let (machines, unnamed, lost) = named_by_file(machines, &wanted, seen);
        left = left.or(lost);
        if machines.is_empty() {
            continue;
        }
        // Volumes are as they are, too.
        for (id, volume) in &mut wanted.volumes {
            *volume = seen.volumes.get(id).copied().unwrap_or(*volume);
        }
        let chosen = wanted.beside(&unnamed, seen).and_then(|wanted| {
            wanted.as_made(&machines, seen).with_power(&machines, Power::On).only(&machines, seen)
        });
        let wanted = chosen.map_err(|refusals| super::up::refused(refusals, &loaded))?;
        let mut refusals = wanted.taken_ports(&loaded.project, |id| machines.contains(id));
        let to_start = wanted.machines.iter().filter(|(id, _)| machines.contains(*id));
        let mounts = to_start.flat_map(|(_, machine)| machine.state.mounts());
        refusals.extend(missing_volumes(mounts, seen));
        let plan = plan(&wanted, seen);
        refusals.extend(missing_networks(&loaded.project, |_| false, &plan, seen));
        refusals.extend(wanted.in_others_way(seen));
        if !refusals.is_empty() {
            return Err(super::up::refused(refusals, &loaded));
        }
        session.apply(&plan, Consent { yes: false }, output)?;
    }
    // The others are started all the same.
    left.map_or(Ok(()), Err)
}

/// Those of these that can be started; which of them the file does not name any more, which are as they are; and that one
/// cannot be: of those that lost their nics with the engine nothing says which ones they had.
fn named_by_file(
    mut machines: BTreeSet<MachineId>,
    wanted: &Wanted,
    seen: &Observed,
) -> (BTreeSet<MachineId>, BTreeSet<MachineId>, Option<Failure>) {
    let is_unnamed = |id: &&MachineId| !wanted.machines.contains_key(*id);
    let unnamed: BTreeSet<MachineId> = machines.iter().filter(is_unnamed).cloned().collect();
    let Some(id) = unnamed.first().filter(|_| seen.engine != Engine::Present) else {
        return (machines, unnamed, None);
    };
    let what = format!("the file of project `{}` does not name machine `{}` any more", id.project, id.name);
    let lost = Failure::request(&what, "`stead up` takes it away; to keep it put it back into the file");
    machines.retain(|id| !unnamed.contains(id));
    (machines, BTreeSet::new(), Some(lost))
}

/// `kill`, `pause` and `unpause`.
pub(crate) fn ask(
    global: &Global,
    patterns: &[String],
    request: &Request,
    output: Output,
) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let (ids, mut unmet) = choose_some(global, patterns, &seen)?;
    ours(&ids, &seen)?;
    let asked = ask_all(&host, ids, request, Some(Duration::ZERO), &mut unmet);
    unmet.after(tell(&asked, output))
}

/// `kill`.
pub(crate) fn kill(global: &Global, args: &KillArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let (ids, mut unmet) = choose_some(global, &args.machines, &seen)?;
    ours(&ids, &seen)?;
    let mut killed = ask_all(&host, ids, &Request::Signal(args.signal), Some(Duration::ZERO), &mut unmet);
    // This one they cannot put off, and who kills them goes on to take them away.
    if args.signal == Signal::KILL {
        let _working = Working::on("waiting for their end");
        let end = |id: MachineId| {
            let end = super::attach::await_end(&Files::new(host.home(), &id));
            (id, end)
        };
        killed = unmet.done(killed.into_iter().map(end));
    }
    unmet.after(tell(&killed, output))
}

/// Asks the keepers of machines, one after the other: all but waiting is done at once. Gives those that did it.
fn ask_all(
    host: &LinuxHost,
    ids: Vec<MachineId>,
    request: &Request,
    limit: Option<Duration>,
    unmet: &mut Unmet,
) -> Vec<MachineId> {
    unmet.done(ids.into_iter().map(|id| {
        let asked = ask_one(host.home(), &id, request, limit);
        (id, asked)
    }))
}

/// Asks the keeper of a machine.
pub(super) fn ask_one(
    home: &Home,
    id: &MachineId,
    request: &Request,
    limit: Option<Duration>,
) -> anyhow::Result<()> {
    let Some(mut client) = Client::connect(&Files::new(home, id))? else {
        return Err(anyhow!("machine `{id}` does not run; hint: `stead start {id}`"));
    };
    match client.ask(request, limit).with_context(|| format!("machine `{id}`"))? {
        Answer::Done => Ok(()),
        Answer::Failed(why) => Err(anyhow!(why).context(format!("machine `{id}`"))),
        other => Err(anyhow!("the keeper of `{id}` answered {other:?}")),
    }
}

/// `rm`.
pub(crate) fn remove(global: &Global, args: &RemoveArgs, output: Output) -> Result<(), Failure> {
    let global = &global.with_files(&args.file);
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let (ids, mut unmet) = choose_some(global, &args.machines, &seen)?;
    ours(&ids, &seen)?;
    if let Some(id) = ids.iter().find(|id| !args.force && seen.running.contains_key(*id)) {
        let what = format!("machine `{id}` runs");
        return unmet.after(Err(Failure::request(&what, "stop it first, or say `--force`")));
    }
    let is_left = |id: &&MachineId| !ids.contains(id);
    if let Some((id, other)) = ids.iter().find_map(|id| Some((id, seen.sharers(id).find(is_left)?))) {
        let what = format!("machine `{other}` is in the network of `{id}`, which goes with that");
        let hint = format!("remove `{other}` first, or both: `stead rm {id} {other}`");
        return unmet.after(Err(Failure::request(&what, &hint)));
    }
    // As with Docker nobody waits for an orderly end.
    let (mut ended, row) = (Vec::new(), ids.into_iter().map(|id| (id, BTreeSet::new())).collect());
    super::ends::end_row(session.host.home(), row, &seen, AT_ONCE, (&mut ended, &mut unmet));
    let ids = ended;
    unmet.after(remove_these(&mut session, &ids, output))
}

/// Removes machines, and those that commands made also from their project's file.
pub(crate) fn remove_these(session: &mut Session, ids: &[MachineId], output: Output) -> Result<(), Failure> {
    for (project, machines) in by_project(ids) {
        let seen = session.observe()?;
        remove_of(session, &project, &machines, &seen, output)?;
    }
    Ok(())
}

/// The same for one, of a computer that was looked at just now.
pub(crate) fn remove_one(
    session: &mut Session,
    id: &MachineId,
    seen: &Observed,
    output: Output,
) -> Result<(), Failure> {
    remove_of(session, &id.project, &[id.clone()].into(), seen, output)
}

fn remove_of(
    session: &mut Session,
    project: &Name,
    machines: &BTreeSet<MachineId>,
    seen: &Observed,
    output: Output,
) -> Result<(), Failure> {
    let wanted = Wanted::as_it_is(project, seen).without_machines(machines);
    let plan = plan(&wanted, seen);
    let home = session.host.home().clone();
    let is_loose = project.as_str() == LOOSE_PROJECT;
    let without = || network::without_machines(&home, machines);
    let prepared = std::thread::scope(|scope| {
        // The disk is waited for beside the work. Where it is full there may be room afterwards.
        let preparing = scope.spawn(|| if is_loose { without() } else { Ok(None) });
        // Nothing of value goes with them but their snapshots, and whoever removes a machine means these too.
        let applied = session.apply(&plan, Consent { yes: true }, output);
        if applied.is_err() {
            // What is left is told by that.
            let _rules = session.host.see_off();
        }
        applied?;
        preparing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).or_else(|_| without())
    })?;
    let forgotten = prepared.map_or(Ok(()), Prepared::put);
    session.host.see_off()?;
    Ok(forgotten?)
}

/// `wait`: until machines end; prints their exit codes.
pub(crate) fn wait(global: &Global, args: &MachinesArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let ids = chosen(global, &args.machines, &mut host)?;
    let mut codes = Vec::new();
    for id in &ids {
        let files = Files::new(host.home(), id);
        codes.push(super::attach::outlast(&files).with_context(|| format!("machine `{id}`"))?.code);
    }
    output.data(&codes, || codes.iter().map(|code| format!("{code}\n")).collect()).map_err(Failure::from)
}

/// `attach`.
pub(crate) fn attach(global: &Global, args: &AttachArgs) -> Result<ExitCode, Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let id = chosen_first(global, &args.machine, &seen)?;
    let files = Files::new(host.home(), &id);
    if files.keeper()?.is_none() {
        let what = format!("machine `{id}` does not run");
        return Err(Failure::request(&what, "`stead start` it; `stead logs` has what it wrote"));
    }
    let how = Watch { stdin: !args.no_stdin, replay: None, signals: !args.no_signals, is_waited_for: false };
    Ok(code(&watch(&files, how)?))
}

/// The exit code of a command that watched.
pub(crate) fn code(watched: &Watched) -> ExitCode {
    match watched {
        Watched::Ended(Exit { code, .. }) => ExitCode::from(*code),
        Watched::Left => ExitCode::SUCCESS,
    }
}
