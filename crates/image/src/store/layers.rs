//! Unpacked layers: made beside their place and moved there when whole, so that whoever sees one can use it.
//!
//! Most layers are the same over whatever other layers, and are shared by all images by the digest of their archive. One that
//! needs something of those below, such as a file that it links to, is kept for that stack of layers alone.
//!
//! Unpacking sets owners, so it is done as root, or by a process that a user namespace maps to root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::RangeBounds;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use serde::{Deserialize, Serialize};
use stead_model::image::{Digest, Image};

use super::Store;
use super::blobs::{digest_of, write_whole};
use super::lock::{Lock, Share};
use crate::event::Event;
use crate::manifest::Descriptor;
use crate::unpack::{Below, UnpackOptions, Unpacked, unpack_layer_over};

/// What is kept beside the tree of a layer.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    size_bytes: u64,
}

/// A layer to be unpacked.
struct Job {
    diff_id: Digest,
    blob: Descriptor,
    /// Its place among the layers of the image.
    at: usize,
}

/// The layers of an image while they are unpacked: each may wait for those below it.
struct Stack<'a> {
    diff_ids: &'a [Digest],
    /// Those that are to be unpacked, by their places; none for one that is not yet.
    outcomes: Mutex<BTreeMap<usize, Option<Result<()>>>>,
    changed: Condvar,
}

/// The time that somebody unpacks a layer. When it ends, those who wait for the layer are told.
struct Turn<'a> {
    stack: &'a Stack<'a>,
    at: usize,
    outcome: Option<Result<()>>,
}

impl<'a> Stack<'a> {
    fn new(diff_ids: &'a [Digest], missing: &[Job]) -> Self {
        let outcomes = Mutex::new(missing.iter().map(|job| (job.at, None)).collect());
        Self { diff_ids, outcomes, changed: Condvar::new() }
    }

    fn turn(&'a self, at: usize) -> Turn<'a> {
        Turn { stack: self, at, outcome: None }
    }

    /// Waits until the layers at these places are unpacked.
    fn await_all(&self, places: impl RangeBounds<usize> + Clone) -> Result<()> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |outcomes: &mut BTreeMap<_, Option<_>>| {
            outcomes.range(places.clone()).any(|(_, out)| out.is_none())
        };
        let outcomes = self.changed.wait_while(outcomes, is_open).unwrap_or_else(PoisonError::into_inner);
        match outcomes.range(places.clone()).find(|(_, outcome)| matches!(outcome, Some(Err(_)))) {
            Some((below, _)) => bail!("layer {below} below it cannot be unpacked"),
            None => Ok(()),
        }
    }

    /// Why the lowest one of those that failed did.
    fn failure(self) -> Option<anyhow::Error> {
        let outcomes = self.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.into_values().flatten().find_map(Result::err)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err(anyhow!("the thread that unpacks it has died")));
        let mut outcomes = self.stack.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(self.at, Some(outcome));
        self.stack.changed.notify_all();
    }
}

/// Another process that unpacks the same layer is waited for, but not for ever.
const UNPACK_LIMIT: Duration = Duration::from_secs(1800);
/// Unpacking is the work of one processor for each layer; more than these gain nothing on disks.
const UNPACKERS_MAX: usize = 4;

