//! What starts a home's machines with the computer: the unit of systemd that does, by its name, and the mark by which that unit
//! begins and ends without any machine being started or ended.

use std::path::PathBuf;

use anyhow::Result;

use stead_net::process::ProcessId;

use crate::home::{Environment, Home};

/// The unit of a home, which has its mark in its name unless it is where homes are.
pub fn unit_name(environment: &Environment, home: &Home) -> String {
    let default = environment.home.as_ref().map(|home| home.join(".local/share"));
    let is_usual =
        environment.uid == 0 || environment.data_home.is_none() || environment.data_home == default;
    if environment.stead_home.is_none() && is_usual {
        return "stead-autostart.service".to_owned();
    }
    format!("stead-autostart-{}.service", crate::linux::new_home_id(&home.state))
}

/// Names the process that begins or ends the unit for its own sake. Whoever enables it may have another directory for what goes
/// with the computer than the unit.
pub fn quiet_mark(home: &Home) -> PathBuf {
    home.state.join("autostart-quiet")
}

/// Whether the unit is just begun or ended so: all machines stay as they are.
pub fn is_quiet(home: &Home) -> Result<bool> {
    ProcessId::load(&quiet_mark(home))?.map_or(Ok(false), ProcessId::is_alive)
}
