//! The store: the images of one home, in one directory.
//!
//! ```text
//! index.json            which images there are and what they are called (index.lock: who changes it)
//! blobs/sha256/<hex>    manifests, configurations and layers as they came, named by their digests
//! layers/<hex>/tree     unpacked layers, by the digests of their archives, shared by all who have them
//! partial/ unpacking/   what is not whole yet
//! contents.lock         held by many who add contents, or by one who takes them away
//! ```
//!
//! Whatever is seen in `blobs` and `layers` is whole and was verified. What a killed process leaves in the other two
//! is gone on with by the next one, or taken away by `prune`.

mod blobs;
mod index;
mod layers;
mod lock;
mod remove;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use stead_model::image::{Digest, Image, Platform, Reference};

use crate::manifest::{CONFIG_MAX_BYTES, Change, Config, DOCUMENT_MAX_BYTES, Descriptor, Document, Manifest};

pub use blobs::digest_of;
pub(crate) use blobs::{Claim, NewBlob, Partial, finish_digest, write_whole};
pub(crate) use layers::remove_tree;
use lock::{Lock, Share};
pub use remove::{Before, Pruned, Removal, Sizes, Which};

use self::index::Record;

/// The images of one home.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// An image with all its documents.
#[derive(Clone, Debug)]
pub struct Details {
    /// What machines need to know of it.
    pub image: Image,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: Config,
    /// The configuration as it came, with what we do not read of it.
    pub config_json: Vec<u8>,
    /// When it came here, in seconds since 1970.
    pub added_unix_s: u64,
    /// The digests of indexes through which it was found.
    pub indexes: BTreeSet<Digest>,
    /// Where it came from: registry and path.
    pub sources: BTreeSet<String>,
}

/// One change that led to an image, and the layer that it made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The change.
    pub change: Change,
    /// The layer as it is stored, if it made one.
    pub layer: Option<Descriptor>,
}

/// Held by who adds contents: nothing is taken away meanwhile.
#[derive(Debug)]
pub(crate) struct Adding {
    _lock: Lock,
}

/// Held by who does a piece of work that others would make again.
#[derive(Debug)]
pub(crate) struct Alone {
    _lock: Lock,
}

/// Something to be recorded as an image.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The digest of its manifest.
    pub(crate) digest: Digest,
    /// What it is to be called.
    pub(crate) names: Vec<Reference>,
    /// The indexes through which it was found.
    pub(crate) indexes: Vec<Digest>,
    /// Where it came from.
    pub(crate) source: Option<String>,
}

/// Building a system takes minutes.
const WORK_LIMIT: Duration = Duration::from_secs(3600);
/// Who takes contents away is done within seconds, unless there is very much.
const REMOVAL_LIMIT: Duration = Duration::from_secs(120);

