//! Containers: one that runs `true` and goes, a program in one that runs, a project of twenty, and what looks after
//! one that is idle.
//!
//! `podman run` and ours make an overlayfs, a network with a way out, a log and a record; `runc run` makes none of
//! these, so ours is also measured with `--network none`, which is as near as it gets. Everybody's network stands
//! already, as it does for whoever ran something before.

use std::fs;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::kept::kept;
use super::lab::Lab;
use super::memory::resident_of;
use super::peers::{IMAGE, Podman, Runc, Tree};
use super::place::wait_for;
use super::{Comparison, Side, Unit, median};
use crate::programs::output;

const RUN: Side = Side { name: "stead run", measure: || ours(&["run", "--rm", IMAGE, "true"]) };

/// With the network that everybody gets.
pub(super) const RUN_AGAINST_RUNC: Comparison = Comparison {
    name: "run-runc",
    first: RUN,
    second: Side { name: "runc run", measure: runc },
    unit: Unit::Seconds,
    target: Some(1.0 / 1.6),
};

/// Without, as runc.
pub(super) const RUN_ALONE_AGAINST_RUNC: Comparison = Comparison {
    name: "run-none-runc",
    first: Side {
        name: "stead run --network none",
        measure: || ours(&["run", "--rm", "--network", "none", IMAGE, "true"]),
    },
    second: Side { name: "runc run", measure: runc },
    unit: Unit::Seconds,
    target: Some(1.0 / 1.6),
};

/// What people use.
pub(super) const RUN_AGAINST_PODMAN: Comparison = Comparison {
    name: "run-podman",
    first: RUN,
    second: Side { name: "podman run", measure: || podman(&["run", "--rm", IMAGE, "true"]) },
    unit: Unit::Seconds,
    target: Some(3.0),
};

/// A program in a container that runs.
pub(super) const EXEC: Comparison = Comparison {
    name: "exec-podman",
    first: Side { name: "stead exec", measure: || ours(&["exec", IDLE, "true"]) },
    second: Side { name: "podman exec", measure: || podman(&["exec", IDLE, "true"]) },
    unit: Unit::Seconds,
    target: Some(3.0),
};

/// Twenty containers on a network, up and down.
pub(super) const PROJECT: Comparison = Comparison {
    name: "project-compose",
    first: Side { name: "stead up, down", measure: our_project },
    second: Side { name: "podman-compose", measure: their_project },
    unit: Unit::Seconds,
    target: Some(4.0),
};

/// What looks after one container.
pub(super) const KEEPER: Comparison = Comparison {
    name: "memory-keeper",
    first: Side { name: "keeper", measure: keeper },
    second: Side { name: "the promise", measure: || Ok(3.0) },
    unit: Unit::Mebibytes,
    target: Some(1.0),
};

/// What looks after one that is asked now and then how well it is, between two such tests.
pub(super) const KEEPER_WITH_TESTS: Comparison = Comparison {
    name: "memory-keeper-health",
    first: Side { name: "keeper with tests", measure: keeper_with_tests },
    second: Side { name: "the promise", measure: || Ok(3.0) },
    unit: Unit::Mebibytes,
    target: Some(1.0),
};

/// The same beside what Podman has for it.
pub(super) const KEEPER_AGAINST_CONMON: Comparison = Comparison {
    name: "memory-conmon",
    first: Side { name: "keeper", measure: keeper },
    second: Side { name: "conmon", measure: conmon },
    unit: Unit::Mebibytes,
    target: None,
};

/// Commands take so little time that one is no measurement: the median of so many is.
const REPEATS: usize = 7;

/// The container that runs all the time.
const IDLE: &str = "idle";

/// How many are in the project.
const COUNT: usize = 20;

/// Our home with the image, the network and an idle container.
struct Ours(Lab);