impl Store {
    /// Where the unpacked layers of an image are, the lowest first, as overlayfs needs them: a layer that occurs
    /// twice is named once, at its upper place, where it hides the lower one.
    pub fn layer_paths(&self, image: &Image) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let upper_first = (0..image.layers.len()).rev().filter_map(|at| {
            let path = self.layer_directory(&image.layers, at)?.join("tree");
            seen.insert(path.clone()).then_some(path)
        });
        let mut paths: Vec<PathBuf> = upper_first.collect();
        paths.reverse();
        paths
    }

    /// Which layers of an image are not unpacked yet, the lowest first.
    pub fn missing_layers(&self, image: &Image) -> Vec<Digest> {
        let mut seen = BTreeSet::new();
        let is_missing = |(at, digest): &(usize, &Digest)| {
            self.layer_directory(&image.layers, *at).is_none() && seen.insert((*digest).clone())
        };
        image.layers.iter().enumerate().filter(is_missing).map(|(_, digest)| digest.clone()).collect()
    }

    /// Unpacks what is missing of an image, several layers at once. Run it as root, or mapped to root.
    pub fn unpack_missing(
        &self,
        image: &Image,
        options: &UnpackOptions,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        if self.missing_layers(image).is_empty() {
            return Ok(());
        }
        let _adding = self.adding()?;
        let Some((manifest, config, _)) = self.documents(&image.digest)? else {
            bail!("image {} is not here any more", image.digest.short());
        };
        let diff_ids = config.rootfs.diff_ids;
        let all = diff_ids.iter().zip(manifest.layers).enumerate();
        let missing: Vec<Job> = all
            .filter(|(at, _)| self.layer_directory(&diff_ids, *at).is_none())
            .map(|(at, (diff_id, blob))| Job { diff_id: diff_id.clone(), blob, at })
            .collect();
        let stack = Stack::new(&diff_ids, &missing);
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(UNPACKERS_MAX);
        // The lowest is begun first, so whoever waits for those below waits for some that are at work.
        let unpacked = crate::parallel::each(missing, workers, |job| {
            let mut turn = stack.turn(job.at);
            let outcome = self.unpack_one(&stack, &job, options, on);
            let is_done = outcome.is_ok();
            turn.outcome = Some(outcome);
            if is_done { Ok(()) } else { Err(anyhow!("a layer cannot be unpacked")) }
        });
        // One that waited in vain for another is not what matters.
        stack.failure().map_or(unpacked, Err)
    }

    /// Whether a layer is unpacked, for all or for this stack.
    pub(super) fn layer_directory(&self, diff_ids: &[Digest], at: usize) -> Option<PathBuf> {
        let shared = self.layer_path(diff_ids.get(at)?);
        let places = [shared, self.stacked_path(diff_ids, at)];
        places.into_iter().find(|place| place.join("tree").is_dir())
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    fn stacked_path(&self, diff_ids: &[Digest], at: usize) -> PathBuf {
        self.root.join("layers").join(stacked(diff_ids, at).hex())
    }

    /// What the files of an unpacked layer take.
    pub(super) fn layer_size_bytes(&self, name: &str) -> u64 {
        let about = fs::read(self.root.join("layers").join(name).join("about.json")).ok();
        about.and_then(|text| serde_json::from_slice(&text).ok()).map_or(0, |about: About| about.size_bytes)
    }

    /// Unpacks a layer to its place: that which all share if what is below made no difference.
    fn unpack_one(
        &self,
        stack: &Stack<'_>,
        job: &Job,
        options: &UnpackOptions,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        let diff_ids = stack.diff_ids;
        let (shared, own) = (self.layer_path(&job.diff_id), self.stacked_path(diff_ids, job.at));
        let new = self.unpacking(&own);
        // Whoever holds this lock waits for layers below it in the same stack, and so for nobody who waits for it.
        let lock = Lock::take(&new.with_extension("lock"), Share::One, |waited| waited < UNPACK_LIMIT)?;
        // It may be the same one that occurs below, which is unpacked already.
        if let Some(same) = diff_ids.iter().take(job.at).rposition(|below| *below == job.diff_id) {
            stack.await_all(same..=same)?;
        }
        if self.layer_directory(diff_ids, job.at).is_none() {
            let layer = job.diff_id.clone();
            on(Event::Unpacking { layer: layer.clone() });
            let below = || {
                stack.await_all(..job.at)?;
                let below = (0..job.at).rev().filter_map(|at| self.layer_directory(diff_ids, at));
                Ok(below.map(|directory| directory.join("tree")).collect())
            };
            let unpacked = self.unpack_into(&new, job, options, &below).and_then(|unpacked| {
                if unpacked.is_standalone {
                    // Somebody may unpack it for another stack at this moment.
                    let path = self.unpacking(&shared).with_extension("lock");
                    let one = Lock::take(&path, Share::One, |waited| waited < UNPACK_LIMIT)?;
                    place(&new, &shared)?;
                    one.remove()?;
                } else {
                    place(&new, &own)?;
                }
                // Of one that was in its place by then nobody else has need of ours.
                remove_tree(&new)?;
                Ok(unpacked)
            });
            let unpacked = unpacked.inspect_err(|_| drop(remove_tree(&new)));
            let unpacked = unpacked.with_context(|| format!("cannot unpack layer {}", layer.short()))?;
            on(Event::Unpacked { layer, skips: unpacked.skips });
        }
        lock.remove()
    }

    /// Where a layer is while it is unpacked.
    fn unpacking(&self, target: &Path) -> PathBuf {
        self.root.join("unpacking").join(target.file_name().unwrap_or_default())
    }

    fn unpack_into(
        &self,
        new: &Path,
        job: &Job,
        options: &UnpackOptions,
        below: &Below<'_>,
    ) -> Result<Unpacked> {
        remove_tree(new)?;
        let tree = new.join("tree");
        DirBuilder::new().mode(0o700).create(new)?;
        make_root(&tree)?;
        let archive = File::open(self.blob_path(&job.blob.digest)).context("cannot open its archive")?;
        let unpacked = unpack_layer_over(below, archive, &tree, options)?;
        // Whoever else has a layer of this name trusts that it is the same.
        if unpacked.diff_id != job.diff_id {
            bail!("its archive is {}, the image says {}", unpacked.diff_id, job.diff_id);
        }
        let about = About { size_bytes: unpacked.size_bytes };
        write_whole(&new.join("about.json"), &serde_json::to_vec(&about)?)?;
        sync_file_system(new)?;
        Ok(unpacked)
    }
}

