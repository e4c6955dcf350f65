//! A cgroup of its own for a process of an ordinary user, from the user's own systemd: a transient scope.
//!
//! What people log in to is in a cgroup of root's, in which they can make none; their systemd has one that was delegated to
//! it, and gives parts of it to who asks:
//!
//! ```text
//! user-1000.slice ─┬─ session-1.scope                 root's: the shell, `stead`
//!                  └─ user@1000.service               the user's own, from here on
//!                     └─ app.slice
//!                        └─ stead-shop-web-….scope    empty, so that it can hand on controllers
//!                           ├─ self                   who asked for it: its keeper
//!                           └─ stead/<home>/web.shop  its container
//! ```
//! systemd ends a scope when nobody is in it any more, and takes away what is left of it.

mod bus;
mod message;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::layout::{self, Layout};
use crate::cgroup::write;
use crate::stat::Stat;
use bus::Bus;
use message::{Call, Writer, text_in_variant};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// What our scopes are called, and what systemd has them end with.
const FIRST: &str = "stead-";
const LAST: &str = ".scope";

/// Where in its scope is who asked for it: the scope itself hands controllers on, so no process can be in it.
const SEAT: &str = "self";

/// systemd answers within milliseconds, on a busy computer later. One that does not at all is done without.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Moves this process, if it is an ordinary user's, into a scope of its own, called after `name`: letters, digits and `-`.
/// To be done before it has any children. Where that fails it stays where it is.
pub fn enter_scope(name: &str, description: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let deadline = Instant::now() + LIMIT;
    ensure!(here()?.is_some(), "there is no version 2 of control groups here");
    let mut bus = open(deadline)?;
    let pid = std::process::id();
    let started = Stat::observe(pid)?.context("we do not exist")?.started_ticks;
    let unit = format!("{FIRST}{name}-{pid}-{started}{LAST}");
    bus.call(&start(&unit, description))?;
    let scope = loop {
        match here()?.filter(|here| here.ends_with(&unit)) {
            Some(scope) => break scope,
            None if Instant::now() > deadline => bail!("it does not move us to `{unit}`"),
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    let seat = scope.join(SEAT);
    fs::create_dir(&seat).with_context(|| format!("cannot make `{}`", seat.display()))?;
    write(&seat.join("cgroup.procs"), "0")
}

/// The same for what all machines need, but only where the user's systemd runs without anybody being logged in, by
/// `loginctl enable-linger`. Else it ends with the user's last session: what stays in that keeps it, and so systemd with all
/// scopes, unless logind is told to kill whatever a session leaves (`KillUserProcesses=`).
pub fn leave_session(name: &str, description: &str) -> Result<()> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    let lingers = |name: &str| Path::new("/var/lib/systemd/linger").join(name).exists();
    match crate::user::name_of(user, &passwd) {
        Some(user) if lingers(user) => enter_scope(name, description),
        Some(_) | None => Ok(()),
    }
}

/// Moves this process into a cgroup within a scope of ours, which the kernel lets nobody do from outside what was delegated:
/// whether it is in one.
pub(crate) fn join(cgroup: &Path) -> Result<bool> {
    let Some((unit, below)) = within(cgroup).filter(|_| !rustix::process::geteuid().is_root()) else {
        return Ok(false);
    };
    open(Instant::now() + LIMIT)?.call(&attach(&unit, &below))?;
    ensure!(here()?.is_some_and(|here| here == cgroup), "it does not move us to `{}`", cgroup.display());
    Ok(true)
}

/// The scope of ours that a cgroup is in, and where it is in that.
fn within(cgroup: &Path) -> Option<(String, String)> {
    let scope = cgroup.ancestors().find(|path| unit(path).is_some())?;
    let below = cgroup.strip_prefix(scope).ok()?.to_str()?;
    Some((unit(scope)?.to_owned(), format!("/{below}")))
}

/// What a cgroup is called, if it is that of a scope of ours.
fn unit(cgroup: &Path) -> Option<&str> {
    let name = cgroup.file_name()?.to_str()?;
    (name.starts_with(FIRST) && name.ends_with(LAST)).then_some(name)
}

/// The cgroup of the user's own systemd, below the mount of version 2: what it is not given its scopes are not either.
pub(crate) fn managers() -> Result<PathBuf> {
    let mut bus = open(Instant::now() + LIMIT)?;
    let (signature, body) = bus.call(&control_group())?;
    ensure!(signature == "v", "its control group is of type `{}`", signature.escape_debug());
    let path = text_in_variant(&body).context("its control group cannot be understood")?;
    let path = Path::new(path.trim_start_matches('/'));
    ensure!(
        path.components().all(|part| matches!(part, std::path::Component::Normal(_))),
        "its control group is `{}`",
        path.display()
    );
    Ok(path.to_owned())
}

/// Below which cgroup are those of a container whose keeper is in this one.
pub(crate) fn above_seat(own: &Path) -> &Path {
    let scope = own.parent().filter(|scope| own.ends_with(SEAT) && unit(scope).is_some());
    scope.unwrap_or(own)
}

fn open(deadline: Instant) -> Result<Bus> {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let directory = directory.context("`XDG_RUNTIME_DIR` is not set, so nobody can say where it listens")?;
    Bus::open(Path::new(&directory), deadline)
}

/// The cgroup of version 2 that we are in.
fn here() -> Result<Option<PathBuf>> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"));
    let layout = Layout::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, layout::is_seen);
    Ok(layout.unified.map(|unified| unified.mount.join(unified.own)))
}

/// Has systemd make a scope with whoever calls in it.
fn start<'a>(unit: &str, description: &str) -> Call<'a> {
    let mut body = Writer::default();
    body.text(unit);
    body.text("fail");
    body.array(8, |body| {
        body.property("Description", "s", |body| body.text(description));
        body.property("Slice", "s", |body| body.text("app.slice"));
        body.property("Delegate", "b", |body| body.flag(true));
        // Also one that failed is forgotten.
        body.property("CollectMode", "s", |body| body.text("inactive-or-failed"));
        body.property("PIDs", "au", who_asks);
    });
    body.array(8, |_| {});
    let (path, interface) = (SYSTEMD_PATH, MANAGER);
    let member = "StartTransientUnit";
    Call { destination: SYSTEMD, path, interface, member, signature: "ssa(sv)a(sa(sv))", body }
}

/// Processes: the one that asks, by whatever number systemd knows it. Ours may be of another namespace.
fn who_asks(body: &mut Writer) {
    body.array(4, |body| body.number(0));
}

/// Has systemd move whoever calls to this place in a scope.
fn attach<'a>(unit: &str, below: &str) -> Call<'a> {
    let mut body = Writer::default();
    body.text(unit);
    body.text(below);
    who_asks(&mut body);
    let (path, interface) = (SYSTEMD_PATH, MANAGER);
    let member = "AttachProcessesToUnit";
    Call { destination: SYSTEMD, path, interface, member, signature: "ssau", body }
}

/// Asks systemd for its own cgroup.
fn control_group<'a>() -> Call<'a> {
    let mut body = Writer::default();
    body.text(MANAGER);
    body.text("ControlGroup");
    let (path, interface) = (SYSTEMD_PATH, "org.freedesktop.DBus.Properties");
    Call { destination: SYSTEMD, path, interface, member: "Get", signature: "ss", body }
}
