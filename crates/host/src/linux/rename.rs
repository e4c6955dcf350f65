//! A machine under another name. Its directories, its records and all that is called after it change together: what is to
//! be done stands in a note first, and whoever comes after a command that was killed does it to its end.
//!
//! One that runs goes on. Its keeper moves its own files, the anchor calls its namespace otherwise, and its links, which are
//! told apart by what their marks say, get others. So nothing is taken off the wire. Its control group, its processes and the
//! host name inside stay as they are until it is started anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use stead_model::name::{MachineId, NicId};
use stead_model::observed::PortLease;
use stead_model::served::Served;
use stead_net::kernel::{LinkChange, RouteRequest};

use super::engine::namespace_label;
use super::inside::Inside;
use super::machine::load_assignment;
use super::mark::{Mark, NicMark};
use super::{LinuxHost, etc, hosts, served};
use crate::home::{Home, remove_if_there, write_whole};
use crate::journal::{Action, Event, Journal};
use crate::machine::{Answer, Client, Files, Request};
use crate::state::Entry;
use crate::switchboard::find_served;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renaming {
    /// The machine.
    pub from: MachineId,
    /// What it is called then.
    pub to: MachineId,
    /// Whether it runs; else it has no nic on a network.
    #[serde(default)]
    pub runs: bool,
    /// Files of the project that name it, with their new text.
    pub files: Vec<(PathBuf, String)>,
}

/// The same, for whoever does it to its end.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    renaming: Renaming,
    /// What is in the project's files until then.
    #[serde(default)]
    before: BTreeMap<PathBuf, String>,
    /// Whether it is on record and in the project's files by its new name.
    #[serde(default)]
    is_recorded: bool,
}

/// What else can be done about one that cannot be renamed while it runs.
const HINT: &str = "`stead stop` it first, and `stead start` it by its new name";

/// The kernel closes what a process had before the process is gone.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

fn note(home: &Home) -> PathBuf {
    home.state.join("renaming.json")
}

fn write_note(home: &Home, text: &Note) -> Result<()> {
    write_whole(&note(home), &serde_json::to_vec(text).context("cannot write a note as JSON")?)
}

impl LinuxHost {
    /// Gives a machine another name.
    pub fn rename(&mut self, renaming: &Renaming) -> Result<()> {
        // One that was cut off and cannot be done to its end is not to be forgotten.
        self.finish_renaming()?;
        self.make_way(&renaming.to)?;
        if renaming.runs {
            self.ensure_renamable(&renaming.from)?;
        }
        let read = |(path, _): &(PathBuf, String)| Some((path.clone(), fs::read_to_string(path).ok()?));
        let before = renaming.files.iter().filter_map(read).collect();
        write_note(&self.home, &Note { renaming: renaming.clone(), before, is_recorded: false })?;
        self.finish_renaming()
    }

    /// Has nothing where the files of a machine of this name are to be.
    fn make_way(&self, to: &MachineId) -> Result<()> {
        let new = Files::new(&self.home, to);
        if new.fleeting().exists() {
            // The power went before its record was on the disk.
            super::tree::delete(&self.program, &new.state)?;
        }
        let path = new.state.display();
        ensure!(
            !new.state.exists(),
            "{path} is left of a machine that is on no record; hint: choose another name, or delete it"
        );
        Ok(())
    }

    /// Tries whether those who have a machine that runs by its name can take another: they may be of an earlier stead.
    fn ensure_renamable(&mut self, id: &MachineId) -> Result<()> {
        ask_keeper(&Files::new(&self.home, id), id)
            .with_context(|| format!("the keeper of `{id}` takes no other name; hint: {HINT}"))?;
        let label = namespace_label(id)?;
        let Some(inside) = self.inside_if_there()? else { return Ok(()) };
        if !inside.anchor.list()?.contains(&label) {
            return Ok(());
        }
        let tried = inside.anchor.relabel(&label, &label);
        if tried.is_err() {
            // It has closed the connection.
            self.inside = None;
        }
        tried.with_context(|| {
            format!(
                "the engine was started by a stead that gave machines that run no other name; hint: {HINT}"
            )
        })
    }

