//! Where overlayfs cannot be used, such as in a container whose root is an overlay itself, an image's files are copied:
//! once, before the machine's first start. Where the file system has reflinks this copies no bytes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use stead_container::overlay_refused;
use stead_host::history::Layer;
use stead_image::unpack::{Owners, XattrSpace, flatten};

/// Copies the layers, if they cannot be mounted; whether it did. What was written over them before is not given up.
pub(super) fn copy(own: &Layer, layers: &[PathBuf]) -> Result<bool> {
    let upper = own.upper();
    let mut written = fs::read_dir(&upper).with_context(|| format!("cannot read {}", upper.display()))?;
    if written.next().is_some() || overlay_refused(own.path())?.is_none() {
        return Ok(false);
    }
    let unfinished = own.path().join("flat-unfinished");
    stead_container::delete(&unfinished)?;
    let doing = || format!("cannot copy the image to {}", unfinished.display());
    fs::create_dir(&unfinished).with_context(doing)?;
    let (space, owners) = match stead_container::is_mapped_here()? {
        true => (XattrSpace::User, Owners::KeepOrOwn),
        false => (XattrSpace::Trusted, Owners::Keep),
    };
    let skips = flatten(layers, space, &unfinished, owners).with_context(doing)?;
    for skip in &skips.first {
        tracing::warn!("{}: {}", skip.name, skip.what);
    }
    fs::rename(&unfinished, own.flat()).with_context(doing)?;
    Ok(true)
}
