//! Another process in a running container.
//!
//! ```text
//! caller ──▶ go-between: its cgroups, its namespaces ──▶ the process, which is a child of the caller
//! ```
//! The go-between is there because who joins a namespace of processes is not in it, only the next one that it makes.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::fs::OFlags;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open,
    set_dumpable_behavior, waitid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use stead_model::container::Launch;

use crate::capability::{Allowed, Capabilities, allowed};
use crate::cgroup::Cgroup;
use crate::channel::{self, Channel, Said};
use crate::place::{Failure, Stdio};
use crate::process::{
    self, Streams, Wanted, become_program, connect, connect_terminal, environment, log_in, streams, terminal,
};
use crate::seccomp;
use crate::sys::{self, Child, Fork, Namespaces, Parent};

/// A process for a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's first process.
    pub pid: u32,
    /// A descriptor of it.
    pub pidfd: BorrowedFd<'a>,
    /// What the container was launched as.
    pub launch: &'a Launch,
    /// Its state directory.
    pub state: &'a Path,
    /// The program and its arguments.
    pub args: &'a [String],
    /// More environment, `NAME=value` each, which goes before the container's.
    pub env: &'a [String],
    /// Where it starts; where the container did if absent.
    pub cwd: Option<&'a str>,
    /// As whom: `user[:group]`; as the container if absent.
    pub user: Option<&'a str>,
    /// Whether it has all capabilities and makes any system call.
    pub privileged: bool,
    /// Whether it is the user's login shell instead, at home, with nothing but this environment and the user's own.
    pub login: bool,
    /// What it reads and writes.
    pub stdio: Stdio<'a>,
}

/// A process in a container.
#[derive(Debug)]
pub struct Executed {
    /// It is a child of ours, to be waited for.
    pub pid: u32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
    /// Whoever reads and writes this is at its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Starts a process in a running container. Must be called in a process with one thread, as the user who made the
/// container or as root of the user namespace that it is in. Waits as long as the container takes.
pub fn exec(request: &ExecRequest<'_>) -> Result<Executed, Failure> {
    let mut executing = begin_exec(request)?;
    loop {
        let said = executing.channel.hear()?;
        match executing.take(said)? {
            Progress::Going(more) => executing = more,
            Progress::Done(executed) => return Ok(executed),
        }
    }
}

/// The same for who cannot wait: what is in the container may hold still whoever joins it.
pub fn begin_exec(request: &ExecRequest<'_>) -> Result<Executing, Failure> {
    let prepared = Prepared::new(request)?;
    let (own, theirs) = channel::pair().context("cannot make a channel")?;
    let unified = prepared.cgroup.unified.as_ref().and_then(|path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into()).ok()
    });
    // Begun in the cgroup, it need not be moved there, which takes the kernel longer.
    let begin = |cgroup| sys::fork(Namespaces::NONE, cgroup, Parent::Maker);
    let begun = begin(unified.as_ref().map(AsFd::as_fd)).or_else(|_| begin(None));
    match begun.context("cannot make a process")? {
        Fork::Parent(between) => {
            Ok(Executing { channel: own, between: Some(between), pid: None, terminal: None, failure: None })
        }
        Fork::Child => {
            // Nothing of this computer's is to be open in a container.
            drop((own, unified));
            go_between(prepared, theirs)
        }
    }
}

/// A process on its way into a container. Dropped, it is killed.
#[derive(Debug)]
pub struct Executing {
    channel: Channel,
    between: Option<Child>,
    /// The process itself: it is our child, so its number stays its own until we wait for it.
    pid: Option<Pid>,
    terminal: Option<OwnedFd>,
    failure: Option<Failure>,
}

/// How far a process has come.
#[derive(Debug)]
pub enum Progress {
    /// It is on its way yet.
    Going(Executing),
    /// It is the program.
    Done(Executed),
}