    fn inside_if_there(&mut self) -> Result<Option<&mut Inside>> {
        if self.inside.is_none() && self.home.run.exists() {
            self.inside = Inside::connect(&self.home.run)?;
        }
        Ok(self.inside.as_mut())
    }

    /// Does what a note says that is there; nothing if there is none.
    pub(super) fn finish_renaming(&mut self) -> Result<()> {
        let path = note(&self.home);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut note: Note =
            serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
        if !note.is_recorded && !self.move_and_record(&note)? {
            return remove_if_there(&path);
        }
        // From here on another machine may be called as it was.
        note.is_recorded = true;
        write_note(&self.home, &note)?;
        self.carry_on(&note.renaming)?;
        remove_if_there(&path)?;
        let Renaming { from, to, .. } = &note.renaming;
        Journal::new(&self.home).note(&Event::of_machine(to, Action::Rename).with("from", from));
        Ok(())
    }

    /// Moves its files, and has records and the project's files name it so; false if it was removed meanwhile.
    fn move_and_record(&mut self, note: &Note) -> Result<bool> {
        let renaming = &note.renaming;
        let (old, new) = (Files::new(&self.home, &renaming.from), Files::new(&self.home, &renaming.to));
        let is_there = old.state.exists() || new.state.exists();
        if !is_there && !self.records()?.machines.contains_key(&renaming.from) {
            return Ok(false);
        }
        if let Err(error) = move_files(&old, &new, &renaming.to) {
            if old.state.exists() && !new.state.exists() {
                // It is as if nobody had asked, and the project's files may change until somebody asks again.
                remove_if_there(&self::note(&self.home))?;
            }
            return Err(error);
        }
        // Under a name that it had before it would be known as what it was then.
        if new.instance().exists() {
            super::vm::renew(&new)?;
        }
        self.record_renaming(&renaming.from, &renaming.to)?;
        for (path, text) in &renaming.files {
            let now = fs::read_to_string(path).ok();
            let is_known = |before: &String| now.as_ref() == Some(before) || now.as_ref() == Some(text);
            if note.before.get(path).is_none_or(is_known) {
                write_whole(path, text.as_bytes())?;
            } else {
                tracing::warn!(
                    "{} was changed before it named `{}`; it stays as it is",
                    path.display(),
                    renaming.to
                );
            }
        }
        Ok(true)
    }

    /// What is left to be done when it is on record by its new name.
    fn carry_on(&mut self, renaming: &Renaming) -> Result<()> {
        let Renaming { from, to, runs, .. } = renaming;
        if self.records()?.machines.contains_key(from) {
            // What is called as it was is the other's by now, and what is amiss the next plan mends.
            return if *runs { self.reassign(from, to) } else { Ok(()) };
        }
        if *runs {
            self.rename_on_the_wire(from, to)?;
            self.reassign(from, to)
        } else {
            self.drop_old_namespace(from)
        }
    }

    fn drop_old_namespace(&mut self, id: &MachineId) -> Result<()> {
        let label = namespace_label(id)?;
        let Some(inside) = self.inside_if_there()? else { return Ok(()) };
        if inside.anchor.list()?.contains(&label) {
            inside.anchor.drop_namespace(&label)?;
        }
        Ok(())
    }

    /// Its namespace, its nics and what is served of it. The links keep their names: those of a machine that is called as it
    /// was are others.
    fn rename_on_the_wire(&mut self, from: &MachineId, to: &MachineId) -> Result<()> {
        let Some(inside) = self.inside_if_there()? else { return Ok(()) };
        let (old, new) = (namespace_label(from)?, namespace_label(to)?);
        let labels = inside.anchor.list()?;
        if labels.contains(&old) && !labels.contains(&new) {
            inside.anchor.relabel(&old, &new)?;
        }
        let mut changes = Vec::new();
        for link in inside.route.own_links()? {
            let Some(Mark::Nic(mark)) = Mark::parse(&link.alias) else { continue };
            if mark.id.machine() == *from {
                let mark = NicMark { id: nic_of(to, &mark.id), ..mark };
                let alias = Some(Mark::Nic(mark).to_string());
                changes
                    .push(RouteRequest::ChangeLink(link.name, LinkChange { alias, ..LinkChange::default() }));
            }
        }
        inside.route.run(&changes).context("cannot mark its nics")?;
        match find_served(&self.home) {
            Some(_) => served::forget(self, |served| serve_as(served, from, to)),
            None => Ok(()),
        }
    }

