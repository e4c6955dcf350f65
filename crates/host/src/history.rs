//! What a machine wrote, in layers. Each has a number; the one that is written now is above those that snapshots have
//! frozen. One file says which there are and what they are to whom, and is written whole: whatever a command had begun
//! when it was killed is done if that file says so, and else layers that nobody names, which go.
//!
//! ```text
//! machines/web.shop/             layer 0: upper, work (or flat, disk.ext4, disk.qcow2), as long as it is one
//!                   layers/1/    upper, work (or flat, disk.ext4, disk.qcow2)
//!                   history.json the layer that is written, those below it, and what each snapshot consists of
//! ```
//!
//! Layers of an overlay lie upon each other, and so do those of a vm's disk, each with what its firmware remembers. Of a
//! microVM's disk, or where overlayfs cannot be used, each layer is the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_model::name::Name;
use stead_model::provision::ScriptId;

use crate::home::write_whole;
use crate::machine::Files;

/// Before Linux 6.7 all layers, with the image's, have to be told in 4096 bytes, and take 18 of them each.
pub const LAYERS_MAX: usize = 100;

/// What to do about a history that says nothing any more.
const DAMAGED: &str = "put a copy of that file back, if you have one; `stead rm` takes the machine away with all that it \
                       wrote and its snapshots";

/// All layers of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The number of the next layer.
    next: u64,
    /// What the machine is made of now.
    pub present: Stack,
    /// Where that began: a snapshot, or its image.
    pub on: Option<Name>,
    /// The scripts that have been run in it as it is.
    #[serde(default)]
    pub provisioned: BTreeSet<ScriptId>,
    /// What it is to go back to when that is asked for.
    pub snapshots: BTreeMap<Name, Snapshot>,
}

/// The layers of a machine as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The one that is written.
    pub written: u64,
    /// Those below it, the lowest first.
    pub below: Vec<u64>,
}

/// A machine's files as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, in milliseconds since 1970.
    pub at_ms: u64,
    /// What the person said of it.
    pub description: String,
    /// The snapshot that the machine began with when it was taken.
    pub parent: Option<Name>,
    /// Its layers, the lowest first.
    pub layers: Vec<u64>,
    /// Whether its one layer is the whole, rather than what lies upon the image.
    pub is_whole: bool,
    /// The scripts that had been run in it.
    #[serde(default)]
    pub provisioned: BTreeSet<ScriptId>,
}

/// What a snapshot is called, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: Name,
    /// What the person says of it.
    pub description: String,
    /// When it is taken.
    pub at_ms: u64,
}

impl Default for History {
    fn default() -> Self {
        let present = Stack { written: 0, below: Vec::new() };
        Self { next: 1, present, on: None, provisioned: BTreeSet::new(), snapshots: BTreeMap::new() }
    }
}

impl History {
    /// That of a machine that is new, and has so many layers below the one that it writes.
    pub fn upon(layers: usize) -> Self {
        let below: Vec<u64> = (1..).take(layers).collect();
        let next = below.last().map_or(1, |last| last + 1);
        Self { next, present: Stack { written: 0, below }, ..Self::default() }
    }

