//! What is done with a container that was made.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use stead_model::container::Signal;

use super::check::Refused;
use super::config::Config;
use super::hooks;
use super::inside::CODE_HOOK;
use super::state::{Phase, Record, Room, Stamp, State, Status};
use crate::cgroup::Cgroup;
use crate::channel::{Channel, Said};
use crate::sys;

/// How long a process that was killed may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Where containers are on record if nobody says where: of this computer's root in `/run`, of others where they have
/// such things.
pub fn default_root() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() && !crate::mounts::root::is_mapped_here()? {
        return Ok(PathBuf::from("/run/stead/oci"));
    }
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|text| !text.is_empty());
    let directory = directory.context("XDG_RUNTIME_DIR is not set; hint: set it, or say `--root`")?;
    Ok(Path::new(&directory).join("stead/oci"))
}

/// What a container is and does.
pub fn state(root: &Path, id: &str) -> Result<State> {
    let room = Room::new(root, id)?;
    let Some(record) = room.load()? else { bail!("container `{id}` is only just being made") };
    let status = room.status(&record)?;
    Ok(told(&record, status))
}

fn told(record: &Record, status: Status) -> State {
    let pid = match status {
        Status::Stopped => 0,
        Status::Creating | Status::Created | Status::Running | Status::Paused => {
            record.first.map_or(0, |first| first.pid)
        }
    };
    record.state(status, pid)
}

/// All containers below this root.
pub fn list(root: &Path) -> Result<Vec<State>> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read `{}`", root.display()))?,
    };
    let mut states: Vec<State> =
        entries.flatten().filter_map(|entry| state(root, entry.file_name().to_str()?).ok()).collect();
    states.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(states)
}

/// What is on record of a container, and what it is doing.
fn find(room: &Room) -> Result<(Record, Status)> {
    let Some(record) = room.load()? else {
        return Err(Refused::one(format!("container `{}` was not made to the end", room.id)).into());
    };
    let status = room.status(&record)?;
    Ok((record, status))
}

fn config(room: &Room) -> Result<Config> {
    let text =
        std::fs::read(room.directory.join("config.json")).context("cannot read what the bundle said")?;
    serde_json::from_slice(&text).context("cannot read what the bundle said")
}

/// Starts a container's program.
pub fn start(root: &Path, id: &str) -> Result<()> {
    let room = Room::new(root, id)?;
    let lock = room.lock()?;
    let (record, status) = find(&room)?;
    if status != Status::Created {
        return Err(Refused::one(format!("container `{id}` is {}, not created", status.word())).into());
    }
    let config = config(&room)?;
    if config.process.is_none() {
        return Err(Refused::one(format!("the bundle of container `{id}` has no `process`")).into());
    }
    let channel = Channel::over(room.connect(SocketFlags::empty()).context("cannot reach the container")?);
    channel.go().context("the container ended before it was started")?;
    let done = match channel.hear()? {
        Said::Closed => {
            let state = told(&record, Status::Running);
            hooks::run("poststart", &config.hooks.poststart, &state)
        }
        Said::Failed(failure) if failure.code == CODE_HOOK => Err(failure.into()),
        // There was no program to be run: the container has ended, and is left to be looked at.
        Said::Failed(failure) => {
            ended(&record)?;
            return Err(failure.into());
        }
        Said::Ready { .. } => bail!("the container said it was ready twice"),
    };
    if let Err(error) = done {
        let gone = remove(&room, &record, &config);
        drop(lock);
        if let Err(more) = gone {
            tracing::warn!("the container stays: {more:#}");
        }
        return Err(error);
    }
    Ok(())
}

