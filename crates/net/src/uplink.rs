//! The uplink of an engine without root: `pasta` (of passt), which carries the engine's traffic as sockets of
//! an ordinary process. The engine sees a link `uplink` with this computer's own addresses and routes.
//!
//! What pasta does by itself, seen with the version of Debian 12 (2023-03-09):
//! - It follows the host: without a default route for IPv4 or IPv6 it leaves that protocol out, and without
//!   any it refuses to start. It looks once, at its start, and sees no route that leads several ways and no other
//!   table than the main one: see [`WayOut`].
//! - It terminates TCP, so packets of 65520 bytes on `uplink` do no harm whatever the MTU outside; the
//!   datagrams of UDP are fragmented outside by the host's kernel.
//! - ICMP echo needs the *host's* `net.ipv4.ping_group_range` to hold the user's group, even for root.
//! - It does not end with the namespace when that was given as `/proc/<pid>/ns/net`: [`stop`] it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, geteuid};
use stead_model::name::LinkName;

use crate::process::{self, ProcessId};

/// The name of the link in the engine's namespace, of either kind of uplink.
pub const LINK: &str = "uplink";

/// pasta's log is for finding faults; two files of this size are the most that it keeps.
const LOG_MAX_BYTES: u32 = 64 * 1024;

/// pasta goes to the background when the link is configured: tens of milliseconds.
const START_LIMIT: Duration = Duration::from_secs(10);

/// It has nothing to save.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where pasta is looked for besides `PATH`, which for root may lack nothing and for others often does.
const MORE_PATHS: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// Where pasta is.
pub fn program() -> Option<PathBuf> {
    program_in(&std::env::var_os("PATH").unwrap_or_default(), &MORE_PATHS)
}

fn program_in(path: &OsStr, more: &[&str]) -> Option<PathBuf> {
    let directories = std::env::split_paths(path).chain(more.iter().map(PathBuf::from));
    directories.map(|directory| directory.join("pasta")).find(|program| program.is_file())
}

/// A pasta that serves as uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pasta {
    /// The home's run directory: pasta's pid file and log are in it.
    pub dir: PathBuf,
    /// Whose namespaces it joins.
    pub target: Target,
    /// What it is told of the host's way out; it follows the host's default routes by itself where it can.
    pub way_out: Option<WayOut>,
    /// The largest packet on the link; pasta's own choice, 65520, is best for TCP.
    pub mtu: Option<u16>,
}

/// A way out of the host that pasta does not find by itself: of its default routes it reads those of the main table that
/// lead one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// The host's link.
    pub link: LinkName,
    /// For each protocol an address of the host's on that link, and the router.
    pub ends: Vec<(IpAddr, IpAddr)>,
}

/// The namespaces that pasta joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The user and network namespaces of this process: we are an ordinary user.
    User(ProcessId),
    /// The network namespace of this process, as root. pasta stays root: the `nobody` that it would become
    /// could not write its files into our directory.
    Root(ProcessId),
}

impl Target {
    /// How to join this anchor's namespaces as who we are.
    pub fn of(anchor: ProcessId) -> Self {
        if geteuid().is_root() { Self::Root(anchor) } else { Self::User(anchor) }
    }

    fn process(self) -> ProcessId {
        match self {
            Self::User(process) | Self::Root(process) => process,
        }
    }
}

