//! The index: which images there are, and what they are called. One file, read without a lock, written whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use stead_model::image::{Digest, Platform, Reference};

use super::Store;
use super::blobs::write_whole;
use super::lock::{Lock, Share};
use crate::choose;

/// Written into the index; a store of another version is refused.
const VERSION: u32 = 1;
/// A change of the index takes milliseconds.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// Which images there are, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    version: u32,
    /// By the digests of their manifests.
    pub(crate) images: BTreeMap<Digest, Record>,
    /// A name means one image for each platform.
    pub(crate) names: BTreeMap<Reference, BTreeMap<Platform, Digest>>,
}

/// What is recorded of an image beside its own documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// For which platform it is.
    pub(crate) platform: Platform,
    /// When it came here, in seconds since 1970.
    pub(crate) added_unix_s: u64,
    /// The digests of indexes through which it was found, by which it is known as well.
    pub(crate) indexes: BTreeSet<Digest>,
    /// Where it came from: registry and path.
    pub(crate) sources: BTreeSet<String>,
}

impl Default for Index {
    fn default() -> Self {
        Self { version: VERSION, images: BTreeMap::new(), names: BTreeMap::new() }
    }
}

impl Index {
    /// Reads it; an empty one if there is none.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let index: Self = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is damaged; hint: move it away and pull the images again", path.display())
        })?;
        if index.version != VERSION {
            bail!("{} is of version {}, we know {VERSION}", path.display(), index.version);
        }
        Ok(index)
    }

    /// The image that is meant by a name or a digest.
    pub(crate) fn find(&self, reference: &Reference, platform: &Platform) -> Option<&Digest> {
        if let Some(named) = reference.among(self.names.keys()).and_then(|name| self.names.get(name)) {
            let offered: Vec<(&Platform, &Digest)> = named.iter().collect();
            return choose::best(&offered, platform);
        }
        let wanted = reference.digest.as_ref()?;
        let known =
            |(digest, record): &(&Digest, &Record)| *digest == wanted || record.indexes.contains(wanted);
        let offered: Vec<(&Platform, &Digest)> =
            self.images.iter().filter(known).map(|(digest, record)| (&record.platform, digest)).collect();
        choose::best(&offered, platform)
    }

    /// What an image is called.
    pub(crate) fn names_of(&self, digest: &Digest) -> BTreeSet<Reference> {
        let means = |named: &BTreeMap<Platform, Digest>| named.values().any(|meant| meant == digest);
        self.names.iter().filter(|(_, named)| means(named)).map(|(name, _)| name.clone()).collect()
    }

    /// Gives an image a name, which another one may lose.
    pub(crate) fn name(&mut self, name: &Reference, digest: &Digest) {
        if let Some(record) = self.images.get(digest) {
            let platforms = self.names.entry(name.clone()).or_default();
            platforms.insert(record.platform.clone(), digest.clone());
        }
    }

    /// Takes a name away from an image.
    pub(crate) fn unname(&mut self, name: &Reference, digest: &Digest) {
        if let Some(platforms) = self.names.get_mut(name) {
            platforms.retain(|_, meant| meant != digest);
            if platforms.is_empty() {
                self.names.remove(name);
            }
        }
    }
}

impl Store {
    /// The index as it is now.
    pub(crate) fn index(&self) -> Result<Index> {
        Index::load(&self.index_path())
    }

    /// Changes the index; nobody else does meanwhile.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let _lock = Lock::take(&self.root.join("index.lock"), Share::One, |waited| waited < CHANGE_LIMIT)?;
        let before = self.index()?;
        let mut after = before.clone();
        let answer = change(&mut after)?;
        if after != before {
            let text = serde_json::to_vec_pretty(&after).context("cannot render the index")?;
            write_whole(&self.index_path(), &text)?;
        }
        Ok(answer)
    }

    fn index_path(&self) -> std::path::PathBuf {
        self.root.join("index.json")
    }
}
