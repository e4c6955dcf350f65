//! What one build has for itself while it lasts, and who clears up after those that were killed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_host::home::Home;

/// Where secrets of builds are while they last, below the run directory.
const BUILDING: &str = "building";

/// Directories for one build, which go with it.
#[derive(Debug)]
pub(super) struct Scratch {
    /// On the disk, for an image may be large.
    pub(super) path: PathBuf,
    /// In memory, where it can be, for secrets.
    pub(super) texts: PathBuf,
    /// As long as these are locked, no other build takes the directories for left ones.
    _held: [File; 2],
}

impl Scratch {
    pub(super) fn new(home: &Home) -> Result<Self> {
        let (path, held) = make(&home.building())?;
        let (texts, texts_held) = make(&home.run.join(BUILDING))?;
        Ok(Self { path, texts, _held: [held, texts_held] })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
        remove(&self.texts);
    }
}

/// A new directory among those of builds, and the lock on it. Those of builds that were killed go first.
fn make(around: &Path) -> Result<(PathBuf, File)> {
    let doing = || format!("cannot make a directory for a build in {}", around.display());
    fs::create_dir_all(around).with_context(doing)?;
    // Nobody looks for left ones between that one is made and that it is locked.
    let alone = File::open(around).with_context(doing)?;
    alone.lock().with_context(doing)?;
    for entry in fs::read_dir(around).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        // A process id says little: its process may be seen in another namespace only, or be another one by now.
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            remove(&path);
        }
    }
    let path = create(around).with_context(doing)?;
    let held = File::open(&path).with_context(doing)?;
    held.lock().with_context(doing)?;
    Ok((path, held))
}

/// One that was not there: what could not be removed is in nobody's way.
fn create(around: &Path) -> std::io::Result<PathBuf> {
    let mut number = 0_u32;
    loop {
        let path = around.join(format!("{}.{number}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Removes what is left of a build, some of which may belong to others than its user. What stays keeps no other build from
/// being done, and goes with the next.
fn remove(path: &Path) {
    let removed = std::env::current_exe()
        .context("cannot find this program's own file")
        .and_then(|program| stead_host::linux::delete_tree(&program, path));
    if let Err(error) = removed {
        tracing::warn!("what is left of a build is not all gone yet: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_cleared_away() {
        let directory = tempfile::tempdir().unwrap();
        let (first, held) = make(directory.path()).unwrap();
        fs::write(first.join("file"), "").unwrap();
        // Of a build whose process id is another process's now.
        let left = directory.path().join("1");
        fs::create_dir(&left).unwrap();
        let (second, _) = make(directory.path()).unwrap();
        assert!(first.join("file").exists() && !left.exists() && second != first);
        drop(held);
        let (third, _) = make(directory.path()).unwrap();
        assert!(!first.join("file").exists());
        assert_eq!(fs::read_dir(third).unwrap().count(), 0);
    }

    #[test]
    fn what_is_left_of_the_same_process_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _held) = make(directory.path()).unwrap();
        fs::write(first.join("secret-0"), "").unwrap();
        assert!(!create(directory.path()).unwrap().join("secret-0").exists());
    }
}
