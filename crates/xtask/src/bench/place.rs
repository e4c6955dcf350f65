//! Where comparisons take place: named namespaces, servers that end with their owner, waits with a limit.

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

/// Namespace `NAME0`, joined by a bridge's port to ours, which has 10.7.0.1 where that has 10.7.0.2.
pub(super) struct Neighbour {
    namespaces: Namespaces,
    bridge: String,
}

/// Our address.
pub(super) const OURS: &str = "10.7.0.1";
/// The neighbour's.
pub(super) const THEIRS: &str = "10.7.0.2";

impl Neighbour {
    /// Makes it.
    pub(super) fn new(name: &str) -> Result<Self> {
        let made = Self { namespaces: Namespaces::new(name, 1)?, bridge: format!("{name}-br") };
        let (bridge, there) = (&made.bridge, format!("{name}0"));
        for words in [
            format!("link add {bridge} type bridge"),
            format!("address add {OURS}/24 dev {bridge}"),
            format!("link add {name}-port type veth peer name eth0 netns {there}"),
            format!("link set {name}-port master {bridge} up"),
            format!("link set {bridge} up"),
            format!("-netns {there} address add {THEIRS}/24 dev eth0"),
            format!("-netns {there} link set eth0 up"),
            format!("-netns {there} link set lo up"),
        ] {
            ip(&words)?;
        }
        Ok(made)
    }

    /// What is run in there: a program and its arguments are to be added.
    pub(super) fn within(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec"]).args(self.namespaces.0.first());
        command
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("link delete {}", self.bridge)) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// A running server, stopped when dropped.
pub(super) struct Server(Child);

impl Server {
    /// Starts it, quietly.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let line = crate::programs::shown(&command);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("could not start `{line}`"))?))
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
