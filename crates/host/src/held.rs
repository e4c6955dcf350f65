//! A machine that is held still while what it wrote is copied.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use stead_model::name::MachineId;

use crate::home::Home;
use crate::machine::{Answer, Client, Files, Look, Phase, Request, status};

/// A guest may have much to write, and a busy disk.
const WRITE_LIMIT: Duration = Duration::from_secs(120);

/// Its agent lets file systems go on after 20 seconds, if it is not held by then.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(15);

/// A VMM that is to stand still finishes what its disk is asked for.
const HOLD_LIMIT: Duration = Duration::from_secs(30);

/// A machine that is held still for as long as this lasts. If the one who holds it is killed, it goes on.
#[derive(Debug)]
pub struct Held {
    client: Client,
    /// When its run was begun.
    started_ms: u64,
}

impl Held {
    /// Holds it, with all that was written in a guest on its disk, and its file systems in order.
    pub fn take(home: &Home, id: &MachineId) -> Result<Self> {
        let files = Files::new(home, id);
        let status = status(home, id)?.context("it does not run any more; hint: try again")?;
        let is_guest = is_guest(&files)?;
        if is_guest && status.phase == Phase::Paused {
            bail!(
                "it is paused, so its guest cannot write what it has in memory; hint: `stead unpause` it first"
            );
        }
        if is_guest {
            write_out(&files, Look::StandsStill, "`stead stop` it first")?;
        }
        let stood_still = Instant::now();
        let mut client = connect(&files)?;
        match client.ask(&Request::Hold, Some(HOLD_LIMIT))? {
            Answer::Done if is_guest && stood_still.elapsed() > STANDSTILL_LIMIT => {
                bail!("it could not be held in time; hint: try again when this computer has less to do")
            }
            Answer::Done => Ok(Self { client, started_ms: status.started_ms }),
            Answer::Failed(why) => bail!("it runs, and cannot be held: {why}; hint: `stead stop` it first"),
            other => bail!("the keeper answered {other:?}"),
        }
    }

    /// Lets it go on: whether it was held until now.
    pub fn release(mut self) -> Result<bool> {
        let Ok(Answer::Status(status)) = self.client.ask(&Request::Status, Some(Duration::ZERO)) else {
            return Ok(false);
        };
        Ok(status.phase == Phase::Paused && status.started_ms == self.started_ms)
    }
}

/// Whether what a machine writes is on a disk of its own, and some of it in the memory of its guest.
pub fn is_guest(files: &Files) -> Result<bool> {
    let written = files.own()?.written;
    Ok(written.disk().exists() || written.qcow2().exists())
}

/// Has on its disk what was written in a guest, which goes on writing ([`Look::Written`]) or does not
/// ([`Look::StandsStill`]). The hint is what to do where it cannot.
pub fn write_out(files: &Files, look: Look, hint: &str) -> Result<()> {
    match connect(files)?.ask(&Request::Look(look), Some(WRITE_LIMIT))? {
        Answer::Seen(_) => Ok(()),
        Answer::Failed(why) => {
            let why = why.split_once("; hint: ").map_or(why.as_str(), |(why, _)| why);
            bail!("its guest cannot write what it has in memory: {why}; hint: {hint}")
        }
        other => bail!("the keeper answered {other:?}"),
    }
}

fn connect(files: &Files) -> Result<Client> {
    Client::connect(files)?.context("it does not run any more; hint: try again")
}
