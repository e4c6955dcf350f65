//! What is seen in a machine with a guest: asked of its agent, by its keeper.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use stead_agent::message::{Changed, Process, Usage};
use stead_host::machine::{Answer, Client, Files, Look, Request};

/// What it uses, as its guest counts.
pub(crate) fn usage(files: &Files) -> Result<Usage> {
    let seen: Vec<Usage> = ask(files, Look::Usage)?;
    seen.into_iter().next().context("its agent does not say what it uses")
}

/// Its processes.
pub(crate) fn processes(files: &Files) -> Result<Vec<Process>> {
    ask(files, Look::Processes)
}

/// What it changed of its image.
pub(crate) fn changes(files: &Files) -> Result<Vec<Changed>> {
    ask(files, Look::Changes)
}

fn ask<T: DeserializeOwned>(files: &Files, what: Look) -> Result<Vec<T>> {
    let mut client = Client::connect(files)?.context("it does not run")?;
    match client.ask(&Request::Look(what), Some(LOOK_LIMIT))? {
        Answer::Seen(seen) => serde_json::from_value(seen).context("its agent says what is no answer"),
        Answer::Failed(why) => bail!(why),
        other => bail!("the keeper answered {other:?}"),
    }
}

/// A guest that is translated on a computer with much else to do takes its time, beyond that of its keeper.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
