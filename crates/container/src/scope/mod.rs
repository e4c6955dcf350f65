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
//!
//! Root has cgroups without that, and leaves only sessions: what stays in one is ended with it, or beside all others when the
//! computer goes off. Its scopes are the system's.

mod bus;
mod message;

#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cgroup::layout::{self, Layout};
use crate::cgroup::write;
use crate::stat::Stat;
use bus::{Bus, Deadline};
use message::{Call, Writer, text_in_variant};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Where scopes are, of a user and of root.
const USERS_SLICE: &str = "app.slice";
const SYSTEMS_SLICE: &str = "system.slice";

/// What our scopes are called, and what systemd has them end with.
const FIRST: &str = "stead-";
const LAST: &str = ".scope";

/// Where in its scope is who asked for it: the scope itself hands controllers on, so no process can be in it.
const SEAT: &str = "self";

/// systemd answers within milliseconds, on a busy computer later. One that does not at all is done without.
const LIMIT: Duration = Duration::from_secs(10);
/// The same for what others wait for themselves, no longer than that.
const SHORT_LIMIT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After so many looks it is asked whether the scope is there at all.
const LOOKS: u32 = 10;

/// Moves this process, if it is an ordinary user's or in a session, into a scope of its own, called after `name`: letters, digits and `-`.
/// To be done before it has any children. Where that fails it stays where it is. systemd ends the unit `before` which the scope is
/// before it ends the scope.
pub fn enter_scope(name: &str, description: &str, before: &str) -> Result<()> {
    // Root's containers are at the top of all control groups anyway.
    let limit = if rustix::process::geteuid().is_root() { SHORT_LIMIT } else { LIMIT };
    enter((name, description, before), Deadline::after(limit))
}

fn enter((name, description, before): (&str, &str, &str), deadline: Deadline) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let own = here()?;
    if is_root && !own.as_deref().is_some_and(is_in_session) {
        return Ok(());
    }
    ensure!(own.is_some(), "there is no version 2 of control groups here");
    let mut bus = open(deadline)?;
    let pid = std::process::id();
    let started = Stat::observe(pid)?.context("we do not exist")?.started_ticks;
    let unit = format!("{FIRST}{name}-{pid}-{started}{LAST}");
    bus.call(&start(&unit, description, before, if is_root { SYSTEMS_SLICE } else { USERS_SLICE }))?;
    let scope = moved_to(&unit, &mut bus, deadline)?;
    let seat = scope.join(SEAT);
    fs::create_dir(&seat).with_context(|| format!("cannot make `{}`", seat.display()))?;
    write(&seat.join("cgroup.procs"), "0")
}