    /// Reads it; a machine without one has a layer, and no snapshot.
    pub fn load(files: &Files) -> Result<Self> {
        let path = files.history();
        let doing = || format!("cannot read {}", path.display());
        let damaged = || format!("{} is damaged; hint: {DAMAGED}", path.display());
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(damaged),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(doing),
        }
    }

    /// Writes it: from then on it is so.
    pub fn store(&self, files: &Files) -> Result<()> {
        let text = serde_json::to_vec(self).context("cannot write a machine's history as JSON")?;
        write_whole(&files.history(), &text)
    }

    /// The number that the next layer has.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// After what was written became a snapshot by itself; a new layer is written.
    #[must_use]
    pub fn frozen(&self, label: &Label) -> Self {
        let layers = self.present.below.iter().copied().chain([self.present.written]).collect();
        let mut after = self.taken(label, layers, false);
        let below = after.snapshots.get(&label.name).map(|taken| taken.layers.clone());
        after.present = Stack { written: after.next, below: below.unwrap_or_default() };
        after.next += 1;
        after
    }

    /// After what was written was copied to a new layer, and that became a snapshot.
    #[must_use]
    pub fn copied(&self, label: &Label, is_whole: bool) -> Self {
        let below = if is_whole { Vec::new() } else { self.present.below.clone() };
        let mut after = self.taken(label, below.into_iter().chain([self.next]).collect(), is_whole);
        after.next += 1;
        after
    }

    /// After a snapshot was taken where nothing was written since what the machine began with.
    #[must_use]
    pub fn unchanged(&self, label: &Label) -> Self {
        self.taken(label, self.present.below.clone(), false)
    }

    fn taken(&self, label: &Label, layers: Vec<u64>, is_whole: bool) -> Self {
        let mut after = self.clone();
        let Label { name, description, at_ms } = label.clone();
        let (parent, provisioned) = (self.on.clone(), self.provisioned.clone());
        let snapshot = Snapshot { at_ms, description, parent, layers, is_whole, provisioned };
        after.snapshots.insert(name.clone(), snapshot);
        after.on = Some(name);
        after
    }

    /// After the machine went back to a snapshot, or to its image: a new layer is written. Of one that is a whole the new
    /// layer has to be a copy.
    #[must_use]
    pub fn gone_back(&self, to: Option<&Name>) -> Self {
        let mut after = self.clone();
        let snapshot = to.and_then(|name| self.snapshots.get(name));
        let below = snapshot.filter(|snapshot| !snapshot.is_whole).map(|snapshot| snapshot.layers.clone());
        after.present = Stack { written: self.next, below: below.unwrap_or_default() };
        after.on = to.cloned();
        after.provisioned = snapshot.map(|snapshot| snapshot.provisioned.clone()).unwrap_or_default();
        after.next += 1;
        after
    }

    /// After a snapshot was forgotten. Those that began with it begin with its parent, and layers that they need stay.
    #[must_use]
    pub fn without(&self, name: &Name) -> Self {
        let mut after = self.clone();
        let Some(gone) = after.snapshots.remove(name) else { return after };
        let heirs = after.snapshots.values_mut().map(|snapshot| &mut snapshot.parent).chain([&mut after.on]);
        for parent in heirs.filter(|parent| parent.as_ref() == Some(name)) {
            parent.clone_from(&gone.parent);
        }
        after
    }

    /// The layers that something consists of.
    pub fn used(&self) -> BTreeSet<u64> {
        let snapshots = self.snapshots.values().flat_map(|snapshot| &snapshot.layers);
        snapshots.chain(&self.present.below).chain([&self.present.written]).copied().collect()
    }

    /// The layers of a snapshot that its parent does not have: those that came with it.
    pub fn own_layers(&self, snapshot: &Snapshot) -> Vec<u64> {
        let parent = snapshot.parent.as_ref().and_then(|name| self.snapshots.get(name));
        let theirs: &[u64] = parent.map_or(&[], |parent| &parent.layers);
        snapshot.layers.iter().copied().filter(|layer| !theirs.contains(layer)).collect()
    }

    /// A name that no snapshot has: `snap0`, `snap1`, and always one more than the last.
    pub fn free_name(&self) -> Result<Name> {
        let numbers =
            self.snapshots.keys().filter_map(|name| name.as_str().strip_prefix("snap")?.parse().ok());
        let next = numbers.max().map_or(0, |last: u64| last.saturating_add(1));
        format!("snap{next}").parse().context("a snapshot has no lawful name")
    }
}

/// A layer's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer(PathBuf);

impl Layer {
    /// Where it is.
    pub fn new(files: &Files, number: u64) -> Self {
        match number {
            0 => Self(files.state.clone()),
            number => Self(files.layers().join(number.to_string())),
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What of the layers below is changed.
    pub fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// What the overlay file system needs beside that.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// All files, where overlayfs cannot be used.
    pub fn flat(&self) -> PathBuf {
        self.0.join("flat")
    }

    /// The disk of a guest, with what it wrote over its image.
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk.ext4")
    }

    /// What a vm wrote over its image and the layers below.
    pub fn qcow2(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    /// What the firmware of a vm remembers.
    pub fn variables(&self) -> PathBuf {
        self.0.join("uefi-variables")
    }

    /// Whether nothing was ever written in it. One that cannot be looked into is somebody's.
    pub fn is_empty(&self) -> bool {
        !self.is_flat()
            && !self.qcow2().exists()
            && match fs::read_dir(self.upper()) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            }
    }

    /// Whether the image's files were copied.
    pub fn is_flat(&self) -> bool {
        self.flat().exists()
    }

    /// Where a container's files are written.
    pub fn writable(&self) -> PathBuf {
        if self.is_flat() { self.flat() } else { self.upper() }
    }

    /// Makes its directories, the one that says that it is there last.
    pub fn make(&self) -> Result<()> {
        for path in [self.work(), self.upper()] {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }
}

/// Where a machine's own files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// What it writes.
    pub written: Layer,
    /// What lies between that and its image, the lowest first.
    pub below: Vec<Layer>,
}

impl Own {
    /// Looks it up.
    pub fn load(files: &Files) -> Result<Self> {
        let Stack { written, below } = History::load(files)?.present;
        let below = below.into_iter().map(|number| Layer::new(files, number)).collect();
        Ok(Self { written: Layer::new(files, written), below })
    }

