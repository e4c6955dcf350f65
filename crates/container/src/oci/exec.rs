//! Another program in a container of a bundle.
//!
//! ```text
//! caller ──▶ go-between: cgroups, namespaces ──▶ the process, a child of the caller, waits for its limits ──▶ the program
//! ```

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, prlimit, set_dumpable_behavior,
    waitid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde_json::{Value, json};

use super::check::Refused;
use super::config::Process;
use super::create::{console, write_pid};
use super::inside::{hand_over, take};
use super::process::{People, Program, own_capabilities, program};
use super::program::{become_it, become_root};
use super::state::{Room, Stamp, Status};
use crate::capability::Capabilities;
use crate::cgroup::Cgroup;
use crate::channel::{self, Channel, Said};
use crate::place::{CODE_OURS, Failure};
use crate::process;
use crate::seccomp;
use crate::sys::{self, Fork, Namespaces, Parent};

/// A program for a container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// Where containers are on record.
    pub root: &'a Path,
    /// The container.
    pub id: &'a str,
    /// A file with all about the program; then what follows is nothing.
    pub process: Option<&'a Path>,
    /// The program and its arguments.
    pub args: &'a [String],
    /// More environment.
    pub env: &'a [String],
    /// Where it starts; where the container does if absent.
    pub cwd: Option<&'a str>,
    /// As whom: `uid[:gid]`; as the container if absent.
    pub user: Option<&'a str>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// A file for its number.
    pub pid_file: Option<&'a Path>,
    /// A socket that gets its terminal.
    pub console_socket: Option<&'a Path>,
    /// How many of our descriptors from 3 on it has.
    pub preserve_fds: u32,
}

/// A program that runs in a container.
#[derive(Debug)]
pub struct Executed {
    /// A child of ours.
    pub pidfd: OwnedFd,
}

/// Starts a program in a container. Must be called in a process with one thread.
pub fn exec(request: &ExecRequest<'_>) -> Result<Executed> {
    let room = Room::new(request.root, request.id)?;
    let record = room.load()?.ok_or_else(|| room.missing())?;
    let status = room.status(&record)?;
    let pidfd = record.first.map_or(Ok(None), Stamp::open)?;
    let Some((first, pidfd)) = record.first.zip(pidfd) else {
        return Err(Refused::one(format!("container `{}` is stopped", request.id)).into());
    };
    if !matches!(status, Status::Created | Status::Running) {
        return Err(Refused::one(format!("container `{}` is {}", request.id, status.word())).into());
    }
    let text = fs::read(room.directory.join("config.json")).context("cannot read what the bundle said")?;
    let config: Value = serde_json::from_slice(&text).context("cannot read what the bundle said")?;
    let spaces = namespaces(first.pid)?;
    let is_own = !spaces.contains(ThreadNameSpaceType::USER);
    let available = if is_own { own_capabilities() } else { Capabilities::ALL };
    let program = wanted(request, &config, available)?;
    let mut bad = Vec::new();
    let people = People::of(&first.pid.to_string()).context("cannot see who there is in the container")?;
    people.refuse(&program, &mut bad);
    if !bad.is_empty() {
        return Err(Refused(bad).into());
    }
    let joining = Joining {
        program: &program,
        console: console(request.console_socket, program.terminal.is_some())?,
        cgroup: Cgroup::load(&room.directory)?,
        pidfd,
        namespaces: spaces,
        preserve_fds: request.preserve_fds,
    };
    joining.start(request)
}

/// What the program is to be: as the file says, or as the container's own with what is asked for instead.
fn wanted(request: &ExecRequest<'_>, config: &Value, available: Capabilities) -> Result<Program> {
    let value = match request.process {
        Some(path) => {
            let text = fs::read(path)
                .map_err(|error| Refused::one(format!("cannot read `{}`: {error}", path.display())))?;
            serde_json::from_slice(&text)
                .map_err(|error| Refused::one(format!("cannot read `{}`: {error}", path.display())))?
        }
        None => changed(request, config.get("process").cloned().unwrap_or_default())?,
    };
    let process: Process = serde_json::from_value(value)
        .map_err(|error| Refused::one(format!("the process is none: {error}")))?;
    let filter = config.pointer("/linux/seccomp").filter(|value| !value.is_null());
    let filter = filter.map(seccomp::parse_oci).transpose()?;
    let mut bad = Vec::new();
    let program = program(&process, filter, available, &mut bad);
    if bad.is_empty() { Ok(program) } else { Err(Refused(bad).into()) }
}

fn changed(request: &ExecRequest<'_>, process: Value) -> Result<Value> {
    let mut process = match process {
        Value::Object(process) => process,
        _ => serde_json::Map::from_iter([("cwd".to_owned(), json!("/"))]),
    };
    let mut set = |key: &str, value: Value| process.insert(key.to_owned(), value);
    set("args", json!(request.args));
    set("terminal", json!(request.tty));
    if let Some(cwd) = request.cwd {
        set("cwd", json!(cwd));
    }
    if let Some(user) = request.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let number = |text: &str| {
            let wrong = || Refused::one(format!("`{}` is no user in numbers", user.escape_debug()));
            text.parse::<u32>().map_err(|_| wrong())
        };
        set("user", json!({"uid": number(uid)?, "gid": number(gid)?}));
    }
    let mut env: Vec<Value> = process.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
    for entry in request.env {
        let name = entry.split('=').next().unwrap_or_default();
        env.retain(|known| known.as_str().and_then(|known| known.split('=').next()) != Some(name));
        env.push(json!(entry));
    }
    process.insert("env".to_owned(), Value::Array(env));
    Ok(Value::Object(process))
}

