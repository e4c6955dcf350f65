//! One command at a time changes a home. The others wait, and say for whom.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::home::Home;

/// A change takes seconds; a command that holds the home this long is stuck.
const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// From then on waiting feels like hanging.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// How often a waiting command tries again.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The right to change a home, held until dropped. The kernel frees it when its holder dies.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// Another command holds the home for longer than one does that is not stuck.
#[derive(Debug)]
pub struct Held(
    /// Which.
    pub String,
);

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} still holds the home after {} s", self.0, WAIT_LIMIT.as_secs())
    }
}

impl std::error::Error for Held {}

/// Takes the lock, waiting for another command if need be; `waiting` is told once, after half a second.
pub fn lock(home: &Home, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<HomeLock> {
    home.prepare()?;
    loop {
        let file = open(home, true).with_context(|| doing(home))?;
        match turn(home, file, me, waiting)? {
            Some(lock) => return Ok(lock),
            None => home.prepare()?,
        }
    }
}

/// The same for a command that only looks: in a home that is not there, or is purged meanwhile, nobody does anything.
pub fn lock_if_there(home: &Home, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<Option<HomeLock>> {
    match open(home, false) {
        Ok(file) => turn(home, file, me, waiting),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| doing(home)),
    }
}

fn open(home: &Home, make: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(make).truncate(false).open(home.run.join("lock"))
}

fn doing(home: &Home) -> String {
    format!("cannot lock {}", home.run.join("lock").display())
}

/// Waits until the file is ours. None if who held it has purged the home: what we have locked is nobody's file any more.
fn turn(home: &Home, mut file: File, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<Option<HomeLock>> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) if is_at(&file, &home.run.join("lock")) => break,
            Ok(()) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| doing(home)),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited > WAIT_LIMIT {
            return Err(Held(holder(&mut file)).into());
        }
        if !told && waited > TELL_AFTER {
            told = true;
            waiting(&holder(&mut file));
        }
        std::thread::sleep(RETRY_EVERY);
    }
    // Who holds it is only for the message above: a failure to write it changes nothing.
    let _ = file.set_len(0);
    let _ = file.seek(SeekFrom::Start(0));
    let _ = write!(file, "`{me}` (process {})", std::process::id());
    Ok(Some(HomeLock { _file: file }))
}

/// Keeps two commands from bringing up the project in this directory at once: one sees nothing of the jobs that the other
/// has already seen complete. `waiting` is told once, after half a second.
pub fn lock_project(directory: &Path, waiting: &mut dyn FnMut()) -> Result<File> {
    let doing = || format!("cannot lock {}", directory.display());
    let file = File::open(directory).with_context(doing)?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
            Err(TryLockError::WouldBlock) => {}
        }
        if !told && start.elapsed() > TELL_AFTER {
            told = true;
            waiting();
        }
        std::thread::sleep(RETRY_EVERY);
    }
}

/// Takes the lock if nobody has it, and nothing is to be waited for. A home of which nothing runs has none.
pub fn lock_if_free(home: &Home) -> Result<Option<HomeLock>> {
    let Ok(file) = open(home, false) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) if is_at(&file, &home.run.join("lock")) => Ok(Some(HomeLock { _file: file })),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| doing(home)),
    }
}

/// Whether this is the file that is found by this path.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().ok().zip(std::fs::metadata(path).ok()).is_some_and(|(a, b)| same(a, b))
}

/// The words that the holder left.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(200).read_to_string(&mut text));
    match read {
        Ok(length) if length > 0 => text.chars().filter(|c| !c.is_control()).collect(),
        Ok(_) | Err(_) => "another command".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().into(), run: directory.path().into() };
        let first = lock(&home, "stead up", &mut |_| panic!("nobody holds it")).unwrap();
        let mut first = Some(first);
        let mut told = Vec::new();
        lock(&home, "stead down", &mut |holder| {
            told.push(holder.to_owned());
            first.take();
        })
        .unwrap();
        assert_eq!(told, [format!("`stead up` (process {})", std::process::id())]);
    }

    #[test]
    fn the_lock_of_a_home_that_was_purged_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().join("state"), run: directory.path().join("run") };
        let first = lock(&home, "stead purge", &mut |_| panic!("nobody holds it")).unwrap();
        let mut first = Some(first);
        let _second = lock(&home, "stead up", &mut |_| {
            std::fs::remove_dir_all(&home.run).unwrap();
            first.take();
        })
        .unwrap();
        // A third one, whose file is that in the directory, has to wait for the second.
        let third = OpenOptions::new().write(true).open(home.run.join("lock")).unwrap();
        assert!(matches!(third.try_lock(), Err(TryLockError::WouldBlock)));
    }
}
