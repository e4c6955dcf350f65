//! Unpacked layers: made beside their place and moved there when whole, so that whoever sees one can use it.
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
use super::blobs::write_whole;
use super::lock::{Lock, Share};
use crate::event::Event;
use crate::manifest::Descriptor;

/// Unpacks the archive of a layer, compressed or not, into an empty directory.
pub type Unpack<'a> = dyn Fn(File, &Path) -> Result<UnpackedLayer> + Sync + 'a;

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// The digest of the archive, not compressed: of all of its bytes.
    pub digest: Digest,
    /// What its files take.
    pub size_bytes: u64,
}

/// What is kept beside the tree of a layer.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    size_bytes: u64,
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
        let mut upper_first: Vec<PathBuf> = Vec::new();
        for digest in image.layers.iter().rev() {
            if seen.insert(digest) {
                upper_first.push(self.layer_path(digest).join("tree"));
            }
        }
        upper_first.reverse();
        upper_first
    }

    /// Which layers of an image are not unpacked yet, the lowest first.
    pub fn missing_layers(&self, image: &Image) -> Vec<Digest> {
        let mut seen = BTreeSet::new();
        let missing = image.layers.iter().filter(|digest| !self.has_layer(digest) && seen.insert(*digest));
        missing.cloned().collect()
    }

    /// Unpacks what is missing of an image, several layers at once. Run it as root, or mapped to root.
    pub fn unpack_missing(
        &self,
        image: &Image,
        unpack: &Unpack<'_>,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        if self.missing_layers(image).is_empty() {
            return Ok(());
        }
        let _adding = self.adding()?;
        let Some((manifest, config, _)) = self.documents(&image.digest)? else {
            bail!("image {} is not here any more", image.digest.short());
        };
        let missing: BTreeSet<Digest> = self.missing_layers(image).into_iter().collect();
        let mut jobs: Vec<(Digest, Descriptor)> = Vec::new();
        for (digest, blob) in config.rootfs.diff_ids.into_iter().zip(manifest.layers) {
            if missing.contains(&digest) && !jobs.iter().any(|(other, _)| *other == digest) {
                jobs.push((digest, blob));
            }
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(UNPACKERS_MAX);
        crate::parallel::each(jobs, workers, |(digest, blob)| self.unpack_layer(&digest, &blob, unpack, on))
    }

    pub(crate) fn has_layer(&self, digest: &Digest) -> bool {
        self.layer_path(digest).join("tree").is_dir()
    }

    pub(super) fn layer_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("layers").join(digest.hex())
    }

    /// What the files of an unpacked layer take.
    pub(super) fn layer_size_bytes(&self, digest: &Digest) -> u64 {
        let about = fs::read(self.layer_path(digest).join("about.json")).ok();
        about.and_then(|text| serde_json::from_slice(&text).ok()).map_or(0, |about: About| about.size_bytes)
    }

    fn unpack_layer(
        &self,
        digest: &Digest,
        blob: &Descriptor,
        unpack: &Unpack<'_>,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        let new = self.root.join("unpacking").join(digest.hex());
        let lock = Lock::take(&new.with_extension("lock"), Share::One, |waited| waited < UNPACK_LIMIT)?;
        if !self.has_layer(digest) {
            on(Event::Unpacking { layer: digest.clone() });
            self.unpack_into(&new, digest, blob, unpack)
                .with_context(|| format!("cannot unpack layer {}", digest.short()))?;
            on(Event::Unpacked { layer: digest.clone() });
        }
        lock.remove()
    }

    fn unpack_into(&self, new: &Path, digest: &Digest, blob: &Descriptor, unpack: &Unpack<'_>) -> Result<()> {
        remove_tree(new)?;
        let tree = new.join("tree");
        DirBuilder::new().mode(0o700).create(new)?;
        // The mode that the root of a machine has where no layer says it.
        DirBuilder::new().mode(0o755).create(&tree)?;
        let file = File::open(self.blob_path(&blob.digest)).context("cannot open its archive")?;
        let unpacked = unpack(file, &tree).inspect_err(|_| drop(remove_tree(new)))?;
        // Whoever else has a layer of this name trusts that it is the same.
        if unpacked.digest != *digest {
            remove_tree(new)?;
            bail!("its archive is {}, the image says {digest}", unpacked.digest);
        }
        let about = serde_json::to_vec(&About { size_bytes: unpacked.size_bytes })?;
        write_whole(&new.join("about.json"), &about)?;
        sync_file_system(new)?;
        let target = self.layer_path(digest);
        // A directory without a tree: somebody took half of it away.
        remove_tree(&target)?;
        fs::rename(new, &target).with_context(|| format!("cannot keep {}", target.display()))?;
        Ok(())
    }
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
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
