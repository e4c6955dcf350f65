//! The commands that stead runs itself as: its long-lived processes, and the step into a namespace.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use stead_container::Share;
use stead_host::autostart::unit_name;
use stead_host::home::{Environment, Home};
use stead_model::name::MachineId;
use stead_net::anchor;

use crate::args::{Format, InternalEnter, TreeCommand};
use crate::failure::Failure;
use crate::output::Output;

/// The long-lived processes, whose arguments we write ourselves: nothing is read of all that people may say, which
/// would stay in memory for as long as they live. Nothing if it is something else that was asked for.
pub(crate) fn long_lived() -> Option<Result<(), Failure>> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let path = |place: usize| words.get(place).map(PathBuf::from);
    match (words.first()?.to_str()?, words.len()) {
        ("__anchor", 2) => Some(anchor(&path(1)?)),
        ("__switchboard", 3) => Some(switchboard(path(1)?, path(2)?)),
        ("__watcher", 3) => Some(watcher(path(1)?, path(2)?)),
        ("__keeper", 4) => Some(keeper(path(1)?, path(2)?, &words.get(3)?.to_str()?.parse().ok()?)),
        ("__reap", 2) => Some(super::reaper::reap(
            &words.get(1)?.to_str()?.parse().ok()?,
            Output::new(Format::Text).quiet(),
        )),
        ("__vmm", 6..) => Some(vmm(&words)),
        ("__share", 6) => Some(share(&words)),
        // Short-lived, and without arguments.
        ("__try-networks", 1) => Some(super::doctor::try_here().map_err(Failure::from)),
        _ => None,
    }
}

/// Becomes what serves files of this computer to a guest. Its network namespace is our standard input.
fn share(words: &[OsString]) -> Result<(), Failure> {
    let word = |place: usize| words.get(place).context("an argument is missing");
    let text = |place: usize| word(place)?.to_str().context("an argument is no text");
    let (parent, listener) =
        (text(1)?.parse().context("no process")?, text(3)?.parse().context("no socket")?);
    let (program, directory) = (Path::new(word(2)?), Path::new(word(4)?));
    let shares: Vec<Share> = serde_json::from_str(text(5)?).context("this is not what is shared")?;
    let network = std::io::stdin().as_fd().try_clone_to_owned().context("it has no network namespace")?;
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot close standard input")?;
    stead_vmm::leave_mounts(network.as_fd())?;
    stead_container::assemble(&shares, directory)?;
    match stead_vmm::serve(program, listener, directory, parent)? {}
}

/// Becomes the VMM of a guest, in a jail. Its network namespace is our standard input.
fn vmm(words: &[OsString]) -> Result<(), Failure> {
    let number = |place: usize| -> anyhow::Result<u32> {
        let word: &OsString = words.get(place).context("an argument is missing")?;
        word.to_str().and_then(|word| word.parse().ok()).context("an argument is no number")
    };
    let group = words.get(2).is_some_and(|word| word != "-").then(|| number(2)).transpose()?;
    let (user, parent) = (number(1)?, number(3)?);
    let network = std::io::stdin().as_fd().try_clone_to_owned().context("it has no network namespace")?;
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot close standard input")?;
    let jail = stead_vmm::Jail { user, group, network: network.as_fd() };
    match stead_vmm::enter(&jail, parent, words.get(4..).unwrap_or_default())? {}
}

/// The process that holds the engine's namespaces.
fn anchor(dir: &Path) -> Result<(), Failure> {
    leave_session("engine", "stead: networks");
    anchor::serve(dir).map_err(Failure::from)
}

/// The process that serves the networks.
fn switchboard(state: PathBuf, run: PathBuf) -> Result<(), Failure> {
    stead_keeper::switchboard::run(&Home { state, run }).map_err(Failure::from)
}

/// The process that starts the one that serves the networks, and starts it again.
fn watcher(state: PathBuf, run: PathBuf) -> Result<(), Failure> {
    leave_session("services", "stead: services of the networks");
    stead_keeper::watcher::run(&Home { state, run }).map_err(Failure::from)
}