/// Sends a container's first process a signal, or, if asked, all of its processes.
pub fn kill(root: &Path, id: &str, signal: Signal, all: bool) -> Result<()> {
    let room = Room::new(root, id)?;
    let (record, status) = find(&room)?;
    let gone = || Refused::one(format!("container `{id}` is not running"));
    let is_there = matches!(status, Status::Created | Status::Running | Status::Paused);
    if all {
        let pids = Cgroup::load(&room.directory)?.processes()?.unwrap_or_default();
        if pids.is_empty() && !is_there {
            return Err(gone().into());
        }
        for pid in pids {
            if let Some(stamp) = Stamp::of(pid)?
                && let Some(fd) = stamp.open()?
            {
                send(&fd, signal)?;
            }
        }
    }
    let Some(first) = opened(record.first.filter(|_| is_there))? else {
        return if all { Ok(()) } else { Err(gone().into()) };
    };
    if !all && !send(&first, signal)? {
        return Err(gone().into());
    }
    // What stands still does not die.
    if status == Status::Paused && signal == Signal::KILL {
        Cgroup::load(&room.directory)?.freeze(false)?;
    }
    Ok(())
}

/// A descriptor of a process, if there is one.
fn opened(process: Option<Stamp>) -> Result<Option<OwnedFd>> {
    process.map_or(Ok(None), Stamp::open)
}

/// False if it is gone.
fn send(process: &OwnedFd, signal: Signal) -> Result<bool> {
    match sys::pidfd_signal(process.as_fd(), signal.number()) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("cannot send {signal}")),
    }
}

/// Deletes a container that has ended; whatever it is doing if `force`. One that is not there is no error then.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
    let room = Room::new(root, id)?;
    if force && !room.directory.exists() {
        return Ok(());
    }
    let _lock = room.lock()?;
    let record = room.load()?;
    let status = record.as_ref().map_or(Ok(Status::Stopped), |record| room.status(record))?;
    if status != Status::Stopped && !force {
        return Err(Refused::one(format!("container `{id}` is {}, not stopped", status.word())).into());
    }
    match (record, config(&room)) {
        (Some(record), Ok(config)) => remove(&room, &record, &config),
        // It was not made far enough for hooks to have run.
        _ => destroy(&room),
    }
}

/// Undoes what was made of a container, then runs the hooks for that.
fn remove(room: &Room, record: &Record, config: &Config) -> Result<()> {
    destroy(room)?;
    if record.phase == Phase::Created {
        hooks::run_all("poststop", &config.hooks.poststop, &told(record, Status::Stopped));
    }
    Ok(())
}

/// Undoes what was made of a container, whatever that is.
pub(crate) fn destroy(room: &Room) -> Result<()> {
    if let Ok(Some(record)) = room.load() {
        if let Some(first) = opened(record.first)? {
            let cgroup = Cgroup::load(&room.directory)?;
            if cgroup.is_frozen() {
                cgroup.freeze(false)?;
            }
            send(&first, Signal::KILL)?;
            wait(&first)?;
        }
        super::place::unmount(&record.root, &room.directory)?;
    }
    crate::control::remove(&room.directory)?;
    room.forget()
}

fn ended(record: &Record) -> Result<()> {
    match opened(record.first)? {
        Some(first) => wait(&first),
        None => Ok(()),
    }
}

/// Waits until a process has ended, whoever buries it.
fn wait(process: &OwnedFd) -> Result<()> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(0) => bail!("waited {} s for the container's first process to end", END_LIMIT.as_secs()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the container's first process"),
        }
    }
}

/// Holds all processes of a container still, or lets them go on.
pub fn freeze(root: &Path, id: &str, is_still: bool) -> Result<()> {
    let room = Room::new(root, id)?;
    let _lock = room.lock()?;
    let (_, status) = find(&room)?;
    let is_lawful = match status {
        Status::Running | Status::Created => is_still,
        Status::Paused => !is_still,
        Status::Creating | Status::Stopped => false,
    };
    if !is_lawful {
        return Err(Refused::one(format!("container `{id}` is {}", status.word())).into());
    }
    Cgroup::load(&room.directory)?.freeze(is_still)
}

/// The numbers of a container's processes.
pub fn processes(root: &Path, id: &str) -> Result<Vec<u32>> {
    let room = Room::new(root, id)?;
    let (record, _) = find(&room)?;
    crate::control::processes(&room.directory, record.first.map_or(0, |first| first.pid))
}
