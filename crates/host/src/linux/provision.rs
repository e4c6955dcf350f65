//! Scripts that are run in machines. Each has a process of its own that runs it and remembers that it has succeeded: so
//! what was begun comes to its end, and is known to have, also when the command that wanted it is killed meanwhile.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use stead_model::name::MachineId;
use stead_model::provision::{Provision, ScriptId};

use super::snapshot::settle;
use crate::history::History;
use crate::home::Home;
use crate::machine::Files;

/// What stead is called with to run a script in a machine.
const WORD: &str = "__provision";

/// What that process is told on its standard input. No secret in it is in a list of processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The machine.
    pub machine: MachineId,
    /// The script.
    pub provision: Provision,
}

/// Runs a script in a machine. What it writes is told meanwhile by the process that runs it.
pub(super) fn run(program: &Path, id: &MachineId, provision: &Provision) -> Result<()> {
    let order = Order { machine: id.clone(), provision: provision.clone() };
    let order = serde_json::to_vec(&order).context("cannot write a script as JSON")?;
    let mut command = Command::new(program);
    command.arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start a process to run it")?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    // Dropped, it is at its end.
    let told = input.context("it has no input")?.write_all(&order).context("cannot tell it what to run");
    let mut why = String::new();
    let heard = output.context("it has no output")?.read_to_string(&mut why).context("cannot hear it");
    let status = child.wait().context("cannot wait for it")?;
    match (status.success(), why.trim_end()) {
        (true, _) => told.and(heard.map(drop)),
        (false, "") => bail!("what ran it ended by itself ({status})"),
        (false, why) => bail!("{why}"),
    }
}

/// Whether a script has been run in a machine as it is.
pub fn provisioned(home: &Home, id: &MachineId, script: &ScriptId) -> Result<bool> {
    Ok(History::load(&Files::new(home, id))?.provisioned.contains(script))
}

/// Remembers that a script was run in the machine that is held, when all that it wrote is on the disk, and forgets those
/// that it was to replace. For one that holds the home.
pub fn remember(home: &Home, held: &File, order: &Order) -> Result<()> {
    let files = Files::new(home, &order.machine);
    anyhow::ensure!(files.are_of(held), "the machine was removed meanwhile");
    let mut history = History::load(&files)?;
    settle(&files)?;
    order.provision.take_place(&mut history.provisioned);
    history.store(&files)
}
