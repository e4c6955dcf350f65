//! Volumes: directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use stead_container::{Limited, Unlimitable};
use stead_model::container::Mount;
use stead_model::name::{MachineId, Name, VolumeId};
use stead_model::project::Volume;

use super::going;
use crate::home::{Home, remove_if_there, write_whole};

/// Where a volume's data is.
pub fn path(home: &Home, id: &VolumeId) -> PathBuf {
    home.volumes().join(id.project.as_str()).join(id.name.as_str())
}

/// Where the volumes are that a machine mounts, by their names in its project's file; also of those that are not there.
pub fn of_machine(home: &Home, id: &MachineId, mounts: &BTreeMap<String, Mount>) -> BTreeMap<Name, PathBuf> {
    let volumes = mounts.values().filter_map(|mount| match mount {
        Mount::Volume { name, .. } => Some((name.clone(), path(home, &mount.volume(&id.project)?))),
        Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
    });
    volumes.collect()
}

/// The same for one that is about to start. Another command may have deleted one of another project meanwhile.
pub(super) fn to_start(
    home: &Home,
    id: &MachineId,
    mounts: &BTreeMap<String, Mount>,
) -> Result<BTreeMap<Name, PathBuf>> {
    let missing = mounts.values().filter_map(|mount| mount.volume(&id.project));
    if let Some(missing) = missing.into_iter().find(|volume| !path(home, volume).is_dir()) {
        bail!("volume `{missing}` is not there (any more)");
    }
    Ok(of_machine(home, id, mounts))
}

/// What is known of a volume beside its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeNote {
    /// The labels that it was made with.
    pub labels: BTreeMap<String, String>,
}

impl VolumeNote {
    /// Reads it; a volume that was made without a word has none.
    pub fn load(home: &Home, id: &VolumeId) -> Result<Self> {
        let path = note(home, id);
        let doing = || format!("cannot read {}", path.display());
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(doing),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(doing),
        }
    }

    /// Writes it down.
    pub fn store(&self, home: &Home, id: &VolumeId) -> Result<()> {
        write_whole(&note(home, id), &serde_json::to_vec(self).context("cannot write labels as JSON")?)
    }
}

/// Beside the volume, by a name that no volume has.
fn note(home: &Home, id: &VolumeId) -> PathBuf {
    home.volumes().join(id.project.as_str()).join(format!(".{}.json", id.name))
}

/// Makes a volume.
pub(super) fn add(home: &Home, id: &VolumeId, volume: Volume) -> Result<()> {
    let path = path(home, id);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if volume.size_bytes.is_some() { limit(home, id, volume) } else { Ok(()) }
}

/// Limits what is in a volume, or takes its limit away.
pub(super) fn limit(home: &Home, id: &VolumeId, volume: Volume) -> Result<()> {
    // Homes on one file system begin their search for a number at different places.
    let digest = stead_model::address::digest(&["volumes", &home.state.to_string_lossy()]);
    let near = digest.iter().take(4).fold(0, |near: u32, byte| (near << 8) | u32::from(*byte));
    stead_container::limit(&path(home, id), volume.size_bytes, near)
}

/// Why no volume can be limited here, if that is so.
pub fn limit_refused(home: &Home) -> Result<Option<Unlimitable>> {
    let volumes = home.volumes();
    // What is not there yet will be on the file system of what it is made in.
    let there = volumes.ancestors().find(|path| path.exists()).unwrap_or(&volumes);
    stead_container::limit_refused(there)
}

/// How a volume is limited, if it is.
pub fn limited(home: &Home, id: &VolumeId) -> Result<Option<Limited>> {
    // Nobody else can limit anything, nor read what is allowed to others.
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    stead_container::limited(&path(home, id))
}

/// Deletes a volume.
pub(super) fn remove(home: &Home, program: &Path, id: &VolumeId) -> Result<()> {
    let path = path(home, id);
    // What a link leads to may be away.
    if rustix::process::geteuid().is_root() && path.exists() {
        stead_container::release(&path)?;
    }
    going::send_of_others(home, program, &path, &id.to_string())?;
    remove_if_there(&note(home, id))?;
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
        add(&home, &id, Volume::default()).unwrap();
        assert_eq!(VolumeNote::load(&home, &id).unwrap(), VolumeNote::default());
        let labels = VolumeNote { labels: [("team".to_owned(), "a".to_owned())].into() };
        labels.store(&home, &id).unwrap();
        assert_eq!(VolumeNote::load(&home, &id).unwrap(), labels);
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
            add(&home, id, Volume::default()).unwrap();
            add(&home, id, Volume::default()).unwrap();
        }
        remove(&home, PROGRAM.as_ref(), &data).unwrap();
        assert!(path(&home, &mail).exists());
        remove(&home, PROGRAM.as_ref(), &mail).unwrap();
        assert!(!home.volumes().join("shop").exists());
        assert!(remove(&home, PROGRAM.as_ref(), &mail).is_err());
    }
}
