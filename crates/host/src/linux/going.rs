//! Directories that are deleted: they go out of sight first, at one blow, so that half of what was in one is never
//! taken for the whole.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tree;
use crate::home::Home;

/// Where they are meanwhile.
pub(super) fn place(home: &Home) -> PathBuf {
    home.state.join("going")
}

/// Takes a directory out of sight. [`tidy`] deletes it.
pub(super) fn send(home: &Home, directory: &Path, name: &str) -> Result<()> {
    let going = place(home);
    let doing = || format!("cannot delete {}", directory.display());
    fs::create_dir_all(&going).with_context(doing)?;
    // One of this name that could not be deleted may be there still.
    let mut places = (0_u32..).map(|number| going.join(format!("{name}.{number}")));
    let free = places.find(|place| !place.exists()).unwrap_or_else(|| going.join(name));
    fs::rename(directory, free).with_context(doing)
}

/// Deletes what is out of sight.
pub(super) fn tidy(home: &Home, program: &Path) -> Result<()> {
    tree::delete(program, &place(home))
}
