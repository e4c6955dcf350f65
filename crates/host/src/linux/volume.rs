//! Volumes: directories. One that is deleted goes out of sight first, so that half of its data is never
//! taken for the whole.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_model::name::VolumeId;

use crate::home::Home;

fn path(home: &Home, id: &VolumeId) -> PathBuf {
    home.volumes().join(id.project.as_str()).join(id.name.as_str())
}

/// Where volumes are while they are deleted.
fn going(home: &Home) -> PathBuf {
    home.state.join("going")
}

/// Makes a volume.
pub(super) fn add(home: &Home, id: &VolumeId) -> Result<()> {
    let path = path(home, id);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
}

/// Deletes a volume.
pub(super) fn remove(home: &Home, id: &VolumeId) -> Result<()> {
    let path = path(home, id);
    let going = going(home);
    let doing = || format!("cannot delete {}", path.display());
    tidy(home)?;
    fs::create_dir_all(&going).with_context(doing)?;
    fs::rename(&path, going.join(id.to_string())).with_context(doing)?;
    // Other volumes of the project may be in there: then it stays.
    let _not_empty = path.parent().map(fs::remove_dir);
    tidy(home)
}

/// Deletes what is on its way out.
pub(super) fn tidy(home: &Home) -> Result<()> {
    remove_all(&going(home))
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
