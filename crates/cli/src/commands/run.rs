//! `run` and `create`: a machine made by command. It is one of the project of what is made by command, whose file
//! it is written to; or, made after a machine of the project here, one more of that ([`one_off`]).

mod exposed;
mod one_off;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use anyhow::Context;

use stead_host::home::Home;
use stead_host::linux::StartError;
use stead_host::machine::Files;
use stead_model::name::{MachineId, Name, as_ours};
use stead_model::plan::Power;
use stead_model::project::{Addressing, Dhcp, Network, Pool, Project, Reach, Subnet};
use stead_model::resolve::Images;

use super::attach::{LogPlace, Watch, Watched, watch, watch_held};
use super::reaper::{Reaper, is_left};
use super::up::{Anew, Bring, Whose};
use super::{image, machines, network, wish};
use crate::args::{Global, MachineArgs, MakeArgs, PullWhen, RunArgs, RunKind};
use crate::failure::Failure;
use crate::output::{Output, note, raw};
use crate::session::Session;

/// The exit code of a program that wrote where nobody read, as shells have it: 128 and SIGPIPE.
const NOBODY_READS: u8 = 141;

/// Makes a machine and runs it.
pub(crate) fn run(global: &Global, args: &RunArgs, output: Output) -> Result<ExitCode, Failure> {
    // As Compose's `run -T`, which reads what is piped in.
    let is_piped = args.no_tty && !args.detach && !std::io::stdin().is_terminal();
    let machine = MachineArgs { interactive: args.machine.interactive || is_piped, ..args.machine.clone() };
    let args = &RunArgs { machine, ..*args };
    if args.machine.tty && args.machine.interactive && !args.detach && !std::io::stdin().is_terminal() {
        let what = "standard input is no terminal";
        return Err(Failure::request(what, "leave out `--tty`").before_program());
    }
    if let Some(policy) = args.machine.restart.as_deref().filter(|policy| args.rm && *policy != "no") {
        let what = format!("`--rm` and `--restart {policy}`: what is removed is not started again");
        return Err(Failure::request(&what, "say one of them").before_program());
    }
    // What was being done is told only where it is all there is to tell.
    let quiet = output.quiet();
    let stay = if args.rm { Stay::UntilItEnds } else { Stay::Kept };
    let made = one_off::on_record(global, &args.machine.image).and_then(|recorded| {
        match one_off::meant(&recorded, args)? {
            Some(of) => one_off::make(&recorded, args, &of, quiet),
            None if args.cold && args.machine.kind != Some(RunKind::Microvm) => Err(super::cold::container()),
            None => make((global, &args.machine), Made { power: Power::On, stay, is_cold: args.cold }, quiet),
        }
    });
    let (id, mut session) = made.map_err(not_started)?;
    let files = Files::new(session.host.home(), &id);
    // However we end, it goes when it has ended; and nobody can have taken it away or its name yet.
    let mut reaper = session.reaper.take();
    reaper.as_mut().map(Reaper::stands).transpose()?;
    if args.detach {
        tell(global, &id, &mut session)?;
        return Ok(ExitCode::SUCCESS);
    }
    let how = Watch {
        stdin: args.machine.interactive,
        replay: Some(LogPlace::default()),
        signals: !args.machine.tty,
        is_waited_for: true,
    };
    let Some(mut reaper) = reaper else {
        drop(session);
        return watch(&files, how).map(|watched| machines::code(&watched)).or_else(unwatched);
    };
    // Who is to remove it cannot before it is ours to watch: it may have ended already.
    let watched = watch_held(&files, how, session);
    if matches!(watched, Ok(Watched::Left)) {
        return Ok(ExitCode::SUCCESS);
    }
    let has_ended = matches!(watched, Ok(Watched::Ended(_)));
    // It ends by itself then, when the kernel has done with what was the machine's.
    if !(has_ended && reaper.has_removed()) {
        let mut session = Session::open()?;
        session.host.make_fleeting();
        // Nobody would ever know of one that still runs: it is ended first.
        let seen = session.observe()?;
        let id = Files::find(session.host.home(), &reaper.held).unwrap_or(id);
        if is_left(session.host.home(), &id, &reaper.held, &seen)? {
            machines::remove_one(&mut session, &id, &seen, quiet)?;
        }
        // It has nothing to do any more.
        reaper.end().context("cannot end the process that was to remove it")?;
    }
    watched.map(|watched| machines::code(&watched)).or_else(unwatched)
}