    /// What its keeper starts it by again, and what it knows of itself.
    fn reassign(&mut self, from: &MachineId, to: &MachineId) -> Result<()> {
        let (old, new) = (Files::new(&self.home, from), Files::new(&self.home, to));
        let Some(mut assignment) = load_assignment(&new) else { return Ok(()) };
        assignment.take_name(&old, (&new, to));
        etc::assign(&new.assignment(), &assignment)?;
        let records = self.records()?;
        hosts::know(&self.home, &records, to)
    }

    /// One transaction for all records that name it.
    fn record_renaming(&mut self, from: &MachineId, to: &MachineId) -> Result<()> {
        let records = self.records()?;
        let Some(state) = records.machines.get(from) else { return Ok(()) };
        let mut entries = vec![Entry::NoMachine(from.clone()), Entry::Machine(to.clone(), state.clone())];
        for (nic, lease) in records.leases.iter().filter(|(nic, _)| nic.machine() == *from) {
            entries.push(Entry::NoLease(nic.clone()));
            entries.push(Entry::Lease(nic_of(to, nic), lease.clone()));
        }
        for (bind, lease) in records.port_leases.iter().filter(|(_, lease)| lease.machine == *from) {
            let lease = PortLease { machine: to.clone(), ..lease.clone() };
            entries.push(Entry::PortLease(*bind, lease));
        }
        self.store(&entries)
    }
}

/// The nic of the same network that a machine of another name has.
fn nic_of(machine: &MachineId, nic: &NicId) -> NicId {
    NicId::new(machine, &nic.network())
}

/// Moves the files of a machine; by its keeper, if that lives.
fn move_files(old: &Files, new: &Files, to: &MachineId) -> Result<()> {
    let with_keeper = if new.run.join("keeper.pid").exists() && !old.run.exists() { new } else { old };
    if !new.state.exists() && new.run.exists() && new.keeper()?.is_none() {
        // What a machine left that was called so.
        fs::remove_dir_all(&new.run).with_context(|| format!("cannot delete {}", new.run.display()))?;
    }
    ask_keeper(with_keeper, to)?;
    for (old, new) in [(&old.state, &new.state), (&old.run, &new.run)] {
        if old.exists() && !new.exists() {
            fs::rename(old, new).with_context(|| format!("cannot rename {}", old.display()))?;
        }
    }
    Ok(())
}

/// Has the keeper of a machine take this name, if there is one.
fn ask_keeper(files: &Files, to: &MachineId) -> Result<()> {
    let keeper = files.keeper()?;
    let Some(mut client) = Client::connect(files)? else { return Ok(()) };
    match client.ask(&Request::Rename { to: to.clone() }, Some(Duration::ZERO)) {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Failed(why)) => bail!("{why}"),
        Ok(other) => bail!("the keeper answered {other:?}"),
        // It ended just now, with its machine or killed: what it did not do is ours.
        Err(_) if keeper.is_none_or(|keeper| keeper.wait_gone(ENDS_WITHIN).unwrap_or(false)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is served of a machine, by its other name.
fn serve_as(served: &mut Served, from: &MachineId, to: &MachineId) {
    let hosts = served
        .networks
        .iter_mut()
        .flat_map(|(id, network)| network.hosts.values_mut().map(move |host| (id, host)));
    for (_, host) in hosts.filter(|(id, host)| host.machine(id) == *from) {
        host.name = to.name.clone();
        host.aliases.retain(|alias| alias.as_str() != to.name.as_str());
    }
    for target in served.ports.values_mut().filter(|target| target.machine == *from) {
        target.machine = to.clone();
    }
}
