//! Making a container: from outside.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::OFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use stead_model::container::{Launch, Mode};

use crate::capability::allowed;
use crate::cgroup::{self, Cgroup};
use crate::channel::{self, Channel, Said};
use crate::inside::{Inside, become_init};
use crate::mounts::plan::{Ground, plan};
use crate::mounts::prepare::store;
use crate::mounts::{device, root};
use crate::place::{Failure, Place, Stdio};
use crate::process::streams;
use crate::seccomp;
use crate::stamp;
use crate::sys::{self, Child, Fork, Namespaces, Parent};
use crate::systemd;

/// A container in which all is there but its program. Dropped instead of started, it ends.
#[derive(Debug)]
pub struct Created {
    /// The process that becomes the program: a child of ours, to be waited for.
    pub pid: u32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
    /// Whoever reads and writes this is at the container's terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    channel: Channel,
}

impl Created {
    /// Starts the program. Where that fails the process has ended and is to be waited for.
    pub fn start(self) -> Result<Started, Failure> {
        let Self { pid, pidfd, terminal, channel } = self;
        channel.go().context("the container ended before it was started")?;
        match channel.hear()? {
            Said::Closed => Ok(Started { pid, pidfd, terminal }),
            Said::Failed(failure) => Err(failure),
            Said::Ready { .. } => Err(anyhow!("the container said it was ready twice").into()),
        }
    }
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Started {
    /// Its first process: a child of ours, to be waited for.
    pub pid: u32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
    /// Whoever reads and writes this is at the container's terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Makes a container. Must be called in a process with one thread, which is the parent of the container's first
/// process from then on; as root, or as root of a user namespace in which it then stays.
pub fn create(launch: &Launch, place: &Place, stdio: Stdio<'_>) -> Result<Created, Failure> {
    let made = make(launch, place, stdio)?;
    match made.channel.hear() {
        Ok(Said::Ready { terminal, .. }) => {
            Ok(Created { pid: made.child.pid, pidfd: made.child.pidfd, terminal, channel: made.channel })
        }
        Ok(Said::Failed(failure)) => Err(bury(&made.child, failure)),
        Ok(Said::Closed) => {
            Err(bury(&made.child, anyhow!("the container's first process died while it was made").into()))
        }
        Err(error) => Err(bury(&made.child, error.into())),
    }
}

struct Made {
    child: Child,
    channel: Channel,
}

fn make(launch: &Launch, place: &Place, stdio: Stdio<'_>) -> Result<Made> {
    let is_mapped = root::is_mapped_here()?;
    let rights = &launch.rights;
    let allowed = allowed(rights, launch.mode)?;
    let filter = seccomp::filter(rights, allowed.most)?;
    let nodes = device::nodes(rights, launch.mode)?;
    texts(launch, place)?;
    let mut ground = cgroup::Ground::observe(is_mapped)?;
    let systemd = (launch.mode == Mode::System).then(|| systemd::version(place)).flatten();
    if systemd.is_some_and(|version| version <= systemd::LAST_WITH_LEGACY) {
        ground = ground.whole();
    }
    let cgroup = Cgroup::create(&ground, &place.cgroup, &launch.limits, &place.state)?;
    if systemd.is_some() && !cgroup.can_hold_system() {
        bail!(
            "systemd keeps its services in cgroups, and none was delegated to this user; \
             hint: where the user's own systemd runs, as after a login by ssh or on a console, it gives one"
        );
    }
    // In a user namespace no device can be made, and those bound are guarded by their owners.
    if !rights.privileged && !is_mapped {
        cgroup.guard_devices(&nodes)?;
    }
    let shown = Ground { has_tty_group: has_tty_group()?, cgroups: ground.shown(&cgroup, launch.mode) };
    let mounts = plan(launch, place, &shown)?;
    let streams = streams(&stdio)?;
    let unified = cgroup.unified.as_ref().map(|path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into())
            .with_context(|| format!("cannot open `{}`", path.display()))
    });
    let unified = unified.transpose()?;
    let (own, theirs) = channel::pair().context("cannot make a channel")?;
    let inside = Inside { launch, place, stdio, streams, is_mapped, allowed, filter, nodes, cgroup, mounts };
    match sys::fork(Namespaces::CONTAINER, unified.as_ref().map(AsFd::as_fd), Parent::Maker)
        .context("cannot make namespaces")?
    {
        Fork::Parent(child) => match stamp::store(&place.state, child.pid) {
            Ok(()) => Ok(Made { child, channel: own }),
            Err(error) => Err(bury(&child, error.into()).into()),
        },
        Fork::Child => {
            drop((own, unified));
            become_init(inside, theirs)
        }
    }
}

/// Writes the files that are mounted over the image's.
fn texts(launch: &Launch, place: &Place) -> Result<()> {
    store(&place.state.join("hostname"), &format!("{}\n", launch.hostname))?;
    let given = [("hosts", &place.hosts), ("resolv.conf", &place.resolv_conf)];
    for (name, text) in given {
        if let Some(text) = text {
            store(&place.state.join(name), text)?;
        }
    }
    for target in &launch.own_volumes {
        let path = crate::mounts::plan::own_volume(&place.own_volumes, target);
        fs::create_dir_all(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
    }
    Ok(())
}

/// Whether the group of terminals, 5, exists in our user namespace.
fn has_tty_group() -> Result<bool> {
    let map = fs::read_to_string("/proc/self/gid_map").context("cannot read `/proc/self/gid_map`")?;
    let has = |line: &str| {
        let mut numbers = line.split_whitespace().filter_map(|text| text.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&5)
    };
    Ok(map.lines().any(has))
}

/// Waits for a child that failed. It may hang, so it is killed.
fn bury(child: &Child, failure: Failure) -> Failure {
    // It may have ended by itself.
    let _ = sys::pidfd_signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    failure
}