/// Those of the container that are not ours already.
fn namespaces(pid: u32) -> Result<ThreadNameSpaceType> {
    use ThreadNameSpaceType as Type;
    let all = [
        ("user", Type::USER),
        ("mnt", Type::MOUNT),
        ("pid", Type::PROCESS_ID),
        ("net", Type::NETWORK),
        ("ipc", Type::INTER_PROCESS_COMMUNICATION),
        ("uts", Type::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("cgroup", Type::CONTROL_GROUP),
        ("time", Type::TIME),
    ];
    let mut wanted = Type::empty();
    for (name, kind) in all {
        let own = fs::read_link(format!("/proc/self/ns/{name}"));
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}"));
        match (own, theirs) {
            (Ok(own), Ok(theirs)) if own != theirs => wanted |= kind,
            (Ok(_), Ok(_)) => {}
            // A kernel without this kind.
            (Err(_), _) => {}
            (_, Err(error)) => {
                return Err(error).context("cannot see the container's namespaces; it may have ended");
            }
        }
    }
    Ok(wanted)
}

struct Joining<'a> {
    program: &'a Program,
    console: Option<OwnedFd>,
    cgroup: Cgroup,
    pidfd: OwnedFd,
    namespaces: ThreadNameSpaceType,
    preserve_fds: u32,
}

impl Joining<'_> {
    fn start(self, request: &ExecRequest<'_>) -> Result<Executed> {
        let unified = self.cgroup.unified.as_ref().map(|path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("cannot open `{}`", path.display()))
        });
        let unified = unified.transpose()?;
        let program = self.program;
        let (own, theirs) = channel::pair().context("cannot make a channel")?;
        let between = match sys::fork(Namespaces::NONE, unified.as_ref().map(AsFd::as_fd), Parent::Maker)
            .context("cannot make a process")?
        {
            Fork::Parent(child) => child,
            Fork::Child => {
                // Nothing of this computer's is to be open in a container.
                drop((own, unified));
                self.go_between(theirs)
            }
        };
        drop(theirs);
        let said = own.hear();
        // It ends as soon as it made the process, and has nothing to say by its code.
        let _ = waitid(WaitId::PidFd(between.pidfd.as_fd()), WaitIdOptions::EXITED);
        let pid = match said? {
            Said::Ready { pid, .. } => pid,
            Said::Failed(failure) => return Err(failure.into()),
            Said::Closed => bail!("the container ended meanwhile"),
        };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the process has no number")?;
        // It is our child, so its number stays its own until we wait for it.
        let pidfd = pidfd_open(number, PidfdFlags::empty()).context("cannot open the process")?;
        let done = begin(&own, request, program, number);
        if done.is_err() {
            // It may have ended by itself.
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        done.map(|()| Executed { pidfd })
    }

    fn go_between(self, channel: Channel) -> ! {
        let done = self.join().and_then(|()| {
            sys::fork(Namespaces::NONE, None, Parent::Grandparent).context("cannot make a process")
        });
        match done {
            Ok(Fork::Parent(child)) => {
                // If nobody hears it, nobody waits for it either.
                let _ = channel.ready(None, child.pid);
                sys::exit(0)
            }
            Ok(Fork::Child) => {
                let failure = match self.arrive(&channel) {
                    Ok(true) => become_it(self.program, self.preserve_fds, &channel),
                    // Whoever made us is gone.
                    Ok(false) => sys::exit(i32::from(CODE_OURS)),
                    Err(error) => error.into(),
                };
                channel.fail(&failure);
                sys::exit(i32::from(failure.code))
            }
            Err(error) => {
                channel.fail(&error.into());
                sys::exit(1)
            }
        }
    }

    fn join(&self) -> Result<()> {
        // What is in the container must not look into us: we have descriptors of this computer's open.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot hide from the container")?;
        for (_, directory) in &self.cgroup.legacy {
            crate::cgroup::write(&directory.join("cgroup.procs"), "0").context("cannot join the cgroup")?;
        }
        if !self.namespaces.is_empty() {
            move_into_thread_name_spaces(self.pidfd.as_fd(), self.namespaces)
                .context("cannot join the container's namespaces")?;
        }
        if self.namespaces.contains(ThreadNameSpaceType::USER) {
            become_root()?;
            set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot hide from the container")?;
        }
        Ok(())
    }

    /// False if whoever made us is gone.
    fn arrive(&self, channel: &Channel) -> Result<bool> {
        if !channel.wait_go()? {
            return Ok(false);
        }
        process::session()?;
        if let (Some(size), Some(console)) = (self.program.terminal, &self.console) {
            let terminal = process::terminal(size)?;
            hand_over(console, &terminal)?;
            take(&terminal, Some(self.program))?;
        }
        Ok(true)
    }
}

/// Gives the process its limits, and lets it go on.
fn begin(channel: &Channel, request: &ExecRequest<'_>, program: &Program, pid: Pid) -> Result<()> {
    let number = pid.as_raw_nonzero().get().unsigned_abs();
    if let Some(score) = program.oom_score {
        fs::write(format!("/proc/{number}/oom_score_adj"), score.to_string())
            .with_context(|| format!("cannot set the out-of-memory score to {score}"))?;
    }
    for (name, resource, limit) in &program.limits {
        prlimit(Some(pid), *resource, *limit).with_context(|| format!("cannot set `{name}`"))?;
    }
    if let Some(path) = request.pid_file {
        write_pid(path, number)?;
    }
    // If it has ended, it says why.
    let _ = channel.go();
    match channel.hear()? {
        Said::Closed => Ok(()),
        Said::Failed(failure) => Err(Failure { code: failure.code, text: failure.text }.into()),
        Said::Ready { .. } => Err(anyhow!("the process said it was ready twice")),
    }
}
