//! Taking images away: their names, and then the contents that no image has any more.
//!
//! Unpacked layers have files of many owners, so this is done as root, or by a process that is mapped to root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use stead_model::image::{Digest, Image, Platform, Reference};

use super::Store;
use super::index::Index;
use super::layers::{remove_tree, stacked};
use super::lock::{Lock, Share};

/// What became of the wish to remove an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was removed, or only its name.
    Done(Pruned),
    /// A machine uses it.
    InUse(Digest),
    /// It has these other names, and was meant by its digest.
    Named(BTreeSet<Reference>),
    /// It is not here.
    Absent,
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names.
    pub names: BTreeSet<Reference>,
    /// Images.
    pub images: BTreeSet<Digest>,
    /// So much room there is again. None while images are being pulled: what they need is not known yet, and a later
    /// removal frees the room.
    pub freed_bytes: Option<u64>,
}

/// What there was at some time, which images and names.
#[derive(Clone, Debug)]
pub struct Before(Index);

/// Which images `prune` takes away, of those that no machine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those without a name.
    Nameless,
    /// All.
    All,
}

/// The room that an image takes, as it is stored and unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of what other images have as well.
    pub shared_bytes: u64,
    /// Of what only this one has.
    pub unique_bytes: u64,
}

/// The contents of an image, by where they are kept.
#[derive(Default)]
struct Contents {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

impl Store {
    /// Takes a name away from an image, and with its last one the image, unless a machine uses it. `in_use` are the
    /// digests of images that machines have. A reference that is a digest means the image with all its names,
    /// but only if it has at most one.
    pub fn remove(&self, reference: &Reference, image: &Image, in_use: &BTreeSet<Digest>) -> Result<Removal> {
        let digest = &image.digest;
        let removal = self.change(|index| {
            if !index.images.contains_key(digest) {
                return Ok(Removal::Absent);
            }
            let names = index.names_of(digest);
            let said = reference.among(&names).cloned();
            if said.is_none() && names.len() > 1 {
                return Ok(Removal::Named(names));
            }
            let untagged = said.map_or_else(|| names.clone(), |name| BTreeSet::from([name]));
            let is_last = untagged == names;
            if is_last && in_use.contains(digest) {
                return Ok(Removal::InUse(digest.clone()));
            }
            untagged.iter().for_each(|name| index.unname(name, digest));
            let mut images = BTreeSet::new();
            if is_last {
                index.images.remove(digest);
                images.insert(digest.clone());
            }
            Ok(Removal::Done(Pruned { names: untagged, images, freed_bytes: None }))
        })?;
        match removal {
            Removal::Done(mut pruned) if !pruned.images.is_empty() => {
                pruned.freed_bytes = self.sweep()?;
                Ok(Removal::Done(pruned))
            }
            other => Ok(other),
        }
    }

    /// Takes away images that no machine uses, and all contents that no image has.
    pub fn prune(&self, which: Which, in_use: &BTreeSet<Digest>) -> Result<Pruned> {
        let mut pruned = self.change(|index| {
            let mut pruned = Pruned::default();
            for digest in index.images.keys().cloned().collect::<Vec<_>>() {
                let names = index.names_of(&digest);
                if in_use.contains(&digest) || (which == Which::Nameless && !names.is_empty()) {
                    continue;
                }
                names.iter().for_each(|name| index.unname(name, &digest));
                index.images.remove(&digest);
                pruned.names.extend(names);
                pruned.images.insert(digest);
            }
            Ok(pruned)
        })?;
        pruned.freed_bytes = self.sweep()?;
        Ok(pruned)
    }

    /// What there is now, for when images that come next turn out to be of no use.
    pub fn before(&self) -> Result<Before> {
        Ok(Before(self.index()?))
    }

    /// Takes away images that came since then, with the names that they got: those mean again what they meant. Their
    /// contents are swept away by [`Store::sweep`].
    pub fn withdraw(&self, images: &BTreeSet<Digest>, before: &Before) -> Result<()> {
        self.change(|index| {
            let Index { images: known, names, .. } = index;
            known.retain(|digest, _| !images.contains(digest) || before.0.images.contains_key(digest));
            for (name, platforms) in names.iter_mut() {
                let meant = before.0.names.get(name);
                let is_new = |(platform, digest): &(&Platform, &Digest)| {
                    images.contains(*digest) && meant.and_then(|meant| meant.get(*platform)) != Some(*digest)
                };
                let new: Vec<Platform> =
                    platforms.iter().filter(is_new).map(|(platform, _)| platform.clone()).collect();
                for platform in new {
                    platforms.remove(&platform);
                    let old = meant.and_then(|meant| meant.get(&platform));
                    platforms.extend(
                        old.filter(|old| known.contains_key(*old)).map(|old| (platform, old.clone())),
                    );
                }
            }
            names.retain(|_, platforms| !platforms.is_empty());
            Ok(())
        })
    }

