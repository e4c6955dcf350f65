//! Machines that ran and have no keeper any more who could say how they ended: it was killed, or the computer went off.
//! The kernel ends a container with its keeper, so the machine was killed as well. Whoever changes the home next, or
//! looks for what happens, writes that down.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use stead_model::name::MachineId;
use stead_model::observed::{Body, MachineState};

use crate::home::{Home, write_run_file};
use crate::journal::{Action, Event, Journal};
use crate::machine::{Exit, Files};

/// What a shell says of a program that was killed.
const KILLED: u8 = 128 + 9;

const WHY: &str = "its keeper was killed, or the computer went off";

/// Writes down the ends that nobody has. For the one that changes the home now.
pub(super) fn note(home: &Home, machines: &BTreeMap<MachineId, MachineState>) -> Result<()> {
    for (id, _) in machines.iter().filter(|(_, state)| state.body != Body::External) {
        let files = Files::new(home, id);
        if files.exit().exists() || !files.assignment().exists() || has_keeper(&files)? {
            continue;
        }
        let exit = Exit {
            code: KILLED,
            at_ms: ms(SystemTime::now()),
            started_ms: modified(&files.assignment()),
            asked: files.stopping().exists(),
            with_computer: false,
            out_of_memory: false,
            restarts: 0,
            lost: true,
            why: Some(WHY.to_owned()),
        };
        let text = serde_json::to_vec(&exit).context("cannot write how a machine ended as JSON")?;
        write_run_file(&files.exit(), &text)?;
        let event = Event::of_machine(id, Action::Die).with("exit_code", KILLED);
        Journal::new(home).note(&event.with("why", WHY));
    }
    Ok(())
}

/// Whether one looks after the machine, or is just about to: it has its lock from the first moment on.
fn has_keeper(files: &Files) -> Result<bool> {
    if files.keeper()?.is_some() {
        return Ok(true);
    }
    Ok(File::open(files.lock()).is_ok_and(|lock| lock.try_lock_shared().is_err()))
}

fn modified(path: &Path) -> u64 {
    path.metadata().and_then(|metadata| metadata.modified()).map_or(0, ms)
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
