//! Layers unpacked into the store.

use anyhow::Result;

use stead_image::unpack::UnpackOptions;
use stead_image::{Event, Store};
use stead_model::image::Image;

/// Unpacks what of an image is not; `is_real` says whether this is root of the computer, or of a user namespace.
pub(super) fn unpack(store: &Store, image: &Image, is_real: bool) -> Result<()> {
    let options = if is_real { UnpackOptions::default() } else { UnpackOptions::rootless() };
    store.unpack_missing(image, &options, &|event| {
        if let Event::Unpacked { skips, .. } = event {
            for skip in &skips.first {
                tracing::warn!("{}: {}", skip.name, skip.what);
            }
        }
    })
}
