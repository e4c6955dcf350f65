//! The machine gets another name while it runs.

use std::fs;

use anyhow::{Context, Result, ensure};

use stead_host::machine::{Answer, Files};
use stead_model::name::MachineId;

use super::Keeper;
use super::clients::Client;

impl Keeper {
    /// Takes another name. Nobody but us moves our files: so there is no moment in which they are not where we look.
    pub(super) fn rename(&mut self, place: usize, to: &MachineId) {
        // Whoever asked and has gone may have told somebody that it was not done: the next one asks again.
        if self.clients.get(place).is_none_or(Client::has_hung_up) {
            return;
        }
        let done =
            self.take_name(to).map_or_else(|error| Answer::Failed(format!("{error:#}")), |()| Answer::Done);
        if let Some(client) = self.clients.get_mut(place) {
            client.answer(&done);
        }
    }

    fn take_name(&mut self, to: &MachineId) -> Result<()> {
        ensure!(self.life.can_be_renamed(), "what runs its guest has its files by the name that it has");
        if self.life.id() == to {
            return Ok(());
        }
        let new = self.files.named(to);
        move_all(&self.files, &new)?;
        let old = std::mem::replace(&mut self.files, new);
        self.log.follow(&old, &self.files);
        self.life.take_name(to, &old, &self.files);
        Ok(())
    }
}

/// Moves both directories, or none.
fn move_all(old: &Files, new: &Files) -> Result<()> {
    for taken in [&new.state, &new.run] {
        ensure!(!taken.exists(), "{} is there already", taken.display());
    }
    let doing = |files: &Files| format!("cannot rename {}", files.state.display());
    fs::rename(&old.state, &new.state).with_context(|| doing(old))?;
    let moved =
        fs::rename(&old.run, &new.run).with_context(|| format!("cannot rename {}", old.run.display()));
    if moved.is_err() {
        fs::rename(&new.state, &old.state).with_context(|| doing(new))?;
    }
    moved
}
