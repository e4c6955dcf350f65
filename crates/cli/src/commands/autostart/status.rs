//! `autostart status`: whether machines start with the computer, and which.

use std::path::Path;

use serde::Serialize;

use stead_model::autostart::Verdict;
use stead_model::container::Restart;
use stead_model::name::MachineId;

use super::decided;
use super::systemd::{Found, Place, has_systemd};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::session::look;

#[derive(Serialize)]
struct Status<'a> {
    /// Whether systemd runs this computer.
    systemd: bool,
    /// Where the unit is, or would be.
    unit: &'a Path,
    found: Found,
    enabled: bool,
    /// Whether it is what this program would write now.
    current: bool,
    /// Whether the user's systemd runs without anybody being logged in; absent for root, whose is the system's.
    linger: Option<bool>,
    machines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    machine: String,
    restart: String,
    starts: bool,
    why: Verdict,
}

/// `status`.
pub(super) fn status(output: Output) -> Result<(), Failure> {
    let place = Place::new()?;
    let seen = look()?.observe()?;
    let line = |(id, restart, why): (MachineId, Restart, Verdict)| Line {
        machine: id.to_string(),
        restart: restart.to_string(),
        starts: why == Verdict::Starts,
        why,
    };
    let status = Status {
        systemd: has_systemd(),
        unit: &place.path,
        found: place.found()?,
        enabled: place.is_enabled(),
        current: place.is_current(),
        linger: stead_container::lingers().filter(|_| !place.unit.is_systems),
        machines: decided(&seen, &place.home).into_iter().map(line).collect(),
    };
    output.data(&status, || text(&status)).map_err(Failure::from)
}

fn text(status: &Status<'_>) -> String {
    let unit = match (status.found, status.enabled) {
        (Found::Absent, _) => "there is none: `stead autostart enable` writes it",
        (Found::Written, true) if !status.current => {
            "enabled, but another stead's, or of another place: `stead autostart enable` writes it anew"
        }
        (Found::Written, true) => "enabled",
        (Found::Written, false) => "not enabled: `stead autostart enable` does it",
        (Found::Changed, true) => "enabled; somebody changed it",
        (Found::Changed, false) => "not enabled; somebody changed it",
    };
    let mut text = format!("unit {}: {unit}\n", status.unit.display());
    if !status.systemd {
        text += "systemd does not run this computer: its own init is to run `stead autostart start`\n";
    }
    text += match status.linger {
        Some(true) => "lingering is on: they start without anybody being logged in\n",
        Some(false) => {
            "lingering is off: they start when you log in; `loginctl enable-linger` changes that\n"
        }
        None => "",
    };
    let row = |line: &Line| vec![line.machine.clone(), line.restart.clone(), words(line.why).to_owned()];
    let rows: Vec<Vec<String>> = status.machines.iter().map(row).collect();
    text + &table(&["MACHINE", "RESTART", "WITH THE COMPUTER"], &rows)
}

fn words(why: Verdict) -> &'static str {
    match why {
        Verdict::Starts => "starts",
        Verdict::Policy => "stays: its policy is not `always` or `unless-stopped`",
        Verdict::Stopped => "stays: somebody stopped it",
        Verdict::New => "stays: it never ran",
    }
}
