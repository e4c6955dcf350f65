//! A project of ours, brought up by the release binary in a home of its own, as a user would; and an outside for
//! this computer, so that there is a way out to translate to.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kept::kept;
use super::place::{Namespaces, ip, weigh_as_we};
use crate::programs::{output, root};

/// The program that is measured: a copy of what `cargo build --release` made, as whoever installs it has. A linker writes
/// its file page by page, and as long as such pages are what the kernel maps, each start of it takes some 10 ms more.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Result<Self> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let installed = Self(tempfile::tempdir().context("could not make a directory")?);
        fs::copy(target.join("release/stead"), installed.program()).context("could not copy the program")?;
        Ok(installed)
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("stead")
    }
}

/// Namespace `outside0`, where our default route leads, and forwarding switched on. Gone when dropped.
pub(super) struct Outside(#[allow(dead_code)] Namespaces);

impl Outside {
    /// Makes it.
    pub(super) fn new() -> Result<Self> {
        let made = Self(Namespaces::new("outside", 1)?);
        for words in [
            "link add outward type veth peer name eth0 netns outside0",
            "address add 192.0.2.2/24 dev outward",
            "link set outward up",
            "-netns outside0 address add 192.0.2.1/24 dev eth0",
            "-netns outside0 link set eth0 up",
            "route add default via 192.0.2.1",
        ] {
            ip(words)?;
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("could not switch forwarding on")?;
        Ok(made)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Err(error) = ip("link delete outward") {
            eprintln!("warning: {error:#}");
        }
    }
}

/// A project in a directory of its own, which is also where its home is. Taken down when dropped.
pub(super) struct Lab {
    place: tempfile::TempDir,
    is_up: Cell<bool>,
    installed: Rc<Installed>,
    // Last: what is up needs it.
    _outside: Rc<Outside>,
}

impl Lab {
    /// Writes the project file; nothing is up yet.
    pub(super) fn new(file: &str) -> Result<Self> {
        let outside = kept(Outside::new)?;
        let installed = kept(Installed::new)?;
        let place = tempfile::tempdir().context("could not make a directory")?;
        fs::write(place.path().join("stead.yaml"), file).context("could not write the project file")?;
        Ok(Self { place, is_up: Cell::new(false), installed, _outside: outside })
    }

    /// A project that is up.
    pub(super) fn up_with(file: &str) -> Result<Self> {
        let lab = Self::new(file)?;
        lab.up()?;
        Ok(lab)
    }

    /// `stead up`, and how long it took from its start to its end.
    pub(super) fn up(&self) -> Result<Duration> {
        let took = self.up_alone()?;
        weigh_as_we(&self.pid("switchboard")?)?;
        Ok(took)
    }

    /// The same, without a network, so there is no switchboard.
    pub(super) fn up_alone(&self) -> Result<Duration> {
        self.is_up.set(true);
        self.timed("up")
    }

    /// `stead down`, and how long it took.
    pub(super) fn down(&self) -> Result<Duration> {
        let took = self.timed("down")?;
        self.is_up.set(false);
        Ok(took)
    }

    fn timed(&self, word: &str) -> Result<Duration> {
        let mut command = self.stead(&[word]);
        let start = Instant::now();
        output(&mut command)?;
        Ok(start.elapsed())
    }

    /// A command of ours, in the project's directory.
    pub(super) fn stead(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.installed.program());
        command.args(words).current_dir(self.place.path()).stdin(Stdio::null());
        command.env("STEAD_HOME", self.place.path().join("home"));
        command
    }

    /// A program in a machine's namespace, or in the engine's, where the bridges are.
    pub(super) fn within(&self, machine: Option<&str>, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.stead(&["network", "enter"]);
        command.args(machine.map(|name| ["-m", name]).into_iter().flatten());
        command.arg("--").arg(program).args(arguments);
        command
    }

    /// The process of the switchboard or of the anchor.
    pub(super) fn pid(&self, name: &str) -> Result<String> {
        let file = self.place.path().join("home/run").join(format!("{name}.pid"));
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
        Ok(text.split(' ').next().unwrap_or_default().to_owned())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_up.get()
            && let Err(error) = self.down()
        {
            eprintln!("warning: {error:#}");
        }
    }
}

/// A project `bench` with one network `lan`, 10.9.0.0/24, and `count` containers on it: `m0` has 10.9.0.2 and
/// 02:dd:00:00:00:00, and so on. IPv4 alone, as the others do.
pub(super) fn project(count: usize, addressing: &str, ports: &str) -> String {
    let machines = (0..count).map(|index| {
        let (address, mac) = (index + 2, format!("02:dd:00:00:00:{index:02x}"));
        let ports = if index == 0 { ports } else { "" };
        format!("  m{index}: {{ networks: {{ lan: {{ address: 10.9.0.{address}, mac: \"{mac}\" }} }}, ports: [{ports}] }}\n")
    });
    format!(
        "name: bench\n\
         defaults: {{ kind: container, driver: external }}\n\
         networks:\n  lan: {{ subnet: 10.9.0.0/24, subnet6: off, addressing: {addressing} }}\n\
         machines:\n{}",
        machines.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_its_machines_and_the_first_its_ports() {
        let text = project(2, "static", "\"8080:80\"");
        assert!(text.contains("  m0: { networks: { lan: { address: 10.9.0.2, mac: \"02:dd:00:00:00:00\" } }, ports: [\"8080:80\"] }\n"), "{text}");
        assert!(
            text.ends_with(
                "  m1: { networks: { lan: { address: 10.9.0.3, mac: \"02:dd:00:00:00:01\" } }, ports: [] }\n"
            ),
            "{text}"
        );
    }
}
