//! `cp`: files between this computer and a machine. The work is done by a process of ours that may have all of the
//! machine's files: root, or what a user namespace maps to root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_container::{End, Nothing, Owners, Place, Root, running_root, stopped_root, transfer};
use stead_host::home::Home;
use stead_host::machine::{Files, Phase, status};
use stead_image::Store;
use stead_image::unpack::{Fill, Form, Marks, UnpackOptions, pack_named, unpack_layer};
use stead_model::container::Launch;
use stead_model::name::{MachineId, Name};
use stead_model::observed::MadeContainer;
use stead_net::process::ProcessId;

use crate::args::{CopyArgs, Global};
use crate::failure::Failure;
use crate::session::{Session, look};
use crate::working::Working;

/// What stead is called with to copy.
const WORD: &str = "__copy";

/// A path, and whether it is the machine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Side {
    /// Of this computer.
    Here(String),
    /// Of the machine.
    Machine(String),
    /// An archive, on standard input or output.
    Archive,
}

/// What the process that copies is told.
#[derive(Serialize, Deserialize)]
struct Order {
    /// Whose machine this is about, as messages call it.
    name: String,
    from: Side,
    to: Side,
    keep_owners: bool,
    machine: Machine,
}

/// Where the machine's files are.
#[derive(Serialize, Deserialize)]
enum Machine {
    /// Where its first process has them.
    Running(ProcessId),
    /// In its directories.
    Stopped(Box<Parts>),
    /// In its guest, whose keeper has this directory and that one.
    Guest(PathBuf, PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Parts {
    launch: Launch,
    layers: Vec<PathBuf>,
    volumes: BTreeMap<Name, PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
    own_volumes: PathBuf,
    state: PathBuf,
}

/// `cp`.
pub(crate) fn cp(global: &Global, args: &CopyArgs) -> Result<(), Failure> {
    let (pattern, from, to) = sides(&args.source, &args.target)?;
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::chosen_first(global, &pattern, &seen)?;
    let gone = || Failure::request(&format!("there is no machine `{id}`"), "`stead ps --all` lists them all");
    let order = |machine| Order {
        name: id.to_string(),
        from: from.clone(),
        to: to.clone(),
        keep_owners: args.archive,
        machine,
    };
    if super::guest::is_guest(&id, &seen) {
        let Files { state, run: keeper } = Files::new(host.home(), &id);
        if from == Side::Archive || to == Side::Archive {
            let what = format!("`{id}` has a kernel of its own, and its files do not come as an archive");
            return Err(Failure::request(
                &what,
                &format!("`stead exec {id} tar c /path`, or name a directory"),
            ));
        }
        if status(host.home(), &id)?.is_none() {
            let what = format!("machine `{id}` does not run, and its files are on a disk of its own");
            return Err(Failure::request(&what, &format!("`stead start {id}`")));
        }
        return run(&order(Machine::Guest(state, keeper)));
    }
    if let Some(status) = status(host.home(), &id)? {
        return match (status.init, status.phase) {
            (Some(init), _) => run(&order(Machine::Running(init))),
            (None, Phase::Booting | Phase::Running | Phase::Paused | Phase::Restarting | Phase::Stopping) => {
                let what = format!("machine `{id}` is just being started again");
                Err(Failure::request(&what, "try again, or `stead stop` it first"))
            }
        };
    }
    // Alone in the home, so that nobody starts it meanwhile: its files can be mounted only once.
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let made = seen.machines.get(&id).and_then(|state| state.container()).ok_or_else(gone)?;
    if seen.running.contains_key(&id) {
        let what = format!("machine `{id}` was just started");
        return Err(Failure::request(&what, "try again"));
    }
    let parts = parts(session.host.home(), &id, made)?;
    run(&order(Machine::Stopped(Box::new(parts))))
}

/// The machine's name, and both sides.
fn sides(source: &str, target: &str) -> Result<(String, Side, Side), Failure> {
    let wrong = |what: &str| Failure::request(what, "write `stead cp web:/file .` or `stead cp file web:/`");
    match (read_side(source), read_side(target)) {
        ((Some(_), _), (Some(_), _)) => Err(wrong("both sides are machines")),
        ((None, _), (None, _)) => Err(wrong("neither side is a machine")),
        ((Some(machine), from), (None, to)) | ((None, from), (Some(machine), to)) => Ok((machine, from, to)),
    }
}

/// `web:/path`, `-`, or a path. A path with a colon in its first part begins with `./`.
fn read_side(text: &str) -> (Option<String>, Side) {
    if text == "-" {
        return (None, Side::Archive);
    }
    match text.split_once(':') {
        Some((machine, path))
            if !machine.is_empty() && !machine.contains('/') && !machine.starts_with('.') =>
        {
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            (Some(machine.to_owned()), Side::Machine(path))
        }
        _ => (None, Side::Here(text.to_owned())),
    }
}

/// Where the files are of a machine that does not run.
fn parts(home: &Home, id: &MachineId, made: &MadeContainer) -> Result<Parts> {
    let digest = made.image.as_ref().context("its image was never here")?;
    let store = Store::open(&home.images())?;
    let image = store.inspect(digest)?.map(|details| details.image);
    let image = image.with_context(|| {
        format!("the image {} is not here any more; hint: pull it again", made.wish.image)
    })?;
    let files = Files::new(home, id);
    let own = files.own()?;
    Ok(Parts {
        launch: made.wish.launch(&id.name, &image.config).context("it cannot be launched")?,
        layers: own.over(store.layer_paths(&image)),
        volumes: stead_host::linux::volumes_of_machine(home, id, &made.wish.mounts),
        upper: own.written.writable(),
        work: own.written.work(),
        root: files.root(),
        own_volumes: files.own_volumes(),
        state: files.present(),
    })
}

fn run(order: &Order) -> Result<(), Failure> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    // Not on its command line: what a machine is launched with holds secrets.
    let text = serde_json::to_vec(order).context("cannot write an order as JSON")?;
    let args: [OsString; 1] = [WORD.into()];
    let archive: Option<OwnedFd> = match (&order.from, &order.to) {
        (Side::Archive, _) => {
            Some(std::io::stdin().as_fd().try_clone_to_owned().context("no standard input")?)
        }
        (_, Side::Archive) => {
            Some(std::io::stdout().as_fd().try_clone_to_owned().context("no standard output")?)
        }
        _ => None,
    };
    let _working = Working::on("copying");
    stead_net::anchor::order_as_root(&program, &args, archive, &text).map(drop).map_err(Failure::from)
}

/// Copies, in a process of its own. An archive is its standard output, whichever way that goes.
pub(crate) fn copy_here() -> Result<(), Failure> {
    let order: Order = serde_json::from_slice(&stead_net::anchor::order()?).context("this is no order")?;
    // A running machine's files are opened as who we are: whom the kernel lets look into it.
    let root = match &order.machine {
        Machine::Running(init) => Some(running_root(init.pid, init.start_time)?),
        Machine::Stopped(_) | Machine::Guest(..) => None,
    };
    stead_net::anchor::become_root()?;
    let owners = if order.keep_owners { Owners::Keep } else { Owners::Ours };
    let root = match (root, order.machine) {
        (_, Machine::Guest(state, run)) => {
            let files = Files { state, run };
            let done = match (&order.from, &order.to) {
                (Side::Machine(from), Side::Here(to)) => super::guest::files::take(&files, from, to, owners),
                (Side::Here(from), Side::Machine(to)) => super::guest::files::give(&files, from, to, owners),
                _ => Err(anyhow::anyhow!("one side is a path here, the other one a machine's")),
            };
            return done.map_err(|error| placed(error, &order.name)).map_err(Failure::from);
        }
        (Some(root), _) => root,
        (None, Machine::Stopped(parts)) => stopped(*parts)?,
        (None, Machine::Running(_)) => return Err(anyhow::anyhow!("its root is not open").into()),
    };
    let (machine, here) = (Root::Container(root), Root::Here);
    let end = |side: &'_ Side| match side {
        Side::Here(path) => Some((&here, path.clone())),
        Side::Machine(path) => Some((&machine, path.clone())),
        Side::Archive => None,
    };
    let done = match (end(&order.from), end(&order.to)) {
        (Some((from_root, from)), Some((to_root, to))) => {
            let (from, to) = (End { root: from_root, path: &from }, End { root: to_root, path: &to });
            transfer(&from, &to, owners)
        }
        (None, Some((root, path))) => unpack(&End { root, path: &path }),
        (Some((root, path)), None) => pack(&End { root, path: &path }),
        (None, None) => Err(anyhow::anyhow!("neither side is a machine")),
    };
    done.map_err(|error| placed(error, &order.name)).map_err(Failure::from)
}