impl Ours {
    fn kept() -> Result<Rc<Self>> {
        let tree = Tree::kept()?;
        kept(|| {
            let ours = Self(Lab::new("name: bench\n")?);
            output(ours.0.stead(&["image", "import"]).arg(tree.archive()).arg(IMAGE))?;
            output(&mut ours.0.stead(&["run", "--detach", "--name", IDLE, IMAGE, "sleep", "100000"]))?;
            Ok(ours)
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Err(error) = output(&mut self.0.stead(&["purge", "--yes"])) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Podman with the image, its network and an idle container.
struct Theirs(Rc<Podman>);

impl Theirs {
    fn kept() -> Result<Rc<Self>> {
        let podman = Podman::kept()?;
        kept(|| {
            output(&mut podman.command("podman", &["run", "-d", "--name", IDLE, IMAGE, "sleep", "100000"]))?;
            Ok(Self(podman))
        })
    }
}

/// The median of several runs of a command.
fn seconds(mut command: impl FnMut() -> Command) -> Result<f64> {
    let mut all = Vec::new();
    for _ in 0..REPEATS {
        let mut command = command();
        let start = Instant::now();
        output(&mut command)?;
        all.push(start.elapsed().as_secs_f64());
    }
    Ok(median(all))
}

fn ours(words: &[&str]) -> Result<f64> {
    let ours = Ours::kept()?;
    seconds(|| ours.0.stead(words))
}

fn podman(words: &[&str]) -> Result<f64> {
    let theirs = Theirs::kept()?;
    seconds(|| theirs.0.command("podman", words))
}

fn runc() -> Result<f64> {
    let runc = Runc::kept()?;
    seconds(|| runc.command())
}

/// The project as both read it.
fn compose(head: &str, machines: &str) -> String {
    let machine = |index| {
        format!(
            "  m{index}: {{ image: {IMAGE}, command: sleep 100000, stop_grace_period: 0s, networks: [lan] }}\n"
        )
    };
    format!("{head}networks:\n  lan: {{}}\n{machines}:\n{}", (0..COUNT).map(machine).collect::<String>())
}

/// Seconds for `up` and `down` in a home that has the image and no engine.
fn our_project() -> Result<f64> {
    let tree = Tree::kept()?;
    let lab = Lab::new(&compose("name: bench\ndefaults: { kind: container }\n", "machines"))?;
    output(lab.stead(&["image", "import"]).arg(tree.archive()).arg(IMAGE))?;
    let up = lab.up()?;
    let running = output(&mut lab.stead(&["ps", "--quiet", "--filter", "status=running"]))?.lines().count();
    anyhow::ensure!(running == COUNT, "{running} of {COUNT} run");
    Ok((up + lab.down()?).as_secs_f64())
}

/// The same with podman-compose. It has no stop_grace_period, but a word on its command line.
fn their_project() -> Result<f64> {
    let podman = Podman::kept()?;
    let directory = podman.path().join("bench");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("compose.yaml"), compose("", "services"))?;
    let timed = |words: &[&str]| -> Result<f64> {
        let mut command = podman.command("podman-compose", words);
        command.current_dir(&directory);
        let start = Instant::now();
        output(&mut command)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let up = timed(&["up", "--detach"])?;
    let running = output(&mut podman.command("podman", &["ps", "--quiet"]))?.lines().count();
    anyhow::ensure!(running == COUNT, "{running} of {COUNT} run");
    let down = timed(&["down", "--timeout", "0"])?;
    // It leaves its network behind, which ours takes away.
    output(&mut podman.command("podman", &["network", "rm", "bench_lan"]))?;
    Ok(up + down)
}

fn keeper() -> Result<f64> {
    let ours = Ours::kept()?;
    resident_of(&ours.0.pid(&format!("machines/{IDLE}.default/keeper"))?)
}

fn keeper_with_tests() -> Result<f64> {
    const NAME: &str = "tested";
    let ours = Ours::kept()?;
    let check = ["--health-cmd", "true", "--health-interval", "2s"];
    let run = ["run", "--detach", "--name", NAME].into_iter().chain(check);
    output(&mut ours.0.stead(&run.chain([IMAGE, "sleep", "100000"]).collect::<Vec<_>>()))?;
    let healthy = ["ps", "--all", "--quiet", "--filter", "health=healthy"];
    wait_for("a container to be healthy", || {
        output(&mut ours.0.stead(&healthy)).is_ok_and(|ids| !ids.is_empty())
    })?;
    let resident = resident_of(&ours.0.pid(&format!("machines/{NAME}.default/keeper"))?);
    output(&mut ours.0.stead(&["rm", "--force", NAME]))?;
    resident
}

fn conmon() -> Result<f64> {
    let theirs = Theirs::kept()?;
    let file = output(&mut theirs.0.command("podman", &["inspect", "--format", "{{.ConmonPidFile}}", IDLE]))?;
    let pid = fs::read_to_string(file.trim()).context("there is no conmon")?;
    resident_of(pid.trim())
}
