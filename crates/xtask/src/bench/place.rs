//! Where comparisons take place: named namespaces, servers that end with their owner, waits with a limit.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::programs::output;

/// A server that is not there by then does not start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// `ip` with its words separated by spaces.
pub(super) fn ip(words: &str) -> Result<()> {
    output(Command::new("ip").args(words.split(' '))).map(drop)
}

/// Waits until the kernel has taken apart what was let go of. It does so in order, after the command that let go
/// has ended: when the last namespace's links are gone, those of all before it are.
pub(super) fn settle() -> Result<()> {
    let last = Namespaces::new("settle", 1)?;
    ip("link add settling type veth peer name eth0 netns settle0")?;
    drop(last);
    wait_for("the kernel to take namespaces apart", || !has_link("settling"))
}

/// Named network namespaces, gone when dropped.
pub(super) struct Namespaces(pub(super) Vec<String>);

impl Namespaces {
    /// As many as asked for: `prefix0`, `prefix1`…
    pub(super) fn new(prefix: &str, count: usize) -> Result<Self> {
        let mut made = Self(Vec::new());
        for index in 0..count {
            let name = format!("{prefix}{index}");
            ip(&format!("netns add {name}"))?;
            made.0.push(name);
        }
        Ok(made)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = ip(&format!("netns delete {name}")) {
                eprintln!("warning: {error:#}");
            }
        }
    }
}

/// A running server, stopped when dropped.
pub(super) struct Server(Child);

impl Server {
    /// Starts it, quietly, and as our switchboard is: in a session of its own.
    pub(super) fn start(command: &Command) -> Result<Self> {
        let line = crate::programs::shown(command);
        let mut started = Command::new("setsid");
        started.arg(command.get_program()).args(command.get_args());
        started.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        started.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        started.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = started.spawn().with_context(|| format!("could not start `{line}`"))?;
        let server = Self(child);
        wait_for("a session", || weigh_as_we(&server.0.id().to_string()).is_ok())?;
        Ok(server)
    }
}

/// The kernel shares the processors among sessions first, by their weight (`sched(7)`, autogroups). Gives a
/// process's session the weight of ours, so that who measures while others work can go before them with all.
pub(super) fn weigh_as_we(pid: &str) -> Result<()> {
    let group = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/autogroup"));
    let Ok(ours) = group("self") else { return Ok(()) };
    let theirs = group(pid).context("there is no such process")?;
    let (ours, theirs) = (ours.split_once(" nice "), theirs.split_once(" nice "));
    match (ours, theirs) {
        (Some((our, nice)), Some((their, _))) if our != their => {
            std::fs::write(format!("/proc/{pid}/autogroup"), nice).context("could not weigh a session")
        }
        // Without autogroups there is nothing to weigh; in our own session it is still on its way out.
        (Some(_), Some(_)) => bail!("it has no session of its own yet"),
        _ => Ok(()),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this namespace has such a link.
fn has_link(name: &str) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    table.lines().filter_map(|line| line.split_once(':')).any(|(link, _)| link.trim() == name)
}

/// Tries until it works.
pub(super) fn wait_for(what: &str, works: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !works() {
        if start.elapsed() > START_LIMIT {
            bail!("waited {} s for {what}", START_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
