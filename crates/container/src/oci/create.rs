//! Making a container of a bundle: from outside.
//!
//! ```text
//! maker ──▶ go-between: cgroups, joins namespaces, makes one of users ──▶ the first process, a child of the maker
//!   ◀── map my ids ──   ── go ─▶
//!   ◀── this is the first process ──   ── go, once that is on record ─▶
//!   ◀── all is mounted ──   ── go, after the hooks of prestart and createRuntime ─▶
//!   ◀── all is there ──     ── go, once it is on record: the maker may end now ─▶
//! ```
//! If the maker dies before the last word, so does the first process.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, prlimit, waitid};

use super::check::{Plan, Refused, check};
use super::config::{Config, IdMap};
use super::hooks;
use super::inside::{Inside, go_between};
use super::state::{Phase, Record, Room, Stamp, Status};
use crate::cgroup::Ground;
use crate::channel::{self, Channel, Said};
use crate::mounts::root::is_mapped_here;
use crate::sys::{self, Child, Fork, Namespaces, Parent};

/// A container that is to be made.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Where containers are on record.
    pub root: &'a Path,
    /// Its name.
    pub id: &'a str,
    /// The directory with its `config.json`.
    pub bundle: &'a Path,
    /// A file for the number of its first process.
    pub pid_file: Option<&'a Path>,
    /// A socket that gets its terminal.
    pub console_socket: Option<&'a Path>,
    /// How many of our descriptors from 3 on its program has.
    pub preserve_fds: u32,
    /// What time it is, as it is to be on record.
    pub now: &'a str,
}

/// The first process of a container that was made. It waits for `start`.
#[derive(Debug)]
pub struct First {
    /// Its number.
    pub pid: u32,
    /// A descriptor of it, which is a child of ours.
    pub pidfd: OwnedFd,
}

/// A bundle's file may be as long as this.
const CONFIG_MAX_BYTES: u64 = 16 << 20;

/// What the hooks of a container that is not made to the end have done is to be undone by others of them.
#[derive(Debug)]
struct HookFailed;

impl std::fmt::Display for HookFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the container was not made")
    }
}

/// Makes a container. Must be called in a process with one thread, as root, be it of a user namespace.
pub fn create(request: &CreateRequest<'_>) -> Result<First> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root makes containers, be it root of a user namespace");
    }
    let room = Room::new(request.root, request.id)?;
    let bundle = fs::canonicalize(request.bundle).map_err(|error| {
        Refused::one(format!("there is no bundle `{}`: {error}", request.bundle.display()))
    })?;
    let (text, plan) = load(&bundle.join("config.json"), &bundle)?;
    let has_terminal = plan.program.as_ref().is_some_and(|program| program.terminal.is_some());
    let console = console(request.console_socket, has_terminal)?;
    let ground = Ground::observe(is_mapped_here()?)?;
    // Others may have a container of the same name, on record elsewhere.
    let maker = Stamp::of(std::process::id())?.context("cannot see ourselves in `/proc`")?;
    let cgroups = plan.cgroup.plan(&ground, &format!("{}-{}", request.id, maker.name()))?;
    room.make()?;
    let lock = room.lock()?;
    let making =
        Making { request, room: &room, plan: &plan, maker, ground: &ground, cgroups: &cgroups, console };
    let made = making.make(&text);
    if let Err(error) = &made {
        let undone = super::verbs::destroy(&room);
        if error.is::<HookFailed>() {
            let record = making.record(Phase::Created, None);
            hooks::run_all("poststop", &plan.hooks.poststop, &record.state(Status::Stopped, 0));
        }
        if let Err(more) = undone {
            tracing::warn!("what was made of the container stays: {more:#}");
        }
    }
    drop(lock);
    made
}

