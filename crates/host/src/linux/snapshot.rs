//! Snapshots of machines, and the way back. Whatever is copied is copied beside, and is nobody's until the machine's
//! history says what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};

use stead_container::{copy_data, reflink};
use stead_model::name::{MachineId, Name};
use stead_model::provision::ScriptId;

use super::{LinuxHost, going, tree};
use crate::held::Held;
use crate::history::{History, LAYERS_MAX, Label, Layer, Snapshot};
use crate::home::Home;
use crate::journal::{Action, Event, Journal};
use crate::machine::Files;
use crate::many;

/// The way back of a machine: its layer is made, and nothing has happened yet.
#[derive(Debug)]
pub struct Return {
    id: MachineId,
    history: History,
}

/// What the histories of machines say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Histories {
    /// The snapshots of those that have any.
    pub(super) snapshots: BTreeMap<MachineId, BTreeSet<Name>>,
    /// The scripts that were run in those in which any were.
    pub(super) provisioned: BTreeMap<MachineId, BTreeSet<ScriptId>>,
    /// Those of which it cannot be read.
    pub(super) damaged: BTreeSet<MachineId>,
}

/// The names of machines' snapshots, and the scripts that were run in them. A history that cannot be read is told by
/// whoever needs it.
pub(super) fn observe<'a>(home: &Home, machines: impl Iterator<Item = &'a MachineId>) -> Histories {
    let mut histories = Histories::default();
    let Histories { snapshots, provisioned, damaged } = &mut histories;
    let ids: Vec<&MachineId> = machines.collect();
    let loaded = many::each(&ids, |id| History::load(&Files::new(home, id)));
    for (id, history) in ids.into_iter().zip(loaded) {
        let history = match history {
            Ok(history) => history,
            Err(error) => {
                tracing::debug!("machine `{id}`: {error:#}");
                damaged.insert(id.clone());
                continue;
            }
        };
        let names: BTreeSet<Name> = history.snapshots.into_keys().collect();
        snapshots.extend((!names.is_empty()).then(|| (id.clone(), names)));
        let scripts = history.provisioned;
        provisioned.extend((!scripts.is_empty()).then(|| (id.clone(), scripts)));
    }
    histories
}

/// Takes layers away that nobody names: of snapshots that were forgotten, and of commands that were killed.
pub(super) fn tidy(home: &Home, program: &Path) -> Result<()> {
    let entries = fs::read_dir(home.machines()).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<MachineId>().ok());
    let mut is_any = false;
    for id in ids {
        let files = Files::new(home, &id);
        if files.layers().exists() {
            // One that cannot be read keeps its layers, and no other from being tidied.
            let dropped = History::load(&files).and_then(|history| drop_unused(home, program, &id, &history));
            match dropped {
                Ok(dropped) => is_any |= dropped,
                Err(error) => tracing::warn!("machine `{id}`: {error:#}"),
            }
        }
    }
    if is_any { going::tidy(home, program) } else { Ok(()) }
}

/// Takes them out of sight; whether there were any.
fn drop_unused(home: &Home, program: &Path, id: &MachineId, history: &History) -> Result<bool> {
    let files = Files::new(home, id);
    let used = history.used();
    let mut gone = Vec::new();
    for entry in fs::read_dir(files.layers()).into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        gone.extend(number.filter(|number| !used.contains(number)).map(|_| entry.path()));
    }
    if !used.contains(&0) {
        // Where it is: what has the image's own mode may be nothing that its owner can move.
        let first = Layer::new(&files, 0);
        for path in [first.upper(), first.work(), first.flat()] {
            if path.exists() {
                tree::delete(program, &path)?;
            }
        }
        for path in [first.disk(), first.qcow2(), first.variables()] {
            crate::home::remove_if_there(&path)?;
        }
    }
    for path in &gone {
        going::send(home, path, &id.to_string())?;
    }
    Ok(!gone.is_empty())
}