/// The arguments after `pasta`. Pure.
pub fn pasta_args(pasta: &Pasta) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["--config-net", "--quiet", "--ns-ifname", LINK].map(OsString::from).into();
    // Published ports are ours to serve, and nothing of the host's loopback may be seen inside.
    for ports in ["-t", "-u", "-T", "-U"] {
        args.extend([ports, "none"].map(OsString::from));
    }
    args.extend(["--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra"].map(OsString::from));
    if let Some(WayOut { link, ends }) = &pasta.way_out {
        args.extend(["--interface".into(), link.to_string().into()]);
        for (own, router) in ends {
            args.extend([
                "--address".into(),
                own.to_string().into(),
                "--gateway".into(),
                router.to_string().into(),
            ]);
        }
    }
    if let Some(mtu) = pasta.mtu {
        args.extend(["--mtu".into(), mtu.to_string().into()]);
    }
    args.extend(["--log-size".into(), LOG_MAX_BYTES.to_string().into()]);
    args.extend([
        "--log-file".into(),
        log_file(&pasta.dir).into(),
        "--pid".into(),
        pasta_pid_file(&pasta.dir).into(),
    ]);
    match pasta.target {
        Target::User(ProcessId { pid, .. }) => {
            args.extend(["--userns".into(), format!("/proc/{pid}/ns/user").into()]);
            args.extend(["--netns".into(), format!("/proc/{pid}/ns/net").into()]);
        }
        // Root's pasta gives up CAP_SYS_PTRACE before it opens the namespace, and so may not open
        // `/proc/<pid>/ns/net` of a process with more capabilities: it gets it as standard input.
        Target::Root(_) => {
            args.extend(["--netns-only", "--runas", "0:0", "--netns", "/proc/self/fd/0"].map(OsString::from));
        }
    }
    args
}

/// Starts pasta and waits until the link is configured. What it complains about is in the error.
pub fn start(program: &Path, pasta: &Pasta) -> Result<ProcessId> {
    if let Some(running) = observe(&pasta.dir)? {
        return Ok(running);
    }
    let anchor = pasta.target.process();
    let namespace =
        File::open(format!("/proc/{}/ns/net", anchor.pid)).context("cannot open the engine's namespace")?;
    if !anchor.is_alive()? {
        bail!("the anchor ended");
    }
    // One that nobody wrote down, or one that is on its way, would keep the link's name.
    stop(&pasta.dir)?;
    let stdin = match pasta.target {
        Target::User(_) => Stdio::null(),
        Target::Root(_) => Stdio::from(namespace),
    };
    let mut child = Command::new(program)
        .args(pasta_args(pasta))
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // It outlives the command, and does not keep its directory's disk busy.
        .current_dir("/")
        // Ctrl-C at the command that starts it is not meant for it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{}`", program.display()))?;
    // The process that we started ends when the one in the background is ready.
    let is_over = match ProcessId::observe(child.id())? {
        Some(process) => process.wait_gone(START_LIMIT)?,
        None => true,
    };
    if !is_over {
        child.kill().context("cannot end pasta")?;
        child.wait().context("cannot collect pasta")?;
        bail!("pasta was not ready within {START_LIMIT:?}: {}", complaint(&pasta.dir));
    }
    let status = child.wait().context("cannot collect pasta")?;
    if !status.success() {
        bail!("pasta ended with {status}: {}", complaint(&pasta.dir));
    }
    let text = fs::read_to_string(pasta_pid_file(&pasta.dir)).context("pasta wrote no pid file")?;
    let pid = text.trim().parse().context("pasta wrote no pid")?;
    let running =
        ProcessId::observe(pid)?.with_context(|| format!("pasta ended: {}", complaint(&pasta.dir)))?;
    running.store(&pid_file(&pasta.dir))?;
    Ok(running)
}

/// The pasta that runs for the home with this run directory.
pub fn observe(dir: &Path) -> Result<Option<ProcessId>> {
    match ProcessId::load(&pid_file(dir))? {
        Some(process) if process.is_alive()? => Ok(Some(process)),
        Some(_) | None => Ok(None),
    }
}

/// All pastas of a home, also those whose starter was killed before it wrote down what it started.
fn all(dir: &Path) -> Result<Vec<ProcessId>> {
    let file = pasta_pid_file(dir);
    let is_pasta = |program: &[u8]| {
        // `pasta` executes the variant for this processor, `passt.avx2`, by its own name.
        let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.starts_with(b"pasta") || name.starts_with(b"passt")
    };
    let mut found = process::find(|words| {
        words.first().is_some_and(|program| is_pasta(program)) && words.contains(&file.as_os_str().as_bytes())
    })?;
    found.extend(ProcessId::load(&pid_file(dir))?.filter(|recorded| !found.contains(recorded)));
    Ok(found)
}