    /// The layers that a container's root is mounted of, below the one that it writes.
    pub fn over(&self, image: Vec<PathBuf>) -> Vec<PathBuf> {
        if self.written.is_flat() {
            Vec::new()
        } else {
            image.into_iter().chain(self.below.iter().map(Layer::upper)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn label(text: &str) -> Label {
        Label { name: name(text), description: String::new(), at_ms: 0 }
    }

    fn stack(written: u64, below: &[u64]) -> Stack {
        Stack { written, below: below.to_vec() }
    }

    fn layers(history: &History, snapshot: &str) -> Vec<u64> {
        history.snapshots[&name(snapshot)].layers.clone()
    }

    #[test]
    fn snapshots_are_a_tree_whose_layers_are_shared() {
        let history = History::default().frozen(&label("a")).frozen(&label("b"));
        assert_eq!(history.present, stack(2, &[0, 1]));
        assert_eq!((layers(&history, "a"), layers(&history, "b")), (vec![0], vec![0, 1]));
        let history = history.gone_back(Some(&name("a"))).frozen(&label("c"));
        assert_eq!(history.present, stack(4, &[0, 3]));
        let parents: Vec<_> = history.snapshots.values().map(|one| one.parent.clone()).collect();
        assert_eq!(parents, [None, Some(name("a")), Some(name("a"))]);
        assert_eq!(history.used(), [0, 1, 3, 4].into());
        assert_eq!(history.own_layers(&history.snapshots[&name("c")]), [3]);
        // What `a` froze is below the others, and stays as long as they do.
        let history = history.without(&name("a")).without(&name("b"));
        assert_eq!(history.used(), [0, 3, 4].into());
        assert_eq!(history.own_layers(&history.snapshots[&name("c")]), [0, 3]);
        assert_eq!((&history.snapshots[&name("c")].parent, &history.on), (&None, &Some(name("c"))));
        let history = history.gone_back(None);
        assert_eq!((&history.present, &history.on), (&stack(5, &[]), &None));
        assert_eq!(history.without(&name("c")).used(), [5].into());
    }

    #[test]
    fn what_runs_goes_on_in_its_layer_while_a_copy_is_the_snapshot() {
        let history = History::default().frozen(&label("a")).copied(&label("b"), false);
        assert_eq!(history.present, stack(1, &[0]));
        assert_eq!(layers(&history, "b"), [0, 2]);
        assert_eq!(history.gone_back(Some(&name("b"))).present, stack(3, &[0, 2]));
        assert_eq!(layers(&history.unchanged(&label("c")), "c"), [0]);
    }

    #[test]
    fn of_a_disk_each_snapshot_is_the_whole_and_going_back_is_a_copy() {
        let history = History::default().copied(&label("a"), true).copied(&label("b"), true);
        assert_eq!((layers(&history, "a"), layers(&history, "b")), (vec![1], vec![2]));
        let history = history.gone_back(Some(&name("a")));
        assert_eq!(history.present, stack(3, &[]));
        assert_eq!(history.used(), [1, 2, 3].into());
    }

    #[test]
    fn a_new_machine_writes_its_first_layer_over_those_that_it_was_given() {
        assert_eq!(History::upon(0), History::default());
        let history = History::upon(2);
        assert_eq!((&history.present, history.next()), (&stack(0, &[1, 2]), 3));
        assert_eq!(history.frozen(&label("a")).present, stack(3, &[1, 2, 0]));
    }

    #[test]
    fn a_name_of_its_own_is_one_more_than_the_last() {
        let history = History::default();
        assert_eq!(history.free_name().unwrap(), name("snap0"));
        let history = history.frozen(&label("snap7")).frozen(&label("snapshot")).frozen(&label("snap2"));
        assert_eq!(history.free_name().unwrap(), name("snap8"));
    }

    #[test]
    fn a_history_is_kept_and_one_that_is_damaged_is_told() {
        let temporary = tempfile::tempdir().unwrap();
        let files = Files { state: temporary.path().to_owned(), run: temporary.path().join("run") };
        assert_eq!(History::load(&files).unwrap(), History::default());
        assert_eq!(Own::load(&files).unwrap().written.upper(), files.state.join("upper"));
        let history = History::default().frozen(&label("a"));
        history.store(&files).unwrap();
        assert_eq!(History::load(&files).unwrap(), history);
        let own = Own::load(&files).unwrap();
        assert_eq!(own.written.disk(), files.state.join("layers/1/disk.ext4"));
        assert_eq!(own.over(vec!["/image".into()]), [PathBuf::from("/image"), files.state.join("upper")]);
        fs::write(files.history(), "{").unwrap();
        let error = Own::load(&files).unwrap_err().to_string();
        assert!(error.contains("history.json is damaged; hint: "), "{error}");
    }
}
