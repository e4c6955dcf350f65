//! The texts of secrets and configs that stand in a project's file or environment: a file each, there for as long as a
//! machine that is on record mounts it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_model::container::Mount;
use stead_model::name::MachineId;
use stead_model::observed::MachineState;

use crate::home::{Home, remove_if_there, write_for_all};

/// Writes those that are not there: whoever a program in a machine is may read them. Around them is the home, which is
/// ours alone. For the one that changes the home now.
pub fn store_texts(home: &Home, texts: &BTreeMap<PathBuf, String>) -> Result<()> {
    if texts.is_empty() {
        return Ok(());
    }
    let directory = home.texts();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut missing = texts.iter().filter(|(path, _)| !path.exists());
    missing.try_for_each(|(path, text)| write_for_all(path, text.as_bytes()))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_text_that_is_there_can_be_read_by_all_from_its_first_moment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        let (is_done, seen) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let Ok(metadata) = fs::metadata(&path) else { continue };
                    assert_eq!(metadata.permissions().mode() & 0o777, 0o444);
                    seen.store(true, Ordering::Relaxed);
                }
            });
            for _ in 0..300 {
                write_for_all(&path, b"open sesame").unwrap();
            }
            while !seen.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            is_done.store(true, Ordering::Relaxed);
        });
    }
}
