//! Runs a program in network, mount and process namespaces of its own.
//!
//! ```text
//! cargo xtask ─▶ __enter (leaves the namespaces) ─▶ __init (process 1: mounts, `lo`, reaps, looks for what is left)
//!                                                     └─▶ [__drop] ─▶ program
//! ```
//!
//! Each stage is this program again with one thread, because only then may it leave a user namespace. When
//! process 1 ends the kernel kills everything else in there, so nothing outlives a run however it ends. A program
//! has `/run`, `/var/lib/stead`, `$HOME` and `$TMPDIR` of its own; the file system is otherwise the computer's.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, getegid, geteuid, set_parent_process_death_signal, wait};
use rustix::thread::UnshareFlags;

use crate::Outcome;
use crate::leftovers::{self, Seen};
use crate::programs::{output, root};
use crate::sys;

/// The first stage's word on the command line.
pub(crate) const STAGE_ENTER: &str = "__enter";
/// The second's.
pub(crate) const STAGE_INIT: &str = "__init";
/// The third's.
pub(crate) const STAGE_DROP: &str = "__drop";

/// The exit code if the program ended well and left something behind.
pub(crate) const LEFTOVERS: u8 = 70;

/// Where root's own `stead` keeps its state.
const STATE: &str = "/var/lib/stead";

/// An id that nobody has (Debian gives people 1000 to 59999) for the ordinary user when we are root.
pub(crate) const ORDINARY_ID: u32 = 64_321;

/// Who the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Root: the computer's if we are, otherwise one that is root only in there.
    Root,
    /// Somebody without any rights over the namespaces it is in.
    User,
}

impl Role {
    /// The word for it, also in `STEAD_TEST_AS`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        match text {
            "root" => Ok(Self::Root),
            "user" => Ok(Self::User),
            _ => bail!("no role `{text}`"),
        }
    }
}

/// A command that runs what is added to its arguments in namespaces of its own. `scratch` is an empty directory.
pub(crate) fn command(role: Role, scratch: &Path) -> Result<Command> {
    // What started us may be replaced by a build meanwhile; this link leads to the very file.
    let mut command = Command::new("/proc/self/exe");
    command.arg(STAGE_ENTER).arg(role.name()).arg(scratch).current_dir(root());
    // These default to places below `$HOME`, which will be another.
    let home = PathBuf::from(std::env::var_os("HOME").context("`HOME` is not set")?);
    for (variable, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if std::env::var_os(variable).is_none() {
            command.env(variable, home.join(directory));
        }
    }
    for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "STEAD_HOME"] {
        command.env_remove(variable);
    }
    command
        .env("HOME", scratch.join("home"))
        .env("TMPDIR", scratch.join("tmp"))
        .env("XDG_RUNTIME_DIR", scratch.join("run"))
        .env("CARGO_NET_OFFLINE", "true")
        .env("STEAD_TEST_AS", role.name());
    Ok(command)
}

/// A directory for one run, short enough for the paths of unix sockets in it, and open to the ordinary user.
pub(crate) fn scratch() -> Result<tempfile::TempDir> {
    let scratch =
        tempfile::Builder::new().prefix("xt").tempdir_in("/tmp").context("could not make a directory")?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    Ok(scratch)
}

/// What all stages are told.
struct Call<'a> {
    role: Role,
    scratch: &'a Path,
    /// Of whoever called: once mapped it cannot be asked for.
    uid: u32,
    gid: u32,
    program: &'a str,
    arguments: &'a [String],
}

/// `__enter ROLE SCRATCH PROGRAM ARGUMENT…`
pub(crate) fn enter(rest: &[String]) -> Result<Outcome> {
    let [role, scratch, program @ ..] = rest else { bail!("`{STAGE_ENTER}` lacks arguments") };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWPID;
    if !uid.is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    sys::unshare(flags).context("could not leave this computer's namespaces")?;
    if !uid.is_root() {
        map_ids((0, uid.as_raw()), (0, gid.as_raw()))?;
    }
    let status = Command::new("/proc/self/exe")
        .args([STAGE_INIT, role, scratch, &uid.to_string(), &gid.to_string()])
        .args(program)
        .status()
        .context("could not start process 1")?;
    Ok(Outcome::Code(code(status)))
}

/// `__init ROLE SCRATCH UID GID PROGRAM ARGUMENT…`
pub(crate) fn init(rest: &[String]) -> Result<Outcome> {
    let call = Call::parse(rest)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    mounts(&call)?;
    output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    scratch_directories(&call)?;
    let before = Seen::now(call.scratch)?;
    let child = call.command().spawn().with_context(|| format!("could not start `{}`", call.program))?;
    let ended = reap_until(child.id())?;
    let left = leftovers::after(&before, call.scratch)?;
    left.iter().for_each(|thing| eprintln!("left behind: {thing}"));
    Ok(Outcome::Code(match code(ended) {
        0 if !left.is_empty() => LEFTOVERS,
        code => code,
    }))
}

/// `__drop UID GID PROGRAM ARGUMENT…`: from the only id of a user namespace to an ordinary one, which takes
/// another user namespace. The rights that come with it end with the exec.
pub(crate) fn drop_rights(rest: &[String]) -> Result<Outcome> {
    let [uid, gid, program, arguments @ ..] = rest else { bail!("`{STAGE_DROP}` lacks arguments") };
    sys::unshare(UnshareFlags::NEWUSER).context("could not enter a second user namespace")?;
    map_ids((uid.parse()?, 0), (gid.parse()?, 0))?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("could not start `{program}`"))
}