/// Says of what is not there where it is not.
fn placed(error: anyhow::Error, machine: &str) -> anyhow::Error {
    match error.downcast::<Nothing>() {
        Ok(nothing) if nothing.is_inside => anyhow::anyhow!("{nothing} in machine `{machine}`"),
        Ok(nothing) => anyhow::anyhow!("{nothing} here"),
        Err(error) => match error.downcast::<super::guest::files::There>() {
            // The guest's own words.
            Ok(there) if there.0.starts_with("there is no ") => {
                anyhow::anyhow!("{} in machine `{machine}`", there.0)
            }
            Ok(there) => anyhow::anyhow!("machine `{machine}`: {}", there.0),
            Err(error) => error,
        },
    }
}

fn stopped(parts: Parts) -> Result<OwnedFd> {
    let place = Place {
        layers: parts.layers,
        upper: parts.upper,
        is_passing: false,
        work: parts.work,
        root: parts.root,
        volumes: parts.volumes,
        own_volumes: parts.own_volumes,
        hosts: None,
        resolv_conf: None,
        netns: File::open("/proc/self/ns/net").context("cannot open our network namespace")?.into(),
        cgroup: String::new(),
        state: parts.state,
    };
    stopped_root(&parts.launch, &place)
}

fn archive() -> Result<File> {
    let fd = rustix::stdio::stdout().try_clone_to_owned().context("cannot share the archive")?;
    Ok(File::from(fd))
}

