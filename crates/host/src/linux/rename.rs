//! A machine under another name. Its directory, its records and the files that name it change together: what is to be
//! done stands in a note first, and whoever comes after a command that was killed does it to its end.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_model::name::{MachineId, NicId};
use stead_model::observed::PortLease;

use super::LinuxHost;
use super::engine::namespace_label;
use crate::home::{Home, remove_if_there, write_whole};
use crate::journal::{Action, Event, Journal};
use crate::machine::Files;
use crate::state::Entry;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renaming {
    /// The machine, which does not run and has no nic on a network.
    pub from: MachineId,
    /// What it is called then.
    pub to: MachineId,
    /// Files of the project that name it, with their new text.
    pub files: Vec<(PathBuf, String)>,
}

fn note(home: &Home) -> PathBuf {
    home.state.join("renaming.json")
}

impl LinuxHost {
    /// Gives a machine another name.
    pub fn rename(&mut self, renaming: &Renaming) -> Result<()> {
        let text = serde_json::to_vec(renaming).context("cannot write a note as JSON")?;
        write_whole(&note(&self.home), &text)?;
        self.finish_renaming()
    }

    /// Does what a note says that is there; nothing if there is none.
    pub(super) fn finish_renaming(&mut self) -> Result<()> {
        let path = note(&self.home);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let renaming: Renaming =
            serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
        let Renaming { from, to, files } = &renaming;
        self.drop_old_namespace(from)?;
        let (old, new) = (Files::new(&self.home, from), Files::new(&self.home, to));
        for (old, new) in [(&old.state, &new.state), (&old.run, &new.run)] {
            if old.exists() && !new.exists() {
                fs::rename(old, new).with_context(|| format!("cannot rename {}", old.display()))?;
            }
        }
        // Under a name that it had before it would be known as what it was then.
        if new.instance().exists() {
            super::vm::renew(&new)?;
        }
        self.record_renaming(from, to)?;
        for (path, text) in files {
            write_whole(path, text.as_bytes())?;
        }
        remove_if_there(&path)?;
        Journal::new(&self.home).note(&Event::of_machine(to, Action::Rename).with("from", from));
        Ok(())
    }

    fn drop_old_namespace(&mut self, id: &MachineId) -> Result<()> {
        let label = namespace_label(id)?;
        if self.inside.is_none() && self.home.run.exists() {
            self.inside = super::inside::Inside::connect(&self.home.run)?;
        }
        let Some(inside) = &mut self.inside else { return Ok(()) };
        if inside.anchor.list()?.contains(&label) {
            inside.anchor.drop_namespace(&label)?;
        }
        Ok(())
    }

    /// One transaction for all records that name it.
    fn record_renaming(&mut self, from: &MachineId, to: &MachineId) -> Result<()> {
        let records = self.records()?;
        let Some(state) = records.machines.get(from) else { return Ok(()) };
        let mut entries = vec![Entry::NoMachine(from.clone()), Entry::Machine(to.clone(), state.clone())];
        for (nic, lease) in records.leases.iter().filter(|(nic, _)| nic.machine() == *from) {
            entries.push(Entry::NoLease(nic.clone()));
            entries.push(Entry::Lease(
                NicId { machine: to.name.clone(), network: nic.network.clone(), project: to.project.clone() },
                lease.clone(),
            ));
        }
        for (bind, lease) in records.port_leases.iter().filter(|(_, lease)| lease.machine == *from) {
            let lease = PortLease { machine: to.clone(), ..lease.clone() };
            entries.push(Entry::PortLease(*bind, lease));
        }
        self.store(&entries)
    }
}