impl LinuxHost {
    /// Takes a snapshot of a machine that does not run, or is held, which it then is no more.
    pub fn take_snapshot(&mut self, id: &MachineId, label: &Label, held: Option<Held>) -> Result<()> {
        let files = Files::new(&self.home, id);
        let history = History::load(&files)?;
        // One more than these would be one too many below what is written after the way back.
        let is_high = history.present.below.len() + 1 >= LAYERS_MAX;
        let written = Layer::new(&files, history.present.written);
        let new = Layer::new(&files, history.next());
        let after = if written.disk().exists() {
            make(new.path())?;
            self.laid(id, copy_file(&written.disk(), &new.disk()))?;
            history.copied(label, true)
        } else if written.is_flat() {
            make(&new.flat())?;
            self.laid(id, tree::copy(&self.program, &written.flat(), &new.flat()))?;
            history.copied(label, true)
        } else if !written.qcow2().exists() && is_empty(&written.upper())? {
            history.unchanged(label)
        } else if held.is_some() || is_high {
            self.laid(id, self.copy_written(&written, &new))?;
            history.copied(label, false)
        } else {
            // The firmware of a vm goes on with what it remembered.
            self.laid(id, new.make().and_then(|()| copy_variables(&written, &new)))?;
            history.frozen(label)
        };
        let was_still = held.map_or(Ok(true), Held::release);
        let stored = was_still.and_then(|was_still| {
            anyhow::ensure!(was_still, "it did not stand still meanwhile; hint: try again");
            settle(&files)?;
            after.store(&files)
        });
        self.laid(id, stored)?;
        let event = Event::of_machine(id, Action::Snapshot).with("snapshot", &label.name);
        Journal::new(&self.home).note(&event);
        Ok(())
    }

    fn copy_written(&self, written: &Layer, new: &Layer) -> Result<()> {
        if !written.qcow2().exists() {
            make(&new.upper())?;
            return tree::copy(&self.program, &written.upper(), &new.upper());
        }
        make(new.path())?;
        copy_file(&written.qcow2(), &new.qcow2())?;
        copy_variables(written, new)
    }

    /// What was begun goes if it cannot be brought to its end.
    fn laid(&self, id: &MachineId, done: Result<()>) -> Result<()> {
        if done.is_err() {
            let history = History::load(&Files::new(&self.home, id))?;
            drop_unused(&self.home, &self.program, id, &history)?;
            going::tidy(&self.home, &self.program)?;
        }
        done
    }

    /// Makes ready what a machine is to go back to: a snapshot, or its image. It may run meanwhile.
    pub fn prepare_return(&mut self, id: &MachineId, to: Option<&Name>) -> Result<Return> {
        let files = Files::new(&self.home, id);
        let history = History::load(&files)?;
        let new = Layer::new(&files, history.next());
        let snapshot = to.and_then(|name| history.snapshots.get(name));
        let made = new.make().and_then(|()| match snapshot {
            Some(snapshot) if snapshot.is_whole => self.copy_whole(&files, snapshot, &new),
            Some(Snapshot { layers, .. }) => match layers.last() {
                Some(top) => copy_variables(&Layer::new(&files, *top), &new),
                None => Ok(()),
            },
            None => Ok(()),
        });
        self.laid(id, made)?;
        Ok(Return { id: id.clone(), history: history.gone_back(to) })
    }

    fn copy_whole(&self, files: &Files, snapshot: &Snapshot, new: &Layer) -> Result<()> {
        let layer = snapshot.layers.last().context("a snapshot has no layer")?;
        let layer = Layer::new(files, *layer);
        if layer.disk().exists() {
            return copy_file(&layer.disk(), &new.disk());
        }
        make(&new.flat())?;
        tree::copy(&self.program, &layer.flat(), &new.flat())
    }

    /// Goes back. The machine does not run.
    pub fn go_back(&mut self, way: Return) -> Result<()> {
        let Return { id, history } = way;
        let files = Files::new(&self.home, &id);
        let stored = settle(&files).and_then(|()| history.store(&files));
        self.laid(&id, stored)?;
        let event = Event::of_machine(&id, Action::Restore);
        let to = history.on.as_ref().map(ToString::to_string);
        Journal::new(&self.home).note(&to.map_or(event.clone(), |name| event.with("snapshot", name)));
        // It has gone back, whatever becomes of what it left.
        let tidied = drop_unused(&self.home, &self.program, &id, &history);
        if let Err(error) = tidied.and_then(|_| going::tidy(&self.home, &self.program)) {
            tracing::warn!("machine `{id}`: {error:#}");
        }
        Ok(())
    }

