//! buildah's storage, for as long as nobody builds: all in it is there for later builds only. What is built is in our store.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, Result};

use stead_host::home::Home;
use stead_host::linux::{delete_tree, measure_tree};

use crate::working::Working;

/// Below the run directory, locked together by those that build and alone by who deletes it.
const LOCK: &str = "build.lock";

/// Where buildah keeps what a restart ends.
pub(super) fn run(home: &Home) -> PathBuf {
    home.run.join("build")
}

/// Keeps the storage from being deleted while the lock is held. Waits where that is being done.
pub(super) fn hold(home: &Home) -> Result<File> {
    let file = lock_file(home)?;
    let doing = || "cannot lock the storage of builds";
    match file.try_lock_shared() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
    }
    let _working = Working::on("waiting until what builds keep is removed");
    file.lock_shared().with_context(doing)?;
    Ok(file)
}

/// Deletes it, and gives how many bytes that freed; none if somebody builds.
pub(in crate::commands) fn prune(home: &Home) -> Result<Option<u64>> {
    let alone = lock_file(home)?;
    match alone.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            return Err(error).context("cannot lock the storage of builds");
        }
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut freed_bytes = 0;
    // What the names in it mean is known as long as it is there.
    let entries = fs::read_dir(home.build()).into_iter().flatten().flatten();
    let storage = entries.map(|entry| entry.path()).filter(|path| *path != home.build().join(super::CLAIMS));
    for tree in storage.chain([home.build(), run(home)]) {
        freed_bytes += measure_tree(&program, &tree)?;
        delete_tree(&program, &tree)?;
    }
    Ok(Some(freed_bytes))
}

fn lock_file(home: &Home) -> Result<File> {
    let path = home.run.join(LOCK);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_deleted_when_nobody_builds() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().join("state"), run: directory.path().join("run") };
        fs::create_dir(&home.run).unwrap();
        let kept = home.build().join("mounted-caches/file");
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::write(&kept, [1; 5000]).unwrap();
        let builds = [hold(&home).unwrap(), hold(&home).unwrap()];
        assert_eq!(prune(&home).unwrap(), None);
        assert!(kept.exists());
        drop(builds);
        assert!(prune(&home).unwrap().unwrap() >= 5000);
        assert!(!home.build().exists());
        assert_eq!(prune(&home).unwrap(), Some(0));
    }
}