/// Has networks stay when the session ends in which they were made, if that can be.
fn leave_session(name: &str, description: &str) {
    let environment = Environment::observe();
    let left = Home::new(&environment)
        .and_then(|home| stead_container::leave_session(name, description, &unit_name(&environment, &home)));
    if let Err(error) = left {
        tracing::debug!("it stays in the session: {error:#}");
    }
}

/// The process that looks after a machine.
fn keeper(state: PathBuf, run: PathBuf, machine: &MachineId) -> Result<(), Failure> {
    stead_keeper::machine::run(&Home { state, run }, machine).map_err(Failure::from)
}

/// Does something with a tree of files as what a user namespace maps to root.
pub(crate) fn tree(command: &TreeCommand) -> Result<(), Failure> {
    match command {
        TreeCommand::Delete { tree } => delete(tree),
        TreeCommand::Shift { from, to } => shift(from, to),
        TreeCommand::CopyLayer { from, to } => copy_layer(from, to),
        TreeCommand::LinkLayer { from, to } => link_layer(from, to),
        TreeCommand::RenewLayer { layer } => renew_layer(layer),
        TreeCommand::Measure { tree } => measure(tree),
    }
}

/// Deletes it.
fn delete(tree: &Path) -> Result<(), Failure> {
    anchor::become_root()?;
    stead_container::delete(tree).map_err(Failure::from)
}

/// Gives it another place.
fn shift(from: &Path, to: &Path) -> Result<(), Failure> {
    anchor::become_root()?;
    std::fs::rename(from, to).map_err(anyhow::Error::from).map_err(Failure::from)
}

/// Copies a layer of a machine as such a root.
fn copy_layer(from: &Path, to: &Path) -> Result<(), Failure> {
    become_bound_root()?;
    stead_container::copy_layer(from, to).map_err(Failure::from)
}

/// Makes a layer of the files of another as such a root.
fn link_layer(from: &Path, to: &Path) -> Result<(), Failure> {
    become_bound_root()?;
    stead_container::link_layer(from, to).map_err(Failure::from)
}

/// Makes a layer that of another machine as such a root.
fn renew_layer(layer: &Path) -> Result<(), Failure> {
    become_bound_root()?;
    let secrets = stead_container::renew_layer(layer)?;
    crate::output::raw(&format!("{secrets}\n")).map_err(Failure::from)
}

/// Becomes such a root that is killed with whoever waits for it: what it makes is nobody's then.
pub(super) fn become_bound_root() -> Result<(), Failure> {
    let parent = rustix::process::getppid();
    anchor::become_root()?;
    let kill = rustix::process::Signal::KILL;
    rustix::process::set_parent_process_death_signal(Some(kill))
        .context("cannot tie ourselves to our parent")?;
    if rustix::process::getppid() != parent {
        return Err(anyhow!("who waited for this is gone").into());
    }
    Ok(())
}

/// Measures a tree of files as such a root.
fn measure(tree: &Path) -> Result<(), Failure> {
    anchor::become_root()?;
    let bytes = match stead_host::linux::taken_bytes(tree) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        bytes => bytes.with_context(|| format!("cannot look at {}", tree.display()))?,
    };
    crate::output::raw(&format!("{bytes}\n")).map_err(Failure::from)
}

/// Becomes a program among the networks. Only a process of one thread may join a user namespace, so this is
/// a process of its own.
pub(crate) fn enter(args: InternalEnter) -> Result<ExitCode, Failure> {
    let entered = (|| {
        let client = anchor::Client::connect(&args.run)?;
        let mut client = client.ok_or_else(|| anyhow!("the engine is gone"))?;
        let namespace = match &args.namespace {
            Some(name) => Some(client.namespace(&name.parse().context("no such machine")?)?),
            None => None,
        };
        let resolver = args.resolv_conf.map(|text| anchor::Resolver { text, dir: args.run });
        let anchor = client.process();
        anchor::enter(anchor::Entrance { anchor, namespace, resolver, command: args.command })
    })();
    match entered {
        Ok(never) => match never {},
        Err(error) => Err(Failure::from(error).before_program()),
    }
}