    /// The room that each image takes.
    pub fn sizes(&self) -> Result<BTreeMap<Digest, Sizes>> {
        let mut images = BTreeMap::new();
        for digest in self.index()?.images.keys() {
            let mut contents = Contents::default();
            self.contents_of(digest, &mut contents)?;
            images.insert(digest.clone(), contents);
        }
        // How many images have it; and what it takes, seen once.
        let mut blobs: BTreeMap<&Digest, (usize, u64)> = BTreeMap::new();
        let mut layers: BTreeMap<&Digest, (usize, u64)> = BTreeMap::new();
        for contents in images.values() {
            for blob in &contents.blobs {
                let size = || fs::metadata(self.blob_path(blob)).map_or(0, |found| found.len());
                blobs.entry(blob).or_insert_with(|| (0, size())).0 += 1;
            }
            for layer in &contents.layers {
                let size = || self.layer_size_bytes(layer.hex());
                layers.entry(layer).or_insert_with(|| (0, size())).0 += 1;
            }
        }
        let sizes_of = |contents: &Contents| {
            let blobs = contents.blobs.iter().filter_map(|blob| blobs.get(blob));
            let layers = contents.layers.iter().filter_map(|layer| layers.get(layer));
            blobs.chain(layers).fold(Sizes::default(), |mut sizes, (count, bytes)| {
                *(if *count > 1 { &mut sizes.shared_bytes } else { &mut sizes.unique_bytes }) += bytes;
                sizes
            })
        };
        Ok(images.iter().map(|(digest, contents)| (digest.clone(), sizes_of(contents))).collect())
    }

    /// Adds what belongs to an image.
    fn contents_of(&self, digest: &Digest, contents: &mut Contents) -> Result<()> {
        contents.blobs.insert(digest.clone());
        if let Some((manifest, config, _)) = self.documents(digest)? {
            contents.blobs.insert(manifest.config.digest);
            contents.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            let diff_ids = config.rootfs.diff_ids;
            contents.layers.extend((0..diff_ids.len()).map(|at| stacked(&diff_ids, at)));
            contents.layers.extend(diff_ids);
        }
        Ok(())
    }

    /// Takes away all contents that no image has, and what killed processes left. Goes on after a failure.
    pub fn sweep(&self) -> Result<Option<u64>> {
        let Some(_alone) = Lock::attempt(&self.contents_lock(), Share::One)? else { return Ok(None) };
        let mut kept = Contents::default();
        for digest in self.index()?.images.keys() {
            self.contents_of(digest, &mut kept)?;
        }
        let mut freed_bytes = 0;
        let mut failure = None;
        let is_kept = |name: &str, kept: &BTreeSet<Digest>| {
            format!("sha256:{name}").parse::<Digest>().is_ok_and(|digest| kept.contains(&digest))
        };
        for (name, path) in entries(&self.root.join("blobs/sha256"))? {
            if !is_kept(&name, &kept.blobs) {
                freed_bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
                failure = failure.or(remove_file(&path).err());
            }
        }
        for (name, path) in entries(&self.root.join("layers"))? {
            if !is_kept(&name, &kept.layers) {
                freed_bytes += self.layer_size_bytes(&name);
                failure = failure.or(self.remove_layer(&name, &path).err());
            }
        }
        for (name, path) in entries(&self.root.join("roots"))? {
            let image =
                name.strip_suffix(".erofs").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            if !image.is_some_and(|digest| kept.blobs.contains(&digest)) {
                freed_bytes += fs::metadata(&path).map_or(0, |meta| meta.blocks() * 512);
                failure = failure.or(remove_file(&path).err());
            }
        }
        // Nobody adds contents now, so nobody is at these.
        for (_, path) in entries(&self.root.join("partial"))? {
            freed_bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
            failure = failure.or(remove_file(&path).err());
        }
        for (_, path) in entries(&self.root.join("unpacking"))? {
            let removed = if path.is_dir() { remove_tree(&path) } else { remove_file(&path) };
            failure = failure.or(removed.err());
        }
        failure.map_or(Ok(Some(freed_bytes)), Err)
    }

    /// A layer goes away at once: half of one is never seen.
    fn remove_layer(&self, name: &str, path: &Path) -> Result<()> {
        let aside = self.root.join("unpacking").join(name);
        remove_tree(&aside)?;
        fs::rename(path, &aside).with_context(|| format!("cannot remove {}", path.display()))?;
        remove_tree(&aside)
    }
}

fn entries(directory: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
