//! Layers unpacked into the store.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use stead_image::unpack::{UnpackOptions, unpack_layer};
use stead_image::{Store, UnpackedLayer};
use stead_model::image::Image;

/// Unpacks what of an image is not; `is_real` says whether this is root of the computer, or of a user namespace.
pub(super) fn unpack(store: &Store, image: &Image, is_real: bool) -> Result<()> {
    let options = if is_real { UnpackOptions::default() } else { UnpackOptions::rootless() };
    let one = |archive: File, into: &Path| {
        let unpacked = unpack_layer(archive, into, &options)?;
        for skip in &unpacked.skips.first {
            tracing::warn!("{}: {}", skip.name, skip.what);
        }
        Ok(UnpackedLayer { digest: unpacked.diff_id, size_bytes: size(into)? })
    };
    store.unpack_missing(image, &one, &|_| ())
}

/// What the files of a tree take on the disk.
fn size(directory: &Path) -> Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let doing = || format!("cannot look into {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let metadata = entry.metadata().with_context(doing)?;
            // A file with several names counts in parts.
            bytes += metadata.blocks() * BLOCK_BYTES / metadata.nlink().max(1);
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