/// A bundle's file, as text and checked.
pub(crate) fn load(path: &Path, bundle: &Path) -> Result<(Vec<u8>, Plan)> {
    let wrong =
        |error: &dyn std::fmt::Display| Refused::one(format!("cannot read `{}`: {error}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| wrong(&error))?;
    if metadata.len() > CONFIG_MAX_BYTES {
        return Err(wrong(&"it is too long").into());
    }
    let text = fs::read(path).map_err(|error| wrong(&error))?;
    let config: Config = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    let plan = check(&config, bundle)?;
    Ok((text, plan))
}

/// A connection to whoever is to have the terminal.
pub(crate) fn console(path: Option<&Path>, has_terminal: bool) -> Result<Option<OwnedFd>> {
    match (path, has_terminal) {
        (None, false) => Ok(None),
        (None, true) => {
            Err(Refused::one("`process.terminal` needs somebody to have it: `--console-socket`").into())
        }
        (Some(_), false) => {
            Err(Refused::one("`--console-socket` is of no use without `process.terminal`").into())
        }
        (Some(path), true) => {
            let doing = || format!("cannot connect to `{}`", path.display());
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            let address = SocketAddrUnix::new(path).with_context(doing)?;
            connect(&fd, &address).with_context(doing)?;
            Ok(Some(fd))
        }
    }
}

/// Writes a process's number, as a whole.
pub(crate) fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let name = path.file_name().context("the file for the pid has no name")?.to_string_lossy();
    let fresh: PathBuf = path.with_file_name(format!(".{name}.new"));
    fs::write(&fresh, pid.to_string())
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

struct Making<'a> {
    request: &'a CreateRequest<'a>,
    room: &'a Room,
    plan: &'a Plan,
    ground: &'a Ground,
    cgroups: &'a super::cgroup::Planned,
    maker: Stamp,
    console: Option<OwnedFd>,
}

impl Making<'_> {
    fn record(&self, phase: Phase, first: Option<Stamp>) -> Record {
        Record {
            id: self.request.id.to_owned(),
            bundle: self.plan.bundle.clone(),
            root: self.plan.root.clone(),
            annotations: self.plan.annotations.clone(),
            created: self.request.now.to_owned(),
            phase,
            maker: Some(self.maker),
            first,
        }
    }

    fn make(&self, text: &[u8]) -> Result<First> {
        let Self { room, plan, .. } = self;
        room.store(&self.record(Phase::Creating, None))?;
        fs::write(room.directory.join("config.json"), text).context("cannot keep the bundle's file")?;
        plan.cgroup.make(self.cgroups, &room.directory, self.ground)?;
        let listener = room.listen().context("cannot make a socket to be started by")?;
        let (channel, between) = self.fork(listener)?;
        if plan.namespaces.makes("user") {
            heard(&channel)?;
            map(between.pid, "uid_map", &plan.uid_map)?;
            map(between.pid, "gid_map", &plan.gid_map)?;
            channel.go().context("the container ended while it was made")?;
        }
        let first = self.first(&channel, &between)?;
        self.cgroups.limit_processes()?;
        let stamp = Stamp::of(first.pid)?.context("the container's first process died while it was made")?;
        self.room.store(&self.record(Phase::Creating, Some(stamp)))?;
        channel.go().context("the container ended while it was made")?;
        self.hooks(&channel, stamp)?;
        heard(&channel)?;
        if let Some(program) = &plan.program {
            let pid = i32::try_from(first.pid).ok().and_then(Pid::from_raw);
            for (name, resource, limit) in &program.limits {
                prlimit(pid, *resource, *limit).with_context(|| format!("cannot set `{name}`"))?;
            }
        }
        if let Some(path) = self.request.pid_file {
            write_pid(path, first.pid)?;
        }
        self.room.store(&self.record(Phase::Created, Some(stamp)))?;
        channel.go().context("the container ended while it was made")?;
        Ok(first)
    }

    fn fork(&self, listener: OwnedFd) -> Result<(Channel, Child)> {
        let unified = self.cgroups.cgroup.unified.as_ref().map(|path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("cannot open `{}`", path.display()))
        });
        let unified = unified.transpose()?;
        let (own, theirs) = channel::pair().context("cannot make a channel")?;
        let record = self.record(Phase::Creating, None);
        let inside = Inside {
            plan: self.plan,
            layout: self.ground.layout(),
            cgroup: &self.cgroups.cgroup,
            is_mapped: self.ground.is_mapped(),
            console: self.console.as_ref(),
            preserve_fds: self.request.preserve_fds,
            record: &record,
            room: &self.room.directory,
            listener,
        };
        match sys::fork(Namespaces::NONE, unified.as_ref().map(AsFd::as_fd), Parent::Maker)
            .context("cannot make a process")?
        {
            Fork::Parent(child) => Ok((own, child)),
            Fork::Child => {
                // Nothing of this computer's is to be open in a container.
                drop((own, unified));
                go_between(inside, theirs)
            }
        }
    }

    /// The first process, once the go-between made it.
    fn first(&self, channel: &Channel, between: &Child) -> Result<First> {
        let heard = heard(channel);
        if heard.is_err() {
            // It may have ended by itself.
            let _ = sys::pidfd_signal(between.pidfd.as_fd(), libc::SIGKILL);
        }
        // It has nothing to say by its code.
        let _ = waitid(WaitId::PidFd(between.pidfd.as_fd()), WaitIdOptions::EXITED);
        let pid = heard?;
        let number = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("the container's first process has no number")?;
        let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())
            .context("cannot open the container's first process")?;
        if let Some(score) = self.plan.program.as_ref().and_then(|program| program.oom_score) {
            fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
                .with_context(|| format!("cannot set the out-of-memory score to {score}"))?;
        }
        Ok(First { pid, pidfd })
    }

    /// Those that run among this computer's processes.
    fn hooks(&self, channel: &Channel, first: Stamp) -> Result<()> {
        heard(channel)?;
        let hooks = &self.plan.hooks;
        let state = self.record(Phase::Creating, Some(first)).state(Status::Created, first.pid);
        hooks::run("prestart", &hooks.prestart, &state)
            .and_then(|()| hooks::run("createRuntime", &hooks.create_runtime, &state))
            .map_err(|error| error.context(HookFailed))?;
        channel.go().context("the container ended while it was made")
    }
}

/// Waits for the next word: the number in it.
fn heard(channel: &Channel) -> Result<u32> {
    match channel.hear()? {
        Said::Ready { pid, .. } => Ok(pid),
        Said::Failed(failure) if failure.code == super::inside::CODE_HOOK => {
            Err(anyhow!(failure).context(HookFailed))
        }
        Said::Failed(failure) => Err(failure.into()),
        Said::Closed => bail!("the container's first process died while it was made"),
    }
}

fn map(pid: u32, file: &str, maps: &[IdMap]) -> Result<()> {
    let lines = maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size));
    fs::write(format!("/proc/{pid}/{file}"), lines.collect::<String>())
        .with_context(|| format!("cannot write `{file}`"))
}
