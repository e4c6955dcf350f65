//! The files of a machine that is to be like another. They are laid out of sight and become the machine's at one blow,
//! after it is on record: killed before, the command leaves what the next one takes away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use stead_model::name::{MachineId, Name};

use super::snapshot::{copy_file, copy_variables, is_empty};
use super::{LinuxHost, tree};
use crate::held::Held;
use crate::history::{History, Layer};
use crate::home::Home;
use crate::machine::Files;

/// Files that wait for their machine.
#[derive(Debug)]
pub(super) struct Prepared {
    id: MachineId,
    directory: PathBuf,
}

/// What a clone is to have the files of.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The machine.
    pub machine: &'a MachineId,
    /// A snapshot of it, or what it has now.
    pub snapshot: Option<&'a Name>,
    /// The machine as it is held, if it runs and this is about what it has now.
    pub held: Option<Held>,
}

/// Takes away what commands left that were killed.
pub(super) fn tidy(home: &Home, program: &Path) -> Result<()> {
    tree::delete(program, &home.clones())
}

/// Lets a machine go on that has to have been held until now.
fn released(held: Option<Held>) -> Result<()> {
    if !held.map_or(Ok(true), Held::release)? {
        bail!("it did not stand still meanwhile; hint: try again");
    }
    Ok(())
}

/// Has a file that nobody writes any more by another name; a copy of it where it cannot have one: on another file system,
/// on one without such names, or where it has all that it can have.
fn share(from: &Path, to: &Path) -> Result<()> {
    let Err(error) = fs::hard_link(from, to) else { return Ok(()) };
    match Errno::from_io_error(&error) {
        Some(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            copy_file(from, to)
        }
        _ => {
            let doing = || format!("cannot give {} the name {}", from.display(), to.display());
            Err(error).with_context(doing)
        }
    }
}

impl LinuxHost {
    /// Makes the files of a machine that is to be like another; they are its own when the machine is made. Gives how many
    /// secrets of the other were left out.
    pub fn prepare_clone(&mut self, id: &MachineId, origin: Origin<'_>) -> Result<u64> {
        let place = Files::new(&self.home, id).state;
        if place.exists() {
            bail!("{} is in the way, of a machine that is not on record", place.display());
        }
        let directory = self.home.clones().join(id.to_string());
        let laid = self.lay_clone(&directory, origin);
        if laid.is_err() {
            // Why it could not be done matters more.
            let _left = tidy(&self.home, &self.program);
        }
        let secrets = laid?;
        self.prepared = Some(Prepared { id: id.clone(), directory });
        Ok(secrets)
    }

    /// Copies a layer that a machine writes, which is held and then let go on; gives the copy, which goes with what else is
    /// prepared.
    pub fn copy_held(&mut self, id: &MachineId, upper: &Path, held: Held) -> Result<PathBuf> {
        let copy = self.home.clones().join(format!("held-{id}"));
        let copied = fs::create_dir_all(&copy)
            .with_context(|| format!("cannot make {}", copy.display()))
            .and_then(|()| tree::copy(&self.program, upper, &copy))
            .and_then(|()| released(Some(held)));
        if copied.is_err() {
            // Why it could not be done matters more.
            let _left = tidy(&self.home, &self.program);
        }
        copied.map(|()| copy)
    }

    /// Takes them away again, if there are any that no machine has.
    pub fn drop_prepared(&mut self) -> Result<()> {
        self.prepared = None;
        tidy(&self.home, &self.program)
    }