impl Store {
    /// The store in this directory, which is made if it is missing.
    pub fn open(root: &Path) -> Result<Self> {
        for part in ["blobs/sha256", "layers", "partial", "roots", "unpacking"] {
            let path = root.join(part);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self { root: root.to_path_buf() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image of this name or digest, if it is here with all that belongs to it.
    pub fn find(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>> {
        let index = self.index()?;
        let Some(digest) = index.find(reference, platform) else { return Ok(None) };
        Ok(self.details_in(&index, digest)?.map(|details| details.image))
    }

    /// The images whose digests, or those of their configurations, begin with these digits.
    pub fn find_by_id(&self, digits: &str) -> Result<Vec<Image>> {
        let hex = digits.strip_prefix("sha256:").unwrap_or(digits);
        let is_hex = !hex.is_empty() && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Ok(Vec::new());
        }
        let known = |details: &Details| {
            details.image.digest.hex().starts_with(hex)
                || details.manifest.config.digest.hex().starts_with(hex)
        };
        Ok(self.list()?.into_iter().filter(known).map(|details| details.image).collect())
    }

    /// All images that are here with all that belongs to them.
    pub fn list(&self) -> Result<Vec<Details>> {
        let index = self.index()?;
        let found = index.images.keys().map(|digest| self.details_in(&index, digest));
        found.filter_map(Result::transpose).collect()
    }

    /// All that is known of an image.
    pub fn inspect(&self, digest: &Digest) -> Result<Option<Details>> {
        self.details_in(&self.index()?, digest)
    }

    /// Gives an image one more name. Another image that had it loses it.
    pub fn tag(&self, digest: &Digest, name: &Reference) -> Result<()> {
        if name.digest.is_some() {
            bail!("`{name}` ends with a digest, which cannot be given");
        }
        self.change(|index| {
            if !index.images.contains_key(digest) {
                bail!("there is no image {}", digest.short());
            }
            index.name(name, digest);
            Ok(())
        })
    }

    fn details_in(&self, index: &index::Index, digest: &Digest) -> Result<Option<Details>> {
        let Some(record) = index.images.get(digest) else { return Ok(None) };
        let Some(documents) = self.documents(digest)? else { return Ok(None) };
        let (manifest, config, config_json) = documents;
        let diff_ids = &config.rootfs.diff_ids;
        let stored = |(at, layer): (usize, &Descriptor)| {
            self.layer_directory(diff_ids, at).is_some() || self.has_blob(layer)
        };
        if !manifest.layers.iter().enumerate().all(stored) {
            tracing::warn!("image {} lacks layers, it counts as absent", digest.short());
            return Ok(None);
        }
        let image = Image {
            digest: digest.clone(),
            platform: record.platform.clone(),
            config: config.config.clone(),
            layers: config.rootfs.diff_ids.clone(),
            names: index.names_of(digest),
        };
        let Record { added_unix_s, indexes, sources, .. } = record.clone();
        Ok(Some(Details { image, manifest, config, config_json, added_unix_s, indexes, sources }))
    }

    /// The documents of an image that is here, verified.
    pub(crate) fn documents(&self, digest: &Digest) -> Result<Option<(Manifest, Config, Vec<u8>)>> {
        let Some(manifest) = self.read_blob(digest, DOCUMENT_MAX_BYTES)? else { return Ok(None) };
        let Document::Manifest(manifest) = Document::parse(&manifest, None)? else { return Ok(None) };
        let Some(json) = self.read_blob(&manifest.config.digest, CONFIG_MAX_BYTES)? else { return Ok(None) };
        let config = Config::parse(&json, manifest.layers.len())?;
        Ok(Some((manifest, config, json)))
    }

    /// Holds off who takes contents away.
    pub(crate) fn adding(&self) -> Result<Adding> {
        let lock = Lock::take(&self.contents_lock(), Share::Many, |waited| waited < REMOVAL_LIMIT)?;
        Ok(Adding { _lock: lock })
    }

    /// Lets only one process at a time do a piece of work with a result that others would make again.
    pub(crate) fn alone(&self, work: &str) -> Result<Alone> {
        let path = self.root.join("unpacking").join(format!("{work}.lock"));
        let lock = Lock::take(&path, Share::One, |waited| waited < WORK_LIMIT)?;
        Ok(Alone { _lock: lock })
    }

    /// Records an image whose contents are all here.
    pub(crate) fn record(&self, _adding: &Adding, arrival: &Arrival) -> Result<Image> {
        let digest = &arrival.digest;
        let Some((_, config, _)) = self.documents(digest)? else {
            bail!("the documents of image {} are gone again", digest.short());
        };
        // The names of blobs are to outlive a cut of power before something refers to them.
        let blobs = self.root.join("blobs/sha256");
        File::open(&blobs)
            .and_then(|blobs| blobs.sync_all())
            .with_context(|| format!("cannot write {}", blobs.display()))?;
        let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let names = self.change(|index| {
            let record = index.images.entry(digest.clone()).or_insert_with(|| Record {
                platform: config.platform(),
                added_unix_s: now_unix_s,
                indexes: BTreeSet::new(),
                sources: BTreeSet::new(),
            });
            record.indexes.extend(arrival.indexes.iter().cloned());
            record.sources.extend(arrival.source.iter().cloned());
            arrival.names.iter().for_each(|name| index.name(name, digest));
            Ok(index.names_of(digest))
        })?;
        Ok(Image {
            digest: digest.clone(),
            platform: config.platform(),
            config: config.config,
            layers: config.rootfs.diff_ids,
            names,
        })
    }

    fn contents_lock(&self) -> PathBuf {
        self.root.join("contents.lock")
    }
}

impl Details {
    /// How the image came to be, the newest change first, each with the layer that it made.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let mut layers = self.manifest.layers.iter();
        let mut entries: Vec<HistoryEntry> = self
            .config
            .history
            .iter()
            .map(|change| {
                let layer = if change.empty_layer { None } else { layers.next().cloned() };
                HistoryEntry { change: change.clone(), layer }
            })
            .collect();
        // Makers need not write a history, or not all of it.
        entries.extend(
            layers.map(|layer| HistoryEntry { change: Change::default(), layer: Some(layer.clone()) }),
        );
        entries.reverse();
        entries
    }
}