    /// Forgets a snapshot; what others need of it stays.
    pub fn forget_snapshot(&mut self, id: &MachineId, name: &Name) -> Result<()> {
        let files = Files::new(&self.home, id);
        let history = History::load(&files)?.without(name);
        history.store(&files)?;
        drop_unused(&self.home, &self.program, id, &history)?;
        going::tidy(&self.home, &self.program)
    }

    /// What these layers of a machine take.
    pub fn layer_bytes(&self, id: &MachineId, numbers: &[u64]) -> Result<u64> {
        let files = Files::new(&self.home, id);
        let layers = numbers.iter().map(|number| Layer::new(&files, *number));
        let paths = layers
            .flat_map(|layer| [layer.upper(), layer.flat(), layer.disk(), layer.qcow2(), layer.variables()]);
        paths.map(|path| tree::measure(&self.program, &path)).sum()
    }
}

/// Has on the disk what was copied, before the machine's history says that it is there.
pub(super) fn settle(files: &Files) -> Result<()> {
    let directory =
        File::open(&files.state).with_context(|| format!("cannot open {}", files.state.display()))?;
    rustix::fs::syncfs(&directory).with_context(|| format!("cannot write {}", files.state.display()))
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

pub(super) fn is_empty(path: &Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Copies a disk, of which most is nothing: as a reflink where the file system has them, else what is in it.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("cannot copy {} to {}", from.display(), to.display());
    let source = File::open(from).with_context(doing)?;
    let target = File::create(to).with_context(doing)?;
    if reflink(source.as_fd(), target.as_fd()).with_context(doing)? {
        return Ok(());
    }
    copy_data(source.as_fd(), target.as_fd()).with_context(doing)
}

/// Copies what the firmware of a vm remembers, if it is one that does.
pub(super) fn copy_variables(from: &Layer, to: &Layer) -> Result<()> {
    if from.variables().exists() { copy_file(&from.variables(), &to.variables()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use super::*;

    fn host() -> (tempfile::TempDir, LinuxHost, MachineId, Files) {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home { state: temporary.path().join("state"), run: temporary.path().join("run") };
        let id: MachineId = "web.shop".parse().unwrap();
        let files = Files::new(&home, &id);
        Layer::new(&files, 0).make().unwrap();
        (temporary, LinuxHost::open(home, "/nonexistent".into()).unwrap(), id, files)
    }

    fn label(name: &str) -> Label {
        Label { name: name.parse().unwrap(), description: String::new(), at_ms: 1 }
    }

    fn numbers(files: &Files) -> BTreeSet<String> {
        let entries = fs::read_dir(files.layers()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn layers_that_nobody_names_go_and_no_others() {
        let (_temporary, mut host, id, files) = host();
        fs::write(files.own().unwrap().written.upper().join("one"), "1").unwrap();
        host.take_snapshot(&id, &label("a"), None).unwrap();
        let way = host.prepare_return(&id, None).unwrap();
        assert_eq!(numbers(&files), ["1", "2"].map(str::to_owned).into());
        // A command that was killed before it went back.
        tidy(&host.home, &host.program).unwrap();
        assert_eq!(numbers(&files), ["1".to_owned()].into());
        Layer::new(&files, 2).make().unwrap();
        host.go_back(way).unwrap();
        assert_eq!(numbers(&files), ["2".to_owned()].into());
        assert!(files.state.join("upper/one").exists() && files.are_whole());
        host.forget_snapshot(&id, &"a".parse().unwrap()).unwrap();
        assert!(!files.state.join("upper").exists() && files.are_whole());
        assert!(!going::place(&host.home).exists());
    }

    #[test]
    fn where_nothing_was_written_a_snapshot_is_a_name() {
        let (_temporary, mut host, id, files) = host();
        host.take_snapshot(&id, &label("a"), None).unwrap();
        assert_eq!(numbers(&files), BTreeSet::new());
        let seen = observe(&host.home, [&id].into_iter());
        assert_eq!(seen.snapshots, [(id.clone(), ["a".parse().unwrap()].into())].into());
        // What cannot be read is not taken for none.
        fs::write(files.history(), "{").unwrap();
        let seen = observe(&host.home, [&id].into_iter());
        assert_eq!(seen, Histories { damaged: [id].into(), ..Histories::default() });
    }

    #[test]
    fn the_layer_of_a_vm_is_set_aside_with_what_its_firmware_remembers() {
        let (_temporary, mut host, id, files) = host();
        let write = |layer: &Layer, text: &str| {
            fs::write(layer.qcow2(), text).unwrap();
            fs::write(layer.variables(), text).unwrap();
        };
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        write(&Layer::new(&files, 0), "one");
        host.take_snapshot(&id, &label("a"), None).unwrap();
        let own = files.own().unwrap();
        assert_eq!(own.below, [Layer::new(&files, 0)]);
        assert!(!own.written.qcow2().exists(), "its keeper makes it when it starts");
        assert_eq!(read(own.written.variables()), "one");
        // One that has not been started since has written nothing.
        host.take_snapshot(&id, &label("b"), None).unwrap();
        write(&own.written, "two");
        let way = host.prepare_return(&id, Some(&"b".parse().unwrap())).unwrap();
        host.go_back(way).unwrap();
        let own = files.own().unwrap();
        assert_eq!(
            (&own.below, read(own.written.variables()).as_str()),
            (&vec![Layer::new(&files, 0)], "one")
        );
        assert_eq!(numbers(&files), ["2".to_owned()].into());
        assert!(host.layer_bytes(&id, &[0]).unwrap() > 0);
        // Set back to its image it is as if it had never been started.
        let way = host.prepare_return(&id, None).unwrap();
        host.go_back(way).unwrap();
        host.forget_snapshot(&id, &"a".parse().unwrap()).unwrap();
        assert_eq!(read(files.state.join("disk.qcow2")), "one");
        host.forget_snapshot(&id, &"b".parse().unwrap()).unwrap();
        let own = files.own().unwrap();
        assert!(own.below.is_empty() && !own.written.variables().exists() && files.are_whole());
        assert!(!files.state.join("disk.qcow2").exists() && !files.state.join("uefi-variables").exists());
    }

    #[test]
    fn what_cannot_be_copied_leaves_nothing() {
        let (_temporary, mut host, id, files) = host();
        // A disk that is none.
        fs::create_dir(files.state.join("disk.ext4")).unwrap();
        host.take_snapshot(&id, &label("a"), None).unwrap_err();
        assert_eq!(numbers(&files), BTreeSet::new());
        assert_eq!(History::load(&files).unwrap(), History::default());
    }

    #[test]
    fn a_disk_is_copied_without_what_is_not_in_it() {
        const LENGTH: u64 = 64 << 20;
        let (_temporary, mut host, id, files) = host();
        let path = files.state.join("disk.ext4");
        let mut disk = File::create(&path).unwrap();
        disk.set_len(LENGTH).unwrap();
        disk.seek(std::io::SeekFrom::Start(5 << 20)).unwrap();
        disk.write_all(b"in the middle").unwrap();
        host.take_snapshot(&id, &label("a"), None).unwrap();
        disk.write_all(b" and later").unwrap();
        let copy = files.layers().join("1/disk.ext4");
        let text = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            String::from_utf8_lossy(&bytes[5 << 20..]).trim_end_matches('\0').to_owned()
        };
        assert_eq!(fs::metadata(&copy).unwrap().len(), LENGTH);
        assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(text(&copy), "in the middle");
        let way = host.prepare_return(&id, Some(&"a".parse().unwrap())).unwrap();
        assert_eq!(text(&path), "in the middle and later");
        host.go_back(way).unwrap();
        assert_eq!(text(&files.own().unwrap().written.disk()), "in the middle");
        assert!(!path.exists());
        assert!(host.layer_bytes(&id, &[1]).unwrap() < 1 << 20);
    }
}