    fn lay_clone(&self, directory: &Path, origin: Origin<'_>) -> Result<u64> {
        let source = Files::new(&self.home, origin.machine);
        let clone = Files { state: directory.to_owned(), run: PathBuf::new() };
        for directory in [clone.root(), clone.own_volumes(), clone.log(), clone.present()] {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let layers = self.copy_layers(&source, &clone, origin.snapshot)?;
        released(origin.held)?;
        let secrets = layers.iter().map(|layer| tree::renew(&self.program, layer)).sum::<Result<u64>>()?;
        let doing = || format!("cannot write {}", directory.display());
        let opened = File::open(directory).with_context(doing)?;
        rustix::fs::syncfs(&opened).with_context(doing)?;
        Ok(secrets)
    }

    /// Copies what the source is made of. What is written no more is shared: the same files have one more name each.
    fn copy_layers(&self, source: &Files, clone: &Files, snapshot: Option<&Name>) -> Result<Vec<PathBuf>> {
        let history = History::load(source)?;
        let (below, top, provisioned) = match snapshot {
            Some(name) => {
                let snapshot = history.snapshots.get(name);
                let snapshot = snapshot.with_context(|| format!("it has no snapshot `{name}`"))?;
                let (top, below) = match snapshot.layers.split_last() {
                    Some((top, below)) if snapshot.is_whole => (Some(*top), below),
                    _ => (None, snapshot.layers.as_slice()),
                };
                (below.to_vec(), top, snapshot.provisioned.clone())
            }
            None => {
                let present = history.present;
                (present.below, Some(present.written), history.provisioned)
            }
        };
        let new = Layer::new(clone, 0);
        new.make()?;
        let remembers = top.or(below.last().copied());
        remembers.map_or(Ok(()), |layer| copy_variables(&Layer::new(source, layer), &new))?;
        let mut laid = Vec::new();
        if let Some(top) = top.map(|number| Layer::new(source, number)) {
            if top.disk().exists() {
                copy_file(&top.disk(), &new.disk())?;
            } else if top.qcow2().exists() {
                copy_file(&top.qcow2(), &new.qcow2())?;
            } else {
                let (from, to) = if top.is_flat() {
                    fs::create_dir(new.flat()).context("cannot make a directory for what it wrote")?;
                    (top.flat(), new.flat())
                } else {
                    (top.upper(), new.upper())
                };
                if !is_empty(&from)? {
                    tree::copy(&self.program, &from, &to)?;
                }
                laid.push(to);
            }
        }
        let mut copies = History::upon(below.len());
        copies.provisioned = provisioned;
        for (number, copy) in below.iter().zip(&copies.present.below) {
            let (layer, copy) = (Layer::new(source, *number), Layer::new(clone, *copy));
            fs::create_dir_all(copy.upper())
                .with_context(|| format!("cannot make {}", copy.upper().display()))?;
            if layer.qcow2().exists() {
                share(&layer.qcow2(), &copy.qcow2())?;
                copy_variables(&layer, &copy)?;
            } else {
                tree::link(&self.program, &layer.upper(), &copy.upper())?;
                laid.push(copy.upper());
            }
        }
        if copies != History::default() {
            copies.store(clone)?;
        }
        Ok(laid)
    }

    /// The files of a machine that is made now, where they wait for it.
    pub(super) fn prepared_files(&self, id: &MachineId) -> Option<Files> {
        let prepared = self.prepared.as_ref().filter(|prepared| prepared.id == *id)?;
        Some(Files { state: prepared.directory.clone(), run: PathBuf::new() })
    }

    /// Whether there are any.
    pub(super) fn is_prepared(&self, id: &MachineId) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| prepared.id == *id)
    }

    /// Gives a machine that is on record the files that wait for it.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        let Some(Prepared { id, directory }) = self.prepared.take() else { return Ok(()) };
        let files = Files::new(&self.home, &id);
        let doing = || format!("cannot make {}", files.state.display());
        fs::create_dir_all(self.home.machines()).with_context(doing)?;
        fs::rename(&directory, &files.state).with_context(doing)?;
        // Empty, or the next command's to take away.
        let _not_empty = fs::remove_dir(self.home.clones());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::history::Label;

    #[test]
    fn a_vm_has_layers_of_its_source_by_more_names_and_a_copy_of_what_that_writes() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home { state: temporary.path().join("state"), run: temporary.path().join("run") };
        let [source, clone]: [MachineId; 2] = ["db.shop", "copy.default"].map(|name| name.parse().unwrap());
        let mut host = LinuxHost::open(home.clone(), "/nonexistent".into()).unwrap();
        let files = Files::new(&home, &source);
        let write = |layer: &Layer, text: &str| {
            layer.make().unwrap();
            fs::write(layer.qcow2(), text).unwrap();
            fs::write(layer.variables(), text).unwrap();
        };
        write(&Layer::new(&files, 0), "below");
        let label = Label { name: "a".parse().unwrap(), description: String::new(), at_ms: 1 };
        host.take_snapshot(&source, &label, None).unwrap();
        write(&files.own().unwrap().written, "written");
        let laid = |host: &mut LinuxHost, snapshot: Option<&Name>| {
            host.prepare_clone(&clone, Origin { machine: &source, snapshot, held: None }).unwrap();
            host.hand_over().unwrap();
            let own = Files::new(&home, &clone).own().unwrap();
            assert_eq!(own.below.len(), 1);
            let inode = |layer: &Layer| fs::metadata(layer.qcow2()).unwrap().ino();
            assert_eq!(inode(&own.below[0]), inode(&Layer::new(&files, 0)));
            let read = |path: PathBuf| fs::read_to_string(path).ok();
            let has = (read(own.written.qcow2()), read(own.written.variables()));
            fs::remove_dir_all(Files::new(&home, &clone).state).unwrap();
            has
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(laid(&mut host, None), (text("written"), text("written")));
        // From a snapshot its own layer is made at its first start; its firmware remembers what it did then.
        assert_eq!(laid(&mut host, Some(&label.name)), (None, text("below")));
    }

    #[test]
    fn a_file_is_copied_only_where_it_cannot_have_another_name() {
        let temporary = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| temporary.path().join(name));
        fs::write(&from, "text").unwrap();
        fs::write(&to, "another").unwrap();
        let told = format!("{:#}", share(&from, &to).unwrap_err());
        assert!(told.starts_with("cannot give ") && told.contains("File exists"), "{told}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "another");
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap().keep();
        share(&from, &elsewhere.join("to")).unwrap();
        assert_eq!(fs::read_to_string(elsewhere.join("to")).unwrap(), "text");
        fs::remove_dir_all(elsewhere).unwrap();
    }
}
