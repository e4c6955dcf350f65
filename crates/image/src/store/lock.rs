//! Locks between processes: files that one or many hold. They end with the process that holds them.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// With whom a lock is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// With others who say the same.
    Many,
    /// With nobody.
    One,
}

/// How often somebody who waits looks again: nobody notices it, and it costs nothing.
const POLL: Duration = Duration::from_millis(20);

impl Lock {
    /// Takes the lock, waiting for others as long as `goes_on` says that they do something. It is asked every few
    /// milliseconds with the time waited so far.
    pub(crate) fn take(path: &Path, share: Share, mut goes_on: impl FnMut(Duration) -> bool) -> Result<Self> {
        let start = Instant::now();
        loop {
            if let Some(lock) = Self::attempt(path, share)? {
                return Ok(lock);
            }
            if !goes_on(start.elapsed()) {
                bail!("another process has held {} for too long", path.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Takes the lock if nobody is in the way.
    pub(crate) fn attempt(path: &Path, share: Share) -> Result<Option<Self>> {
        let cannot = || format!("cannot lock {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(cannot)?;
        let taken = match share {
            Share::Many => file.try_lock_shared(),
            Share::One => file.try_lock(),
        };
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        // Who held it before us may have moved or removed the file: then this is a lock on nothing.
        let ours = file.metadata().with_context(cannot)?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                Ok(Some(Self { file, path: path.to_path_buf() }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(cannot),
        }
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Takes the file away, and lets go.
    pub(crate) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_excludes_all_and_many_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::attempt(&path, Share::Many).unwrap().unwrap();
        let second = Lock::attempt(&path, Share::Many).unwrap().unwrap();
        assert!(Lock::attempt(&path, Share::One).unwrap().is_none());
        drop((first, second));
        let only = Lock::attempt(&path, Share::One).unwrap().unwrap();
        assert!(Lock::attempt(&path, Share::Many).unwrap().is_none());
        let error = Lock::take(&path, Share::Many, |waited| waited < Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("for too long"));
        only.remove().unwrap();
        Lock::attempt(&path, Share::Many).unwrap().unwrap();
    }

    #[test]
    fn a_lock_that_was_removed_while_another_waited_is_taken_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::attempt(&path, Share::One).unwrap().unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, Share::One, |waited| waited < Duration::from_secs(10)).unwrap()
        });
        first.remove().unwrap();
        let second = waiting.join().unwrap();
        let here = std::fs::metadata(&path).unwrap();
        assert_eq!(here.ino(), second.file().metadata().unwrap().ino());
    }
}
