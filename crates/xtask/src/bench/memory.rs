//! How much memory the two processes that stay have resident while nothing happens.

use std::fs;

use anyhow::{Context, Result};

use super::lab::{Lab, project};
use super::place::wait_for;
use super::{Comparison, Side, Unit};

const PROMISED: Side = Side { name: "the promise", measure: || Ok(8.0) };

/// The switchboard with one network, one machine and one published port.
pub(super) const SWITCHBOARD: Comparison = Comparison {
    name: "memory-switchboard",
    first: Side { name: "switchboard", measure: || resident(&one_network(), "switchboard") },
    second: PROMISED,
    unit: Unit::Mebibytes,
    target: Some(1.0),
};

/// With 50 networks, DHCP and DNS on each.
pub(super) const SWITCHBOARD_50: Comparison = Comparison {
    name: "memory-50-networks",
    first: Side { name: "switchboard", measure: || resident(&fifty_networks(), "switchboard") },
    second: PROMISED,
    unit: Unit::Mebibytes,
    target: None,
};

/// The anchor with one network.
pub(super) const ANCHOR: Comparison = Comparison {
    name: "memory-anchor",
    first: Side { name: "anchor", measure: || resident(&one_network(), "anchor") },
    second: PROMISED,
    unit: Unit::Mebibytes,
    target: None,
};

fn one_network() -> String {
    project(1, "managed", "\"8080:80\"")
}

fn fifty_networks() -> String {
    let networks = (0..50).map(|index| format!("  n{index}: {{ subnet: 10.9.{index}.0/24 }}\n"));
    format!("name: bench\nnetworks:\n{}", networks.collect::<String>())
}

/// Mebibytes resident, the program's own pages from its file among them.
fn resident(file: &str, process: &str) -> Result<f64> {
    let lab = Lab::up_with(file)?;
    resident_of(&lab.pid(process)?)
}

/// The same of any process, as soon as it is idle.
pub(super) fn resident_of(pid: &str) -> Result<f64> {
    // Idle is who no longer gives way to others by itself.
    let sleeps =
        || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains("(sleeping)"));
    wait_for("the process to be idle", sleeps)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("could not read its status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has no memory")?;
    let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib / 1024.0)
}