impl<'a> Call<'a> {
    fn parse(rest: &'a [String]) -> Result<Self> {
        let [role, scratch, uid, gid, program, arguments @ ..] = rest else {
            bail!("`{STAGE_INIT}` lacks arguments")
        };
        let role = Role::parse(role)?;
        let scratch = Path::new(scratch);
        Ok(Self { role, scratch, uid: uid.parse()?, gid: gid.parse()?, program, arguments })
    }

    fn is_real_root(&self) -> bool {
        self.uid == 0
    }

    /// As whom files must be made for the program, seen from process 1.
    fn owner(&self) -> u32 {
        if self.role == Role::User && self.is_real_root() { ORDINARY_ID } else { 0 }
    }

    fn command(&self) -> Command {
        if self.role == Role::User && !self.is_real_root() {
            let mut command = Command::new("/proc/self/exe");
            command.args([STAGE_DROP, &self.uid.to_string(), &self.gid.to_string(), self.program]);
            command.args(self.arguments);
            return command;
        }
        let mut command = Command::new(self.program);
        command.args(self.arguments);
        if self.role == Role::User {
            // With this, std also gives up all other groups.
            command.uid(ORDINARY_ID).gid(ORDINARY_ID);
        }
        command
    }
}

/// Maps one id each: (inside, outside).
fn map_ids(uid: (u32, u32), gid: (u32, u32)) -> Result<()> {
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{} {} 1", uid.0, uid.1)),
        ("gid_map", format!("{} {} 1", gid.0, gid.1)),
    ] {
        fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("could not write {file}"))?;
    }
    Ok(())
}

fn mounts(call: &Call<'_>) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("could not make the mounts private")?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", plain | MountFlags::NOEXEC, None).context("could not mount /proc")?;
    mount("run", "/run", "tmpfs", plain, Some(c"mode=755")).context("could not mount /run")?;
    // What somebody really runs on this computer is not for tests to see.
    if fs::exists(STATE)? {
        mount("state", STATE, "tmpfs", plain, Some(c"mode=755"))
            .with_context(|| format!("could not cover {STATE}"))?;
    }
    if !call.is_real_root() {
        return Ok(());
    }
    tun_for_all()?;
    if call.role == Role::User {
        reachable(&root())?;
        known_user(call.scratch)?;
    }
    Ok(())
}

/// Some computers keep `/dev/net/tun` to root, others give it to all as Debian does: here all may have it.
fn tun_for_all() -> Result<()> {
    const TUN: &str = "/dev/net/tun";
    fs::create_dir_all("/dev/net").context("could not make /dev/net")?;
    mount("tun", "/dev/net", "tmpfs", MountFlags::NOSUID, Some(c"mode=755"))?;
    rustix::fs::mknodat(CWD, TUN, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(10, 200))
        .context("could not make a tun device")?;
    fs::set_permissions(TUN, fs::Permissions::from_mode(0o666))?;
    Ok(())
}

/// Lets everybody walk to `directory`, were it below a home that only its owner may enter: the first such
/// directory is covered by an empty one, which holds nothing but the way.
fn reachable(directory: &Path) -> Result<()> {
    let ancestors: Vec<&Path> = directory.ancestors().collect();
    let closed =
        |path: &&&Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 == 0);
    let Some(closed) = ancestors.iter().rev().find(closed) else { return Ok(()) };
    if *closed == directory {
        bail!("{} must be open to others (mode 0755)", directory.display());
    }
    let held = fs::File::open(directory)?;
    mount("way", *closed, "tmpfs", MountFlags::NOSUID, Some(c"mode=755"))?;
    fs::create_dir_all(directory)?;
    mount_bind_recursive(format!("/proc/self/fd/{}", held.as_raw_fd()), directory)
        .with_context(|| format!("could not open the way to {}", directory.display()))
}

/// Gives the ordinary user a name and sub-ids, as Debian gives everybody.
fn known_user(scratch: &Path) -> Result<()> {
    for (file, line) in [
        (
            "passwd",
            format!("stead-test:x:{ORDINARY_ID}:{ORDINARY_ID}::{}:/bin/sh\n", scratch.join("home").display()),
        ),
        ("group", format!("stead-test:x:{ORDINARY_ID}:\n")),
        ("subuid", "stead-test:2000000:65536\n".to_owned()),
        ("subgid", "stead-test:2000000:65536\n".to_owned()),
    ] {
        let target = Path::new("/etc").join(file);
        let Ok(mut text) = fs::read_to_string(&target) else { continue };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&line);
        let changed = Path::new("/run").join(format!("etc-{file}"));
        fs::write(&changed, text)?;
        rustix::mount::mount_bind(&changed, &target)
            .with_context(|| format!("could not cover /etc/{file}"))?;
    }
    Ok(())
}

fn scratch_directories(call: &Call<'_>) -> Result<()> {
    for name in leftovers::SCRATCH {
        let directory = call.scratch.join(name);
        // Like /tmp, one of them can be walked through: a user within may have directories in there.
        let mode = if name == "tmp" { 0o755 } else { 0o700 };
        fs::DirBuilder::new().mode(mode).create(&directory)?;
        chown(&directory, Some(call.owner()), Some(call.owner()))?;
    }
    Ok(())
}

/// Waits for `child`, and as process 1 for whatever else ends before it.
fn reap_until(child: u32) -> Result<ExitStatus> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty()).context("could not wait")? else { continue };
        if u32::try_from(Pid::as_raw(Some(pid))) == Ok(child) {
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}

/// As a shell tells it: a signal is 128 and its number.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
