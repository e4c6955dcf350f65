//! Volumes: directories.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_model::name::VolumeId;

use super::going;
use crate::home::Home;

pub(super) fn path(home: &Home, id: &VolumeId) -> PathBuf {
    home.volumes().join(id.project.as_str()).join(id.name.as_str())
}

/// Makes a volume.
pub(super) fn add(home: &Home, id: &VolumeId) -> Result<()> {
    let path = path(home, id);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
}

/// Deletes a volume.
pub(super) fn remove(home: &Home, program: &Path, id: &VolumeId) -> Result<()> {
    let path = path(home, id);
    going::send(home, &path, &id.to_string())?;
    // Other volumes of the project may be in there: then it stays.
    let _not_empty = path.parent().map(fs::remove_dir);
    going::tidy(home, program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not needed where all files are ours.
    const PROGRAM: &str = "/nonexistent";

    fn home() -> (tempfile::TempDir, Home) {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home { state: temporary.path().join("state"), run: temporary.path().join("run") };
        (temporary, home)
    }

    #[test]
    fn a_volume_that_was_half_deleted_goes_and_one_of_its_name_stays() {
        let (_temporary, home) = home();
        let id: VolumeId = "data.shop".parse().unwrap();
        add(&home, &id).unwrap();
        fs::write(path(&home, &id).join("precious"), "1").unwrap();
        // A deletion that was cut off, of an earlier volume of this name.
        let half = going::place(&home).join("data.shop.0");
        fs::create_dir_all(half.join("deep/deeper")).unwrap();
        fs::write(half.join("deep/old"), "0").unwrap();
        going::tidy(&home, PROGRAM.as_ref()).unwrap();
        assert!(!going::place(&home).exists());
        assert!(path(&home, &id).join("precious").exists());
        fs::create_dir_all(&half).unwrap();
        remove(&home, PROGRAM.as_ref(), &id).unwrap();
        assert!(!going::place(&home).exists() && !path(&home, &id).exists());
        going::tidy(&home, PROGRAM.as_ref()).unwrap();
    }

    #[test]
    fn the_other_volumes_of_a_project_stay() {
        let (_temporary, home) = home();
        let [data, mail]: [VolumeId; 2] = ["data.shop".parse().unwrap(), "mail.shop".parse().unwrap()];
        for id in [&data, &mail] {
            add(&home, id).unwrap();
            add(&home, id).unwrap();
        }
        remove(&home, PROGRAM.as_ref(), &data).unwrap();
        assert!(path(&home, &mail).exists());
        remove(&home, PROGRAM.as_ref(), &mail).unwrap();
        assert!(!home.volumes().join("shop").exists());
        assert!(remove(&home, PROGRAM.as_ref(), &mail).is_err());
    }
}