fn path_of(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn unpack(to: &End<'_>) -> Result<()> {
    let directory = to.directory()?;
    let options = UnpackOptions {
        form: Form::Flat,
        marks: Marks::None,
        fill: Fill::Wholly,
        ..UnpackOptions::rootless()
    };
    unpack_layer(archive()?, &path_of(&directory), &options).context("cannot unpack the archive").map(drop)
}

fn pack(from: &End<'_>) -> Result<()> {
    let out = std::io::BufWriter::new(archive()?);
    // What is not there is told before an archive begins.
    from.source()?;
    let packed = match from.named()? {
        Some((directory, name)) => pack_named(&path_of(&directory), name.as_bytes(), out),
        None => stead_image::unpack::pack_tree(&path_of(&from.directory()?), out),
    };
    packed.with_context(|| format!("cannot pack `{}`", from.path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_machines_where_a_name_comes_before_a_colon() {
        let machine = |path: &str| (Some("web".to_owned()), Side::Machine(path.to_owned()));
        let here = |path: &str| (None, Side::Here(path.to_owned()));
        assert_eq!(read_side("web:/etc/"), machine("/etc/"));
        assert_eq!(read_side("web:etc"), machine("/etc"));
        assert_eq!(read_side("web:"), machine("/"));
        assert_eq!(read_side("-"), (None, Side::Archive));
        for path in ["file", "./web:x", "/a:b", "a/b:c", ":x", "."] {
            assert_eq!(read_side(path), here(path));
        }
    }
}
