//! Becoming the anchor: namespaces of our own.

use std::fs;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

use super::protocol::{Mapping, Report};
use super::sys;
use super::wire::{self, Packet};

/// Moves into the namespaces of the engine. Root needs no user namespace: it has every right already, and a
/// user namespace would take away those over real devices.
pub(super) fn isolate(spawner: Option<BorrowedFd<'_>>) -> Result<()> {
    if geteuid().is_root() {
        sys::unshare(UnshareFlags::NEWNET).context("cannot make a network namespace")?;
    } else {
        user_namespace(spawner)?;
        // Without a mount namespace nothing can be mounted in the user namespace. What the host mounts and
        // unmounts still reaches us, or we would keep its disks busy; what is mounted here stays here.
        sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS)
            .map_err(|errno| refused(errno, "cannot make a network namespace"))?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context("cannot detach our mounts from the host's")?;
    }
    // Gaining capabilities made our /proc/<pid> root's; pasta and `stead network enter` open its ns/*.
    set_dumpable_behavior(DumpableBehavior::Dumpable).context("cannot open /proc/self to our own user")?;
    loopback_up().context("cannot bring `lo` up")
}

pub(super) fn user_namespace(spawner: Option<BorrowedFd<'_>>) -> Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(UnshareFlags::NEWUSER).map_err(|errno| refused(errno, "cannot make a user namespace"))?;
    if let Some(spawner) = spawner
        && mapped_by(spawner)?
    {
        return Ok(());
    }
    // Whoever writes a gid map without privilege must first give up setgroups(2): it could drop a group that
    // denies access. See user_namespaces(7).
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))
}

/// Whether the spawner wrote our id maps. It must: `newuidmap` has its rights in the parent namespace only.
fn mapped_by(spawner: BorrowedFd<'_>) -> Result<bool> {
    wire::send(spawner, &Report::Map, &[]).context("cannot ask for the id maps")?;
    let Packet::Text(text, _) = wire::receive(spawner, 1024).context("no answer about the id maps")? else {
        bail!("whoever started us is gone");
    };
    let mapping: Mapping = serde_json::from_slice(&text).context("no lawful answer about the id maps")?;
    Ok(mapping == Mapping::Written)
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| match Errno::from_io_error(&error) {
        Some(errno) => refused(errno, &format!("cannot write `{path}`")),
        None => anyhow!(error).context(format!("cannot write `{path}`")),
    })
}

fn refused(errno: Errno, doing: &str) -> anyhow::Error {
    let read = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let settings = Settings {
        unprivileged_userns_clone: read("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restrict: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        max_user_namespaces: read("/proc/sys/user/max_user_namespaces"),
    };
    let error = anyhow!(errno).context(doing.to_owned());
    match hint(errno, &settings) {
        Some(hint) => anyhow!("{error:#}\nhint: {hint}"),
        None => error,
    }
}

/// The host's switches that forbid user namespaces; absent where its kernel does not have them.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    unprivileged_userns_clone: Option<u64>,
    apparmor_restrict: Option<u64>,
    max_user_namespaces: Option<u64>,
}

/// What the user can do about a refusal.
fn hint(errno: Errno, settings: &Settings) -> Option<&'static str> {
    if settings.max_user_namespaces == Some(0) {
        return Some("user namespaces are switched off: `sysctl user.max_user_namespaces=15000`");
    }
    if errno == Errno::NOSPC {
        return Some(
            "too many user or network namespaces: raise `user.max_user_namespaces` or `user.max_net_namespaces`",
        );
    }
    if errno == Errno::USERS {
        return Some("user namespaces are nested too deeply");
    }
    if errno == Errno::INVAL {
        return Some("this kernel may lack CONFIG_USER_NS");
    }
    if settings.unprivileged_userns_clone == Some(0) {
        return Some("allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`");
    }
    if settings.apparmor_restrict == Some(1) {
        return Some(
            "AppArmor restricts user namespaces: install stead's profile, or \
             `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        );
    }
    (errno == Errno::PERM || errno == Errno::ACCESS).then_some(
        "user namespaces are not permitted here: in a container, its seccomp profile or missing /proc may be the reason",
    )
}

/// Brings `lo` of the current network namespace up: one message, written by hand because nothing else here
/// needs netlink.
pub(super) fn loopback_up() -> rustix::io::Result<()> {
    // No protocol is protocol 0: NETLINK_ROUTE.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    send(&socket, &loopback_up_message(), SendFlags::empty())?;
    let mut answer = [0; 128];
    recv(&socket, &mut answer, RecvFlags::empty())?;
    // An acknowledgement is an `nlmsgerr` after the 16 bytes of the header: a negative errno, or 0.
    match answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(error.saturating_neg())),
        None => Err(Errno::BADMSG),
    }
}

/// `RTM_NEWLINK` for link 1, which is `lo` in every network namespace: flag `IFF_UP`, changing only that.
fn loopback_up_message() -> [u8; 32] {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_ACK: u16 = 1 | 4;
    let mut message = [0; 32];
    let fields = [
        (0, 32u32.to_ne_bytes().to_vec()),
        (4, RTM_NEWLINK.to_ne_bytes().to_vec()),
        (6, REQUEST_ACK.to_ne_bytes().to_vec()),
        (20, 1i32.to_ne_bytes().to_vec()),
        (24, 1u32.to_ne_bytes().to_vec()),
        (28, 1u32.to_ne_bytes().to_vec()),
    ];
    for (at, bytes) in fields {
        message.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = from);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(errno: Errno, settings: Settings, expected: &str) {
        let text = hint(errno, &settings).unwrap_or("none");
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_refusal_names_the_switch_that_causes_it() {
        let none = Settings::default();
        check(Errno::PERM, Settings { unprivileged_userns_clone: Some(0), ..none }, "userns_clone=1");
        check(Errno::PERM, Settings { apparmor_restrict: Some(1), ..none }, "AppArmor");
        check(Errno::NOSPC, Settings { max_user_namespaces: Some(0), ..none }, "max_user_namespaces=15000");
        check(Errno::NOSPC, Settings { max_user_namespaces: Some(100), ..none }, "raise");
        check(Errno::PERM, none, "seccomp");
        check(Errno::NOMEM, none, "none");
    }
}