/// Where a scope is, once we are in it. systemd answers before it moves anybody; where it cannot, it forgets the scope.
fn moved_to(unit: &str, bus: &mut Bus, deadline: Deadline) -> Result<PathBuf> {
    let look = || Ok::<_, anyhow::Error>(here()?.filter(|here| here.ends_with(unit)));
    while !deadline.has_passed() {
        for _ in 0..LOOKS {
            if let Some(scope) = look()? {
                return Ok(scope);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let there = bus.call(&get(unit));
        if let Some(scope) = look()? {
            return Ok(scope);
        }
        there.with_context(|| format!("it does not move us to `{unit}`"))?;
    }
    bail!("it has not moved us to `{unit}` within {}", deadline.span())
}

/// The same for what all machines need, but only where the user's systemd runs without anybody being logged in, by
/// `loginctl enable-linger`. Else it ends with the user's last session: what stays in that keeps it, and so systemd with all
/// scopes, unless logind is told to kill whatever a session leaves (`KillUserProcesses=`).
pub fn leave_session(name: &str, description: &str, before: &str) -> Result<()> {
    // The system's own systemd never ends.
    if rustix::process::geteuid().is_root() || lingers() == Some(true) {
        return enter((name, description, before), Deadline::after(SHORT_LIMIT));
    }
    Ok(())
}

/// Whether this user's systemd runs without anybody being logged in; nothing where nobody knows what the user is called.
pub fn lingers() -> Option<bool> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = crate::user::name_of(rustix::process::geteuid().as_raw(), &passwd)?;
    Some(Path::new("/var/lib/systemd/linger").join(name).exists())
}

/// Moves this process into a cgroup within a scope of ours, which the kernel lets nobody do from outside what was delegated:
/// whether it is in one.
pub(crate) fn join(cgroup: &Path) -> Result<bool> {
    let Some((unit, below)) = within(cgroup).filter(|_| !rustix::process::geteuid().is_root()) else {
        return Ok(false);
    };
    open(Deadline::after(LIMIT))?.call(&attach(&unit, &below))?;
    ensure!(here()?.is_some_and(|here| here == cgroup), "it does not move us to `{}`", cgroup.display());
    Ok(true)
}

/// The scope of ours that a cgroup is in, and where it is in that.
fn within(cgroup: &Path) -> Option<(String, String)> {
    let scope = cgroup.ancestors().find(|path| unit(path).is_some())?;
    let below = cgroup.strip_prefix(scope).ok()?.to_str()?;
    Some((unit(scope)?.to_owned(), format!("/{below}")))
}

/// Whether a cgroup is that of a scope of ours.
pub(crate) fn is_scope(cgroup: &Path) -> bool {
    unit(cgroup).is_some()
}

/// What a cgroup is called, if it is that of a scope of ours.
fn unit(cgroup: &Path) -> Option<&str> {
    let name = cgroup.file_name()?.to_str()?;
    (name.starts_with(FIRST) && name.ends_with(LAST)).then_some(name)
}

/// The cgroup of the user's own systemd, below the mount of version 2: what it is not given its scopes are not either. It is
/// asked once, however many machines want to know.
pub(crate) fn managers() -> Result<&'static Path> {
    static ASKED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| ask_for_managers().map_err(|why| format!("{why:#}")));
    asked.as_deref().map_err(|why| anyhow!("{why}"))
}

fn ask_for_managers() -> Result<PathBuf> {
    let mut bus = open(Deadline::after(LIMIT))?;
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

fn open(deadline: Deadline) -> Result<Bus> {
    let user = rustix::process::geteuid().as_raw();
    if user == 0 {
        return Bus::open(Path::new("/run"), deadline);
    }
    // Whoever comes by `su`, or from a timer, has none, or still another's.
    let said = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = said.into_iter().chain([Path::new("/run/user").join(user.to_string())]);
    let is_own = |place: &PathBuf| fs::metadata(place).is_ok_and(|place| place.uid() == user);
    let own: Vec<PathBuf> = places.filter(is_own).collect();
    let place = own.iter().find(|place| place.join("systemd/private").exists()).or(own.first());
    Bus::open(
        place.context("this user has no directory for it to listen in, as a login makes one")?,
        deadline,
    )
}

/// Whether a cgroup is of what somebody logged in to.
fn is_in_session(own: &Path) -> bool {
    own.components().any(|part| part.as_os_str() == "user.slice")
}

/// The cgroup of version 2 that we are in.
fn here() -> Result<Option<PathBuf>> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"));
    let layout = Layout::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, layout::is_seen);
    Ok(layout.unified.map(|unified| unified.mount.join(unified.own)))
}

/// Has systemd make a scope with whoever calls in it.
fn start<'a>(unit: &str, description: &str, before: &str, slice: &str) -> Call<'a> {
    let mut body = Writer::default();
    body.text(unit);
    body.text("fail");
    body.array(8, |body| {
        body.property("Description", "s", |body| body.text(description));
        body.property("Slice", "s", |body| body.text(slice));
        // What ends all machines when the computer goes off is to be heard first.
        body.property("Before", "as", |body| body.array(4, |body| body.text(before)));
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

/// Asks systemd whether there is such a unit.
fn get<'a>(unit: &str) -> Call<'a> {
    let mut body = Writer::default();
    body.text(unit);
    let (path, interface) = (SYSTEMD_PATH, MANAGER);
    Call { destination: SYSTEMD, path, interface, member: "GetUnit", signature: "s", body }
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