/// Makes the root of a layer, on ext4 in another part of the disk than what was made or removed lately. There a file may not
/// take the place of one that was removed within the last minutes, and each new one looks at all such places before it
/// finds another: beside images that were just removed it took four times as long to unpack one.
fn make_root(tree: &Path) -> Result<()> {
    let cannot = || format!("cannot make {}", tree.display());
    let directory = tree.parent().with_context(cannot)?;
    let hint = || -> io::Result<()> {
        let directory = File::open(directory)?;
        Ok(ioctl_setflags(&directory, ioctl_getflags(&directory)? | IFlags::TOPDIR)?)
    };
    // Other file systems have no such hint, and nothing to be kept away from.
    hint().ok();
    // Which part it is follows from the name, so a layer that comes again is to have another.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let born = directory.join(format!("tree-{}", now.as_nanos()));
    // The mode that the root of a machine has where no layer says it.
    DirBuilder::new().mode(0o755).create(&born).with_context(cannot)?;
    fs::rename(&born, tree).with_context(cannot)
}

/// Moves a layer to its place, unless one is there by now. Nobody else moves one there meanwhile.
fn place(new: &Path, target: &Path) -> Result<()> {
    if target.join("tree").is_dir() {
        return Ok(());
    }
    // A directory without a tree: somebody took half of it away.
    remove_tree(target)?;
    fs::rename(new, target).with_context(|| format!("cannot keep {}", target.display()))
}

/// The name under which a layer is kept for the stack that it is in: the layers up to it.
pub(super) fn stacked(diff_ids: &[Digest], at: usize) -> Digest {
    let stack: Vec<&str> = diff_ids.iter().take(at + 1).map(Digest::as_str).collect();
    digest_of(format!("stacked {}", stack.join(" ")).as_bytes())
}

/// One at a time: the first call writes what the others would write.
static SYNC: Mutex<()> = Mutex::new(());

/// What is renamed is to be whole after a cut of power as well; files are too many to be synced one by one.
fn sync_file_system(path: &Path) -> Result<()> {
    let _one = SYNC.lock();
    let directory = File::open(path)?;
    rustix::fs::syncfs(&directory).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a directory with all in it, if it is there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