/// A machine whose output could not be written any more. Its program has run: the code is not that of one that has not.
pub(super) fn unwatched(error: anyhow::Error) -> Result<ExitCode, Failure> {
    let is_pipe = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    if error.downcast_ref().is_some_and(is_pipe) {
        return Ok(ExitCode::from(NOBODY_READS));
    }
    Err(error.into())
}

/// Removes a machine that was not made as it was asked for: always if it was to go anyway, else if it runs, so that
/// nothing runs that the command said had failed, or if that was never tried: there is nothing in it, and what it
/// claims is anybody's.
fn take_away_again(session: &mut Session, id: &MachineId, stay: Stay, output: Output) -> Result<(), Failure> {
    // What its keeper is told is there before the keeper.
    let was_begun = Files::new(session.host.home(), id).assignment().exists();
    if stay == Stay::UntilItEnds || !was_begun || session.observe()?.running.contains_key(id) {
        machines::remove_these(session, std::slice::from_ref(id), output)?;
    }
    Ok(())
}

/// Makes a machine.
pub(crate) fn create(global: &Global, args: &MakeArgs, output: Output) -> Result<(), Failure> {
    let (id, mut session) = make((global, &args.machine), NOT_STARTED, output.quiet())?;
    tell(global, &id, &mut session)
}

/// Prints a machine's name: with its project, where the bare one means a machine of the project here.
pub(super) fn tell(global: &Global, id: &MachineId, session: &mut Session) -> Result<(), Failure> {
    let bare = id.name.to_string();
    let is_meant = crate::project::is_none_here(global) || {
        let seen = session.observe()?;
        machines::one(global, &bare, &seen).is_ok_and(|meant| meant == *id)
    };
    let name = if is_meant { bare } else { id.to_string() };
    raw(&format!("{name}\n")).map_err(Failure::from)
}

/// How a machine is made.
#[derive(Clone, Copy)]
struct Made {
    power: Power,
    stay: Stay,
    /// Whether it boots in any case.
    is_cold: bool,
}

const NOT_STARTED: Made = Made { power: Power::Off, stay: Stay::Kept, is_cold: false };

/// How long a machine is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// Until somebody removes it.
    Kept,
    UntilItEnds,
}

fn make(
    (global, args): (&Global, &MachineArgs),
    Made { power, stay, is_cold }: Made,
    output: Output,
) -> Result<(MachineId, Session), Failure> {
    let home = crate::session::home()?;
    let platform = args.platform.as_deref().map(str::parse).transpose().map_err(
        |error: stead_model::image::PlatformError| {
            Failure::request(&error.to_string(), "write `linux/amd64`")
        },
    )?;
    let by_id = image::by_id(&home, &args.image, platform.as_ref())?;
    if let (Some(_), Some(PullWhen::Always)) = (&by_id, args.pull) {
        let what = format!("`{}` is the id of an image that is here, and `--pull always`", args.image);
        return Err(Failure::request(&what, "say one of them: no registry knows that id"));
    }
    let args = &MachineArgs {
        image: by_id.map_or_else(|| args.image.clone(), |reference| reference.to_string()),
        ..args.clone()
    };
    let reference = args.image.parse().map_err(|error| {
        Failure::request(&format!("{error}"), "write `debian:12`, or `registry.example/team/web:v1`")
    })?;
    // Before we are alone in the home: others need not wait for a registry.
    if args.kind == Some(RunKind::Microvm) {
        let is_given_files = !args.volume.is_empty() || !args.mount.is_empty();
        let needs = super::guest::needs_of_microvm(is_given_files);
        super::guest::ensure_ready(&home, &needs)?;
    }
    if !image::is_here(&home, &reference, platform.as_ref())? {
        hint_at_machine(global, args, power)?;
        // What can be refused without it is, unless reading it would use it up.
        if args.env_file.iter().all(|file| file.is_file() || !file.exists()) {
            add(&home, args, &[]).or_else(|failure| {
                let Ok(Some(_quiet)) = crate::session::quiet(&home) else { return Err(failure) };
                add(&home, args, &[])
            })?;
        }
    }
    let found = image::ensure(&home, &reference, platform.as_ref(), args.pull.unwrap_or_default())?;
    let exposed = if args.publish_all { exposed::of_image(&home, &found.digest)? } else { Vec::new() };
    let mut session = Session::open()?;
    if is_cold {
        session.host.start_cold();
    }
    let (id, project) = add(session.host.home(), args, &exposed)?;
    network::leases_are_free(&mut session, &project, &id.name)?;
    if stay == Stay::UntilItEnds {
        session.host.make_fleeting();
        session.fleeting = Some(id.clone());
    }
    let images = Images { named: [((reference, platform), found.digest)].into(), ..Images::default() };
    let consent = crate::args::Consent { yes: false };
    let whose = Whose::Only([id.clone()].into());
    let how = Bring { whose, anew: Anew::default(), relock: false, images, power, consent };
    if let Err(failure) = network::apply_some(&mut session, &project, &how, output) {
        if matches!(failure, Failure::Steps(_)) {
            // The failure is what matters.
            let _left = take_away_again(&mut session, &id, stay, output);
        }
        return Err(failure);
    }
    Ok((id, session))
}