impl Executing {
    /// Is ready when [`Executing::go_on`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.channel.fd()
    }

    /// Goes on as far as can be without waiting.
    pub fn go_on(mut self) -> Result<Progress, Failure> {
        while let Some(said) = self.channel.hear_within(Duration::ZERO)? {
            match self.take(said)? {
                Progress::Going(more) => self = more,
                done @ Progress::Done(_) => return Ok(done),
            }
        }
        Ok(Progress::Going(self))
    }

    /// Ends it, wherever it is.
    pub fn kill(&self) {
        if let Some(between) = &self.between {
            // Both may have ended by themselves.
            let _ = sys::pidfd_signal(between.pidfd.as_fd(), libc::SIGKILL);
        }
        if let Some(pid) = self.pid {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Heeds what was said. The channel is closed by the program's start, or by the death of all who had it.
    fn take(mut self, said: Said) -> Result<Progress, Failure> {
        match said {
            Said::Ready { terminal: Some(fd), .. } => self.terminal = Some(fd),
            Said::Ready { terminal: None, pid } => self.pid = i32::try_from(pid).ok().and_then(Pid::from_raw),
            Said::Failed(failure) => self.failure = Some(failure),
            Said::Closed => return self.arrived().map(Progress::Done),
        }
        Ok(Progress::Going(self))
    }

    fn arrived(mut self) -> Result<Executed, Failure> {
        // It ends as soon as it made the process, and has nothing to say by its code.
        if let Some(between) = self.between.take() {
            let _ = waitid(WaitId::PidFd(between.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        match (self.pid.take(), self.failure.take()) {
            (Some(number), None) => {
                let pidfd = pidfd_open(number, PidfdFlags::empty()).context("cannot open the process")?;
                let pid = number.as_raw_nonzero().get().unsigned_abs();
                Ok(Executed { pid, pidfd, terminal: self.terminal.take() })
            }
            (number, failure) => {
                if let Some(number) = number {
                    let _ = waitid(WaitId::Pid(number), WaitIdOptions::EXITED);
                }
                Err(failure.unwrap_or_else(|| anyhow!("the container ended meanwhile").into()))
            }
        }
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        self.kill();
        // Those that are dead by now are buried; the others, as children of a process that goes on, when that ends.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Some(between) = &self.between {
            let _ = waitid(WaitId::PidFd(between.pidfd.as_fd()), options);
        }
        if let Some(pid) = self.pid {
            let _ = waitid(WaitId::Pid(pid), options);
        }
    }
}

/// All that can be had before this computer's files are out of sight.
struct Prepared<'a> {
    request: &'a ExecRequest<'a>,
    allowed: Allowed,
    filter: Option<Vec<sys::Instruction>>,
    cgroup: Cgroup,
    streams: Option<Streams>,
    namespaces: ThreadNameSpaceType,
}

impl<'a> Prepared<'a> {
    fn new(request: &'a ExecRequest<'a>) -> Result<Self> {
        let rights = &request.launch.rights;
        let (allowed, filter) = if request.privileged {
            (Allowed { most: Capabilities::ALL, asked: Capabilities::ALL }, None)
        } else {
            let allowed = allowed(rights, request.launch.mode)?;
            (allowed, seccomp::filter(rights, allowed.most)?)
        };
        Ok(Self {
            request,
            allowed,
            filter,
            cgroup: Cgroup::load(request.state)?,
            streams: streams(&request.stdio)?,
            namespaces: namespaces(request.pid)?,
        })
    }
}

/// The namespaces to join: all of a container's, but those of user and network that we are in already, where the
/// kernel refuses to join.
fn namespaces(pid: u32) -> Result<ThreadNameSpaceType> {
    use ThreadNameSpaceType as Type;
    let same = |kind: &str| -> Result<bool> {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).context("cannot see our namespaces")?;
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{kind}"))
            .context("cannot see the container's namespaces; it may have ended")?;
        Ok(own == theirs)
    };
    let mut wanted = Type::MOUNT
        | Type::PROCESS_ID
        | Type::HOST_NAME_AND_NIS_DOMAIN_NAME
        | Type::INTER_PROCESS_COMMUNICATION
        | Type::CONTROL_GROUP;
    if !same("user")? {
        wanted |= Type::USER;
    }
    if !same("net")? {
        wanted |= Type::NETWORK;
    }
    Ok(wanted)
}

fn go_between(prepared: Prepared<'_>, channel: Channel) -> ! {
    let done = join(&prepared).and_then(|()| {
        sys::fork(Namespaces::NONE, None, Parent::Grandparent).context("cannot make a process")
    });
    match done {
        Ok(Fork::Parent(child)) => {
            // If nobody hears it, nobody waits for it either.
            let _ = channel.ready(None, child.pid);
            sys::exit(0)
        }
        Ok(Fork::Child) => match arrive(prepared, &channel) {
            Ok(wanted) => {
                let failure = become_program(&wanted, &channel);
                channel.fail(&failure);
                sys::exit(i32::from(failure.code))
            }
            Err(error) => {
                channel.fail(&error.into());
                sys::exit(i32::from(crate::place::CODE_OURS))
            }
        },
        Err(error) => {
            channel.fail(&error.into());
            sys::exit(1)
        }
    }
}

fn join(prepared: &Prepared<'_>) -> Result<()> {
    // An ordinary user cannot write this of a process that hides.
    if let Some(score) = prepared.request.launch.limits.oom_score {
        match fs::write("/proc/self/oom_score_adj", score.to_string()) {
            // Who is to be killed sooner anyway has none that is lower, nor has what they begin.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            set => set.with_context(|| format!("cannot set the out-of-memory score to {score}"))?,
        }
    }
    // What is in the container must not look into us: we have descriptors of this computer's open.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot hide from the container")?;
    prepared.cgroup.join(prepared.request.pid).context("cannot join the cgroup")?;
    move_into_thread_name_spaces(prepared.request.pidfd, prepared.namespaces)
        .context("cannot join the container's namespaces")
}

fn arrive<'a>(prepared: Prepared<'a>, channel: &Channel) -> Result<Wanted<'a>> {
    let Prepared { request, allowed, filter, streams, .. } = prepared;
    let ExecRequest { launch, .. } = request;
    process::session()?;
    process::limit(&launch.limits.ulimits)?;
    let user = process::user(request.user.unwrap_or(&launch.user), &launch.groups)?;
    match (&request.stdio, &streams) {
        (Stdio::Terminal(size), _) => {
            let terminal = terminal(*size)?;
            channel.ready(Some(&terminal.own), 0)?;
            connect_terminal(&terminal.theirs, &user)?;
        }
        (Stdio::Streams { .. }, Some(streams)) => connect(streams, &user)?,
        (Stdio::Streams { .. }, None) => {}
    }
    let (args, env) = if request.login {
        let login = log_in(&user, request.env)?;
        (login.args.into(), login.env)
    } else {
        process::directory(request.cwd.unwrap_or(&launch.cwd), false)?;
        // Its home is that of who it runs as, which may be somebody else than the container.
        (request.args.into(), environment(&overlaid(&launch.env, request.env), &user))
    };
    Ok(Wanted {
        args,
        is_login: request.login,
        env,
        user,
        allowed,
        no_new_privileges: launch.rights.no_new_privileges,
        filter,
        dies_with_maker: false,
    })
}

/// An environment with entries that go before others of their names.
fn overlaid(env: &[String], more: &[String]) -> Vec<String> {
    let mut env = env.to_vec();
    for entry in more {
        let name = entry.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    env
}
