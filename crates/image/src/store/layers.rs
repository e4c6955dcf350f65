//! Unpacked layers: made beside their place and moved there when whole, so that whoever sees one can use it.
//!
//! Most layers are the same over whatever other layers, and are shared by all images by the digest of their archive. One that
//! needs something of those below, such as a file that it links to, is kept for that stack of layers alone.
//!
//! Unpacking sets owners, so it is done as root, or by a process that a user namespace maps to root.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use stead_model::image::{Digest, Image};

use super::Store;
use super::blobs::{digest_of, write_whole};
use super::lock::{Lock, Share};
use crate::event::Event;
use crate::manifest::Descriptor;
use crate::unpack::{BadLayer, UnpackOptions, Unpacked, unpack_layer};

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
        let mut seen = BTreeSet::new();
        let all = diff_ids.iter().zip(manifest.layers).enumerate();
        let missing: Vec<Job> = all
            .filter(|(at, _)| self.layer_directory(&diff_ids, *at).is_none())
            .map(|(at, (diff_id, blob))| Job { diff_id: diff_id.clone(), blob, at })
            .collect();
        let once = missing.iter().filter(|job| seen.insert(&job.diff_id)).collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(UNPACKERS_MAX);
        let alone = UnpackOptions { lower: Vec::new(), ..options.clone() };
        crate::parallel::each(once, workers, |job| {
            self.unpack_one(job, &self.layer_path(&job.diff_id), &alone, on).map(drop)
        })?;
        // Those that need what is below, from the lowest on.
        for job in &missing {
            if self.layer_directory(&diff_ids, job.at).is_none() {
                let below = (0..job.at).rev().filter_map(|at| self.layer_directory(&diff_ids, at));
                let lower = below.map(|directory| directory.join("tree")).collect();
                let options = UnpackOptions { lower, ..options.clone() };
                self.unpack_one(job, &self.stacked_path(&diff_ids, job.at), &options, on)?;
            }
        }
        Ok(())
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

    /// Unpacks a layer to its place. One that is to be shared and cannot be is not kept.
    fn unpack_one(
        &self,
        job: &Job,
        target: &Path,
        options: &UnpackOptions,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        let name = target.file_name().unwrap_or_default();
        let new = self.root.join("unpacking").join(name);
        let lock = Lock::take(&new.with_extension("lock"), Share::One, |waited| waited < UNPACK_LIMIT)?;
        if !target.join("tree").is_dir() {
            let layer = job.diff_id.clone();
            on(Event::Unpacking { layer: layer.clone() });
            let unpacked = self.unpack_into(&new, job, options).inspect_err(|_| drop(remove_tree(&new)));
            // It may only lack what is below, which is not there while it is tried alone.
            let is_tried_alone = options.lower.is_empty() && job.at > 0;
            let needs_lower = match &unpacked {
                Ok(unpacked) => !unpacked.is_standalone,
                Err(error) => error.chain().any(<dyn std::error::Error + 'static>::is::<BadLayer>),
            };
            if is_tried_alone && needs_lower {
                remove_tree(&new)?;
                return lock.remove();
            }
            let unpacked = unpacked.with_context(|| format!("cannot unpack layer {}", layer.short()))?;
            // A directory without a tree: somebody took half of it away.
            remove_tree(target)?;
            fs::rename(&new, target).with_context(|| format!("cannot keep {}", target.display()))?;
            on(Event::Unpacked { layer, skips: unpacked.skips });
        }
        lock.remove()
    }

    fn unpack_into(&self, new: &Path, job: &Job, options: &UnpackOptions) -> Result<Unpacked> {
        remove_tree(new)?;
        let tree = new.join("tree");
        DirBuilder::new().mode(0o700).create(new)?;
        // The mode that the root of a machine has where no layer says it.
        DirBuilder::new().mode(0o755).create(&tree)?;
        let archive = File::open(self.blob_path(&job.blob.digest)).context("cannot open its archive")?;
        let unpacked = unpack_layer(archive, &tree, options)?;
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