/// Tells who names what may be a machine of the project here, where an image of that name is not here, what they may have
/// meant. Where the project cannot be read that is refused: an image of somebody else's would be run instead.
fn hint_at_machine(global: &Global, args: &MachineArgs, power: Power) -> Result<(), Failure> {
    let Ok(name) = as_ours(&args.image).parse::<Name>() else { return Ok(()) };
    match (one_off::project_here(global), power) {
        (Some(project), Power::Off) if project.machines.contains_key(&name) => note(&format!(
            "there is no image `{name}` here, and the project has a machine `{name}`; hint: `stead run {name}` makes and runs one like that"
        )),
        (None, Power::On) if !crate::project::is_none_here(global) => {
            note(&format!(
                "`{name}` may be a machine of the project here, whose file cannot be read; an image is meant by `{}:latest`",
                args.image
            ));
            crate::project::load(global)?;
        }
        (Some(_) | None, Power::On | Power::Off) => {}
    }
    Ok(())
}

/// The project of what is made by command, with this machine more.
fn add(
    home: &Home,
    args: &MachineArgs,
    exposed: &[exposed::Exposed],
) -> Result<(MachineId, Project), Failure> {
    let mut project = network::loose(home)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => wish::free_name(&args.image, &project)?,
    };
    if project.machines.contains_key(&name) {
        let what = format!("there is a machine `{name}` already");
        return Err(Failure::request(&what, "choose another name, or `stead rm` it first"));
    }
    let usual: Name = "default".parse().map_err(anyhow::Error::from)?;
    if args.network.is_empty() || args.network.iter().any(|network| network == usual.as_str()) {
        project.networks.entry(usual).or_insert_with(usual_network);
    }
    let mut wish = wish::read(&name, args, &project)?;
    exposed::publish(&mut wish.machine, exposed);
    network::name_volumes(home, &mut project, wish.volumes)?;
    project.machines.insert(name.clone(), wish.machine);
    Ok((MachineId::new(&project.name, &name), project))
}

/// The network of machines that name none.
pub(super) fn usual_network() -> Network {
    Network {
        addressing: Addressing::Managed(Dhcp { pool: Pool::Auto, lease_s: 3600, slaac: false }),
        reach: Reach::Nat,
        subnet: Subnet::Auto,
        subnet6: Subnet::Auto,
        mtu: 1500,
        joins: [].into(),
        boot: None,
    }
}

/// A machine whose program could not be started has the exit code that a shell would give.
pub(super) fn not_started(failure: Failure) -> Failure {
    let code = match &failure {
        Failure::Steps(failures) => failures.iter().find_map(|(_, error)| error.downcast_ref::<StartError>()),
        _ => None,
    };
    match code.map(|error| error.code) {
        Some(code) => Failure::Program(code, Box::new(failure)),
        None => failure.before_program(),
    }
}