/// Ends the pasta of a home and takes its files away; the link goes with it. Nothing to do is no error.
pub fn stop(dir: &Path) -> Result<()> {
    for process in all(dir)? {
        process.kill(Signal::TERM)?;
        if !process.wait_gone(STOP_LIMIT)? {
            process.kill(Signal::KILL)?;
            if !process.wait_gone(STOP_LIMIT)? {
                bail!("pasta (process {}) cannot be ended", process.pid);
            }
        }
    }
    for file in [pid_file(dir), pasta_pid_file(dir), log_file(dir)] {
        remove(&file)?;
    }
    Ok(())
}

/// Ours: pid and start time.
fn pid_file(dir: &Path) -> PathBuf {
    dir.join("uplink.pid")
}

/// pasta's own: the pid alone.
fn pasta_pid_file(dir: &Path) -> PathBuf {
    dir.join("pasta.pid")
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("pasta.log")
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The last error in pasta's log.
fn complaint(dir: &Path) -> String {
    let log = fs::read_to_string(log_file(dir)).unwrap_or_default();
    let mut errors = log.lines().rev().filter_map(|line| line.split_once("ERROR:"));
    errors.next().map_or_else(|| "it gives no reason".to_owned(), |(_, text)| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn pasta_is_found_where_the_path_does_not_lead() {
        let temporary = tempfile::tempdir().unwrap();
        let (first, second) = (temporary.path().join("a"), temporary.path().join("b"));
        [&first, &second].into_iter().for_each(|directory| fs::create_dir(directory).unwrap());
        fs::write(second.join("pasta"), "").unwrap();
        let more = second.to_str().unwrap();
        assert_eq!(program_in(first.as_os_str(), &[more]), Some(second.join("pasta")));
        assert_eq!(program_in(first.as_os_str(), &[]), None);
    }

    #[track_caller]
    fn check(target: Target, mtu: Option<u16>, expected: Expect) {
        check_told(target, None, mtu, expected);
    }

    #[track_caller]
    fn check_told(target: Target, way_out: Option<WayOut>, mtu: Option<u16>, expected: Expect) {
        let args = pasta_args(&Pasta { dir: "/run/stead".into(), target, way_out, mtu });
        let line: Vec<String> = args.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        expected.assert_eq(&line.join(" "));
    }

    #[test]
    fn pasta_forwards_no_port_and_hides_the_hosts_loopback() {
        let anchor = ProcessId { pid: 42, start_time: 7 };
        check(
            Target::User(anchor),
            None,
            expect![
                "--config-net --quiet --ns-ifname uplink -t none -u none -T none -U none --no-map-gw --no-dhcp --no-dhcpv6 --no-ra --log-size 65536 --log-file /run/stead/pasta.log --pid /run/stead/pasta.pid --userns /proc/42/ns/user --netns /proc/42/ns/net"
            ],
        );
        check(
            Target::Root(anchor),
            Some(1400),
            expect![
                "--config-net --quiet --ns-ifname uplink -t none -u none -T none -U none --no-map-gw --no-dhcp --no-dhcpv6 --no-ra --mtu 1400 --log-size 65536 --log-file /run/stead/pasta.log --pid /run/stead/pasta.pid --netns-only --runas 0:0 --netns /proc/self/fd/0"
            ],
        );
    }

    #[test]
    fn pasta_is_told_a_way_out_that_it_does_not_find() {
        let ends = [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")];
        let ends = ends.map(|(own, router)| (own.parse().unwrap(), router.parse().unwrap())).to_vec();
        check_told(
            Target::User(ProcessId { pid: 42, start_time: 7 }),
            Some(WayOut { link: "eth0".parse().unwrap(), ends }),
            None,
            expect![
                "--config-net --quiet --ns-ifname uplink -t none -u none -T none -U none --no-map-gw --no-dhcp --no-dhcpv6 --no-ra --interface eth0 --address 192.0.2.2 --gateway 192.0.2.1 --address 2001:db8::2 --gateway 2001:db8::1 --log-size 65536 --log-file /run/stead/pasta.log --pid /run/stead/pasta.pid --userns /proc/42/ns/user --netns /proc/42/ns/net"
            ],
        );
    }

    #[test]
    fn the_reason_is_the_last_error_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(complaint(dir.path()), "it gives no reason");
        fs::write(log_file(dir.path()), "pasta 1: x (2)\n0.1: ERROR:   no way\n").unwrap();
        assert_eq!(complaint(dir.path()), "no way");
    }
}
