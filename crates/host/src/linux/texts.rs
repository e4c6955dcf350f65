//! The texts of secrets and configs that stand in a project's file or environment: a file each, there for as long as a
//! machine that is on record mounts it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_model::container::Mount;
use stead_model::name::MachineId;
use stead_model::observed::MachineState;

use crate::home::{Home, remove_if_there, write_whole};

/// Whoever a program in a machine is may read it, and nobody write. Around it is the home, which is ours alone.
const MODE: u32 = 0o444;

/// Writes those that are not there. For the one that changes the home now.
pub fn store_texts(home: &Home, texts: &BTreeMap<PathBuf, String>) -> Result<()> {
    if texts.is_empty() {
        return Ok(());
    }
    let directory = home.texts();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (path, text) in texts.iter().filter(|(path, _)| !path.exists()) {
        write_whole(path, text.as_bytes())?;
        fs::set_permissions(path, Permissions::from_mode(MODE))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    }
    Ok(())
}

/// Deletes those that no machine mounts.
pub(super) fn tidy(home: &Home, machines: &BTreeMap<MachineId, MachineState>) -> Result<()> {
    let directory = home.texts();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    let mounts =
        machines.values().filter_map(MachineState::container).flat_map(|made| made.wish.mounts.values());
    let used: BTreeSet<&Path> = mounts
        .filter_map(|mount| match mount {
            Mount::Bind { source, .. } => Some(source.as_path()),
            Mount::Volume { .. } | Mount::Tmpfs { .. } => None,
        })
        .collect();
    let mut unused =
        entries.flatten().map(|entry| entry.path()).filter(|path| !used.contains(path.as_path()));
    unused.try_for_each(|path| remove_if_there(&path))
}
